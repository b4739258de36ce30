"""Pools that were opened before a fork: in the children, and in the parent afterwards."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

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


MULTIPROCESSING = """
import multiprocessing, sys
from azpgauth import connect_from_env

pool = connect_from_env(pool={"min_size": 2})

def work(_):
    with pool.connection() as conn:
        return conn.execute("select current_user").fetchone()[0]

if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(4) as workers:
        print(set(workers.map(work, range(40))))
    print(work(0))
    pool.close()
"""

APPLICATION = """
import os
from azpgauth import connect_from_env

pool = connect_from_env(pool={"min_size": 2})  # once, before the workers are forked: --preload

def application(environ, start_response):
    with pool.connection() as conn:
        who = conn.execute("select current_user").fetchone()[0]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{who} {os.getpid()}".encode()]
"""

TASKS = """
import os
from celery import Celery
from azpgauth import connect_from_env

app = Celery("tasks", broker="filesystem://", backend="file://" + os.environ["RESULTS"])
app.conf.broker_transport_options = {
    "data_folder_in": os.environ["QUEUE"], "data_folder_out": os.environ["QUEUE"],
}
pool = connect_from_env(pool={"min_size": 2})  # when the worker is imported, before it forks

@app.task
def who(number):
    with pool.connection() as conn:
        return [conn.execute("select current_user").fetchone()[0], os.getpid()]
"""


def test_multiprocessing_with_fork(box, tmp_path):
    (tmp_path / "program.py").write_text(MULTIPROCESSING)
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "program.py"],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        cwd=tmp_path,
    )
    assert done.stdout.splitlines() == ["{'sandbox-app'}", "sandbox-app"], done.stderr


@pytest.mark.thorough
def test_gunicorn_that_preloads(box, tmp_path):
    pytest.importorskip("gunicorn")
    (tmp_path / "wsgi.py").write_text(APPLICATION)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    address = f"127.0.0.1:{port}"
    command = ["-m", "gunicorn", "--preload", "--workers", "4", "--bind", address, "wsgi"]
    with subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", *command],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            answers = [asked(f"http://{address}/", process) for _ in range(40)]
        finally:
            process.terminate()
            said = process.communicate(timeout=40)[1]
    assert {each.split()[0] for each in answers} == {"sandbox-app"}, said
    assert len({each.split()[1] for each in answers}) > 1


def asked(url, process):
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 - our own
                return answer.read().decode()
        except urllib.error.URLError:  # noqa: PERF203 - it waits anyway
            # It takes a moment to listen.
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.thorough
def test_celerys_prefork_workers(box, tmp_path):
    pytest.importorskip("celery")
    (tmp_path / "tasks.py").write_text(TASKS)
    for name in ("queue", "results"):
        (tmp_path / name).mkdir()
    environ = {
        **os.environ,
        "QUEUE": str(tmp_path / "queue"),
        "RESULTS": str(tmp_path / "results"),
        "PYTHONPATH": str(tmp_path),
        "PYTHONWARNINGS": "ignore",
    }
    worker = ("worker", "--pool", "prefork", "--concurrency", "4", "--loglevel", "WARNING")
    with subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "tasks", *worker],
        cwd=tmp_path,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            program = (
                "from tasks import who\n"
                "found = [each.get(timeout=40) for each in [who.delay(n) for n in range(20)]]\n"
                "print({user for user, _ in found}, len({pid for _, pid in found}) > 1)"
            )
            done = subprocess.run(
                [sys.executable, "-c", program],
                capture_output=True,
                text=True,
                check=False,
                timeout=50,
                cwd=tmp_path,
                env=environ,
            )
        finally:
            process.terminate()
            said = process.communicate(timeout=40)[0]
    assert done.stdout == "{'sandbox-app'} True\n", done.stderr + said
