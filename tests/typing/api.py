"""What a type checker knows of the public functions; mypy reads this, nothing runs it."""

from typing import Any

import asyncpg
import psycopg
import psycopg2.extensions
import psycopg2.pool
import sqlalchemy
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from typing_extensions import assert_type

from azpgauth import (
    Settings,
    aconnect,
    aconnect_from_env,
    aconnection_from_env,
    closing,
    connect,
    connect_from_env,
    connection_from_env,
)
from azpgauth.drivers import asyncpg as asyncpg_driver
from azpgauth.drivers import psycopg as psycopg_driver
from azpgauth.drivers import psycopg2 as psycopg2_driver
from azpgauth.drivers import sqlalchemy as sqlalchemy_driver
from azpgauth.drivers.driver import AsyncDriver, Driver
from azpgauth.psycopg2 import ConnectionPool as Psycopg2Pool

DRIVERS: tuple[Driver, ...] = (psycopg_driver, psycopg2_driver, sqlalchemy_driver)
ASYNC_DRIVERS: tuple[AsyncDriver, ...] = (psycopg_driver, sqlalchemy_driver, asyncpg_driver)

assert_type(connect_from_env(), ConnectionPool[Any])
assert_type(connect_from_env(driver="psycopg"), ConnectionPool[Any])
assert_type(connect_from_env(driver="psycopg-async"), AsyncConnectionPool[Any])
assert_type(connect_from_env(driver="psycopg2"), Psycopg2Pool)
assert_type(connect_from_env(driver="sqlalchemy"), sqlalchemy.Engine)
assert_type(connect_from_env(driver="sqlalchemy-async"), AsyncEngine)
assert_type(connect_from_env(driver="asyncpg"), asyncpg.Pool)
assert_type(connect_from_env(driver={"name": "sqlalchemy", "dialect": "psycopg2"}), Any)

# A driver that does not exist is an error: these comments are ones, too, where it is not.
connect_from_env(driver="psycopg3")  # type: ignore[call-overload]
connection_from_env(driver="sqlalchemy-asyncio")  # type: ignore[call-overload]
aconnect_from_env(driver="asyncpgg")  # type: ignore[call-overload]
aconnection_from_env(driver="psycopg-asyncio")  # type: ignore[call-overload]

native_to_psycopg2: psycopg2.pool.ThreadedConnectionPool = connect_from_env(driver="psycopg2")

assert_type(connection_from_env(), psycopg.Connection[Any])
assert_type(connection_from_env(driver="psycopg2"), psycopg2.extensions.connection)
assert_type(connection_from_env(driver="sqlalchemy"), sqlalchemy.Connection)

with closing(connect_from_env(driver="sqlalchemy")) as engine:
    assert_type(engine, sqlalchemy.Engine)


async def opened(settings: Settings) -> None:
    assert_type(connect(settings), Any)
    assert_type(await aconnect(settings), Any)
    async with aconnect_from_env() as default:
        assert_type(default, AsyncConnectionPool[Any])
    async with aconnect_from_env(driver="psycopg-async") as pool:
        assert_type(pool, AsyncConnectionPool[Any])
    async with aconnect_from_env(driver="sqlalchemy-async") as engine:
        assert_type(engine, AsyncEngine)
    async with aconnect_from_env(driver="asyncpg") as other:
        assert_type(other, asyncpg.Pool)
    assert_type(await aconnection_from_env(), psycopg.AsyncConnection[Any])
    assert_type(await aconnection_from_env(driver="sqlalchemy-async"), AsyncConnection)
    async with aconnection_from_env(driver="asyncpg") as conn:
        assert_type(conn, asyncpg.Connection)
