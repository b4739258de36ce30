"""Offers doubles for tests: a credential that counts, made-up tokens, a clock moved by hand.

They sign in nowhere. For a test that signs in, use `azpgauth.sandbox`.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from typing import NamedTuple

__all__ = ["FakeCredential", "FakeToken", "ManualClock", "fake_token"]


class FakeToken(NamedTuple):
    """What a credential answers, as azure-core's `AccessTokenInfo`."""

    token: str
    expires_on: int
    token_type: str = "Bearer"  # noqa: S105 - a scheme, no secret
    refresh_on: int | None = None


def fake_token(**claims: object) -> str:
    """A token with these claims and no valid signature.

    Example:
        >>> fake_token(upn="ada@example.com").count(".")
        2
    """
    header = {"alg": "RS256", "typ": "JWT"}
    parts = [json.dumps(part).encode() for part in (header, claims)] + [b"not a signature"]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


class FakeCredential:
    """A credential of azure-core's shape.

    Args:
        claims: The claims of its tokens; by default a user's.
        lifetime: Seconds that its tokens live.
        error: Raised instead of giving a token.

    Attributes:
        scopes: What it was asked for, one entry a request.
    """

    def __init__(
        self,
        claims: dict[str, object] | None = None,
        *,
        lifetime: int = 3600,
        error: Exception | None = None,
    ) -> None:
        self.claims = {"upn": "somebody@example.com"} if claims is None else claims
        self.lifetime = lifetime
        self.error = error
        self.scopes: list[str] = []

    def get_token(self, *scopes: str, **_: object) -> FakeToken:
        """A new token."""
        self.scopes.extend(scopes)
        if self.error is not None:
            raise self.error
        token = fake_token(**self.claims, serial=len(self.scopes))
        return FakeToken(token, int(time.time()) + self.lifetime)


class ManualClock:
    """A clock for `TokenSource` that stands still until it is moved.

    Args:
        now: Where it starts, in seconds since the epoch.
    """

    def __init__(self, now: float = 1_000_000.0) -> None:
        self._now = now
        self._moved = threading.Condition()

    def time(self) -> float:
        """Where it stands."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move it on, and wake whoever waited for that long."""
        with self._moved:
            self._now += seconds
            self._moved.notify_all()

    def wait(self, event: threading.Event, timeout: float) -> bool:
        """Wait for the event, or until the clock was moved on by so many seconds."""
        with self._moved:
            until = self._now + timeout
            while not event.is_set() and self._now < until:
                # An event cannot be waited for together with the clock: look often, in real time.
                self._moved.wait(0.005)
        return event.is_set()

    async def sleep(self, seconds: float) -> None:
        """Wait on an event loop until the clock was moved on by so many seconds."""
        import asyncio

        until = self._now + seconds
        while self._now < until:  # noqa: ASYNC110 - it may be moved from any thread or loop
            await asyncio.sleep(0.005)
