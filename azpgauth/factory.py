"""connect…: from settings to a plan and a login, and to the driver's own pool.

The only place where all parts meet, and where a failed connect is explained.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from dataclasses import dataclass
from importlib import import_module
from math import ceil
from typing import TYPE_CHECKING, Any, Literal, NoReturn, overload

from azpgauth.diagnosis import diagnose, retry_delay
from azpgauth.errors import ConnectError, MissingDriverError, Problem, SettingsError
from azpgauth.login import Login, StaticLogin, TokenLogin
from azpgauth.plan import ConnectPlan, PoolLimits
from azpgauth.settings.load import load_settings, sealed
from azpgauth.settings.models import (
    SCOPES,
    PasswordSettings,
    Settings,
    TokenCredentialSettings,
)
from azpgauth.tls import Tls, default_roots

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from typing import TypeGuard

    from azure.core.credentials import TokenCredential
    from psycopg_pool import AsyncConnectionPool, ConnectionPool

__all__ = [
    "Opening",
    "PoolTokenInfo",
    "aconnect",
    "aconnect_from_env",
    "connect",
    "connect_from_env",
    "token_info",
]


@overload
def connect_from_env(
    *,
    driver: Literal["psycopg"] = ...,
    credential: TokenCredential | Mapping[str, Any] | None = None,
    native: Mapping[str, Any] | None = None,
    **keywords: Any,
) -> ConnectionPool[Any]: ...


@overload
def connect_from_env(
    *,
    driver: Literal["psycopg-async"],
    credential: TokenCredential | Mapping[str, Any] | None = None,
    native: Mapping[str, Any] | None = None,
    **keywords: Any,
) -> AsyncConnectionPool[Any]: ...


def connect_from_env(
    *,
    credential: TokenCredential | Mapping[str, Any] | None = None,
    native: Mapping[str, Any] | None = None,
    **keywords: Any,
) -> Any:
    """Read the settings, sign in, and return an open pool of the driver's own kind.

    Args:
        credential: The section of that name as a mapping, or a credential object (anything with
            azure-core's `get_token`) to use instead of the one the settings name.
        native: Arguments for the driver's own constructor.
        **keywords: As for `load_settings`.

    Returns:
        For driver psycopg, an open `psycopg_pool.ConnectionPool` with one connection proven. For
        psycopg-async, a `psycopg_pool.AsyncConnectionPool` to be opened on its event loop;
        `aconnect_from_env` gives it open and proven.

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
    if _is_credential(credential):
        return connect(load_settings(**keywords), credential=credential, native=native)
    if credential is not None:
        keywords = sealed({**keywords, "credential": credential})
        del credential
    return connect(load_settings(**keywords), native=native)


def connect(
    settings: Settings,
    *,
    credential: TokenCredential | None = None,
    native: Mapping[str, Any] | None = None,
) -> ConnectionPool[Any]:
    """Sign in with these settings, and return an open pool of the driver's own kind.

    A mistake that waiting does not mend is told at once; what may pass (a refused port, a server
    that is starting) is tried again for `server.connect_timeout` seconds.

    Args:
        settings: From `load_settings`, or made by the program.
        credential: A credential object to use instead of the one the settings name.
        native: Arguments for the driver's own constructor, such as `configure` or `row_factory`.

    Returns:
        A `psycopg_pool.ConnectionPool` with one connection made and proven.

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
    plan = _plan(settings)
    login = _login(settings, credential)
    # The request for the token is under way while the driver is imported.
    login.prefetch()
    driver = _driver(settings.driver.name)
    pool: Any
    if settings.driver.name in _ASYNC:
        pool = driver.unopened_async_pool(plan, login, native)
    else:
        pool = _proven(driver, plan, login, native)
    _logins[pool] = login
    return pool  # type: ignore[no-any-return]  # which driver is known at run time only


def aconnect_from_env(
    *,
    credential: TokenCredential | Mapping[str, Any] | None = None,
    native: Mapping[str, Any] | None = None,
    **keywords: Any,
) -> Opening:
    """As `connect_from_env`, for an async driver: to be awaited, or entered with `async with`.

    Nothing of it holds the event loop up: files, certificates, imports and tokens are waited for
    on threads.

    Args:
        credential: As for `connect_from_env`.
        native: Arguments for the driver's own constructor.
        **keywords: As for `load_settings`.

    Returns:
        An awaitable that gives an open `psycopg_pool.AsyncConnectionPool` with one connection
        proven; as an async context manager, it also closes the pool.

    Raises:
        SettingsError: As for `connect_from_env`, like all others there.

    Example:
        >>> async with aconnect_from_env(driver="psycopg-async") as pool:  # doctest: +SKIP
        ...     async with pool.connection() as conn:
        ...         await conn.execute("select 1")
    """
    if _is_credential(credential):
        passed = credential
    else:
        passed = None
        if credential is not None:
            keywords["credential"] = credential
    keywords = sealed(keywords)
    del credential
    return Opening(lambda: load_settings(**keywords), passed, native)


def aconnect(
    settings: Settings,
    *,
    credential: TokenCredential | None = None,
    native: Mapping[str, Any] | None = None,
) -> Opening:
    """As `connect`, for an async driver: to be awaited, or entered with `async with`.

    Args:
        settings: From `load_settings`, or made by the program.
        credential: A credential object to use instead of the one the settings name.
        native: Arguments for the driver's own constructor.

    Returns:
        As `aconnect_from_env`.

    Raises:
        SettingsError: As for `connect`, like all others there.

    Example:
        >>> pool = await aconnect(settings)  # doctest: +SKIP
    """
    return Opening(lambda: settings, credential, native)


class Opening:
    """A pool about to be opened: await it for the pool, or enter it to have it closed too."""

    def __init__(
        self,
        load: Callable[[], Settings],
        credential: TokenCredential | None,
        native: Mapping[str, Any] | None,
    ) -> None:
        self._load = load
        self._credential = credential
        self._native = native
        self._pool: AsyncConnectionPool[Any] | None = None

    def __await__(self) -> Generator[Any, None, AsyncConnectionPool[Any]]:
        return self._open().__await__()

    async def __aenter__(self) -> AsyncConnectionPool[Any]:
        self._pool = await self._open()
        return self._pool

    async def __aexit__(self, *_: object) -> None:
        if self._pool is not None:
            await self._pool.close()

    async def _open(self) -> AsyncConnectionPool[Any]:
        driver, plan, login = await asyncio.to_thread(self._prepare)
        pool: AsyncConnectionPool[Any] = await _aproven(driver, plan, login, self._native)
        _logins[pool] = login
        return pool

    def _prepare(self) -> tuple[Any, ConnectPlan, Login]:
        settings = self._load()
        name = settings.driver.name
        if name not in _ASYNC:
            raise SettingsError(
                [
                    Problem(
                        "driver.name",
                        "the settings given to aconnect or aconnect_from_env",
                        f"{name} is not an async driver",
                        f"set it to {' or '.join(_ASYNC)}, or use connect or connect_from_env",
                    )
                ]
            )
        plan = _plan(settings)
        login = _login(settings, self._credential)
        login.prefetch()
        return _driver(name), plan, login


def _is_credential(value: object) -> TypeGuard[TokenCredential]:
    return hasattr(value, "get_token") or hasattr(value, "get_token_info")


@dataclass(frozen=True)
class PoolTokenInfo:
    """What a pool signs in with; never the token itself.

    Attributes:
        role: The PostgreSQL role, as far as it is known.
        requests: How many tokens the pool's identity has asked for in this process.
        failures: How many of these requests failed.
        expires_on: When the present token expires, in seconds since the epoch.
        renew_at: When it will be renewed.
        last_error: What the last request failed with, None if it did not.
    """

    role: str | None
    requests: int = 0
    failures: int = 0
    expires_on: float | None = None
    renew_at: float | None = None
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


def _plan(settings: Settings) -> ConnectPlan:
    server, pool = settings.server, settings.pool
    roots = str(server.sslrootcert) if server.sslrootcert is not None else default_roots()
    return ConnectPlan(
        hosts=server.hosts,
        port=server.port,
        database=settings.database.name,
        application_name=settings.database.application_name,
        connect_timeout=server.connect_timeout,
        tls=Tls(server.sslmode, roots),
        pool=PoolLimits(**pool.model_dump()),
    )


def _login(settings: Settings, passed: TokenCredential | None) -> Login:
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
    from azpgauth.credentials import MANAGEMENT_SCOPE, source_for, source_of

    scope = wanted.scope or SCOPES[settings.server.cloud_name]
    if passed is not None:
        source = source_of(passed, scope, wanted.refresh)
        fallback = source_of(passed, MANAGEMENT_SCOPE, "on-demand")
    else:
        source = source_for(wanted, scope)
        fallback = source_for(wanted, MANAGEMENT_SCOPE)
    return TokenLogin(
        source, role=role, fallback=fallback, timeout=settings.pool.timeout, owner=passed
    )


_MODULES = {
    "psycopg": ("azpgauth.psycopg3", "psycopg"),
    "psycopg-async": ("azpgauth.psycopg3", "psycopg"),
}
"""For each driver, its module here and the extra that installs it."""


_ASYNC = ("psycopg-async",)


def _driver(name: str) -> Any:
    module, extra = _MODULES[name]
    try:
        return import_module(module)
    except ImportError as exc:
        raise MissingDriverError(
            f"driver.name {name} needs packages that are not installed ({exc}); "
            f"run: pip install 'azpgauth[{extra}]'",
            name=exc.name,
        ) from exc


def _proven(driver: Any, plan: ConnectPlan, login: Login, native: Mapping[str, Any] | None) -> Any:
    deadline = time.monotonic() + plan.connect_timeout
    attempt = 0
    while True:
        attempt += 1
        try:
            left = max(deadline - time.monotonic(), 1)
            return driver.open_pool(plan, login, native, timeout=ceil(left))
        except driver.ERRORS as exc:
            # Its traceback's frames are the driver's; see _explain.
            error = exc.with_traceback(None)
        time.sleep(_pause(error, attempt, deadline) or _explain(error, plan, login, attempt))


async def _aproven(
    driver: Any, plan: ConnectPlan, login: Login, native: Mapping[str, Any] | None
) -> Any:
    deadline = time.monotonic() + plan.connect_timeout
    attempt = 0
    while True:
        attempt += 1
        try:
            left = max(deadline - time.monotonic(), 1)
            return await driver.open_async_pool(plan, login, native, timeout=ceil(left))
        except driver.ERRORS as exc:
            error = exc.with_traceback(None)
        pause = _pause(error, attempt, deadline) or _explain(error, plan, login, attempt)
        await asyncio.sleep(pause)


def _pause(error: BaseException, attempt: int, deadline: float) -> float | None:
    """Seconds until the next attempt; None if it would change nothing, or come too late."""
    if not diagnose(str(error)).passing:
        return None
    return retry_delay(attempt, deadline - time.monotonic())


def _explain(error: BaseException, plan: ConnectPlan, login: Login, attempts: int) -> NoReturn:
    """Raise what a failed connect means, with the driver's error as its cause.

    That one comes without its traceback, whose frames hold the password.
    """
    diagnosis = diagnose(str(error))
    role = f' as role "{login.role}"' if login.role else ""
    tried = f" ({attempts} attempts)" if attempts > 1 else ""
    lines = [
        (
            f'cannot connect to database "{plan.database}" at {plan.where}{role}{tried}: '
            f"{str(error).strip()}"
        )
    ]
    if diagnosis.cause:
        lines += [f"cause: {diagnosis.cause}", f"to do: {diagnosis.remedy}"]
    raise ConnectError("\n  ".join(lines)) from error
