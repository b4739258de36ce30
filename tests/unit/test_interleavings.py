"""Random interleavings of ask, renew, fail, refuse, fork and expire, on a clock moved by hand.

Requests run when the machine says so, so that every order of events can happen. The profile
`thorough` of tests/conftest.py tries ten thousand of them.
"""

import re

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from azpgauth.errors import TokenError
from azpgauth.identity.fetching import STUCK
from azpgauth.identity.schedule import AT_ONCE, BACKOFF_CAP_WITHOUT, SHORTEST, SOON, backoff, within
from azpgauth.identity.token import MARGIN, Token
from azpgauth.identity.tokens import RECHECK, TokenSource
from azpgauth.testing import ManualClock

OUTCOMES = st.one_of(
    st.tuples(st.just("token"), st.floats(30.001, 90_000), st.floats(0, 1)),
    st.tuples(st.just("short"), st.floats(-100, 29.9), st.just(0.0)),
    st.sampled_from([("error", 0.0, 0.0), ("same", 0.0, 0.0)]),
)


class SteppingClock(ManualClock):
    """It goes on by itself for whoever waits: all happens on one thread here."""

    def wait(self, event, timeout):
        self.advance(timeout)
        return event.is_set()


class Request:
    """One request, until it lands."""

    def __init__(self, work, flight):
        self.work = work
        self.flight = flight
        self.noted = flight.asked  # whether `asked` was told of it


class Source(RuleBasedStateMachine):
    @initialize(jitter=st.floats(0, 1))
    def start(self, jitter):
        self.clock = SteppingClock()
        self.jitter = jitter
        self.requests = []  # under way, those that hang included
        self.serial = 0
        self.in_a_row = 0  # requests that brought nothing
        self.failed_at = float("-inf")
        self.counted = 0
        self.proven = {1: set(), 2: set()}  # by whom
        self.anew = set()
        self.source = TokenSource(
            lambda: self.mint(anew=False),
            mint_anew=lambda: self.mint(anew=True),
            clock=self.clock,
            jitter=lambda: jitter,
            run=self.run_later,
        )

    # -- what the source calls -------------------------------------------------------------

    def run_later(self, work):
        flight = self.source._flight
        request = Request(work, flight)
        if flight.asked:
            self.asked(flight)
        else:
            assert flight.started <= self.clock.time() + SOON, "a long pause is waited for"
        live = [each for each in self.requests if each.flight.asked]
        assert len(live) < AT_ONCE, "a third one beside two that hang"
        assert all(each.flight.given_up for each in live), "two requests under way"
        self.requests.append(request)

    def asked(self, flight):
        """On whatever path a request is made: not before the schedule allows it."""
        pause = backoff(self.in_a_row, self.jitter) if self.in_a_row else SHORTEST
        if flight.anew or not self.usable():
            pause = min(pause, BACKOFF_CAP_WITHOUT)
        assert pause >= SHORTEST
        gone = self.clock.time() - self.failed_at
        assert gone >= pause - 0.002, "requests follow each other without a pause"

    def brought_nothing(self):
        self.in_a_row += 1
        self.failed_at = self.clock.time()

    def mint(self, *, anew):
        self.minted = True
        kind, life, share = self.outcome
        now = self.clock.time()
        if kind == "error":
            raise RuntimeError("no answer from the authority")
        if kind == "same" and self.present is not None:
            return self.present
        self.serial += 1
        value = f"secret-{self.serial}"
        if anew:
            self.anew.add(value)
        refresh_on = now + life * share if share > 0.2 else None
        return Token(value, now + max(life, 31 if kind == "same" else life), refresh_on, now)

    @property
    def present(self):
        return self.source._token

    def usable(self):
        token = self.present
        return token is not None and token.expires_on - self.clock.time() >= MARGIN

    # -- what happens ----------------------------------------------------------------------

    @rule()
    def ask(self):
        usable, before, count = self.usable(), self.present, len(self.requests)
        answer = self.source._ask()
        if usable:
            assert answer is before, "whoever asks waits though there is a good token"
        if isinstance(answer, Token):
            assert answer.expires_on - self.clock.time() >= MARGIN
        elif isinstance(answer, TokenError):
            assert len(self.requests) == count, "refused, and yet a request was made"
            left = self.source._pause.left(self.clock.time(), usable=False)
            assert left > SOON or self.full(), "refused without a reason"
        else:
            assert answer is self.requests[-1].flight
            assert not answer.hangs(self.clock.time(), STUCK), "somebody waits for what hangs"
        if len(self.requests) > count and usable:
            assert self.clock.time() >= before.renew_at()

    def full(self):
        return len(self.source._asking) == AT_ONCE

    @rule()
    def tick(self):
        usable, before, count = self.usable(), self.present, len(self.requests)
        delay = self.source._renew_if_due()
        assert 0 < delay <= RECHECK
        if len(self.requests) > count:
            assert self.clock.time() >= before.renew_at()
        elif usable and self.clock.time() >= before.renew_at():
            waits = self.source._pause.left(self.clock.time(), usable=True) > 0
            assert waits or self.source._flight or self.full(), "nobody renews a token that is due"

    @precondition(lambda self: self.requests)
    @rule(outcome=OUTCOMES, late=st.booleans())
    def land(self, outcome, late):
        self.outcome = outcome
        # A request that hung may come back while another one is under way.
        request = self.requests.pop(0 if late else -1)
        flight = request.flight
        waits, given_up = not flight.future.done(), flight.given_up
        others = [each.flight for each in self.requests]
        before, self.minted = self.present, False
        if not flight.asked and waits:
            # By now it is time, unless the clock was put back.
            self.clock.advance(self.source._pause.left(self.clock.time(), usable=False))
            self.asked(flight)
        usable = self.usable()
        request.work()
        if not self.minted:
            assert not waits
            assert not flight.asked, "it was called off, and yet it was made"
            return
        over = before is not None and not usable
        failed = outcome[0] in {"error", "short"} or (outcome[0] == "same" and over)
        answer = flight.future.result(0)
        if waits:
            assert isinstance(answer, TokenError) == failed
            assert failed or answer.expires_on - self.clock.time() >= MARGIN
        if failed:
            assert self.present is before, "a failed renewal lost the last good token"
        if self.present is not before:
            assert self.usable()
            assert self.source.info().last_error is None
            waiting = [each for each in others if not each.given_up and not each.anew]
            assert all(each.future.done() for each in waiting), "not told of what came late"
            self.in_a_row, self.failed_at = 0, float("-inf")
            if self.present.expires_on - MARGIN - self.clock.time() < SHORTEST:
                self.failed_at = self.clock.time()
        elif not given_up:
            self.counted += failed
            self.brought_nothing()
            if failed:
                assert re.search("no answer|left", self.source.info().last_error)
            assert self.source._pause.left(self.failed_at, usable=usable) > 0, "and no pause"

    @precondition(lambda self: self.present is not None)
    @rule(by=st.sampled_from([1, 2]))
    def refuse(self, by):
        refused, count = self.present, len(self.requests)
        asked = self.source._ask_other(refused, by)
        now = self.clock.time()
        if refused.value in self.anew and refused.value not in self.proven[by]:
            assert asked is None
            assert len(self.requests) == count, "a server that refuses everybody is hammered"
            return
        if asked is None:
            paused = self.source._pause.left(now, usable=False) > 0
            spent = self.source._spent(now) and refused.value in self.anew
            ahead = self.source._flight is not None and not self.source._flight.asked
            assert paused or self.full() or spent or ahead
            return
        answer, final = asked
        assert not isinstance(answer, Token)
        assert final or len(self.requests) == count

    @precondition(lambda self: self.present is not None)
    @rule(by=st.sampled_from([1, 2]))
    def accept(self, by):
        self.proven[by].add(self.present.value)
        self.source.accepted(self.present, by=by)

    @rule(seconds=st.one_of(st.floats(0.01, 5), st.floats(5, 400), st.floats(400, 100_000)))
    def wait(self, seconds):
        self.clock.advance(seconds)

    @precondition(lambda self: self.present is not None)
    @rule(before=st.floats(0, 400))
    def wait_until_shortly_before_it_expires(self, before):
        self.clock.advance(max(0.0, self.present.expires_on - before - self.clock.time()))

    @precondition(lambda self: self.present is not None)
    @rule(after=st.floats(0, 3))
    def wait_until_it_is_due(self, after):
        now = self.clock.time()
        wait = max(self.present.renew_at() - now, self.source._pause.left(now, usable=True), 0.0)
        self.clock.advance(wait + after)

    @rule()
    def put_the_clock_back(self):
        self.clock.advance(-3600)
        self.failed_at = float("-inf")

    @rule()
    def fork(self):
        """Go on as the child, where no thread of the parent is."""
        lock = self.source._lock
        self.source.begin_process()
        assert self.source._lock is not lock
        self.requests = []

    @invariant()
    def nothing_secret_shows(self):
        if hasattr(self, "source"):
            assert "secret-" not in repr(self.source)

    @invariant()
    def counts_are_right(self):
        if not hasattr(self, "source"):
            return
        current = self.source._flight
        if current is not None and current.asked:
            hangs = not within(current.started, self.clock.time(), STUCK)
            self.counted += hangs
            if hangs:
                self.brought_nothing()
        info = self.source.info()
        assert info.failures == self.counted, "counted twice, or never"
        assert info.failures <= info.requests
        assert len(self.source._asking) <= AT_ONCE
        live = [each.flight for each in self.requests if each.flight.asked]
        assert live == self.source._asking


TestSource = Source.TestCase
TestSource.settings = settings(stateful_step_count=40, deadline=None)
