"""Tells the token state machine the time, and waits for it; tests inject their own clock."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import threading

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """A clock that can also wait."""

    def time(self) -> float:
        """Seconds since the epoch, as in a token's ``exp``."""

    def wait(self, event: threading.Event, timeout: float) -> bool:
        """Wait for the event, `timeout` seconds at most; tell whether it was set."""

    async def sleep(self, seconds: float) -> None:
        """Wait for so many seconds on an event loop."""


class SystemClock:
    """The real clock."""

    def time(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def wait(self, event: threading.Event, timeout: float) -> bool:
        """Wait for the event, `timeout` seconds at most."""
        return event.wait(timeout)

    async def sleep(self, seconds: float) -> None:
        """Wait for so many seconds on an event loop."""
        import asyncio

        await asyncio.sleep(seconds)
