"""Random interleavings of ask, renew, fail, refuse, fork and expire, on a clock moved by hand.

Requests run when the machine says so, so that every order of events can happen. The profile
`thorough` of tests/conftest.py tries ten thousand of them.
"""

import re

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from azpgauth.errors import TokenError
from azpgauth.schedule import SOON
from azpgauth.testing import ManualClock
from azpgauth.token import MARGIN, Token
from azpgauth.tokens import AT_ONCE, RECHECK, STUCK, TokenSource

SHORTEST_PAUSE = 0.5  # of backoff(), whatever the jitter
OUTCOMES = st.one_of(
    st.tuples(st.just("token"), st.floats(31, 90_000), st.floats(0, 1)),
    st.tuples(st.just("short"), st.floats(-100, 29.9), st.just(0.0)),
    st.sampled_from([("error", 0.0, 0.0), ("same", 0.0, 0.0)]),
)


class Request:
    """One request, until it lands."""

    def __init__(self, work, flight):
        self.work = work
        self.flight = flight
        self.started = flight.started
        self.lost = False
        self.futures = []


class Source(RuleBasedStateMachine):
    @initialize(jitter=st.floats(0, 1))
    def start(self, jitter):
        self.clock = ManualClock()
        self.requests = []  # under way, those that hang included
        self.lost = []  # of the parent, after a fork
        self.serial = 0
        self.paused_at = float("-inf")
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
        now = self.clock.time()
        for each in self.requests:
            each.lost = each.lost or not -STUCK < now - each.started < STUCK
            assert each.lost, "two requests under way"
        assert len(self.requests) < AT_ONCE, "a third one beside two that hang"
        # It may have been started ahead of its time, in the last second of a pause.
        flight = self.source._flight
        assert now <= flight.started <= now + SOON
        gap = flight.started - self.paused_at
        assert gap >= SHORTEST_PAUSE - 1e-6, "requests follow each other without a pause"
        self.requests.append(Request(work, flight))

    def mint(self, *, anew):
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
        elif answer.done():
            assert len(self.requests) == count, "refused, and yet a request was made"
            assert isinstance(answer.result(), TokenError)
            paused = self.source._pause.left(self.clock.time(), usable=False) > SOON
            assert paused or count == AT_ONCE, "refused without a reason"
        else:
            age = self.clock.time() - self.requests[-1].started
            assert -STUCK < age < STUCK, "whoever asks waits for a request that hangs"
            self.requests[-1].futures.append(answer)
        if len(self.requests) > count and usable:
            self.started_ahead(before)

    @rule()
    def tick(self):
        usable, before, count = self.usable(), self.present, len(self.requests)
        delay = self.source._renew_if_due()
        assert 0 < delay <= RECHECK
        if len(self.requests) > count:
            self.started_ahead(before)
        elif usable and self.clock.time() >= before.renew_at():
            waits = self.source._pause.left(self.clock.time(), usable=True) > 0
            alive = [each for each in self.requests if not each.lost]
            full = len(self.requests) == AT_ONCE
            assert waits or alive or full, "nobody renews a token that is due"

    def started_ahead(self, token):
        now = self.clock.time()
        assert now >= token.renew_at()
        assert now - self.paused_at >= SHORTEST_PAUSE, "a busy loop"

    @precondition(lambda self: self.requests)
    @rule(outcome=OUTCOMES, late=st.booleans())
    def land(self, outcome, late):
        self.outcome = outcome
        usable, before = self.usable(), self.present
        # A request that hung may come back while another one is under way.
        request = self.requests.pop(0 if late else -1)
        if request.started > self.clock.time():
            self.clock.advance(request.started - self.clock.time() + 0.001)
            usable, before = self.usable(), self.present
        failures = self.source.info().failures
        # Those of a request that hung may have what the one in its place brought.
        waiting = [future for future in request.futures if not future.done()]
        given_up = request.flight.given_up
        request.work()
        answers = {id(future.result(0)) for future in waiting}
        assert len(answers) <= 1, "waiters got different answers"
        failed = outcome[0] in {"error", "short"}
        failed |= outcome[0] == "same" and before is not None and not usable
        for future in waiting:
            answer = future.result(0)
            assert isinstance(answer, TokenError) == failed
            assert failed or answer.expires_on - self.clock.time() >= MARGIN
        counted = failed and not given_up
        assert self.source.info().failures == failures + counted, "counted twice, or never"
        if failed:
            assert self.present is before, "a failed renewal lost the last good token"
        if counted:
            assert re.search("no answer|left", self.source.info().last_error)
        if failed and given_up:
            return  # another one decides by now
        if self.present is before:
            self.paused_at = self.clock.time()
            assert self.source._pause.left(self.paused_at, usable=usable) > 0, "and no pause"
        else:
            assert self.usable()
            self.paused_at = float("-inf")

    @precondition(lambda self: self.present is not None)
    @rule(by=st.sampled_from([1, 2]))
    def refuse(self, by):
        refused, count = self.present, len(self.requests)
        asked = self.source._ask_instead_of(refused, by)
        if refused.value in self.anew and refused.value not in self.proven[by]:
            assert asked is None
            assert len(self.requests) == count, "a server that refuses everybody is hammered"
            return
        if asked is None:
            paused = self.source._pause.left(self.clock.time(), usable=self.usable()) > 0
            assert paused or count == AT_ONCE
            return
        answer, final = asked
        assert not isinstance(answer, Token)
        assert final or len(self.requests) == count
        self.requests[-1].futures.append(answer)

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
        self.paused_at = float("-inf")

    @rule()
    def fork(self):
        """Go on as the child, where no thread of the parent is."""
        lock = self.source._lock
        self.source._begin_process()
        assert self.source._lock is not lock
        self.lost += self.requests
        self.requests = []

    @invariant()
    def nothing_secret_shows(self):
        if hasattr(self, "source"):
            assert "secret-" not in repr(self.source)

    @invariant()
    def counts_are_right(self):
        if hasattr(self, "source"):
            info = self.source.info()
            assert info.failures <= info.requests


TestSource = Source.TestCase
TestSource.settings = settings(stateful_step_count=40, deadline=None)
