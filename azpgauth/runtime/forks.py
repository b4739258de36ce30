"""Lets objects begin again in a child after fork: locks that others hold, and threads, are gone.

`importing` has its own hooks beside these, since a fork has to wait for it before anybody else.
"""

from __future__ import annotations

import itertools
import logging  # noqa: F401 - its locks begin again before what is here, which may log
import os
import threading
import weakref
from contextlib import suppress
from typing import Protocol

__all__ = ["Lock", "Renewed", "renew_in_child"]


class Renewed(Protocol):
    """An object that begins again in a child after fork."""

    def begin_process(self) -> None:
        """Let go of what is the parent's; there is one thread only. It must not raise."""


def renew_in_child(renewed: Renewed) -> None:
    """Have an object begin again in each child; it is known weakly.

    What was made first begins first: an object finds those that it was made with begun already, and
    waits for no lock of theirs that a thread of the parent held.

    Args:
        renewed: The object.
    """
    _renewed[next(_order)] = renewed


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


_order = itertools.count()
_renewed: weakref.WeakValueDictionary[int, Renewed] = weakref.WeakValueDictionary()


def _in_child() -> None:
    for each in list(_renewed.values()):
        each.begin_process()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_in_child)
