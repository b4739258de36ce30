"""Names the drivers, once for all who list them: settings, commands, opening, tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ASYNC_DRIVERS", "DRIVERS", "Dialect", "DriverFacts", "DriverName"]

DriverName = Literal[
    "psycopg", "psycopg-async", "psycopg2", "sqlalchemy", "sqlalchemy-async", "asyncpg"
]
Dialect = Literal["psycopg", "psycopg2", "asyncpg"]


@dataclass(frozen=True)
class DriverFacts:
    """What is known of a driver before it is imported.

    Attributes:
        module: The module that connects with it.
        on_loop: Whether it needs an event loop.
        dialects: What it can connect with in turn, the default first; empty where it connects
            itself.
    """

    module: str
    on_loop: bool = False
    dialects: tuple[Dialect, ...] = ()


DRIVERS: dict[DriverName, DriverFacts] = {
    "psycopg": DriverFacts("azpgauth.drivers.psycopg"),
    "psycopg-async": DriverFacts("azpgauth.drivers.psycopg", on_loop=True),
    "psycopg2": DriverFacts("azpgauth.drivers.psycopg2"),
    "sqlalchemy": DriverFacts("azpgauth.drivers.sqlalchemy", dialects=("psycopg", "psycopg2")),
    "sqlalchemy-async": DriverFacts(
        "azpgauth.drivers.sqlalchemy", on_loop=True, dialects=("psycopg", "asyncpg")
    ),
    "asyncpg": DriverFacts("azpgauth.drivers.asyncpg", on_loop=True),
}

ASYNC_DRIVERS = tuple(name for name, facts in DRIVERS.items() if facts.on_loop)
"""Those that need an event loop."""
