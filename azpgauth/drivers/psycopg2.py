"""psycopg2: pools and connections that sign in afresh, each with the token of its moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from azpgauth.drivers.native import OWNED_BY_LIBPQ, check_native, unfit
from azpgauth.drivers.psycopg2_pool import ConnectionPool
from azpgauth.drivers.signin import Hold, sign_in
from azpgauth.errors import missing_driver

try:
    import psycopg2
    from psycopg2 import extensions
except ImportError as exc:
    raise missing_driver("psycopg2", exc) from exc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

    from azpgauth.identity.login import Grant, Login
    from azpgauth.server.plan import ConnectPlan
    from azpgauth.server.tls import Tls

__all__ = ["connect", "errors", "open_pool"]


def errors() -> tuple[type[BaseException], ...]:
    """What a failed connect raises."""
    return (psycopg2.Error,)


_OWNED = OWNED_BY_LIBPQ | {"dsn", "minconn", "maxconn", "database"}


def open_pool(
    plan: ConnectPlan,
    login: Login,
    native: Mapping[str, Any] | None = None,
    *,
    timeout: int | None = None,
) -> ConnectionPool:
    """An open pool with one connection made and proven.

    Args:
        plan: Where to connect.
        login: What to sign in with.
        native: Arguments of `psycopg2.connect`.
        timeout: Seconds for the first connection, if it shall have less than those to come.

    Raises:
        psycopg2.Error: The first connection failed; one attempt is made.
        SettingsError: `native` has a key that is unknown or that azpgauth owns.
    """
    how = _How.of(plan, native)
    first = how.connect(login, timeout)
    hold = Hold(login)
    pool = ConnectionPool(lambda: how.connect(login), plan.pool, hold, first)
    hold.start()
    hold.end_with(pool)
    return pool


def connect(
    plan: ConnectPlan,
    login: Login,
    native: Mapping[str, Any] | None = None,
    *,
    timeout: int | None = None,
) -> Any:
    """One connection.

    Args:
        plan: Where to connect.
        login: What to sign in with.
        native: Arguments of `psycopg2.connect`.
        timeout: Seconds, if it shall have less than the plan says.

    Raises:
        psycopg2.Error: It failed; one attempt is made.
        SettingsError: `native` has a key that is unknown or that azpgauth owns.
    """
    return _How.of(plan, native).connect(login, timeout)


@dataclass(frozen=True)
class _How:
    """How the connections of one pool are made: all but role, password and roots."""

    dsn: str = field(repr=False)
    factories: Mapping[str, Any]
    tls: Tls

    @classmethod
    def of(cls, plan: ConnectPlan, native: Mapping[str, Any] | None) -> Self:
        """Checked, and put into libpq's form, once for all connections."""
        check_native(native or {}, _OWNED, None, "psycopg2's connect")
        keywords = {**plan.libpq(extensions.libpq_version()), **(native or {})}
        factories = {name: keywords.pop(name) for name in _FACTORIES if name in keywords}
        try:
            return cls(extensions.make_dsn(**keywords), factories, plan.tls)
        except psycopg2.ProgrammingError as exc:
            raise unfit(TypeError(str(exc).strip())) from None

    def connect(self, login: Login, timeout: int | None = None) -> Any:
        """A connection."""

        def attempt(grant: Grant, trusted: str) -> Any:
            # In a DSN, what comes later holds.
            fresh = extensions.make_dsn(
                **grant.for_libpq(), **self.tls.libpq(trusted), connect_timeout=timeout
            )
            return psycopg2.connect(f"{self.dsn} {fresh}", **self.factories)

        return sign_in(login, self.tls.roots, attempt)


_FACTORIES = ("connection_factory", "cursor_factory", "async", "async_")
