"""Opens the driver's own pool or connection with settings: the functions that users call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal, TypedDict, overload

from azpgauth.errors import Problem, SettingsError
from azpgauth.opening.attempts import Opening, opened, unopened
from azpgauth.opening.info import register
from azpgauth.opening.prepare import from_env, prepare
from azpgauth.runtime.drivers import ASYNC_DRIVERS
from azpgauth.runtime.printable import either
from azpgauth.runtime.redacted import Redacted

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    import asyncpg
    import psycopg
    import sqlalchemy
    from psycopg2 import extensions
    from psycopg_pool import AsyncConnectionPool, ConnectionPool
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
    from typing_extensions import Unpack

    from azpgauth.drivers.driver import ConnectArguments
    from azpgauth.drivers.psycopg2_pool import ConnectionPool as Psycopg2Pool
    from azpgauth.opening.prepare import Credential
    from azpgauth.runtime.drivers import DriverName
    from azpgauth.settings import Settings

__all__ = [
    "aconnect",
    "aconnect_from_env",
    "aconnection_from_env",
    "connect",
    "connect_from_env",
    "connection_from_env",
]


class _Keywords(TypedDict, total=False):
    """What all `…_from_env` take besides `driver`."""

    credential: Credential | Mapping[str, Any] | None
    native: Mapping[str, Any] | None
    env: str | None
    config: str | os.PathLike[str] | None
    env_file: str | os.PathLike[str] | None
    secrets_dir: str | os.PathLike[str] | None
    prefix: str
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
def connect_from_env(
    *, driver: DriverName | Mapping[str, Any], **keywords: Unpack[_Keywords]
) -> Any: ...


def connect_from_env(**keywords: Any) -> Any:
    """Read the settings, sign in, and return an open pool or engine of the driver's own kind.

    Args:
        **keywords: As for `load_settings`, with two more. `credential` is the section of that
            name as a mapping, or a credential object (anything with azure-core's `get_token`) to
            use instead of the one the settings name. `native` is a mapping of arguments for the
            driver's own constructor.

    Returns:
        A `psycopg_pool.ConnectionPool`, a `psycopg2.pool.ThreadedConnectionPool` or a
        `sqlalchemy.Engine`, with one connection proven. For an async driver its pool or engine
        unopened, to be opened on its event loop; `aconnect_from_env` gives it open and proven.

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
    given = Redacted(keywords)
    del keywords  # a traceback shows locals
    return _pool(from_env(given))


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
    held: Redacted[Credential] | None = Redacted.of(credential)
    own = Redacted.of(native)
    del credential, native  # a traceback shows locals
    return _pool(prepare(settings, held, own))


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
    *, driver: DriverName | Mapping[str, Any], **keywords: Unpack[_Keywords]
) -> Any: ...


def connection_from_env(**keywords: Any) -> Any:
    """Read the settings, sign in, and return one connection: for migrations, notebooks, cron.

    Args:
        **keywords: As for `connect_from_env`.

    Returns:
        The driver's own connection, which is a `psycopg.Connection`, psycopg2's connection or a
        `sqlalchemy.Connection`.

    Raises:
        SettingsError: As for `connect_from_env`, like all others there.

    Example:
        >>> with connection_from_env() as conn:  # doctest: +SKIP
        ...     conn.execute("vacuum")
    """
    given = Redacted(keywords)
    del keywords  # a traceback shows locals
    arguments = from_env(given)
    if arguments.driver in ASYNC_DRIVERS:
        raise _wrong_driver(arguments.driver, "connection_from_env", "aconnection_from_env")
    conn = opened(arguments, "connect")
    register(conn, arguments)
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
    *, driver: DriverName | Mapping[str, Any], **keywords: Unpack[_Keywords]
) -> Opening[Any]: ...


def aconnect_from_env(**keywords: Any) -> Opening[Any]:
    """As `connect_from_env`, for an async driver: to be awaited, or entered with `async with`.

    Nothing of it holds the event loop up: files, certificates, imports and tokens are waited for
    on threads. If the settings name no driver, it is psycopg-async.

    Args:
        **keywords: As for `connect_from_env`. A credential object may be an async one.

    Returns:
        An awaitable that gives a `psycopg_pool.AsyncConnectionPool`, an `AsyncEngine` or an
        `asyncpg.Pool`, open and with one connection proven. As an async context manager, it also
        closes it.

    Raises:
        SettingsError: As for `connect_from_env`, like all others there.

    Example:
        >>> async with aconnect_from_env(driver="asyncpg") as pool:  # doctest: +SKIP
        ...     await pool.fetchval("select current_user")
    """
    given = Redacted(keywords)
    del keywords  # a traceback shows locals
    return Opening(
        lambda: _on_loop(from_env(given, on_loop=True), "aconnect_from_env"),
        "aopen_pool",
        register,
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
    held: Redacted[Credential] | None = Redacted.of(credential)
    own = Redacted.of(native)
    return Opening(
        lambda: _on_loop(prepare(settings, held, own, on_loop=True), "aconnect"),
        "aopen_pool",
        register,
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
    *, driver: DriverName | Mapping[str, Any], **keywords: Unpack[_Keywords]
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
    given = Redacted(keywords)
    del keywords  # a traceback shows locals
    return Opening(
        lambda: _on_loop(from_env(given, on_loop=True), "aconnection_from_env"),
        "aconnect",
        register,
    )


def _pool(arguments: ConnectArguments) -> Any:
    """The pool that `connect` returns."""
    if arguments.driver not in ASYNC_DRIVERS:
        pool = opened(arguments, "open_pool")
    else:
        if arguments.driver == "asyncpg":
            _need_loop()
        pool = unopened(arguments)
    register(pool, arguments)
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


def _on_loop(arguments: ConnectArguments, function: str) -> ConnectArguments:
    """Refuse a sync driver where an async one is needed."""
    if arguments.driver not in ASYNC_DRIVERS:
        raise _wrong_driver(arguments.driver, function, function[1:])
    return arguments


def _wrong_driver(driver: str, function: str, other: str) -> SettingsError:
    kind = "a sync" if driver in ASYNC_DRIVERS else "an async"
    fitting = "one that is not async" if driver in ASYNC_DRIVERS else either(ASYNC_DRIVERS)
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
