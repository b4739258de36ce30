"""The check before a connection is handed out: when it is made, and how long it may take."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psycopg2
import pytest

from azpgauth import connect_from_env
from azpgauth.drivers.checks import checkout, left, patience


@pytest.fixture
def stale(monkeypatch):
    """Each connection is as if it had been idle for long."""
    monkeypatch.setattr("azpgauth.drivers.checks.FRESH", 0)


def messages(kit, pool, box):
    """What the server was sent by one check-out that does nothing."""
    time.sleep(0.05)  # what comes after the last use has arrived
    before = box.gateway.messages
    with kit.lease(pool):
        pass
    time.sleep(0.05)
    return box.gateway.messages - before


def test_a_check_is_one_round_trip_and_none_after_use(box, kit, monkeypatch, record_property):
    with kit.pool(pool={"min_size": 1}) as pool:
        kit.row(pool, "select 1")
        lately = messages(kit, pool, box)
        monkeypatch.setattr("azpgauth.drivers.checks.FRESH", 0)
        later = messages(kit, pool, box)
    record_property("messages", [lately, later])
    assert later - lately == 1
    assert lately == (1 if kit.driver == "asyncpg" else 0)  # asyncpg resets what is given back


def ten(kit, pool):
    """Ten connections at once; how many seconds the first took, and all."""
    began = time.monotonic()
    with ExitStack() as stack:
        queries = [stack.enter_context(kit.lease(pool))]
        first = time.monotonic() - began
        queries += [stack.enter_context(kit.lease(pool)) for _ in range(9)]
        for query in queries:
            assert query("select current_user") == ("sandbox-app",)
    return round(first, 3), round(time.monotonic() - began, 3)


@pytest.mark.usefixtures("stale")
@pytest.mark.parametrize("how", ["reset", "silent"])
def test_ten_that_are_dead_are_replaced_at_once(box, kit, how, record_property):
    # A caller is held no longer than the pool's timeout: else it would have an error.
    with kit.pool(pool={"min_size": 10, "timeout": 8}) as pool:
        record_property("alive", ten(kit, pool))
        made = box.gateway.connections
        box.gateway.drop() if how == "reset" else box.gateway.freeze()
        record_property("dead", ten(kit, pool))
        # psycopg's own workers may be opening one more by now.
        assert 10 <= box.gateway.connections - made <= 12
        box.gateway.thaw()


@pytest.mark.usefixtures("stale")
def test_a_caller_has_an_error_in_time_where_nothing_answers(box, kit, record_property):
    with kit.pool(pool={"min_size": 1, "timeout": 4}) as pool:
        kit.row(pool, "select 1")
        box.gateway.freeze()
        box.gateway.mode = "deaf"
        began = time.monotonic()
        with pytest.raises(Exception):  # noqa: B017, PT011 - of each driver's own kind
            kit.row(pool, "select 1")
        seconds = time.monotonic() - began
        record_property("seconds", round(seconds, 2))
        assert seconds < 10  # which a connect alone may take
        box.gateway.thaw()
        box.gateway.mode = "normal"


@pytest.mark.thorough
def test_who_waited_for_a_place_has_what_is_left_for_a_connect(box, kit, record_property):
    def seconds(pool):
        began = time.monotonic()
        with pytest.raises(Exception):  # noqa: B017, PT011 - of each driver's own kind
            kit.row(pool, "select 1")
        return time.monotonic() - began

    limits = {"min_size": 1, "max_size": 1, "timeout": 8}
    with kit.pool(pool=limits) as pool, ThreadPoolExecutor(1) as thread:
        with kit.lease(pool):
            waiting = thread.submit(seconds, pool)
            time.sleep(4)
            box.gateway.mode = "deaf"
            box.gateway.drop()
        record_property("seconds", round(waiting.result(30), 2))
        assert waiting.result() < 9.5
        box.gateway.mode = "normal"


def test_patience_leaves_time_for_a_new_connection():
    assert (patience(4), patience(30), patience(600), patience(-1)) == (1.0, 5.0, 5.0, 0.25)


def test_what_is_left_counts_from_the_beginning_of_a_check_out():
    assert left(7) == 7
    with checkout(5):
        assert 4 < left(7) <= 5
        assert left(3) == 3
    assert left(7) == 7


def test_psycopg2_raises_what_happened(box):
    with connect_from_env(driver="psycopg2") as pool:
        with pytest.raises(psycopg2.OperationalError):  # noqa: PT012, SIM117 - all of the block
            with pool.connection() as conn:
                box.gateway.drop()
                time.sleep(0.1)
                conn.cursor().execute("select 1")
        with pool.connection() as conn:
            assert not conn.closed
