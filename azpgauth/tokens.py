"""TokenSource: one access token, fetched once for all who ask, renewed before it expires.

What to do when is decided in `schedule`. Here are the state, with one request under way at most,
shared by threads, tasks and loops, and whoever holds the source (`TokenSource.hold`), for whom a
`Refresher` renews it in the background.

A request runs on a thread of its own, that of an async credential in a task of its own, and
everybody waits for its `Flight`. So the first caller is not special: it can time out, be cancelled
or live on an event loop like any other.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from azpgauth.clock import SystemClock
from azpgauth.errors import TokenError
from azpgauth.flight import Answer, Flight, settled, token_from, told
from azpgauth.refresher import Refresher
from azpgauth.role import claims_of, who
from azpgauth.schedule import SOON, Pause, decide, progress
from azpgauth.token import Token, TokenInfo
from azpgauth.waiting import BLOCKING, ON_LOOP, run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from concurrent.futures import Future

    from azpgauth.clock import Clock
    from azpgauth.waiting import Wait

__all__ = ["AT_ONCE", "RECHECK", "STUCK", "Refresh", "TokenInfo", "TokenSource"]

logger = logging.getLogger("azpgauth.tokens")

Refresh = Literal["background", "on-demand"]

STUCK = 60.0
"""Seconds after which a request without an answer has failed, and one more is tried beside it."""

AT_ONCE = 2
"""Requests that may wait for the credential: one, and one more beside one that hangs."""

RECHECK = 60.0
"""Seconds: the refresher looks at the wall clock at least this often (machines sleep)."""


def _on_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="azpgauth-token", daemon=True).start()


class TokenSource:
    """A token for one (credential, scope), shared by every pool and thread of the process.

    Args:
        mint: Asks the credential for a token; one call at a time.
        mint_anew: Asks past the credential's own cache, after the server refused a cached token.
        amint: Instead of `mint`, for an async credential: awaited on the event loop of whoever
            asks first.
        refresh: ``background`` renews on time even if nobody connects, while the source is held;
            ``on-demand`` at the next connect. What whoever holds it says comes first.
        patience: Seconds after which a request still unanswered is given up as stuck.
        clock: The clock; tests inject theirs.
        jitter: Gives a number in 0…1 for the backoff.
        run: Runs a request, and does not wait for it: by default on a thread of its own.
    """

    def __init__(
        self,
        mint: Callable[[], Token] | None = None,
        *,
        mint_anew: Callable[[], Token] | None = None,
        amint: Callable[[], Awaitable[Token]] | None = None,
        refresh: Refresh = "background",
        patience: float = STUCK,
        clock: Clock | None = None,
        jitter: Callable[[], float] = random.random,
        run: Callable[[Callable[[], None]], None] = _on_thread,
    ) -> None:
        self._mint = mint
        self._mint_anew = mint_anew or mint
        self._amint = amint
        self._refresh = refresh
        self._patience = patience
        self._clock = clock or SystemClock()
        self._jitter = jitter
        self._run_request = run
        self._token: Token | None = None
        self._identity: str | None = None
        self._minted: Token | None = None  # past the credential's cache, for a refusal
        self._proven: set[int] = set()  # those whom a server let in with it
        self._pause = Pause()
        self._requests = 0
        self._failures = 0
        self._last_failure: TokenError | None = None
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
        self._begin_process()
        _sources.add(self)

    def _begin_process(self) -> None:
        """What does not outlive a fork: the threads, and whoever held the lock, are gone."""
        # Reentrant: a pool that is collected while it is held lets go of this source.
        self._lock = threading.RLock()
        self._flight: Flight | None = None
        self._under_way: list[Flight] = []  # the one above, and one before it that hangs
        self._refresher: Refresher | None = None
        self._holders = 0
        self._renewed_for = 0  # those among them who want it renewed in the background

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.info()}>"

    @property
    def idle(self) -> bool:
        """Whether nobody holds it and there is no token to lose."""
        token = self._token
        gone = token is None or not token.usable(self._clock.time())
        return gone and self._holders == 0 and self._flight is None

    def info(self) -> TokenInfo:
        """Counts and times of this source; never the token."""
        token = self._token
        return TokenInfo(
            identity=self._identity,
            requests=self._requests,
            failures=self._failures,
            expires_on=token.expires_on if token else None,
            renew_at=token.renew_at() if token else None,
            last_refresh=token.fetched_at if token else None,
            last_error=None if self._last_failure is None else str(self._last_failure),
        )

    # -- asking ----------------------------------------------------------------------------

    def prefetch(self) -> Future[Answer] | None:
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
        return run(token_from(self._ask(), timeout, BLOCKING))

    async def aget(self, timeout: float | None = None) -> tuple[Token, bool]:
        """As `get`, without blocking the event loop."""
        if self._amint is not None:
            self._loop = weakref.ref(asyncio.get_running_loop())
        return await token_from(self._ask(), timeout, ON_LOOP)

    def instead_of(
        self, refused: Token, timeout: float | None = None, *, by: object = None
    ) -> Token | None:
        """Another token than the one the server refused, minted past the credential's cache.

        Args:
            refused: The token that was refused.
            timeout: Seconds to wait for each request.
            by: Who was refused: what is true of one role or server is not of another.

        Returns:
            Another token; None if there is none to be had, or if `refused` came from here and
            never let them in: asking once more would change nothing.
        """
        return run(self._instead_of(refused, timeout, by, BLOCKING))

    async def ainstead_of(
        self, refused: Token, timeout: float | None = None, *, by: object = None
    ) -> Token | None:
        """As `instead_of`, without blocking the event loop."""
        return await self._instead_of(refused, timeout, by, ON_LOOP)

    async def _instead_of(
        self, refused: Token, timeout: float | None, by: object, wait: Wait
    ) -> Token | None:
        while (asked := self._ask_instead_of(refused, by)) is not None:
            answer, final = asked
            try:
                token, _ = await token_from(answer, timeout, wait)
            except TokenError:
                return None
            if token.value != refused.value:
                return token
            if final:
                return None
        return None

    def accepted(self, token: Token, *, by: object = None) -> None:
        """A server accepted this token.

        Args:
            token: The token.
            by: Who was let in.
        """
        if self._minted is token:
            self._proven.add(id(by))

    def _ask(self) -> Token | Future[Answer]:
        """The token to use now, or the future that brings it."""
        # Reading one attribute is atomic: the common case takes no lock.
        token = self._token
        now = self._clock.time()
        decision = decide(token, now, self._pause)
        if decision == "use" and token is not None:
            return token
        with self._lock:
            token = self._token
            decision = decide(token, now, self._pause)
            if decision == "use" and token is not None:
                return token
            flight = self._start(now)
            failure = self._last_failure or TokenError("the credential gives no newer token")
        if decision == "use and renew" and token is not None:
            return token
        return settled(failure) if flight is None else flight.future

    def _ask_instead_of(
        self, refused: Token, by: object = None
    ) -> tuple[Token | Future[Answer], bool] | None:
        """Another token or what will bring it, and whether that is the last word."""
        now = self._clock.time()
        with self._lock:
            token = self._token
            if token is not None and token.value != refused.value and token.usable(now):
                return token, True
            minted = self._minted
            if minted is not None and minted.value == refused.value and id(by) not in self._proven:
                return None
            # An ordinary request under way is waited for first, so that there is only one.
            flight = self._start(now, anew=True)
            return None if flight is None else (flight.future, flight.anew)

    # -- requests --------------------------------------------------------------------------

    def _start(self, now: float, *, anew: bool = False) -> Flight | None:
        """The request under way, or a new one; None while none may be made. The lock is held.

        All requests begin here, so that the pause after failures holds on every path.
        """
        loop = None if self._amint is None else _running_loop()
        before = self._flight
        if before is not None:
            if not before.lost(now, self._patience, loop):
                return before
            self._give_up(before)
        self._under_way = [each for each in self._under_way if not each.gone(loop)]
        token = self._token
        pause = self._pause.left(now, usable=token is not None and token.usable(now))
        if len(self._under_way) >= AT_ONCE or pause > (0.0 if anew else SOON):
            return None
        flight = self._flight = Flight(now + pause, anew, loop)
        self._under_way.append(flight)
        if before is not None:
            before.follow(flight)
        self._requests += 1
        try:
            if loop is None:
                self._run_request(lambda: self._run(flight))
            else:
                flight.task = loop.create_task(self._arun(flight, pause))
        except RuntimeError as exc:  # no thread can be started
            self._failed(flight, exc)
        return flight

    def _give_up(self, flight: Flight) -> None:
        """A request that hangs has failed: counted once, and told once. The lock is held."""
        if flight.given_up or flight.gone():
            return
        flight.given_up = True
        self._failures += 1
        self._last_failure = TokenError(
            f"no token from Microsoft Entra ID: the credential gave no answer for "
            f"{self._patience:g} s"
        )
        logger.warning("a request for a token hangs: no answer for %g s", self._patience)

    def _run(self, flight: Flight) -> None:
        mint = self._mint_anew if flight.anew else self._mint
        assert mint is not None  # noqa: S101 - without, there is amint
        pause = min(flight.started - self._clock.time(), SOON)  # the clock may be put back
        if pause > 0:
            self._clock.wait(threading.Event(), pause)
        try:
            self._arrived(flight, mint())
        except BaseException as exc:  # noqa: BLE001 - whatever a credential raises is its answer
            self._failed(flight, exc)

    async def _arun(self, flight: Flight, pause: float) -> None:
        assert self._amint is not None  # noqa: S101 - see _start
        try:
            await asyncio.sleep(pause)
            self._arrived(flight, await self._amint())
        except (asyncio.CancelledError, GeneratorExit):
            self._failed(flight, TokenError("the event loop that asked for the token has ended"))
            raise
        except BaseException as exc:
            self._failed(flight, exc)
            if not isinstance(exc, Exception):
                raise

    def _arrived(self, flight: Flight, token: Token) -> None:
        now = self._clock.time()
        if not token.usable(now):
            left = round(token.expires_on - now)
            raise TokenError(f"the credential gave a token with {left} s left")
        identity = " with ".join(filter(None, (who(claims_of(token.value)), token.credential)))
        with self._lock:
            before = self._token
            # A request that was given up as stuck may still land: it has no say any more.
            anew = flight.anew and self._flight is flight
            if before is not None and not progress(before, token, now, anew=anew):
                # The credential's own cache answered. Ask again, but not at once.
                token = before
                self._pause = self._pause.longer(now, self._jitter())
            else:
                self._token = token
                self._pause = Pause()
                self._minted = token if flight.anew else None
                self._proven = set()
            self._last_failure = None
            news = self._identity != identity
            self._identity = identity
            self._landed(flight)
        level = logging.INFO if news else logging.DEBUG
        logger.log(level, "token for %s, good for %d s", identity, token.expires_on - now)
        flight.settle(token)

    def _failed(self, flight: Flight, exc: BaseException) -> None:
        error = told(exc)
        now = self._clock.time()
        with self._lock:
            self._landed(flight)
            counts = not flight.given_up  # else it has been counted, and another one decides
            if counts:
                self._failures += 1
                self._pause = self._pause.longer(now, self._jitter())
                self._last_failure = error
            token = self._token
            wait = self._pause.left(now, usable=token is not None and token.usable(now))
        if counts and token is not None:
            left = max(token.expires_on - now, 0.0)
            logger.warning(
                "renewing the token failed; the present one has %d s left, next try in %.1f s: %s",
                *(left, wait, error),
            )
        flight.settle(error)

    def _landed(self, flight: Flight) -> None:
        if self._flight is flight:
            self._flight = None
        self._under_way = [each for each in self._under_way if each is not flight]
        if self._refresher is not None:
            self._refresher.wake()

    # -- renewing in the background --------------------------------------------------------

    def hold(self, refresh: Refresh | None = None) -> Callable[[], None]:
        """Keep the token fresh until the returned function is called (once or more).

        Args:
            refresh: How; by default as the source was told.
        """
        background = (refresh or self._refresh) == "background"
        with self._lock:
            self._holders += 1
            self._renewed_for += background
            if background and self._refresher is None:
                self._refresher = Refresher(self._renew_if_due, self._clock)
        released = threading.Event()
        pid = os.getpid()

        def release() -> None:
            if released.is_set() or os.getpid() != pid:
                return
            released.set()
            with self._lock:
                self._holders -= 1
                self._renewed_for -= background
                refresher = self._refresher if self._renewed_for == 0 else None
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
            wait = max(token.renew_at() - now, self._pause.left(now, usable=token.usable(now)))
            if wait > 0:
                return min(wait, RECHECK)
            if self._amint is None:
                self._start(now)
                return RECHECK
            loop = self._loop() if self._loop is not None else None
        if loop is not None and loop.is_running():
            with suppress(RuntimeError):  # it was closed in this moment
                loop.call_soon_threadsafe(self._renew_on_loop)
        return RECHECK

    def _renew_on_loop(self) -> None:
        with self._lock:
            self._start(self._clock.time())


def _running_loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise TokenError(
            "an async credential gives tokens on an event loop only; "
            "pass the one of the same name from azure.identity"
        ) from None


_sources: weakref.WeakSet[TokenSource] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for source in list(_sources):
        source._begin_process()  # noqa: SLF001 - one idea


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
