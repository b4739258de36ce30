"""What a program that `azpgauth run` starts gets of the environment, and what it does not get."""

import pytest

from azpgauth.cli.run import environment_for
from azpgauth.cli.withheld import is_withheld
from azpgauth.identity.login import Grant
from azpgauth.server.plan import ConnectPlan, PoolLimits
from azpgauth.server.roots import Roots
from azpgauth.server.targets import Server
from azpgauth.server.tls import NO_ROOTS, Tls

PLAN = ConnectPlan(
    servers=(Server("h", 5432),),
    database="shop",
    application_name="azpgauth",
    connect_timeout=10,
    tls=Tls("verify-full", Roots("/roots.pem")),
    pool=PoolLimits(1, 10, 30.0, 3600.0, 600.0),
)


@pytest.mark.parametrize(
    "name",
    [
        *("AZPG_CREDENTIAL_PASSWORD", "AZPG_CREDENTIAL_CLIENT_SECRET"),
        *("AZPG_CREDENTIAL_CERTIFICATE_PASSWORD", "azpg_credential_client_secret"),
        *("AZPG_PASSWORD", "AZPG_DATABASE_PASSWORD", "AZPG_CREDENTIAL_SECRET"),
        *("REPORTS_CREDENTIAL_CLIENT_SECRET", "My_App_Credential_Password"),
        "X_CREDENTIAL_CERTIFICATE_PASSWORD",
        *("AZURE_POSTGRESQL_PASSWORD", "AZURE_POSTGRESQL_CLIENTSECRET", "AZURE_POSTGRESQL_PASS"),
        *("AZURE_POSTGRESQL_SHOP_PASSWORD", "AZURE_POSTGRESQL_SHOP_CLIENTSECRET"),
        *("POSTGRES_PASSWORD", "POSTGRES_PASS", "POSTGRES_PWD", "POSTGRESQL_PASSWORD"),
        *("DB_PASSWORD", "DBPASSWORD", "DB_PASS", "DBPASS", "DB_PWD", "DATABASE_PASSWORD"),
        *("PGPASSWORD", "PG_PASSWORD", "pgpassword"),
    ],
)
def test_a_name_tells_of_a_secret(name):
    assert is_withheld(name, "x")
    assert is_withheld(name, "")


@pytest.mark.parametrize(
    "value",
    [
        "postgresql://app:hunter2@h/shop",
        "postgres://app:hunter2@h:5432/shop?sslmode=require",
        "POSTGRESQL+psycopg2://app:hunter2@h",
        "postgis://app:hunter2@h/shop",
        " 'postgresql://app:hunter2@h/shop'",
        "psql postgresql://app:hunter2@h/shop",
        'psql "postgresql://app:hunter2@h/shop"',
        "postgresql://:hunter2@h/shop",
        "postgresql://app@shop:hunter2@h/shop",
        "postgresql://app:hunter2@a:1,b:2/shop",
        "postgresql://app:hun@ter2@h/shop",
        "postgresql://app:hun/ter2@h/shop",
        "postgresql://app:hun#ter2@h/shop",
        "postgresql://app:hun?ter2@h/shop",
        "postgresql://app:123/4@h/shop",
        "postgresql://app:hunter2@[::1]:5432/shop",
        "postgresql://app@h/shop?password=hunter2",
        "postgresql://h/shop?user=a&pass%77ord=hunter2",
        "postgresql://h/shop?sslkey=x&sslpassword=hunter2",
        "jdbc:postgresql://h:5432/shop?user=app&password=hunter2",
        "host=h dbname=shop user=app password=hunter2",
        "password = 'hunter 2' host = h",
        "host=h password=hun'ter2",
        "Server=h;Database=shop;Port=5432;Ssl Mode=Require;User Id=app;Password=hunter2;",
        "Host=h;Username=app;PWD = hunter2",
        "Driver={PostgreSQL};Server=h;Uid=app;Pwd=hunter2;",
        "service=shop password=hunter2",
    ],
)
def test_a_value_with_a_password_in_it(value):
    for name in ("DATABASE_URL", "POSTGRES_URL", "AZURE_POSTGRESQL_CONNECTIONSTRING", "ANYTHING"):
        assert is_withheld(name, value)


@pytest.mark.parametrize(
    "value", ["mysql://app:hunter2@h/shop", "app:hunter2@h/shop", "password=hunter2", "Pwd=x;"]
)
@pytest.mark.parametrize(
    "name", ["DATABASE_URL", "SHOP_DB_URI", "POSTGRES_DSN", "POSTGRESQLCONNSTR_SHOP"]
)
def test_a_variable_for_a_url_holds_one_in_whatever_form(name, value):
    assert is_withheld(name, value)
    assert not is_withheld("GREETING", value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AZPG_SERVER_HOST", "h"),
        ("AZPG_CREDENTIAL_KIND", "password"),
        ("AZPG_CREDENTIAL_CLIENT_ID", "c"),
        ("AZPG_SECRETS_DIR", "/run/secrets"),
        ("REPORTS_CREDENTIAL_KIND", "client-secret"),
        ("AZURE_CLIENT_SECRET", "x"),
        ("AZURE_CLIENT_CERTIFICATE_PASSWORD", "x"),
        ("AZURE_POSTGRESQL_CLIENTID", "x"),
        ("AZURE_POSTGRESQL_HOST", "h"),
        ("IDENTITY_ENDPOINT", "http://localhost/token"),
        ("IDENTITY_HEADER", "x"),
        ("MSI_SECRET", "x"),
        ("POSTGRES_PASSWORD_FILE", "/run/secrets/pw"),
        ("SMTP_PASSWORD", "x"),
        ("PWD", "/home/me"),
        ("OLDPWD", "/"),
        ("DATABASE_URL", ""),
        ("DATABASE_URL", "postgresql://h/shop"),
        ("DATABASE_URL", "postgresql://app@h:5432/shop?sslmode=require"),
        ("DATABASE_URL", "postgresql://app:@h/shop"),
        ("DATABASE_URL", "postgresql://h:5432/shop?user=ada@example.com"),
        ("DATABASE_URL", "postgresql://a:1,[::1]:2/shop?user=ada@example.com"),
        ("DATABASE_URL", "postgresql://h/shop?passfile=/x"),
        ("CACHE_URL", "redis://:x@h/0"),
        ("AZURE_POSTGRESQL_CONNECTIONSTRING", "Server=h;Database=shop;Port=5432;User Id=app;"),
        ("AZURE_POSTGRESQL_CONNECTIONSTRING", "host=h dbname=shop user=app sslmode=require"),
        ("GREETING", "the password is swordfish"),
        ("HINT", "password=swordfish"),
    ],
)
def test_the_rest_stays(name, value):
    assert not is_withheld(name, value)


def test_what_a_program_gets():
    before = {
        "PATH": "/bin",
        "AZPG_SERVER_HOST": "h",
        "AZURE_CLIENT_SECRET": "stays",
        "R_CREDENTIAL_PASSWORD": "s3cret",
        "DATABASE_URL": "postgres://a:s3cret@h/d",
        "PGPASSWORD": "s3cret",
        "PGPASSFILE": "/s3cret",
    }
    found = environment_for(PLAN, Grant("app", "token"), before)
    assert found.keys() >= {"PATH", "AZPG_SERVER_HOST", "AZURE_CLIENT_SECRET"}
    assert found["PGPASSWORD"] == "token"
    assert "PGPASSFILE" not in found
    assert not any("s3cret" in value for value in found.values())


def test_a_program_that_is_to_send_no_password_finds_none():
    before = {"PGPASSWORD": "s3cret", "PGPASSFILE": "/s3cret"}
    found = environment_for(PLAN, Grant("app", None), before)
    assert "PGPASSWORD" not in found
    assert found["PGPASSFILE"] == NO_ROOTS


KEPT = {
    "PATH": "/bin",
    "AZPG_SERVER_HOST": "h",
    "AZPG_SECRETS_DIR": "/run/secrets",
    "AZURE_CLIENT_SECRET": "s",
    "AZURE_CLIENT_CERTIFICATE_PASSWORD": "s",
    "AZURE_PASSWORD": "s",
    "IDENTITY_HEADER": "s",
    "IDENTITY_ENDPOINT": "http://127.0.0.1/msi",
    "MSI_SECRET": "s",
    "DATABASE_URL": "postgresql://app@h/shop",
    "POSTGRES_USER": "app",
    "POSTGRES_PASSWORD_FILE": "/run/secrets/p",
    "REDIS_URL": "redis://:s@cache",
    "SQLCONNSTR_MAIN": "Server=h;Database=d;User Id=u;Password=s",
    "AZURE_POSTGRESQL_CONNECTIONSTRING": "dbname=d host=h sslmode=require user=u",
    "NOTE": "the password = what you know",
    "HTTPS_PROXY": "http://u:s@proxy:3128",
}
GONE = {
    "AZPG_CREDENTIAL_CLIENT_SECRET": "s",
    "AZPG_CREDENTIAL_PASSWORD": "s",
    "azpg_credential_password": "s",
    "AZPG_CREDENTIAL_CERTIFICATE_PASSWORD": "s",
    "REPORTS_CREDENTIAL_CLIENT_SECRET": "s",
    "REPORTS_CREDENTIAL_PASSWORD": "s",
    "Other_Credential_Certificate_Password": "s",
    "AZPG_PASSWORD": "s",
    "AZPG_DATABASE_PASSWORD": "s",
    "AZURE_POSTGRESQL_PASSWORD": "s",
    "AZURE_POSTGRESQL_CLIENTSECRET": "s",
    "AZURE_POSTGRESQL_SHOP_CLIENTSECRET": "s",
    "POSTGRES_PASSWORD": "s",
    "POSTGRESQL_PASSWORD": "s",
    "DB_PASSWORD": "s",
    "DBPASSWORD": "s",
    "DB_PASS": "s",
    "DBPASS": "s",
    "DB_PWD": "s",
    "DATABASE_PASSWORD": "s",
    "PGPASSWORD": "s",
    "DATABASE_URL": "postgresql://app:s@h/shop",
    "ORDERS_DATABASE_URL": "mysql://app:s@h/shop",
    "SQLALCHEMY_DATABASE_URI": "postgresql+asyncpg://app:s@h/shop",
    "POSTGRES_URL": "postgres://app:s@h/shop",
    "ANY": "postgis://app:s@h/shop",
    "QUOTED": '"postgresql://app:s@h/shop"',
    "QUERY": "postgresql://h/shop?user=app&password=s",
    "JDBC": "jdbc:postgresql://h/shop?user=app&password=s",
    "AZURE_POSTGRESQL_CONNECTIONSTRING": "dbname=d host=h user=u password=s",
    "POSTGRESQLCONNSTR_MAIN": "Server=h;Database=d;Port=5432;User Id=u;Password=s;",
    "CUSTOMCONNSTR_MAIN": "Host=h;Username=u;Pwd=s",
    "DSN": "host = h password = 's'",
    "A_DATABASE_URL": "postgresql://u@h/d?password=%26s",
    "B_DATABASE_URL": "postgresql://u@h/d?password=;s",
    "AZURE_POSTGRESQL_A_CONNECTIONSTRING": 'Host=h;Username=u;Password="""s"',
    "AZURE_POSTGRESQL_B_CONNECTIONSTRING": "Host=h;Username=u;Password='''s'",
    "AZURE_POSTGRESQL_C_CONNECTIONSTRING": 'host=h user=u password=""s',
    "AZURE_POSTGRESQL_D_CONNECTIONSTRING": "host=h user=u password=;s",
}


@pytest.mark.parametrize("name", KEPT)
def test_a_child_keeps(name):
    assert not is_withheld(name, KEPT[name])


@pytest.mark.parametrize("name", GONE)
def test_a_child_does_not_have(name):
    assert is_withheld(name, GONE[name])
