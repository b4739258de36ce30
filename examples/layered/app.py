"""One program, one file for what holds everywhere, and one for each environment.

AZPG_ENV=prod python app.py    # azpgauth.prod.toml over azpgauth.toml
"""

from azpgauth import connect, explain, load_settings

settings = load_settings()
told = explain(settings)
for setting in ("server.host", "pool.max_size", "pool.max_lifetime", "credential.kind"):
    print(told[setting])
for dropped in told.dropped:
    print("set aside:", dropped)

with connect(settings) as pool, pool.connection() as conn:
    print(conn.execute("select current_user, current_setting('application_name')").fetchone())
