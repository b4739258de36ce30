"""Families of other tools: each describes one server, and counts as a whole or not at all."""

import os
from pathlib import Path

import pytest
from dotenv import load_dotenv
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from azpgauth import Settings, SettingsError, explain, load_settings
from azpgauth.settings.sources.readers import read_dotenv

H = "shop.postgres.database.azure.com"
GOOD = {"AZPG_SERVER_HOST": H, "AZPG_DATABASE_NAME": "shop"}
LOCAL = {
    "PGHOST": "localhost",
    "PGPORT": "5433",
    "PGUSER": "postgres",
    "PGDATABASE": "dev",
    "PGPASSWORD": "pw",
}
DATABASE_URL = "postgresql://postgres:pw@localhost:5432/dev"
SERVERS = ("a", "b", "c.example.com")


def loaded(monkeypatch, variables, **keywords):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load_settings(**keywords)


def mistake(monkeypatch, variables):
    with pytest.raises(SettingsError) as caught:
        loaded(monkeypatch, variables)
    (problem,) = caught.value.problems
    return problem


# -- which one counts ----------------------------------------------------------------------------


@pytest.mark.parametrize("others", [LOCAL, {"DATABASE_URL": DATABASE_URL}, {"DB_PASSWORD": "pw"}])
def test_another_server_lends_nothing_and_is_shown(monkeypatch, others):
    found = loaded(monkeypatch, {**GOOD, **others})
    assert (found.server.port, found.database.user, found.credential.kind) == (
        5432,
        None,
        "default",
    )
    aside = explain(found).dropped
    assert {each.origin.where.split(" ")[2].strip(",") for each in aside} == set(others)
    assert all(each.reason for each in aside)
    assert "pw" not in str(explain(found))
    assert explain(found).set_aside()


def test_the_same_host_in_other_letters_counts(monkeypatch):
    found = loaded(monkeypatch, {**GOOD, "PGHOST": H.upper(), "PGPORT": "6432", "PGUSER": "app"})
    assert (found.server.port, found.database.user) == (6432, "app")


def test_hosts_compare_as_sets_and_keep_their_ports(monkeypatch):
    ours = {"AZPG_SERVER_HOST": "a,b", "AZPG_DATABASE_NAME": "shop"}
    found = loaded(monkeypatch, {**ours, "PGHOST": "b,a", "PGPORT": "1,2"})
    assert (found.server.hosts, found.server.port) == (("a", "b"), (2, 1))


def test_what_has_no_setting_here_is_set_aside_by_name(monkeypatch):
    others = {"PGHOST": H, "PGHOSTADDR": "10.0.0.1", "PGSSLCERT": "/c", "PGCONNECT_TIMEOUT": "0"}
    found = loaded(monkeypatch, {"AZPG_DATABASE_NAME": "shop", **others})
    assert {each.origin.name for each in explain(found).dropped} == set(others) - {"PGHOST"}
    assert found.server.hostaddr is None


def test_a_file_that_names_another_host_is_a_family_of_its_own(monkeypatch):
    Path(".env").write_text("PGHOST=b\nPGPORT=6432\nPGUSER=other\n")
    found = loaded(monkeypatch, {"PGHOST": "a", "AZPG_DATABASE_NAME": "shop"})
    assert (found.server.host, found.server.port, found.database.user) == ("a", 5432, None)


@st.composite
def families(draw):
    """Some families of some servers, in which port, user, database and password tell the server."""
    sources = [{}, {}]
    for prefix, words in (
        ("PG", ("HOST", "PORT", "USER", "DATABASE", "PASSWORD")),
        ("POSTGRES_", ("SERVER", "PORT", "USER", "DB", "PASSWORD")),
        ("DB_", ("HOST", "PORT", "USERNAME", "NAME", "PASS")),
        ("AZURE_POSTGRESQL_", ("HOST", "PORT", "USERNAME", "DATABASE", "PASSWORD")),
    ):
        for source in sources:
            number = draw(st.integers(0, len(SERVERS)))
            if number == len(SERVERS):
                continue
            values = (SERVERS[number], 7000 + number, f"u{number}", f"d{number}", f"p{number}")
            for word, value in zip(words, values, strict=True):
                # Without its host, it could be anybody's.
                if word in {"HOST", "SERVER"} or draw(st.booleans()):
                    source[f"{prefix}{word}"] = str(value)
    for source in sources:
        number = draw(st.integers(0, len(SERVERS)))
        if number < len(SERVERS):
            place = f"{SERVERS[number]}:{7000 + number}"
            source["DATABASE_URL"] = f"postgresql://u{number}:p{number}@{place}/d{number}"
    host = draw(st.sampled_from([*SERVERS, None]))
    return sources, host


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(world=families())
def test_nothing_of_one_server_goes_with_the_host_of_another(world, tmp_path):
    (environment, file), host = world
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        lines = [f"{name}={value}\n" for name, value in file.items()]
        Path(".env").write_text("".join(lines))
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setenv("AZPG_CREDENTIAL_KIND", "password")
        if host:
            patch.setenv("AZPG_SERVER_HOST", host)
        try:
            found = load_settings()
        except SettingsError as exc:
            assert {each.setting for each in exc.problems} <= {  # noqa: PT017 - either is right
                *("server.host", "database.name", "database.user", "credential.password")
            }
            return
    number = SERVERS.index(found.server.host)
    assert found.server.port in {5432, 7000 + number}
    assert found.database.user == f"u{number}"
    assert found.database.name == f"d{number}"
    assert found.credential.password.get_secret_value() == f"p{number}"


# -- .env, as python-dotenv has it ---------------------------------------------------------------

LINES = st.lists(
    st.one_of(
        st.builds(
            "{}={}".format, st.sampled_from("ABC"), st.text("abA${}:-'\" #\\\n", max_size=12)
        ),
        st.text(max_size=8),
    ),
    max_size=6,
).map("\n".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=LINES, outside=st.dictionaries(st.sampled_from("ABC"), st.text("xyz", max_size=3)))
def test_interpolation_is_that_of_load_dotenv(text, outside, tmp_path):
    path = tmp_path / ".env"
    path.write_text(text, encoding="utf-8", errors="replace", newline="")
    with pytest.MonkeyPatch.context() as patch:
        for name in "ABC":
            patch.delenv(name, raising=False)
        for name, value in outside.items():
            patch.setenv(name, value)
        found, _ = read_dotenv(path)
        before = dict(os.environ)
        load_dotenv(path)
        theirs = {name: os.environ[name] for name in "ABC" if name in os.environ}
        os.environ.clear()
        os.environ.update(before)
    ours = {name: value.raw for name, value in found.items() if name in "ABC"}
    assert {**ours, **outside} == {name: value.strip() for name, value in theirs.items()}


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)
@given(content=st.one_of(st.binary(max_size=80), st.text(max_size=40).map(str.encode)))
def test_no_content_of_a_file_raises_anything_but_ours(content, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        for name, value in GOOD.items():
            patch.setenv(name, value)
        for before in (b"", b"AZPG_DATABASE_USER=", b"DATABASE_URL=", b"\xff\xfe", b"\xef\xbb\xbf"):
            Path(".env").write_bytes(before + content)
            try:
                load_settings()
            except SettingsError as exc:
                str(exc)


@pytest.mark.parametrize(
    "content",
    [
        b"JWT_SECRET='it's fine'\n",
        "NAME=M\u00fcller\n".encode("latin-1"),
        "\ufeffNAME=x\n".encode("utf-16"),
        "NAME=x\n".encode("utf-16-le"),
        b"[section]\n=x\n",
        b"\x80\x81\n",
    ],
)
def test_what_is_no_concern_of_ours_is_no_mistake(monkeypatch, content):
    Path(".env").write_bytes(content)
    assert loaded(monkeypatch, GOOD).server.host == H


def test_a_folder_of_that_name_is_none_either(monkeypatch):
    Path(".env").mkdir()
    assert loaded(monkeypatch, GOOD).server.host == H


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings(monkeypatch, encoding):
    Path(".env").write_bytes("AZPG_DATABASE_USER=Zo\u00eb\nX=1\n".encode(encoding))
    assert loaded(monkeypatch, GOOD).database.user == "Zo\u00eb"


def test_a_value_of_ours_that_is_no_text_is_a_mistake(monkeypatch):
    Path(".env").write_bytes(b"AZPG_DATABASE_USER=Zo\xeb\n")
    assert mistake(monkeypatch, GOOD).setting == "database.user"


# -- text as people have it ----------------------------------------------------------------------


@pytest.mark.parametrize("source", ["keyword", "environment", ".env", "toml", "secret", "direct"])
def test_white_space_is_trimmed_in_all_sources_alike(monkeypatch, source):
    base = {"AZPG_SERVER_HOST": H, "AZPG_DATABASE_USER": "app", "AZPG_CREDENTIAL_KIND": "password"}
    name, password, keywords = " shop\n", "\tpw \r\n", {}
    if source == "direct":
        found = Settings(
            server={"host": H},
            database={"name": name, "user": "app"},
            credential={"kind": "password", "password": password},
        )
        assert (found.database.name, found.credential.password.get_secret_value()) == ("shop", "pw")
        return
    if source == "keyword":
        keywords = {"database": {"name": name}, "credential": {"password": password}}
    elif source == "environment":
        base |= {"AZPG_DATABASE_NAME": name, "AZPG_CREDENTIAL_PASSWORD": password}
    elif source == ".env":
        text = f'AZPG_DATABASE_NAME="{name}"\nAZPG_CREDENTIAL_PASSWORD="{password}"\n'
        Path(".env").write_text(text, newline="")
    elif source == "toml":
        text = '[database]\nname = " shop\\n"\n[credential]\npassword = "\\tpw \\r\\n"\n'
        Path("azpgauth.toml").write_text(text)
    else:
        Path("run").mkdir()
        Path("run/AZPG_DATABASE_NAME").write_text(name)
        Path("run/AZPG_CREDENTIAL_PASSWORD").write_text(password, newline="")
        keywords = {"secrets_dir": "run"}
    with (
        pytest.warns(UserWarning, match="secret in a file")
        if source == "toml"
        else pytest.MonkeyPatch.context()
    ):
        found = loaded(monkeypatch, base, **keywords)
    assert (found.database.name, found.credential.password.get_secret_value()) == ("shop", "pw")


@pytest.mark.parametrize(
    "left", ["${X}", "a-$(db.name)", "${{ vars.DB }}", "<name>", "{your_name}"]
)
@pytest.mark.parametrize(
    "name", ["AZPG_DATABASE_NAME", "AZPG_DATABASE_USER", "AZPG_SERVER_SSLROOTCERT"]
)
def test_a_placeholder_is_one_mistake_in_any_field(monkeypatch, name, left):
    problem = mistake(monkeypatch, {**GOOD, name: left})
    assert "placeholder" in problem.reason
    assert name in problem.origin


@pytest.mark.parametrize(
    ("password", "is_one"), [("{your_password}", True), ("<pw>", True), ("p<x>${y}", False)]
)
def test_in_a_secret_only_the_whole_value_is_one(monkeypatch, password, is_one):
    world = {"AZPG_CREDENTIAL_KIND": "password", "DATABASE_URL": f"postgresql://a:{password}@h/d"}
    if is_one:
        assert mistake(monkeypatch, world).setting == "credential.password"
    else:
        assert loaded(monkeypatch, world).credential.password.get_secret_value() == password


VAULT = "@Microsoft.KeyVault(SecretUri=https://v.vault.azure.net/secrets/x)"


@pytest.mark.parametrize(
    ("variables", "setting"),
    [
        ({"AZURE_POSTGRESQL_HOST": H, "AZURE_POSTGRESQL_PASSWORD": VAULT}, "credential.password"),
        ({"AZURE_POSTGRESQL_CONNECTIONSTRING": VAULT}, "server.host"),
        ({"DATABASE_URL": VAULT}, "server.host"),
        ({"DATABASE_URL": f"postgresql://app:{VAULT}@{H}/shop"}, "server.host"),
        ({"AZPG_SERVER_HOST": VAULT}, "server.host"),
    ],
)
def test_a_reference_that_was_not_resolved(monkeypatch, variables, setting):
    world = {"AZPG_DATABASE_NAME": "shop", "AZPG_DATABASE_USER": "app", **variables}
    if "AZURE_POSTGRESQL_PASSWORD" in variables:
        world["AZPG_CREDENTIAL_KIND"] = "password"
    problem = mistake(monkeypatch, world)
    assert (problem.setting, "App Service did not resolve" in problem.reason) == (setting, True)


@pytest.mark.parametrize(
    ("user", "host", "role"),
    [
        ("app@shop", H, "app"),
        ("ada@contoso.com@shop", H, "ada@contoso.com"),
        ("ada@contoso.com", H, "ada@contoso.com"),
        ("app@shop", "shop.example.com", "app@shop"),
    ],
)
def test_the_user_of_the_old_single_server(monkeypatch, user, host, role):
    world = {"PGHOST": host, "PGUSER": user, "PGDATABASE": "shop"}
    assert loaded(monkeypatch, world).database.user == role
    monkeypatch.setenv("DATABASE_URL", f"postgres://{user}@{host}:5432/shop")
    assert load_settings().database.user == role


@pytest.mark.parametrize(
    ("claim", "client_id"),
    [
        (None, "c"),
        ("AZURE_CLIENT_SECRET", None),
        ("AZURE_CLIENT_CERTIFICATE_PATH", None),
        ("AZURE_FEDERATED_TOKEN_FILE", None),
    ],
)
def test_azure_client_id_is_the_managed_identitys_unless_it_is_claimed(
    monkeypatch, claim, client_id
):
    world = {**GOOD, "AZPG_CREDENTIAL_KIND": "managed-identity", "AZURE_CLIENT_ID": "c"}
    found = loaded(monkeypatch, {**world, **({claim: "x"} if claim else {})})
    assert found.credential.client_id == client_id
    assert load_settings(credential={"client_id": "mine"}).credential.client_id == "mine"
    assert load_settings(credential={"object_id": "o"}).credential.client_id is None


@pytest.mark.parametrize("driver", ["sqlalchemy-async", "sqlalchemy", "psycopg"])
def test_the_dialect_of_a_url_counts_where_the_driver_has_it(monkeypatch, driver):
    world = {"DATABASE_URL": f"postgresql+asyncpg://{H}/shop", "AZPG_DRIVER_NAME": driver}
    found = loaded(monkeypatch, world)
    asyncpg = driver == "sqlalchemy-async"
    assert found.driver.dialect == ("asyncpg" if asyncpg else "psycopg")
    assert ["driver.dialect"] * (not asyncpg) == [each.setting for each in explain(found).dropped]


def test_an_action_speaks_the_language_of_whoever_reads_it(monkeypatch):
    monkeypatch.setenv("AZPG_POOL_MIN_SIZE", "9")
    Path("azpgauth.toml").write_text("[pool]\nmax_size = 3\n")
    action = "lower AZPG_POOL_MIN_SIZE or raise max_size in [pool]"
    assert mistake(monkeypatch, GOOD).action == action
    Path("azpgauth.toml").write_text("[pool]\nmin_size = 11\n")
    monkeypatch.delenv("AZPG_POOL_MIN_SIZE")
    assert (
        mistake(monkeypatch, GOOD).action == "lower min_size in [pool] or raise max_size in [pool]"
    )


def test_a_url_that_cannot_be_read_is_one_mistake(monkeypatch):
    world = {
        "AZPG_CREDENTIAL_KIND": "password",
        "DATABASE_URL": "postgresql://app:p@ss@localhost/s",
    }
    problem = mistake(monkeypatch, world)
    assert problem.setting == "server.host"
    assert "ss@localhost" not in str(problem)
