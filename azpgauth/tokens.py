"""TokenSource: one access token, fetched once for all who ask, renewed before it expires.

What to do when is decided in `schedule`. Here are the state, with one request in flight at most,
shared by threads, tasks and loops, and a refresher thread, which runs only while something holds
the source (`TokenSource.hold`).

A request runs on a thread of its own, that of an async credential in a task of its own, and
everybody waits for its `Future`. So the first caller is not special: it can time out, be cancelled
or live on an event loop like any other.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
import threading
import time
import weakref
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from azpgauth.errors import TokenError
from azpgauth.schedule import MARGIN, Token, backoff, decide, progress

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = [
    "MARGIN",
    "Clock",
    "SystemClock",
    "Token",
    "TokenInfo",
    "TokenSource",
    "backoff",
    "decide",
    "progress",
]

logger = logging.getLogger("azpgauth.tokens")

STUCK = 60.0
"""Seconds after which a request still unanswered no longer keeps others from starting one."""

RECHECK = 60.0
"""Seconds: the refresher looks at the wall clock at least this often (machines sleep)."""


class Clock(Protocol):
    """What the token state machine needs to know of time; tests inject their own."""

    def time(self) -> float:
        """Seconds since the epoch, as in a token's ``exp``."""

    def wait(self, event: threading.Event, timeout: float) -> bool:
        """Wait for the event, `timeout` seconds at most; tell whether it was set."""


class SystemClock:
    """The real clock."""

    def time(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def wait(self, event: threading.Event, timeout: float) -> bool:
        """Wait for the event, `timeout` seconds at most."""
        return event.wait(timeout)


@dataclass(frozen=True)
class TokenInfo:
    """What a source can tell about itself; never the token.

    Attributes:
        requests: How many tokens were asked of the credential.
        failures: How many of these requests failed.
        expires_on: When the present token expires (seconds since the epoch), None without one.
        renew_at: When it is renewed.
        last_error: The last failed request's message, None after a success.
    """

    requests: int
    failures: int
    expires_on: float | None
    renew_at: float | None
    last_error: str | None


_Answer = Token | TokenError


@dataclass
class _Flight:
    """One request under way."""

    future: Future[_Answer]
    started: float
    anew: bool
    task: asyncio.Task[None] | None = None  # the event loop itself holds tasks weakly


class TokenSource:
    """A token for one (credential, scope), shared by every pool and thread of the process.

    Args:
        mint: Asks the credential for a token. Called on a thread of its own, one at a time.
        mint_anew: Asks past the credential's own cache, after the server refused a cached token.
        amint: Instead of `mint`, for an async credential: awaited on the event loop of whoever
            asks first. Then nothing is renewed in the background.
        refresh: ``background`` renews on time even if nobody connects, while the source is held;
            ``on-demand`` at the next connect.
        clock: The clock; tests inject theirs.
        jitter: Gives a number in 0…1 for the backoff.
    """

    def __init__(
        self,
        mint: Callable[[], Token] | None = None,
        *,
        mint_anew: Callable[[], Token] | None = None,
        amint: Callable[[], Awaitable[Token]] | None = None,
        refresh: Literal["background", "on-demand"] = "background",
        clock: Clock | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._mint = mint
        self._mint_anew = mint_anew or mint
        self._amint = amint
        self._refresh = refresh if amint is None else "on-demand"
        self._clock = clock or SystemClock()
        self._jitter = jitter
        self._token: Token | None = None
        self._unproven: Token | None = None
        self._not_before = 0.0
        self._failures_in_a_row = 0
        self._requests = 0
        self._failures = 0
        self._last_error: str | None = None
        self._holders = 0
        self._reset_threads()
        _sources.add(self)

    def _reset_threads(self) -> None:
        # Also in a child after fork: its parent's threads, and whoever held the lock, are gone.
        # Reentrant: a pool that is collected while it is held lets go of this source.
        self._lock = threading.RLock()
        self._flight: _Flight | None = None
        self._refresher: _Refresher | None = None

    def _after_fork(self) -> None:
        self._reset_threads()
        self._holders = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.info()}>"

    def info(self) -> TokenInfo:
        """Counts and times of this source; never the token."""
        token = self._token
        return TokenInfo(
            requests=self._requests,
            failures=self._failures,
            expires_on=token.expires_on if token else None,
            renew_at=token.renew_at() if token else None,
            last_error=self._last_error,
        )

    # -- asking ----------------------------------------------------------------------------

    def prefetch(self) -> Future[_Answer] | None:
        """Start a request if one is needed, and do not wait for it.

        Returns:
            What the request will bring; None if there is a token to use already.
        """
        if self._amint is not None:
            return None  # whose event loop will ask is not known yet
        answer = self._ask()
        return None if isinstance(answer, Token) else answer

    def get(self, timeout: float | None = None) -> tuple[Token, bool]:
        """The present token, or a new one.

        Args:
            timeout: Seconds to wait for a request under way; None waits as long as it takes.

        Returns:
            The token, and whether it was fetched for this very call.

        Raises:
            TokenError: The request failed, or did not end in time.
        """
        return _wait(self._ask(), timeout)

    async def aget(self, timeout: float | None = None) -> tuple[Token, bool]:
        """As `get`, without blocking the event loop."""
        return await _await(self._ask(), timeout)

    def instead_of(self, refused: Token, timeout: float | None = None) -> Token | None:
        """Another token than the one the server refused, minted past the credential's cache.

        Args:
            refused: The token that was refused.
            timeout: Seconds to wait for it.

        Returns:
            Another token; None if there is none to be had, or if `refused` came from here and no
            server ever accepted it: asking once more would change nothing.
        """
        answer = self._ask_instead_of(refused)
        if answer is None:
            return None
        try:
            token, _ = _wait(answer, timeout)
        except TokenError:
            return None
        return None if token.value == refused.value else token

    async def ainstead_of(self, refused: Token, timeout: float | None = None) -> Token | None:
        """As `instead_of`, without blocking the event loop."""
        answer = self._ask_instead_of(refused)
        if answer is None:
            return None
        try:
            token, _ = await _await(answer, timeout)
        except TokenError:
            return None
        return None if token.value == refused.value else token

    def accepted(self, token: Token) -> None:
        """A server accepted this token."""
        if self._unproven is token:
            self._unproven = None

    def _ask(self) -> Token | Future[_Answer]:
        """The token to use now, or the future that brings it."""
        # Reading one attribute is atomic: the common case takes no lock.
        token = self._token
        now = self._clock.time()
        decision = decide(token, now, self._not_before)
        if decision == "use" and token is not None:
            return token
        with self._lock:
            token = self._token
            decision = decide(token, now, self._not_before)
            if decision == "use" and token is not None:
                return token
            flight = self._start(now, anew=False)
        return token if decision == "use and renew" and token is not None else flight.future

    def _ask_instead_of(self, refused: Token) -> Token | Future[_Answer] | None:
        now = self._clock.time()
        with self._lock:
            token = self._token
            if token is not None and token.value != refused.value and token.usable(now):
                return token
            if self._unproven is not None and self._unproven.value == refused.value:
                return None
            return self._start(now, anew=True).future

    # -- requests --------------------------------------------------------------------------

    def _start(self, now: float, *, anew: bool) -> _Flight:
        """The request under way, or a new one. The lock is held."""
        flight = self._flight
        if flight is not None and now - flight.started < STUCK and (flight.anew or not anew):
            return flight
        loop = None if self._amint is None else _running_loop()
        flight = _Flight(Future(), now, anew)
        flight.future.set_running_or_notify_cancel()
        self._flight = flight
        self._requests += 1
        if loop is not None:
            flight.task = loop.create_task(self._arun(flight))
        else:
            threading.Thread(
                target=self._run, args=(flight,), name="azpgauth-token", daemon=True
            ).start()
        return flight

    def _run(self, flight: _Flight) -> None:
        mint = self._mint_anew if flight.anew else self._mint
        assert mint is not None  # noqa: S101 - without, there is amint
        try:
            token = mint()
            self._check(token)
        except Exception as exc:  # noqa: BLE001 - whatever a credential raises is its answer
            self._failed(flight, exc)
        else:
            self._arrived(flight, token)

    async def _arun(self, flight: _Flight) -> None:
        assert self._amint is not None  # noqa: S101 - see _start
        try:
            token = await self._amint()
            self._check(token)
        except asyncio.CancelledError:
            self._failed(flight, TokenError("the event loop that asked for the token has ended"))
            raise
        except Exception as exc:  # noqa: BLE001 - as above
            self._failed(flight, exc)
        else:
            self._arrived(flight, token)

    def _check(self, token: Token) -> None:
        now = self._clock.time()
        if not token.usable(now):
            left = round(token.expires_on - now)
            raise TokenError(f"the credential gave a token with {left} s left")

    def _arrived(self, flight: _Flight, token: Token) -> None:
        now = self._clock.time()
        with self._lock:
            before = self._token
            if before is not None and not progress(before, token, now, anew=flight.anew):
                # The credential's own cache answered. Ask again, but not at once.
                token = before
                self._failures_in_a_row += 1
                self._not_before = now + backoff(self._failures_in_a_row, self._jitter())
            else:
                self._token = token
                self._failures_in_a_row = 0
                self._not_before = 0.0
                self._unproven = token if flight.anew else None
            self._last_error = None
            self._landed(flight)
        flight.future.set_result(token)

    def _failed(self, flight: _Flight, exc: Exception) -> None:
        error = _told(exc)
        with self._lock:
            self._failures += 1
            self._failures_in_a_row += 1
            now = self._clock.time()
            wait = backoff(self._failures_in_a_row, self._jitter())
            self._not_before = now + wait
            self._last_error = str(error)
            token = self._token
            self._landed(flight)
        if token is not None and token.usable(now):
            logger.warning(
                "renewing the token failed; the present one has %d s left, next try in %.1f s: %s",
                token.expires_on - now,
                wait,
                error,
            )
        # As a result, not as an exception: it goes to any number of waiters, or to none.
        flight.future.set_result(error)

    def _landed(self, flight: _Flight) -> None:
        # A request that was given up as stuck may still land, while another is under way.
        if self._flight is flight:
            self._flight = None
        if self._refresher is not None:
            self._refresher.wake.set()

    # -- the refresher ---------------------------------------------------------------------

    def hold(self) -> Callable[[], None]:
        """Keep the token fresh until the returned function is called (once or more)."""
        with self._lock:
            self._holders += 1
            if self._refresh == "background" and self._refresher is None:
                self._refresher = _Refresher(self)
        released = threading.Event()
        pid = os.getpid()

        def release() -> None:
            if released.is_set() or os.getpid() != pid:
                return
            released.set()
            with self._lock:
                self._holders -= 1
                refresher = self._refresher if self._holders == 0 else None
                if refresher is not None:
                    self._refresher = None
            if refresher is not None:
                refresher.stop()

        return release

    def _renew_if_due(self) -> float:
        """Start a renewal if one is due; seconds until the next look."""
        now = self._clock.time()
        with self._lock:
            token = self._token
            if token is None:
                # Nobody has asked yet, or it never came: the next connect asks.
                return RECHECK
            due = max(token.renew_at(), self._not_before)
            if now < due:
                return min(due - now, RECHECK)
            self._start(now, anew=False)
        return RECHECK


class _Refresher:
    """A thread that renews a source's token on time. Knows its source weakly."""

    def __init__(self, source: TokenSource) -> None:
        self.wake = threading.Event()
        self._stopped = False
        self._source = weakref.ref(source)
        self._clock = source._clock  # noqa: SLF001 - one idea in two classes
        self._thread = threading.Thread(target=self._run, name="azpgauth-refresher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait until it has ended."""
        self._stopped = True
        self.wake.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=1.0)

    def _run(self) -> None:
        while not self._stopped:
            source = self._source()
            if source is None:
                return
            delay = source._renew_if_due()  # noqa: SLF001 - as above
            del source
            if self._clock.wait(self.wake, delay):
                self.wake.clear()


def _running_loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise TokenError(
            "an async credential gives tokens on an event loop only; "
            "pass the one of the same name from azure.identity"
        ) from None


def _wait(answer: Token | Future[_Answer], timeout: float | None) -> tuple[Token, bool]:
    if isinstance(answer, Token):
        return answer, False
    try:
        return _settled(answer.result(timeout)), True
    except FutureTimeoutError:
        raise _late(timeout) from None


async def _await(answer: Token | Future[_Answer], timeout: float | None) -> tuple[Token, bool]:
    if isinstance(answer, Token):
        return answer, False
    waiting = asyncio.wrap_future(answer)
    # wait() leaves the request alone when this caller is cancelled or runs out of time.
    done, _ = await asyncio.wait({waiting}, timeout=timeout)
    if not done:
        raise _late(timeout)
    return _settled(waiting.result()), True


def _settled(answer: _Answer) -> Token:
    if isinstance(answer, Token):
        return answer
    # Every waiter raises an error of its own: a shared one would collect their tracebacks.
    raise TokenError(*answer.args) from answer.__cause__


def _late(timeout: float | None) -> TokenError:
    return TokenError(f"no token from Microsoft Entra ID within {timeout:g} s")


_JWT = re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*")


def _told(exc: Exception) -> TokenError:
    """What a credential raised, as an error that holds no secret."""
    if isinstance(exc, TokenError):
        return exc.with_traceback(None)
    text = _JWT.sub("<token>", str(exc))
    error = TokenError(f"no token from Microsoft Entra ID: {type(exc).__name__}: {text}")
    if text == str(exc):
        error.__cause__ = exc
    # The frames are the credential's, and their locals may be its secrets.
    seen: BaseException | None = exc
    while seen is not None:
        seen.__traceback__ = None
        seen = seen.__cause__ or seen.__context__
    return error


_sources: weakref.WeakSet[TokenSource] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for source in list(_sources):
        source._after_fork()  # noqa: SLF001 - one idea


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
