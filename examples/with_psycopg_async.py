"""psycopg 3 on an event loop: many tasks share a pool, and all of them one token."""

from __future__ import annotations

import asyncio

from azpgauth import aconnect_from_env


async def main() -> None:
    """Run ten queries at once."""
    async with aconnect_from_env(driver="psycopg-async") as pool:

        async def square(number: int) -> int:
            async with pool.connection() as conn:
                row = await (await conn.execute("select %s * %s", (number, number))).fetchone()
                return row[0] if row else 0

        print(await asyncio.gather(*(square(number) for number in range(10))))


if __name__ == "__main__":
    asyncio.run(main())
