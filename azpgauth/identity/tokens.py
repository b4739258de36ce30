"""Shares one access token among all who ask, and renews it before it expires: `TokenSource`.

What to do when is decided in `schedule`, how requests are made in `fetching`. Here is who asks:
threads, tasks and loops, whoever was refused with a token, and whoever holds the source
(`TokenSource.keep_fresh`), for whom a `Refresher` renews it in the background.

A request runs on a thread of its own, that of an async credential in a task of its own, and
everybody waits for its `Flight`. So the first caller is not special: it can time out, be cancelled
or live on an event loop like any other.
"""

from __future__ import annotations

import os
import random
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from azpgauth.errors import TokenError
from azpgauth.identity.clock import SystemClock
from azpgauth.identity.fetching import STUCK, Fetching, running_loop
from azpgauth.identity.flight import Answer, Flight, token_from
from azpgauth.identity.refresher import Refresher
from azpgauth.identity.schedule import AT_ONCE, decide
from azpgauth.identity.token import Token, TokenInfo
from azpgauth.runtime.forks import renew_in_child
from azpgauth.runtime.waiting import BLOCKING, ON_LOOP, run

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from azpgauth.identity.clock import Clock
    from azpgauth.runtime.waiting import Wait

__all__ = ["RECHECK", "Refresh", "TokenInfo", "TokenSource"]

Refresh = Literal["background", "on-demand"]

RECHECK = 60.0
"""Seconds: the refresher looks at the wall clock at least this often (machines sleep)."""


def _on_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="azpgauth-token", daemon=True).start()


class TokenSource(Fetching):
    """A token for one (credential, scope), shared by every pool and thread of the process.

    Args:
        mint: Asks the credential for a token; one call at a time, two where one hangs.
        mint_anew: Asks past the credential's own cache, after the server refused a cached token.
        amint: Instead of `mint`, for an async credential: awaited on the event loop of whoever
            asks first.
        refresh: ``background`` renews on time even if nobody connects, while the source is held;
            ``on-demand`` at the next connect. What whoever holds it says comes first.
        patience: Seconds after which a request still unanswered has failed.
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
        self._refresh = refresh
        self._proven: tuple[Token | None, set[int]] = None, set()  # whom a server let in with it
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
        super().__init__(
            mint, mint_anew or mint, amint, patience, clock or SystemClock(), jitter, run
        )
        renew_in_child(self)

    def begin_process(self) -> None:
        """Nobody holds it in this process yet, and no thread renews it."""
        super().begin_process()
        self._refresher: Refresher | None = None
        self._holders = 0
        self._renewed_for = 0  # those among them who want it renewed in the background

    def _changed(self) -> None:
        if self._refresher is not None:
            self._refresher.wake()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._info()}>"

    @property
    def idle(self) -> bool:
        """Whether nobody holds it, and there is no token and no pause to lose."""
        token, now = self._token, self._clock.time()
        gone = token is None or not token.usable(now)
        busy = self._holders or self._flight is not None or self._asking
        return gone and not busy and not self.paused

    @property
    def paused(self) -> bool:
        """Whether a request failed so lately that no other is made yet."""
        return self._pause.left(self._clock.time(), usable=False) > 0

    def info(self) -> TokenInfo:
        """Counts and times of this source; never the token."""
        self._look()
        return self._info()

    def _info(self) -> TokenInfo:
        token = self._token
        return TokenInfo(
            identity=self._identity,
            requests=self._requests,
            failures=self._failures,
            expires_on=token.expires_on if token else None,
            renew_at=token.renew_at() if token else None,
            last_refresh=token.fetched_at if token else None,
            last_error=self._last_error,
        )

    # -- asking ----------------------------------------------------------------------------

    def prefetch(self) -> Flight | None:
        """Start a request if one is needed, and do not wait for it.

        Returns:
            The request; None if there is a token to use already, or none is made.
        """
        if self._amint is not None:
            return None  # whose event loop will ask is not known yet
        answer = self._ask()
        return answer if isinstance(answer, Flight) else None

    def get(self, timeout: float | None = None) -> tuple[Token, bool]:
        """The present token, or a new one.

        Args:
            timeout: Seconds to wait for a request under way; None waits as long as it takes.

        Returns:
            The token, and whether it was fetched for this very call.

        Raises:
            TokenError: The request failed, or did not end in time.
        """
        return run(self.get_with(BLOCKING, timeout))

    async def aget(self, timeout: float | None = None) -> tuple[Token, bool]:
        """As `get`, without blocking the event loop."""
        return await self.get_with(ON_LOOP, timeout)

    async def get_with(self, wait: Wait, timeout: float | None = None) -> tuple[Token, bool]:
        """As `get`, in the way of waiting that is given."""
        if self._amint is not None and (loop := running_loop()) is not None:
            self._loop = weakref.ref(loop)
        return await token_from(self._ask(), timeout, wait, self._look)

    def get_other(
        self, refused: Token, timeout: float | None = None, *, by: object = None
    ) -> Token | None:
        """Another token than the one the server refused, minted past the credential's cache.

        Args:
            refused: The token that was refused.
            timeout: Seconds to wait for each request.
            by: Who was refused: what is true of one role or server is not of another.

        Returns:
            Another token; None if there is none to be had, a request failed a moment ago, or
            `refused` came from here and never let them in: asking once more would change nothing.
        """
        return run(self.get_other_with(BLOCKING, refused, timeout, by=by))

    async def aget_other(
        self, refused: Token, timeout: float | None = None, *, by: object = None
    ) -> Token | None:
        """As `get_other`, without blocking the event loop."""
        return await self.get_other_with(ON_LOOP, refused, timeout, by=by)

    async def get_other_with(
        self, wait: Wait, refused: Token, timeout: float | None = None, *, by: object = None
    ) -> Token | None:
        """As `get_other`, in the way of waiting that is given."""
        while (asked := self._ask_other(refused, by)) is not None:
            answer, final = asked
            try:
                token, _ = await token_from(answer, timeout, wait, self._look)
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
            self._proven_by(token).add(id(by))

    def _proven_by(self, minted: Token) -> set[int]:
        if self._proven[0] is not minted:
            self._proven = minted, set()
        return self._proven[1]

    def _ask(self) -> Answer | Flight:
        """The token to use now, the request that brings it, or why there is none."""
        # Reading one attribute is atomic: the common case takes no lock.
        token = self._token
        if decide(token, self._clock.time(), self._pause) == "use" and token is not None:
            return token
        self._look(None if self._amint is None else running_loop())
        with self._deciding():
            token = self._token
            decision = decide(token, self._clock.time(), self._pause)
            if decision == "fetch" or token is None:
                return self._fetch()
            if decision == "use and renew":
                self._fetch()
            return token

    def _ask_other(self, refused: Token, by: object = None) -> tuple[Token | Flight, bool] | None:
        """Another token or what will bring it, and whether that is the last word."""
        self._look(None if self._amint is None else running_loop())
        with self._deciding():
            now = self._clock.time()
            token = self._token
            if token is not None and token.value != refused.value and token.usable(now):
                return token, True
            minted = self._minted
            if minted is not None and minted.value == refused.value:
                if id(by) not in self._proven_by(minted):
                    return None
                if self._spent(now):
                    return None
            # An ordinary request under way is waited for first, so that there is only one.
            answer = self._fetch(anew=True)
            return (answer, answer.anew) if isinstance(answer, Flight) else None

    # -- renewing in the background --------------------------------------------------------

    def keep_fresh(self, refresh: Refresh | None = None) -> Callable[[], None]:
        """Keep the token fresh until the returned function is called (once or more).

        Args:
            refresh: How; by default in the way of the source.
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
        wait = self._look()
        with self._deciding():
            token, now = self._token, self._clock.time()
            if self._flight is not None:
                return min(wait, RECHECK)
            if token is None or len(self._asking) >= AT_ONCE:
                # Nobody has asked yet, or it never came: the next connect asks.
                return RECHECK
            wait = max(token.renew_at() - now, self._pause.left(now, usable=token.usable(now)))
            if wait > 0:
                return min(wait, RECHECK)
            if self._amint is None:
                self._fetch()
                return min(self._patience, RECHECK)
            loop = self._loop() if self._loop is not None else None
        if loop is not None and loop.is_running():
            with suppress(RuntimeError):  # it was closed in this moment
                loop.call_soon_threadsafe(self._renew_on_loop)
        return RECHECK

    def _renew_on_loop(self) -> None:
        with self._deciding():
            self._fetch()
