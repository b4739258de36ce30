"""asyncpg: its pool, with a time-out to wait for a connection and an age to renew it at."""

from __future__ import annotations

import asyncio

from azpgauth import aconnect_from_env


async def main() -> None:
    """Query through the pool."""
    async with aconnect_from_env(driver="asyncpg") as pool:
        print(await pool.fetchval("select current_user"))


if __name__ == "__main__":
    asyncio.run(main())
