"""What reaches a terminal, a report, and a child of `azpgauth run`."""

import json
import pickle
import time

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from azpgauth import SettingsError, explain, load_settings
from azpgauth.cli.app import app
from azpgauth.cli.run import without_secrets
from azpgauth.errors import ConnectError, MissingDriverError, Problem, RoleError, TokenError
from azpgauth.printable import one_line, printable, shortened
from azpgauth.role import no_role

RAW = "\x1b]0;owned\x07\x9b31m\u202egnp\u2066\u2028\u200f\x00\x7f\r\ud800"
GOOD = {"AZPG_SERVER_HOST": "h", "AZPG_DATABASE_NAME": "d"}


def raw(text):
    return [char for char in text if not char.isprintable() and char != "\n"]


@pytest.mark.parametrize("kind", [ConnectError, TokenError, RoleError, MissingDriverError])
def test_the_text_of_an_error_is_safe_to_print(kind):
    assert raw(str(kind(f"the server said {RAW}"))) == []
    assert "\n" in str(kind("two\nlines"))


@given(st.text())
def test_anything_can_be_printed(text):
    assert not [char for char in one_line(text) if not char.isprintable() and char.isascii()]
    printable(text).encode()
    assert one_line(text) == one_line(one_line(text))


def test_what_is_harmless_stays():
    assert printable("Grüße, 東京\n\tx → y") == "Grüße, 東京\n\tx → y"


@pytest.mark.parametrize(
    "world",
    [
        {"env": {"AZPG_SERVER_PORT": RAW.replace("\0", "").replace("\ud800", "")}},
        {"env": {"AZPG_X\x1b[2J": "1"}},
        {"toml": '[server]\nport = "\\u001b]0;owned\\u0007\\u202e"\n'},
        {"toml": '[server]\n"po\\u001b[2Jrt" = 1\n'},
        {"toml": '["ser\\u001bver"]\nport = 1\n'},
        {"toml": '[server]\nhost = "a\\nb\\n  to do: run it"\n'},
        {"toml": "[server]\nport = \x1b[2J\n"},
        {"keywords": {"server": {"po\x1brt": 1}}},
        {"keywords": {"ser\x1bver": {}}},
        {"keywords": {"config": "no\x1b[2Jwhere.toml"}},
        {"keywords": {"env": "pr\x1bod"}},
    ],
    ids=str,
)
def test_a_report_has_nothing_raw(world, monkeypatch, tmp_path):
    for name, value in {**GOOD, **world.get("env", {})}.items():
        monkeypatch.setenv(name, value)
    if "toml" in world:
        monkeypatch.delenv("AZPG_SERVER_HOST")
        (tmp_path / "azpgauth.toml").write_text(world["toml"])
    with pytest.raises(SettingsError) as caught:
        load_settings(**world.get("keywords", {}))
    assert raw(str(caught.value)) == []
    lines = str(caught.value).splitlines()
    assert len(lines) == 1 + 3 * len(caught.value.problems), "a value forged a line"
    if "keywords" not in world:
        for command in (["config"], ["check"], ["token"], ["run", "true"]):
            result = CliRunner().invoke(app, command)
            assert result.exit_code == 3
            assert raw(result.output) == []


def test_explain_and_config_have_nothing_raw(monkeypatch, tmp_path):
    (tmp_path / "azpgauth.toml").write_text(
        '[database]\nname = "d\\u001b[2J\\u202e"\napplication_name = "\\u001b"\n'
        '[server]\nhost = "h"\n'
    )
    monkeypatch.setenv("AZPG_DATABASE_APPLICATION_NAME", "a\nb\x1b")
    assert raw(str(explain(load_settings()))) == []
    assert raw(CliRunner().invoke(app, ["config"]).output) == []
    told = CliRunner().invoke(app, ["config", "--json"]).output
    assert raw(told) == []
    assert json.loads(told)["settings"]["database.name"]["value"] == "d\x1b[2J\u202e"


def test_claims_have_nothing_raw():
    assert raw(str(no_role({"appid": RAW}))) == []


def test_a_report_fits_a_screen_and_keeps_all(monkeypatch):
    for number in range(2000):
        monkeypatch.setenv(f"AZPG_UNKNOWN_{number}_{'X' * 50}", "x" * 10_000)
    monkeypatch.setenv("AZPG_SERVER_PORT", "y" * 100_000)
    begin = time.process_time()
    with pytest.raises(SettingsError) as caught:
        load_settings()
    took = time.process_time() - begin
    error = caught.value
    assert len(error.problems) == 2003
    text = str(error)
    assert len(text) < 25_000
    assert text.splitlines()[-1] == "  ... and 1983 more"
    assert len(pickle.loads(pickle.dumps(error)).problems) == 2003  # noqa: S301 - our own
    assert took < 5, "names are compared without end"
    told = CliRunner().invoke(app, ["config", "--json"])
    assert told.exit_code == 3
    assert len(json.loads(told.output)["problems"]) == 2003
    told = CliRunner().invoke(app, ["check", "--json"])
    assert told.exit_code == 3
    step = json.loads(told.output)["steps"][0]
    assert len(step["problems"]) == 2003
    assert set(step["problems"][0]) == {"setting", "origin", "reason", "action", "value"}


def test_twenty_mistakes_are_all_shown():
    problems = [Problem(f"s{n}", "o", "r", "a") for n in range(20)]
    assert "more" not in str(SettingsError(problems))
    assert "... and 1 more" in str(SettingsError([*problems, problems[0]]))


def test_a_long_value_is_cut_with_its_length():
    assert shortened("x" * 300) == "x" * 300
    assert shortened("x" * 1000).endswith("… (1000 characters)")


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
}


@pytest.mark.parametrize("name", KEPT)
def test_a_child_keeps(name):
    assert without_secrets({name: KEPT[name]}) == {name: KEPT[name]}


@pytest.mark.parametrize("name", GONE)
def test_a_child_does_not_have(name):
    assert without_secrets({name: GONE[name]}) == {}


def test_a_child_does_not_have_what_a_setting_took_whatever_it_is_called():
    assert without_secrets({"A": "s", "B": "s"}, {"A"}) == {"B": "s"}
