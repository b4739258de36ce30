"""The one-liner at work: ten connections at once, one token.

Run it against Azure with AZPG_SERVER_HOST and AZPG_DATABASE_NAME set, or without Azure:

    azpgauth sandbox -- python examples/quickstart.py
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from azpgauth import connect_from_env, token_info

AT_ONCE = 10
SEEN_BY_THE_SERVER = """
    select current_user, version, cipher from pg_stat_ssl where pid = pg_backend_pid()
"""


def main() -> None:
    """Use a pool from ten threads at once, and say who was signed in and how."""
    with connect_from_env(pool={"max_size": AT_ONCE}) as pool:
        all_there = threading.Barrier(AT_ONCE)

        def work(_: int) -> int:
            with pool.connection() as conn:
                all_there.wait(timeout=30)  # so that each has a connection of its own
                row = conn.execute("select pg_backend_pid()").fetchone()
                return row[0] if row else 0

        with ThreadPoolExecutor(AT_ONCE) as threads:
            backends = set(threads.map(work, range(AT_ONCE)))

        with pool.connection() as conn:
            seen = conn.execute(SEEN_BY_THE_SERVER).fetchone()
            version = conn.info.parameter_status("server_version")
        requests = token_info(pool).requests

    role, tls, cipher = seen or ("?", "?", "?")
    print(f"signed in as   {role}")
    print(f"encryption     {tls}, {cipher}")
    print(f"server         PostgreSQL {version}")
    print(f"connections    {len(backends)} at once")
    print(f"tokens         {requests} token request{'' if requests == 1 else 's'}")


if __name__ == "__main__":
    main()
