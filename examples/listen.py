"""One connection instead of a pool: wait for a notification with asyncpg."""

from __future__ import annotations

import asyncio

from azpgauth import aconnection_from_env


async def main() -> None:
    """Notify ourselves, and wait for it."""
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with aconnection_from_env(driver="asyncpg") as conn:
        await conn.add_listener("orders", lambda *message: heard.put_nowait(str(message[-1])))
        await conn.execute("select pg_notify('orders', '42')")
        print(f"order {await asyncio.wait_for(heard.get(), 10)}")


if __name__ == "__main__":
    asyncio.run(main())
