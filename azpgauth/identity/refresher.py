"""Renews a token on time though nobody connects, on a thread of its own."""

from __future__ import annotations

import logging
import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from azpgauth.identity.clock import Clock

__all__ = ["Refresher"]

logger = logging.getLogger("azpgauth.tokens")

PAUSE = 10.0
"""Seconds until the next look after one that failed."""


class Refresher:
    """Calls a method when it is due. Knows its object weakly, and ends with it.

    Args:
        tick: The bound method: does what is due, and gives the seconds until the next call.
        clock: The clock.
    """

    def __init__(self, tick: Callable[[], float], clock: Clock) -> None:
        self._tick = weakref.WeakMethod(tick)
        self._clock = clock
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="azpgauth-refresher", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Something changed: look at once."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread, and wait until it has ended."""
        self._stopped = True
        self._wake.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=1.0)

    def _run(self) -> None:
        while not self._stopped:
            tick = self._tick()
            if tick is None:
                return
            try:
                delay = tick()
            except Exception:  # noqa: BLE001 - such as: no thread can be started just now
                logger.warning("renewing the token could not be begun; trying again later")
                delay = PAUSE
            del tick
            if self._clock.wait(self._wake, delay):
                self._wake.clear()
