"""Asks credential objects that a program made for tokens, and keeps one `TokenSource` for each.

azure.identity is not imported here: any object of azure-core's shape does, sync or async.
"""

from __future__ import annotations

import os
import time
import weakref
from collections import deque
from contextlib import suppress
from importlib import import_module
from inspect import iscoroutine, iscoroutinefunction
from typing import TYPE_CHECKING, Any

from azpgauth.errors import TokenError
from azpgauth.identity.claims import claims_of
from azpgauth.identity.diagnosis import needs_loop, no_token
from azpgauth.identity.token import MARGIN, Token
from azpgauth.identity.tokens import TokenSource
from azpgauth.runtime.forks import Lock
from azpgauth.runtime.importing import guard

if TYPE_CHECKING:
    from collections.abc import Callable

    from azpgauth.identity.tokens import Refresh

__all__ = ["ask", "forget", "is_async", "is_credential", "source_of"]


def is_credential(value: object) -> bool:
    """Whether this has azure-core's `get_token` or `get_token_info`."""
    return _asked(value) is not None


def is_async(credential: object) -> bool:
    """Whether it is to be awaited, as those of azure.identity.aio are."""
    return iscoroutinefunction(_asked(credential))


def source_of(credential: object, scope: str, refresh: Refresh = "background") -> TokenSource:
    """The process's source of tokens for a credential that the program made.

    It is kept as long as the credential lives, and knows it weakly: whoever asks must hold it.

    Args:
        credential: Any object with azure-core's `get_token`, sync or async.
        scope: The scope to ask for.
        refresh: When to renew, unless whoever holds the source says otherwise.
    """
    key = id(credential)  # credentials need not be hashable
    with _lock:
        known = _sources.get(key)
        if known is None or known[0]() is not credential:
            try:
                reference = weakref.ref(credential, lambda _: _sources.pop(key, None))
            except TypeError:  # a class with slots
                return _source_of_slotted(credential, scope, refresh)
            known = _sources[key] = (reference, {})
        reference, sources = known
        source = sources.get(scope)
        if source is None:
            source = sources[scope] = _new_source(reference, is_async(credential), scope, refresh)
    return source


def _source_of_slotted(credential: object, scope: str, refresh: Refresh) -> TokenSource:
    """The source for an object that cannot be known weakly: the last few are kept alive."""
    for known, its_scope, source in _slotted:
        if known is credential and its_scope == scope:
            return source
    source = _new_source(lambda: credential, is_async(credential), scope, refresh)
    _slotted.append((credential, scope, source))
    return source


def forget() -> None:
    """Forget all sources. For tests."""
    with _lock:
        _sources.clear()
        _slotted.clear()


_lock = Lock()  # reentrant: a weak reference may die while it is held
_sources: dict[int, tuple[weakref.ref[Any], dict[str, TokenSource]]] = {}
_slotted: deque[tuple[object, str, TokenSource]] = deque(maxlen=256)


def _new_source(
    reference: Callable[[], Any], awaited: bool, scope: str, refresh: Refresh
) -> TokenSource:
    if awaited:
        return TokenSource(amint=lambda: _aask(_alive(reference), scope), refresh=refresh)
    return TokenSource(lambda: ask(_alive(reference), scope), refresh=refresh)


def _alive(reference: Callable[[], Any]) -> Any:
    credential = reference()
    if credential is None:
        raise TokenError(
            "the credential object that this pool was opened with is gone",
            remedy="keep it for as long as the pool is open",
        )
    return credential


def ask(credential: Any, scope: str) -> Token:
    """Ask a credential for a token, with the time at which it wants it renewed."""
    _import_late(credential)
    answer = _asked(credential)(scope)
    if iscoroutine(answer):
        answer.close()
        raise needs_loop(type(credential).__name__)
    return _token(credential, answer)


async def _aask(credential: Any, scope: str) -> Token:
    _import_late(credential)
    return _token(credential, await _asked(credential)(scope))


_LATE = (
    *("netrc", "azure.core.rest._requests_basic", "encodings.utf_8_sig"),
    *("msal_extensions", "_strptime", "encodings.utf_16_le"),
)
"""What credentials of azure-identity import as late as in the middle of a request."""

_LATE_WITH_CERTIFICATE = ("jwt",)
_LATE_ON_LOOP = ("azure.core.rest._aiohttp",)


def _import_late(credential: object) -> None:
    """Import what is about to be imported, before it is: a fork waits for no request."""
    home = type(credential).__module__
    if not home.startswith("azure.identity"):
        return
    names = [*_LATE]
    if "Certificate" in _name(credential) or "AZURE_CLIENT_CERTIFICATE_PATH" in os.environ:
        names += _LATE_WITH_CERTIFICATE
    if home.startswith("azure.identity.aio"):
        names += _LATE_ON_LOOP
    with guard():
        for name in names:
            with suppress(ImportError):  # of another version, or not needed
                import_module(name)


def _asked(credential: object) -> Any:
    # get_token() would drop refresh_on.
    return getattr(credential, "get_token_info", None) or getattr(credential, "get_token", None)


def _token(credential: object, answer: Any) -> Token:
    now = time.time()
    if not isinstance(getattr(answer, "token", None), str) or not answer.token:
        raise no_token(f"{_name(credential)} gave no token")
    refresh_on = getattr(answer, "refresh_on", None)
    return Token(
        answer.token,
        _expiry(answer.token, float(answer.expires_on), now),
        None if refresh_on is None else float(refresh_on),
        fetched_at=now,
        credential=_name(credential),
    )


_LONGEST = 30 * 24 * 3600
"""Seconds that no access token lives."""


def _expiry(token: str, said: float, now: float) -> float:
    """When a token expires: as the credential says, unless that is past and the token says more.

    AzureDeveloperCliCredential takes the program's UTC for local time, so that east of Greenwich
    a good token looks expired.
    """
    if said - now >= MARGIN:
        return said
    claimed = claims_of(token).get("exp")
    if isinstance(claimed, (int, float)) and 0 < claimed < now + _LONGEST:
        return max(said, float(claimed))
    return said


def _name(credential: object) -> str:
    """Which credential gave the token: of a chain, the one that won."""
    winner = getattr(credential, "_successful_credential", None)
    names = [type(each).__name__ for each in (credential, winner) if each is not None]
    return ": ".join(names)
