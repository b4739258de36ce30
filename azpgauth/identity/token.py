"""Describes an access token: how long it may be used, when it is renewed, what may be said of it.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["AHEAD", "MARGIN", "MIN_SPACING", "Token", "TokenInfo"]

MARGIN = 30.0
"""Seconds: a token with less than this to live is not handed out."""

AHEAD = 300.0
"""Seconds before expiry at which to renew when the credential names no time of its own.

azure-identity hands out its cached token until 5 minutes before expiry, so asking earlier would
bring the same one back.
"""

MIN_SPACING = 30.0
"""Seconds between renewals of tokens that live so short that `AHEAD` is always reached."""


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


@dataclass(frozen=True)
class TokenInfo:
    """What a source can tell about itself; never the token.

    Attributes:
        identity: Who the present token is for, and which credential gave it.
        requests: How many tokens were asked of the credential.
        failures: How many of these requests failed, or had no answer in time.
        expires_on: When the present token expires (seconds since the epoch), None without one.
        renew_at: When it is renewed.
        last_refresh: When it was fetched.
        last_error: The last failed request's message, None after a success.
    """

    identity: str | None
    requests: int
    failures: int
    expires_on: float | None
    renew_at: float | None
    last_refresh: float | None
    last_error: str | None
