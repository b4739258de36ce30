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

import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["BLOCKING", "ON_LOOP", "Blocking", "Wait", "run"]

T = TypeVar("T")


class Wait(Protocol):
    """How to wait: for what another thread brings, for a time, for a connection."""

    async def result(self, future: Future[T], timeout: float | None) -> T:
        """What a future brings.

        Args:
            future: The future; it goes on if this caller gives up.
            timeout: Seconds to wait; None waits as long as it takes.

        Raises:
            TimeoutError: It did not come in time. What the future itself raises is never that:
                its errors are results.
        """

    async def sleep(self, seconds: float) -> None:
        """Wait for a time in seconds."""

    async def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """What a function gives; on an event loop, what its awaitable gives."""

    async def off_loop(self, function: Callable[..., T], /, *args: Any) -> T:
        """What a function gives that blocks: on an event loop, it is called on a thread."""

    async def readable(self, descriptor: int, seconds: float) -> bool:
        """Whether there is something to read from a file or socket before a time is over."""


class Blocking:
    """Blocks the thread; `call` takes functions that are not async."""

    async def result(self, future: Future[T], timeout: float | None) -> T:
        """See `Wait.result`."""
        try:
            return future.result(timeout)
        except FutureTimeoutError:  # before Python 3.11, an exception of its own
            raise TimeoutError from None

    async def sleep(self, seconds: float) -> None:
        """See `Wait.sleep`."""
        time.sleep(seconds)  # noqa: ASYNC251 - it blocks, as its class says

    async def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """See `Wait.call`."""
        return function(*args, **kwargs)

    async def off_loop(self, function: Callable[..., T], /, *args: Any) -> T:
        """See `Wait.off_loop`."""
        return function(*args)

    async def readable(self, descriptor: int, seconds: float) -> bool:
        """See `Wait.readable`."""
        import selectors

        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            return bool(selector.select(seconds))


class _OnLoop:
    async def result(self, future: Future[T], timeout: float | None) -> T:
        import asyncio

        waiting = asyncio.wrap_future(future)
        # wait() leaves the future alone when this caller is cancelled or runs out of time.
        done, _ = await asyncio.wait({waiting}, timeout=timeout)
        if not done:
            raise TimeoutError
        return waiting.result()

    async def sleep(self, seconds: float) -> None:
        import asyncio

        await asyncio.sleep(seconds)

    async def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    async def off_loop(self, function: Callable[..., T], /, *args: Any) -> T:
        import asyncio

        return await asyncio.to_thread(function, *args)

    async def readable(self, descriptor: int, seconds: float) -> bool:
        import asyncio

        loop = asyncio.get_running_loop()
        there = asyncio.Event()
        loop.add_reader(descriptor, there.set)
        try:
            await asyncio.wait_for(there.wait(), seconds)
        except asyncio.TimeoutError:  # before Python 3.11, an exception of its own
            return False
        finally:
            loop.remove_reader(descriptor)
        return True


BLOCKING: Wait = Blocking()
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
