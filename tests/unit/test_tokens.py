import asyncio
import json
import logging
import os
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from azure.core.exceptions import AzureError
from hypothesis import given
from hypothesis import strategies as st

from azpgauth.errors import TokenError
from azpgauth.passed import ask
from azpgauth.schedule import Pause, backoff, decide, progress
from azpgauth.testing import FakeCredential, ManualClock, fake_token
from azpgauth.token import MARGIN, Token, TokenInfo
from azpgauth.tokens import TokenSource


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
    mint.go.clear()
    mint.error = ValueError("no identity here")
    with ThreadPoolExecutor(5) as threads:
        waiting = [threads.submit(source.get) for _ in range(5)]
        eventually(lambda: mint.count == 1)
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
        waiting = [threads.submit(source.get, 50) for _ in range(5)]
        eventually(lambda: source.info().requests == 2)
        assert mint.count == 1, "not yet"
        mint.clock.advance(0.6)
        assert {future.result(50)[0].value for future in waiting} == {"secret-2"}


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
    release = source.hold()
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
    release = source.hold()
    source.get()
    assert not [t for t in threading.enumerate() if t.name == "azpgauth-refresher"]
    release()


def test_the_last_holder_ends_the_refresher(mint):
    source = source_of(mint)
    first, second = source.hold(), source.hold()
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
    with pytest.raises(TokenError):
        source.get(timeout=0.01)
    assert mint.count == 2
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
        while not done.is_set():
            with pytest.raises(TokenError) as caught:
                source.get(50)
            refused.append(str(caught.value))

    async def acall():
        while not done.is_set():
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
            if not source._under_way:
                eventually(lambda before=before: len(refused) > before or source._under_way)
        done.set()
        while not all(each.done() for each in working):
            clock.advance(0.1)
            time.sleep(0.001)
    assert [each.result() for each in working]
    assert len(refused) >= 20
    assert all("down" in each or "with 29 s left" in each for each in refused)
    # For an async credential the short pauses are by the real clock.
    shortest = 0.0 if awaited else 0.49
    assert all(b - a >= shortest for a, b in pairwise(asked))
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


def test_no_token_is_minted_for_a_refusal_in_a_pause(mint, clock):
    source = source_of(mint)
    token, _ = source.get()
    mint.same = token
    assert source.instead_of(token) is None
    for _ in range(10):
        assert source.instead_of(token) is None
        assert asyncio.run(source.ainstead_of(token)) is None
    assert mint.count == 2
    clock.advance(1)
    assert source.instead_of(token) is None
    assert mint.count == 3


def test_a_renewal_that_hangs_is_told_once_and_one_more_is_tried_beside_it(mint, clock, caplog):
    source = source_of(mint)
    release = source.hold()
    source.get()
    mint.go.clear()
    clock.advance(3300)
    eventually(lambda: mint.count == 2)
    for _ in range(60):  # an hour
        clock.advance(61)
        assert source._refresher._thread.is_alive()
        source._renew_if_due()
        assert len(source._under_way) <= 2
    eventually(lambda: mint.count == 3)
    assert mint.count == 3
    info = source.info()
    assert (info.requests, info.failures) == (3, 2)
    assert "no answer for 60 s" in info.last_error
    assert caplog.text.count("a request for a token hangs") == 2
    with pytest.raises(TokenError, match="no answer for 60 s"):
        source.get(10)
    mint.go.set()
    eventually(lambda: source.info().last_error is None)
    assert source.get(10)[0].value.startswith("secret-")
    eventually(lambda: not source._under_way)
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
    other = source.instead_of(cached)
    assert other is not None
    assert other.value == "secret-101"
    # The others who were refused with the old one take the new one.
    assert source.instead_of(cached).value == "secret-101"
    # A token that has proved good may be replaced again.
    source.accepted(other)
    last = asyncio.run(source.ainstead_of(other))
    assert last.value == "secret-102"
    # A server that refuses everybody is not hammered.
    assert source.instead_of(last) is None
    assert anew.count == 102
    assert source.get()[0] is last


def test_what_is_refused_to_one_is_not_minted_again_for_letting_in_another(mint, clock):
    anew = Mint(clock)
    anew.count = 100
    source = source_of(mint, mint_anew=anew)
    good, wrong = object(), object()
    first, _ = source.get()
    minted = source.instead_of(first, by=wrong)
    for _ in range(10):
        source.accepted(minted, by=good)
        assert source.instead_of(minted, by=wrong) is None
    assert anew.count == 101
    # And the one that it did let in may have another one later.
    assert source.instead_of(minted, by=good).value == "secret-102"


def test_no_replacement_when_the_same_token_comes_back_or_none(mint):
    source = source_of(mint)
    token, _ = source.get()
    mint.same = token
    assert source.instead_of(token) is None
    mint.error = ValueError("down")
    assert source.instead_of(token) is None
    assert source.get()[0].value == token.value, "others may still be let in with it"


def test_repr_has_no_token(mint):
    source = source_of(mint)
    token, _ = source.get()
    assert "secret-1" not in f"{source!r} {token!r} {source.info()!r}"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_after_fork_neither_hangs_nor_asks_again(mint):
    source = source_of(mint)
    release = source.hold()
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

    async def amint():
        if hang:
            await asyncio.sleep(60)
        return Token("a", time.time() + 3600, fetched_at=time.time())

    source = TokenSource(amint=amint)

    async def impatient():
        await source.aget(0.01)

    with pytest.raises(TokenError, match="within"):
        asyncio.run(impatient())
    assert "ended" in source.info().last_error
    hang = False
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
        waiting = threads.submit(source.instead_of, refused)
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
        release = source.hold()
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
    release = source.hold()
    source.get()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "_start", lambda *_: 1 / 0)
        clock.advance(3300)
        eventually(lambda: "could not be begun" in caplog.text)
    clock.advance(60)
    eventually(lambda: mint.count == 2)
    release()


def test_whoever_waits_for_a_request_that_hangs_gets_what_the_next_one_brings(mint, clock):
    source = source_of(mint)
    mint.go.clear()
    hanging = threading.Event()

    def first():
        mint.count += 1
        hanging.wait(10)
        raise ValueError("too late")

    source._mint = first
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(source.get, 10)
        eventually(lambda: mint.count == 1)
        clock.advance(61)
        source._mint = mint
        mint.go.set()
        assert source.get(10)[0].value == "secret-2"
        assert waiting.result(10)[0].value == "secret-2"
        hanging.set()
    assert source.get()[0].value == "secret-2"


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
    on_demand, background = source.hold(), source.hold("background")
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
        release = source.hold()
        await source.aget(5)
        return release

    asyncio.run(second())()

    async def third():
        release = source.hold()
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
