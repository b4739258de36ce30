"""Opening: plan, login and driver to a proven pool; here a failed connect is explained."""

from __future__ import annotations

import asyncio
import encodings.idna  # noqa: F401 - else the first look-up of a name imports it
import time
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from azpgauth.errors import AzpgauthError, ConnectError
from azpgauth.opening.closing import closing
from azpgauth.runtime.importing import guard, load
from azpgauth.runtime.printable import one_line, their_words
from azpgauth.runtime.redacted import scrubbed
from azpgauth.server.diagnosis import diagnose, retry_delay

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from azpgauth.identity.login import Login
    from azpgauth.runtime.redacted import Redacted
    from azpgauth.server.plan import ConnectPlan

__all__ = ["ASYNC_DRIVERS", "Opening", "Prepared"]

T = TypeVar("T")

_MODULES = {
    "psycopg": "azpgauth.drivers.psycopg",
    "psycopg-async": "azpgauth.drivers.psycopg",
    "psycopg2": "azpgauth.drivers.psycopg2",
    "sqlalchemy": "azpgauth.drivers.sqlalchemy",
    "sqlalchemy-async": "azpgauth.drivers.sqlalchemy",
    "asyncpg": "azpgauth.drivers.asyncpg",
}
"""For each driver, its module here; all of these have the same functions."""

ASYNC_DRIVERS = ("psycopg-async", "sqlalchemy-async", "asyncpg")
"""Those that need an event loop."""


@dataclass(frozen=True)
class Prepared:
    """All that is needed to connect.

    Attributes:
        driver: `driver.name` of the settings.
        plan: Where to connect.
        login: What to sign in with.
        native: Arguments of the driver's own.
        options: What only some drivers take.
    """

    driver: str
    plan: ConnectPlan
    login: Login
    native: Redacted[Mapping[str, Any]] | None
    options: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> tuple[Any, tuple[type[BaseException], ...]]:
        """The driver's module, and what a failed connect raises there.

        The request for the token is under way while it is imported.

        Raises:
            MissingDriverError: The driver is not installed.
        """
        self.login.prefetch()
        return self.load_driver()

    def load_driver(self) -> tuple[Any, tuple[type[BaseException], ...]]:
        """As `load`, without a request for the token."""
        with guard():
            module = load(_MODULES[self.driver])
            return module, (*module.errors(**self.options), AzpgauthError)

    def _arguments(self) -> Mapping[str, Any]:
        return {} if self.native is None else self.native.held

    def unopened(self) -> Any:
        """The async driver's pool, which opens when it is first used."""
        module, _ = self.load()
        try:
            return module.unopened_pool(self.plan, self.login, self._arguments(), **self.options)
        except AzpgauthError as exc:
            error = _without_frames(exc)
        raise error

    def opened(self, how: str) -> Any:
        """What a function of the driver's module makes; tried again while that may help.

        Args:
            how: The function: `open_pool` or `connect`.

        Raises:
            ConnectError: It failed, for good or for too long.
        """
        module, errors = self.load()
        course = _Course(self)
        while True:
            try:
                return getattr(module, how)(
                    self.plan, self.login, self._arguments(), timeout=course.left(), **self.options
                )
            except errors as exc:
                error = exc
            time.sleep(course.pause_after(error))

    async def aopened(self, how: str) -> Any:
        """As `opened`, on an event loop.

        Args:
            how: The function: `aopen_pool` or `aconnect`.
        """
        module, errors = await asyncio.to_thread(self.load)
        course = _Course(self)
        while True:
            try:
                return await getattr(module, how)(
                    self.plan, self.login, self._arguments(), timeout=course.left(), **self.options
                )
            except errors as exc:
                error = exc
            await asyncio.sleep(course.pause_after(error))


class _Course:
    """The attempts to open one pool."""

    def __init__(self, prepared: Prepared) -> None:
        self._plan = prepared.plan
        self._login = prepared.login
        self._deadline = time.monotonic() + prepared.plan.connect_timeout
        self._attempts = 0

    def left(self) -> int:
        """Seconds for the next attempt."""
        return ceil(max(self._deadline - time.monotonic(), 1))

    def pause_after(self, error: BaseException) -> float:
        """Seconds until the next attempt.

        Raises:
            ConnectError: Another one would change nothing, or come too late.
            AzpgauthError: An error that says already what it is.
        """
        if isinstance(error, AzpgauthError):
            raise _without_frames(error)
        # SQLAlchemy wraps the driver's error. The frames are the driver's: they hold the password.
        error = (getattr(error, "orig", None) or error).with_traceback(None)
        self._attempts += 1
        said = str(error).strip() or f"timed out after {self._plan.connect_timeout} s"
        if diagnose(said).passing:
            pause = retry_delay(self._attempts, self._deadline - time.monotonic())
            if pause is not None:
                return pause
        raise self._explained(said) from error

    def _explained(self, said: str) -> ConnectError:
        plan = self._plan
        name = one_line(self._login.role) if self._login.role else None
        diagnosis = diagnose(said, name, token=hasattr(self._login, "source"))
        role = f' as role "{name}"' if name else ""
        tried = f" ({self._attempts} attempts)" if self._attempts > 1 else ""
        where = f'database "{one_line(plan.database)}" at {one_line(plan.where)}{role}{tried}'
        lines = [f"cannot connect to {where}: {their_words(said)}"]
        if diagnosis.cause:
            lines += [f"cause: {diagnosis.cause}", f"to do: {diagnosis.remedy}"]
        return ConnectError(scrubbed("\n  ".join(lines)))


def _without_frames(error: AzpgauthError) -> AzpgauthError:
    """The error without frames, its own and those behind it: they have what is in `native`."""
    if error.__suppress_context__:
        error.__context__ = None
    seen: BaseException | None = error
    while seen is not None:
        seen.__traceback__ = None
        seen = seen.__cause__ or seen.__context__
    return error


class Opening(Generic[T]):
    """A pool or connection about to be opened: await it, or enter it to have it closed too.

    Args:
        prepare: Reads what is to be read; called on a thread.
        how: The function of the driver's module: `aopen_pool` or `aconnect`.
        opened: Told of what was opened.
    """

    def __init__(
        self,
        prepare: Callable[[], Prepared],
        how: str,
        opened: Callable[[T, Prepared], None],
    ) -> None:
        self._prepare = prepare
        self._how = how
        self._opened = opened
        self._closing: closing[T] | None = None

    def __await__(self) -> Generator[Any, None, T]:
        return self._open().__await__()

    async def __aenter__(self) -> T:
        self._closing = closing(await self._open())
        return await self._closing.__aenter__()

    async def __aexit__(self, *exc: object) -> None:
        if self._closing is not None:
            await self._closing.__aexit__(*exc)

    async def _open(self) -> T:
        prepared = await asyncio.to_thread(self._prepare)
        found: T = await prepared.aopened(self._how)
        self._opened(found, prepared)
        return found
