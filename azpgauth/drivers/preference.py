"""Remembers, where no target is set, whether a pool has a primary and when to look for one."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from azpgauth.drivers.signin import shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from azpgauth.server.plan import ConnectPlan
    from azpgauth.server.targets import Report, Server

__all__ = ["LONGEST_LOOK", "LOOK", "Preference"]

logger = logging.getLogger("azpgauth.targets")

LOOK = 5.0
"""Seconds between two looks for a primary, while a pool has standbys only."""

LONGEST_LOOK = 2.0
"""Seconds that one look may hold whoever is in it, with a standby at hand: a host may be silent."""


class Preference:
    """What one pool knows of primaries.

    Args:
        plan: Where it connects, and whether for a target.
    """

    def __init__(self, plan: ConnectPlan) -> None:
        self._plan = plan
        self._had_primary = False
        self._looked_at = 0.0
        self._warned = False

    def took(
        self, server: Server, report: Report, failed: Iterable[tuple[Server, BaseException]]
    ) -> None:
        """A connect has taken a server: a standby is warned of once.

        Args:
            server: Which one.
            report: What it says of itself.
            failed: What the others said.
        """
        if self._plan.target is not None or report.standby is None:
            return
        if not report.standby:
            self._had_primary = True
            return
        self._looked_at = time.monotonic()
        self._warn(str(server), failed)

    def is_due(self, report: Report) -> bool:
        """Whether it is time to look for a primary; if so, others need not.

        Args:
            report: What the server of a connection says that could be handed out.
        """
        if self._plan.target is not None or report.standby is None:
            return False
        if not report.standby:
            self._had_primary = True
            return False
        self._warn(self._plan.where, ())
        if not self._had_primary and len(self._plan.servers) == 1:
            return False
        now = time.monotonic()
        due = now - self._looked_at >= LOOK
        if due:
            self._looked_at = now
        return due

    def looked(self) -> None:
        """A look is over, however long it took."""
        self._looked_at = time.monotonic()

    def _warn(self, where: str, failed: Iterable[tuple[Server, BaseException]]) -> None:
        if self._warned:
            return
        self._warned = True
        others = "".join(f"; {each}: {shown(error)}" for each, error in failed)
        logger.warning(
            "there is no primary at %s: %s, a standby, takes its place, and refuses to write; "
            "set server.target_session_attrs to primary to have none, or to prefer-standby or "
            "any to say that it is meant%s",
            self._plan.where,
            where,
            others,
        )
