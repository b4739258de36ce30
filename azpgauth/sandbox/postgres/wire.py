"""Speaks the little of PostgreSQL's protocol that the sandbox needs itself.

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
    "identifier",
    "parameters",
    "startup",
]

SSL, CANCEL, GSS = 80877103, 80877102, 80877104
"""The codes of requests that come in place of a protocol version."""

ASK_PASSWORD = b"R" + struct.pack("!ii", 8, 3)
"""AuthenticationCleartextPassword."""

_PROTOCOL = 3 << 16
_LONGEST = 63  # bytes of an identifier: NAMEDATALEN - 1


def error(code: str, message: str) -> bytes:
    """A fatal ErrorResponse."""
    fields = {"S": "FATAL", "V": "FATAL", "C": code, "M": message}
    body = b"".join(k.encode() + _bytes(v) + b"\0" for k, v in fields.items()) + b"\0"
    return b"E" + struct.pack("!i", len(body) + 4) + body


def parameters(body: bytes) -> dict[str, str]:
    """The parameters of a startup packet, from behind its protocol version.

    Bytes that are no UTF-8 come as lone surrogates, and go back to the same bytes.
    """
    words = (word.decode(errors="surrogateescape") for word in body.split(b"\0"))
    # An empty name ends them; an empty value does not.
    return {name: next(words, "") for name in iter(lambda: next(words, ""), "")}


def extended(packet: bytes, more: dict[str, str]) -> bytes:
    """A startup packet with further parameters; the last one of a name counts."""
    words = b"".join(_bytes(word) + b"\0" for pair in more.items() for word in pair)
    body = packet[4:-1] + words + b"\0"
    return struct.pack("!i", len(body) + 4) + body


def identifier(name: str) -> str:
    """A name as PostgreSQL keeps it: 63 bytes at most, cut between two characters.

    So it does with a role that is made; of a role that signs in it cuts off bytes, and half a
    character is in its way: https://www.postgresql.org/docs/current/sql-syntax-lexical.html
    """
    whole = _bytes(name)
    return name if len(whole) <= _LONGEST else whole[:_LONGEST].decode(errors="ignore")


def startup(user: str, database: str) -> bytes:
    """A startup packet."""
    words = ["user", user, "database", database]
    body = struct.pack("!i", _PROTOCOL) + b"".join(_bytes(w) + b"\0" for w in words) + b"\0"
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
            words = {
                field[:1]: field[1:].decode(errors="replace")
                for field in body.split(b"\0")
                if field
            }
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


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
