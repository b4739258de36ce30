"""What only async drivers promise: the shapes of opening, loops, and credentials of a loop."""

import asyncio
import gc
import threading

import psycopg_pool
import pytest
from kits import KITS

from azpgauth import (
    ConnectError,
    SettingsError,
    aconnect,
    aconnect_from_env,
    closing,
    connect,
    connect_from_env,
    load_settings,
    token_info,
)
from azpgauth.testing import FakeCredential


@pytest.fixture(params=[kit for kit in KITS if kit.is_async], ids=str)
def kit(request, box):
    return request.param


async def who(kit, pool):
    sql = "select current_user::text"
    if kit.driver == "asyncpg":
        return await pool.fetchval(sql)
    if kit.driver == "psycopg-async":
        async with pool.connection() as conn:
            return (await (await conn.execute(sql)).fetchone())[0]
    import sqlalchemy

    async with pool.connect() as conn:
        return (await conn.execute(sqlalchemy.text(sql))).scalar_one()


def run(main):
    async def and_settle():
        try:
            return await main()
        finally:
            await asyncio.sleep(0.05)  # what asyncpg has closed takes a moment to be gone

    return asyncio.run(and_settle())


def refreshers():
    return [thread for thread in threading.enumerate() if thread.name == "azpgauth-refresher"]


def test_entering(kit, box):
    async def main():
        async with aconnect_from_env(driver=kit.settings) as pool:
            assert await who(kit, pool) == "sandbox-app"
            assert token_info(pool).requests == 1
            assert refreshers()

    run(main)
    assert not refreshers()


def test_awaiting(kit, box):
    async def main():
        pool = await aconnect(load_settings(driver=kit.settings))
        assert await who(kit, pool) == "sandbox-app"
        async with closing(pool):
            pass
        async with closing(pool):  # twice does no harm
            pass

    run(main)
    assert not refreshers()


def test_unopened(kit, box):
    async def main():
        pool = connect_from_env(driver=kit.settings)
        assert box.gateway.connections == 0
        if kit.driver == "sqlalchemy-async":
            assert await who(kit, pool) == "sandbox-app"
            await pool.dispose()
        else:
            async with pool:
                assert await who(kit, pool) == "sandbox-app"

    run(main)
    assert not refreshers()


def test_unopened_and_never_used(kit, box):
    async def main():
        async with closing(connect_from_env(driver=kit.settings)):
            pass

    run(main)
    assert box.gateway.connections == 0


def test_asyncpg_without_a_loop(box):
    with pytest.raises(SettingsError, match="aconnect_from_env"):
        connect(load_settings(driver="asyncpg"))


def test_the_default_is_an_async_driver_here(box):
    async def main():
        async with aconnect_from_env() as pool:
            assert isinstance(pool, psycopg_pool.AsyncConnectionPool)

    run(main)


def test_several_loops_share_the_token(kit, box):
    box.authority.delay = 0.2

    async def main():
        async with aconnect_from_env(driver=kit.settings) as pool:
            assert await who(kit, pool) == "sandbox-app"

    threads = [threading.Thread(target=run, args=(main,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(box.authority.requests) == 1
    assert len(box.gateway.refusals) == 0


def test_the_loop_of_windows_is_told_at_once(kit, box):
    class ProactorEventLoop(asyncio.SelectorEventLoop):
        pass

    async def main():
        try:
            async with aconnect_from_env(driver=kit.settings) as pool:
                return await who(kit, pool)
        finally:
            await asyncio.sleep(0.05)

    async def unopened():
        pool = connect_from_env(driver=kit.settings)
        if kit.driver == "psycopg-async":
            await pool.open()
        else:
            await who(kit, pool)

    loop = ProactorEventLoop()
    try:
        if "asyncpg" in str(kit):
            assert loop.run_until_complete(main()) == "sandbox-app"
        else:
            for program in (main, unopened):
                with pytest.raises(ConnectError, match=r"loop_factory=asyncio\.SelectorEventLoop"):
                    loop.run_until_complete(program())
            assert box.gateway.connections == 0
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    gc.collect()


class OfALoop(FakeCredential):
    """An async credential: has to be awaited on the loop it belongs to."""

    def __init__(self, box, lifetime=3600):
        super().__init__(lifetime=lifetime)
        self.box = box
        self.loops = []

    async def get_token(self, *scopes, **_):
        answer = super().get_token(*scopes)
        self.loops.append(asyncio.get_running_loop())
        await asyncio.sleep(0.1)
        return answer._replace(token=self.box.issuer.token(self.box.identity))


def test_an_async_credential_is_awaited_on_the_programs_loop(kit, box):
    credential = OfALoop(box)

    async def main():
        async with aconnect_from_env(
            driver=kit.settings, credential=credential, pool={"min_size": 5}
        ) as pool:
            assert [await who(kit, pool) for _ in range(3)] == ["sandbox-app"] * 3
            return asyncio.get_running_loop()

    loop = run(main)
    assert credential.loops == [loop]
    assert not refreshers()


def test_whoever_gives_up_does_not_end_the_request_for_others(kit, box):
    box.authority.delay = 0.5

    async def main():
        async def opened():
            async with aconnect_from_env(driver=kit.settings) as pool:
                return await who(kit, pool)

        hasty, patient = asyncio.create_task(opened()), asyncio.create_task(opened())
        await asyncio.sleep(0.2)
        hasty.cancel()
        return await patient

    assert run(main) == "sandbox-app"
    assert len(box.authority.requests) == 1
