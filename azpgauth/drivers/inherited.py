"""Keeps a child after fork off the connections of its parent.

Both processes have the same sockets. What the child sends on one, a goodbye at its end included,
reaches the parent's session, and what it reads the parent misses. So each is replaced by a socket
that leads nowhere, under the same number: the driver's own objects may be used, collected or
closed, and nothing of it arrives.
"""

from __future__ import annotations

import os
import socket
import weakref
from contextlib import suppress
from typing import Any

from azpgauth.runtime.forks import renew_in_child

__all__ = ["Connections", "foreign"]


class Connections:
    """The open connections of one pool, known weakly."""

    def __init__(self) -> None:
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()
        renew_in_child(self)

    def add(self, conn: Any) -> None:
        """One more, of psycopg, psycopg2 or asyncpg."""
        self._known.add(conn)

    def begin_process(self) -> None:
        """In a child: let go of them without a word. Before anything drops them, which says one."""
        conns = list(self._known)
        self._known = weakref.WeakSet()
        if not conns:
            return
        ours, nobodys = socket.socketpair()
        nobodys.close()
        with ours:
            for conn in conns:
                if not hasattr(conn, "fileno"):
                    # asyncpg's: when it is collected it would leave the parent's event loop, too.
                    conn._aborted = True  # noqa: SLF001 - no other way
                    continue
                with suppress(Exception):  # it has closed; drivers have errors of their own for it
                    os.dup2(ours.fileno(), conn.fileno(), inheritable=False)


def foreign(what: str) -> RuntimeError:
    """The error for an async pool in a process that did not open it.

    Args:
        what: Which kind of pool.
    """
    return RuntimeError(
        f"this {what} belongs to the process that opened it, and to its event loop: open another "
        "one in each process, after the fork"
    )
