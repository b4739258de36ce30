"""What a type checker knows of the public functions; mypy reads this, nothing runs it."""

from typing import Any

from psycopg_pool import AsyncConnectionPool, ConnectionPool
from typing_extensions import assert_type

from azpgauth import Settings, aconnect, aconnect_from_env, connect, connect_from_env

assert_type(connect_from_env(), ConnectionPool[Any])
assert_type(connect_from_env(driver="psycopg"), ConnectionPool[Any])
assert_type(connect_from_env(driver="psycopg-async"), AsyncConnectionPool[Any])


async def opened(settings: Settings) -> None:
    assert_type(connect(settings), ConnectionPool[Any])
    assert_type(await aconnect(settings), AsyncConnectionPool[Any])
    async with aconnect_from_env() as pool:
        assert_type(pool, AsyncConnectionPool[Any])
