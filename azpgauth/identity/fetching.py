"""Fetches tokens: decides how often a credential is asked, and by how many requests at a time.

One request is under way for all who want a token. After one that brought nothing there is a pause,
on every path. One that hangs counts as failed, and another is made beside it, never a third.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from azpgauth.identity.claims import claims_of, who
from azpgauth.identity.diagnosis import needs_loop, no_token
from azpgauth.identity.flight import Flight, failure_of
from azpgauth.identity.schedule import AT_ONCE, SHORTEST, SOON, Pause, progress, within
from azpgauth.identity.token import MARGIN, MIN_SPACING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from azpgauth.errors import TokenError
    from azpgauth.identity.clock import Clock
    from azpgauth.identity.flight import Answer
    from azpgauth.identity.token import Token

__all__ = ["STUCK", "Fetching", "running_loop"]

logger = logging.getLogger("azpgauth.tokens")

STUCK = 60.0
"""Seconds after which a request without an answer has failed; the pause after it is that of any
other failure, and then one more is tried beside it."""


class Fetching:
    """The present token, and the requests that bring the next one.

    Args:
        mint: Asks the credential for a token; on one thread, and on another beside one that hangs.
        mint_anew: Asks past the credential's own cache, after the server refused a cached token.
        amint: Instead of `mint`, for an async credential.
        patience: Seconds after which a request still unanswered has failed.
        clock: The clock.
        jitter: Gives a number in 0…1 for the pauses.
        run: Runs a request, and does not wait for it.
    """

    def __init__(
        self,
        mint: Callable[[], Token] | None,
        mint_anew: Callable[[], Token] | None,
        amint: Callable[[], Awaitable[Token]] | None,
        patience: float,
        clock: Clock,
        jitter: Callable[[], float],
        run: Callable[[Callable[[], None]], None],
    ) -> None:
        self._mint = mint
        self._mint_anew = mint_anew
        self._amint = amint
        self._patience = patience
        self._clock = clock
        self._jitter = jitter
        self._run_request = run
        self._token: Token | None = None
        self._identity: str | None = None
        self._minted: Token | None = None  # past the credential's cache, for a refusal
        self._anew: deque[float] = deque(maxlen=AT_ONCE)  # when that was last tried
        self._pause = Pause()
        self._requests = 0
        self._failures = 0
        self._last_error: str | None = None
        self.begin_process()

    def begin_process(self) -> None:
        """What does not outlive a fork: the threads, and whoever held the lock, are gone."""
        # Reentrant: a pool that is collected while it is held lets go of this source.
        self._lock = threading.RLock()
        self._flight: Flight | None = None  # which everybody joins
        self._asking: list[Flight] = []  # which wait for the credential, those that hang included
        self._news: list[Callable[[], None]] = []

    def _changed(self) -> None:
        """A request was begun, or has ended. The lock is held."""

    @contextmanager
    def _deciding(self) -> Iterator[None]:
        """Hold the lock; log and answer afterwards.

        A handler of the log may wait for somebody who wants the lock.
        """
        with self._lock:
            yield
            news, self._news = self._news, []
        for each in news:
            each()

    def _log(self, level: int, said: str, *values: object) -> None:
        self._news.append(partial(logger.log, level, said, *values))

    def _settle(self, flight: Flight, answer: Answer) -> None:
        self._news.append(partial(flight.settle, answer))

    # -- beginning -------------------------------------------------------------------------

    def _fetch(self, *, anew: bool = False) -> Flight | TokenError:
        """The request under way, a new one, or why none is made. The lock is held.

        All requests begin here, so that the pause after a failure holds on every path.
        """
        loop = None if self._amint is None else running_loop()
        if self._amint is not None and loop is None:
            return needs_loop("what gives the tokens here")
        now = self._clock.time()
        flight = self._flight
        if flight is not None:  # for a refused token, nobody waits for a pause to end
            return flight if flight.asked or not anew else self._pause.refusal(0.0)
        if len(self._asking) >= AT_ONCE:
            return no_token(
                f"{AT_ONCE} requests for a token have had no answer within {self._patience:g} s; "
                "the next is made when one of them has ended"
            )
        usable = self._token is not None and self._token.usable(now) and not anew
        left = self._pause.left(now, usable=usable)
        if left > (0.0 if usable or anew else SOON):
            return self._pause.refusal(left)
        return self._begin(Flight(now + left, anew, loop, self._pause.error if left else None))

    def _begin(self, flight: Flight) -> Flight:
        self._flight = flight
        self._due(flight)
        try:
            if flight.loop is None:
                self._run_request(lambda: self._run(flight))
            else:
                flight.task = flight.loop.create_task(self._arun(flight))
        except RuntimeError as exc:  # no thread can be started
            self._fail(flight, failure_of(exc))
        self._changed()
        return flight

    def _due(self, flight: Flight) -> float:
        """Seconds until this request is to be made; 0 if it is time, or too late. Counts it."""
        with self._lock:
            if flight.asked or self._flight is not flight:
                return 0.0
            now = self._clock.time()
            left = self._pause.left(now, usable=False)
            if not left:
                flight.asked = True
                flight.started = now
                self._requests += 1
                self._asking.append(flight)
                if flight.anew:
                    self._anew.append(now)
            return left

    def _run(self, flight: Flight) -> None:
        while left := self._due(flight):
            self._clock.wait(threading.Event(), left)
        if not flight.asked:
            return
        mint = self._mint_anew if flight.anew else self._mint
        assert mint is not None  # noqa: S101 - without, there is amint
        try:
            self._arrived(flight, mint())
        except BaseException as exc:  # noqa: BLE001 - whatever a credential raises is its answer
            self._failed(flight, exc)

    async def _arun(self, flight: Flight) -> None:
        assert self._amint is not None  # noqa: S101 - see _fetch
        try:
            while left := self._due(flight):
                await self._clock.sleep(left)
            if flight.asked:
                self._arrived(flight, await self._amint())
        except (asyncio.CancelledError, GeneratorExit):
            self._failed(flight, _ended())
            raise
        except BaseException as exc:
            self._failed(flight, exc)
            if not isinstance(exc, Exception):
                raise

    # -- ending ----------------------------------------------------------------------------

    def _look(self, loop: asyncio.AbstractEventLoop | None = None) -> float:
        """Count the request that hangs as failed, if one does; seconds until the next look.

        Args:
            loop: The event loop of whoever is asking: it does not wait for one that stands still.
        """
        with self._deciding():
            now = self._clock.time()
            flight = self._flight
            adrift = [each for each in self._asking if each.adrift(loop)]
            for each in adrift:
                self._asking.remove(each)
                each.cancel()
            if flight is None or (not flight.asked and not flight.adrift(loop)):
                return self._patience
            if flight.adrift(loop):
                flight.cancel()
                self._fail(flight, _ended())
            elif flight.hangs(now, self._patience):
                flight.given_up = True
                self._flight = None
                error = no_token(
                    f"no token from Microsoft Entra ID: no answer within {self._patience:g} s"
                )
                self._count(now, error, hangs=True)
                self._changed()
                self._settle(flight, error)
            else:
                return flight.started + self._patience - now
            return self._patience

    def _arrived(self, flight: Flight, token: Token) -> None:
        now = self._clock.time()
        if not token.usable(now):
            flight.short = True
            raise _short(token, now)
        identity = " with ".join(filter(None, (who(claims_of(token.value)), token.credential)))
        with self._deciding():
            before, late = self._token, flight.given_up
            self._landed(flight)
            # One that was given up as stuck may still land: it has no say any more.
            if before is None or progress(before, token, now, anew=flight.anew and not late):
                self._take(flight, token, now)
            elif not late:
                # The credential's own cache answered. Ask again, but not at once.
                token = before
                self._pause = self._pause.longer(
                    now, self._jitter(), no_token("the credential gave the same token again")
                )
                self._last_error = None
            level = logging.INFO if self._identity != identity else logging.DEBUG
            self._identity = identity
            left = token.expires_on - now
            self._log(level, "token for %s, good for %d s", identity, left)
            self._settle(flight, token)

    def _take(self, flight: Flight, token: Token, now: float) -> None:
        """This is the present token from now on."""
        self._token = token
        self._minted = token if flight.anew else None
        self._last_error = None
        # One that is over in a moment is not followed at once by the next of its kind.
        over = token.expires_on - MARGIN - now < SHORTEST
        self._pause = Pause(0, now, SHORTEST, _short(token, now)) if over else Pause()
        other = self._flight
        if other is not None and not other.anew:  # whoever waits for another one has this one
            self._settle(other, token)
            if not other.asked:
                self._flight = None

    def _failed(self, flight: Flight, exc: BaseException) -> None:
        error = failure_of(exc)
        with self._deciding():
            self._fail(flight, error)

    def _fail(self, flight: Flight, error: TokenError) -> None:
        """This request failed. The lock is held."""
        self._landed(flight)
        if flight.asked and not flight.given_up:
            self._count(self._clock.time(), error)
        elif flight.given_up and self._last_error is not None:
            # It has been counted; now it says why. No success has come in between.
            self._last_error = error.said
            self._pause = replace(self._pause, error=error)
        flight.given_up = True
        self._settle(flight, error)

    def _count(self, now: float, error: TokenError, *, hangs: bool = False) -> None:
        """One request more has failed. The lock is held."""
        self._failures += 1
        self._pause = self._pause.longer(now, self._jitter(), error)
        self._last_error = error.said
        token = self._token
        wait = self._pause.left(now, usable=token is not None and token.usable(now))
        full = len(self._asking) >= AT_ONCE
        then = "when one of the two has ended" if full else f"in {wait:.1f} s"
        if token is not None:
            left = max(token.expires_on - now, 0.0)
            said = "renewing the token failed; the present one has %d s left, next try %s: %s"
            self._log(logging.WARNING, said, left, then, error.said)
        elif hangs:  # any other failure is told to whoever waits for the token
            self._log(logging.WARNING, "%s, next try %s", error.said, then)

    def _landed(self, flight: Flight) -> None:
        if self._flight is flight:
            self._flight = None
        if flight in self._asking:
            self._asking.remove(flight)
        self._changed()

    def _spent(self, now: float) -> bool:
        """Whether tokens were minted anew so often of late that one more would change nothing."""
        return len(self._anew) == AT_ONCE and within(self._anew[0], now, MIN_SPACING)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs on this thread, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _ended() -> TokenError:
    return no_token("the event loop that asked for the token has ended")


def _short(token: Token, now: float) -> TokenError:
    return no_token(f"the credential gave a token with {round(token.expires_on - now)} s left")
