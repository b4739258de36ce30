"""Lets one piece of code serve threads and event loops: it waits through what it is given.

An `async def` that takes a `Wait` and awaits nothing else decides once for both. On a thread the
waiting blocks, so that the coroutine never suspends and `run` can end it with one step; on an event
loop it is awaited as usual.

>>> async def answered(future, wait):
...     return await wait.result(future, 5)
>>> future = Future(); future.set_result("yes")
>>> run(answered(future, BLOCKING))
'yes'
"""

from __future__ import annotations

from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["BLOCKING", "ON_LOOP", "Wait", "run"]

T = TypeVar("T")


class Wait(Protocol):
    """How to wait for what another thread brings."""

    async def result(self, future: Future[T], timeout: float | None) -> T:
        """What a future brings.

        Args:
            future: The future; it goes on if this caller gives up.
            timeout: Seconds to wait; None waits as long as it takes.

        Raises:
            TimeoutError: It did not come in time. What the future itself raises is never that:
                its errors are results.
        """


class _Blocking:
    async def result(self, future: Future[T], timeout: float | None) -> T:
        try:
            return future.result(timeout)
        except FutureTimeoutError:  # before Python 3.11, an exception of its own
            raise TimeoutError from None


class _OnLoop:
    async def result(self, future: Future[T], timeout: float | None) -> T:
        import asyncio

        waiting = asyncio.wrap_future(future)
        # wait() leaves the future alone when this caller is cancelled or runs out of time.
        done, _ = await asyncio.wait({waiting}, timeout=timeout)
        if not done:
            raise TimeoutError
        return waiting.result()


BLOCKING: Wait = _Blocking()
"""For a thread."""

ON_LOOP: Wait = _OnLoop()
"""For the running event loop."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of work that waits with `BLOCKING` alone.

    Args:
        work: The coroutine.

    Raises:
        RuntimeError: It awaited something else, which nobody would end here.
    """
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise RuntimeError("code for a thread awaited something other than its wait")
