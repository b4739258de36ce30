"""Settings to a credential of azure-identity, and from it to a `TokenSource`.

The only module that imports azure.identity, and only when a token is needed. One `TokenSource` per
(credential, scope) in a process, shared by all pools that are opened with equal settings.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from azpgauth import passed
from azpgauth.errors import TokenError
from azpgauth.tokens import TokenSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from azure.core.credentials import TokenCredential

    from azpgauth.schedule import Token
    from azpgauth.settings.models import TokenCredentialSettings

__all__ = ["forget", "source_for"]


def source_for(settings: TokenCredentialSettings, scope: str) -> TokenSource:
    """The process's source of tokens for these settings.

    Args:
        settings: The credential's settings.
        scope: The scope to ask for, ending in `/.default`.
    """
    with _lock:
        identity = _identities.get(settings)
        if identity is None:
            identity = _identities[settings] = _Identity(settings)
        source = identity.sources.get(scope)
        if source is None:
            source = identity.sources[scope] = TokenSource(
                lambda: identity.token(scope),
                mint_anew=lambda: identity.token(scope, anew=True),
                refresh=settings.refresh,
            )
    return source


def forget() -> None:
    """Forget all tokens and credentials, so that the next pool starts afresh. For tests."""
    with _lock:
        _identities.clear()
    passed.forget()


_lock = threading.Lock()
_identities: dict[TokenCredentialSettings, _Identity] = {}


class _Identity:
    """A credential made from settings, and remade to get past its cache."""

    def __init__(self, settings: TokenCredentialSettings) -> None:
        self._settings = settings
        self._credential: TokenCredential | None = None
        self.sources: dict[str, TokenSource] = {}

    def token(self, scope: str, *, anew: bool = False) -> Token:
        credential = None if anew else self._credential
        if credential is None:
            credential = self._credential = build(self._settings)
        return passed.ask(credential, scope)


def build(settings: TokenCredentialSettings) -> TokenCredential:
    """The credential of azure-identity that the settings name.

    Args:
        settings: The credential's settings.

    Raises:
        TokenError: azure-identity finds the settings unusable.
    """
    make = _MAKERS[settings.kind]
    try:
        return make(settings)
    except ValueError as exc:
        raise TokenError(f"credential.kind {settings.kind}: {exc}") from None


def _default(settings: Any) -> TokenCredential:
    from azure.identity import DefaultAzureCredential

    options: dict[str, Any] = {}
    if settings.client_id:
        options["managed_identity_client_id"] = settings.client_id
        options["workload_identity_client_id"] = settings.client_id
    return DefaultAzureCredential(**options)


def _managed_identity(settings: Any) -> TokenCredential:
    from azure.identity import ManagedIdentityCredential

    options = {"client_id": settings.client_id} if settings.client_id else {}
    return ManagedIdentityCredential(**options)


_MAKERS: dict[str, Callable[[Any], TokenCredential]] = {
    "default": _default,
    "managed-identity": _managed_identity,
}
