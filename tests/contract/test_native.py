"""Each driver's own arguments, and what is peculiar to its pool."""

import asyncio
import gc
import threading
import time

import asyncpg
import psycopg
import psycopg2
import psycopg2.extras
import psycopg2.pool
import pytest
import sqlalchemy
from sqlalchemy.pool import NullPool

from azpgauth import SettingsError, aconnect_from_env, connect_from_env


def refreshers():
    return [thread for thread in threading.enumerate() if thread.name == "azpgauth-refresher"]


def test_psycopg_async(box):
    configured = []

    async def configure(conn):
        configured.append(conn.info.backend_pid)

    class Mine(psycopg.AsyncConnection):
        pass

    async def main():
        native = {"configure": configure, "autocommit": True, "connection_class": Mine}
        async with aconnect_from_env(native=native, pool={"min_size": 3}) as pool:
            await pool.wait()
            async with pool.connection() as conn:
                assert conn.autocommit
                assert isinstance(conn, Mine)

    asyncio.run(main())
    assert len(configured) == len(set(configured)) == 3


def test_psycopg2(box):
    class Mine(psycopg2.extensions.connection):
        pass

    native = {
        "connection_factory": Mine,
        "cursor_factory": psycopg2.extras.RealDictCursor,
        "options": "-c search_path=pg_temp",
    }
    with (
        connect_from_env(driver="psycopg2", native=native) as pool,
        pool.connection() as conn,
        conn.cursor() as cursor,
    ):
        assert isinstance(conn, Mine)
        cursor.execute("show search_path")
        assert cursor.fetchone() == {"search_path": "pg_temp"}


def test_psycopg2s_own_ways(box):
    with connect_from_env(driver="psycopg2", pool={"max_size": 2, "timeout": 0.2}) as pool:
        conn = pool.getconn("mine")
        assert pool.getconn("mine") is conn
        other = pool.getconn()
        with pytest.raises(psycopg2.pool.PoolError, match=r"no connection came free within 0\.2 s"):
            pool.getconn()
        pool.putconn(key="mine")
        pool.putconn(other, close=True)
        assert other.closed
        with pytest.raises(psycopg2.pool.PoolError, match="unkeyed"):
            pool.putconn(other)
        again = pool.getconn()
        assert again is conn
        with again.cursor() as cursor:
            cursor.execute("create temp table t (n int)")
        pool.putconn(again)  # rolls back
        with pool.connection() as found, found.cursor() as cursor:
            cursor.execute("select to_regclass('t')")
            assert cursor.fetchone() == (None,)
    assert pool.closed
    with pytest.raises(psycopg2.pool.PoolError, match="closed"):
        pool.getconn()


def test_psycopg2_commits_what_a_block_did(box):
    with connect_from_env(driver="psycopg2") as pool:
        with pool.connection() as conn, conn.cursor() as cursor:
            cursor.execute("create table if not exists committed (n int)")
        with (
            pytest.raises(psycopg2.errors.DivisionByZero),
            pool.connection() as conn,
            conn.cursor() as cursor,
        ):
            cursor.execute("drop table committed; select 1/0")
        with pool.connection() as conn, conn.cursor() as cursor:
            cursor.execute("drop table committed")


def test_psycopg2_keeps_what_is_used_and_closes_what_is_not(box):
    with connect_from_env(driver="psycopg2", pool={"max_size": 3, "max_idle": 0.3}) as pool:
        conns = [pool.getconn() for _ in range(3)]
        for conn in conns:
            pool.putconn(conn)
        assert not any(conn.closed for conn in conns)
        time.sleep(0.4)
        pool.putconn(pool.getconn())
        assert sum(not conn.closed for conn in conns) == 1


def test_whoever_waits_for_psycopg2s_pool_hears_that_it_closes(box):
    pool = connect_from_env(driver="psycopg2", pool={"max_size": 1})
    conn = pool.getconn()
    heard = []

    def wait():
        try:
            pool.getconn()
        except psycopg2.pool.PoolError as exc:
            heard.append(str(exc))

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.1)
    pool.closeall()
    waiting.join(5)
    assert heard == ["connection pool is closed"]
    pool.putconn(conn)


def test_sqlalchemy(box):
    native = {
        "echo": False,
        "isolation_level": "AUTOCOMMIT",
        "connect_args": {"options": "-c search_path=pg_temp"},
        "pool_pre_ping": False,
    }
    engine = connect_from_env(driver="sqlalchemy", native=native)
    with engine.connect() as conn:
        assert conn.execute(sqlalchemy.text("show search_path")).scalar() == "pg_temp"
        assert conn.connection.dbapi_connection.autocommit
    engine.dispose()
    with pytest.raises(SettingsError, match="azpgauth sets this itself") as caught:
        connect_from_env(driver="sqlalchemy", native={"connect_args": {"password": "hunter2"}})
    assert "hunter2" not in str(caught.value)


def test_sqlalchemy_without_a_pool(box):
    engine = connect_from_env(driver="sqlalchemy", native={"poolclass": NullPool})
    for _ in range(3):
        with engine.connect():
            pass
    assert box.gateway.passwords == 4
    assert len(box.authority.requests) == 1


def test_an_engine_pauses_when_it_is_disposed_of(box):
    engine = connect_from_env(driver="sqlalchemy")
    assert refreshers()
    engine.dispose()
    assert not refreshers()
    with engine.connect():
        assert refreshers()
    engine.dispose()
    engine.dispose()
    assert not refreshers()
    with engine.connect():
        pass
    engine.pool.dispose()  # closes what it has; the engine itself is just forgotten
    del engine
    gc.collect()
    assert not refreshers()


def test_asyncpg(box):
    begun = []

    async def init(conn):
        begun.append(conn)

    class Mine(asyncpg.Connection):
        pass

    async def main():
        native = {
            "init": init,
            "server_settings": {"search_path": "pg_temp"},
            "statement_cache_size": 0,
            "connection_class": Mine,
        }
        async with aconnect_from_env(driver="asyncpg", native=native) as pool:
            assert await pool.fetchval("show search_path") == "pg_temp"
            assert await pool.fetchval("show application_name") == "azpgauth"
            async with pool.acquire() as conn:
                assert isinstance(conn._con, Mine)
        assert len(begun) == 1
        await asyncio.sleep(0.05)

    asyncio.run(main())
