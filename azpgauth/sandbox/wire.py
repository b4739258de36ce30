"""The little of PostgreSQL's protocol that the sandbox speaks itself.

https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import socket
import struct

__all__ = [
    "ASK_PASSWORD",
    "CANCEL",
    "GSS",
    "SSL",
    "error",
    "execute",
    "extended",
    "parameters",
    "startup",
]

SSL, CANCEL, GSS = 80877103, 80877102, 80877104
"""The codes of requests that come in place of a protocol version."""

ASK_PASSWORD = b"R" + struct.pack("!ii", 8, 3)
"""AuthenticationCleartextPassword."""

_PROTOCOL = 3 << 16


def error(code: str, message: str) -> bytes:
    """A fatal ErrorResponse."""
    fields = {"S": "FATAL", "V": "FATAL", "C": code, "M": message}
    body = b"".join(k.encode() + v.encode() + b"\0" for k, v in fields.items()) + b"\0"
    return b"E" + struct.pack("!i", len(body) + 4) + body


def parameters(body: bytes) -> dict[str, str]:
    """The parameters of a startup packet, from behind its protocol version."""
    words = body.rstrip(b"\0").split(b"\0")
    text = [word.decode(errors="replace") for word in words]
    return dict(zip(text[::2], text[1::2], strict=False))


def extended(packet: bytes, more: dict[str, str]) -> bytes:
    """A startup packet with further parameters."""
    words = b"".join(word.encode() + b"\0" for pair in more.items() for word in pair)
    body = packet[4:-1] + words + b"\0"
    return struct.pack("!i", len(body) + 4) + body


def startup(user: str, database: str) -> bytes:
    """A startup packet."""
    words = ["user", user, "database", database]
    body = struct.pack("!i", _PROTOCOL) + b"".join(w.encode() + b"\0" for w in words) + b"\0"
    return struct.pack("!i", len(body) + 4) + body


def execute(path: str, sql: str, database: str = "postgres") -> None:
    """Run statements as the superuser over the server's socket.

    Args:
        path: The socket's path.
        sql: The statements.
        database: Where.

    Raises:
        ConnectionError: The server is not there, or not ready.
        RuntimeError: It refused a statement.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(10)
        sock.connect(path)
        sock.sendall(startup("postgres", database))
        try:
            _until_ready(sock)
        except RuntimeError as exc:
            raise ConnectionError(str(exc)) from None
        body = sql.encode() + b"\0"
        sock.sendall(b"Q" + struct.pack("!i", len(body) + 4) + body)
        _until_ready(sock)
        sock.sendall(b"X" + struct.pack("!i", 4))


def _until_ready(sock: socket.socket) -> None:
    refusal = None
    while True:
        kind, length = struct.unpack("!ci", _exactly(sock, 5))
        body = _exactly(sock, length - 4)
        if kind == b"E":
            words = {field[:1]: field[1:].decode() for field in body.split(b"\0") if field}
            refusal = words.get(b"M", "")
            if words.get(b"S") == "FATAL":
                raise RuntimeError(refusal)
        elif kind == b"Z":
            if refusal is not None:
                raise RuntimeError(refusal)
            return


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise ConnectionError("the server closed the connection")
        data += part
    return data
