"""Describes one request for a token under way, and lets everybody wait for what it brings.

What a credential raised becomes an error here that holds no secret.
"""

from __future__ import annotations

import re
import time
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from azpgauth.errors import TokenError
from azpgauth.identity.diagnosis import no_token
from azpgauth.identity.schedule import within
from azpgauth.identity.token import Token
from azpgauth.runtime.printable import their_words

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from azpgauth.runtime.waiting import Wait

__all__ = ["Answer", "Flight", "failure_of", "token_from"]

Answer = Token | TokenError


@dataclass(eq=False)
class Flight:
    """One request under way, or about to be made when a pause is over.

    Attributes:
        started: When the credential is asked, in seconds since the epoch: now, or after a pause.
        anew: Whether it goes past the credential's own cache.
        loop: The event loop it runs on, if it is that of an async credential.
        after: What failed before the pause that it waits for, if it waits for one.
        task: What runs it there; the event loop itself holds tasks weakly.
        future: What it brings. An error is a result too: it goes to any number of waiters, or
            to none.
        asked: Whether the credential has been asked.
        given_up: Whether it has been counted as failed already, since it hangs.
        short: Whether it brought a token that is over too soon: the next may live longer.
    """

    started: float
    anew: bool
    loop: asyncio.AbstractEventLoop | None = None
    after: TokenError | None = None
    task: asyncio.Task[None] | None = None
    future: Future[Answer] = field(default_factory=Future)
    asked: bool = False
    given_up: bool = False
    short: bool = False

    def __post_init__(self) -> None:
        self.future.set_running_or_notify_cancel()  # so that no waiter can cancel it

    def hangs(self, now: float, patience: float) -> bool:
        """Whether it has had no answer for so long that it counts as failed.

        Args:
            now: Seconds since the epoch.
            patience: Seconds after which it does.
        """
        return self.asked and not within(self.started, now, patience)

    def adrift(self, asking: asyncio.AbstractEventLoop | None) -> bool:
        """Whether its event loop does not run, as the one of whoever is asking does."""
        if self.loop is None or asking is None or self.loop is asking:
            return False
        return self.loop.is_closed() or not self.loop.is_running()

    def cancel(self) -> None:
        """Should its event loop ever run again, it does not go on there."""
        if self.loop is not None and self.task is not None:
            with suppress(RuntimeError):  # it is closed
                self.loop.call_soon_threadsafe(self.task.cancel)

    def settle(self, answer: Answer) -> None:
        """Give this to all who wait; the first answer counts."""
        with suppress(InvalidStateError):
            self.future.set_result(answer)


async def token_from(
    answer: Answer | Flight, timeout: float | None, wait: Wait, look: Callable[[], float]
) -> tuple[Token, bool]:
    """The token, and whether it was fetched for this call.

    Args:
        answer: The token, what will bring it, or why there is none.
        timeout: Seconds to wait; None waits as long as it takes.
        wait: How to wait.
        look: Gives up what hangs; the seconds after which to look again.

    Raises:
        TokenError: The request failed, or did not end in time.
    """
    if not isinstance(answer, Flight):
        return _token_of(answer), False
    for seconds in _spells(timeout, look):
        with suppress(TimeoutError):
            return _token_of(await wait.result(answer.future, seconds)), True
    before = "" if answer.after is None else f"; before that: {answer.after.said}"
    raise no_token(f"no token from Microsoft Entra ID within {timeout:g} s{before}")


def _spells(timeout: float | None, look: Callable[[], float]) -> Iterator[float]:
    """Seconds to wait, again and again until the time is over: whoever waits sees what hangs."""
    until = None if timeout is None else time.monotonic() + timeout
    while True:
        seconds = look()
        left = None if until is None else until - time.monotonic()
        yield seconds if left is None else max(min(seconds, left), 0.0)
        if left is not None and left <= seconds:
            return


def _token_of(answer: Answer) -> Token:
    if isinstance(answer, Token):
        return answer
    # Every waiter raises an error of its own: a shared one would collect their tracebacks.
    raise answer.again()


_JWT = re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*")

_TELLING = ("response", "inner_exception", "exc_type", "exc_value", "exc_traceback")
"""What azure-core's errors carry along: the request with its secrets, and frames."""


def failure_of(exc: BaseException) -> TokenError:
    """What a credential raised, as an error that holds no secret.

    Its cause is the credential's own error if that is one of Azure's, without what it carries along
    and without its own causes: a program's output that could not be read, say, has the token in it.

    Args:
        exc: What was raised.
    """
    if isinstance(exc, TokenError):
        return _plain(exc)
    try:
        said = str(exc)
    except Exception:  # noqa: BLE001 - it is somebody else's
        said = "it cannot say why"
    text = _JWT.sub("<token>", said)
    words = f"{type(exc).__name__}: {their_words(text)}"
    error = no_token(f"no token from Microsoft Entra ID: {words}")
    if text == said and type(exc).__module__.startswith("azure."):
        exc.__traceback__ = exc.__cause__ = exc.__context__ = None
        for name in _TELLING:
            if name in vars(exc):
                setattr(exc, name, None)
        error.__cause__ = exc
    return error


def _plain(exc: TokenError) -> TokenError:
    """One of ours, or of a class that a program derived from it, which may be made in any way."""
    said, cause, remedy = (
        _JWT.sub("<token>", str(vars(exc).get(name, ""))) for name in ("said", "cause", "remedy")
    )
    words = said or _JWT.sub("<token>", " ".join(map(str, exc.args)))
    return TokenError(words, cause=cause, remedy=remedy)
