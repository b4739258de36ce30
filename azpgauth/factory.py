"""connect…: from settings to a plan and a login, and to the driver's own pool or connection.

The only place where all parts meet.
"""

from __future__ import annotations

import asyncio
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, overload

from azpgauth.clouds import CLOUDS, PGBOUNCER_PORTS
from azpgauth.errors import Problem, SettingsError, TokenError
from azpgauth.login import Login, StaticLogin, TokenLogin
from azpgauth.opening import ASYNC_DRIVERS, Opening, Prepared
from azpgauth.passed import is_async, is_credential, source_of
from azpgauth.plan import ConnectPlan, PoolLimits
from azpgauth.tls import Roots, Tls, default_roots

if TYPE_CHECKING:
    from collections.abc import Mapping

    import asyncpg
    import psycopg
    import sqlalchemy
    from azure.core.credentials import TokenCredential
    from azure.core.credentials_async import AsyncTokenCredential
    from psycopg2 import extensions
    from psycopg_pool import AsyncConnectionPool, ConnectionPool
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
    from typing_extensions import Unpack

    from azpgauth.psycopg2 import ConnectionPool as Psycopg2Pool
    from azpgauth.settings import Settings

    Credential: TypeAlias = TokenCredential | AsyncTokenCredential

__all__ = [
    "PoolTokenInfo",
    "aconnect",
    "aconnect_from_env",
    "aconnection_from_env",
    "connect",
    "connect_from_env",
    "connection_from_env",
    "token_info",
]


class _Keywords(TypedDict, total=False):
    """What all `…_from_env` take besides `driver`."""

    credential: Credential | Mapping[str, Any] | None
    native: Mapping[str, Any] | None
    config: str | None
    env_file: str | None
    server: Mapping[str, Any]
    database: Mapping[str, Any]
    pool: Mapping[str, Any]


@overload
def connect_from_env(
    *, driver: Literal["psycopg"] = ..., **keywords: Unpack[_Keywords]
) -> ConnectionPool[Any]: ...
@overload
def connect_from_env(
    *, driver: Literal["psycopg-async"], **keywords: Unpack[_Keywords]
) -> AsyncConnectionPool[Any]: ...
@overload
def connect_from_env(
    *, driver: Literal["psycopg2"], **keywords: Unpack[_Keywords]
) -> Psycopg2Pool: ...
@overload
def connect_from_env(
    *, driver: Literal["sqlalchemy"], **keywords: Unpack[_Keywords]
) -> sqlalchemy.Engine: ...
@overload
def connect_from_env(
    *, driver: Literal["sqlalchemy-async"], **keywords: Unpack[_Keywords]
) -> AsyncEngine: ...
@overload
def connect_from_env(
    *, driver: Literal["asyncpg"], **keywords: Unpack[_Keywords]
) -> asyncpg.Pool: ...
@overload
def connect_from_env(*, driver: str | Mapping[str, Any], **keywords: Unpack[_Keywords]) -> Any: ...


def connect_from_env(**keywords: Any) -> Any:
    """Read the settings, sign in, and return an open pool or engine of the driver's own kind.

    Args:
        **keywords: As for `load_settings`, with two more. `credential` is the section of that
            name as a mapping, or a credential object (anything with azure-core's `get_token`) to
            use instead of the one the settings name. `native` is a mapping of arguments for the
            driver's own constructor.

    Returns:
        With one connection proven: a `psycopg_pool.ConnectionPool`, a
        `psycopg2.pool.ThreadedConnectionPool` or a `sqlalchemy.Engine`. For an async driver its
        pool or engine unopened, to be opened on its event loop; `aconnect_from_env` gives it open
        and proven.

    Raises:
        SettingsError: The settings hold mistakes.
        MissingDriverError: The driver is not installed.
        TokenError: Microsoft Entra ID gave no token.
        RoleError: The token does not name the PostgreSQL role.
        ConnectError: The server could not be reached, or refused.

    Example:
        >>> with connect_from_env() as pool:  # doctest: +SKIP
        ...     with pool.connection() as conn:
        ...         conn.execute("select current_user").fetchone()
    """
    keywords = _Sealed(keywords)  # type: ignore[assignment]  # at once: out of tracebacks
    return _pool(_from_env(keywords))


def connect(
    settings: Settings,
    *,
    credential: Credential | None = None,
    native: Mapping[str, Any] | None = None,
) -> Any:
    """Sign in with these settings, and return an open pool or engine of the driver's own kind.

    A mistake that waiting does not mend is told at once; what may pass (a refused port, a server
    that is starting) is tried again for `server.connect_timeout` seconds.

    Args:
        settings: From `load_settings`, or made by the program.
        credential: A credential object to use instead of the one the settings name.
        native: Arguments for the driver's own constructor, such as `configure` or `row_factory`.

    Returns:
        As `connect_from_env`.

    Raises:
        SettingsError: `native` has a key that azpgauth owns, or that the driver does not know.
        MissingDriverError: The driver is not installed.
        TokenError: Microsoft Entra ID gave no token.
        RoleError: The token does not name the PostgreSQL role.
        ConnectError: The server could not be reached, or refused.

    Example:
        >>> settings = load_settings(driver="psycopg")  # doctest: +SKIP
        >>> pool = connect(settings)  # doctest: +SKIP
    """
    return _pool(_prepared(settings, credential, native))


@overload
def connection_from_env(
    *, driver: Literal["psycopg"] = ..., **keywords: Unpack[_Keywords]
) -> psycopg.Connection[Any]: ...
@overload
def connection_from_env(
    *, driver: Literal["psycopg2"], **keywords: Unpack[_Keywords]
) -> extensions.connection: ...
@overload
def connection_from_env(
    *, driver: Literal["sqlalchemy"], **keywords: Unpack[_Keywords]
) -> sqlalchemy.Connection: ...
@overload
def connection_from_env(
    *, driver: str | Mapping[str, Any], **keywords: Unpack[_Keywords]
) -> Any: ...


def connection_from_env(**keywords: Any) -> Any:
    """Read the settings, sign in, and return one connection: for migrations, notebooks, cron.

    Args:
        **keywords: As for `connect_from_env`.

    Returns:
        The driver's own connection: a `psycopg.Connection`, psycopg2's connection or a
        `sqlalchemy.Connection`.

    Raises:
        SettingsError: As for `connect_from_env`, like all others there.

    Example:
        >>> with connection_from_env() as conn:  # doctest: +SKIP
        ...     conn.execute("vacuum")
    """
    keywords = _Sealed(keywords)  # type: ignore[assignment]  # at once: out of tracebacks
    prepared = _from_env(keywords)
    if prepared.driver in ASYNC_DRIVERS:
        raise _wrong_driver(prepared.driver, "connection_from_env", "aconnection_from_env")
    conn = prepared.opened("connect")
    _opened(conn, prepared)
    return conn


@overload
def aconnect_from_env(
    *, driver: Literal["psycopg-async"] = ..., **keywords: Unpack[_Keywords]
) -> Opening[AsyncConnectionPool[Any]]: ...
@overload
def aconnect_from_env(
    *, driver: Literal["sqlalchemy-async"], **keywords: Unpack[_Keywords]
) -> Opening[AsyncEngine]: ...
@overload
def aconnect_from_env(
    *, driver: Literal["asyncpg"], **keywords: Unpack[_Keywords]
) -> Opening[asyncpg.Pool]: ...
@overload
def aconnect_from_env(
    *, driver: str | Mapping[str, Any], **keywords: Unpack[_Keywords]
) -> Opening[Any]: ...


def aconnect_from_env(**keywords: Any) -> Opening[Any]:
    """As `connect_from_env`, for an async driver: to be awaited, or entered with `async with`.

    Nothing of it holds the event loop up: files, certificates, imports and tokens are waited for
    on threads. If the settings name no driver, it is psycopg-async.

    Args:
        **keywords: As for `connect_from_env`. A credential object may be an async one.

    Returns:
        An awaitable that gives the open pool or engine with one connection proven: a
        `psycopg_pool.AsyncConnectionPool`, an `AsyncEngine` or an `asyncpg.Pool`. As an async
        context manager, it also closes it.

    Raises:
        SettingsError: As for `connect_from_env`, like all others there.

    Example:
        >>> async with aconnect_from_env(driver="asyncpg") as pool:  # doctest: +SKIP
        ...     await pool.fetchval("select current_user")
    """
    keywords = _Sealed(keywords)  # type: ignore[assignment]  # at once: out of tracebacks
    return Opening(
        lambda: _on_loop(_from_env(keywords, on_loop=True), "aconnect_from_env"),
        "aopen_pool",
        _opened,
    )


def aconnect(
    settings: Settings,
    *,
    credential: Credential | None = None,
    native: Mapping[str, Any] | None = None,
) -> Opening[Any]:
    """As `connect`, for an async driver: to be awaited, or entered with `async with`.

    Args:
        settings: From `load_settings`, or made by the program.
        credential: A credential object to use instead of the one the settings name; it may be an
            async one, of this event loop.
        native: Arguments for the driver's own constructor.

    Returns:
        As `aconnect_from_env`.

    Raises:
        SettingsError: As for `connect`, like all others there.

    Example:
        >>> pool = await aconnect(settings)  # doctest: +SKIP
    """
    return Opening(
        lambda: _on_loop(_prepared(settings, credential, native, on_loop=True), "aconnect"),
        "aopen_pool",
        _opened,
    )


@overload
def aconnection_from_env(
    *, driver: Literal["psycopg-async"] = ..., **keywords: Unpack[_Keywords]
) -> Opening[psycopg.AsyncConnection[Any]]: ...
@overload
def aconnection_from_env(
    *, driver: Literal["sqlalchemy-async"], **keywords: Unpack[_Keywords]
) -> Opening[AsyncConnection]: ...
@overload
def aconnection_from_env(
    *, driver: Literal["asyncpg"], **keywords: Unpack[_Keywords]
) -> Opening[asyncpg.Connection]: ...
@overload
def aconnection_from_env(
    *, driver: str | Mapping[str, Any], **keywords: Unpack[_Keywords]
) -> Opening[Any]: ...


def aconnection_from_env(**keywords: Any) -> Opening[Any]:
    """As `connection_from_env`, for an async driver: to be awaited, or entered with `async with`.

    Args:
        **keywords: As for `connect_from_env`.

    Returns:
        An awaitable that gives a `psycopg.AsyncConnection`, SQLAlchemy's `AsyncConnection` or an
        `asyncpg.Connection`; as an async context manager, it also closes it.

    Raises:
        SettingsError: As for `connect_from_env`, like all others there.

    Example:
        >>> async with aconnection_from_env(driver="asyncpg") as conn:  # doctest: +SKIP
        ...     await conn.add_listener("orders", print)
    """
    keywords = _Sealed(keywords)  # type: ignore[assignment]  # at once: out of tracebacks
    return Opening(
        lambda: _on_loop(_from_env(keywords, on_loop=True), "aconnection_from_env"),
        "aconnect",
        _opened,
    )


@dataclass(frozen=True)
class PoolTokenInfo:
    """What a pool signs in with; never the token itself.

    Attributes:
        role: The PostgreSQL role, as far as it is known.
        identity: Who the token is for, and which credential gave it.
        requests: How many tokens the pool's identity has asked for in this process.
        failures: How many of these requests failed.
        expires_on: When the present token expires, in seconds since the epoch.
        renew_at: When it will be renewed.
        last_refresh: When it was fetched.
        last_error: What the last request failed with, None if it did not.
    """

    role: str | None
    identity: str | None = None
    requests: int = 0
    failures: int = 0
    expires_on: float | None = None
    renew_at: float | None = None
    last_refresh: float | None = None
    last_error: str | None = None


def token_info(pool: object) -> PoolTokenInfo:
    """What an open pool of `connect` signs in with.

    Args:
        pool: What `connect` or `connect_from_env` returned.

    Raises:
        TypeError: The pool was not opened by azpgauth.

    Example:
        >>> token_info(pool).requests  # doctest: +SKIP
        1
    """
    try:
        login = _logins[pool]
    except (KeyError, TypeError):
        raise TypeError("token_info takes what connect or connect_from_env returned") from None
    if isinstance(login, TokenLogin):
        return PoolTokenInfo(login.role, **vars(login.source.info()))
    return PoolTokenInfo(login.role)


_logins: weakref.WeakKeyDictionary[object, Login] = weakref.WeakKeyDictionary()


def _opened(pool: object, prepared: Prepared) -> None:
    _logins[pool] = prepared.login


def _pool(prepared: Prepared) -> Any:
    """The pool that `connect` returns."""
    if prepared.driver not in ASYNC_DRIVERS:
        pool = prepared.opened("open_pool")
    else:
        if prepared.driver == "asyncpg":
            _need_loop()
        pool = prepared.unopened()
    _opened(pool, prepared)
    return pool


def _need_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise SettingsError(
            [
                Problem(
                    "driver.name",
                    "the settings given to connect or connect_from_env",
                    "asyncpg makes its pool on a running event loop only, and there is none",
                    "call it inside a coroutine, best as: await aconnect_from_env() or aconnect()",
                )
            ]
        ) from None


def _on_loop(prepared: Prepared, function: str) -> Prepared:
    """Refuse a sync driver where an async one is needed."""
    if prepared.driver not in ASYNC_DRIVERS:
        raise _wrong_driver(prepared.driver, function, function[1:])
    return prepared


def _wrong_driver(driver: str, function: str, other: str) -> SettingsError:
    kind = "a sync" if driver in ASYNC_DRIVERS else "an async"
    fitting = "one that is not async" if driver in ASYNC_DRIVERS else " or ".join(ASYNC_DRIVERS)
    return SettingsError(
        [
            Problem(
                "driver.name",
                f"the settings given to {function}",
                f"{driver} is not {kind} driver",
                f"set it to {fitting}, or use {other}",
            )
        ]
    )


class _Sealed:
    """The keyword arguments of a call, whose secrets no traceback that shows locals may show."""

    def __init__(self, keywords: dict[str, Any]) -> None:
        self._keywords = keywords

    def __repr__(self) -> str:
        return f"<keywords {', '.join(self._keywords)}>"

    def native(self) -> Mapping[str, Any] | None:
        """What is for the driver alone."""
        return self._keywords.get("native")

    def credential(self) -> Credential | None:
        """The credential object, if that is what was passed under this name."""
        passed = self._keywords.get("credential")
        return passed if is_credential(passed) else None

    def settings(self) -> Settings:
        """The settings, read from the world with the rest of the keywords."""
        # pydantic takes a while to import: not where an event loop may be waiting.
        from azpgauth.settings import load_settings

        taken = {"native"}
        if self._keywords.get("credential") is None or self.credential() is not None:
            taken.add("credential")
        return load_settings(**{k: v for k, v in self._keywords.items() if k not in taken})


def _from_env(keywords: Any, *, on_loop: bool = False) -> Prepared:
    settings = keywords.settings()
    return _prepared(settings, keywords.credential(), keywords.native(), on_loop=on_loop)


def _prepared(
    settings: Settings,
    credential: Credential | None,
    native: Mapping[str, Any] | None,
    *,
    on_loop: bool = False,
) -> Prepared:
    driver = settings.driver.name
    if on_loop and "name" not in settings.driver.model_fields_set:
        driver = "psycopg-async"
    if credential is not None and driver not in ASYNC_DRIVERS and is_async(credential):
        raise TokenError(
            f"{type(credential).__name__} is an async credential; "
            "pass the one of the same name from azure.identity"
        )
    options = {"dialect": settings.driver.dialect} if driver.startswith("sqlalchemy") else {}
    return Prepared(driver, _plan(settings), _login(settings, credential), native, options)


def _plan(settings: Settings) -> ConnectPlan:
    server, pool = settings.server, settings.pool
    named = server.sslrootcert
    roots = default_roots(server.hosts) if named is None else Roots(str(named))
    return ConnectPlan(
        hosts=server.hosts,
        port=server.port,
        database=settings.database.name,
        application_name=settings.database.application_name,
        connect_timeout=server.connect_timeout,
        tls=Tls(server.sslmode, roots),
        pool=PoolLimits(**pool.model_dump()),
    )


def _login(settings: Settings, passed: Credential | None) -> Login:
    from azpgauth.settings.credential import PasswordSettings, TokenCredentialSettings

    wanted = settings.credential
    role = settings.database.user
    if not isinstance(wanted, TokenCredentialSettings):
        if passed is not None:
            raise SettingsError(
                [
                    Problem(
                        "credential",
                        "argument credential=",
                        f"a credential object beside credential.kind {wanted.kind}",
                        "drop one of the two",
                    )
                ]
            )
        password = (
            wanted.password.get_secret_value() if isinstance(wanted, PasswordSettings) else None
        )
        return StaticLogin(role or "", password)
    # azure.identity is imported by the first request, on its own thread.
    from azpgauth.credentials import person_timeout, source_for

    cloud = CLOUDS[settings.server.cloud_name]
    scope = wanted.scope or cloud.scope
    if passed is not None:
        source = source_of(passed, scope, wanted.refresh)
        fallback = source_of(passed, cloud.management_scope, "on-demand")
    else:
        source = source_for(wanted, scope, cloud)
        fallback = source_for(wanted, cloud.management_scope, cloud)
    return TokenLogin(
        source,
        role=role,
        fallback=fallback,
        timeout=max(settings.pool.timeout, person_timeout(wanted)),
        owner=passed,
        pgbouncer=settings.server.port in PGBOUNCER_PORTS,
    )
