"""psycopg2: pools and connections that sign in afresh, each with the token of its moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from azpgauth.dropin import entry_of
from azpgauth.errors import missing_driver
from azpgauth.native import OWNED_BY_LIBPQ, check_native, unfit
from azpgauth.psycopg2_pool import ConnectionPool
from azpgauth.runtime.redacted import Redacted
from azpgauth.signin import Hold, sign_in

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

__all__ = ["ConnectionPool", "EntraConnection", "connect", "errors", "open_pool"]


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


class _TryAgain(Exception):  # noqa: N818 - a signal
    """The server refused a cached token, and there is another one by now."""


class _Retrying(type):
    """A psycopg2 connection cannot be initialized twice: another attempt is another object."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        given = Redacted((args, kwargs))
        del args, kwargs  # a traceback shows locals
        while True:
            try:
                return super().__call__(*given.held[0], **given.held[1])
            except _TryAgain:  # noqa: PERF203 - once or twice
                continue


class EntraConnection(extensions.connection, metaclass=_Retrying):
    """A connection that signs in with a credential object; also as a `connection_factory`.

    Signs in with a token, unless user and password are given. TLS is verified unless `sslmode` (or
    `PGSSLMODE`) says how; below `require` is refused.

    Args:
        dsn: As for psycopg2; a user in it counts.
        credential: A `TokenCredential`, such as `azure.identity.DefaultAzureCredential()`.
        **kwargs: More of libpq's keywords; they come before those of the DSN.

    Raises:
        CredentialValueError: There is no credential, or an async one.
        EntraConnectionValueError: No token, no role, or the token would travel unprotected.
        psycopg2.Error: The server could not be reached, or refused.

    Example:
        >>> factory = partial(EntraConnection, credential=credential)  # doctest: +SKIP
        >>> psycopg2.connect(dsn, connection_factory=factory)  # doctest: +SKIP
    """

    def __init__(self, dsn: str = "", *args: Any, credential: Any = None, **kwargs: Any) -> None:
        held = Redacted((_parameters(dsn, kwargs), credential))
        del dsn, credential, kwargs  # a traceback shows locals
        asynchronous = {k: held.held[0].pop(k) for k in ("async", "async_") if k in held.held[0]}
        initialize = super().__init__
        entry = entry_of(held.held[1], held.held[0])
        if entry is None:
            initialize(extensions.make_dsn(**held.held[0]), *args, **asynchronous)
            return
        # One attempt: what comes after it is up to the metaclass.
        grant = entry.login.grant()
        try:
            added = Redacted(entry.libpq(grant, entry.tls.roots.path))
            initialize(extensions.make_dsn(**{**held.held[0], **added.held}), *args, **asynchronous)
        except psycopg2.Error as exc:
            error = exc.with_traceback(None)
        else:
            entry.login.accepted(grant)
            return
        if entry.login.regrant(grant, str(error)) is not None:
            raise _TryAgain
        raise error


def _parameters(dsn: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What the caller says of the connection, wherever it stands, in libpq's names."""
    parameters = {**extensions.parse_dsn(dsn or ""), **kwargs}
    parameters = {name: value for name, value in parameters.items() if value is not None}
    if "database" in parameters:  # psycopg2's other name of it
        parameters["dbname"] = parameters.pop("database")
    return parameters
