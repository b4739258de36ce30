"""A program written for azure-postgresql-auth: only the root of its import is another one.

It makes its own pool and its own credential. As it has no settings, server and database are given
in libpq's own variables here.
"""

from __future__ import annotations

import os

from azure.identity import DefaultAzureCredential
from psycopg_pool import ConnectionPool

from azpgauth.psycopg3 import EntraConnection


def main() -> None:
    """Open psycopg's own pool with the drop-in connection class."""
    os.environ.setdefault("PGHOST", os.environ["AZPG_SERVER_HOST"])
    os.environ.setdefault("PGPORT", os.environ.get("AZPG_SERVER_PORT", "5432"))
    os.environ.setdefault("PGDATABASE", os.environ["AZPG_DATABASE_NAME"])
    if "AZPG_SERVER_SSLROOTCERT" in os.environ:
        os.environ.setdefault("PGSSLROOTCERT", os.environ["AZPG_SERVER_SSLROOTCERT"])
    with (
        ConnectionPool(
            connection_class=EntraConnection, kwargs={"credential": DefaultAzureCredential()}
        ) as pool,
        pool.connection() as conn,
    ):
        print(conn.execute("select current_user").fetchone())


if __name__ == "__main__":
    main()
