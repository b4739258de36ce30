"""A fork in the middle of another thread's first connect: the child can connect as well.

What a program imports when it first connects is imported by the thread that connects. A child in
which a module is half imported, by a thread that it does not have, waits for it for ever.
"""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

# The first connect of each kind, and what is common to the programs below.
COMMON = """
import json, os, signal, sys, threading

DRIVER, WATCHED, IS_ASYNC = (json.loads(each) for each in sys.argv[1:4])
if IS_ASYNC:
    import asyncio

def first_connect():
    if IS_ASYNC:
        asyncio.run(on_loop())
        return
    from azpgauth import closing, connect_from_env
    with closing(connect_from_env(driver=DRIVER)) as pool:
        if hasattr(pool, "connection"):
            with pool.connection() as conn:
                cursor = conn.cursor()
                cursor.execute("select 1")
                assert cursor.fetchone() == (1,)
        else:
            with pool.connect() as conn:
                assert conn.exec_driver_sql("select 1").scalar() == 1

async def on_loop():
    from azpgauth import aconnect_from_env, closing
    async with closing(await aconnect_from_env(driver=DRIVER)) as pool:
        if hasattr(pool, "fetchval"):
            assert await pool.fetchval("select 1") == 1
        elif hasattr(pool, "connection"):
            async with pool.connection() as conn:
                cursor = await conn.execute("select 1")
                assert await cursor.fetchone() == (1,)
        else:
            async with pool.connect() as conn:
                one = (await conn.exec_driver_sql("select 1")).scalar()
                assert one == 1

class Watch:
    # Called for each module that is not imported yet, by the thread that imports it.
    def __init__(self, begun):
        self.begun = begun
        self.process = os.getpid()
    def find_spec(self, name, path=None, target=None):
        if os.getpid() == self.process:
            self.begun(name)
        return None

def fork_and_connect():
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        signal.alarm(25)  # ends what hangs
        first_connect()
        status = 0
    except BaseException as exc:
        print(type(exc).__name__, exc, file=sys.stderr)
    finally:
        os._exit(status)

def ended_well(children):
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
"""

WHILE_ANOTHER_THREAD_IMPORTS = (
    COMMON
    + """
begun, forked = threading.Event(), threading.Event()

def watch(name):
    if name == WATCHED:
        begun.set()
        # Without a guard the fork happens now; with one it waits for this thread.
        forked.wait(0.05)

sys.meta_path.insert(0, Watch(watch))
import azpgauth
thread = threading.Thread(target=first_connect)
thread.start()
assert begun.wait(20)
child = fork_and_connect()
forked.set()
thread.join()
print(json.dumps(ended_well([child])))
"""
)

WHILE_IMPORTING_ITSELF = (
    COMMON
    + """
children = {}

def watch(name):
    if name in WATCHED and name not in children:
        children[name] = None
        children[name] = os.fork()
        if children[name] == 0:
            signal.alarm(25)
            children.clear()

sys.meta_path.insert(0, Watch(watch))
parent = os.getpid()
try:
    first_connect()
finally:
    if os.getpid() != parent:
        os._exit(1 if sys.exc_info()[0] else 0)
print(json.dumps(dict(zip(children, ended_well(children.values())))))
"""
)

UNGUARDED = (
    COMMON
    + """
import azpgauth.runtime.importing
outside = []

def watch(name):
    guarded = azpgauth.runtime.importing._guard._is_owned()
    if not guarded and name.split(".")[0] not in sys.stdlib_module_names:
        outside.append(name)

import azpgauth
sys.meta_path.insert(0, Watch(watch))
first_connect()
print(json.dumps(outside))
"""
)

SQLALCHEMY = {
    f"{name} {dialect}": {"name": name, "dialect": dialect}
    for name, dialect in [
        *(("sqlalchemy", "psycopg"), ("sqlalchemy", "psycopg2")),
        *(("sqlalchemy-async", "psycopg"), ("sqlalchemy-async", "asyncpg")),
    ]
}
DRIVERS = {
    **{name: name for name in ("psycopg", "psycopg-async", "psycopg2", "asyncpg")},
    **SQLALCHEMY,
}
IMPORTS = [
    *[("psycopg", each) for each in ("logging", "azpgauth.opening.connect", "azpgauth.settings")],
    *[("psycopg", each) for each in ("pydantic", "pydantic_settings", "psycopg", "psycopg_pool")],
    *[("psycopg", each) for each in ("azure.identity", "azure.core.rest._requests_basic")],
    *[("psycopg2", each) for each in ("pydantic", "psycopg2", "psycopg2.pool")],
    *[("psycopg-async", each) for each in ("psycopg", "azure.identity")],
    *[("asyncpg", each) for each in ("azpgauth.settings", "asyncpg")],
    ("sqlalchemy psycopg", "sqlalchemy.dialects.postgresql.psycopg"),
    ("sqlalchemy psycopg2", "psycopg2.extras"),
    ("sqlalchemy-async psycopg", "sqlalchemy"),
    ("sqlalchemy-async asyncpg", "asyncpg"),
]


def run(program, driver, watched=()):
    name = driver if isinstance(driver, str) else driver["name"]
    is_async = name.endswith("-async") or name == "asyncpg"
    # An address needs no look-up: a lock of glibc's resolver (resolv_conf.c) outlives a fork in the
    # middle of one, whatever program it is.
    environ = {**os.environ, "AZPG_SERVER_HOST": "127.0.0.1"}
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore::DeprecationWarning", "-c", program),
            *(json.dumps(each) for each in (driver, watched, is_async)),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
        env=environ,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def thorough_but_for(some, all_of_them):
    marked = pytest.mark.thorough
    return [each if each in some else pytest.param(*each, marks=marked) for each in all_of_them]


USUAL = [
    *[("psycopg", each) for each in ("pydantic", "psycopg", "azure.identity")],
    *[("psycopg2", "psycopg2"), ("asyncpg", "asyncpg")],
]


@pytest.mark.parametrize(("driver", "imported"), thorough_but_for(USUAL, IMPORTS))
def test_a_child_connects_that_was_forked_while_another_thread_imports(box, driver, imported):
    ended, said = run(WHILE_ANOTHER_THREAD_IMPORTS, DRIVERS[driver], imported)
    assert ended == [0], said


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "sqlalchemy"])
def test_a_thread_that_forks_in_the_middle_of_its_own_import_goes_on(box, driver):
    watched = ["azpgauth.settings", driver, "azpgauth.identity.login"]
    ended, said = run(WHILE_IMPORTING_ITSELF, driver, watched)
    assert ended == dict.fromkeys(watched, 0), said


KINDS = [
    *("default", "managed-identity", "workload-identity", "client-certificate", "environment"),
    *("azure-cli", "azure-developer-cli"),
]


@pytest.mark.parametrize("driver", DRIVERS.values(), ids=list(DRIVERS))
def test_a_first_connect_imports_nothing_outside_the_guard(box, driver):
    assert run(UNGUARDED, driver)[0] == []


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KINDS)
def test_no_credential_imports_outside_the_guard(box, monkeypatch, kind):
    for name, value in box.environment_for(kind).items():
        monkeypatch.setenv(name, value)
    assert run(UNGUARDED, "psycopg")[0] == []


# What holds a lock in the moment of the fork does not exist in the child.
LOCKED = """
import contextlib, os, signal, threading
from azpgauth.identity import azure as credentials
from azpgauth.identity import credential as passed
from azpgauth.server import roots as trusted

locks = [module._lock for module in (credentials, passed, trusted)]
def hold():
    with contextlib.ExitStack() as stack:
        for lock in locks:
            stack.enter_context(lock)
        held.set()
        forked.wait()

held, forked = threading.Event(), threading.Event()
threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(10)
    status = 1
    try:
        assert trusted.default_roots(["shop.postgres.database.azure.com"]).path
        credentials.forget()
        status = 0
    finally:
        os._exit(status)
forked.set()
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])])
"""


def test_a_child_waits_for_no_lock_of_another_thread(box):
    assert run(LOCKED, "psycopg")[0] == [0]


HELD_BY_A_POOL = """
import contextlib, gc, json, os, signal, sys, threading
from azpgauth import closing, connect_from_env
from azpgauth.drivers.signin import KeepFresh

def first_connect():
    with closing(connect_from_env(driver=json.loads(sys.argv[1]))):
        pass

pool = connect_from_env(driver=json.loads(sys.argv[1]))
keepers = [each for each in gc.get_objects() if isinstance(each, KeepFresh)]

def hold():
    # As a thread that makes the pool's first connection, and starts what keeps its login fresh.
    with contextlib.ExitStack() as stack:
        for each in keepers:
            stack.enter_context(each._lock)
        held.set()
        forked.wait()

held, forked = threading.Event(), threading.Event()
threading.Thread(target=hold).start()
held.wait()
signal.alarm(20)
child = os.fork()
if child == 0:
    signal.alarm(10)
    status = 1
    try:
        with closing(pool):
            first_connect()
        status = 0
    finally:
        os._exit(status)
forked.set()
print([len(keepers), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])])
"""


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "sqlalchemy"])
def test_a_child_of_a_pool_that_was_about_to_connect(box, driver):
    assert run(HELD_BY_A_POOL, driver)[0] == [1, 0]
