"""Says what a driver's module gets and gives: `ConnectArguments`, `Driver`, `AsyncDriver`.

A module here knows nothing else: no settings, no credential, none of its siblings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from azpgauth.identity.login import Login
    from azpgauth.runtime.drivers import Dialect, DriverName
    from azpgauth.runtime.redacted import Redacted
    from azpgauth.server.plan import ConnectPlan

__all__ = ["AsyncDriver", "ConnectArguments", "Driver"]


@dataclass(frozen=True)
class ConnectArguments:
    """All that a driver needs to connect.

    Attributes:
        driver: Which driver.
        plan: Where to connect.
        login: What to sign in with.
        native: Arguments of the driver's own, which may hold secrets.
        dialect: What SQLAlchemy connects with.
        prepared_statements: Whether named prepared statements may be made; None: not behind
            PgBouncer.
    """

    driver: DriverName
    plan: ConnectPlan
    login: Login
    native: Redacted[Mapping[str, Any]] | None = None
    dialect: Dialect = "psycopg"
    prepared_statements: bool | None = None

    @property
    def own(self) -> dict[str, Any]:
        """A copy of the driver's own arguments."""
        return {} if self.native is None else dict(self.native.held)


class _AnyDriver(Protocol):
    def errors(self, arguments: ConnectArguments, /) -> tuple[type[BaseException], ...]:
        """What a failed connect raises.

        Raises:
            MissingDriverError: The dialect's driver is not installed.
        """


class Driver(_AnyDriver, Protocol):
    """A module that connects with a sync driver. Each function makes one attempt."""

    def open_pool(self, arguments: ConnectArguments, /, *, timeout: int | None = None) -> Any:
        """An open pool or engine of the driver's own kind, with one connection made and proven.

        Args:
            arguments: What to connect with; `native` are those of the driver's pool or engine, and
                those of its `connect`.
            timeout: Seconds for the first connection, if it shall have less than those to come.

        Raises:
            Exception: One of `errors`: the first connection failed.
            SettingsError: `native` has a key that is unknown or that azpgauth owns.
            MissingDriverError: The dialect's driver is not installed.
        """

    def connect(self, arguments: ConnectArguments, /, *, timeout: int | None = None) -> Any:
        """One connection; closing it leaves nothing open.

        Args:
            arguments: What to connect with; `native` are those of the driver's `connect`, under
                SQLAlchemy those of its engine.
            timeout: Seconds, if it shall have less than the plan says.

        Raises:
            Exception: As for `open_pool`, like all others there.
        """


class AsyncDriver(_AnyDriver, Protocol):
    """A module that connects with an async driver. Each function makes one attempt."""

    def unopened_pool(self, arguments: ConnectArguments, /) -> Any:
        """A pool or engine that connects when it is first used, on the loop where that is.

        Args:
            arguments: As for `Driver.open_pool`.

        Raises:
            SettingsError: `native` has a key that is unknown or that azpgauth owns.
            MissingDriverError: The dialect's driver is not installed.
        """

    async def aopen_pool(
        self, arguments: ConnectArguments, /, *, timeout: int | None = None
    ) -> Any:
        """As `Driver.open_pool`, of the running event loop."""

    async def aconnect(self, arguments: ConnectArguments, /, *, timeout: int | None = None) -> Any:
        """As `Driver.connect`, of the running event loop."""
