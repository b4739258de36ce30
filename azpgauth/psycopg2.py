"""Signs a connection of psycopg2 in with a credential object; has the pool that we return, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from azpgauth.drivers.dropin import entry_of
from azpgauth.drivers.psycopg2_pool import ConnectionPool
from azpgauth.errors import missing_driver
from azpgauth.runtime.redacted import Redacted
from azpgauth.runtime.waiting import BLOCKING, run

try:
    import psycopg2
    from psycopg2 import extensions
except ImportError as exc:
    raise missing_driver("psycopg2", exc) from exc

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ConnectionPool", "EntraConnection"]


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
        grant = run(entry.login.grant(BLOCKING))
        try:
            added = Redacted(entry.libpq(grant, entry.tls.roots.path))
            initialize(extensions.make_dsn(**{**held.held[0], **added.held}), *args, **asynchronous)
        except psycopg2.Error as exc:
            error = exc.with_traceback(None)
        else:
            entry.login.accepted(grant)
            return
        if run(entry.login.regrant(grant, str(error), BLOCKING)) is not None:
            raise _TryAgain
        raise error


def _parameters(dsn: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What the caller says of the connection, wherever it stands, in libpq's names."""
    parameters = {**extensions.parse_dsn(dsn or ""), **kwargs}
    parameters = {name: value for name, value in parameters.items() if value is not None}
    if "database" in parameters:  # psycopg2's other name of it
        parameters["dbname"] = parameters.pop("database")
    return parameters
