"""psycopg2: its own threaded pool, but it waits, checks what it hands out, and renews it."""

from __future__ import annotations

from azpgauth import connect_from_env


def main() -> None:
    """Use a connection of the pool; the block is one transaction."""
    with (
        connect_from_env(driver="psycopg2", pool={"max_size": 5}) as pool,
        pool.connection() as conn,
        conn.cursor() as cursor,
    ):
        cursor.execute("select current_user, now()")
        print(cursor.fetchone())


if __name__ == "__main__":
    main()
