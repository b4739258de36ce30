"""The check before a connection is handed out: when it is made, and how long it may take."""

import asyncio
import io
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import asyncpg
import psycopg2
import psycopg2.extras
import pytest
from kits import KITS, Loop

from azpgauth import ConnectError, connect_from_env
from azpgauth.drivers.checks import checkout, left, patience
from azpgauth.drivers.inherited import Connections


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


@pytest.mark.thorough
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
        # asyncpg does not take back a connection that was cut a moment before.
        with suppress(kit.cause, asyncpg.InternalClientError), kit.lease(pool):
            waiting = thread.submit(seconds, pool)
            time.sleep(4)
            box.gateway.mode = "deaf"
            box.gateway.drop()
        record_property("seconds", round(waiting.result(30), 2))
        assert waiting.result() < 9.5
        box.gateway.mode = "normal"


@pytest.mark.parametrize("kit", [kit for kit in KITS if kit.is_async], ids=str)
def test_a_task_that_is_cancelled_in_the_check_loses_no_place(box, kit, monkeypatch):
    monkeypatch.setattr("azpgauth.drivers.checks.FRESH", 0)
    limits = {"min_size": 1, "max_size": 1, "timeout": 8}
    with Loop() as kit.loop:
        pool = kit.open(pool=limits)
        with ExitStack() as stack:
            stack.callback(kit.close, pool)
            kit.row(pool, "select 1")
            box.gateway.freeze()
            lease = kit.lease(pool)
            with ThreadPoolExecutor(1) as thread:
                coroutine = kit._alease(pool).__aenter__()
                task = asyncio.run_coroutine_threadsafe(coroutine, kit.loop.loop)
                time.sleep(0.4)
                task.cancel()
                box.gateway.thaw()
                assert thread.submit(lambda: lease.__enter__()("select 1")).result(20) == (1,)
            lease.__exit__(None, None, None)
    kit.loop = None


@pytest.mark.parametrize("how", ["too old", "checked by SQLAlchemy"])
def test_nothing_else_waits_for_a_server_that_is_silent(box, kit, monkeypatch, how):
    limits = {"min_size": 1, "max_size": 1, "timeout": 3}
    native = {}
    if how == "too old":
        limits |= {"max_lifetime": 0.5}
    elif kit.dialect is None:
        return
    else:
        native = {"pool_pre_ping": True}
    with kit.pool(pool=limits, native=native) as pool:
        kit.row(pool, "select 1")
        time.sleep(0.7)
        box.gateway.freeze()
        began = time.monotonic()
        assert kit.row(pool, "select 1") == (1,)
        assert time.monotonic() - began < 10  # without a limit, the keepalives' 30 s
        box.gateway.thaw()


@pytest.mark.parametrize("how", ["drop", "freeze"])
def test_a_server_that_is_lost_right_after_signing_in(box, kit, monkeypatch, how):
    """Then a pool asks it the first question, about PgBouncer."""
    added = Connections.add

    def lost(self, conn):
        added(self, conn)
        getattr(box.gateway, how)()

    monkeypatch.setattr(Connections, "add", lost)
    with pytest.raises(ConnectError) as caught, kit.pool(server={"connect_timeout": 1}):
        pass
    assert caught.value.cause in {"the connection was dropped", "no answer in time"}
    assert (caught.value.cause == "no answer in time") is (how == "freeze")
    box.gateway.thaw()


def test_psycopg2s_own_cursors_ask_nothing_of_ours(box, monkeypatch):
    monkeypatch.setattr("azpgauth.drivers.checks.FRESH", 0)
    native = {"connection_factory": psycopg2.extras.LoggingConnection}
    with connect_from_env(driver="psycopg2", native=native) as pool:
        for _ in range(2):
            with pool.connection() as conn:
                conn.initialize(io.StringIO())
                conn.cursor().execute("select 1")


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
