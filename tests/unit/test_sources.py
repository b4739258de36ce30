"""Where settings come from: ranks, origins, files by environment, and what other tools set."""

import copy
import gc
import json
import os
import pickle
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from azpgauth import Settings, SettingsError, explain, load_settings
from azpgauth.settings import explain as explain_module
from azpgauth.settings.sources.layers import variable
from azpgauth.settings.sources.strings import StringError, connection_string, postgres_url

HOST = "shop.postgres.database.azure.com"
GOOD = {"AZPG_SERVER_HOST": HOST, "AZPG_DATABASE_NAME": "shop"}
TENANT = "7b2f3c64-9c0d-4a57-8c7e-5d2f0a6b1e93"
SOURCES = ["keyword", "environment", ".env.prod", ".env", "secrets", "prod.toml", "toml"]
FILES = [".env.prod", ".env", "azpgauth.prod.toml", "azpgauth.toml"]


def lay_out(folder, source, found, keywords, patch):
    if source == "keyword":
        for (section, name), text in found.items():
            keywords.setdefault(section, {})[name] = text
    elif source == "environment":
        for key, text in found.items():
            patch.setenv(variable(*key), text)
    elif source == "secrets":
        for key, text in found.items():
            (folder / "secrets" / variable(*key)).write_text(text + "\n")
    elif source.startswith(".env"):
        lines = [f"{variable(*key)}={text}\n" for key, text in found.items()]
        (folder / source).write_text("".join(lines))
    else:
        tables = {}
        for (section, name), text in found.items():
            tables.setdefault(section, []).append(f'{name} = "{text}"\n')
        text = "".join(f"[{name}]\n{''.join(rows)}" for name, rows in tables.items())
        (folder / f"azpgauth.{source}").write_text(text)


@contextmanager
def world(folder, values):
    """Values laid out over the sources: {source: {(section, field): text}}; gives the keywords."""
    os.chdir(folder)
    for name in (*FILES, *(f"secrets/{variable(*key)}" for key in VALUES)):
        (folder / name).unlink(missing_ok=True)
    (folder / "secrets").mkdir(exist_ok=True)
    keywords = {"env": "prod", "secrets_dir": "secrets"}
    with pytest.MonkeyPatch.context() as patch:
        for source, found in values.items():
            lay_out(folder, source, found, keywords, patch)
        (folder / ".env.prod").touch()
        yield keywords


VALUES = {
    ("server", "host"): st.sampled_from([HOST, "a.example,b.example", "::1"]),
    ("server", "port"): st.integers(1, 65535).map(str),
    ("server", "sslmode"): st.sampled_from(["verify-full", "verify-ca", "require"]),
    ("server", "connect_timeout"): st.integers(1, 100).map(str),
    ("database", "name"): st.sampled_from(["shop", "Größe"]),
    ("database", "user"): st.sampled_from(["ada@example.com", "me"]),
    ("driver", "name"): st.sampled_from(["psycopg", "asyncpg"]),
    ("pool", "max_size"): st.integers(10, 50).map(str),
    ("pool", "timeout"): st.floats(0.5, 100).map(str),
    ("credential", "kind"): st.just("client-secret"),
    ("credential", "tenant_id"): st.just(TENANT),
    ("credential", "client_id"): st.sampled_from(["c", "d"]),
    ("credential", "client_secret"): st.sampled_from(["s3cret", "p w'd"]),
    ("credential", "refresh"): st.sampled_from(["background", "on-demand"]),
}
NEEDED = {
    *(("server", "host"), ("database", "name"), ("credential", "kind")),
    *(("credential", "tenant_id"), ("credential", "client_id"), ("credential", "client_secret")),
}
WHOLE = st.fixed_dictionaries(
    {key: VALUES[key] for key in NEEDED},
    optional={key: found for key, found in VALUES.items() if key not in NEEDED},
)
MANY = settings(suppress_health_check=list(HealthCheck), deadline=None)
pytestmark = pytest.mark.filterwarnings("ignore:credential.client_secret is in")


@MANY
@given(whole=WHOLE, data=st.data())
def test_any_split_gives_the_settings_of_the_whole(tmp_path_factory, whole, data):
    folder = tmp_path_factory.getbasetemp()
    before = dict(os.environ)
    split = {key: data.draw(st.sampled_from(SOURCES), label=str(key)) for key in whole}
    parts = {}
    for key, source in split.items():
        parts.setdefault(source, {})[key] = whole[key]
    with world(folder, parts) as keywords:
        found = load_settings(**keywords)
        told = explain(found)
    with world(folder, {"keyword": whole}) as keywords:
        assert load_settings(**keywords) == found
    for key, source in split.items():
        origin = told[".".join(key)].origin
        words = {
            "keyword": "keyword argument",
            "environment": f"environment variable {variable(*key)}",
            "secrets": f"file secrets/{variable(*key)}",
            "prod.toml": f"azpgauth.prod.toml, [{key[0]}] {key[1]}",
            "toml": f"azpgauth.toml, [{key[0]}] {key[1]}",
        }.get(source, f"{source}, {variable(*key)}")
        assert words in origin.where
    assert {each.setting for each in told.settings if each.origin.kind != "default"} == {
        ".".join(key) for key in whole
    }
    assert dict(os.environ) == before


@pytest.mark.parametrize(("higher", "lower"), list(combinations(SOURCES, 2)))
def test_precedence_of_every_pair(tmp_path, higher, lower):
    base = {("server", "host"): HOST, ("database", "name"): "shop"}
    parts = {"toml": dict(base)}
    parts.setdefault(lower, {})[("server", "port")] = "1111"
    parts.setdefault(higher, {})[("server", "port")] = "2222"
    with world(tmp_path, parts) as keywords:
        found = load_settings(**keywords)
    assert found.server.port == 2222
    ((value, origin),) = explain(found)["server.port"].shadowed
    assert value == "1111"
    assert origin.where


CONVENTIONS = {
    "service connector": {"AZURE_POSTGRESQL_HOST": "a.example"},
    "url": {"DATABASE_URL": "postgresql://b.example"},
    "pg": {"PGHOST": "c.example"},
    "postgres": {"POSTGRES_SERVER": "d.example"},
}


@pytest.mark.parametrize(("higher", "lower"), list(combinations(CONVENTIONS, 2)))
def test_precedence_among_conventions_and_below_ours(monkeypatch, higher, lower):
    monkeypatch.setenv("AZPG_DATABASE_NAME", "shop")
    # The lower one from the environment, the higher one from .env: the family's rank decides.
    for name, value in CONVENTIONS[lower].items():
        monkeypatch.setenv(name, value)
    Path(".env").write_text("".join(f"{k}={v}\n" for k, v in CONVENTIONS[higher].items()))
    host = next(iter(CONVENTIONS[higher].values())).removeprefix("postgresql://")
    found = load_settings()
    assert found.server.host == host
    assert explain(found)["server.host"].origin.kind == "convention"
    Path("azpgauth.toml").write_text('[server]\nhost = "ours.example"\n')
    assert load_settings().server.host == "ours.example"


SERVICE_CONNECTOR = {
    "python": {
        "AZURE_POSTGRESQL_CONNECTIONSTRING": f"dbname=shop host={HOST} port=5432 "
        "sslmode=require user=app"
    },
    "django": {
        "AZURE_POSTGRESQL_NAME": "shop",
        "AZURE_POSTGRESQL_HOST": HOST,
        "AZURE_POSTGRESQL_USER": "app",
    },
    "none": {
        "AZURE_POSTGRESQL_HOST": HOST,
        "AZURE_POSTGRESQL_USERNAME": "app",
        "AZURE_POSTGRESQL_DATABASE": "shop",
        "AZURE_POSTGRESQL_PORT": "5432",
        "AZURE_POSTGRESQL_SSL": "true",
    },
    "old": {
        "AZURE_POSTGRESQL_HOST": HOST,
        "AZURE_POSTGRESQL_USER": "app@shop",
        "AZURE_POSTGRESQL_NAME": "shop",
    },
    "java": {
        "AZURE_POSTGRESQL_CONNECTIONSTRING": f"jdbc:postgresql://{HOST}:5432/shop"
        "?sslmode=require&user=app"
    },
    "dotnet": {
        "AZURE_POSTGRESQL_CONNECTIONSTRING": f"Server={HOST};Database=shop;Port=5432;"
        "Ssl Mode=Require;User Id=app;"
    },
    "quoted": {"AZURE_POSTGRESQL_CONNECTIONSTRING": f"host = '{HOST}' dbname='shop' user = 'app'"},
}
IDENTITIES = {
    "system-assigned": ({}, "default", {}),
    "user-assigned": (
        {"AZURE_POSTGRESQL_CLIENTID": "c"},
        "managed-identity",
        {"client_id": "c"},
    ),
    "service principal": (
        {
            "AZURE_POSTGRESQL_CLIENTID": "c",
            "AZURE_POSTGRESQL_CLIENTSECRET": "s3cret",
            "AZURE_POSTGRESQL_TENANTID": TENANT,
        },
        "client-secret",
        {"client_id": "c", "tenant_id": TENANT},
    ),
}


@pytest.mark.parametrize("client", SERVICE_CONNECTOR)
@pytest.mark.parametrize("identity", IDENTITIES)
def test_service_connector(monkeypatch, client, identity):
    more, kind, fields = IDENTITIES[identity]
    for name, value in {**SERVICE_CONNECTOR[client], **more}.items():
        monkeypatch.setenv(name, value)
    found = load_settings()
    assert (found.server.host, found.server.port) == (HOST, 5432)
    assert (found.database.name, found.database.user) == ("shop", "app")
    assert found.server.sslmode == "verify-full", "what others say does not weaken it"
    assert found.credential.kind == kind
    for name, value in fields.items():
        assert getattr(found.credential, name) == value


def test_a_tenant_alone_is_of_no_use_and_does_no_harm(monkeypatch):
    for name, value in {**GOOD, "AZURE_POSTGRESQL_TENANTID": TENANT}.items():
        monkeypatch.setenv(name, value)
    found = load_settings()
    assert found.credential.kind == "default"
    (dropped,) = explain(found).dropped
    assert dropped.setting == "credential.tenant_id"


def test_a_user_principal_name_keeps_its_domain(monkeypatch):
    monkeypatch.setenv("AZURE_POSTGRESQL_HOST", HOST)
    monkeypatch.setenv("AZURE_POSTGRESQL_NAME", "shop")
    monkeypatch.setenv("AZURE_POSTGRESQL_USER", "ada@example.com")
    assert load_settings().database.user == "ada@example.com"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"postgres://app@{HOST}:6432/shop", (HOST, 6432, "shop", "app")),
        (f"postgresql+psycopg://{HOST}/shop", (HOST, 5432, "shop", None)),
        (
            f"postgresql+asyncpg://ada%40x.com@{HOST}/sh%6Fp?ssl=require",
            (HOST, 5432, "shop", "ada@x.com"),
        ),
        ("postgresql://a:6432,b:6432/shop", (("a", "b"), 6432, "shop", None)),
        ("postgresql://[::1]:6432/shop", ("::1", 6432, "shop", None)),
        (f"postgresql:///shop?host={HOST}&user=app&port=6432", (HOST, 6432, "shop", "app")),
    ],
)
def test_database_urls(monkeypatch, url, expected):
    monkeypatch.setenv("DATABASE_URL", url)
    found = load_settings()
    server, database = found.server, found.database
    assert (server.host, server.port, database.name, database.user) == expected
    assert server.sslmode == "verify-full"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("host=h dbname=d password='a;b' user=u", {"password": "a;b", "host": "h"}),
        ('Server=h;Database=d;UID=u;Pwd="a;""b"', {"password": 'a;"b', "user": "u"}),
        ("Host=h;Database=d;SslMode=VerifyFull", {"sslmode": "VerifyFull"}),
        ("jdbc:postgresql://h:5432/d?ssl=true", {"ssl": "true", "dbname": "d"}),
        ("postgresql://h/d?password=a+b", {"password": "a+b"}),
        ("postgresql://localhost/d?host=H", {"host": "H"}),
    ],
)
def test_connection_strings(text, expected):
    found = connection_string(text)
    assert expected.items() <= found.items()


@given(st.text(st.characters(codec="ascii"), max_size=30))
def test_any_password_comes_through_a_url_or_is_not_guessed_at(password):
    encoded = quote(password, safe="")
    assert postgres_url(f"postgresql://u:{encoded}@h:1/d").get("password", "") == password
    try:
        found = postgres_url(f"postgresql://u:{password}@h:1/d")
    except StringError as exc:
        error = f"{exc.reason} {exc.action}"
    else:
        error = ""
        parts = {"user": "u", "host": "h", "port": "1", "dbname": "d", "password": ""}
        assert {**found, "password": ""} == parts
    assert len(password) < 4 or password not in error


def test_a_url_of_another_scheme_does_not_matter_where_the_host_is_known(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "mysql://u:hunter2@h/other")
    monkeypatch.setenv("PGHOST", HOST)
    monkeypatch.setenv("PGDATABASE", "shop")
    assert load_settings().database.name == "shop"


@pytest.mark.parametrize(
    ("ours", "theirs", "holds"),
    [
        (None, "require", "verify-full"),
        (None, "disable", "verify-full"),
        ("require", "verify-full", "verify-full"),
        ("require", "verify-ca", "verify-ca"),
        ("verify-ca", "require", "verify-ca"),
    ],
)
def test_what_others_say_raises_the_sslmode_and_never_lowers_it(monkeypatch, ours, theirs, holds):
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    if ours:
        monkeypatch.setenv("AZPG_SERVER_SSLMODE", ours)
    monkeypatch.setenv("PGHOST", GOOD["AZPG_SERVER_HOST"].upper())
    monkeypatch.setenv("PGSSLMODE", theirs)
    found = load_settings()
    assert found.server.sslmode == holds
    told = explain(found)
    if holds == theirs:
        assert told["server.sslmode"].origin.where == "environment variable PGSSLMODE"
        assert told["server.sslmode"].shadowed[0][0] == ours
    else:
        (dropped,) = told.dropped
        assert "cannot lower it" in dropped.reason
        assert "PGSSLMODE" in str(told)


def test_a_local_password_may_come_from_others(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:s3cret@127.0.0.1/shop")
    monkeypatch.setenv("AZPG_CREDENTIAL_KIND", "password")
    found = load_settings()
    assert found.credential.password.get_secret_value() == "s3cret"
    assert explain(found)["credential.password"].origin.where.endswith("DATABASE_URL, password")


def test_an_empty_variable_does_not_hide_that_of_a_file(monkeypatch):
    monkeypatch.setenv("PGHOST", "")
    Path(".env").write_text(f"PGHOST={HOST}\nPGDATABASE=shop\n")
    assert load_settings().server.host == HOST


def test_an_empty_variable_of_others_is_none(monkeypatch):
    for name, value in {**GOOD, "PGPORT": "", "PGPASSWORD": "", "PGSSLROOTCERT": "system"}.items():
        monkeypatch.setenv(name, value)
    assert load_settings().server.port == 5432


# -- files ---------------------------------------------------------------------------------------


def test_environments(monkeypatch):
    Path("azpgauth.toml").write_text(
        f'[server]\nhost = "{HOST}"\nport = 1\n[database]\nname = "shop"\n[pool]\nmax_size = 20\n'
    )
    Path("azpgauth.prod.toml").write_text("[server]\nport = 2\n[pool]\nmin_size = 5\n")
    Path(".env").write_text("AZPG_POOL_TIMEOUT=1\nAZPG_POOL_MAX_IDLE=1\nAZPG_ENV=prod\n")
    Path(".env.prod").write_text("AZPG_POOL_TIMEOUT=2\n")
    found = load_settings()
    assert found.server.port == 2
    assert found.server.host == HOST, "siblings are kept"
    assert (found.pool.min_size, found.pool.max_size) == (5, 20)
    assert (found.pool.timeout, found.pool.max_idle) == (2, 1)
    Path("azpgauth.staging.toml").write_text("")
    monkeypatch.setenv("AZPG_ENV", "staging")
    assert load_settings().server.port == 1
    assert load_settings(env="prod").server.port == 2


def test_files_come_from_the_working_directory_alone(monkeypatch, tmp_path):
    (tmp_path / "azpgauth.toml").write_text("[server]\nport = 1\n")
    (tmp_path / ".env").write_text("AZPG_SERVER_PORT=1\n")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    assert load_settings().server.port == 5432


def test_a_named_file_with_its_neighbour(monkeypatch):
    Path("etc").mkdir()
    Path("etc/db.toml").write_text(f'[server]\nhost = "{HOST}"\n[database]\nname = "shop"\n')
    Path("etc/db.prod.toml").write_text("[server]\nport = 6432\n")
    Path("etc/db.env").write_text("AZPG_POOL_TIMEOUT=1\n")
    Path("azpgauth.toml").write_text("[server]\nport = 1\n")
    monkeypatch.setenv("AZPG_CONFIG", "etc/db.toml")
    assert load_settings().server.port == 5432
    found = load_settings(env="prod", env_file="etc/db.env")
    assert (found.server.port, found.pool.timeout) == (6432, 1)
    assert load_settings(config="etc/db.toml").server.port == 5432


def test_a_secrets_directory(monkeypatch):
    Path("run").mkdir()
    Path("run/azpg_credential_client_secret").write_text(" s3cret \r\n")
    Path("run/OTHER").write_text("not ours")
    Path("run/..data").mkdir()
    for name, value in {
        **GOOD,
        "AZPG_CREDENTIAL_KIND": "client-secret",
        "AZPG_CREDENTIAL_TENANT_ID": TENANT,
        "AZPG_CREDENTIAL_CLIENT_ID": "c",
        "AZPG_SECRETS_DIR": "run",
    }.items():
        monkeypatch.setenv(name, value)
    found = load_settings()
    assert found.credential.client_secret.get_secret_value() == "s3cret"
    origin = explain(found)["credential.client_secret"].origin
    assert (origin.kind, origin.where) == ("secret", "file run/azpg_credential_client_secret")


def test_names_in_any_case(monkeypatch):
    Path("azpgauth.prod.toml").write_text("[pool]\nmax_size = 20\n")
    for name, value in {**GOOD, "azpg_env": "prod", "azpg_server_port": "1"}.items():
        monkeypatch.setenv(name, value)
    assert (load_settings().pool.max_size, load_settings().server.port) == (20, 1)
    monkeypatch.setenv("AZPG_SERVER_PORT", "2")
    assert load_settings().server.port == 2


def test_a_second_database_in_the_environment_of_the_first(monkeypatch):
    Path("etc").mkdir()
    Path("etc/db.toml").write_text("")
    Path("etc/db.prod.toml").write_text("")
    for name, value in {
        "AZPG_ENV": "prod",
        "AZPG_CONFIG": "etc/db.toml",
        "R_SERVER_HOST": "r.example",
        "R_DATABASE_NAME": "r",
        "R_DATABASE_URL": "not ours",
        "R_SERVER_WORKERS": "4",
    }.items():
        monkeypatch.setenv(name, value)
    assert load_settings(prefix="R_").server.host == "r.example"


def test_a_second_database(monkeypatch):
    Path("azpgauth.toml").write_text("[server]\nport = 1\n")
    Path("reports.toml").write_text("[server]\nport = 6432\n")
    Path(".env").write_text("REPORTS_DATABASE_NAME=reports\nAZPG_DATABASE_NAME=shop\n")
    for name, value in {
        "REPORTS_SERVER_HOST": "r.example",
        "REPORTS_BUCKET": "not ours",
        "REPORTS_DATABASE": "not ours, either",
        "AZPG_SERVER_HOST": HOST,
        "PGPORT": "7",
    }.items():
        monkeypatch.setenv(name, value)
    reports = load_settings(prefix="REPORTS_")
    assert (reports.server.host, reports.server.port) == ("r.example", 5432)
    assert reports.database.name == "reports"
    assert load_settings(prefix="REPORTS_", config="reports.toml").server.port == 6432
    assert load_settings().server.host == HOST


# -- origins, dropped values ----------------------------------------------------------------------


def test_what_was_dropped_and_shadowed_is_data(monkeypatch):
    Path("azpgauth.toml").write_text(
        f'[server]\nhost = "{HOST}"\n[database]\nname = "shop"\n'
        '[credential]\nkind = "managed-identity"\nclient_id = "c"\n'
    )
    monkeypatch.setenv("AZPG_CREDENTIAL_KIND", "azure-cli")
    found = load_settings()
    told = explain(found)
    kind = told["credential.kind"]
    assert (kind.value, kind.origin.kind) == ("azure-cli", "environment")
    assert [(value, str(origin)) for value, origin in kind.shadowed] == [
        ("managed-identity", "azpgauth.toml, [credential] kind")
    ]
    (dropped,) = told.dropped
    assert (dropped.setting, dropped.value) == ("credential.client_id", "c")
    assert dropped.reason == "is not for kind azure-cli"
    assert told.masked()["server"]["host"] == HOST
    assert "set aside:" in str(told)
    with pytest.raises(KeyError):
        told["server.hots"]


def test_settings_of_a_program_are_told_as_such():
    made = Settings(server={"host": "h"}, database={"name": "d"})
    assert explain(made)["server.host"].origin.where == "the program"
    assert explain(made)["server.port"].origin.kind == "default"
    assert explain(made).masked()["credential"]["kind"] == "default"


def test_origins_go_with_their_settings(monkeypatch):
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    known = __import__("sys").modules[explain_module.__module__]._known
    gc.collect()
    before = len(known)
    found = load_settings()
    assert len(known) == before + 1
    assert explain(found.model_copy())["server.host"].origin.where == "the program"
    del found
    gc.collect()
    assert len(known) == before


# -- embedding, pickling, pydantic's own errors ---------------------------------------------------


SECRETIVE = {
    "server": {"host": "h"},
    "database": {"name": "d"},
    "credential": {
        "kind": "client-secret",
        "tenant_id": TENANT,
        "client_id": "c",
        "client_secret": "hunter2",
    },
}


class App(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="APP_", env_nested_delimiter="__")

    db: Settings
    others: dict[str, Settings] = {}
    debug: bool = False


def test_settings_embed(monkeypatch):
    monkeypatch.setenv("APP_DB__SERVER__HOST", HOST)
    monkeypatch.setenv("APP_DB__DATABASE__NAME", "shop")
    monkeypatch.setenv("APP_DB__CREDENTIAL__CLIENT_ID", "c")
    app = App(others={"reports": SECRETIVE})
    assert app.db.server.host == HOST
    assert (app.db.credential.kind, app.db.credential.client_id) == ("default", "c")
    assert app.others["reports"].credential.kind == "client-secret"
    assert "hunter2" not in repr(app) + app.model_dump_json()


@pytest.mark.parametrize(
    "change",
    [
        {"server": {}},
        {"database": {"name": 5}},
        {"credential": {**SECRETIVE["credential"], "tenant_id": None}},
        {"credential": {**SECRETIVE["credential"], "kind": "azure-cli"}},
        {"credential": {**SECRETIVE["credential"], "kind": "nonsense"}},
        {"credential": {**SECRETIVE["credential"], "client_secret": ["hunter2"]}},
        {"credential": {"client_secret": "hunter2", "kind": "client-secret"}},
        {"nonsense": 1},
    ],
    ids=str,
)
def test_pydantics_own_errors_do_not_have_the_secret(change):
    class Application(BaseModel):
        db: Settings

    for make in (Settings.model_validate, lambda data: Application(db=data)):
        with pytest.raises(ValidationError) as caught:
            make({**SECRETIVE, **change})
        assert "hunter2" not in str(caught.value) + repr(caught.value.errors())
        assert "hunter2" not in caught.value.json()


@pytest.mark.parametrize(
    "given",
    [
        {"server": {"host": HOST, "sslmode": "disable"}, "credential": SECRETIVE["credential"]},
        {"server": {"host": HOST, "cloud": "china"}, "credential": SECRETIVE["credential"]},
        {"credential": {**SECRETIVE["credential"], "client_secrt": "hunter2"}},
        {"credential": {**SECRETIVE["credential"], "CLIENT_SECRET": "hunter2"}},
        {"credential": "hunter2"},
        {"credential": [{"client_secret": "hunter2"}]},
        {"database": {"name": "d", "password": "hunter2"}},
        {"password": "hunter2"},
    ],
    ids=str,
)
def test_a_secret_in_the_wrong_place_is_not_shown_either(given):
    class Application(BaseModel):
        db: Settings

    data = {**SECRETIVE, **given}
    for make in (Settings.model_validate, lambda data: Application(db=data)):
        with pytest.raises(ValidationError) as caught:
            make(data)
        assert "hunter2" not in str(caught.value) + repr(caught.value.errors())
        assert "hunter2" not in caught.value.json()


def test_secrets_come_from_json_too():
    class Application(BaseModel):
        db: Settings

    text = json.dumps(SECRETIVE)
    found = Settings.model_validate_json(text)
    nested = Application.model_validate_json(f'{{"db": {text}}}').db
    assert found == nested == Settings.model_validate(SECRETIVE)
    assert found.credential.client_secret.get_secret_value() == "hunter2"


def test_a_pickle_has_no_secret_and_says_so_when_it_is_wanted():
    made = Settings.model_validate(SECRETIVE)
    assert copy.deepcopy(made) == copy.copy(made) == made
    assert copy.deepcopy(made).credential.client_secret.get_secret_value() == "hunter2"
    blob = pickle.dumps(made)
    assert b"hunter2" not in blob
    again = pickle.loads(blob)  # noqa: S301 - our own
    assert again.server == made.server
    hash(again)
    with pytest.raises(SettingsError, match=r"pickles are not for secrets[\s\S]*load_settings"):
        again.credential.client_secret.get_secret_value()
