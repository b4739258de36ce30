"""Finds out whether PgBouncer stands between, and says what a connection must not do there.

In transaction mode a named prepared statement belongs to whichever server connection made it:
another client's may answer, without an error. PgBouncer's process ids are random, and no server on
Linux has one above 2^22; within that, only the server can say.
https://www.pgbouncer.org/features.html
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from azpgauth.server.clouds import PGBOUNCER_PORTS

if TYPE_CHECKING:
    from azpgauth.drivers.driver import ConnectArguments

__all__ = ["Pooler", "look_at_dropin"]

logger = logging.getLogger("azpgauth.pooler")

_SMALLEST, _LARGEST = 1, 4_194_304
"""The process ids of Linux, on which Azure's servers run."""


class Pooler:
    """What is known of PgBouncer before one pool or connection.

    Args:
        arguments: What to connect with.
        asks: Whether the server is asked where the process id leaves it open: a pool does so once.
        warns: Whether finding out is told: not where the driver makes no named statements.
    """

    def __init__(
        self, arguments: ConnectArguments, *, asks: bool = True, warns: bool = True
    ) -> None:
        self._said = arguments.plan.pooler
        self._wanted = arguments.prepared_statements
        self._where = arguments.plan.where
        self._asks = asks
        self._warns = warns
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
        if self._wanted is None and self._warns:
            logger.warning(
                "PgBouncer stands before %s: named prepared statements are off, since another "
                "client's could answer; set server.pooler to true to say so beforehand, or "
                "driver.prepared_statements if it handles them",
                self._where,
            )


def look_at_dropin(conn: Any) -> None:
    """Turn named statements off on a connection of psycopg's that a program opened by itself.

    Args:
        conn: The connection; its port or its process id may tell of PgBouncer.
    """
    known = conn.info.port in PGBOUNCER_PORTS
    if known or not _SMALLEST <= conn.info.backend_pid <= _LARGEST:
        conn.prepare_threshold = None
