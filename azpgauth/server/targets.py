"""Says which of several servers a connection is for, and judges what a server last reported. Pure.

PostgreSQL 14 and later report `in_hot_standby` and `default_transaction_read_only` to each session
without being asked: https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-ASYNC
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "QUESTION",
    "TARGETS",
    "Fit",
    "Report",
    "Server",
    "Target",
    "fit",
    "in_order",
    "is_reader",
    "keeps",
    "parsed_rows",
    "reported",
    "unmet",
]

Target = Literal["any", "read-write", "read-only", "primary", "standby", "prefer-standby"]
"""libpq's values: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-TARGET-SESSION-ATTRS"""

TARGETS: tuple[str, ...] = get_args(Target)


@dataclass(frozen=True)
class Server:
    """One place to connect to.

    Attributes:
        host: A name, an address or a socket's folder; a certificate is checked against it.
        port: The TCP port.
        address: Where to connect in place of the name, as through a tunnel; None looks it up.
    """

    host: str
    port: int
    address: str | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def libpq(self) -> dict[str, Any]:
        """The keywords for libpq."""
        return {"host": self.host, "hostaddr": self.address or "", "port": self.port}

    def asyncpg(self) -> dict[str, Any]:
        """The keywords for asyncpg, which knows the name from its TLS."""
        return {"host": self.address or self.host, "port": self.port}


@dataclass(frozen=True)
class Report:
    """What a server said of itself; None where it said nothing.

    Attributes:
        standby: Whether it is in recovery, which a standby always is.
        read_only: Whether its transactions are read-only by default.
    """

    standby: bool | None = None
    read_only: bool | None = None

    @property
    def what(self) -> str:
        """In words."""
        if self.standby:
            return "a standby"
        return "a primary that is read-only" if self.read_only else "a primary"


class Fit(Enum):
    """How well a server fits a target."""

    GOOD = "good"
    WILL_DO = "will do"
    UNMET = "unmet"


def reported(standby: str | bytes | None, read_only: str | bytes | None) -> Report:
    """What the parameters of a session say.

    Args:
        standby: `in_hot_standby`, `on` or `off`; None before PostgreSQL 14.
        read_only: `default_transaction_read_only`.
    """
    return Report(
        None if standby is None else standby in {"on", b"on"},
        None if read_only is None else read_only in {"on", b"on"},
    )


QUESTION = (
    "select from generate_series(1, 1 + case when pg_is_in_recovery() then 1 else 0 end"
    " + case when current_setting('transaction_read_only') = 'on' then 2 else 0 end)"
)
"""Asks a server the same, where what was reported is another's: behind PgBouncer.

The number of rows is the answer, since asyncpg can be told nothing else by a statement that is not
prepared."""


def parsed_rows(rows: int) -> Report:
    """The answer to `QUESTION`.

    Args:
        rows: How many rows there were.
    """
    return Report(bool((rows - 1) & 1), bool((rows - 1) & 2))


def fit(target: Target | None, report: Report) -> Fit:
    """How well a server fits when a connection is made; one that says nothing fits.

    Args:
        target: What is wanted; None prefers a primary.
        report: What the server said.

    Example:
        >>> fit("primary", Report(standby=True))
        <Fit.UNMET: 'unmet'>
    """
    if report.standby is None or target == "any":
        return Fit.GOOD
    if target is None:
        return Fit.WILL_DO if report.standby else Fit.GOOD
    if target == "prefer-standby":
        return Fit.GOOD if report.standby else Fit.WILL_DO
    found = {
        "primary": not report.standby,
        "standby": report.standby,
        "read-write": not report.standby and not report.read_only,
        "read-only": report.standby or bool(report.read_only),
    }
    return Fit.GOOD if found[target] else Fit.UNMET


def keeps(target: Target | None, report: Report) -> bool:
    """Whether a connection still fits when it is handed out: a wish counts at connect alone.

    Args:
        target: What is wanted.
        report: What its server last said.
    """
    return fit(target, report) is not Fit.UNMET


def unmet(server: Server, target: Target | None, report: Report) -> str:
    """What to say of a server that does not fit; the table of words knows it.

    Args:
        server: Where.
        target: What is wanted.
        report: What the server said.
    """
    wanted = "primary" if target is None else target
    return f"{server} is {report.what}, and server.target_session_attrs wants {wanted}"


def in_order(
    servers: Sequence[Server],
    *,
    randomly: bool,
    shuffled: Callable[[list[Server]], None] = random.shuffle,
) -> list[Server]:
    """The servers in the order in which one connect tries them.

    Args:
        servers: As the settings name them.
        randomly: Whether each connect takes another order.
        shuffled: Shuffles in place.
    """
    found = list(servers)
    if randomly:
        shuffled(found)
    return found


def is_reader(host: str) -> bool:
    """Whether this is the reader's name of a virtual endpoint of Azure's, `NAME.reader.…`.

    https://learn.microsoft.com/azure/postgresql/read-replica/concepts-read-replicas-virtual-endpoints

    Args:
        host: The host's name.
    """
    return host.lower().split(".")[1:2] == ["reader"]
