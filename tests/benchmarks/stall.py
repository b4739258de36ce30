"""The longest time that an event loop stood still while 20 connections were opened on it.

Run as a program of its own, so that the sandbox does not share its interpreter:

    python stall.py DRIVER DIALECT (before|now|raw)

`before` imports the libraries first, `now` leaves that to the moment of connecting, `raw` opens the
same with the driver alone, given a token. Prints the stall in milliseconds.
"""

import asyncio
import gc
import os
import sys
import time

DRIVER, DIALECT, WHEN = sys.argv[1:]
AT_ONCE = 20


async def beat(stop):
    worst = 0.0
    last = time.perf_counter()
    while not stop.is_set():
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        worst = max(worst, now - last - 0.001)
        last = now
    return worst


async def ours():
    from azpgauth import aconnect_from_env

    driver = {"name": DRIVER} if DIALECT == "-" else {"name": DRIVER, "dialect": DIALECT}
    limits = {"min_size": 1, "max_size": AT_ONCE}
    async with aconnect_from_env(driver=driver, pool=limits) as pool:
        await use(pool)


async def use(pool):
    together = asyncio.Event()
    there = 0

    async def meet():
        nonlocal there
        there += 1
        if there == AT_ONCE:
            together.set()
        await asyncio.wait_for(together.wait(), 20)

    async def work():
        if DRIVER == "asyncpg":
            async with pool.acquire() as conn:
                await meet()
                await conn.fetchval("select 1")
        elif DRIVER == "psycopg-async":
            async with pool.connection() as conn:
                await meet()
                await conn.execute("select 1")
        else:
            from sqlalchemy import text

            async with pool.connect() as conn:
                await meet()
                await conn.execute(text("select 1"))

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


async def raw():
    """The same by hand, with a token that is there already."""
    host, port, name = "localhost", int(os.environ["AZPG_SERVER_PORT"]), "app"
    user, password = "sandbox-app", os.environ["TOKEN"]
    root = os.environ.get("AZPG_SERVER_SSLROOTCERT", os.environ.get("SSL_CERT_FILE"))
    libpq = {
        "host": host,
        "port": port,
        "dbname": name,
        "user": user,
        "password": password,
        "sslmode": "verify-full",
        "sslrootcert": root,
    }
    if DRIVER == "psycopg-async":
        import psycopg_pool

        async with psycopg_pool.AsyncConnectionPool(
            kwargs=libpq, min_size=1, max_size=AT_ONCE
        ) as pool:
            await use(pool)
        return
    import ssl

    context = await asyncio.to_thread(ssl.create_default_context, cafile=root)
    native = {
        "host": host,
        "port": port,
        "database": name,
        "user": user,
        "password": password,
        "ssl": context,
    }
    if DRIVER == "asyncpg":
        import asyncpg

        async with asyncpg.create_pool(min_size=1, max_size=AT_ONCE, **native) as pool:
            await use(pool)
        return
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(
        f"postgresql+{DIALECT}://",
        connect_args=native if DIALECT == "asyncpg" else libpq,
        pool_size=AT_ONCE,
        max_overflow=0,
    )
    await use(engine)
    await engine.dispose()


async def main():
    stop = asyncio.Event()
    beating = asyncio.create_task(beat(stop))
    await asyncio.sleep(0.05)
    await (raw() if WHEN == "raw" else ours())
    stop.set()
    return await beating


if WHEN in {"before", "raw"}:
    import azpgauth.drivers.asyncpg
    import azpgauth.drivers.psycopg
    import azpgauth.drivers.sqlalchemy
    import azpgauth.opening.connect  # noqa: F401

    if WHEN == "before":  # what is imported on first use within the libraries, too
        asyncio.run(ours())
        from azpgauth.identity.azure import forget

        forget()
gc.collect()
gc.freeze()  # a collection of the whole heap is not what is measured
print(round(asyncio.run(main()) * 1000, 1))
