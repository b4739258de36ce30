"""Mistakes in the settings: what the report of each says, and the one edit that mends it.

Each row is a small world (variables, files, keyword arguments) with a mistake in it. The edit is
what the report says to do, and nothing else; after it, the settings load.
"""

import asyncio
import logging
import pickle
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from leaks import leaked

from azpgauth import (
    SettingsError,
    aconnect_from_env,
    connect_from_env,
    connection_from_env,
    explain,
    load_settings,
)
from azpgauth.settings.models.secret import SECRETS

HOST = "shop.postgres.database.azure.com"
TENANT = "7b2f3c64-9c0d-4a57-8c7e-5d2f0a6b1e93"
SECRET = "hunter2"
GOOD = {"AZPG_SERVER_HOST": HOST, "AZPG_DATABASE_NAME": "shop"}
CLIENT = {
    **GOOD,
    "AZPG_CREDENTIAL_KIND": "client-secret",
    "AZPG_CREDENTIAL_TENANT_ID": TENANT,
    "AZPG_CREDENTIAL_CLIENT_ID": "c",
    "AZPG_CREDENTIAL_CLIENT_SECRET": SECRET,
}
LOCAL = {
    "AZPG_SERVER_HOST": "127.0.0.1",
    "AZPG_DATABASE_NAME": "shop",
    "AZPG_DATABASE_USER": "me",
    "AZPG_SERVER_SSLMODE": "prefer",
    "AZPG_CREDENTIAL_KIND": "password",
    "AZPG_CREDENTIAL_PASSWORD": SECRET,
}
TOML = f'[server]\nhost = "{HOST}"\n[database]\nname = "shop"\n'


@dataclass
class Mistake:
    """One row.

    Attributes:
        about: What is wrong.
        says: What the report must say.
        env: The variables, besides those of `base`.
        files: Files in the working directory.
        keywords: Keyword arguments.
        base: Variables that are there in any case.
        mend: The edit: variables, files (by their names) or keywords; None removes one.
        count: How many problems there are.
    """

    about: str
    says: list[str]
    env: dict = field(default_factory=dict)
    files: dict = field(default_factory=dict)
    keywords: dict = field(default_factory=dict)
    base: dict = field(default_factory=lambda: GOOD)
    mend: dict = field(default_factory=dict)
    count: int = 1


def wrong(name, value, says, right=None, base=GOOD, **more):
    """A variable with a wrong value, which is mended by another one (or by removing it)."""
    return Mistake(
        f"{name}={value}",
        [name, *says],
        env={name: value},
        base=base,
        mend={name: right},
        **more,
    )


MISTAKES = [
    # -- nothing there, or not enough -----------------------------------------------------------
    Mistake(
        "no host",
        [
            "server.host",
            "is required",
            "AZPG_SERVER_HOST",
            "host in [server] of azpgauth.toml",
            "server={'host': …}",
            "AZURE_POSTGRESQL_HOST",
            "DATABASE_URL",
            "PGHOST",
            "POSTGRES_HOST",
            "DB_HOST",
        ],
        base={"AZPG_DATABASE_NAME": "shop"},
        mend={"PGHOST": HOST},
    ),
    Mistake(
        "no database",
        ["database.name", "is required", "AZPG_DATABASE_NAME", "PGDATABASE"],
        base={"PGHOST": HOST},
        mend={"PGDATABASE": "shop"},
    ),
    Mistake(
        "a database of another server",
        ["database.name", "PGDATABASE (PG* is of another server", "localhost", HOST],
        base={"AZPG_SERVER_HOST": HOST, "PGHOST": "localhost", "PGDATABASE": "dev"},
        mend={"AZPG_DATABASE_NAME": "shop"},
    ),
    Mistake(
        "a database of no server",
        ["database.name", "POSTGRES_DB (POSTGRES_* names no host)"],
        base={"AZPG_SERVER_HOST": HOST, "POSTGRES_DB": "shop"},
        mend={"POSTGRES_HOST": HOST},
    ),
    Mistake(
        "no secret of a service principal",
        ["credential.client_secret", "is required", "AZPG_CREDENTIAL_CLIENT_SECRET"],
        base={k: v for k, v in CLIENT.items() if not k.endswith("SECRET")},
        mend={"AZPG_CREDENTIAL_CLIENT_SECRET": SECRET},
    ),
    Mistake(
        "no tenant of a service principal",
        ["credential.tenant_id", "is required", "AZPG_CREDENTIAL_TENANT_ID"],
        base={k: v for k, v in CLIENT.items() if "TENANT" not in k},
        mend={"AZPG_CREDENTIAL_TENANT_ID": TENANT},
    ),
    Mistake(
        "no certificate",
        ["credential.certificate_path", "is required", "AZPG_CREDENTIAL_CERTIFICATE_PATH"],
        env={"AZPG_CREDENTIAL_KIND": "client-certificate"},
        files={"c.pem": "x"},
        base={k: v for k, v in CLIENT.items() if not k.endswith("SECRET")},
        mend={"AZPG_CREDENTIAL_CERTIFICATE_PATH": "c.pem"},
    ),
    Mistake(
        "no password",
        ["credential.password", "is required", "AZPG_CREDENTIAL_PASSWORD", "PGPASSWORD"],
        env={"PGHOST": "127.0.0.1"},
        base={k: v for k, v in LOCAL.items() if not k.endswith("PASSWORD")},
        mend={"PGPASSWORD": SECRET},
    ),
    Mistake(
        "a password without a role",
        ["database.user", "AZPG_DATABASE_USER", "is required with credential.kind password"],
        base={k: v for k, v in LOCAL.items() if not k.endswith("USER")},
        mend={"AZPG_DATABASE_USER": "me"},
    ),
    # -- names that there are not ---------------------------------------------------------------
    wrong("AZPG_POOL_MAXSIZE", "5", ["did you mean AZPG_POOL_MAX_SIZE?"]),
    wrong("AZPG_POOL__MAX_SIZE", "5", ["did you mean AZPG_POOL_MAX_SIZE?"]),
    wrong("AZPG_POOOL_MAX_SIZE", "5", ["did you mean AZPG_POOL_MAX_SIZE?"]),
    wrong("AZPG_SSLMODE", "require", ["did you mean AZPG_SERVER_SSLMODE?"]),
    wrong("AZPG_SERVER_USER", "me", ["did you mean AZPG_DATABASE_USER?"]),
    wrong("AZPG_DATABASE_PASSWORD", SECRET, ["did you mean AZPG_CREDENTIAL_PASSWORD?"]),
    wrong("AZPG_ENVIRONMENT", "prod", ["did you mean AZPG_ENV?"]),
    wrong("AZPG_NONSENSE", "1", ["there is no such setting", "AZPG_SERVER_HOST"]),
    Mistake(
        "a variable of .env that there is not",
        [".env, AZPG_DATABSE_NAME", "did you mean AZPG_DATABASE_NAME?"],
        files={".env": "AZPG_DATABSE_NAME=x\n"},
        mend={".env": "AZPG_DATABASE_NAME=x\n"},
    ),
    Mistake(
        "a table that there is not",
        ["azpgauth.toml, [sever]", "did you mean server?"],
        files={"azpgauth.toml": "[sever]\nport = 6432\n"},
        mend={"azpgauth.toml": "[server]\nport = 6432\n"},
    ),
    Mistake(
        "a setting of TOML that there is not",
        ["azpgauth.toml, [pool] max_sise", "did you mean max_size?"],
        files={"azpgauth.toml": "[pool]\nmax_sise = 4\n"},
        mend={"azpgauth.toml": "[pool]\nmax_size = 4\n"},
    ),
    Mistake(
        "a keyword that there is not",
        ["keyword argument drvier=", "did you mean driver=?"],
        keywords={"drvier": "psycopg"},
        mend={"drvier": None, "driver": "psycopg"},
    ),
    Mistake(
        "a field in a keyword that there is not",
        ["pool={'maxsize': …}", "did you mean max_size?"],
        keywords={"pool": {"maxsize": 5}},
        mend={"pool": {"max_size": 5}},
    ),
    Mistake(
        "a secret's file that there is not",
        ["file secrets/AZPG_CREDENTIAL_PASWORD", "did you mean AZPG_CREDENTIAL_PASSWORD?"],
        files={"secrets/AZPG_CREDENTIAL_PASWORD": SECRET},
        keywords={"secrets_dir": "secrets"},
        mend={"secrets/AZPG_CREDENTIAL_PASWORD": None},
    ),
    # -- wrong values ---------------------------------------------------------------------------
    wrong("AZPG_SERVER_PORT", "many", ["server.port", "'many'", "is not a whole number"], "6432"),
    wrong("AZPG_SERVER_PORT", "5432.5", ["'5432.5'", "is not a whole number"], "5432"),
    wrong("AZPG_SERVER_PORT", "70000", ["'70000'", "less than or equal to 65535"], "6432"),
    wrong("AZPG_SERVER_PORT", "0", ["'0'", "greater than or equal to 1"], "6432"),
    wrong("AZPG_SERVER_PORT", "", ["server.port", "is empty", "remove it"]),
    wrong("AZPG_SERVER_HOST", "  ", ["server.host", "is empty"], HOST, count=1),
    wrong("AZPG_SERVER_HOST", f"https://{HOST}", ["is a URL", "host's name alone"], HOST),
    wrong("AZPG_SERVER_HOST", f"{HOST}:5432", ["holds a port", "server.port"], HOST),
    wrong("AZPG_SERVER_HOST", "a,,b", ["is empty"], "a,b"),
    wrong("AZPG_SERVER_HOST", "me@host", ["holds a user", "database.user"], "host"),
    wrong("AZPG_SERVER_HOST", "/var/run", ["socket's folder", "server's name"], HOST),
    wrong("AZPG_SERVER_SSLMODE", "verify-all", ["verify-full is meant"], "verify-full"),
    wrong("AZPG_SERVER_SSLMODE", "verify_full", ["did you mean verify-full?"], "verify-full"),
    wrong("AZPG_SERVER_SSLMODE", "VERIFY-FULL", ["did you mean verify-full?"], "verify-full"),
    wrong("AZPG_SERVER_SSLMODE", "disable", ["token in clear", "use verify-full"], "verify-full"),
    wrong(
        *("AZPG_SERVER_SSLMODE", "prefer", ["to another machine", "require"], "require"),
        base={**LOCAL, "AZPG_SERVER_HOST": "db.example"},
    ),
    wrong("AZPG_SERVER_SSLROOTCERT", "no.pem", ["'no.pem'", "is not a file", "auto"], "auto"),
    wrong("AZPG_SERVER_CONNECT_TIMEOUT", "0", ["greater than or equal to 1"], "5"),
    wrong("AZPG_SERVER_CLOUD", "mars", ["'public', 'usgov' or 'china'"], "public"),
    wrong("AZPG_SERVER_CLOUD", "china", ["contradicts", "is in cloud public"], "public"),
    wrong("AZPG_POOL_MIN_SIZE", "11", ["over max_size 10", "raise AZPG_POOL_MAX_SIZE"], "10"),
    wrong("AZPG_POOL_MAX_SIZE", "0", ["greater than or equal to 1"], "1"),
    wrong("AZPG_POOL_TIMEOUT", "inf", ["finite"], "60"),
    wrong("AZPG_POOL_TIMEOUT", "30s", ["'30s'", "is not a number"], "30"),
    wrong("AZPG_POOL_MAX_LIFETIME", "-1", ["greater than 0"], "60"),
    wrong("AZPG_DRIVER_NAME", "psycopg3", ["did you mean psycopg?"], "psycopg"),
    wrong("AZPG_DRIVER_NAME", "mysql", ["allowed:", "'asyncpg'"], "asyncpg"),
    wrong(
        *("AZPG_DRIVER_DIALECT", "asyncpg", ["does not go with driver.name sqlalchemy"]),
        *("psycopg2", {**GOOD, "AZPG_DRIVER_NAME": "sqlalchemy"}),
    ),
    wrong("AZPG_CREDENTIAL_KIND", "managed_identity", ["did you mean managed-identity?"]),
    wrong("AZPG_CREDENTIAL_REFRESH", "never", ["allowed:", "'on-demand'"], "on-demand"),
    wrong("AZPG_CREDENTIAL_AUTHORITY", "http://x", ["https"], "https://x"),
    wrong("AZPG_CREDENTIAL_TENANT_ID", "a b", ["characters", "'a b'"], TENANT, CLIENT),
    wrong("AZPG_CREDENTIAL_EXCLUDE_CLI_CREDENTIAL", "perhaps", ["write true or false"], "true"),
    Mistake(
        "true where a number is needed",
        ["pool.timeout", "is not a number"],
        files={"azpgauth.toml": "[pool]\ntimeout = true\n"},
        mend={"azpgauth.toml": "[pool]\ntimeout = 5\n"},
    ),
    Mistake(
        "no host among the hosts",
        ["server.host", "has no name in it"],
        files={"azpgauth.toml": "[server]\nhost = []\n"},
        base={"AZPG_DATABASE_NAME": "shop"},
        mend={"azpgauth.toml": f'[server]\nhost = ["{HOST}"]\n'},
    ),
    Mistake(
        "a number where a string is needed",
        ["azpgauth.toml, [database] name", "5", "is not a string", "in quotes"],
        files={"azpgauth.toml": "[database]\nname = 5\n"},
        base={"AZPG_SERVER_HOST": HOST},
        mend={"azpgauth.toml": '[database]\nname = "5"\n'},
    ),
    Mistake(
        "a value where a table is needed",
        ["azpgauth.toml, server", "a table is needed", "write [server]"],
        files={"azpgauth.toml": f'server = "{HOST}"\n'},
        mend={"azpgauth.toml": f'[server]\nhost = "{HOST}"\n'},
    ),
    Mistake(
        "a keyword that is no mapping",
        ["keyword argument pool=", "a mapping is needed", "max_size"],
        keywords={"pool": 7},
        mend={"pool": {"max_size": 7}},
    ),
    Mistake(
        "a secret that is no string",
        ["credential.client_secret", "is not a string"],
        keywords={"credential": {"client_secret": [SECRET]}},
        base=CLIENT,
        mend={"credential": {"client_secret": SECRET}},
    ),
    Mistake(
        "an empty secret",
        ["credential.client_secret", "is empty"],
        keywords={"credential": {"client_secret": ""}},
        base=CLIENT,
        mend={"credential": {"client_secret": SECRET}},
    ),
    # -- contradictions -------------------------------------------------------------------------
    wrong(
        *(
            "AZPG_CREDENTIAL_PASSWORD",
            SECRET,
            ["does not belong", "set AZPG_CREDENTIAL_KIND to password"],
        ),
        base={**GOOD, "AZPG_CREDENTIAL_KIND": "managed-identity"},
    ),
    wrong("AZPG_CREDENTIAL_TENANT_ID", TENANT, ["credential.kind default", "workload-identity"]),
    wrong(
        "AZPG_CREDENTIAL_TENANT_ID",
        TENANT,
        ["kind managed-identity (from environment variable AZURE_POSTGRESQL_CLIENTID"],
        base={**GOOD, "AZURE_POSTGRESQL_HOST": HOST, "AZURE_POSTGRESQL_CLIENTID": "c"},
    ),
    wrong(
        "AZPG_CREDENTIAL_SCOPE", "a b", ["is not a scope", "https://HOST/.default"], "https://a.b"
    ),
    wrong("AZPG_CREDENTIAL_SCOPE", "/.default", ["is not a scope"], "https://a.b"),
    wrong(
        *("AZPG_CREDENTIAL_ADDITIONALLY_ALLOWED_TENANTS", "a,,b c", ["letters, digits"], "a,b"),
    ),
    Mistake(
        "a secret under a wrong name",
        ["credential['client_secrt']", "did you mean client_secret?"],
        keywords={"credential": {"client_secrt": SECRET}},
        base={k: v for k, v in CLIENT.items() if not k.endswith("SECRET")},
        mend={"credential": {"client_secret": SECRET}},
        count=2,
    ),
    Mistake(
        "a secret as a keyword of its own",
        ["keyword argument client_secret=", "there is no such keyword"],
        keywords={"client_secret": SECRET},
        base=CLIENT,
        mend={"client_secret": None},
    ),
    Mistake(
        "a secret where a section is needed",
        ["keyword argument credential=", "a mapping is needed"],
        keywords={"credential": SECRET},
        base=CLIENT,
        mend={"credential": None},
    ),
    wrong(
        *(
            "AZPG_CREDENTIAL_OBJECT_ID",
            "o",
            ["a second time", "_OBJECT_ID or AZPG_CREDENTIAL_CLIENT_ID"],
        ),
        base={**GOOD, "AZPG_CREDENTIAL_KIND": "managed-identity", "AZPG_CREDENTIAL_CLIENT_ID": "c"},
    ),
    wrong(
        *("PGPASSWORD", SECRET, ["credential.password", "kind default", "remove the password"]),
        base={**GOOD, "PGHOST": HOST},
    ),
    wrong(
        "DATABASE_URL",
        f"postgresql://u:{SECRET}@{HOST}/shop",
        ["DATABASE_URL, password", "beside credential.kind azure-cli"],
        f"postgresql://u@{HOST}/shop",
        {"AZPG_CREDENTIAL_KIND": "azure-cli"},
    ),
    wrong(
        "AZURE_POSTGRESQL_CONNECTIONSTRING",
        f"host={HOST} dbname=shop password={SECRET}",
        ["password", "beside credential.kind default"],
        f"host={HOST} dbname=shop",
        {},
    ),
    wrong(
        *("AZPG_SERVER_HOST", f"{HOST},a.postgres.database.chinacloudapi.cn", ["different clouds"]),
        HOST,
    ),
    # -- what other tools set -------------------------------------------------------------------
    wrong(
        *("DATABASE_URL", "mysql://u:hunter2@h/shop", ["another scheme, 'mysql'", "set aside"]),
        *(f"postgresql://{HOST}/shop", {"AZPG_DATABASE_NAME": "shop"}),
    ),
    wrong(
        *("DATABASE_URL", f"postgresql://u:{SECRET}@[h/d", ["cannot be read", "postgresql://"]),
        *(f"postgresql://{HOST}:5432/shop", {}),
    ),
    wrong(
        *("DATABASE_URL", "postgresql://h:port/d", ["cannot be read as a URL", "DATABASE_URL"]),
        *(f"postgresql://{HOST}:5432/shop", {}),
    ),
    wrong(
        *("PGSSLMODE", "verify-all", ["is not an sslmode", "verify-full"], "verify-full"),
        {**GOOD, "PGHOST": HOST},
    ),
    wrong(
        *("PGPORT", "x", ["server.port", "is not a whole number"], "6432"),
        {**GOOD, "PGHOST": HOST},
    ),
    wrong(
        *("AZURE_POSTGRESQL_CONNECTIONSTRING", "=", ["not a connection string that can be read"]),
        *(f"host={HOST}", {"AZPG_DATABASE_NAME": "shop"}),
    ),
    wrong(
        "DATABASE_URL",
        f"postgresql://u:{SECRET}#x@h/d",
        ["cannot be read as a URL", "percent-encoded"],
        f"postgresql://u@{HOST}/shop",
        {},
    ),
    wrong(
        "DATABASE_URL",
        f"postgresql://u:123/{SECRET}@h/d",
        ["cannot be read as a URL", "percent-encoded"],
        f"postgresql://u@{HOST}/shop",
        {},
    ),
    wrong(
        "DATABASE_URL",
        f"password={SECRET} and host=h dbname=d",
        ["is not a URL", "host=HOST dbname=DATABASE"],
        f"postgresql://{HOST}/shop",
        {},
    ),
    wrong(
        "DATABASE_URL",
        f'"postgresql://u:{SECRET}@h/d"',
        ["is not a URL", "remove the quotes"],
        f"postgresql://u@{HOST}/d",
        {},
    ),
    wrong(
        *("DATABASE_URL", "postgis://h/d", ["postgis", "write postgresql:// in place of it"]),
        *("postgresql://h/d", {}),
    ),
    wrong(
        *("DATABASE_URL", f"psql 'postgresql://{HOST}/d'", ["command of psql", "remove psql"]),
        *(f"postgresql://{HOST}/d", {}),
    ),
    wrong(
        *("AZURE_POSTGRESQL_CONNECTIONSTRING", "jdbc:mysql://h/d", ["another scheme, 'mysql'"]),
        *(f"jdbc:postgresql://{HOST}/d", {"AZPG_DATABASE_NAME": "shop"}),
    ),
    wrong(
        "PGHOST",
        f"postgresql://u:{SECRET}@h/d",
        ["is a URL", "host's name alone"],
        HOST,
        {"AZPG_DATABASE_NAME": "shop"},
    ),
    wrong("AZPG_SERVER_HOST", f"me:{SECRET}@h", ["holds a user", "'**********@h'"], "h"),
    wrong("AZPG_SERVER_HOST", "${NAME}.example", ["a placeholder in it, ${...}"], "h.example"),
    # -- all at once, and no more than is true ---------------------------------------------------
    Mistake(
        "a password and nothing else",
        ["credential.password", "database.user"],
        env={"AZPG_CREDENTIAL_KIND": "password"},
        mend={"AZPG_CREDENTIAL_PASSWORD": SECRET, "AZPG_DATABASE_USER": "me"},
        count=2,
    ),
    Mistake(
        "a wrong port beside two contradictions",
        ["server.port", "server.cloud", "server.sslmode"],
        env={
            "AZPG_SERVER_PORT": "x",
            "AZPG_SERVER_CLOUD": "china",
            "AZPG_SERVER_SSLMODE": "disable",
        },
        mend={
            "AZPG_SERVER_PORT": "1",
            "AZPG_SERVER_CLOUD": None,
            "AZPG_SERVER_SSLMODE": "require",
        },
        count=3,
    ),
    Mistake(
        "a wrong time-out beside bounds that contradict",
        ["pool.timeout", "pool.min_size"],
        env={"AZPG_POOL_TIMEOUT": "x", "AZPG_POOL_MIN_SIZE": "11"},
        mend={"AZPG_POOL_TIMEOUT": "1", "AZPG_POOL_MIN_SIZE": "1"},
        count=2,
    ),
    Mistake(
        "a kind in a file that cannot be read",
        ["azpgauth.toml", "cannot be read"],
        env={"AZPG_CREDENTIAL_CLIENT_SECRET": SECRET, "PGHOST": HOST, "PGPASSWORD": SECRET},
        files={"azpgauth.toml": '[credential]\nkind = "client-secret\n'},
        mend={
            "azpgauth.toml": '[credential]\nkind = "password"\n[database]\nuser = "u"\n',
            "AZPG_CREDENTIAL_CLIENT_SECRET": None,
        },
    ),
    Mistake(
        "a kind that there is not, beside a password",
        ["credential.kind", "did you mean password?"],
        env={
            "AZPG_CREDENTIAL_KIND": "pasword",
            "PGHOST": HOST,
            "PGPASSWORD": SECRET,
            "PGUSER": "u",
        },
        mend={"AZPG_CREDENTIAL_KIND": "password"},
    ),
    Mistake(
        "an empty kind",
        ["credential.kind", "is empty"],
        env={"AZPG_CREDENTIAL_KIND": "", "AZPG_CREDENTIAL_CLIENT_ID": "c"},
        mend={"AZPG_CREDENTIAL_KIND": None},
    ),
    Mistake(
        "an empty role",
        ["database.user", "is empty"],
        base=LOCAL,
        env={"AZPG_DATABASE_USER": ""},
        mend={"AZPG_DATABASE_USER": "me"},
    ),
    Mistake(
        "what a second database lacks, under its own name",
        ["database.user", "not set (REPORTS_DATABASE_USER)"],
        env={
            "REPORTS_DATABASE_NAME": "r",
            "REPORTS_SERVER_HOST": "h",
            "REPORTS_CREDENTIAL_KIND": "none",
        },
        keywords={"prefix": "REPORTS_"},
        mend={"REPORTS_DATABASE_USER": "u"},
    ),
    # -- files ----------------------------------------------------------------------------------
    Mistake(
        "TOML that cannot be read",
        ["azpgauth.toml", "cannot be read"],
        files={"azpgauth.toml": f"[server\nhost = '{SECRET}'\n"},
        base={},
        mend={"azpgauth.toml": TOML},
    ),
    Mistake(
        "a line of .env that cannot be read",
        [".env, line 1", "write NAME=value"],
        files={".env": f"AZPG_CREDENTIAL_PASSWORD='{SECRET}\n"},
        mend={".env": ""},
    ),
    Mistake(
        "a file of settings that does not exist",
        ["keyword argument config=", "there is no file nowhere.toml"],
        keywords={"config": "nowhere.toml"},
        base={},
        mend={"nowhere.toml": TOML},
    ),
    Mistake(
        "AZPG_CONFIG that does not exist",
        ["environment variable AZPG_CONFIG", "there is no file etc/nowhere.toml"],
        env={"AZPG_CONFIG": "etc/nowhere.toml"},
        base={},
        mend={"etc/nowhere.toml": TOML},
    ),
    wrong("AZPG_CONFIG", " ", ["is empty"]),
    Mistake(
        "a directory where a file is wanted",
        ["azpgauth.toml", "is a directory"],
        files={"azpgauth.toml/x.txt": ""},
        mend={"azpgauth.toml/x.txt": None},
    ),
    Mistake(
        "a key where its path is wanted",
        ["credential.certificate_path", "holds the certificate or key itself", "name that"],
        env={
            "AZPG_CREDENTIAL_KIND": "client-certificate",
            "AZPG_CREDENTIAL_CERTIFICATE_PATH": f"-----BEGIN PRIVATE KEY-----\n{SECRET * 900}",
        },
        files={"c.pem": "x"},
        base={k: v for k, v in CLIENT.items() if not k.endswith("SECRET")},
        mend={"AZPG_CREDENTIAL_CERTIFICATE_PATH": "c.pem"},
    ),
    wrong("AZPG_SERVER_SSLROOTCERT", "x" * 5000, ["cannot be looked at", "or auto"], "auto"),
    wrong("AZPG_CONFIG", "x" * 5000, ["there is no file"]),
    Mistake(
        "an environment named in its own file",
        [".env.prod, AZPG_CONFIG", "has no effect", "put it into .env"],
        files={".env.prod": "AZPG_CONFIG=x.toml\n"},
        keywords={"env": "prod"},
        mend={".env.prod": ""},
    ),
    Mistake(
        "a number for the environment",
        ["keyword argument env=", "is a int"],
        keywords={"env": 5},
        mend={"env": None},
    ),
    Mistake(
        "a .env that does not exist",
        ["keyword argument env_file=", "there is no file my.env"],
        keywords={"env_file": "my.env"},
        base={},
        mend={"my.env": f"AZPG_SERVER_HOST={HOST}\nAZPG_DATABASE_NAME=shop\n"},
    ),
    wrong("AZPG_SECRETS_DIR", "nowhere", ["there is no directory nowhere"]),
    wrong(
        *("AZPG_ENV", "prd", ["environment without a file", "azpgauth.prd.toml", ".env.prd"]),
        *("prod", GOOD),
        files={"azpgauth.prod.toml": "", ".env.staging": ""},
    ),
    Mistake(
        "an environment where there is none",
        ["keyword argument env=", "make one of the files"],
        keywords={"env": "prod"},
        mend={".env.prod": ""},
    ),
    wrong("AZPG_ENV", "../prod", ["not the name of an environment", "letters"]),
    wrong("AZPG_ENV", "", ["is empty"]),
    # -- prefixes -------------------------------------------------------------------------------
    Mistake(
        "a prefix of a second database",
        ["REPORTS_SERVER_HOTS", "did you mean REPORTS_SERVER_HOST?"],
        env={"REPORTS_SERVER_HOTS": "x", "REPORTS_DATABASE_NAME": "r", "REPORTS_SERVER_HOST": "h"},
        keywords={"prefix": "REPORTS_"},
        mend={"REPORTS_SERVER_HOTS": None},
    ),
    Mistake(
        "what a second database lacks",
        ["set REPORTS_SERVER_HOST", "a file config="],
        env={"REPORTS_DATABASE_NAME": "r"},
        keywords={"prefix": "REPORTS_"},
        mend={"REPORTS_SERVER_HOST": HOST},
    ),
    Mistake(
        "no prefix",
        ["keyword argument prefix=", "such as REPORTS_"],
        env={"REPORTS_DATABASE_NAME": "r", "REPORTS_SERVER_HOST": "h"},
        keywords={"prefix": "REPORTS"},
        mend={"prefix": "REPORTS_"},
    ),
    Mistake(
        "a prefix within ours",
        ["begins with AZPG_"],
        env={"REPORTS_DATABASE_NAME": "r", "REPORTS_SERVER_HOST": "h"},
        keywords={"prefix": "AZPG_REPORTS_"},
        mend={"prefix": "REPORTS_"},
    ),
    # -- secrets where none belongs ---------------------------------------------------------------
    *(
        wrong("AZPG_SERVER_HOST", value, ["server.host", "**********"], HOST)
        for value in (
            f"host=x password={SECRET}",
            f"x;password={SECRET}",
            f"Server=x;Pwd = {SECRET};Database=d",
            f"x?sslpassword={SECRET}",
            f"postgresql://app:{SECRET}@h:5432/d",
            f"app:{SECRET}@h",
            f"app:my {SECRET}@h",
            f"{SECRET}@h",
            f"app%3A{SECRET}%40h",
            f"x%3Bpassword%3D{SECRET}",
            f"x\uff1bpassword\uff1d{SECRET}",
            f"AccountName=x;AccountKey={SECRET}==",
            f"h,x;password={SECRET}",
            f"fe80::1%x;password={SECRET}",
            f'{{"host": "h", "password": "{SECRET}"}}',
        )
    ),
    *(
        wrong(name, value, ["**********"], right)
        for name, value, right in (
            ("AZPG_SERVER_PORT", f"app:{SECRET}@h:5432", "5432"),
            ("AZPG_SERVER_PORT", f"5432 password={SECRET}", "5432"),
            ("AZPG_SERVER_SSLMODE", f"require;Password={SECRET}", "require"),
            ("AZPG_SERVER_SSLROOTCERT", f"postgresql://app:{SECRET}@h", "auto"),
            ("AZPG_SERVER_SSLROOTCERT", f"ca.pem&sslpassword={SECRET}", "auto"),
            ("AZPG_SERVER_CONNECT_TIMEOUT", f"10 passwd={SECRET}", "10"),
            ("AZPG_SERVER_CLOUD", f"client_secret={SECRET}", "public"),
            ("AZPG_DRIVER_NAME", f"postgresql+psycopg://app:{SECRET}@h", "psycopg"),
            ("AZPG_DRIVER_DIALECT", f"pass={SECRET}", "psycopg"),
            ("AZPG_POOL_MAX_SIZE", f"10;pwd={SECRET}", "10"),
            ("AZPG_POOL_TIMEOUT", f"eyJhbGciOiJub25lIn0.{SECRET}.x", "30"),
            ("AZPG_CREDENTIAL_KIND", f"client-secret, client_secret = {SECRET}", "default"),
            ("AZPG_CREDENTIAL_KIND", f"app:{SECRET}@h", "default"),
            ("AZPG_CREDENTIAL_SCOPE", f"https://a.b password={SECRET}", "https://a.b"),
            ("AZPG_CREDENTIAL_AUTHORITY", f"https://app:{SECRET}@login.example", "login.example"),
            ("AZPG_CREDENTIAL_AUTHORITY", f"http://app:{SECRET}@login.example", "login.example"),
            ("AZPG_CREDENTIAL_AUTHORITY", f"app:{SECRET}@login.example", "login.example"),
            ("AZPG_CREDENTIAL_REFRESH", f"secret={SECRET}", "on-demand"),
            ("AZPG_CREDENTIAL_EXCLUDE_CLI_CREDENTIAL", f"token={SECRET}", "true"),
        )
    ),
    wrong("AZPG_CREDENTIAL_TENANT_ID", f"app:{SECRET}@h", ["**********"], TENANT, CLIENT),
    *(
        wrong(name, value, ["**********"])
        for name in ("AZPG_CONFIG", "AZPG_SECRETS_DIR", "AZPG_ENV")
        for value in (f"postgresql://app:{SECRET}@h", f"host=h password={SECRET}")
    ),
    Mistake(
        "a certificate's path with a password",
        ["credential.certificate_path", "**********"],
        env={
            "AZPG_CREDENTIAL_KIND": "client-certificate",
            "AZPG_CREDENTIAL_CERTIFICATE_PATH": f"c.pem;password={SECRET}",
        },
        files={"c.pem": "x"},
        base={k: v for k, v in CLIENT.items() if not k.endswith("SECRET")},
        mend={"AZPG_CREDENTIAL_CERTIFICATE_PATH": "c.pem"},
    ),
    *(
        Mistake(
            f"a secret in the keyword {name}=",
            [f"keyword argument {name}=", "**********"],
            keywords={name: f"postgresql://app:{SECRET} x@h"},
            mend={name: None},
        )
        for name in ("config", "env", "env_file", "secrets_dir")
    ),
    Mistake(
        "a secret in the keyword prefix=",
        ["keyword argument prefix=", "**********"],
        env={"REPORTS_DATABASE_NAME": "r", "REPORTS_SERVER_HOST": "h"},
        keywords={"prefix": f"postgresql://app:{SECRET}@h"},
        mend={"prefix": "REPORTS_"},
    ),
    Mistake(
        "a secret in the keyword driver=",
        ["keyword argument driver=", "**********"],
        keywords={"driver": f"postgresql://app:{SECRET}@h"},
        mend={"driver": "psycopg"},
    ),
    Mistake(
        "a secret in the name of a keyword",
        ["**********"],
        keywords={f"app:{SECRET}@h": 1},
        mend={f"app:{SECRET}@h": None},
    ),
    Mistake(
        "a secret in the name of a field",
        ["keyword argument server={", "**********"],
        keywords={"server": {f"host=h password={SECRET}": 1}},
        mend={"server": {}},
    ),
    Mistake(
        "a secret in a list of hosts",
        ["server.host", "**********"],
        keywords={"server": {"host": ["h", f"x;password={SECRET}"]}},
        mend={"server": {"host": ["h"]}},
    ),
    Mistake(
        "a mapping with a secret where a name belongs",
        ["server.host", "**********"],
        keywords={"server": {"host": {"password": SECRET}}},
        mend={"server": {"host": "h"}},
    ),
    Mistake(
        "a secret in a table's name",
        ["azpgauth.toml, [", "**********"],
        files={"azpgauth.toml": f'["postgresql://app:{SECRET}@h"]\nport = 1\n'},
        mend={"azpgauth.toml": ""},
    ),
    Mistake(
        "a secret in a key's name, twice",
        ["azpgauth.toml", "**********"],
        files={"azpgauth.toml": f'["password={SECRET}"]\n["password={SECRET}"]\n'},
        mend={"azpgauth.toml": ""},
    ),
    Mistake(
        "a secret among the values of TOML",
        ["azpgauth.toml, [server] port", "**********"],
        files={"azpgauth.toml": f'[server]\nport = ["app:{SECRET}@h"]\n'},
        mend={"azpgauth.toml": ""},
    ),
    wrong(
        "PGHOST",
        f"h password={SECRET}",
        ["server.host", "**********"],
        HOST,
        {"AZPG_DATABASE_NAME": "shop"},
    ),
    wrong(
        "PGSSLMODE",
        f"pwd={SECRET}",
        ["server.sslmode", "**********"],
        "require",
        {
            "PGHOST": HOST,
            "AZPG_DATABASE_NAME": "shop",
        },
    ),
]


def world(monkeypatch, mistake, edit=None):
    """Make the row's world, with the edit or without; the keyword arguments."""
    keywords = dict(mistake.keywords)
    variables = {**mistake.base, **mistake.env}
    files = dict(mistake.files)
    for name, value in (edit or {}).items():
        if name.upper() == name and "." not in name and "/" not in name:
            target = variables
        elif "." in name or "/" in name:
            target = files
        else:
            target = keywords
        if value is None:
            target.pop(name)
            if target is files:
                Path(name).unlink()
                if Path(name).suffix == ".txt":
                    Path(name).parent.rmdir()
        else:
            target[name] = value
    for name in {**mistake.base, **mistake.env}:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for name, text in files.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    return keywords


@pytest.fixture(params=MISTAKES, ids=lambda row: row.about[:50])
def mistake(request):
    return request.param


def test_the_table_is_long_enough():
    assert len(MISTAKES) >= 60


def test_a_report_guides_to_the_one_edit_that_mends(monkeypatch, mistake):
    keywords = world(monkeypatch, mistake)
    with pytest.raises(SettingsError) as caught:
        load_settings(**keywords)
    report = str(caught.value)
    for words in mistake.says:
        assert words in report, report
    assert len(caught.value.problems) == mistake.count, report
    for problem in caught.value.problems:
        assert problem.setting
        assert problem.origin
        assert problem.reason
        assert problem.action
    keywords = world(monkeypatch, mistake, mistake.mend)
    settings = load_settings(**keywords)
    assert str(explain(settings))


def test_no_output_of_any_kind_has_the_secret(monkeypatch, mistake, caplog, capsys):
    monkeypatch.setenv("PYDANTIC_SETTINGS_DEBUG", "1")
    caplog.set_level(logging.DEBUG)
    keywords = world(monkeypatch, mistake)
    with pytest.raises(SettingsError) as caught:
        load_settings(**keywords)
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert leaked(caught.value, SECRET) == []
    for text in (caplog.text, *capsys.readouterr()):
        assert SECRET not in text
    settings = load_settings(**world(monkeypatch, mistake, mistake.mend))
    shown = [
        str(settings),
        repr(settings),
        repr(settings.model_dump()),
        settings.model_dump_json(),
        str(explain(settings)),
        repr(explain(settings)),
        repr(explain(settings).masked()),
        pickle.dumps(settings).decode("latin-1"),
    ]
    for text in shown:
        assert SECRET not in text


@pytest.mark.parametrize("connect", [connect_from_env, connection_from_env])
def test_no_way_to_connect_has_the_secret_in_its_error(monkeypatch, mistake, connect):
    keywords = world(monkeypatch, mistake)
    with pytest.raises(SettingsError) as caught:
        connect(**keywords)
    assert leaked(caught.value, SECRET) == []


def test_nor_has_a_way_to_connect_on_a_loop(monkeypatch, mistake):
    keywords = world(monkeypatch, mistake)

    async def main():
        await aconnect_from_env(**keywords)

    with pytest.raises(SettingsError) as caught:
        asyncio.run(main())
    assert leaked(caught.value, SECRET) == []


def test_every_secret_is_in_the_table():
    said = " ".join(str(row) for row in MISTAKES).lower()
    assert all(name in said for name in SECRETS - {"certificate_password"})
