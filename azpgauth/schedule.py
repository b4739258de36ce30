"""When a token is renewed, and what is done for somebody who asks now: decisions alone. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from azpgauth.token import Token

__all__ = [
    "BACKOFF_CAP",
    "SOON",
    "Pause",
    "backoff",
    "decide",
    "progress",
]

BACKOFF_CAP = 60.0
"""Seconds: the longest wait between failed renewals, while there is a token to use meanwhile."""

BACKOFF_CAP_WITHOUT = 10.0
"""Seconds: the longest wait where there is none. A service comes back soon after its authority."""

SOON = 1.0
"""Seconds that whoever needs a token waits for the next request, rather than be refused at once."""


def backoff(failures: int, jitter: float) -> float:
    """Seconds to wait after so many failures in a row; `jitter` is in 0…1."""
    return min(BACKOFF_CAP, 2.0 ** min(failures - 1, 10)) * (0.5 + 0.5 * jitter)


@dataclass(frozen=True)
class Pause:
    """The time after requests that brought nothing, in which no further one is made.

    Attributes:
        failures: How many of them there were in a row.
        since: When the last one ended, in seconds since the epoch.
        seconds: How long to wait from then on.
    """

    failures: int = 0
    since: float = 0.0
    seconds: float = 0.0

    def longer(self, now: float, jitter: float) -> Pause:
        """The pause after one more request that brought nothing."""
        failures = self.failures + 1
        return Pause(failures, now, backoff(failures, jitter))

    def left(self, now: float, *, usable: bool) -> float:
        """Seconds until the next request; `usable`: there is a token to use meanwhile."""
        seconds = self.seconds if usable else min(self.seconds, BACKOFF_CAP_WITHOUT)
        gone = now - self.since
        return max(seconds - gone, 0.0) if gone >= 0 else 0.0  # a clock put back ends it


Decision = Literal["use", "use and renew", "fetch"]


def decide(token: Token | None, now: float, pause: Pause) -> Decision:
    """What to do for somebody who asks now."""
    if token is None or not token.usable(now):
        return "fetch"
    if now >= token.renew_at() and not pause.left(now, usable=True):
        return "use and renew"
    return "use"


def progress(before: Token, after: Token, now: float, *, anew: bool) -> bool:
    """Whether a request brought something better than what is there.

    A token asked for anew, because the server refused the present one, only has to differ.
    """
    if after.value == before.value:
        return not before.usable(now)
    return anew or not before.usable(now) or after.expires_on > before.expires_on
