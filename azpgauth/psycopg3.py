"""Signs connections of psycopg 3 in with a credential object, as azure-postgresql-auth does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from azpgauth.drivers.dropin import Given
from azpgauth.drivers.pooler import look_at_dropin
from azpgauth.drivers.signin import asign_in, refuse_proactor, sign_in
from azpgauth.errors import missing_driver
from azpgauth.runtime.importing import guard

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
except ImportError as exc:
    raise missing_driver("psycopg", exc) from exc

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AsyncEntraConnection", "EntraConnection"]


class EntraConnection(psycopg.Connection[Any]):
    """A connection that signs in with a credential object; also as a pool's `connection_class`.

    Example:
        >>> EntraConnection.connect(  # doctest: +SKIP
        ...     "host=shop.postgres.database.azure.com dbname=shop",
        ...     credential=DefaultAzureCredential(),
        ... )
    """

    @classmethod
    def connect(cls, conninfo: str = "", *, credential: Any = None, **kwargs: Any) -> Self:
        """Sign in with a token, unless user and password are given.

        TLS is verified unless `sslmode` (or `PGSSLMODE`) says how; below `require` is refused.

        Args:
            conninfo: As for psycopg; a user in it counts.
            credential: A `TokenCredential`, such as `azure.identity.DefaultAzureCredential()`.
            **kwargs: As for psycopg.

        Raises:
            CredentialValueError: There is no credential, or an async one.
            EntraConnectionValueError: No token, no role, or the token would travel unprotected.
            psycopg.Error: The server could not be reached, or refused.
        """
        given = Given(conninfo, credential, kwargs, conninfo_to_dict)
        del conninfo, credential, kwargs  # a traceback shows locals
        entry = given.entry()
        connect = super().connect
        if entry is None:
            return given.call(connect)  # type: ignore[no-any-return]
        conn: Self = sign_in(
            entry.login,
            entry.tls.roots,
            lambda grant, trusted: given.call(connect, entry.libpq(grant, trusted)),
        )
        if not given.says("prepare_threshold"):
            look_at_dropin(conn)
        return conn


class AsyncEntraConnection(psycopg.AsyncConnection[Any]):
    """As `EntraConnection`, on an event loop; its credential may be sync or async."""

    @classmethod
    async def connect(cls, conninfo: str = "", *, credential: Any = None, **kwargs: Any) -> Self:
        """As `EntraConnection.connect`, on an event loop.

        Args:
            conninfo: As for psycopg; a user in it counts.
            credential: A `TokenCredential`, or an `AsyncTokenCredential` of this event loop.
            **kwargs: As for psycopg.

        Raises:
            CredentialValueError: There is no credential.
            EntraConnectionValueError: No token, no role, or the token would travel unprotected.
            psycopg.Error: The server could not be reached, or refused.
        """
        refuse_proactor(asyncio.get_running_loop())
        given = Given(conninfo, credential, kwargs, conninfo_to_dict)
        del conninfo, credential, kwargs  # a traceback shows locals
        # On a thread: the first look at the trusted roots reads the bundle.
        with guard():  # what the first thread needs is imported by now
            pass
        entry = await asyncio.to_thread(given.entry, on_loop=True)
        connect = super().connect
        if entry is None:
            return await given.call(connect)  # type: ignore[no-any-return]
        conn: Self = await asign_in(
            entry.login,
            entry.tls.roots,
            lambda grant, trusted: given.call(connect, entry.libpq(grant, trusted)),
        )
        if not given.says("prepare_threshold"):
            look_at_dropin(conn)
        return conn
