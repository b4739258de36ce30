"""Looks at the network from below the drivers: what answers, and with which TLS."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import struct
import time
from typing import TYPE_CHECKING, Any

from azpgauth.cli.status import Status, StepError, explained

if TYPE_CHECKING:
    from collections.abc import Callable

    from azpgauth.server.tls import Tls

__all__ = ["encrypted", "stamp", "to_address", "to_socket", "unreachable"]

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
"""https://www.postgresql.org/docs/current/protocol-message-formats.html"""


def encrypted(tls: Tls, host: str, place: tuple[str, int], timeout: float) -> dict[str, Any]:
    """What can be seen of the TLS of one address.

    Args:
        tls: What is demanded.
        host: The name that the certificate is to be for.
        place: Address and port.
        timeout: Seconds to wait for each answer.

    Raises:
        StepError: It fails.
    """
    roots = tls.roots
    trusted = roots.path
    while True:
        try:
            found = _handshake(tls, host, place, timeout, trusted)
        except ssl.SSLError as exc:  # noqa: PERF203 - once or twice
            wider = roots.wider(trusted, str(exc))
            if wider is None:
                raise explained(str(exc), Status.TLS) from None
            trusted = wider
        except TimeoutError:
            raise explained(f"{host}: no answer in time, timed out") from None
        except OSError as exc:
            raise explained(f"{host}: the connection was dropped: {exc}") from None
        else:
            roots.proved(trusted)
            return found


def _handshake(
    tls: Tls, host: str, place: tuple[str, int], timeout: float, roots: str
) -> dict[str, Any]:
    context = tls.context(roots)
    assert isinstance(context, ssl.SSLContext)  # noqa: S101 - weaker modes do not come here
    with socket.create_connection(place, timeout) as plain:
        plain.sendall(_SSL_REQUEST)
        answer = plain.recv(1)
        if answer != b"S":
            raise _no_tls(answer, plain)
        with context.wrap_socket(plain, server_hostname=host) as encrypted_socket:
            return _seen(encrypted_socket, roots, verified=tls.verifies)


def _no_tls(answer: bytes, plain: socket.socket) -> StepError:
    """What it means that a server does not say yes to TLS."""
    if not answer:
        return explained("server closed the connection unexpectedly")
    if answer == b"N":
        return explained("server does not support SSL, but SSL was required", Status.TLS)
    if answer == b"E":  # an error message comes in its place
        fields = plain.recv(4096)[4:].split(b"\0")
        said = next((field[1:] for field in fields if field.startswith(b"M")), b"")
        return explained(said.decode(errors="replace") or "the server answered with an error")
    cause, remedy = "something else than PostgreSQL listens there", "check server.port"
    return StepError(f"it answered {answer!r} where S or N is due", cause, remedy, Status.NETWORK)


def _seen(tls: ssl.SSLSocket, roots: str, *, verified: bool) -> dict[str, Any]:
    cipher = tls.cipher()
    found: dict[str, Any] = {"protocol": tls.version(), "cipher": cipher[0] if cipher else None}
    if not verified:
        return {**found, "certificate": "not verified, as sslmode says"}
    certificate: Any = tls.getpeercert()
    names = [name for _, name in certificate.get("subjectAltName", ())]
    ends = ssl.cert_time_to_seconds(certificate["notAfter"])
    return {
        **found,
        "certificate for": ", ".join(names),
        "issued by": _named(certificate["issuer"]),
        "valid until": f"{stamp(ends)}, {round((ends - time.time()) / 86400)} days",
        "trusted roots": roots,
    }


def _named(name: Any) -> str:
    parts = {key: value for group in name for key, value in group}
    return str(parts.get("commonName") or parts.get("organizationName") or "somebody")


def stamp(seconds: float) -> str:
    """A time, for people."""
    return f"{dt.datetime.fromtimestamp(seconds, dt.timezone.utc):%Y-%m-%d %H:%M} UTC"


def unreachable(connect: Callable[[Any, float], None], place: Any, timeout: float) -> str | None:
    """Why there is no connection; None if there is one.

    Args:
        connect: Makes one, and lets it go.
        place: Where.
        timeout: Seconds to wait.
    """
    try:
        connect(place, timeout)
    except OSError as exc:
        return exc.strerror or str(exc)
    return None


def to_address(place: tuple[str, int], timeout: float) -> None:
    """Connect to an address and a port."""
    socket.create_connection(place, timeout).close()


def to_socket(path: str, timeout: float) -> None:
    """Connect to a socket in a folder."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout)
        sock.connect(path)
