"""Tells what an open pool signs in with: `token_info`."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

from azpgauth.identity.login import TokenLogin

if TYPE_CHECKING:
    from azpgauth.drivers.driver import ConnectArguments
    from azpgauth.identity.login import Login

__all__ = ["PoolTokenInfo", "register", "token_info"]


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


def register(pool: object, arguments: ConnectArguments) -> None:
    """A pool or connection was opened: `token_info` can tell of it as long as it lives."""
    _logins[pool] = arguments.login


_logins: weakref.WeakKeyDictionary[object, Login] = weakref.WeakKeyDictionary()
