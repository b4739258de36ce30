"""Each driver behind one sync face, so that one suite runs over all of them.

What runs on an event loop runs on one in a thread of its own, as in a program.
"""

import asyncio
import threading
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
import psycopg2
import psycopg2.pool
import psycopg_pool
import sqlalchemy
from asyncpg.exceptions import PostgresError
from asyncpg.pool import Pool as AsyncpgPool
from sqlalchemy.ext.asyncio import AsyncEngine

from azpgauth import (
    aconnect_from_env,
    aconnection_from_env,
    closing,
    connect_from_env,
    connection_from_env,
)


class Loop:
    """An event loop on a thread."""

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.do(asyncio.sleep(0.05))  # what asyncpg has closed takes a moment to be gone
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    def do(self, coroutine, timeout=40):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)


@dataclass
class Kit:
    """How one combination of driver and dialect is used.

    Attributes:
        driver: `driver.name`.
        dialect: `driver.dialect`, for SQLAlchemy.
        pool_class: What `connect` gives.
        too_late: What waiting too long for a connection raises.
        cause: What a refused connect has as its cause.
    """

    driver: str
    dialect: str | None
    pool_class: type
    too_late: type[Exception]
    cause: type[Exception]
    loop: Loop | None = None

    def __str__(self):
        return self.driver if self.dialect is None else f"{self.driver}-{self.dialect}"

    @property
    def is_async(self):
        return self.driver in {"psycopg-async", "sqlalchemy-async", "asyncpg"}

    @property
    def settings(self):
        found = {"name": self.driver}
        return found if self.dialect is None else {**found, "dialect": self.dialect}

    def open(self, **keywords):
        keywords.setdefault("driver", self.settings)
        if not self.is_async:
            return connect_from_env(**keywords)

        async def opened():
            return await aconnect_from_env(**keywords)

        return self.loop.do(opened())

    def close(self, pool):
        if not self.is_async:
            with closing(pool):
                return

        async def closed():
            async with closing(pool):
                pass

        self.loop.do(closed())

    @contextmanager
    def pool(self, **keywords):
        pool = self.open(**keywords)
        try:
            yield pool
        finally:
            self.close(pool)

    @contextmanager
    def lease(self, pool):
        """A connection taken out of the pool, as a function from SQL to its first row."""
        if self.is_async:
            scope = self._alease(pool)
            query = self.loop.do(scope.__aenter__())
            try:
                yield lambda sql: self.loop.do(query(sql))
            finally:
                self.loop.do(scope.__aexit__(None, None, None))
        else:
            with self._lease(pool) as query:
                yield query

    def row(self, pool, sql):
        with self.lease(pool) as query:
            return query(sql)

    @contextmanager
    def _lease(self, pool):
        if self.driver == "psycopg":
            with pool.connection() as conn:
                yield lambda sql: conn.execute(sql).fetchone()
        elif self.driver == "psycopg2":
            with pool.connection() as conn, conn.cursor() as cursor:
                yield lambda sql: (cursor.execute(sql), cursor.fetchone())[1]
        else:
            with pool.connect() as conn:
                yield lambda sql: tuple(conn.execute(sqlalchemy.text(sql)).one())

    def _alease(self, pool):
        from contextlib import asynccontextmanager

        @asynccontextmanager
        async def lease():
            if self.driver == "asyncpg":
                async with pool.acquire() as conn:

                    async def query(sql):
                        return tuple(await conn.fetchrow(sql))

                    yield query
            elif self.driver == "psycopg-async":
                async with pool.connection() as conn:

                    async def query(sql):
                        return await (await conn.execute(sql)).fetchone()

                    yield query
            else:
                async with pool.connect() as conn:

                    async def query(sql):
                        return tuple((await conn.execute(sqlalchemy.text(sql))).one())

                    yield query

        return lease()

    def one(self, **keywords):
        """One connection, used for one query and closed: the row, and the connection."""
        keywords.setdefault("driver", self.settings)
        sql = "select current_user"
        if self.is_async:

            async def use():
                async with aconnection_from_env(**keywords) as conn:
                    if self.driver == "asyncpg":
                        return tuple(await conn.fetchrow(sql)), conn
                    if self.driver == "psycopg-async":
                        return await (await conn.execute(sql)).fetchone(), conn
                    return tuple((await conn.execute(sqlalchemy.text(sql))).one()), conn

            return self.loop.do(use())
        conn = connection_from_env(**keywords)
        with closing(conn):
            if self.driver == "sqlalchemy":
                return tuple(conn.execute(sqlalchemy.text(sql)).one()), conn
            with conn.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchone(), conn


_TIMEOUT = asyncio.TimeoutError
KITS = [
    Kit("psycopg", None, psycopg_pool.ConnectionPool, psycopg_pool.PoolTimeout, psycopg.Error),
    Kit(
        *("psycopg-async", None, psycopg_pool.AsyncConnectionPool),
        *(psycopg_pool.PoolTimeout, psycopg.Error),
    ),
    Kit(
        *("psycopg2", None, psycopg2.pool.ThreadedConnectionPool),
        *(psycopg2.pool.PoolError, psycopg2.Error),
    ),
    Kit("sqlalchemy", "psycopg", sqlalchemy.Engine, sqlalchemy.exc.TimeoutError, psycopg.Error),
    Kit("sqlalchemy", "psycopg2", sqlalchemy.Engine, sqlalchemy.exc.TimeoutError, psycopg2.Error),
    Kit("sqlalchemy-async", "psycopg", AsyncEngine, sqlalchemy.exc.TimeoutError, psycopg.Error),
    Kit("sqlalchemy-async", "asyncpg", AsyncEngine, sqlalchemy.exc.TimeoutError, Exception),
    Kit("asyncpg", None, AsyncpgPool, _TIMEOUT, PostgresError),
]
