"""When a token is renewed, and what is done for somebody who asks now: decisions alone. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "AHEAD",
    "BACKOFF_CAP",
    "MARGIN",
    "MIN_SPACING",
    "SOON",
    "Pause",
    "Token",
    "backoff",
    "decide",
    "progress",
]

MARGIN = 30.0
"""Seconds: a token with less than this to live is not handed out."""

AHEAD = 300.0
"""Seconds before expiry at which to renew when the credential names no time of its own.

azure-identity hands out its cached token until 5 minutes before expiry, so asking earlier would
bring the same one back.
"""

MIN_SPACING = 30.0
"""Seconds between renewals of tokens that live so short that `AHEAD` is always reached."""

BACKOFF_CAP = 60.0
"""Seconds: the longest wait between failed renewals, while there is a token to use meanwhile."""

BACKOFF_CAP_WITHOUT = 10.0
"""Seconds: the longest wait where there is none. A service comes back soon after its authority."""

SOON = 1.0
"""Seconds that whoever needs a token waits for the next request, rather than be refused at once."""


@dataclass(frozen=True)
class Token:
    """An access token; its repr does not show it.

    Attributes:
        value: The bearer secret, which PostgreSQL takes as the password.
        expires_on: When it expires, in seconds since the epoch.
        refresh_on: When the issuer wants it renewed, if it says so.
        fetched_at: When this process got it.
        credential: Which credential gave it, by the name of its class.
    """

    value: str = field(repr=False)
    expires_on: float
    refresh_on: float | None = None
    fetched_at: float = 0.0
    credential: str = ""

    def usable(self, now: float) -> bool:
        """Whether it may be handed out: it lives for `MARGIN` seconds more."""
        return self.expires_on - now >= MARGIN

    def renew_at(self) -> float:
        """When to renew it: at `refresh_on`, else `AHEAD` of its expiry.

        A token that lives shorter than that is renewed at half of its usable life, at most
        `MIN_SPACING` after it came, so that a short life does not mean one request after another.
        """
        due = self.expires_on - AHEAD
        if self.refresh_on is not None:  # which may come too late to be of use
            due = min(self.refresh_on, self.expires_on - 2 * MARGIN)
        usable = max(self.expires_on - MARGIN - self.fetched_at, 0.0)
        return max(due, self.fetched_at + min(MIN_SPACING, usable / 2))


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
