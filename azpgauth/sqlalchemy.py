"""Signs SQLAlchemy's engines in with a credential object, as azure-postgresql-auth does."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from typing import TYPE_CHECKING, Any

from azpgauth.drivers.dropin import Entry, check_credential, entry_of
from azpgauth.drivers.signin import refuse_proactor, sign_in
from azpgauth.drivers.sqlalchemy import IN_GREENLET
from azpgauth.errors import EntraConnectionValueError, missing_driver
from azpgauth.runtime.importing import guard
from azpgauth.runtime.redacted import Redacted
from azpgauth.runtime.waiting import BLOCKING

try:
    import sqlalchemy
    from sqlalchemy import event
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.util import await_only
except ImportError as exc:
    raise missing_driver("sqlalchemy", exc) from exc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from azpgauth.identity.login import Grant
    from azpgauth.runtime.waiting import Wait

__all__ = [
    "create_asyncpg_engine",
    "enable_entra_authentication",
    "enable_entra_authentication_async",
]


def enable_entra_authentication(engine: Engine) -> None:
    """Have an engine's connections sign in with the credential in its `connect_args`.

    A token is used unless URL and `connect_args` give user and password. TLS is verified unless
    they (or `PGSSLMODE`) say how; below `sslmode=require` is refused.

    Args:
        engine: Made with ``connect_args={"credential": DefaultAzureCredential()}``.

    Raises:
        CredentialValueError: On connecting: there is no credential, or an async one.
        EntraConnectionValueError: On connecting: no token, no role, or no protection for the token.

    Example:
        >>> engine = create_engine(url, connect_args={"credential": credential})  # doctest: +SKIP
        >>> enable_entra_authentication(engine)  # doctest: +SKIP
    """
    event.listen(engine, "do_connect", _connect)


def enable_entra_authentication_async(engine: AsyncEngine) -> None:
    """As `enable_entra_authentication`, for an async engine; the event loop is not held up.

    Args:
        engine: Made with ``connect_args={"credential": credential}``, a sync or an async one.

    Raises:
        CredentialValueError: On connecting: there is no credential.
        EntraConnectionValueError: On connecting: no token, no role, or no protection for the token.
    """
    event.listen(engine.sync_engine, "do_connect", _connect_on_loop)


def create_asyncpg_engine(url: str | sqlalchemy.URL, credential: Any, **kwargs: Any) -> AsyncEngine:
    """An async engine on asyncpg that signs in with a credential object.

    Args:
        url: A URL of `postgresql+asyncpg`; `sslmode` and `sslrootcert` in it count.
        credential: A `TokenCredential`, or an `AsyncTokenCredential` of the engine's event loop.
        **kwargs: As for `create_async_engine`.

    Raises:
        CredentialValueError: It is no credential.
        EntraConnectionValueError: On connecting: no token, no role, or no protection for the token.

    Example:
        >>> engine = create_asyncpg_engine(  # doctest: +SKIP
        ...     "postgresql+asyncpg://shop.postgres.database.azure.com/shop", credential
        ... )
    """
    check_credential(credential, on_loop=True)
    # Wrapped: the engine's own frames have these, and a credential may hold its last token.
    arguments = {**kwargs.pop("connect_args", {}), "credential": Redacted(credential)}
    with guard():
        engine = create_async_engine(url, connect_args=arguments, **kwargs)
    enable_entra_authentication_async(engine)
    return engine


def _connect(dialect: Any, _: Any, cargs: Any, cparams: Mapping[str, Any]) -> Any:
    given = Redacted((cargs, cparams))
    del cargs, cparams  # a traceback shows locals
    parameters = _Parameters(dialect, given)
    entry = entry_of(parameters.credential, parameters.said)
    return parameters.connect(entry, BLOCKING)


def _connect_on_loop(dialect: Any, _: Any, cargs: Any, cparams: Mapping[str, Any]) -> Any:
    given = Redacted((cargs, cparams))
    del cargs, cparams  # a traceback shows locals
    if dialect.driver == "psycopg":
        refuse_proactor(asyncio.get_running_loop())
    parameters = _Parameters(dialect, given)
    with guard():  # what the first thread needs is imported by now
        pass
    # On a thread: the first look at the trusted roots reads the bundle.
    entry = await_only(
        asyncio.to_thread(lambda: entry_of(parameters.credential, parameters.said, on_loop=True))
    )
    return parameters.connect(entry, IN_GREENLET)


class _Parameters:
    """One connect of an engine that the program made, with a copy of its parameters."""

    def __init__(self, dialect: Any, given: Redacted[tuple[Any, Mapping[str, Any]]]) -> None:
        self._connect = dialect.connect
        self._cargs = given.held[0]
        self._parameters = dict(given.held[1])
        self._asyncpg = dialect.driver == "asyncpg"
        self.credential = self._parameters.pop("credential", None)
        if isinstance(self.credential, Redacted):
            self.credential = self.credential.held
        self.said = _in_string(dialect, given)
        self.said |= {k: v for k, v in self._parameters.items() if v is not None}
        if self._asyncpg:
            self.said |= self._tls_in_libpqs_names()

    def __repr__(self) -> str:
        return f"<arguments {', '.join(self._parameters)}>"

    def connect(self, entry: Entry | None, wait: Wait) -> Any:
        if entry is None:
            return self._connect(*self._cargs, **self._parameters)

        def attempt(grant: Grant, trusted: str) -> Any:
            added = self._added(entry, grant, trusted)
            return self._connect(*self._cargs, **{**self._parameters, **added})

        return sign_in(entry.login, entry.tls.roots, attempt, wait)

    def _added(self, entry: Entry, grant: Grant, trusted: str) -> dict[str, Any]:
        if not self._asyncpg:
            return dict(entry.libpq(grant, trusted))
        if entry.password is not None:
            return {"user": grant.role}
        added: dict[str, Any] = grant.for_asyncpg()
        if not self._parameters.get("host"):
            added |= _places(entry.hosts)  # pinned: PGHOST may have changed meanwhile
        if not isinstance(self._parameters.get("ssl"), ssl.SSLContext):
            added["ssl"] = await_only(entry.tls.acontext(trusted))
        return added

    def _tls_in_libpqs_names(self) -> dict[str, Any]:
        """Asyncpg's `ssl` as libpq would say it; an `sslmode` becomes the `ssl` to connect with."""
        parameters = self._parameters
        mode = parameters.pop("sslmode", None)
        roots = parameters.pop("sslrootcert", None)
        given = parameters.get("ssl")
        if given is None and mode is not None:
            parameters["ssl"] = mode
        elif isinstance(given, ssl.SSLContext):
            mode = "require"  # what it verifies is the caller's word
        elif isinstance(given, bool):
            mode = "verify-full" if given else "disable"
        elif given is not None:
            mode = getattr(given, "name", str(given)).replace("_", "-")  # asyncpg's enum, or a str
        return {"sslmode": mode, "sslrootcert": roots}


_PLACE = re.compile(r"(?:\[(?P<address>[^\]]*)\]|(?P<name>[^:]*))(?::(?P<port>\d+))?")


def _places(hosts: tuple[str, ...]) -> dict[str, Any]:
    """Hosts of PGHOST for asyncpg, which reads a port there behind each."""
    found = [_PLACE.fullmatch(host) for host in hosts]
    names = [
        host if match is None else match["address"] or match["name"]
        for host, match in zip(hosts, found, strict=True)
    ]
    ports = [match["port"] if match else None for match in found]
    if not any(ports):
        return {"host": names}
    usual = os.environ.get("PGPORT") or "5432"
    return {"host": names, "port": [int(port or usual) for port in ports]}


def _in_string(dialect: Any, given: Redacted[tuple[Any, Mapping[str, Any]]]) -> dict[str, Any]:
    """What the string among the driver's arguments says, if there is one, by libpq's names.

    Raises:
        EntraConnectionValueError: It is asyncpg's, which reads it by rules of its own.
    """
    named = map(given.held[1].get, ("dsn", "conninfo"))
    string = Redacted(next(filter(None, (*given.held[0][:1], *named)), ""))
    if not string.held:
        return {}
    if dialect.driver == "psycopg2":
        from psycopg2.extensions import parse_dsn

        return dict(parse_dsn(string.held))
    if dialect.driver == "psycopg":
        from psycopg.conninfo import conninfo_to_dict

        return dict(conninfo_to_dict(string.held))
    raise EntraConnectionValueError(
        "a dsn for asyncpg could name another server than the engine's URL: put host, port and "
        "database into the URL"
    )
