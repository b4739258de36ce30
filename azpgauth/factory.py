"""connect…: from settings to a plan and a login, and to the driver's own pool.

The only place where all parts meet, and where a failed connect is explained.
"""

from __future__ import annotations

import time
import weakref
from dataclasses import dataclass
from importlib import import_module
from math import ceil
from typing import TYPE_CHECKING, Any, NoReturn

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
    from collections.abc import Mapping

    from azure.core.credentials import TokenCredential
    from psycopg_pool import ConnectionPool

__all__ = ["PoolTokenInfo", "connect", "connect_from_env", "token_info"]


def connect_from_env(
    *,
    credential: TokenCredential | Mapping[str, Any] | None = None,
    native: Mapping[str, Any] | None = None,
    **keywords: Any,
) -> ConnectionPool[Any]:
    """Read the settings, sign in, and return an open pool of the driver's own kind.

    Args:
        credential: The section of that name as a mapping, or a credential object (anything with
            azure-core's `get_token`) to use instead of the one the settings name.
        native: Arguments for the driver's own constructor.
        **keywords: As for `load_settings`.

    Returns:
        A `psycopg_pool.ConnectionPool` with one connection made and proven.

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
    if hasattr(credential, "get_token") or hasattr(credential, "get_token_info"):
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
    pool: ConnectionPool[Any] = _proven(driver, plan, login, native)
    _logins[pool] = login
    return pool


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


_MODULES = {"psycopg": ("azpgauth.psycopg3", "psycopg")}
"""For each driver, its module here and the extra that installs it."""


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
        delay = None
        if diagnose(str(error)).passing:
            delay = retry_delay(attempt, deadline - time.monotonic())
        if delay is None:
            _explain(error, plan, login, attempt)
        time.sleep(delay)


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
