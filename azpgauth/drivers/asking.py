"""Asks servers in each driver's own way, below what a program sees, and within a limit.

There is one object for each driver that makes connections, by itself or under SQLAlchemy. What is
asked is decided elsewhere, once for all. An answer is a number of rows: all that asyncpg tells of a
statement that it does not prepare.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from azpgauth.drivers.checks import GOODBYE

if TYPE_CHECKING:
    from azpgauth.runtime.waiting import Wait
    from azpgauth.server.keepalives import Keepalives

__all__ = ["ASKING", "ASYNCPG", "PING", "PSYCOPG", "PSYCOPG2", "Asking"]

PING = "select"
"""The shortest question; its answer is one row without columns."""


class Asking(Protocol):
    """How one driver's connections are asked.

    Attributes:
        names_statements: Whether the driver makes named prepared statements by itself.
    """

    names_statements: bool

    def process_id(self, conn: Any) -> int:
        """The server's process, as the connection was told."""

    def told(self, conn: Any) -> tuple[Any, Any] | None:
        """What the server last said of itself without being asked: what `reported` takes.

        None if the connection is known to be gone.
        """

    async def close(self, conn: Any, wait: Wait) -> None:
        """Close a connection, in a second at most."""

    async def rows(self, conn: Any, question: str, seconds: float, wait: Wait) -> int | None:
        """How many rows an idle connection is answered with; None if there was no answer in time.

        Args:
            conn: The connection.
            question: The query; it begins no transaction, and is prepared under no name.
            seconds: How long to wait for the answer.
            wait: How to wait.
        """

    def settle(self, conn: Any, keepalives: Keepalives) -> None:
        """Do what the driver leaves to be done on a new connection."""

    def without_statements(self, conn: Any) -> bool:
        """Have a new connection make no named statements; whether that can still be."""

    def error(self, text: str, *, unmet: bool = False) -> Exception:
        """The driver's error for a connection that is lost, or that leads to the wrong server."""


class _Psycopg:
    names_statements = True

    def process_id(self, conn: Any) -> int:
        found: int = conn.info.backend_pid
        return found

    def told(self, conn: Any) -> tuple[Any, Any] | None:
        if conn.closed:
            return None
        told = conn.pgconn.parameter_status
        return told(b"in_hot_standby"), told(b"default_transaction_read_only")

    async def close(self, conn: Any, wait: Wait) -> None:
        await wait.call(conn.close)

    async def rows(self, conn: Any, question: str, seconds: float, wait: Wait) -> int | None:
        try:
            return await _rows_of_libpq(conn.pgconn, question.encode(), seconds, wait)
        except Exception as exc:
            if type(exc).__module__.partition(".")[0] != "psycopg":
                raise
            return None

    def settle(self, conn: Any, keepalives: Keepalives) -> None:
        """Libpq did it all."""

    def without_statements(self, conn: Any) -> bool:
        conn.prepare_threshold = None
        return True

    def error(self, text: str, *, unmet: bool = False) -> Exception:  # noqa: ARG002 - alike
        import psycopg

        return psycopg.OperationalError(text)


async def _rows_of_libpq(pgconn: Any, question: bytes, seconds: float, wait: Wait) -> int | None:
    pgconn.send_query(question)
    until = time.monotonic() + seconds
    rows = None
    pgconn.flush()
    while True:
        while pgconn.is_busy():
            left = until - time.monotonic()
            if left <= 0 or not await wait.readable(pgconn.socket, left):
                return None
            pgconn.flush()
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            return rows
        # What is no table is an error, as of a server that shuts down.
        rows = result.ntuples if result.nfields or not result.error_message else None


class _Psycopg2:
    names_statements = False

    def process_id(self, conn: Any) -> int:
        found: int = conn.info.backend_pid
        return found

    def told(self, conn: Any) -> tuple[Any, Any] | None:
        if conn.closed:
            return None
        told = conn.get_parameter_status
        return told("in_hot_standby"), told("default_transaction_read_only")

    async def close(self, conn: Any, wait: Wait) -> None:
        await wait.call(conn.close)

    async def rows(self, conn: Any, question: str, seconds: float, wait: Wait) -> int | None:  # noqa: ARG002 - it blocks
        from psycopg2 import extensions

        if conn.closed:
            return None
        # psycopg2 knows no limit for a query. So its socket is shut down when the time is over,
        # under another number: libpq could have closed its own by then.
        watch = socket.socket(fileno=os.dup(conn.fileno()))
        timer = threading.Timer(seconds, _shut, (watch,))
        timer.daemon = True
        timer.start()
        try:
            autocommit = conn.autocommit
            # Else psycopg2 would begin a transaction around it: three round trips instead of one.
            conn.autocommit = True
            # Not a cursor of the program's own class, which may do more.
            with extensions.cursor(conn) as cursor:
                cursor.execute(question)
                rows: int = cursor.rowcount
            conn.autocommit = autocommit
        except Exception as exc:
            if type(exc).__module__ != "psycopg2":
                raise
            return None
        finally:
            timer.cancel()
            watch.close()
        return rows

    def settle(self, conn: Any, keepalives: Keepalives) -> None:
        """Libpq did it all."""

    def without_statements(self, conn: Any) -> bool:  # noqa: ARG002 - it makes none
        return True

    def error(self, text: str, *, unmet: bool = False) -> Exception:  # noqa: ARG002 - alike
        import psycopg2

        return psycopg2.OperationalError(text)


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


class _Asyncpg:
    names_statements = True

    def process_id(self, conn: Any) -> int:
        found: int = conn.get_server_pid()
        return found

    def told(self, conn: Any) -> tuple[Any, Any] | None:
        if conn.is_closed():
            return None
        told = conn.get_settings()
        return (
            getattr(told, "in_hot_standby", None),
            getattr(told, "default_transaction_read_only", None),
        )

    async def close(self, conn: Any, wait: Wait) -> None:
        # By itself it waits for the server's goodbye as long as that takes.
        await wait.call(conn.close, timeout=GOODBYE)

    async def rows(self, conn: Any, question: str, seconds: float, wait: Wait) -> int | None:
        status = await wait.call(_status, conn, question, seconds)
        return None if status is None else int(status.rpartition(" ")[2])

    def settle(self, conn: Any, keepalives: Keepalives) -> None:
        # asyncpg has no names for these: tests watch that they are there.
        keepalives.apply(conn._transport.get_extra_info("socket"))  # noqa: SLF001 - no other way
        # The password is sent once; kept, it would be found by walking a frame's objects.
        conn._protocol.password = None  # noqa: SLF001

    def without_statements(self, conn: Any) -> bool:  # noqa: ARG002 - its cache is there already
        return False

    def error(self, text: str, *, unmet: bool = False) -> Exception:
        from asyncpg import exceptions

        lost = exceptions.ConnectionDoesNotExistError
        kind = exceptions.TargetServerAttributeNotMatched if unmet else lost
        found: Exception = kind(text)
        return found


async def _status(conn: Any, question: str, seconds: float) -> str | None:
    """What asyncpg says of a query, such as `SELECT 1`; without an answer it is cut off."""
    import asyncio

    query = asyncio.ensure_future(conn.execute(question))
    try:
        # Not asyncpg's own time-out, which would ask the dead server to cancel.
        await asyncio.wait({query}, timeout=seconds)
    except BaseException:
        query.cancel()
        raise
    if query.done() and query.exception() is None:
        status: str = query.result()
        return status
    conn.terminate()
    await asyncio.gather(query, return_exceptions=True)
    return None


PSYCOPG: Asking = _Psycopg()
PSYCOPG2: Asking = _Psycopg2()
ASYNCPG: Asking = _Asyncpg()

ASKING: dict[str, Asking] = {"psycopg": PSYCOPG, "psycopg2": PSYCOPG2, "asyncpg": ASYNCPG}
"""By SQLAlchemy's names for the drivers."""
