"""Pools that were opened before a fork: in the children, and in the parent afterwards."""

import subprocess
import sys

import pytest
from kits import KITS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no fork there")

SYNC = """
import json, os, sys, threading
import sqlalchemy
from azpgauth import connect_from_env, closing, token_info
driver, dialect, busy = json.loads(sys.argv[1])
name = {"name": driver, **({"dialect": dialect} if dialect else {})}
pool = connect_from_env(driver=name, pool={"min_size": 3, "max_size": 5})

if driver == "psycopg":
    pool.wait()

def lease():
    return pool.connect() if driver == "sqlalchemy" else pool.connection()

def row(conn, sql):
    if driver == "sqlalchemy":
        return conn.execute(sqlalchemy.text(sql)).one()
    cursor = conn.cursor()
    cursor.execute(sql)
    return cursor.fetchone()

def backends():
    with lease() as a, lease() as b, lease() as c:
        return {row(conn, "select pg_backend_pid()")[0] for conn in (a, b, c)}

before = backends()
used = lease().__enter__() if busy else None
if busy:
    mine = row(used, "select pg_backend_pid()")[0]
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        assert backends().isdisjoint(before)
        with lease() as conn:
            assert row(conn, "select current_user")[0] == "sandbox-app"
        assert [t.name for t in threading.enumerate()].count("azpgauth-refresher") == 1
        if busy:
            try:
                row(used, "select 1")
            except Exception as exc:
                assert "Error" in type(exc).__name__
            else:
                raise AssertionError("it was the parent's")
        sys.exit()  # with everything that an interpreter does at its end
    children.append(child)
statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
if busy:
    assert row(used, "select pg_backend_pid()")[0] == mine
    used.rollback()
    used = None
    before.discard(mine)
else:
    assert backends() == before
assert token_info(pool).requests == 1
with closing(pool):
    pass
print(statuses)
"""

ASYNC = """
import asyncio, json, os, sys
import sqlalchemy
from azpgauth import aconnect_from_env
driver, dialect, busy = json.loads(sys.argv[1])
name = {"name": driver, **({"dialect": dialect} if dialect else {})}

async def row(pool, sql):
    if driver == "asyncpg":
        async with pool.acquire() as conn:
            return await conn.fetchval(sql)
    if driver == "psycopg-async":
        async with pool.connection() as conn:
            return (await (await conn.execute(sql)).fetchone())[0]
    async with pool.connect() as conn:
        return (await conn.execute(sqlalchemy.text(sql))).scalar()

async def main():
    async with aconnect_from_env(driver=name) as pool:
        before = await row(pool, "select pg_backend_pid()")
        child = os.fork()
        if child == 0:
            try:
                await row(pool, "select 1")
            except RuntimeError as exc:
                os._exit(0 if "belongs to the process that opened it" in str(exc) else 2)
            os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert await row(pool, "select pg_backend_pid()") == before
        print([status])
asyncio.run(main())
"""


def run_in_one(kit, program, *more):
    import json

    options = ("-W", "ignore::DeprecationWarning")
    done = subprocess.run(
        [sys.executable, *options, "-c", program, json.dumps([kit.driver, kit.dialect, *more])],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1], done.stderr


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("kit", [kit for kit in KITS if not kit.is_async], ids=str)
def test_a_pool_of_before_the_fork_works_in_the_children(box, kit, busy):
    printed, said = run_in_one(kit, SYNC, busy)
    assert printed == "[0, 0, 0, 0]", said


@pytest.mark.parametrize("kit", [kit for kit in KITS if kit.is_async], ids=str)
def test_an_async_pool_says_that_it_belongs_to_another_process(box, kit):
    printed, said = run_in_one(kit, ASYNC, False)
    assert printed == "[0]", said
