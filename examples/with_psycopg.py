"""psycopg 3: a pool with rows as dicts.

Try it: azpgauth sandbox -- python examples/with_psycopg.py
"""

from __future__ import annotations

from psycopg.rows import dict_row

from azpgauth import connect_from_env


def main() -> None:
    """Use a connection of the pool."""
    with (
        connect_from_env(driver="psycopg", native={"row_factory": dict_row}) as pool,
        pool.connection() as conn,
    ):
        row = conn.execute("select current_user as role").fetchone()
        print(row)


if __name__ == "__main__":
    main()
