"""Decides when a token is renewed, and what is done for somebody who asks now. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Literal

from azpgauth.errors import TokenError

if TYPE_CHECKING:
    from azpgauth.identity.token import Token

__all__ = [
    "AT_ONCE",
    "BACKOFF_CAP",
    "BACKOFF_CAP_WITHOUT",
    "SHORTEST",
    "SOON",
    "Pause",
    "backoff",
    "decide",
    "progress",
    "within",
]

BACKOFF_CAP = 60.0
"""Seconds: the longest wait between failed renewals, while there is a token to use meanwhile."""

BACKOFF_CAP_WITHOUT = 10.0
"""Seconds: the longest wait where there is none. A service comes back soon after its authority."""

SHORTEST = 0.5
"""Seconds: the shortest pause, also after a token that may be used for less than that."""

SOON = 1.0
"""Seconds that whoever needs a token waits for the next request, rather than be refused at once."""

AT_ONCE = 2
"""Requests that may wait for the credential: one, and one more beside one that hangs."""


def backoff(failures: int, jitter: float) -> float:
    """Seconds to wait after so many failures in a row; `jitter` is in 0…1."""
    return min(BACKOFF_CAP, 2.0 ** min(failures - 1, 10)) * (0.5 + 0.5 * jitter)


def within(since: float, now: float, seconds: float) -> bool:
    """Whether so many seconds have not passed yet.

    A clock that was put back by more than that does not make them last: they are over.
    """
    return -seconds < now - since < seconds


@dataclass(frozen=True)
class Pause:
    """The time after requests that brought nothing, in which no further one is made.

    Attributes:
        failures: How many of them there were in a row.
        since: When the last one ended, in seconds since the epoch.
        seconds: How long to wait from then on.
        error: What the last one brought instead.
    """

    failures: int = 0
    since: float = 0.0
    seconds: float = 0.0
    error: TokenError | None = None

    def longer(self, now: float, jitter: float, error: TokenError | None = None) -> Pause:
        """The pause after one more request that brought nothing."""
        failures = self.failures + 1
        return Pause(failures, now, backoff(failures, jitter), error)

    def left(self, now: float, *, usable: bool) -> float:
        """Seconds until the next request; `usable`: there is a token to use meanwhile."""
        seconds = self.seconds if usable else min(self.seconds, BACKOFF_CAP_WITHOUT)
        # Less than a millisecond is what is lost in adding up such large numbers.
        left = seconds - (now - self.since) if within(self.since, now, seconds) else 0.0
        return left if left >= 0.001 else 0.0

    def refusal(self, left: float) -> TokenError:
        """The failure before it, for whoever comes while so many seconds are left of it."""
        error = self.error or TokenError("no token from Microsoft Entra ID")
        return error.again(f"{error.said}; the next try is in {ceil(left)} s")


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
