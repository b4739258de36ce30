"""Settings to a credential of azure-identity, and from it to a `TokenSource`.

The only module that imports azure.identity, and only when a token is needed. One `TokenSource` per
(credential, scope) in a process, shared by all pools that are opened with equal settings.
"""

from __future__ import annotations

import threading
import time
import weakref
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any, Literal

from azpgauth.errors import TokenError
from azpgauth.tokens import Token, TokenSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from azure.core.credentials import TokenCredential

    from azpgauth.settings.models import TokenCredentialSettings

__all__ = ["MANAGEMENT_SCOPE", "forget", "source_for", "source_of"]

MANAGEMENT_SCOPE = "https://management.azure.com/.default"
"""A token of this scope names the identity where the database's token does not."""

Refresh = Literal["background", "on-demand"]


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


def source_of(credential: TokenCredential, scope: str, refresh: Refresh) -> TokenSource:
    """The process's source of tokens for a credential that the program made.

    It is kept as long as the credential lives, and knows it weakly: whoever asks must hold it.

    Args:
        credential: Any object with azure-core's `get_token`.
        scope: The scope to ask for.
        refresh: When to renew; what the first caller says holds for all.
    """
    key = id(credential)  # credentials need not be hashable
    with _lock:
        known = _passed.get(key)
        if known is None or known[0]() is not credential:
            try:
                reference = weakref.ref(credential, lambda _: _passed.pop(key, None))
            except TypeError:  # a class with slots: then each pool has a source of its own
                return TokenSource(lambda: ask(credential, scope), refresh=refresh)
            known = _passed[key] = (reference, {})
        reference, sources = known
        source = sources.get(scope)
        if source is None:
            source = sources[scope] = TokenSource(
                lambda: _ask_weakly(reference, scope), refresh=refresh
            )
    return source


def forget() -> None:
    """Forget all tokens and credentials, so that the next pool starts afresh. For tests."""
    with _lock:
        _identities.clear()
        _passed.clear()


_lock = threading.RLock()  # reentrant: a weak reference may die while it is held
_identities: dict[TokenCredentialSettings, _Identity] = {}
_passed: dict[int, tuple[weakref.ref[TokenCredential], dict[str, TokenSource]]] = {}


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
        return ask(credential, scope)


def _ask_weakly(reference: weakref.ref[TokenCredential], scope: str) -> Token:
    credential = reference()
    if credential is None:
        raise TokenError("the credential object that this pool was opened with is gone")
    return ask(credential, scope)


def ask(credential: TokenCredential, scope: str) -> Token:
    """Ask a credential for a token, with the time at which it wants it renewed."""
    # get_token() would drop refresh_on.
    answer: Any
    if hasattr(credential, "get_token_info"):
        answer = credential.get_token_info(scope)
    else:
        answer = credential.get_token(scope)
    if iscoroutine(answer):
        answer.close()
        raise TokenError(
            f"{type(credential).__name__} is an async credential; "
            "pass the one of the same name from azure.identity"
        )
    return Token(
        answer.token,
        float(answer.expires_on),
        _seconds(getattr(answer, "refresh_on", None)),
        fetched_at=time.time(),
    )


def _seconds(value: float | None) -> float | None:
    return None if value is None else float(value)


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
