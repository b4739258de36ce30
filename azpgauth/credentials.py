"""Settings to a credential of azure-identity, and from it to a `TokenSource`.

The only module that imports azure.identity, and only when a token is needed. One `TokenSource` per
(credential, scope) in a process, shared by all pools that are opened with equal settings.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from azpgauth import passed
from azpgauth.errors import TokenError
from azpgauth.tokens import STUCK, TokenSource

if TYPE_CHECKING:
    import datetime as dt

    from azure.core.credentials import TokenCredential

    from azpgauth.clouds import Cloud
    from azpgauth.schedule import Token
    from azpgauth.settings.credential import TokenCredentialSettings

__all__ = ["build", "forget", "options_of", "person_timeout", "source_for"]

_CLASSES = {
    "default": "DefaultAzureCredential",
    "managed-identity": "ManagedIdentityCredential",
    "workload-identity": "WorkloadIdentityCredential",
    "client-secret": "ClientSecretCredential",
    "client-certificate": "CertificateCredential",
    "environment": "EnvironmentCredential",
    "azure-cli": "AzureCliCredential",
    "azure-developer-cli": "AzureDeveloperCliCredential",
    "azure-powershell": "AzurePowerShellCredential",
    "interactive-browser": "InteractiveBrowserCredential",
    "device-code": "DeviceCodeCredential",
}
"""For each kind, its class in azure.identity."""

_OURS = {"kind", "scope", "refresh"}
"""The fields that are not azure-identity's."""

_PUBLIC = "https://login.microsoftonline.com"


def source_for(settings: TokenCredentialSettings, scope: str, cloud: Cloud) -> TokenSource:
    """The process's source of tokens for these settings.

    Args:
        settings: The credential's settings.
        scope: The scope to ask for, ending in `/.default`.
        cloud: Whose authority is asked, unless the settings or AZURE_AUTHORITY_HOST name one.
    """
    with _lock:
        key = settings, cloud.authority
        identity = _identities.get(key)
        if identity is None:
            identity = _identities[key] = _Identity(settings, cloud.authority)
        source = identity.sources.get(scope)
        if source is None:
            source = identity.sources[scope] = TokenSource(
                lambda: identity.token(scope),
                # A person is not asked anew because a server said no.
                mint_anew=None if person_timeout(settings) else lambda: identity.remint(scope),
                refresh=settings.refresh,
                patience=max(STUCK, person_timeout(settings)),
            )
    return source


def person_timeout(settings: TokenCredentialSettings) -> float:
    """Seconds that a person has to sign in; 0 for kinds that need none."""
    return float(getattr(settings, "timeout", 0))


def forget() -> None:
    """Forget all tokens and credentials, so that the next pool starts afresh. For tests."""
    with _lock:
        identities = list(_identities.values())
        _identities.clear()
    for identity in identities:
        identity.close()
    passed.forget()


class _Identity:
    """A credential made from settings, and remade to get past its cache."""

    def __init__(self, settings: TokenCredentialSettings, authority: str) -> None:
        self._settings = settings
        self._authority = authority
        self._credential: TokenCredential | None = None
        self.sources: dict[str, TokenSource] = {}

    def token(self, scope: str) -> Token:
        if self._credential is None:
            self._credential = build(self._settings, self._authority)
        return passed.ask(self._credential, scope)

    def remint(self, scope: str) -> Token:
        """A token of a new credential, whose cache is empty; the old one goes if it is given."""
        credential = build(self._settings, self._authority)
        try:
            token = passed.ask(credential, scope)
        except BaseException:
            _close(credential)
            raise
        old, self._credential = self._credential, credential
        _close(old)
        return token

    def begin_process(self) -> None:
        # Its connections are the parent's: the child makes a credential of its own.
        self._credential = None

    def close(self) -> None:
        credential, self._credential = self._credential, None
        _close(credential)


def _close(credential: object) -> None:
    # Of the classes here, only some hold anything open; those have a close().
    with suppress(Exception):
        getattr(credential, "close", lambda: None)()


def build(settings: TokenCredentialSettings, authority: str = _PUBLIC) -> TokenCredential:
    """The credential of azure-identity that the settings name.

    Args:
        settings: The credential's settings.
        authority: The cloud's.

    Raises:
        TokenError: azure-identity finds the settings unusable.
    """
    from azure import identity

    options = options_of(settings, authority, os.environ)
    if settings.kind == "device-code":
        options["prompt_callback"] = _show_code
    try:
        credential: TokenCredential = getattr(identity, _CLASSES[settings.kind])(**options)
    except (ValueError, TypeError) as exc:
        # A TypeError: an option that this version of azure-identity does not have yet.
        reason = str(exc)
    else:
        return credential
    finally:
        options.clear()  # it holds secrets, and a traceback would show it
    raise TokenError(f"credential.kind {settings.kind}: {reason}")


def options_of(
    settings: TokenCredentialSettings, authority: str, environ: Any = os.environ
) -> dict[str, Any]:
    """The arguments of the kind's class; pure.

    Args:
        settings: The credential's settings.
        authority: The cloud's.
        environ: Where AZURE_AUTHORITY_HOST may be, which azure-identity reads by itself.
    """
    options: dict[str, Any] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if name in _OURS or value is None:
            continue
        if hasattr(value, "get_secret_value"):
            value = value.get_secret_value()
        elif isinstance(value, os.PathLike):
            value = os.fspath(value)
        elif isinstance(value, tuple):
            value = list(value)
        options[name] = value
    if (
        "authority" in type(settings).model_fields
        and authority != _PUBLIC
        and not environ.get("AZURE_AUTHORITY_HOST")
    ):
        options.setdefault("authority", authority)
    return _renamed(settings.kind, options)


def _renamed(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options under the names that the kind's class has for them."""
    if kind == "default" and "client_id" in options:
        client_id = options.pop("client_id")
        options |= {
            "managed_identity_client_id": client_id,
            "workload_identity_client_id": client_id,
        }
    elif kind == "client-certificate" and "certificate_password" in options:
        options["password"] = options.pop("certificate_password")
    elif kind == "managed-identity":
        config = {
            name: options.pop(name) for name in ("object_id", "resource_id") if name in options
        }
        if config:
            options["identity_config"] = config
    return options


def _show_code(uri: str, code: str, _: dt.datetime) -> None:
    # On standard error: standard output is the program's own.
    sys.stderr.write(f"To sign in, open {uri} and enter the code {code}\n")
    sys.stderr.flush()


_lock = threading.Lock()
_identities: dict[tuple[TokenCredentialSettings, str], _Identity] = {}


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - whoever held it is gone
    _lock = threading.Lock()
    for identity in list(_identities.values()):
        identity.begin_process()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
