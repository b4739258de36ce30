"""An async psycopg pool on the sandbox."""

import asyncio
import threading
import time

import psycopg
import psycopg_pool
import pytest

from azpgauth import (
    ConnectError,
    SettingsError,
    TokenError,
    aconnect,
    aconnect_from_env,
    connect_from_env,
    load_settings,
    token_info,
)


@pytest.fixture
def box(box, monkeypatch):
    monkeypatch.setenv("AZPG_DRIVER_NAME", "psycopg-async")
    return box


WHO = "select current_user, version from pg_stat_ssl where pid = pg_backend_pid()"


def test_async_with(box):
    async def main():
        async with aconnect_from_env() as pool:
            assert isinstance(pool, psycopg_pool.AsyncConnectionPool)
            async with pool.connection() as conn:
                row = await (await conn.execute(WHO)).fetchone()
            assert token_info(pool).requests == 1
            return pool, row

    pool, row = asyncio.run(main())
    assert row == ("sandbox-app", "TLSv1.3")
    assert pool.closed
    assert "azpgauth-refresher" not in {thread.name for thread in threading.enumerate()}


def test_await_and_close(box):
    async def main():
        pool = await aconnect(load_settings())
        async with pool.connection() as conn:
            await conn.execute("select 1")
        await pool.close()
        await pool.close()

    asyncio.run(main())


def test_unopened(box):
    pool = connect_from_env()
    assert pool.closed

    async def main():
        async with pool, pool.connection() as conn:
            return await (await conn.execute(WHO)).fetchone()

    assert asyncio.run(main())[0] == "sandbox-app"


def test_twenty_at_once_make_one_request(box):
    box.authority.delay = 0.3

    async def main():
        async with aconnect_from_env(pool={"min_size": 20, "max_size": 20}) as pool:
            together = asyncio.Barrier(20) if hasattr(asyncio, "Barrier") else None

            async def work():
                async with pool.connection() as conn:
                    if together is not None:
                        await together.wait()
                    row = await (await conn.execute("select pg_backend_pid()")).fetchone()
                    return row[0]

            return await asyncio.gather(*(work() for _ in range(20)))

    backends = asyncio.run(main())
    assert len(backends) == 20
    assert len(box.authority.requests) == 1


def test_several_loops_share_the_token(box):
    async def main():
        async with aconnect_from_env() as pool, pool.connection() as conn:
            await conn.execute("select 1")

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(box.authority.requests) == 1
    assert len(box.gateway.refusals) == 0


def test_a_permanent_mistake(box):
    async def main():
        await aconnect_from_env(database={"name": "nope"})

    start = time.monotonic()
    with pytest.raises(ConnectError, match='database "nope" does not exist') as caught:
        asyncio.run(main())
    assert time.monotonic() - start < 8
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)
    assert caught.value.__cause__.__traceback__ is None


def test_what_may_pass_is_waited_for(box):
    box.gateway.mode = "starting-up"
    threading.Timer(0.5, lambda: setattr(box.gateway, "mode", "normal")).start()

    async def main():
        async with aconnect_from_env() as pool, pool.connection() as conn:
            await conn.execute("select 1")

    asyncio.run(main())


def test_no_token(box):
    box.authority.status = 400

    async def main():
        await aconnect_from_env()

    with pytest.raises(TokenError):
        asyncio.run(main())


def test_native(box):
    configured = []

    async def configure(conn):
        configured.append(conn.info.backend_pid)

    async def main():
        native = {"configure": configure, "autocommit": True}
        async with aconnect_from_env(native=native, pool={"min_size": 3}) as pool:
            await pool.wait()
            async with pool.connection() as conn:
                assert conn.autocommit

    asyncio.run(main())
    assert len(configured) == len(set(configured)) == 3


def test_a_sync_driver_is_told_as_such(box):
    async def main():
        await aconnect_from_env(driver="psycopg")

    with pytest.raises(SettingsError, match="psycopg is not an async driver"):
        asyncio.run(main())
