"""Says when a pool checks a connection before it hands it out, and for how long.

A check is one round trip. Who waits for it has `pool.timeout` seconds for all of it: for a free
place, for the check, and for a new connection in its place.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextvars import Token

__all__ = ["GOODBYE", "checkout", "left", "patience", "used_lately"]

FRESH = 0.5
"""Seconds after its last use in which a connection is handed out without a check."""

_SHORTEST, _LONGEST = 0.25, 5.0
"""Seconds of one check, however short or long the time that is left."""

GOODBYE = 1.0
"""Seconds for closing a connection of asyncpg's, which waits for its server."""

_until: ContextVar[float] = ContextVar("azpgauth_checkout_until", default=float("inf"))


class checkout:  # noqa: N801 - used as a function; a generator would take three times as long
    """Somebody asks a pool for a connection; what is done for it in the block knows its limit.

    Args:
        timeout: Seconds that all of it may take.
    """

    __slots__ = ("_before", "_timeout")
    _before: Token[float]

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout

    def __enter__(self) -> None:
        self._before = _until.set(time.monotonic() + self._timeout)

    def __exit__(self, *_: object) -> None:
        _until.reset(self._before)


def left(timeout: float) -> float:
    """Seconds that are left of the check-out in which this is called.

    Args:
        timeout: Seconds to give at most, and outside of a check-out.
    """
    return min(timeout, _until.get() - time.monotonic())


def used_lately(at: float) -> bool:
    """Whether a connection was used so lately that nobody asks whether it works.

    Args:
        at: When it was used last, by `time.monotonic`.
    """
    return time.monotonic() - at < FRESH


def patience(timeout: float) -> float:
    """Seconds that one check may take.

    Args:
        timeout: Seconds that are left for a connection. Where next to none are, a check has time
            for an answer from far away all the same: else a good connection would seem dead.

    Example:
        >>> patience(4), patience(30), patience(0)
        (1.0, 5.0, 0.25)
    """
    return min(max(timeout / 4, _SHORTEST), _LONGEST)
