"""Holds what one round over the servers came to, and tells it in one error. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from azpgauth.drivers.signin import add_notes, shown
from azpgauth.server.targets import Fit, Report

if TYPE_CHECKING:
    from collections.abc import Iterable

    from azpgauth.server.targets import Server

__all__ = ["Failed", "Round", "with_others"]

Failed: TypeAlias = "tuple[Server, BaseException]"


@dataclass
class Round:
    """What one round over the servers came to: a connection, or why there is none.

    Attributes:
        conn: The connection.
        server: Where it leads.
        report: What that says of itself.
        failed: What each of the others said.
        unmet: The first one of those that answered, and is not what was wanted.
    """

    conn: Any = None
    server: Server | None = None
    report: Report = field(default_factory=Report)
    failed: list[Failed] = field(default_factory=list)
    unmet: Failed | None = None

    def surplus(self, conn: Any, server: Server, report: Report, how: Fit) -> Any:
        """Keep the better one of a new connection and the one that is there; the other one."""
        if how is Fit.GOOD or (how is Fit.WILL_DO and self.conn is None):
            surplus, self.conn = self.conn, conn
            self.server, self.report = server, report
            return surplus
        return conn


def with_others(server: Server, error: BaseException, failed: Iterable[Failed]) -> BaseException:
    """An error that tells also what the other servers said."""
    others = [f"{each}: {shown(said)}" for each, said in failed if each != server]
    error.elsewhere = others  # type: ignore[attr-defined]  # for whoever explains it
    add_notes(error, others)
    return error
