"""Turns settings, and what a call was given, into what a driver needs to connect.

The only place where all parts meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from azpgauth.drivers.driver import ConnectArguments
from azpgauth.errors import Problem, SettingsError
from azpgauth.identity.credential import is_async, is_credential, source_of
from azpgauth.identity.diagnosis import needs_loop
from azpgauth.identity.login import Login, StaticLogin, TokenLogin
from azpgauth.runtime.drivers import ASYNC_DRIVERS, DRIVERS
from azpgauth.runtime.importing import guard
from azpgauth.runtime.redacted import Redacted
from azpgauth.server.clouds import CLOUDS
from azpgauth.server.keepalives import Keepalives
from azpgauth.server.plan import ConnectPlan, PoolLimits
from azpgauth.server.roots import Roots, default_roots
from azpgauth.server.tls import Tls

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.core.credentials_async import AsyncTokenCredential

    from azpgauth.runtime.drivers import DriverName
    from azpgauth.settings import Settings

    Credential: TypeAlias = TokenCredential | AsyncTokenCredential

__all__ = ["from_env", "login_of", "plan_of", "prepare"]


def from_env(keywords: Redacted[dict[str, Any]], *, on_loop: bool = False) -> ConnectArguments:
    """Read the settings that a call's keywords lead to, and prepare to connect.

    Args:
        keywords: The keyword arguments; no traceback that shows locals may show their secrets.
        on_loop: Whether an async driver is needed.
    """
    credential = Redacted.of(keywords.held.get("credential"))
    if credential is not None and not is_credential(credential.held):
        credential = None  # the section of that name
    native = Redacted.of(keywords.held.get("native"))
    return prepare(_settings(keywords), credential, native, on_loop=on_loop)


def _settings(keywords: Redacted[dict[str, Any]]) -> Settings:
    """The settings, read from the world with the rest of the keywords."""
    # pydantic takes a while to import: not where an event loop may be waiting.
    with guard():
        from azpgauth.settings import explain, load_settings

    rest = Redacted({k: v for k, v in keywords.held.items() if k not in {"native", "credential"}})
    if keywords.held.get("credential") is None:
        return load_settings(**rest.held)
    if not is_credential(keywords.held["credential"]):
        return load_settings(**rest.held, credential=keywords.held["credential"])
    # It signs in by itself: what the settings say of another one need not be complete.
    settings = load_settings(**rest.held, credential={"kind": "default"})
    below = explain(settings)["credential.kind"].shadowed
    if below and below[0][0] in {"password", "none"}:
        raise _credential_for_nothing(str(below[0][0]))
    return settings


def prepare(
    settings: Settings,
    credential: Redacted[Credential] | None,
    native: Redacted[Mapping[str, Any]] | None,
    *,
    on_loop: bool = False,
) -> ConnectArguments:
    """What these settings lead to.

    Args:
        settings: The settings.
        credential: A credential object of the program's own; many show a secret when walked.
        native: Arguments of the driver's own.
        on_loop: Whether an async driver is needed; the default is one, then.

    Raises:
        TokenError: An async credential, with a driver that cannot await it.
    """
    if native is not None and not isinstance(native.held, Mapping):
        reason = f"is a {type(native.held).__name__} where a mapping is needed"
        action = "write native={...} with arguments of the driver's own"
        raise SettingsError([Problem("native", "argument native", reason, action)])
    driver: DriverName = settings.driver.name
    if on_loop and "name" not in settings.driver.model_fields_set:
        driver = "psycopg-async"
    if credential is not None and driver not in ASYNC_DRIVERS and is_async(credential.held):
        raise needs_loop(type(credential.held).__name__)
    return ConnectArguments(
        driver,
        plan_of(settings),
        login_of(settings, credential),
        native,
        settings.driver.dialect if DRIVERS[driver].dialects else "psycopg",
        settings.driver.prepared_statements,
    )


def plan_of(settings: Settings) -> ConnectPlan:
    """Where these settings lead; reads files of roots, so not on an event loop."""
    server, pool = settings.server, settings.pool
    named = server.sslrootcert
    roots = default_roots(server.hosts) if named is None else Roots(str(named))
    return ConnectPlan(
        servers=server.servers,
        database=settings.database.name,
        application_name=settings.database.application_name,
        connect_timeout=server.connect_timeout,
        tls=Tls(server.sslmode, roots),
        pool=PoolLimits(**pool.model_dump()),
        options=settings.database.options,
        keepalives=Keepalives(
            server.keepalives_idle,
            server.keepalives_interval,
            server.keepalives_count,
            server.tcp_user_timeout,
        ),
        pooler=server.pooled,
        target=server.target,
        load_balance=server.load_balance_hosts == "random",
    )


def login_of(settings: Settings, credential: Redacted[Credential] | None) -> Login:
    """What these settings sign in with.

    Args:
        settings: The settings.
        credential: A credential object of the program's own.

    Raises:
        SettingsError: A credential object beside a kind that has no tokens.
    """
    with guard():
        from azpgauth.settings.models.credential import PasswordSettings, TokenCredentialSettings

    wanted = settings.credential
    role = settings.database.user
    if not isinstance(wanted, TokenCredentialSettings):
        if credential is not None:
            raise _credential_for_nothing(wanted.kind)
        password = (
            wanted.password.get_secret_value() if isinstance(wanted, PasswordSettings) else None
        )
        return StaticLogin(role or "", password)
    # azure.identity is imported by the first request, on its own thread.
    with guard():
        from azpgauth.identity.azure import person_timeout, source_for

    cloud = CLOUDS[settings.server.cloud_name]
    scope = wanted.scope or cloud.scope
    if credential is not None:
        source = source_of(credential.held, scope)
        fallback = source_of(credential.held, cloud.management_scope)
    else:
        source = source_for(wanted, scope, cloud)
        fallback = source_for(wanted, cloud.management_scope, cloud)
    return TokenLogin(
        source,
        role=role,
        fallback=fallback,
        timeout=max(settings.pool.timeout, person_timeout(wanted)),
        owner=None if credential is None else credential.held,
        refresh=wanted.refresh,
        pgbouncer=bool(settings.server.pooled),
    )


def _credential_for_nothing(kind: str) -> SettingsError:
    reason = f"a credential object beside credential.kind {kind}"
    problem = Problem("credential", "argument credential=", reason, "drop one of the two")
    return SettingsError([problem])
