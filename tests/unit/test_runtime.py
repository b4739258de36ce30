"""What all rooms stand on: waiting on threads and loops, and what a fork undoes."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from typing import get_args

import pytest

from azpgauth.runtime.drivers import ASYNC_DRIVERS, DRIVERS, Dialect, DriverName
from azpgauth.runtime.forks import Lock, renew_in_child
from azpgauth.runtime.waiting import BLOCKING, ON_LOOP, run


async def all_of_it(wait, fetch, connect):
    """The same steps, whoever waits."""
    future = Future()
    threading.Timer(0.01, future.set_result, ["brought"]).start()
    brought = await wait.result(future, 10)
    with pytest.raises(TimeoutError):
        await wait.result(Future(), 0.01)
    failed = Future()
    failed.set_exception(TimeoutError("its own"))
    with pytest.raises(TimeoutError):
        await wait.result(failed, 10)
    await wait.sleep(0.001)
    return brought, await wait.off_loop(fetch, 1), await wait.call(connect, 2, last=3)


def test_a_thread_and_a_loop_do_the_same():
    threads = []

    def fetch(number):
        threads.append(threading.current_thread())
        return number

    async def aconnect(number, *, last):
        await asyncio.sleep(0)
        return number + last

    def connect(number, *, last):
        return number + last

    assert run(all_of_it(BLOCKING, fetch, connect)) == ("brought", 1, 5)
    assert asyncio.run(all_of_it(ON_LOOP, fetch, aconnect)) == ("brought", 1, 5)
    assert threads[0] is threading.current_thread()
    assert threads[1] is not threading.current_thread()


def test_whoever_awaits_something_else_is_told():
    async def wrong():
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="other than its wait"):
        run(wrong())


def test_every_driver_is_in_the_table():
    assert tuple(DRIVERS) == get_args(DriverName)
    assert set(ASYNC_DRIVERS) == {"psycopg-async", "sqlalchemy-async", "asyncpg"}
    dialects = {dialect for facts in DRIVERS.values() for dialect in facts.dialects}
    assert dialects == set(get_args(Dialect))


class Counting:
    processes = 1

    def begin_process(self):
        self.processes += 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork there")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_begins_again():
    lock, counting = Lock(), Counting()
    renew_in_child(counting)
    held, over = threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            over.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    child = os.fork()
    if child == 0:
        try:
            with lock, lock:  # whoever held it is gone; and it is reentrant
                good = counting.processes == 2
        finally:
            os._exit(0 if good else 1)
    over.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert counting.processes == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork there")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_whoever_forks_with_the_lock_in_hand_goes_on():
    lock = Lock()
    with lock:
        child = os.fork()
        if child == 0:
            with lock:
                pass
    if child == 0:
        with lock:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork there")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_what_was_made_first_begins_first_in_a_child():
    begun = []

    class Numbered:
        def __init__(self, number):
            self.number = number
            renew_in_child(self)

        def begin_process(self):
            begun.append(self.number)

    numbered = [Numbered(number) for number in range(30)]
    del numbered[7]
    child = os.fork()
    if child == 0:
        os._exit(0 if begun == [each.number for each in numbered] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_system_without_fork_does_without():
    program = (
        "import os, random, threading, logging, concurrent.futures.thread; del os.register_at_fork;"
        "import azpgauth.identity.azure as azure; azure.forget()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_sleeping_takes_its_time():
    began = time.monotonic()
    run(BLOCKING.sleep(0.01))
    asyncio.run(ON_LOOP.sleep(0.01))
    assert time.monotonic() - began >= 0.02
