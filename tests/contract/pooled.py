"""One process behind PgBouncer: four workers, whose statements look like another process's.

python pooled.py DRIVER DIALECT MARK MODE COUNT MIN_SIZE: prints rows right, rows wrong, errors, and
how many warnings of PgBouncer there were.
"""

import asyncio
import logging
import sys
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy

from azpgauth import aconnect_from_env, connect_from_env

driver, dialect, mark, mode, count, min_size = sys.argv[1:]
count = int(count)
autocommit = mode == "autocommit"
said = []


class Listening(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())


logging.getLogger("azpgauth.pooler").addHandler(Listening())
rows = []  # whether each was right
errors = []


def native():
    if not autocommit or driver in {"psycopg2", "asyncpg"}:
        return None
    if driver.startswith("sqlalchemy"):
        return {"isolation_level": "AUTOCOMMIT"}
    return {"autocommit": True}


def used(pool, number):
    if driver == "sqlalchemy":
        with pool.connect() as conn:
            return conn.execute(
                sqlalchemy.text(f"select '{mark}', cast(:n as int)"), {"n": number}
            ).one()
    with pool.connection() as conn:
        if driver == "psycopg2":
            conn.autocommit = autocommit
            with conn.cursor() as cursor:
                cursor.execute(f"select '{mark}', %s::int", (number,))
                return cursor.fetchone()
        return conn.execute(f"select '{mark}', %s::int", (number,)).fetchone()


async def aused(pool, number):
    if driver == "asyncpg":
        async with pool.acquire() as conn:
            if autocommit:
                return await conn.fetchrow(f"select '{mark}', $1::int", number)
            async with conn.transaction():
                return await conn.fetchrow(f"select '{mark}', $1::int", number)
    if driver == "psycopg-async":
        async with pool.connection() as conn:
            return await (await conn.execute(f"select '{mark}', %s::int", (number,))).fetchone()
    async with pool.connect() as conn:
        text = sqlalchemy.text(f"select '{mark}', cast(:n as int)")
        return (await conn.execute(text, {"n": number})).one()


def work(pool):
    for number in range(count):
        try:
            rows.append(tuple(used(pool, number)) == (mark, number))
        except Exception as exc:  # noqa: BLE001, PERF203 - counted
            errors.append(str(exc))


async def awork(pool):
    for number in range(count):
        try:
            rows.append(tuple(await aused(pool, number)) == (mark, number))
        except Exception as exc:  # noqa: BLE001, PERF203 - counted
            errors.append(str(exc))


keywords = {
    "driver": {"name": driver, **({} if dialect == "-" else {"dialect": dialect})},
    "pool": {"min_size": int(min_size)},
    "native": native(),
}


async def main():
    async with aconnect_from_env(**keywords) as pool:
        sys.stdin.readline()  # until the other process is ready, too
        await asyncio.gather(*(awork(pool) for _ in range(4)))


if driver in {"psycopg-async", "sqlalchemy-async", "asyncpg"}:
    asyncio.run(main())
else:
    pool = connect_from_env(**keywords)
    sys.stdin.readline()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, [pool] * 4))
    getattr(pool, "closeall", None) and pool.closeall()
    getattr(pool, "dispose", None) and pool.dispose()
    driver == "psycopg" and pool.close()
print(rows.count(True), rows.count(False), len(errors), len(said))
print(*errors[:3], sep="\n", file=sys.stderr)
