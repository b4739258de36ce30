import asyncio
import json
import logging
import os
import subprocess
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise

import pytest
from azure.core.exceptions import AzureError
from hypothesis import given
from hypothesis import strategies as st

from azpgauth.errors import TokenError
from azpgauth.identity.azure import source_for
from azpgauth.identity.clock import SystemClock
from azpgauth.identity.credential import ask
from azpgauth.identity.credential import source_of as source_of_credential
from azpgauth.identity.diagnosis import no_token
from azpgauth.identity.schedule import Pause, backoff, decide, progress
from azpgauth.identity.token import MARGIN, Token, TokenInfo
from azpgauth.identity.tokens import TokenSource
from azpgauth.server.clouds import CLOUDS
from azpgauth.settings.models.credential import (
    AzureCliSettings,
    InteractiveBrowserSettings,
    ManagedIdentitySettings,
)
from azpgauth.testing import FakeCredential, ManualClock, fake_token


class Mint:
    """Gives tokens, counts, and waits or fails when told to."""

    def __init__(self, clock, lifetime=3600.0, refresh_in=None):
        self.clock = clock
        self.lifetime = lifetime
        self.refresh_in = refresh_in
        self.count = 0
        self.error = None
        self.go = threading.Event()
        self.go.set()
        self.same = None

    def __call__(self) -> Token:
        self.count += 1
        number = self.count
        assert self.go.wait(10)
        if self.error:
            raise self.error
        if self.same:
            return self.same
        now = self.clock.time()
        refresh_on = now + self.refresh_in if self.refresh_in else None
        return Token(f"secret-{number}", now + self.lifetime, refresh_on, now)


def eventually(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.002)


def running(name):
    return {thread for thread in threading.enumerate() if thread.name == name}


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def mint(clock):
    return Mint(clock)


def source_of(mint, **options):
    return TokenSource(mint, clock=mint.clock, jitter=lambda: 0.0, **options)


@pytest.mark.parametrize(
    ("left", "refresh_on", "pause", "expected"),
    [
        (3600, None, 0, "use"),
        (301, None, 0, "use"),
        (300, None, 0, "use and renew"),
        (300, None, 30, "use"),
        (30, None, 0, "use and renew"),
        (29.9, None, 0, "fetch"),
        (-1, None, 30, "fetch"),
        (3600, 999, 0, "use and renew"),
        (3600, 1001, 0, "use"),
    ],
)
def test_decisions(left, refresh_on, pause, expected):
    token = Token("secret", 1000 + left, refresh_on, fetched_at=0)
    assert decide(token, 1000, Pause(1, 990, 10 + pause)) == expected


def test_without_a_token_one_is_fetched():
    assert decide(None, 1000, Pause(1, 1000, 30)) == "fetch"


@pytest.mark.parametrize(
    ("pause", "now", "with_token", "without"),
    [
        (Pause(), 1000, 0, 0),
        (Pause(1, 1000, 0.5), 1000, 0.5, 0.5),
        (Pause(1, 1000, 0.5), 1000.5, 0, 0),
        (Pause(9, 1000, 60), 1001, 59, 9),
        (Pause(9, 1000, 60), 1011, 49, 0),
        (Pause(9, 1000, 60), 1061, 0, 0),
        (Pause(9, 1000, 60), 400, 0, 0),  # the clock was put back
    ],
)
def test_a_pause(pause, now, with_token, without):
    assert pause.left(now, usable=True) == with_token
    assert pause.left(now, usable=False) == without


@given(jitters=st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_pauses_grow_to_a_minute(jitters):
    pause, now = Pause(), 1000.0
    for number, jitter in enumerate(jitters, 1):
        pause = pause.longer(now, jitter)
        assert pause.failures == number
        assert 0.5 <= pause.seconds <= 60
        assert pause.left(now, usable=False) == min(pause.seconds, 10)
        now += pause.seconds + 0.001
        assert pause.left(now, usable=True) == 0


@given(life=st.floats(30, 100_000), age=st.floats(0, 200_000), pause=st.floats(0, 100))
def test_what_is_handed_out_lives_for_the_margin(life, age, pause):
    token = Token("secret", life, None, 0)
    if decide(token, age, Pause(1, age, pause)) != "fetch":
        assert life - age >= MARGIN


@given(life=st.floats(31, 299))
def test_a_short_life_does_not_mean_one_request_after_another(life):
    token = Token("secret", life, None, 0)
    assert token.renew_at() >= min(30, (life - MARGIN) / 2)
    assert token.renew_at() <= life - MARGIN


@given(failures=st.integers(1, 10_000), jitter=st.floats(0, 1))
def test_backoff_is_capped_and_never_zero(failures, jitter):
    assert 0.5 <= backoff(failures, jitter) <= 60


def test_the_same_token_is_no_progress():
    token = Token("secret", 1000, None, 0)
    assert not progress(token, Token("secret", 2000, None, 0), 0, anew=True)
    assert not progress(token, Token("other", 900, None, 0), 0, anew=False)
    assert progress(token, Token("other", 900, None, 0), 0, anew=True)
    assert progress(token, Token("other", 1100, None, 0), 0, anew=False)
    assert progress(token, Token("other", 900, None, 0), 999, anew=False)


def test_single_flight_over_threads_and_loops(mint):
    source = source_of(mint)
    mint.go.clear()

    async def three():
        return await asyncio.gather(*(source.aget() for _ in range(3)))

    with ThreadPoolExecutor(40) as threads:
        sync = [threads.submit(source.get) for _ in range(20)]
        loops = [threads.submit(asyncio.run, three()) for _ in range(4)]
        eventually(lambda: mint.count == 1)
        mint.go.set()
        values = {future.result(10)[0].value for future in sync}
        values |= {token.value for loop in loops for token, _ in loop.result(10)}
    assert values == {"secret-1"}
    assert mint.count == 1


def test_every_waiter_gets_the_error_and_the_next_asks_again(mint):
    source = source_of(mint)
    joined = []
    source._ask = lambda: joined.append(TokenSource._ask(source)) or joined[-1]
    mint.go.clear()
    mint.error = ValueError("no identity here")
    with ThreadPoolExecutor(5) as threads:
        waiting = [threads.submit(source.get) for _ in range(5)]
        eventually(lambda: mint.count == 1 and len(joined) == 5)
        mint.go.set()
        while not all(future.done() for future in waiting):
            mint.clock.advance(0.1)  # for those who came too late for the first request
            time.sleep(0.001)
        errors = [future.exception() for future in waiting]
    assert all("ValueError: no identity here" in str(error) for error in errors)
    assert len({id(error) for error in errors}) == 5, "a shared error collects tracebacks"


def test_whoever_comes_in_a_short_pause_waits_for_the_next_request(mint):
    source = source_of(mint)
    mint.error = ValueError("no identity here")
    with pytest.raises(TokenError):
        source.get(10)
    mint.error = None
    with ThreadPoolExecutor(5) as threads:
        waiting = [threads.submit(source.get, 10) for _ in range(5)]
        eventually(lambda: source._flight is not None)
        assert mint.count == source.info().requests == 1, "not yet"
        eventually(lambda: mint.clock.advance(0.1) or all(map(Future.done, waiting)))
        assert {future.result(10)[0].value for future in waiting} == {"secret-2"}


def test_cached_or_fresh(mint):
    source = source_of(mint)
    assert [source.get()[1], source.get()[1]] == [True, False]
    assert mint.count == 1


def test_renewal_ahead_while_the_present_one_is_used(mint, clock):
    source = source_of(mint)
    source.get()
    clock.advance(3300)
    mint.go.clear()
    assert source.get()[0].value == "secret-1"
    assert source.get()[0].value == "secret-1"
    eventually(lambda: mint.count == 2)
    mint.go.set()
    eventually(lambda: source.get()[0].value == "secret-2")
    assert mint.count == 2


def test_background_renews_though_nobody_connects(clock):
    mint = Mint(clock, refresh_in=1800)
    source = source_of(mint)
    release = source.keep_fresh()
    source.get()
    for expected in (2, 3, 4):
        clock.advance(1800)
        eventually(lambda expected=expected: mint.count == expected)
        eventually(lambda: source._flight is None)
    release()
    clock.advance(1800)
    assert not [t for t in threading.enumerate() if t.name == "azpgauth-refresher"]
    assert mint.count == 4


def test_on_demand_has_no_thread(mint, clock):
    source = source_of(mint, refresh="on-demand")
    release = source.keep_fresh()
    source.get()
    assert not [t for t in threading.enumerate() if t.name == "azpgauth-refresher"]
    release()


def test_the_last_holder_ends_the_refresher(mint):
    source = source_of(mint)
    first, second = source.keep_fresh(), source.keep_fresh()
    first()
    first()
    assert source._refresher is not None
    second()
    assert source._refresher is None


def test_a_failed_renewal_keeps_the_last_good_token_and_backs_off(mint, clock, caplog):
    source = source_of(mint)
    source.get()
    clock.advance(3300)
    mint.error = RuntimeError("authority is down eyJhbGciOiJI.eyJzdWIi.c2ln")
    with caplog.at_level(logging.WARNING, "azpgauth.tokens"):
        assert source.get()[0].value == "secret-1"
        eventually(lambda: source.info().failures == 1)
        eventually(lambda: caplog.records)
    assert "authority is down <token>" in caplog.text
    for _ in range(5):
        assert source.get()[0].value == "secret-1"
    assert mint.count == 2, "it waits before it tries again"
    clock.advance(0.6)
    source.get()
    eventually(lambda: mint.count == 3)
    eventually(lambda: source._flight is None)
    clock.advance(280)
    with pytest.raises(TokenError, match="authority is down"):
        source.get()


def test_the_same_token_back_is_no_busy_loop(mint, clock):
    source = source_of(mint)
    token, _ = source.get()
    mint.same = token
    clock.advance(3300)
    source.get()
    eventually(lambda: mint.count == 2)
    eventually(lambda: source._flight is None)
    for _ in range(100):
        source.get()
    assert mint.count == 2


def test_a_token_about_to_expire_is_not_handed_out(mint):
    mint.lifetime = 29
    with pytest.raises(TokenError, match="with 29 s left"):
        source_of(mint).get()


def test_a_caller_can_give_up_and_the_request_goes_on(mint):
    source = source_of(mint)
    mint.go.clear()
    with pytest.raises(TokenError, match=r"within 0\.01 s"):
        source.get(timeout=0.01)
    with pytest.raises(TokenError, match=r"within 0\.01 s"):
        asyncio.run(source.aget(timeout=0.01))
    mint.go.set()
    assert source.get()[0].value == "secret-1"


def test_a_stuck_request_does_not_block_for_ever(mint, clock):
    source = source_of(mint)
    mint.go.clear()
    with pytest.raises(TokenError):
        source.get(timeout=0.01)
    clock.advance(61)
    with pytest.raises(TokenError, match=r"within 0\.01 s; before that: .* no answer within 60 s"):
        source.get(timeout=0.01)
    assert mint.count == 1, "it pauses, as after any failure"
    eventually(lambda: clock.advance(0.1) or mint.count == 2)
    mint.go.set()
    assert source.get()[0].value.startswith("secret-")


def failing(clock, kind):
    """What gives nothing usable, at once, and when it was asked."""
    asked = []

    def mint():
        asked.append(clock.time())
        if kind == "error":
            raise ValueError("down")
        return Token(f"secret-{len(asked)}", clock.time() + 29, None, clock.time())

    return mint, asked


def until(done):
    """Once, and then again and again until it is done."""
    yield
    while not done.is_set():
        yield


@pytest.mark.parametrize("kind", ["error", "expired"])
@pytest.mark.parametrize("awaited", [False, True])
def test_many_who_ask_again_and_again_make_no_storm(clock, kind, awaited):
    mint, asked = failing(clock, kind)

    async def amint():
        return mint()

    source = TokenSource(clock=clock, **({"amint": amint} if awaited else {"mint": mint}))
    done = threading.Event()
    refused = []

    def call():
        for _ in until(done):
            with pytest.raises(TokenError) as caught:
                source.get(50)
            refused.append(str(caught.value))

    async def acall():
        for _ in until(done):
            with pytest.raises(TokenError) as caught:
                await source.aget(50)
            refused.append(str(caught.value))
            await asyncio.sleep(0)

    async def twenty():
        await asyncio.gather(*(acall() for _ in range(20)))

    with ThreadPoolExecutor(21) as threads:
        working = (
            [threads.submit(asyncio.run, twenty())]
            if awaited
            else [threads.submit(call) for _ in range(20)]
        )
        # Thirty seconds by the clock, as fast as the callers come.
        for _ in range(300):
            before = len(refused)
            clock.advance(0.1)
            if source._flight is None:
                eventually(lambda before=before: len(refused) > before or source._flight)
        done.set()
        while not all(each.done() for each in working):
            clock.advance(0.1)
            time.sleep(0.001)
    assert [each.result() for each in working]
    assert len(refused) >= 20
    assert all("down" in each or "with 29 s left" in each for each in refused)
    assert all(b - a >= 0.49 for a, b in pairwise(asked))
    assert len(asked) <= 12
    assert source.info().failures == len(asked)


def test_whoever_comes_in_a_long_pause_is_refused_at_once_in_the_same_words(mint, clock):
    source = source_of(mint)
    mint.error = ValueError("down")
    for number in range(1, 5):
        with pytest.raises(TokenError, match="down"):
            source.get()
        assert mint.count == number
        clock.advance(source._pause.seconds)
    with pytest.raises(TokenError, match="down"):
        source.get()
    assert source._pause.left(clock.time(), usable=False) > 1
    for _ in range(3):
        with pytest.raises(TokenError, match="down"):
            source.get()
        with pytest.raises(TokenError, match="down"):
            asyncio.run(source.aget())
    assert mint.count == 5
    mint.error = None
    clock.advance(10)
    assert source.get(5)[0].value == "secret-6"
    assert source.info().last_error is None


def test_what_is_remembered_is_told_with_when_the_next_try_is_made(mint, clock):
    source = source_of(mint)
    mint.error = ChattyError("no identity")
    for _ in range(4):
        with pytest.raises(TokenError, match=r"ChattyError: no identity\n") as first:
            source.get()
        clock.advance(source._pause.seconds)
    with pytest.raises(TokenError):
        source.get()
    clock.advance(1)
    errors = []
    for _ in range(3):
        with pytest.raises(TokenError) as caught:
            source.get()
        errors.append(caught.value)
    assert {error.said for error in errors} == {f"{first.value.said}; the next try is in 7 s"}
    assert {error.remedy for error in errors} == {first.value.remedy}
    assert len({id(error) for error in errors}) == 3
    assert all(isinstance(error.__cause__, ChattyError) for error in errors)
    assert first.value.said == source.info().last_error


def test_a_callers_own_time_holds_in_a_pause(mint):
    source = source_of(mint)
    mint.error = ValueError("down")
    with pytest.raises(TokenError, match="down"):
        source.get()
    said = r"within 0\.01 s; before that: no token from Microsoft Entra ID: ValueError: down"
    with pytest.raises(TokenError, match=said):
        source.get(0.01)
    with pytest.raises(TokenError, match=said):
        asyncio.run(source.aget(0.01))
    assert source.info().requests == mint.count == 1
    eventually(lambda: mint.clock.advance(0.1) or source._flight is None)


def test_a_pause_for_renewals_is_shorter_once_the_token_is_over(mint, clock):
    source = source_of(mint)
    source.get()
    clock.advance(3300)
    mint.error = ValueError("down")
    while source._pause.seconds < 30:
        failures = source.info().failures
        source.get()
        eventually(lambda failures=failures: source.info().failures > failures)
        clock.advance(source._pause.left(clock.time(), usable=True) * (source._pause.seconds < 30))
    clock.advance(1)
    assert source.get_other(source.get()[0]) is None
    count = mint.count
    clock.advance(9)  # nobody is let in with what was refused: it is none to wait with
    assert source.get_other(source.get()[0]) is None
    assert mint.count == count + 1


def test_an_authority_that_comes_back_is_asked_within_ten_seconds(mint, clock):
    source = source_of(mint)
    mint.error = ValueError("down")
    for _ in range(12):
        with pytest.raises(TokenError, match="down"):
            source.get()
        clock.advance(10)
    mint.error = None
    assert source.get()[0].value == "secret-13"
    assert not source.paused
    assert source._pause == Pause()


@pytest.mark.parametrize("life", [30.01, 30.2, 30.49, 30.5, 30.9])
def test_tokens_that_are_over_in_a_moment_make_no_storm(clock, life):
    asked = []

    def mint():
        asked.append(clock.time())
        return Token(f"secret-{len(asked)}", clock.time() + life, None, clock.time())

    source = TokenSource(mint, clock=clock, jitter=lambda: 0.0, run=lambda work: work())
    clock.wait = lambda event, seconds: clock.advance(seconds) or event.is_set()
    for _ in range(2000):
        clock.advance(0.01)
        token, _ = source.get()
        if life < 30.5:
            assert source.get_other(token) is None
    assert all(b - a >= (0.49 if life < 30.5 else 0.24) for a, b in pairwise(asked))
    assert len(asked) > 10, "and yet whoever waits is served"


def test_a_server_that_refuses_now_and_then_is_no_reason_to_mint_again_and_again(mint, clock):
    source = source_of(mint)
    login = object()
    token, _ = source.get()
    for _ in range(600):  # ten minutes, of which each second it lets in and refuses
        clock.advance(1)
        source.accepted(token, by=login)
        token = source.get_other(token, by=login) or token
    assert mint.count <= 1 + 2 * 600 / 30


def test_a_thread_that_cannot_renew_an_async_credentials_token_uses_it(clock):
    async def amint():
        return Token("a", clock.time() + 3600, fetched_at=clock.time())

    source = TokenSource(amint=amint, clock=clock)
    asyncio.run(source.aget())
    clock.advance(3400)
    assert source.get()[0].value == "a"
    assert source.info().requests == 1


def test_loops_that_end_before_the_answer_make_no_storm(clock):
    asked = []

    async def amint():
        asked.append(clock.time())
        await asyncio.sleep(3600)

    source = TokenSource(amint=amint, clock=clock, jitter=lambda: 0.0)

    async def impatient():
        call = asyncio.create_task(source.aget())
        for _ in range(5):
            await asyncio.sleep(0)
        call.cancel()

    for _ in range(100):
        asyncio.run(impatient())
        clock.advance(0.1)
    assert asked
    assert all(b - a >= 0.49 for a, b in pairwise(asked))
    assert source.info().requests == source.info().failures == len(asked)


def test_a_source_in_a_pause_is_not_forgotten(mint, clock):
    source = source_of(mint)
    assert source.idle
    mint.error = ValueError("down")
    with pytest.raises(TokenError):
        source.get()
    assert not source.idle
    clock.advance(1)
    assert source.idle


def test_no_token_is_minted_for_a_refusal_in_a_pause(mint, clock):
    source = source_of(mint)
    token, _ = source.get()
    mint.same = token
    assert source.get_other(token) is None
    for _ in range(10):
        assert source.get_other(token) is None
        assert asyncio.run(source.aget_other(token)) is None
    assert mint.count == 2
    clock.advance(1)
    assert source.get_other(token) is None
    assert mint.count == 3


def test_a_renewal_that_hangs_is_told_once_and_one_more_is_tried_beside_it(mint, clock, caplog):
    source = source_of(mint)
    release = source.keep_fresh()
    source.get()
    mint.go.clear()
    clock.advance(3300)
    eventually(lambda: mint.count == 2)
    for _ in range(60):  # an hour
        clock.advance(61)
        assert source._refresher._thread.is_alive()
        source._renew_if_due()
        assert len(source._asking) <= 2
    eventually(lambda: mint.count == 3)
    assert mint.count == 3
    info = source.info()
    assert (info.requests, info.failures) == (3, 2)
    assert "no answer within 60 s" in info.last_error
    assert caplog.text.count("no answer within 60 s") == 2
    for _ in range(3):
        with pytest.raises(TokenError, match="2 requests for a token have had no answer"):
            source.get()
    mint.go.set()
    eventually(lambda: source.info().last_error is None)
    assert source.get(10)[0].value.startswith("secret-")
    eventually(lambda: not source._asking)
    assert source.info().failures == 2
    release()


def test_a_cancelled_task_leaves_the_request_to_others(mint):
    source = source_of(mint)
    mint.go.clear()

    async def scenario():
        one = asyncio.create_task(source.aget())
        other = asyncio.create_task(source.aget())
        await asyncio.sleep(0)
        one.cancel()
        await asyncio.gather(one, return_exceptions=True)
        mint.go.set()
        return (await other)[0].value

    assert asyncio.run(scenario()) == "secret-1"


def test_a_refused_token_is_replaced_once(mint, clock):
    anew = Mint(clock)
    anew.count = 100
    source = source_of(mint, mint_anew=anew)
    cached, _ = source.get()
    other = source.get_other(cached)
    assert other is not None
    assert other.value == "secret-101"
    # The others who were refused with the old one take the new one.
    assert source.get_other(cached).value == "secret-101"
    # A token that has proved good may be replaced again.
    source.accepted(other)
    last = asyncio.run(source.aget_other(other))
    assert last.value == "secret-102"
    # A server that refuses everybody is not hammered.
    assert source.get_other(last) is None
    assert anew.count == 102
    assert source.get()[0] is last


def test_what_is_refused_to_one_is_not_minted_again_for_letting_in_another(mint, clock):
    anew = Mint(clock)
    anew.count = 100
    source = source_of(mint, mint_anew=anew)
    good, wrong = object(), object()
    first, _ = source.get()
    minted = source.get_other(first, by=wrong)
    for _ in range(10):
        source.accepted(minted, by=good)
        assert source.get_other(minted, by=wrong) is None
    assert anew.count == 101
    # And the one that it did let in may have another one later.
    assert source.get_other(minted, by=good).value == "secret-102"


def test_no_replacement_when_the_same_token_comes_back_or_none(mint):
    source = source_of(mint)
    token, _ = source.get()
    mint.same = token
    assert source.get_other(token) is None
    mint.error = ValueError("down")
    assert source.get_other(token) is None
    assert source.get()[0].value == token.value, "others may still be let in with it"


def test_repr_has_no_token(mint):
    source = source_of(mint)
    token, _ = source.get()
    assert "secret-1" not in f"{source!r} {token!r} {source.info()!r}"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_after_fork_neither_hangs_nor_asks_again(mint):
    source = source_of(mint)
    release = source.keep_fresh()
    source.get()
    mint.go.clear()
    source._lock.acquire()  # as another thread may, in the moment of the fork
    child = os.fork()
    if child == 0:
        status = 1
        try:
            mint.go.set()
            cached = source.get(timeout=5)[0].value == "secret-1"
            source._token = None
            fetched = source.get(timeout=5)[0].value == "secret-2"
            status = 0 if cached and fetched else 2
        finally:
            os._exit(status)
    source._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    release()


def test_an_async_source_is_asked_on_the_loop_of_whoever_asks_first():
    asked = []

    async def amint():
        asked.append(asyncio.get_running_loop())
        await asyncio.sleep(0.01)
        return Token("a", time.time() + 3600, fetched_at=time.time())

    source = TokenSource(amint=amint)
    assert source.prefetch() is None
    with pytest.raises(TokenError, match="event loop"):
        source.get()

    async def main():
        tokens = await asyncio.gather(*(source.aget() for _ in range(20)))
        return asyncio.get_running_loop(), {token.value for token, _ in tokens}

    loop, values = asyncio.run(main())
    assert values == {"a"}
    assert asked == [loop]
    assert source.get()[0].value == "a"
    assert source.info().requests == 1


def test_an_async_request_whose_loop_ends_is_told_and_the_next_one_starts_afresh():
    hang = True
    clock = ManualClock()

    async def amint():
        if hang:
            await asyncio.sleep(60)
        return Token("a", clock.time() + 3600, fetched_at=clock.time())

    source = TokenSource(amint=amint, clock=clock)

    async def impatient():
        await source.aget(0.01)

    with pytest.raises(TokenError, match="within"):
        asyncio.run(impatient())
    assert "ended" in source.info().last_error
    with pytest.raises(TokenError, match=r"within 0\.01 s; before that: .* has ended"):
        asyncio.run(impatient())
    info = source.info()
    assert (info.requests, info.failures) == (1, 1), "the pause was not over: nothing was asked"
    hang = False
    clock.advance(1)
    assert asyncio.run(source.aget())[0].value == "a"


def test_a_request_under_way_is_waited_for_before_another_is_minted(mint, clock):
    anew = Mint(clock)
    anew.count = 100
    source = source_of(mint, mint_anew=anew)
    refused, _ = source.get()
    clock.advance(3300)
    mint.go.clear()
    source.get()  # starts a renewal
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(source.get_other, refused)
        mint.go.set()
        assert waiting.result(10).value == "secret-2"
    assert anew.count == 100


def test_an_async_credential_is_renewed_in_the_background_on_its_loop(clock):
    asked = []

    async def amint():
        asked.append(asyncio.get_running_loop())
        now = clock.time()
        return Token(f"a{len(asked)}", now + 3600, fetched_at=now)

    async def main():
        source = TokenSource(amint=amint, clock=clock)
        release = source.keep_fresh()
        await source.aget()
        clock.advance(3300)
        await asyncio.to_thread(
            eventually, lambda: source.info().requests == 2 and source._flight is None
        )
        release()
        assert (await source.aget())[0].value == "a2"
        return asyncio.get_running_loop()

    loop = asyncio.run(asyncio.wait_for(main(), 20))
    assert asked == [loop, loop]


def test_nothing_waits_for_a_request_whose_loop_was_thrown_away():
    async def amint():
        await asyncio.sleep(3600)

    source = TokenSource(amint=amint)
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(source.aget())
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))
    first = source._flight
    with pytest.MonkeyPatch.context() as patch:  # as if it had been closed without a word
        patch.setattr(loop, "is_closed", lambda: True)

        async def other():
            source._ask()
            return source._flight

        assert asyncio.run(other()) is not first
    waiting.cancel()
    first.task.cancel()
    loop.run_until_complete(asyncio.gather(waiting, first.task, return_exceptions=True))
    loop.close()


def test_who_it_is_is_logged_once_and_never_the_token(clock, caplog):
    claims = {"upn": "ada@example.com\n"}

    def mint():
        now = clock.time()
        return Token(fake_token(**claims), now + 3600, None, now, "DefaultAzureCredential: X")

    source = TokenSource(mint, clock=clock)
    with caplog.at_level(logging.DEBUG, "azpgauth.tokens"):
        token, _ = source.get()
        clock.advance(3300)
        claims["n"] = 1
        source.get()
        eventually(lambda: source.info().requests == 2 and source._flight is None)
        clock.advance(3300)
        claims["upn"] = "bob@example.com"
        source.get()
        eventually(lambda: source.info().requests == 3 and source._flight is None)
        eventually(lambda: len(caplog.records) == 3)
    levels = [record.levelname for record in caplog.records]
    assert levels == ["INFO", "DEBUG", "INFO"]
    assert "token for 'ada@example.com\\n' with DefaultAzureCredential: X, good" in caplog.text
    assert "bob@example.com" in source.info().identity
    assert token.value not in caplog.text


def test_what_it_tells_of_itself(mint, clock):
    source = source_of(mint)
    assert source.info() == TokenInfo(None, 0, 0, None, None, None, None)
    source.get()
    assert source.info() == TokenInfo(
        identity="somebody that it does not name",
        requests=1,
        failures=0,
        expires_on=clock.time() + 3600,
        renew_at=clock.time() + 3300,
        last_refresh=clock.time(),
        last_error=None,
    )


class ChattyError(AzureError):
    """As azure-core's errors: it carries the request, its frames and what caused it."""

    def __init__(self, message):
        super().__init__(message, error=ValueError("hunter2"))
        self.response = {"body": "client_secret=hunter2"}
        self.exc_traceback = "frames with hunter2"


ChattyError.__module__ = "azure.somewhere"


class FrozenError(Exception):
    """Nothing of it can be changed, and it cannot say what it is."""

    def __setattr__(self, *_):
        raise TypeError

    def __str__(self):
        raise ValueError("hunter2")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (json.JSONDecodeError("Extra data", '{"accessToken": "hunter2"}', 5), "Extra data"),
        (FrozenError("hunter2"), "it cannot say why"),
        (TokenError("no eyJhbGciOiJI.eyJzdWIi.c2ln today"), "no <token> today"),
        (SystemExit(3), "SystemExit: 3"),
    ],
    ids=repr,
)
def test_whatever_a_credential_raises_is_told_to_all(error, says):
    def refuse():
        raise error from ValueError("hunter2")

    with pytest.raises(TokenError, match=says) as caught:
        TokenSource(refuse).get(5)
    assert caught.value.__cause__ is None
    assert "hunter2" not in str(caught.value)


def test_an_error_of_a_credential_carries_no_secret(mint):
    cause = subprocess.CalledProcessError(1, "az", output='{"accessToken": "hunter2"}')

    def refuse():
        raise ChattyError("no identity") from cause

    with pytest.raises(TokenError, match="ChattyError: no identity") as caught:
        TokenSource(refuse).get()
    told = caught.value.__cause__
    assert isinstance(told, ChattyError)
    assert told.__cause__ is told.__context__ is told.__traceback__ is None
    assert "hunter2" not in repr(vars(told))


@pytest.mark.parametrize(
    ("told", "claimed", "expected"),
    [(3600, 100, 3600), (-7200, 3600, 3600), (-7200, "soon", -7200), (-10, -10, -10)],
)
def test_a_credential_that_takes_utc_for_local_time(told, claimed, expected):
    now = int(time.time())
    exp = now + claimed if isinstance(claimed, int) else claimed
    credential = FakeCredential({"exp": exp}, lifetime=told)
    assert ask(credential, "s").expires_on == pytest.approx(now + expected, abs=2)


def test_credentials_that_cannot_be_known_weakly_share_a_source_too():
    class Slotted:
        __slots__ = ("asked",)

        def get_token(self, *scopes):
            self.asked = [*getattr(self, "asked", []), *scopes]
            return FakeCredential().get_token(*scopes)

    one, other = Slotted(), Slotted()
    for _ in range(3):
        source_of_credential(one, "s").get()
        source_of_credential(other, "s").get()
        source_of_credential(one, "t").get()
    assert (one.asked, other.asked) == (["s", "t"], ["s"])
    assert source_of_credential(one, "s") is not source_of_credential(other, "s")


def test_a_person_or_a_program_has_the_time_that_azure_identity_gives_them():
    found = [
        source_for(settings, "s", CLOUDS["public"])._patience
        for settings in (
            InteractiveBrowserSettings(kind="interactive-browser", timeout=200),
            AzureCliSettings(kind="azure-cli", process_timeout=90),
            ManagedIdentitySettings(kind="managed-identity"),
        )
    ]
    assert found == [260, 150, 60]


def test_the_credential_of_a_chain_that_won_is_named():
    class Chain(FakeCredential):
        _successful_credential = FakeCredential()

    assert ask(Chain(), "s").credential == "Chain: FakeCredential"
    assert ask(FakeCredential(), "s").credential == "FakeCredential"


def test_a_thread_that_cannot_be_started_is_an_error_and_no_more(mint):
    working = [False]

    def run(work):
        if not working[0]:
            raise RuntimeError("can't start new thread")
        threading.Thread(target=work).start()

    source = source_of(mint, run=run)
    with pytest.raises(TokenError, match="can't start new thread"):
        source.get(5)
    working[0] = True
    mint.clock.advance(1)
    assert source.get(5)[0].value == "secret-1"


def test_the_refresher_survives_what_it_cannot_begin(mint, clock, caplog):
    source = source_of(mint)
    release = source.keep_fresh()
    source.get()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "_fetch", lambda *_: 1 / 0)
        clock.advance(3300)
        eventually(lambda: "could not be begun" in caplog.text)
    clock.advance(60)
    eventually(lambda: mint.count == 2)
    release()


class Hanging:
    """Each request hangs until it is let go, and then gives a token or raises."""

    def __init__(self, clock):
        self.clock = clock
        self.gates = []
        self.errors = {}
        self.running = 0

    def __call__(self):
        number = len(self.gates)
        self.gates.append(threading.Event())
        assert self.gates[number].wait(30)
        if number in self.errors:
            raise self.errors[number]
        now = self.clock.time()
        return Token(f"secret-{number}", now + 3600 + number, None, now)

    def let_go(self, number, error=None):
        if error is not None:
            self.errors[number] = error
        self.gates[number].set()


@pytest.fixture
def hanging(clock):
    mint = Hanging(clock)
    yield mint
    for gate in mint.gates:
        gate.set()


@pytest.mark.parametrize("refresh", ["on-demand", "background"])
@pytest.mark.parametrize("held", [False, True])
def test_a_request_that_hangs_is_counted_though_nobody_waits(hanging, clock, caplog, refresh, held):
    source = source_of(hanging, refresh=refresh)
    release = source.keep_fresh() if held else lambda: None
    source.prefetch()
    eventually(lambda: hanging.gates)
    assert source.info().failures == 0
    clock.advance(61)
    if held and refresh == "background":  # also though nobody looks
        eventually(lambda: source._failures == 1)
    for _ in range(3):
        info = source.info()
    assert (info.requests, info.failures) == (1, 1)
    assert "no answer within 60 s" in info.last_error
    eventually(lambda: caplog.text.count("no answer within 60 s, next try in 0.5 s") == 1)
    hanging.let_go(0)
    eventually(lambda: source.info().last_error is None)
    assert source.get()[0].value == "secret-0", "a late token is as good as any"
    assert (source.info().requests, source.info().failures) == (1, 1)
    release()


def test_whoever_waits_without_a_time_limit_is_told_that_it_hangs(hanging):
    source = TokenSource(hanging, patience=0.05, jitter=lambda: 0.0, clock=hanging.clock)
    hanging.clock = source._clock = SystemClock()
    for wait in (source.get, lambda: asyncio.run(source.aget())):
        source._pause = Pause()
        with pytest.raises(TokenError, match=r"no answer within 0\.05 s"):
            wait()
    assert source.info().failures == 2
    with pytest.raises(TokenError, match="2 requests for a token have had no answer"):
        source.get()


def test_what_waits_for_the_pause_has_what_comes_late(hanging, clock):
    before = running("azpgauth-token")
    source = source_of(hanging)
    source.prefetch()
    eventually(lambda: hanging.gates)
    clock.advance(61)
    with ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(source.get, 10) for _ in range(3)]
        eventually(lambda: source._flight is not None)
        hanging.let_go(0)
        assert {future.result(10)[0].value for future in waiting} == {"secret-0"}
    eventually(lambda: clock.advance(1) or running("azpgauth-token") <= before)
    assert source.info().requests == len(hanging.gates) == 1, "no request is needed any more"


def test_what_waits_for_the_second_request_has_what_the_first_brings_late(hanging, clock):
    source = source_of(hanging)
    source.prefetch()
    eventually(lambda: hanging.gates)
    clock.advance(61)
    source.info()
    clock.advance(0.5)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(source.get, 10)
        eventually(lambda: len(hanging.gates) == 2)
        hanging.let_go(0)
        assert waiting.result(10)[0].value == "secret-0"
    hanging.let_go(1)
    eventually(lambda: source.get()[0].value == "secret-1")
    assert not source._asking


def test_a_third_request_is_made_when_one_of_two_that_hang_has_ended(hanging, clock):
    source = source_of(hanging)
    for number in (0, 1):
        source.prefetch()
        eventually(lambda number=number: len(hanging.gates) == number + 1)
        clock.advance(61)
        source.info()
        clock.advance(10)
    for _ in range(5):
        assert source.prefetch() is None
        clock.advance(3600)
        with pytest.raises(TokenError, match="the next is made when one of them has ended"):
            source.get()
    assert len(hanging.gates) == 2
    hanging.let_go(0, ValueError("connection timed out"))
    eventually(lambda: "connection timed out" in source.info().last_error)
    assert source.info().failures == 2, "each is counted once"
    source.prefetch()
    eventually(lambda: len(hanging.gates) == 3)
    hanging.let_go(2)
    assert source.get(10)[0].value == "secret-2"
    hanging.let_go(1, ValueError("much too late"))
    eventually(lambda: not source._asking)
    assert source.info().last_error is None
    assert source.get()[0].value == "secret-2"


def test_what_lands_late_does_not_take_the_place_of_a_better_one(hanging, clock):
    source = source_of(hanging)
    source.prefetch()
    eventually(lambda: hanging.gates)
    clock.advance(61)
    source.info()
    clock.advance(0.5)
    source.prefetch()
    eventually(lambda: len(hanging.gates) == 2)
    hanging.let_go(1)
    good, _ = source.get(10)
    clock.advance(-10)  # the late one expires earlier
    hanging.let_go(0)
    eventually(lambda: not source._asking)
    assert source.get()[0] is good
    assert not source.paused


def test_an_async_request_that_hangs_has_one_beside_it(clock):
    asked = []

    async def amint():
        asked.append(asyncio.Event())
        await asked[-1].wait()
        return Token("late", clock.time() + 3600, fetched_at=clock.time())

    async def main():
        source = TokenSource(amint=amint, clock=clock, jitter=lambda: 0.0)
        for expected in (1, 2, 2, 2):
            call = asyncio.create_task(source.aget(10))
            while len(asked) < expected or (expected == 2 and not call.done()):
                clock.advance(0.1)
                await asyncio.sleep(0)
                if len(asked) == expected and len(source._asking) == expected:
                    break
            clock.advance(61)
            source.info()
            with pytest.raises(TokenError, match="no answer within 60 s"):
                await call
        assert source.info().requests == source.info().failures == 2
        for gate in asked:
            gate.set()
        await asyncio.gather(*(flight.task for flight in source._asking))
        assert source.info().last_error is None
        assert (await source.aget())[0].value == "late"
        assert not source._asking

    asyncio.run(asyncio.wait_for(main(), 20))


def test_nothing_is_logged_while_the_lock_is_held(mint, clock):
    """A handler may wait for somebody who asks the source how it is."""
    source = source_of(mint)
    blocked = []

    class Handler(logging.Handler):
        def emit(self, _):
            other = threading.Thread(target=source.info, daemon=True)
            other.start()
            other.join(5)
            blocked.append(other.is_alive())

    logger = logging.getLogger("azpgauth.tokens")
    handler = Handler(logging.DEBUG)
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        source.get()
        clock.advance(3300)
        mint.go.clear()
        source.get()
        eventually(lambda: mint.count == 2)
        clock.advance(61)
        source.info()
        mint.error = ValueError("down")
        mint.go.set()
        clock.advance(1)
        source.get()
        eventually(lambda: source.info().failures == 2)
        eventually(lambda: len(blocked) >= 3)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert not any(blocked)


def test_a_failed_renewal_is_told_of_though_nothing_is_left(mint, clock, caplog):
    source = source_of(mint)
    source.get()
    clock.advance(3590)
    mint.error = ValueError("down")
    with pytest.raises(TokenError):
        source.get()
    assert "renewing the token failed; the present one has 10 s left" in caplog.text


def test_a_refresh_time_after_the_end_is_no_use():
    assert Token("secret", 3600, 9000, 0).renew_at() == 3600 - 2 * MARGIN


def test_a_clock_put_back_a_little_does_not_start_another_request(mint, clock):
    source = source_of(mint)
    mint.go.clear()
    source._ask()
    clock.advance(-0.5)
    source._ask()
    assert mint.count <= 1
    assert source.info().requests == 1
    mint.go.set()
    source.get(5)


def test_whoever_holds_a_source_says_how_it_is_renewed(mint):
    source = source_of(mint, refresh="on-demand")
    on_demand, background = source.keep_fresh(), source.keep_fresh("background")
    assert source._refresher is not None
    background()
    assert source._refresher is None
    on_demand()


def test_an_async_credential_on_a_second_loop(clock):
    """The first loop stopped in the middle of a request, or is gone: the second one goes on."""
    first = True

    async def amint():
        if first:
            await asyncio.sleep(3600)
        now = clock.time()
        return Token(f"a{now}", now + 3600, fetched_at=now)

    source = TokenSource(amint=amint, clock=clock)
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(source.aget())
    loop.run_until_complete(asyncio.sleep(0.01))  # and no further
    first = False

    async def second():
        release = source.keep_fresh()
        asking = asyncio.create_task(source.aget(5))
        while not asking.done():
            await asyncio.sleep(0)
            clock.advance(0.1)
        await asking
        assert source.info().failures == 1, "nobody waits for the loop that stands still"
        return release

    asyncio.run(second())()

    async def third():
        release = source.keep_fresh()
        await source.aget(5)  # from the cache: this loop renews it from now on
        requests = source.info().requests
        clock.advance(3300)

        def renewed():
            clock.advance(60)  # the refresher may have begun to wait only now
            return source.info().requests > requests

        await asyncio.to_thread(eventually, renewed)
        release()

    asyncio.run(third())
    waiting.cancel()
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(loop), return_exceptions=True))
    loop.close()


def test_each_answer_is_given_by_whoever_decided_it(mint):
    """Two who decide at once: neither takes the other's news, and leaves it with nothing."""
    source = source_of(mint)
    given = []

    def first():
        other = threading.Thread(target=source.info)  # it decides, too
        other.start()
        other.join(10)
        assert not other.is_alive(), "the lock is held"
        given.append(threading.current_thread())

    with source._deciding():
        source._news += [first, lambda: given.append(threading.current_thread())]
    assert given == [threading.current_thread()] * 2


class OtherError(TokenError):
    """A program's own, made in a way of its own."""

    def __init__(self, code):
        Exception.__init__(self, f"code {code}")


def refusing(error):
    def refuse():
        raise error

    return TokenSource(refuse)


def test_an_error_of_ours_is_passed_on_as_it_is():
    jwt = "eyJhbGciOiJI.eyJzdWIi.c2ln"
    made = TokenError(f"no {jwt}", cause=f"because {jwt}", remedy=f"do {jwt}")
    source = refusing(made)
    with pytest.raises(TokenError) as caught:
        source.get(5)
    assert str(caught.value) == "no <token>\n  cause: because <token>\n  to do: do <token>"
    assert source.info().last_error == "no <token>"


def test_an_error_that_a_program_derived_reaches_whoever_waits():
    with pytest.raises(TokenError, match="code 3"):
        refusing(OtherError(3)).get(5)


def test_a_token_that_is_about_to_expire_is_explained_once():
    source = TokenSource(lambda: Token("secret", time.time() + 5, None, 0))
    with pytest.raises(TokenError) as caught:
        source.get(5)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(set(lines)) == 3
    assert source.info().last_error == "the credential gave a token with 5 s left"


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("no token from Microsoft Entra ID within 0.2 s", "no answer in time"),
        ("no answer within 60 s; the next try is in 3 s", "no answer in time"),
        ("2 requests for a token have had no answer within 60 s; the next …", "no answer in time"),
        (
            "no token from Microsoft Entra ID within 0.2 s; before that: AADSTS7000215: wrong",
            "the client secret is wrong, or has expired",
        ),
        (
            "no token within 2 s; before that: ManagedIdentityCredential: no response",
            "this machine has no such managed identity, or cannot reach its endpoint",
        ),
        (
            "the credential gave a token with -5 s left; the next try is in 2 s",
            "the token is about to expire, or this machine's clock is wrong",
        ),
    ],
)
def test_what_is_told_in_a_pause_has_the_cause_of_the_failure_before_it(message, cause):
    assert no_token(message).cause == cause
