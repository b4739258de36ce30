"""Connects with psycopg2: each connection signs in with the token of its moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any

from azpgauth.drivers.asking import PSYCOPG2
from azpgauth.drivers.connector import Connector
from azpgauth.drivers.native import OWNED_BY_LIBPQ, check_native, unfit, with_options
from azpgauth.drivers.psycopg2_pool import ConnectionPool
from azpgauth.drivers.signin import KeepFresh
from azpgauth.errors import missing_driver
from azpgauth.runtime.waiting import BLOCKING, run

try:
    import psycopg2
    from psycopg2 import extensions
except ImportError as exc:
    raise missing_driver("psycopg2", exc) from exc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

    from azpgauth.drivers.connector import Attempt
    from azpgauth.drivers.driver import ConnectArguments
    from azpgauth.server.targets import Server
    from azpgauth.server.tls import Tls

__all__ = ["connect", "errors", "open_pool"]


def errors(_: ConnectArguments, /) -> tuple[type[BaseException], ...]:
    """What a failed connect raises."""
    return (psycopg2.Error,)


_OWNED = OWNED_BY_LIBPQ | {"dsn", "minconn", "maxconn", "database"}


def open_pool(arguments: ConnectArguments, /, *, timeout: int | None = None) -> ConnectionPool:
    """A `ThreadedConnectionPool`: see `Driver.open_pool`."""
    connecting = _Connecting.with_(arguments)
    first = connecting.connect(timeout)
    keep_fresh = KeepFresh(arguments.login)
    limits = arguments.plan.pool
    pool = ConnectionPool(connecting.connect, connecting.good, limits, keep_fresh, first)
    keep_fresh.start()
    keep_fresh.end_with(pool)
    return pool


def connect(arguments: ConnectArguments, /, *, timeout: int | None = None) -> Any:
    """A `connection`: see `Driver.connect`."""
    return _Connecting.with_(arguments, pooled=False).connect(timeout)


@dataclass(frozen=True)
class _Connecting:
    """Makes the connections of one pool: all but server, role, password and roots is known."""

    dsn: str = field(repr=False)
    factories: Mapping[str, Any]
    tls: Tls
    connector: Connector
    places: dict[tuple[Server, str, int], str] = field(default_factory=dict, repr=False)

    @classmethod
    def with_(cls, arguments: ConnectArguments, *, pooled: bool = True) -> Self:
        """Checked, and put into libpq's form, once for all connections."""
        own, plan = arguments.own, arguments.plan
        check_native(own, _OWNED, None, "psycopg2's connect")
        keywords = with_options(plan.libpq(extensions.libpq_version()), own)
        factories = {name: keywords.pop(name) for name in _FACTORIES if name in keywords}
        try:
            dsn = extensions.make_dsn(**keywords)
        except psycopg2.ProgrammingError as exc:
            raise unfit(TypeError(str(exc).strip())) from None
        connector = Connector(arguments, PSYCOPG2, pooled=pooled)
        return cls(dsn, factories, plan.tls, connector)

    def connect(self, seconds: int | None = None) -> Any:
        """A connection, within so many seconds, if these are fewer than the plan's."""
        return run(self.connector.connect(self._connect, BLOCKING, seconds))

    def good(self, conn: Any, used_at: float, seconds: float) -> bool:
        """Whether a connection can be handed out; see `Connector.good`."""
        return self.connector.fresh(conn, used_at) or run(
            self.connector.good(conn, used_at, seconds, BLOCKING)
        )

    def _connect(self, attempt: Attempt) -> Any:
        # In a DSN, what comes later holds. psycopg2's make_dsn looks at a token letter by letter.
        signed = (f"{name}={_quoted(value)}" for name, value in attempt.grant.for_libpq().items())
        return psycopg2.connect(" ".join([self._place(attempt), *signed]), **self.factories)

    def _place(self, attempt: Attempt) -> str:
        """The DSN without role and password, made once for each server."""
        key = (attempt.server, attempt.roots, ceil(attempt.seconds))
        found = self.places.get(key)
        if found is None:
            server, roots, seconds = key
            place = extensions.make_dsn(
                **server.libpq(), **self.tls.libpq(roots), connect_timeout=seconds
            )
            found = self.places[key] = f"{self.dsn} {place}"
        return found


def _quoted(value: str) -> str:
    """A value as a DSN has it.

    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-KEYWORD-VALUE
    """
    value = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{value}'"


_FACTORIES = ("connection_factory", "cursor_factory", "async", "async_")
