"""Checks a connection before a pool hands it out: not right after use, and not for long.

A check is one round trip. Who waits for it has `pool.timeout` seconds for all of it: for a free
place, for the check, and for a new connection in its place.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["asyncpg_answers", "checkout", "left", "patience", "psycopg2_answers", "used_lately"]

FRESH = 0.5
"""Seconds after its last use in which a connection is handed out without a check."""

_SHORTEST, _LONGEST = 0.25, 5.0
"""Seconds of one check, however short or long the time that is left."""

_until: ContextVar[float] = ContextVar("azpgauth_checkout_until", default=float("inf"))


@contextmanager
def checkout(timeout: float) -> Iterator[None]:
    """Somebody asks a pool for a connection; what is done for it in the block knows its limit.

    Args:
        timeout: Seconds that all of it may take.
    """
    token = _until.set(time.monotonic() + timeout)
    try:
        yield
    finally:
        _until.reset(token)


def left(timeout: float) -> float:
    """Seconds that are left of the check-out in which this is called.

    Args:
        timeout: Seconds to give at most, and outside of a check-out.
    """
    return min(timeout, _until.get() - time.monotonic())


def used_lately(at: float) -> bool:
    """Whether a connection was used so lately that nobody asks whether it works.

    Args:
        at: When it was used last, by `time.monotonic`.
    """
    return time.monotonic() - at < FRESH


def patience(timeout: float) -> float:
    """Seconds that one check may take.

    Args:
        timeout: Seconds that are left for a connection. Where next to none are, a check has time
            for an answer from far away all the same: else a good connection would seem dead.

    Example:
        >>> patience(4), patience(30), patience(0)
        (1.0, 5.0, 0.25)
    """
    return min(max(timeout / 4, _SHORTEST), _LONGEST)


def psycopg2_answers(conn: Any, seconds: float) -> bool:
    """Whether a server still answers on a connection of psycopg2.

    psycopg2 knows no limit for a query. So its socket is shut down when the time is over, under
    another number: libpq could have closed its own by then.

    Args:
        conn: The connection, idle.
        seconds: How long to wait for the answer.
    """
    if conn.closed:
        return False
    watch = socket.socket(fileno=os.dup(conn.fileno()))
    timer = threading.Timer(seconds, _shut, (watch,))
    timer.daemon = True
    timer.start()
    try:
        autocommit = conn.autocommit
        # Else psycopg2 would begin a transaction around it: three round trips instead of one.
        conn.autocommit = True
        with conn.cursor() as cursor:
            cursor.execute("select 1")
        conn.autocommit = autocommit
    except Exception as exc:
        if type(exc).__module__ != "psycopg2":
            raise
        return False
    finally:
        timer.cancel()
        watch.close()
    return True


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


async def asyncpg_answers(conn: Any, seconds: float) -> bool:
    """Whether a server still answers on a connection of asyncpg; if not, it is cut off.

    Args:
        conn: The connection, idle.
        seconds: How long to wait for the answer.
    """
    if conn.is_closed():
        return False
    query = asyncio.ensure_future(conn.execute("select 1"))
    try:
        # Not asyncpg's own time-out, which would ask the dead server to cancel.
        await asyncio.wait({query}, timeout=seconds)
    except BaseException:
        query.cancel()
        raise
    if query.done() and query.exception() is None:
        return True
    conn.terminate()
    await asyncio.gather(query, return_exceptions=True)
    return False
