"""Extends psycopg2's pool: it waits for a connection, and hands out none that is dead or old.

A place is one of the `max_size` that there are, and what somebody who asks for a connection waits
for. A signal's handler may raise on any line (Ctrl-C does), so nothing is counted: who has a place
stands in a set, and to give a place back may be begun again wherever it was interrupted.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from azpgauth.errors import missing_driver
from azpgauth.runtime.forks import renew_in_child

try:
    import psycopg2
    from psycopg2 import extensions
    from psycopg2.pool import PoolError, ThreadedConnectionPool
except ImportError as exc:
    raise missing_driver("psycopg2", exc) from exc

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from typing_extensions import Self

    from azpgauth.drivers.signin import KeepFresh
    from azpgauth.server.plan import PoolLimits

__all__ = ["ConnectionPool"]


class _Closed(PoolError):  # noqa: N818 - a signal
    """Nothing can be given back to a pool that has closed, and nothing need be."""


@dataclass(eq=False)
class _Member:
    """A connection of a pool; in a place while it is in use."""

    conn: Any
    renew_at: float
    idle_since: float = 0.0
    place: threading.Lock | None = None


class ConnectionPool(ThreadedConnectionPool):
    """psycopg2's own pool, but it waits for a connection, and hands out none that is dead or old.

    `getconn` and `putconn` are as in psycopg2; `connection()` does both. No place is ever lost.

    Args:
        connect: Makes a connection, within some seconds.
        good: Says whether one that was used last at a time can be handed out, within some seconds.
        limits: The pool's bounds.
        keep_fresh: Ends when the pool closes.
        first: A connection that is there already.
    """

    def __init__(
        self,
        connect: Callable[[int | None], Any],
        good: Callable[[Any, float, float], bool],
        limits: PoolLimits,
        keep_fresh: KeepFresh,
        first: Any,
    ) -> None:
        super().__init__(0, limits.max_size)
        self.minconn = limits.min_size
        self._new = connect
        self._good = good
        self._limits = limits
        self._keep_fresh = keep_fresh
        self._guard = threading.RLock()  # a signal's handler may close the pool
        self._line: deque[threading.Lock] = deque()  # who waits for a place, first come first
        # Taken by connections in use, and by those being checked or opened.
        self._places: set[threading.Lock] = set()
        self._idle: list[_Member] = []
        self._leased: dict[Hashable, _Member] = {}
        self._keys_of: dict[int, Hashable] = {}
        self._last_key = 0
        self._idle.append(self._joined(first))
        renew_in_child(self)
        try:
            while len(self._idle) < self.minconn:
                self._idle.append(self._joined(connect(None)))
        except BaseException:
            self.closeall()
            raise

    def begin_process(self) -> None:
        """In a child after fork: what there is, in use or not, is the parent's."""
        self._guard = threading.RLock()
        self._places.clear()
        self._forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closeall()

    @contextmanager
    def connection(self) -> Iterator[Any]:
        """A connection for a block: committed at its end, rolled back after an error.

        Raises:
            psycopg2.pool.PoolError: None was free in time, or the pool is closed.

        Example:
            >>> with pool.connection() as conn, conn.cursor() as cur:  # doctest: +SKIP
            ...     cur.execute("select 1")
        """
        key = object()  # known before the connection is: so it is given back in any case
        try:
            try:
                conn = self.getconn(key)
                try:
                    yield conn
                except BaseException:
                    with suppress(psycopg2.Error):  # it would hide what happened
                        conn.rollback()
                    raise
                conn.commit()
            finally:
                self._return(key)
        finally:
            self._return(key)  # once more, if that was interrupted

    def getconn(self, key: Hashable | None = None) -> Any:
        """A connection, checked; if all are in use, the next one to come free.

        Args:
            key: As in psycopg2: asking again with the same key gives the same connection.

        Raises:
            psycopg2.pool.PoolError: None was free within the pool's `timeout`, or it is closed.
            psycopg2.Error: A new one could not be made.
        """
        if key is not None:
            with self._guard:
                if key in self._leased:
                    return self._leased[key].conn
        place = threading.Lock()  # a place, or a wish for one while it is locked
        place.acquire()
        member: _Member | None = None
        until = time.monotonic() + self._limits.timeout
        try:
            try:
                self._take(place)
                member = self._ready(until)  # without the lock: others come and go
                return self._lend(member, place, key)
            except BaseException:
                self._end(place, member)
                raise
        except BaseException:
            self._end(place, member)  # once more, if that was interrupted
            raise

    def putconn(self, conn: Any = None, key: Hashable | None = None, close: bool = False) -> None:
        """Give a connection back; what was not committed is rolled back.

        Args:
            conn: The connection.
            key: What it was asked for with, if with a key.
            close: Close it instead of keeping it.

        Raises:
            psycopg2.pool.PoolError: It is not one of this pool's connections in use.
        """
        member: _Member | None = None
        place: threading.Lock | None = None
        try:
            try:
                member, place = self._found(conn, key)
                keep = not close and self._settled(member)
                surplus = self._back(member, place, keep=keep)
            except BaseException:
                self._end(place, member, conn, key)
                raise
        except _Closed:  # closing the pool closed it too
            return
        except BaseException:
            self._end(place, member, conn, key)  # once more, if that was interrupted
            raise
        for other in surplus:
            other.conn.close()

    def closeall(self) -> None:
        """Close all connections, also those in use; closing twice does no harm."""
        try:
            self._close()
        except BaseException:
            self._close()  # what was interrupted begins again
            raise

    def _close(self) -> None:
        with self._guard:
            self.closed = True
            for place in list(self._line):
                self._wake(place)
            members = [*self._idle, *self._leased.values()]
        self._keep_fresh.end()
        for member in members:
            with suppress(psycopg2.Error):
                member.conn.close()
        with self._guard:
            self._forget()

    def _forget(self) -> None:
        for each in (self._line, self._idle, self._leased, self._keys_of):
            each.clear()

    close = closeall

    # -- places ------------------------------------------------------------------------------

    def _take(self, place: threading.Lock) -> None:
        """Wait for one of the `max_size` places, in turn."""
        with self._guard:
            if self.closed:
                raise PoolError("connection pool is closed")
            self._line.append(place)
            self._admit()
        if not place.acquire(timeout=min(self._limits.timeout, threading.TIMEOUT_MAX)):
            with self._guard:
                if place in self._line:
                    self._line.remove(place)
        if self.closed:
            raise PoolError("connection pool is closed")
        if place not in self._places:
            raise PoolError(
                f"no connection came free within {self._limits.timeout:g} s: "
                f"all {self.maxconn} are in use"
            )

    def _admit(self) -> None:
        """Give free places to whoever waits longest. The lock is held.

        Each step may be the last one before an interruption: then the next call goes on with it.
        """
        while self._line:
            first = self._line[0]
            if first not in self._places and len(self._places) >= self.maxconn:
                return
            self._places.add(first)
            self._wake(first)
            self._line.popleft()

    def _wake(self, place: threading.Lock) -> None:
        with suppress(RuntimeError):  # nobody waits for it any more
            place.release()

    def _leave(self, place: threading.Lock) -> None:
        """A place is free for others. The lock is held."""
        if place in self._line:
            self._line.remove(place)
        self._places.discard(place)
        self._admit()

    def _lend(self, member: _Member, place: threading.Lock, key: Hashable | None) -> Any:
        with self._guard:
            if self.closed:
                raise PoolError("connection pool is closed")
            if key is None:
                self._last_key += 1
                key = f"azpgauth-{self._last_key}"  # no key that a program would choose
            member.place = place
            self._keys_of[id(member.conn)] = key  # first: by it, _strike finds the other
            self._leased[key] = member
            return member.conn

    def _back(self, member: _Member, place: threading.Lock, *, keep: bool) -> list[_Member]:
        """Take a connection back; those that are to be closed."""
        with self._guard:
            if self.closed:
                return [member]
            if place not in self._places:  # given back twice at once
                raise PoolError("trying to put unkeyed connection")
            self._strike(member)
            if keep:
                member.idle_since = time.monotonic()
                self._idle.append(member)
            self._leave(place)
            surplus = self._idle_for_long()
        return surplus if keep else [member, *surplus]

    def _found(self, conn: Any, key: Hashable | None) -> tuple[_Member, threading.Lock]:
        """A connection in use, and its place.

        Raises:
            PoolError: It is not one of this pool's.
        """
        with self._guard:
            member = self._leased.get(self._keys_of.get(id(conn)) if key is None else key)
            if member is not None and member.place is not None:
                return member, member.place
            if self.closed:
                raise _Closed("connection pool is closed")
            raise PoolError("trying to put unkeyed connection")

    def _end(
        self,
        place: threading.Lock | None,
        member: _Member | None,
        conn: Any = None,
        key: Hashable | None = None,
    ) -> None:
        """What was begun in a place is over, wherever it stopped: nothing of it is kept."""
        if place is None:
            try:
                member, place = self._found(conn, key)
            except PoolError:
                return
        with self._guard:
            ours = place in self._places
            if ours and member is not None:
                self._strike(member)
                if member in self._idle:
                    self._idle.remove(member)
            self._leave(place)
        if ours and member is not None:
            with suppress(psycopg2.Error):
                member.conn.close()

    def _return(self, key: Hashable) -> None:
        """Give back what was asked for with this key, if it is still in use."""
        if key in self._leased:
            self.putconn(key=key)

    def _strike(self, member: _Member) -> None:
        """It is not in use any more. The lock is held."""
        key = self._keys_of.get(id(member.conn))
        if key is not None and self._leased.get(key) is member:
            del self._leased[key]
        self._keys_of.pop(id(member.conn), None)

    # -- connections -------------------------------------------------------------------------

    def _ready(self, until: float) -> _Member:
        """A connection for a place: the one used last if it is good, else a new one."""
        while True:
            with self._guard:
                member = self._idle.pop() if self._idle else None
            now = time.monotonic()
            if member is None:
                self._keep_fresh.start()  # in a child after fork it is not yet
                return self._joined(self._new(ceil(max(until - now, 1))))
            if now >= member.renew_at:
                member.conn.close()
                continue
            if self._good(member.conn, member.idle_since, until - now):
                return member
            # So are the others, most likely: those in use go once they are given back.
            with self._guard:
                dead, self._idle = [member, *self._idle], []
                for each in self._leased.values():
                    each.renew_at = now
            for each in dead:
                each.conn.close()

    def _joined(self, conn: Any) -> _Member:
        # Connections that were opened together are not renewed all at the same moment.
        lifetime = self._limits.max_lifetime * random.uniform(0.9, 1.0)  # noqa: S311 - no secret
        now = time.monotonic()
        return _Member(conn, now + lifetime, now)

    def _settled(self, member: _Member) -> bool:
        """Bring it back to a state in which it can be handed out again, if that can be."""
        conn = member.conn
        if conn.closed or time.monotonic() >= member.renew_at:
            return False
        status = conn.info.transaction_status
        if status == extensions.TRANSACTION_STATUS_UNKNOWN:
            return False
        if status != extensions.TRANSACTION_STATUS_IDLE:
            try:
                conn.rollback()
            except psycopg2.Error:
                return False
        return True

    def _idle_for_long(self) -> list[_Member]:
        """Take out what nobody needed for `max_idle`, down to `min_size`. The lock is held."""
        until = time.monotonic() - self._limits.max_idle
        found = []
        while (
            self._idle
            and self._idle[0].idle_since < until
            and len(self._places) + len(self._idle) > self.minconn
        ):
            found.append(self._idle.pop(0))
        return found
