"""Connects with psycopg2: each connection signs in with the token of its moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from azpgauth.drivers.native import OWNED_BY_LIBPQ, check_native, unfit, with_options
from azpgauth.drivers.psycopg2_pool import ConnectionPool
from azpgauth.drivers.signin import KeepFresh, sign_in
from azpgauth.errors import missing_driver

try:
    import psycopg2
    from psycopg2 import extensions
except ImportError as exc:
    raise missing_driver("psycopg2", exc) from exc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

    from azpgauth.drivers.driver import ConnectArguments
    from azpgauth.identity.login import Grant, Login
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
    limit = arguments.plan.connect_timeout
    pool = ConnectionPool(
        lambda left: connecting.connect(None if left is None else min(left, limit)),
        arguments.plan.pool,
        keep_fresh,
        first,
    )
    keep_fresh.start()
    keep_fresh.end_with(pool)
    return pool


def connect(arguments: ConnectArguments, /, *, timeout: int | None = None) -> Any:
    """A `connection`: see `Driver.connect`."""
    return _Connecting.with_(arguments).connect(timeout)


@dataclass(frozen=True)
class _Connecting:
    """Makes the connections of one pool: all but role, password and roots is known."""

    dsn: str = field(repr=False)
    factories: Mapping[str, Any]
    login: Login
    tls: Tls
    longest: int

    @classmethod
    def with_(cls, arguments: ConnectArguments) -> Self:
        """Checked, and put into libpq's form, once for all connections."""
        own, plan = arguments.own, arguments.plan
        check_native(own, _OWNED, None, "psycopg2's connect")
        keywords = with_options(plan.libpq(extensions.libpq_version()), own)
        factories = {name: keywords.pop(name) for name in _FACTORIES if name in keywords}
        try:
            dsn = extensions.make_dsn(**keywords)
        except psycopg2.ProgrammingError as exc:
            raise unfit(TypeError(str(exc).strip())) from None
        return cls(dsn, factories, arguments.login, plan.tls, plan.connect_timeout)

    def connect(self, timeout: int | None = None) -> Any:
        """A connection, within so many seconds, if these are fewer than the plan's."""
        limit = None if timeout is None else min(timeout, self.longest)

        def attempt(grant: Grant, trusted: str) -> Any:
            # In a DSN, what comes later holds.
            fresh = extensions.make_dsn(
                **grant.for_libpq(), **self.tls.libpq(trusted), connect_timeout=limit
            )
            return psycopg2.connect(f"{self.dsn} {fresh}", **self.factories)

        return sign_in(self.login, self.tls.roots, attempt)


_FACTORIES = ("connection_factory", "cursor_factory", "async", "async_")
