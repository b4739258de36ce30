"""psycopg2's pool loses no place, whatever interrupts it and wherever."""

import contextlib
import linecache
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg2
import psycopg2.pool
import pytest

from azpgauth import connect_from_env
from azpgauth.drivers import psycopg2_pool
from azpgauth.drivers.psycopg2_pool import ConnectionPool, _Member

SIZE = 3


class InterruptionError(BaseException):
    """What a signal's handler raises."""


class At:
    """Raises on the n-th line that runs in the pool's code."""

    def __init__(self, number):
        self.left = number
        self.raised = False

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self._call)

    def __exit__(self, *_):
        sys.settrace(self.before)

    def _call(self, frame, event, arg):
        return self._line if frame.f_code.co_filename == psycopg2_pool.__file__ else None

    def _line(self, frame, event, arg):
        # Python lets no signal in between the end of a `with` and the release of its lock, nor on
        # the instruction that begins a `try`, while a trace function comes there.
        source = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        signals = source not in {"with self._guard:", "try:"}
        if event == "line" and not self.raised and signals:
            self.left -= 1
            if self.left == 0:
                self.raised = True
                raise InterruptionError(f"{frame.f_code.co_name}:{frame.f_lineno}")
        return self._line


@pytest.fixture
def pool(box):
    with connect_from_env(driver="psycopg2", pool={"max_size": SIZE, "min_size": 1}) as pool:
        pool._limits = replace(pool._limits, timeout=0.2)
        yield pool


def query(conn):
    with conn.cursor() as cursor:
        cursor.execute("select pg_backend_pid()")
        return cursor.fetchone()[0]


def put(pool):
    conn = pool.getconn()
    query(conn)  # in a transaction: it has to be rolled back
    return lambda: pool.putconn(conn)


def put_with_a_key(pool):
    query(pool.getconn("mine"))
    return lambda: pool.putconn(key="mine")


def put_and_close(pool):
    conn = pool.getconn()
    return lambda: pool.putconn(conn, close=True)


def put_what_is_broken(pool):
    conn = pool.getconn()
    with contextlib.suppress(psycopg2.Error), conn.cursor() as cursor:
        cursor.execute("select pg_terminate_backend(pg_backend_pid())")
    return lambda: pool.putconn(conn)


held = []


def get(pool):
    held.clear()
    return lambda: held.append(pool.getconn())


def get_new(pool):
    pool._idle.pop().conn.close()
    return get(pool)


def get_what_is_dead(pool):
    pool._idle[-1].conn.close()
    return get(pool)


def get_old(pool):
    pool._idle[-1].renew_at = 0
    return get(pool)


def lend(pool):
    def work():
        with pool.connection() as conn:
            query(conn)

    return work


def lend_and_fail(pool):
    def work():
        with contextlib.suppress(ValueError), pool.connection() as conn:
            query(conn)
            raise ValueError("the block's own")

    return work


def all_places_are_there(pool):
    assert not pool._leased
    assert not pool._keys_of
    assert not pool._places
    assert not pool._line
    together = threading.Barrier(SIZE + 1)

    def use():
        conn = pool.getconn()
        pid = query(conn)
        together.wait(10)
        together.wait(10)
        pool.putconn(conn)
        return pid

    with ThreadPoolExecutor(SIZE) as threads:
        working = [threads.submit(use) for _ in range(SIZE)]
        together.wait(10)
        with pytest.raises(psycopg2.pool.PoolError, match="all 3 are in use"):
            pool.getconn()
        together.wait(10)
        assert len({each.result() for each in working}) == SIZE, "one was handed out twice"


@pytest.mark.parametrize(
    "begun",
    [
        *(put, put_what_is_broken, get, get_new, lend),
        *(
            pytest.param(each, marks=pytest.mark.thorough)
            for each in (put_with_a_key, put_and_close, get_what_is_dead, get_old, lend_and_fail)
        ),
    ],
)
def test_no_line_on_which_an_interruption_loses_a_place(pool, begun):
    number = 0
    while True:
        number += 1
        work = begun(pool)
        at = At(number)
        try:
            with at:
                work()
        except InterruptionError as exc:
            where = str(exc)
            if pool._leased and "putconn" in where:
                work()  # it had not begun: the connection is the caller's as before
        else:
            break  # it is shorter than that
        assert not pool._leased, where
        assert not pool._places, where
        assert not pool._line, where
        assert len(pool._idle) <= SIZE, where
        if not pool._idle:
            pool.putconn(pool.getconn())
        if number % 10 == 0:
            all_places_are_there(pool)
    assert not at.raised
    assert number > 15
    while held:
        pool.putconn(held.pop())
    all_places_are_there(pool)


def test_who_waits_has_the_place_that_an_interruption_left(box):
    with connect_from_env(
        driver="psycopg2", pool={"max_size": 1, "min_size": 1, "timeout": 20}
    ) as pool:
        for number in range(1, 60):
            conn = pool.getconn()
            with ThreadPoolExecutor(2) as threads:
                waiting = [threads.submit(lambda: pool.putconn(pool.getconn())) for _ in range(2)]
                while len(pool._line) < 2:
                    assert not any(each.done() for each in waiting)
                try:
                    with At(number):
                        pool.putconn(conn)
                except InterruptionError:
                    if id(conn) in pool._keys_of:  # it had not begun
                        pool.putconn(conn)
                else:
                    break
                for each in waiting:
                    each.result(10)
        assert number > 15


def test_the_connection_that_was_interrupted_is_not_handed_out_again(pool):
    conn = pool.getconn()
    pid = query(conn)

    def interrupted(*_):
        raise InterruptionError

    pool._settled = interrupted
    with pytest.raises(InterruptionError):
        pool.putconn(conn)
    del pool._settled
    assert conn.closed
    assert query(pool.getconn()) != pid


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no such timer")
def test_a_handler_that_raises_while_a_connection_is_rolled_back(box, pool):
    class TooLongError(Exception):
        pass

    def too_long(*_):
        raise TooLongError

    before = signal.signal(signal.SIGALRM, too_long)
    timer = signal.setitimer(signal.ITIMER_REAL, 0)  # pytest-timeout's
    raised = 0
    try:
        for _ in range(SIZE * 3):
            conn = pool.getconn()
            query(conn)
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0005)
                pool.putconn(conn)
                # Not pause(): a signal that comes just before it would never end it.
                time.sleep(0.2)
            except TooLongError:
                raised += 1
                if id(conn) in pool._keys_of:  # raised before putconn began
                    pool.putconn(conn)
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timer)
    assert raised == SIZE * 3
    all_places_are_there(pool)


def test_ctrl_c_in_a_block(pool):
    def use():
        with pool.connection() as conn:
            while True:
                query(conn)
                signal.raise_signal(signal.SIGINT)

    # Commands of other tests, run in this process, have left the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            use()
    finally:
        signal.signal(signal.SIGINT, before)
    all_places_are_there(pool)


def test_the_error_of_a_broken_connection_is_not_hidden(pool):
    with (
        pytest.raises(psycopg2.OperationalError),
        pool.connection() as conn,
        conn.cursor() as cursor,
    ):
        cursor.execute("select pg_terminate_backend(pg_backend_pid())")
    all_places_are_there(pool)


def test_what_is_given_back_twice_at_once_is_an_error(pool):
    conn = pool.getconn()
    together = threading.Barrier(2)
    settled = ConnectionPool._settled

    def both(self, member: _Member):
        together.wait(10)
        return settled(self, member)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConnectionPool, "_settled", both)
        with ThreadPoolExecutor(2) as threads:
            ended = [threads.submit(pool.putconn, conn).exception for _ in range(2)]
            errors = [each(10) for each in ended]
    assert sorted(map(type, errors), key=str) == sorted(
        [type(None), psycopg2.pool.PoolError], key=str
    )
    all_places_are_there(pool)
