"""Guards imports that are made only when needed, so that a fork waits for them.

A child in which a module is half imported, by a thread that it does not have, could never import
it. The order is always this: first the guard, then Python's own locks of modules. So no module
takes the guard while it is itself being imported.
"""

from __future__ import annotations

import os
import time

# Not from threading, which would double what importing this package takes.
from _thread import RLock, get_ident
from importlib import import_module

TYPE_CHECKING = False  # see the package's own
if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["guard", "load"]


def guard() -> RLock:
    """The lock to hold while something is imported; reentrant, since one import brings another.

    Example:
        >>> with guard():
        ...     from decimal import Decimal
    """
    if not _ready:
        _go_first()
    return _guard


def load(name: str) -> ModuleType:
    """Import a module.

    Args:
        name: Its full name.
    """
    with guard():
        return import_module(name)


_guard = RLock()
_ready = False
_forking: list[int] = []  # the threads that fork, or wait to; once for each time they are here

_LONG = 5.0
"""Seconds that no fork takes."""


def _register() -> None:
    if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
        os.register_at_fork(
            before=_before_fork,
            after_in_parent=_after_fork_in_parent,
            after_in_child=_after_fork_in_child,
        )


def _before_fork() -> None:
    _forking.append(get_ident())
    _guard.acquire()


def _after_fork_in_parent() -> None:
    if get_ident() in _forking:  # not if it was registered in the meantime
        _forking.remove(get_ident())
        _guard.release()


def _after_fork_in_child() -> None:
    while get_ident() in _forking:
        _after_fork_in_parent()
    _forking.clear()  # other threads' forks are the parent's


def _go_first() -> None:
    """Have a fork wait for the guard before it takes the locks of other modules.

    It calls first whoever registered last. Those that hold a lock during a fork are needed by what
    is being imported: logging's gives it its logger. A fork that has it already must not wait for
    the import. So they are imported here, and then the guard, being reentrant, registers again.
    """
    global _ready  # noqa: PLW0603 - once in a process
    with _guard:
        import concurrent.futures.thread  # noqa: F401 - it registers itself
        import logging  # noqa: F401 - likewise

        if not _ready:
            _register()
            _ready = True
    # Forks that began before know the old order only: let them pass.
    until = time.monotonic() + _LONG
    while _forking and time.monotonic() < until:
        time.sleep(0.001)


_register()
