"""Flight: one request for a token under way, and how everybody waits for what it brings.

What a credential raised becomes an error here that holds no secret.
"""

from __future__ import annotations

import re
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from azpgauth.errors import TokenError
from azpgauth.printable import their_words
from azpgauth.token import Token

if TYPE_CHECKING:
    import asyncio

    from azpgauth.waiting import Wait

__all__ = ["Answer", "Flight", "settled", "token_from", "told"]

Answer = Token | TokenError


@dataclass
class Flight:
    """One request under way.

    Attributes:
        started: When the credential is asked, in seconds since the epoch: now, or after a pause.
        anew: Whether it goes past the credential's own cache.
        loop: The event loop it runs on, if it is that of an async credential.
        task: What runs it there; the event loop itself holds tasks weakly.
        future: What it brings. An error is a result too: it goes to any number of waiters, or
            to none.
        given_up: Whether it has been counted as failed already, since it hangs.
    """

    started: float
    anew: bool
    loop: asyncio.AbstractEventLoop | None = None
    task: asyncio.Task[None] | None = None
    future: Future[Answer] = field(default_factory=Future)
    given_up: bool = False

    def __post_init__(self) -> None:
        self.future.set_running_or_notify_cancel()  # so that no waiter can cancel it

    def lost(
        self, now: float, patience: float, asking: asyncio.AbstractEventLoop | None = None
    ) -> bool:
        """Whether nobody should wait for it any more: it hangs, or its event loop does not run.

        Args:
            now: Seconds since the epoch.
            patience: Seconds after which it hangs.
            asking: The event loop of whoever wants to know.
        """
        # A clock that was put back must not make it young for ever.
        late = not -patience < now - self.started < patience
        return late or self.gone(asking)

    def gone(self, asking: asyncio.AbstractEventLoop | None = None) -> bool:
        """Whether it cannot come back: its event loop does not run any more."""
        if self.loop is None or self.loop is asking:
            return False
        return self.loop.is_closed() or not self.loop.is_running()

    def settle(self, answer: Answer) -> None:
        """Give this to all who wait; the first answer counts."""
        with suppress(InvalidStateError):
            self.future.set_result(answer)

    def follow(self, other: Flight) -> None:
        """Another one was started in its place: whoever waits takes what that brings."""
        other.future.add_done_callback(lambda done: self.settle(done.result()))


def settled(answer: Answer) -> Future[Answer]:
    """A future that has its answer already."""
    future: Future[Answer] = Future()
    future.set_result(answer)
    return future


async def token_from(
    answer: Token | Future[Answer], timeout: float | None, wait: Wait
) -> tuple[Token, bool]:
    """The token, and whether it was fetched for this call.

    Args:
        answer: The token, or what will bring it.
        timeout: Seconds to wait; None waits as long as it takes.
        wait: How to wait.

    Raises:
        TokenError: The request failed, or did not end in time.
    """
    if isinstance(answer, Token):
        return answer, False
    try:
        return _token_of(await wait.result(answer, timeout)), True
    except TimeoutError:
        raise TokenError(f"no token from Microsoft Entra ID within {timeout:g} s") from None


def _token_of(answer: Answer) -> Token:
    if isinstance(answer, Token):
        return answer
    # Every waiter raises an error of its own: a shared one would collect their tracebacks.
    raise TokenError(*answer.args) from answer.__cause__


_JWT = re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*")

_TELLING = ("response", "inner_exception", "exc_type", "exc_value", "exc_traceback")
"""What azure-core's errors carry along: the request with its secrets, and frames."""


def told(exc: BaseException) -> TokenError:
    """What a credential raised, as an error that holds no secret.

    Its cause is the credential's own error if that is one of Azure's, without what it carries along
    and without its own causes: a program's output that could not be read, say, has the token in it.

    Args:
        exc: What was raised.
    """
    try:
        said = str(exc)
    except Exception:  # noqa: BLE001 - it is somebody else's
        said = "it cannot say why"
    text = _JWT.sub("<token>", said)
    if isinstance(exc, TokenError):
        return TokenError(text)
    words = f"{type(exc).__name__}: {their_words(text)}"
    error = TokenError(f"no token from Microsoft Entra ID: {words}")
    if text == said and type(exc).__module__.startswith("azure."):
        exc.__traceback__ = exc.__cause__ = exc.__context__ = None
        for name in _TELLING:
            if name in vars(exc):
                setattr(exc, name, None)
        error.__cause__ = exc
    return error
