"""SQLAlchemy on an event loop, here under asyncpg; dialect psycopg is the other choice."""

from __future__ import annotations

import asyncio

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from azpgauth import aconnect_from_env


async def main() -> None:
    """Open an ORM session on the engine."""
    driver = {"name": "sqlalchemy-async", "dialect": "asyncpg"}
    async with aconnect_from_env(driver=driver) as engine, AsyncSession(engine) as session:
        print(await session.scalar(text("select current_user")))


if __name__ == "__main__":
    asyncio.run(main())
