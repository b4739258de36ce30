"""The steps of `azpgauth check`, each on its own: from the settings to a query.

A step gives what it found, as pairs for people and programs; what it raises is a `StepError` that
says cause, remedy and exit status. They run in order, and each leaves in `Check` what later ones
need.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from azpgauth.cli.status import Status, status_of
from azpgauth.clouds import CLOUDS
from azpgauth.diagnosis import diagnose, diagnose_token
from azpgauth.errors import AzpgauthError, ConnectError, MissingDriverError, TokenError
from azpgauth.login import TokenLogin
from azpgauth.opening import ASYNC_DRIVERS, closing
from azpgauth.prepare import prepare
from azpgauth.settings import explain, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from azpgauth.opening import Prepared
    from azpgauth.settings import Settings

__all__ = ["STEPS", "Check", "StepError", "told", "unexpected"]

Found = dict[str, Any]
"""What a step found, for people and programs."""

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
"""https://www.postgresql.org/docs/current/protocol-message-formats.html"""

_QUERY = (
    "select current_setting('server_version'), current_user::text, pg_is_in_recovery(), "
    "(select version from pg_stat_ssl where pid = pg_backend_pid())"
)


class StepError(Exception):
    """A step that did not hold.

    Args:
        said: What went wrong, in whoever's words.
        cause: What that means.
        remedy: What to do.
        status: The exit status.
    """

    def __init__(self, said: str, cause: str, remedy: str, status: Status) -> None:
        super().__init__(said)
        self.said = said
        self.cause = cause
        self.remedy = remedy
        self.status = status


class Check:
    """What the steps share.

    Args:
        keywords: Arguments of `load_settings`.
    """

    settings: Settings
    prepared: Prepared

    def __init__(self, keywords: Mapping[str, Any]) -> None:
        self._keywords = keywords
        self._addresses: dict[str, list[str]] = {}
        self._reached: list[tuple[str, tuple[str, int]]] = []
        self._sockets = 0
        self._connection: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def close(self) -> None:
        """Let go of what was opened."""
        if self._connection is not None:
            with suppress(Exception):  # it may be broken
                closed = closing(self._connection)
                if self._loop is not None:
                    self._loop.run_until_complete(closed.__aexit__())
                else:
                    closed.__exit__()
        if self._loop is not None:
            left = asyncio.all_tasks(self._loop)  # if it was interrupted
            for task in left:
                task.cancel()
            self._loop.run_until_complete(_ended(left))
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    # -- the steps ---------------------------------------------------------------------------

    def read_settings(self) -> Found:
        """All sources, checked."""
        self.settings = load_settings(**self._keywords)
        origins = explain(self.settings).settings
        kinds = dict.fromkeys(each.origin.kind for each in origins if each.origin.kind != "default")
        self.prepared = prepare(
            self.settings,
            None,
            None,
            on_loop=self.settings.driver.name in ASYNC_DRIVERS,
        )
        self.prepared.plan.libpq(0)  # says no to what libpq would read behind the settings
        return {
            "server": self.prepared.plan.where,
            "database": self.settings.database.name,
            "from": ", ".join(kinds),
        }

    def find_driver(self) -> Found:
        """Its packages."""
        module, _ = self.prepared.load_driver()
        dialect = self.prepared.options.get("dialect")
        name = self.prepared.driver + (f" with {dialect}" if dialect else "")
        return {"driver": name, "module": module.__name__}

    def look_up(self) -> Found:
        """The host's addresses."""
        said: Found = {}
        for host in self.settings.server.hosts:
            if host.startswith("/"):
                self._addresses[host] = []
                said[host] = "a socket's folder"
                continue
            try:
                answers = socket.getaddrinfo(
                    host, self.settings.server.port, type=socket.SOCK_STREAM
                )
            except (OSError, UnicodeError) as exc:
                said[host] = f"could not resolve host: {exc}"
            else:
                found = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
                self._addresses[host] = found
                said[host] = ", ".join(found)
        if not self._addresses:
            raise _explained("; ".join(f"{host}: {reason}" for host, reason in said.items()))
        return said

    def reach(self) -> Found:
        """Which addresses answer: for each host, the first that does."""
        port = self.settings.server.port
        said: Found = {}
        for host, addresses in self._addresses.items():
            if host.startswith("/"):
                path = f"{host}/.s.PGSQL.{port}"
                reason = _reason(_connect_socket, path, self._patience())
                said[path] = reason or "answers"
                self._sockets += reason is None
            for address in addresses:
                place = address, port
                reason = _reason(_connect, place, self._patience())
                said[f"{address}:{port}"] = reason or "answers"
                if reason is None:
                    self._reached.append((host, place))
                    break
        if not self._reached and not self._sockets:
            places = "; ".join(f"{place}: {reason}" for place, reason in said.items())
            raise _explained(f"connection failed: {places}")
        return said

    def encrypt(self) -> Found:
        """TLS, as the settings demand it: of the first host with which it holds."""
        tls = self.prepared.plan.tls
        if not self._reached:
            return {"mode": "a socket, no TLS"}
        if tls.mode in {"disable", "prefer"}:
            return {"mode": f"{tls.mode}, not demanded"}
        said: Found = {}
        errors = []
        for host, place in self._reached:
            try:
                found = self._verified(host, place)
            except StepError as exc:  # noqa: PERF203 - few hosts
                errors.append(exc)
                said[f"{host} fails"] = exc.said
            else:
                return {**said, "mode": tls.mode, **found}
        raise errors[0]

    def get_token(self) -> Found:
        """Who signs in."""
        login = self.prepared.login
        if not isinstance(login, TokenLogin):
            return {"credential": self.settings.credential.kind, "token": "none is needed"}
        wanted = self.settings.credential
        scope = getattr(wanted, "scope", None) or CLOUDS[self.settings.server.cloud_name].scope
        login.source.get(login.timeout)
        info = login.source.info()
        expires = info.expires_on or 0.0
        return {
            "identity": info.identity,
            "scope": scope,
            "expires": f"{_stamp(expires)}, in {round((expires - time.time()) / 60)} min",
        }

    def find_role(self) -> Found:
        """The PostgreSQL role."""
        grant = self.prepared.login.grant()
        named = self.settings.database.user is not None
        return {"role": grant.role, "from": "database.user" if named else "the token"}

    def sign_in(self) -> Found:
        """A connection, as the driver makes it."""
        if self.prepared.driver in ASYNC_DRIVERS:
            self._loop = asyncio.new_event_loop()
            self._connection = self._loop.run_until_complete(self.prepared.aopened("aconnect"))
        else:
            self._connection = self.prepared.opened("connect")
        return {"signed in as": self.prepared.login.role}

    def query(self) -> Found:
        """What the server says of itself and of this session."""
        try:
            version, user, standby, tls = self._row()
        except Exception as exc:  # noqa: BLE001 - any driver's
            raise _explained(str(exc).strip() or type(exc).__name__, Status.DATABASE) from None
        return {
            "server": f"PostgreSQL {version}",
            "role": user,
            "tls": tls or "none",
            "standby": "yes, writes fail here" if standby else "no",
        }

    # -- what they are made of ----------------------------------------------------------------

    def _patience(self) -> float:
        return float(min(self.settings.server.connect_timeout, 5))

    def _verified(self, host: str, place: tuple[str, int]) -> Found:
        roots = self.prepared.plan.tls.roots
        trusted = roots.path
        while True:
            try:
                found = self._handshake(host, place, trusted)
            except ssl.SSLError as exc:  # noqa: PERF203 - once or twice
                wider = roots.wider(trusted, str(exc))
                if wider is None:
                    raise _explained(str(exc), Status.TLS) from None
                trusted = wider
            except TimeoutError:
                raise _explained(f"{host}: no answer in time, timed out") from None
            except OSError as exc:
                raise _explained(f"{host}: the connection was dropped: {exc}") from None
            else:
                roots.proved(trusted)
                return found

    def _handshake(self, host: str, place: tuple[str, int], roots: str) -> Found:
        context = self.prepared.plan.tls.context(roots)
        assert isinstance(context, ssl.SSLContext)  # noqa: S101 - weaker modes do not come here
        with socket.create_connection(place, self._patience()) as plain:
            plain.sendall(_SSL_REQUEST)
            answer = plain.recv(1)
            if answer != b"S":
                raise _no_tls(answer, plain)
            with context.wrap_socket(plain, server_hostname=host) as tls:
                return _seen(tls, roots, verified=self.prepared.plan.tls.verifies)

    def _row(self) -> tuple[Any, ...]:
        conn = self._connection
        if self._loop is not None:
            return self._loop.run_until_complete(_arow(self.prepared.driver, conn))
        if self.prepared.driver == "sqlalchemy":
            return tuple(conn.exec_driver_sql(_QUERY).one())
        with conn.cursor() as cursor:
            cursor.execute(_QUERY)
            return tuple(cursor.fetchone())


async def _ended(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


async def _arow(driver: str, conn: Any) -> tuple[Any, ...]:
    if driver == "asyncpg":
        return tuple(await conn.fetchrow(_QUERY))
    if driver == "psycopg-async":
        return tuple(await (await conn.execute(_QUERY)).fetchone())
    return tuple((await conn.exec_driver_sql(_QUERY)).one())


def _seen(tls: ssl.SSLSocket, roots: str, *, verified: bool) -> Found:
    cipher = tls.cipher()
    found: Found = {"protocol": tls.version(), "cipher": cipher[0] if cipher else None}
    if not verified:
        return {**found, "certificate": "not verified, as sslmode says"}
    certificate: Any = tls.getpeercert()
    names = [name for _, name in certificate.get("subjectAltName", ())]
    ends = ssl.cert_time_to_seconds(certificate["notAfter"])
    return {
        **found,
        "certificate for": ", ".join(names),
        "issued by": _named(certificate["issuer"]),
        "valid until": f"{_stamp(ends)}, {round((ends - time.time()) / 86400)} days",
        "trusted roots": roots,
    }


def _named(name: Any) -> str:
    parts = {key: value for group in name for key, value in group}
    return str(parts.get("commonName") or parts.get("organizationName") or "somebody")


def _stamp(seconds: float) -> str:
    return f"{dt.datetime.fromtimestamp(seconds, dt.timezone.utc):%Y-%m-%d %H:%M} UTC"


def _reason(connect: Callable[[Any, float], None], place: Any, timeout: float) -> str | None:
    """Why there is no connection; None if there is one."""
    try:
        connect(place, timeout)
    except OSError as exc:
        return exc.strerror or str(exc)
    return None


def _connect(place: tuple[str, int], timeout: float) -> None:
    socket.create_connection(place, timeout).close()


def _connect_socket(path: str, timeout: float) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout)
        sock.connect(path)


def _no_tls(answer: bytes, plain: socket.socket) -> StepError:
    """What it means that a server does not say yes to TLS."""
    if not answer:
        return _explained("server closed the connection unexpectedly")
    if answer == b"N":
        return _explained("server does not support SSL, but SSL was required", Status.TLS)
    if answer == b"E":  # an error message comes in its place
        fields = plain.recv(4096)[4:].split(b"\0")
        said = next((field[1:] for field in fields if field.startswith(b"M")), b"")
        return _explained(said.decode(errors="replace") or "the server answered with an error")
    cause, remedy = "something else than PostgreSQL listens there", "check server.port"
    return StepError(f"it answered {answer!r} where S or N is due", cause, remedy, Status.NETWORK)


def _explained(said: str, otherwise: Status | None = None) -> StepError:
    diagnosis = diagnose(said)
    status = otherwise or status_of(diagnosis.layer if diagnosis.cause else "network")
    return StepError(said, diagnosis.cause, diagnosis.remedy, status)


def told(exc: AzpgauthError, check: Check) -> StepError:
    """An error of the library, as one of a step.

    Args:
        exc: The error.
        check: Where it came up.
    """
    if isinstance(exc, ConnectError) and exc.__cause__ is not None:
        said = str(exc.__cause__).strip() or str(exc)
        login = check.prepared.login
        diagnosis = diagnose(said, login.role, token=isinstance(login, TokenLogin))
        return StepError(said, diagnosis.cause, diagnosis.remedy, status_of(diagnosis.layer))
    if isinstance(exc, TokenError):
        diagnosis = diagnose_token(str(exc))
        return StepError(str(exc), diagnosis.cause, diagnosis.remedy, Status.IDENTITY)
    said, _, remedy = str(exc).partition("; run: ")
    if isinstance(exc, MissingDriverError):
        return StepError(said, "the driver is not installed", f"run: {remedy}", status_of(exc))
    return StepError(str(exc), "", "", status_of(exc))


def unexpected(exc: Exception) -> StepError:
    """What nobody thought of."""
    said = f"{type(exc).__name__}: {exc}"
    return StepError(said, "", "azpgauth --debug check shows where", Status.OTHER)


STEPS: tuple[tuple[str, Callable[[Check], Found]], ...] = (
    ("settings", Check.read_settings),
    ("driver", Check.find_driver),
    ("DNS", Check.look_up),
    ("TCP", Check.reach),
    ("TLS", Check.encrypt),
    ("token", Check.get_token),
    ("role", Check.find_role),
    ("login", Check.sign_in),
    ("query", Check.query),
)
"""The steps by name, in order."""
