"""Does the steps of `azpgauth check`, each on its own: from the settings to a query.

A step gives what it found, as pairs for people and programs; what it raises is a `StepError` that
says cause, remedy and exit status. They run in order, and each leaves in `Check` what later ones
need.
"""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from azpgauth.cli.check.probe import encrypted, stamp, to_address, to_socket, unreachable
from azpgauth.cli.status import Status, StepError, explained, status_of
from azpgauth.errors import (
    AzpgauthError,
    ConnectError,
    MissingDriverError,
    RoleError,
    SettingsError,
    TokenError,
)
from azpgauth.identity.login import TokenLogin
from azpgauth.opening.attempts import aopened, load_driver, opened
from azpgauth.opening.closing import closing
from azpgauth.opening.prepare import prepare
from azpgauth.runtime.drivers import ASYNC_DRIVERS, DRIVERS
from azpgauth.runtime.waiting import BLOCKING, run
from azpgauth.server.clouds import CLOUDS
from azpgauth.server.tls import ENCRYPTING
from azpgauth.settings import explain, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from azpgauth.drivers.driver import ConnectArguments
    from azpgauth.server.targets import Server
    from azpgauth.settings import Settings

__all__ = ["STEPS", "Check", "StepError", "step_error", "unexpected"]

Found = dict[str, Any]
"""What a step found, for people and programs."""

_QUERY = (
    "select current_setting('server_version'), current_user::text, pg_is_in_recovery(), "
    "(select version from pg_stat_ssl where pid = pg_backend_pid()), pg_backend_pid(), "
    # Where all that came was replayed, nothing is missing, however old the last transaction.
    "case when pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() then 0 "
    "else extract(epoch from now() - pg_last_xact_replay_timestamp())::float8 end"
)


class Check:
    """What the steps share.

    Args:
        keywords: Arguments of `load_settings`.
    """

    settings: Settings
    arguments: ConnectArguments

    def __init__(self, keywords: Mapping[str, Any]) -> None:
        self._keywords = keywords
        self._addresses: dict[Server, list[str]] = {}
        self._reached: list[tuple[str, tuple[str, int]]] = []
        self._sockets = 0
        self.set_aside: list[str] = []
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
        explanation = explain(self.settings)
        self.set_aside = explanation.set_aside()
        origins = explanation.settings
        kinds = dict.fromkeys(each.origin.kind for each in origins if each.origin.kind != "default")
        self.arguments = prepare(
            self.settings,
            None,
            None,
            on_loop=self.settings.driver.name in ASYNC_DRIVERS,
        )
        self.arguments.plan.libpq(0)  # says no to what libpq would read behind the settings
        return {
            "server": self.arguments.plan.where,
            "database": self.settings.database.name,
            "from": ", ".join(kinds),
        }

    def find_driver(self) -> Found:
        """Its packages."""
        module, _ = load_driver(self.arguments)
        name: str = self.arguments.driver
        if DRIVERS[self.arguments.driver].dialects:
            name += f" with {self.arguments.dialect}"
        return {"driver": name, "module": module.__name__}

    def look_up(self) -> Found:
        """The host's addresses."""
        said: Found = {}
        for server in self.arguments.plan.servers:
            host = server.host
            if host.startswith("/"):
                self._addresses[server] = []
                said[host] = "a socket's folder"
                continue
            try:
                answers = socket.getaddrinfo(
                    server.address or host, server.port, type=socket.SOCK_STREAM
                )
            except (OSError, UnicodeError) as exc:
                said[host] = f"could not resolve host: {exc}"
            else:
                found = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
                self._addresses[server] = found
                said[host] = ", ".join(found)
        if not self._addresses:
            raise explained("; ".join(f"{host}: {reason}" for host, reason in said.items()))
        return said

    def reach(self) -> Found:
        """Which addresses answer: for each host, the first that does."""
        said: Found = {}
        for server, addresses in self._addresses.items():
            if server.host.startswith("/"):
                path = f"{server.host}/.s.PGSQL.{server.port}"
                reason = unreachable(to_socket, path, self._patience())
                said[path] = reason or "answers"
                self._sockets += reason is None
            for address in addresses:
                place = address, server.port
                reason = unreachable(to_address, place, self._patience())
                said[f"{address}:{server.port}"] = reason or "answers"
                if reason is None:
                    self._reached.append((server.host, place))
                    break
        if not self._reached and not self._sockets:
            places = "; ".join(f"{place}: {reason}" for place, reason in said.items())
            raise explained(f"connection failed: {places}")
        return said

    def encrypt(self) -> Found:
        """TLS, as the settings demand it: of the first host with which it works."""
        tls = self.arguments.plan.tls
        if not self._reached:
            return {"mode": "a socket, no TLS"}
        if tls.mode not in ENCRYPTING:
            return {"mode": f"{tls.mode}, not demanded"}
        said: Found = {}
        errors = []
        for host, place in self._reached:
            try:
                found = encrypted(tls, host, place, self._patience())
            except StepError as exc:  # noqa: PERF203 - few hosts
                errors.append(exc)
                said[f"{host} fails"] = exc.said
            else:
                return {**said, "mode": tls.mode, **found}
        raise errors[0]

    def get_token(self) -> Found:
        """Who signs in."""
        login = self.arguments.login
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
            "expires": f"{stamp(expires)}, in {round((expires - time.time()) / 60)} min",
        }

    def find_role(self) -> Found:
        """The PostgreSQL role."""
        grant = run(self.arguments.login.grant(BLOCKING))
        named = self.settings.database.user is not None
        return {"role": grant.role, "from": "database.user" if named else "the token"}

    def sign_in(self) -> Found:
        """A connection, as the driver makes it."""
        if self.arguments.driver in ASYNC_DRIVERS:
            self._loop = asyncio.new_event_loop()
            self._connection = self._loop.run_until_complete(aopened(self.arguments, "aconnect"))
        else:
            self._connection = opened(self.arguments, "connect")
        return {"signed in as": self.arguments.login.role}

    def query(self) -> Found:
        """What the server says of itself and of this session."""
        try:
            version, user, standby, tls, process_id, behind = self._row()
        except Exception as exc:  # noqa: BLE001 - any driver's
            raise explained(str(exc).strip() or type(exc).__name__, Status.DATABASE) from None
        raw = _driver_connection(self._connection)
        found: Found = {
            "server": f"PostgreSQL {version}",
            "role": user,
            "tls": tls or "none",
            "standby": f"yes, {_lag(behind)} behind; writes fail here" if standby else "no",
            "pooler": "PgBouncer" if process_id != _process_id(raw) else "none",
        }
        if len(self.arguments.plan.servers) > 1:
            found["host"] = _place(raw)
        return found

    # -- what they are made of ----------------------------------------------------------------

    def _patience(self) -> float:
        return float(min(self.settings.server.connect_timeout, 5))

    def _row(self) -> tuple[Any, ...]:
        conn = self._connection
        if self._loop is not None:
            return self._loop.run_until_complete(_arow(self.arguments.driver, conn))
        if self.arguments.driver == "sqlalchemy":
            return tuple(conn.exec_driver_sql(_QUERY).one())
        with conn.cursor() as cursor:
            cursor.execute(_QUERY)
            return tuple(cursor.fetchone())


def _driver_connection(conn: Any) -> Any:
    conn = getattr(conn, "sync_connection", conn)
    return conn.connection.driver_connection if hasattr(conn, "exec_driver_sql") else conn


def _process_id(raw: Any) -> int:
    """The server's process, as the new connection was told: PgBouncer tells a number of its own."""
    found: int = raw.get_server_pid() if hasattr(raw, "get_server_pid") else raw.info.backend_pid
    return found


def _place(raw: Any) -> str:
    """Where a connection leads."""
    if hasattr(raw, "get_server_pid"):
        host, port = raw._addr[:2]  # noqa: SLF001 - asyncpg has no other way
    else:
        host, port = raw.info.host, raw.info.port
    return f"{host}:{port}"


def _lag(seconds: float | None) -> str:
    return "an unknown time" if seconds is None else f"{seconds:.1f} s"


async def _ended(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


async def _arow(driver: str, conn: Any) -> tuple[Any, ...]:
    if driver == "asyncpg":
        return tuple(await conn.fetchrow(_QUERY))
    if driver == "psycopg-async":
        return tuple(await (await conn.execute(_QUERY)).fetchone())
    return tuple((await conn.exec_driver_sql(_QUERY)).one())


def step_error(exc: AzpgauthError) -> StepError:
    """An error of the library, as one of a step.

    Args:
        exc: The error.
    """
    if isinstance(exc, (ConnectError, TokenError, RoleError)):
        theirs = str(exc.__cause__ or "").strip() if isinstance(exc, ConnectError) else ""
        status = status_of(exc)
        return StepError(theirs or exc.said, exc.cause, exc.remedy, status, ours=not theirs)
    if isinstance(exc, MissingDriverError):
        said = exc.said or str(exc)
        return StepError(said, "the driver is not installed", exc.remedy, status_of(exc))
    problems = exc.problems if isinstance(exc, SettingsError) else ()
    return StepError(str(exc), "", "", status_of(exc), problems=problems, ours=True)


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
