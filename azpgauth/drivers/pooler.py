"""Finds out whether PgBouncer stands between, and says what a connection must not do there.

In transaction mode a named prepared statement belongs to whichever server connection made it:
another client's may answer, without an error. PgBouncer's process ids are random, and no server on
Linux has one above 2^22; within that, only the server can say.
https://www.pgbouncer.org/features.html
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from azpgauth.server.clouds import PGBOUNCER_PORTS

if TYPE_CHECKING:
    from azpgauth.drivers.driver import ConnectArguments
    from azpgauth.runtime.waiting import Wait
    from azpgauth.server.keepalives import Keepalives

__all__ = [
    "Pooler",
    "ask",
    "look_at_asyncpg",
    "look_at_dropin",
    "look_at_psycopg",
    "psycopg_answers",
    "settle_asyncpg",
]

logger = logging.getLogger("azpgauth.pooler")

_SMALLEST, _LARGEST = 1, 4_194_304
"""The process ids of Linux, on which Azure's servers run."""


class Pooler:
    """What is known of PgBouncer before one pool or connection.

    Args:
        arguments: What to connect with.
        asks: Whether the server is asked where the process id leaves it open: a pool does so once.
    """

    def __init__(self, arguments: ConnectArguments, *, asks: bool = True) -> None:
        self._said = arguments.plan.pooler
        self._wanted = arguments.prepared_statements
        self._where = arguments.plan.where
        self._asks = asks
        self.between = self._said

    @property
    def named_statements(self) -> bool:
        """Whether the next connection may make named prepared statements."""
        return not self.between if self._wanted is None else self._wanted

    def has_to_ask(self, process_id: int) -> bool:
        """Whether only the server can say; else it is known from now on.

        Args:
            process_id: As the new connection was told.
        """
        if self._said is not None or self.between:
            return False
        if not _SMALLEST <= process_id <= _LARGEST:
            self.heard(direct=False)
        return self._asks and self.between is None

    def heard(self, *, direct: bool) -> None:
        """The server has said whether the process is its own."""
        if direct:
            self.between = False
            return
        self.between = True
        if self._wanted is None:
            logger.warning(
                "PgBouncer stands before %s: named prepared statements are off, since another "
                "client's could answer; set server.pooler to true to say so beforehand, or "
                "driver.prepared_statements if it handles them",
                self._where,
            )


async def ask(pgconn: Any, question: bytes, seconds: float, wait: Wait) -> bytes | None:
    """The first value that an idle connection of libpq answers with, asked below psycopg.

    So it takes one round trip, begins no transaction and is no statement of the program's.

    Args:
        pgconn: psycopg's `conn.pgconn`.
        question: The query.
        seconds: How long to wait for the answer.
        wait: How to wait.

    Raises:
        TimeoutError: There was no answer in time.
        psycopg.OperationalError: The connection is gone.
    """
    pgconn.send_query(question)
    until = time.monotonic() + seconds
    value = None
    pgconn.flush()
    while True:
        while pgconn.is_busy():
            left = until - time.monotonic()
            if left <= 0 or not await wait.readable(pgconn.socket, left):
                raise TimeoutError
            pgconn.flush()
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            return value
        value = result.get_value(0, 0) if result.ntuples else value


async def psycopg_answers(pgconn: Any, seconds: float, wait: Wait) -> bool:
    """Whether a server still answers on a connection of psycopg.

    Args:
        pgconn: psycopg's `conn.pgconn`, idle.
        seconds: How long to wait for the answer.
        wait: How to wait.
    """
    try:
        return await ask(pgconn, b"select 1", seconds, wait) is not None
    except TimeoutError:
        return False
    except Exception as exc:
        if type(exc).__module__.partition(".")[0] != "psycopg":
            raise
        return False


async def look_at_psycopg(pooler: Pooler, conn: Any, seconds: float, wait: Wait) -> None:
    """Learn from a new connection of psycopg's, and turn its named statements off where needed.

    Args:
        pooler: What is known.
        conn: The connection, sync or async.
        seconds: How long to wait for an answer.
        wait: How to wait.
    """
    before = pooler.named_statements
    own = conn.info.backend_pid
    if pooler.has_to_ask(own):
        answer = await ask(conn.pgconn, b"select pg_backend_pid()", seconds, wait)
        pooler.heard(direct=answer == str(own).encode())
    if before and not pooler.named_statements:
        conn.prepare_threshold = None


def look_at_dropin(conn: Any) -> None:
    """Turn named statements off on a connection of psycopg's that a program opened by itself.

    Args:
        conn: The connection; its port or its process id may tell of PgBouncer.
    """
    known = conn.info.port in PGBOUNCER_PORTS
    if known or not _SMALLEST <= conn.info.backend_pid <= _LARGEST:
        conn.prepare_threshold = None


async def look_at_asyncpg(pooler: Pooler, conn: Any) -> bool:
    """Learn from a new connection of asyncpg's; whether it must be made again without statements.

    Args:
        pooler: What is known.
        conn: The connection.
    """
    before = pooler.named_statements
    own = conn.get_server_pid()
    if pooler.has_to_ask(own):
        # asyncpg's own fetchval would make a statement; what this gives is the number of rows.
        rows = await conn.execute(f"select where pg_backend_pid() = {int(own)}")
        pooler.heard(direct=rows == "SELECT 1")
    return before and not pooler.named_statements


def settle_asyncpg(conn: Any, keepalives: Keepalives) -> None:
    """What asyncpg leaves to be done on a new connection, and has no names for: tests watch that.

    Args:
        conn: The connection.
        keepalives: To set on its socket.
    """
    keepalives.apply(conn._transport.get_extra_info("socket"))  # noqa: SLF001 - no other way
    # The password is sent once; kept, it would be found by walking a frame's objects.
    conn._protocol.password = None  # noqa: SLF001
