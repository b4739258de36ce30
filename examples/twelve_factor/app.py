"""No file at all: the environment alone says where and as whom, as twelve-factor programs want it.

On App Service or Container Apps, Azure Service Connector sets AZURE_POSTGRESQL_HOST and the like
(service-connector.env shows them). Nothing has to be set besides; AZPG_* can say more.
"""

from azpgauth import connect_from_env

with connect_from_env() as pool, pool.connection() as conn:
    print(conn.execute("select current_user, current_database()").fetchone())
