"""Opens what a driver's module makes, again while that may help, and explains a failed connect."""

from __future__ import annotations

import asyncio
import encodings.idna  # noqa: F401 - else the first look-up of a name imports it
import time
from math import ceil
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from azpgauth.errors import AzpgauthError, ConnectError
from azpgauth.identity.login import TokenLogin
from azpgauth.opening.closing import closing
from azpgauth.runtime.drivers import DRIVERS
from azpgauth.runtime.importing import guard, load
from azpgauth.runtime.printable import one_line, their_words
from azpgauth.runtime.redacted import scrubbed
from azpgauth.runtime.waiting import BLOCKING, ON_LOOP, run
from azpgauth.server.diagnosis import diagnose, mends, retry_delay

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from azpgauth.drivers.driver import ConnectArguments
    from azpgauth.runtime.waiting import Wait

__all__ = ["Opening", "aopened", "load_driver", "opened", "unopened"]

T = TypeVar("T")


def load_driver(arguments: ConnectArguments) -> tuple[Any, tuple[type[BaseException], ...]]:
    """The driver's module, and what a failed connect raises there.

    Args:
        arguments: Which driver.

    Raises:
        MissingDriverError: The driver is not installed.
    """
    with guard():
        module = load(DRIVERS[arguments.driver].module)
        return module, (*module.errors(arguments), AzpgauthError)


def _load_while_the_token_comes(arguments: ConnectArguments) -> tuple[Any, Any]:
    arguments.login.prefetch()
    return load_driver(arguments)


def unopened(arguments: ConnectArguments) -> Any:
    """The async driver's pool, which opens when it is first used.

    Args:
        arguments: What to connect with.

    Raises:
        AzpgauthError: As the driver's `unopened_pool`.
    """
    module, _ = _load_while_the_token_comes(arguments)
    try:
        return module.unopened_pool(arguments)
    except AzpgauthError as exc:
        error = _without_frames(exc)
    raise error


def opened(arguments: ConnectArguments, how: str) -> Any:
    """What a function of the driver's module makes; tried again while that may help.

    Args:
        arguments: What to connect with.
        how: The function's name: `open_pool` or `connect`.

    Raises:
        ConnectError: It failed, for good or for too long.
    """
    return run(_opened(arguments, how, BLOCKING))


async def aopened(arguments: ConnectArguments, how: str) -> Any:
    """As `opened`, on an event loop.

    Args:
        arguments: What to connect with.
        how: The function's name: `aopen_pool` or `aconnect`.
    """
    return await _opened(arguments, how, ON_LOOP)


async def _opened(arguments: ConnectArguments, how: str, wait: Wait) -> Any:
    module, errors = await wait.off_loop(_load_while_the_token_comes, arguments)
    attempts = _Attempts(arguments)
    while True:
        try:
            return await wait.call(getattr(module, how), arguments, timeout=attempts.left())
        except errors as exc:
            error = exc
        await wait.sleep(attempts.pause_after(error))


class _Attempts:
    """Counts the attempts to open one pool, and says after each whether another one makes sense."""

    def __init__(self, arguments: ConnectArguments) -> None:
        self._plan = arguments.plan
        self._login = arguments.login
        longest = arguments.plan.connect_timeout * len(arguments.plan.servers)
        self._deadline = time.monotonic() + longest
        self._count = 0

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
        vars(error).pop("__notes__", None)  # the error that explains it says the same
        self._count += 1
        said = str(error).strip() or f"timed out after {self._plan.connect_timeout} s"
        if mends("waiting", said):
            pause = retry_delay(self._count, self._deadline - time.monotonic())
            if pause is not None:
                return pause
        raise self._explained(said, getattr(error, "elsewhere", ())) from error

    def _explained(self, said: str, elsewhere: Iterable[str]) -> ConnectError:
        plan = self._plan
        name = one_line(self._login.role) if self._login.role else None
        token = isinstance(self._login, TokenLogin)
        diagnosis = diagnose(said, name, token=token, options=plan.options)
        role = f' as role "{name}"' if name else ""
        tried = f" ({self._count} attempts)" if self._count > 1 else ""
        where = f'database "{one_line(plan.database)}" at {one_line(plan.where)}{role}{tried}'
        return ConnectError(
            scrubbed(f"cannot connect to {where}: " + "; ".join([their_words(said), *elsewhere])),
            cause=diagnosis.cause,
            remedy=scrubbed(diagnosis.remedy),
            layer=diagnosis.layer,
        )


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
        prepare: Callable[[], ConnectArguments],
        how: str,
        opened: Callable[[T, ConnectArguments], None],
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
        arguments = await asyncio.to_thread(self._prepare)
        found: T = await aopened(arguments, self._how)
        self._opened(found, arguments)
        return found
