"""Puts right in a child after fork what it cannot take over: locks that others hold, and threads.

What asks for it here is called in the order of asking. `importing` has its own hooks beside these,
since a fork has to wait for it before anybody else.
"""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Lock", "Renewed", "after_fork_in_child", "renew_in_child"]


class Renewed(Protocol):
    """An object that begins again in a child after fork."""

    def begin_process(self) -> None:
        """Let go of what is the parent's; there is one thread only."""


def after_fork_in_child(step: Callable[[], None]) -> Callable[[], None]:
    """Have a function called in each child; a decorator.

    Args:
        step: The function; it must not raise.
    """
    _steps.append(step)
    return step


def renew_in_child(renewed: Renewed) -> None:
    """Have an object begin again in each child; it is known weakly.

    Args:
        renewed: The object.
    """
    _renewed.add(renewed)


class Lock:
    """A reentrant lock that nobody holds in a child after fork.

    Example:
        >>> lock = Lock()
        >>> with lock:
        ...     pass
    """

    def __init__(self) -> None:
        self.begin_process()
        renew_in_child(self)

    def begin_process(self) -> None:
        """Whoever held it is gone."""
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        with suppress(RuntimeError):  # this thread forked while it held it: here is another one
            self._lock.release()


_steps: list[Callable[[], None]] = []
_renewed: weakref.WeakSet[Renewed] = weakref.WeakSet()


def _in_child() -> None:
    for each in list(_renewed):
        each.begin_process()
    for step in _steps:
        step()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_in_child)
