import json
import pickle
import re
import sys
import traceback
from pathlib import Path

import pytest
from dotenv import dotenv_values
from jsonschema import Draft202012Validator
from packaging.version import Version
from pages import blocks
from pydantic import VERSION as PYDANTIC

from azpgauth import Settings, SettingsError, load_settings
from azpgauth.settings.models.sections import SECTIONS
from azpgauth.settings.reference import generated
from azpgauth.settings.sources.layers import variable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
GOOD = {"AZPG_SERVER_HOST": "shop.postgres.database.azure.com", "AZPG_DATABASE_NAME": "shop"}


@pytest.fixture
def good(monkeypatch):
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)


def test_defaults(good):
    settings = load_settings()
    assert settings.server.port == 5432
    assert settings.server.sslmode == "verify-full"
    assert settings.server.connect_timeout == 10
    assert settings.driver.name == "psycopg"
    assert settings.pool.model_dump() == {
        "min_size": 1,
        "max_size": 10,
        "timeout": 30,
        "max_lifetime": 3600,
        "max_idle": 600,
    }
    assert settings.credential.kind == "default"
    assert settings.credential.refresh == "background"


def test_ranks(monkeypatch):
    Path("azpgauth.toml").write_text(
        '[server]\nhost = "toml"\nport = 1\nconnect_timeout = 1\n'
        '[database]\nname = "toml"\nuser = "toml"\n'
    )
    Path(".env").write_text("AZPG_SERVER_PORT=2\nAZPG_DATABASE_NAME=dotenv\nOTHER=x\n")
    monkeypatch.setenv("AZPG_DATABASE_NAME", "environment")
    monkeypatch.setenv("AZPG_SERVER_CONNECT_TIMEOUT", "3")
    settings = load_settings(server={"connect_timeout": 4})
    assert settings.server.host == "toml"
    assert settings.server.port == 2
    assert settings.server.connect_timeout == 4
    assert settings.database.name == "environment"
    assert settings.database.user == "toml"


def test_files_by_name(tmp_path):
    (tmp_path / "other.toml").write_text('[server]\nhost = "a, b"\n')
    (tmp_path / "other.env").write_text("AZPG_DATABASE_NAME=shop\n")
    settings = load_settings(config="other.toml", env_file=tmp_path / "other.env")
    assert settings.server.host == ("a", "b")
    assert settings.database.name == "shop"


def test_dotenv_is_not_exported(monkeypatch, good):
    import os

    before = dict(os.environ)
    Path(".env").write_text("AZPG_SERVER_PORT=6432\nUNRELATED=1\n")
    assert load_settings().server.port == 6432
    assert dict(os.environ) == before


def test_embedding():
    from pydantic import BaseModel

    class App(BaseModel):
        db: Settings

    app = App(db={"server": {"host": "h"}, "database": {"name": "d"}, "credential": {}})
    assert app.db.credential.kind == "default"


MISTAKES = [
    # setting and value in the environment, what the report must say
    ({"AZPG_SERVER_PORT": "many"}, ["server.port", "AZPG_SERVER_PORT", "'many'", "integer"]),
    ({"AZPG_SERVER_PORT": "70000"}, ["server.port", "65535"]),
    ({"AZPG_SERVER_PORT": ""}, ["server.port", "AZPG_SERVER_PORT", "empty"]),
    ({"AZPG_SERVER_HOST": "https://x.com"}, ["server.host", "is a URL"]),
    ({"AZPG_SERVER_HOST": "x.com:5432"}, ["server.host", "server.port"]),
    ({"AZPG_SERVER_HOST": "a,,b"}, ["server.host", "empty"]),
    ({"AZPG_SERVER_HOST": "/var/run"}, ["server.host", "socket"]),
    ({"AZPG_SERVER_SSLMODE": "verify-all"}, ["server.sslmode", "verify-full is meant"]),
    ({"AZPG_SERVER_SSLMODE": "disable"}, ["server.sslmode", "token in clear", "verify-full"]),
    ({"AZPG_SERVER_SSLMODE": "verify_full"}, ["did you mean verify-full?"]),
    ({"AZPG_SERVER_SSLROOTCERT": "nowhere.pem"}, ["server.sslrootcert", "'nowhere.pem'", "auto"]),
    ({"AZPG_SERVER_CLOUD": "mars"}, ["server.cloud", "'public', 'usgov' or 'china'"]),
    ({"AZPG_POOL_MAXSIZE": "5"}, ["AZPG_POOL_MAXSIZE", "did you mean AZPG_POOL_MAX_SIZE?"]),
    ({"AZPG_POOL__MAX_SIZE": "5"}, ["did you mean AZPG_POOL_MAX_SIZE?"]),
    ({"AZPG_POOOL_MAX_SIZE": "5"}, ["did you mean AZPG_POOL_MAX_SIZE?"]),
    ({"AZPG_POOL_MIN_SIZE": "11"}, ["pool.min_size", "AZPG_POOL_MIN_SIZE", "over max_size 10"]),
    ({"AZPG_POOL_TIMEOUT": "inf"}, ["pool.timeout", "finite"]),
    ({"AZPG_DRIVER_NAME": "psycopg3"}, ["driver.name", "did you mean psycopg?"]),
    ({"AZPG_CREDENTIAL_KIND": "managed_identity"}, ["did you mean managed-identity?"]),
    (
        {"AZPG_CREDENTIAL_KIND": "managed-identity", "AZPG_CREDENTIAL_PASSWORD": "hunter2"},
        ["credential.password", "does not belong", "AZPG_CREDENTIAL_KIND to password"],
    ),
    (
        {"AZPG_CREDENTIAL_KIND": "password", "AZPG_DATABASE_USER": "me"},
        ["AZPG_CREDENTIAL_PASSWORD", "is required"],
    ),
    ({"AZPG_CREDENTIAL_KIND": "none"}, ["database.user", "AZPG_DATABASE_USER", "is required"]),
    (
        {
            "AZPG_CREDENTIAL_KIND": "none",
            "AZPG_DATABASE_USER": "u",
            "AZPG_SERVER_SSLMODE": "prefer",
        },
        ["server.sslmode", "another machine"],
    ),
]


@pytest.mark.parametrize(("wrong", "said"), MISTAKES, ids=lambda value: str(value)[:60])
def test_mistakes_are_told_with_what_to_edit(monkeypatch, good, wrong, said):
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    for words in said:
        assert words in str(caught.value)
    assert "hunter2" not in str(caught.value) + repr(caught.value.problems)
    assert len(caught.value.problems) == 1


def test_all_mistakes_at_once(monkeypatch):
    Path("azpgauth.toml").write_text('[sever]\nhost = "x"\n[pool]\nmax_sise = 4\nmin_size = "x"\n')
    Path(".env").write_text("AZPG_SERVER_PORT=x\n")
    monkeypatch.setenv("AZPG_NONSENSE", "1")
    with pytest.raises(SettingsError) as caught:
        load_settings(drvier="psycopg", pool=7)
    report = str(caught.value)
    for words in (
        "did you mean driver=?",
        "keyword argument pool=",
        "AZPG_NONSENSE",
        "azpgauth.toml, [sever]",
        "did you mean server?",
        "azpgauth.toml, [pool] max_sise",
        "did you mean max_size?",
        "azpgauth.toml, [pool] min_size",
        ".env, AZPG_SERVER_PORT",
        "set AZPG_SERVER_HOST",
        "set AZPG_DATABASE_NAME",
    ):
        assert words in report
    assert report.startswith("9 mistakes")


def test_a_file_that_cannot_be_read_is_a_mistake(good):
    Path("azpgauth.toml").write_text("[server\n")
    with pytest.raises(SettingsError, match=r"azpgauth\.toml.*cannot be read"):
        load_settings()
    with pytest.raises(SettingsError, match=r"there is no file nowhere\.toml"):
        load_settings(config="nowhere.toml")


def test_a_line_that_cannot_be_read_is_a_mistake_and_is_not_shown(good):
    text = "\ufeffAZPG_SERVER_PORT=6432\n=hunter2\nAZPG_POOL_TIMEOUT='5\n"
    Path(".env").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    report = str(caught.value)
    assert ".env, line 2" not in report  # no concern of ours
    assert ".env, line 3" in report
    assert "hunter2" not in report


def test_keywords_of_any_kind(good):
    with pytest.raises(SettingsError, match="is not a name") as caught:
        load_settings(server={"host": 5, 7: 8}, database=None)
    assert len(caught.value.problems) == 3


def test_local_passwords(monkeypatch, good):
    monkeypatch.setenv("AZPG_SERVER_HOST", "127.0.0.1")
    monkeypatch.setenv("AZPG_SERVER_SSLMODE", "disable")
    monkeypatch.setenv("AZPG_DATABASE_USER", "me")
    monkeypatch.setenv("AZPG_CREDENTIAL_KIND", "password")
    monkeypatch.setenv("AZPG_CREDENTIAL_PASSWORD", "hunter2")
    settings = load_settings()
    assert settings.credential.password.get_secret_value() == "hunter2"
    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump()}"


def test_secrets_in_keywords_are_not_in_a_tracebacks_locals(good):
    with pytest.raises(SettingsError) as caught:
        load_settings(credential={"kind": "pasword", "password": "hunter2"})
    frames = traceback.StackSummary.extract(
        traceback.walk_tb(caught.tb.tb_next), capture_locals=True
    )
    assert "hunter2" not in repr([(frame.name, frame.locals) for frame in frames])
    assert caught.value.__context__ is None


def test_an_error_survives_pickling():
    with pytest.raises(SettingsError) as caught:
        load_settings()
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
    assert str(again) == str(caught.value)


@pytest.mark.parametrize("name", generated())
def test_generated_files_are_what_the_models_say(name):
    text, anew = (ROOT / name).read_text(encoding="utf-8"), generated()[name]
    if name.endswith(".json") and Version(PYDANTIC) < Version("2.11"):  # which writes 0.0 for 0
        text, anew = json.loads(text), json.loads(anew)
    assert text == anew, "run: python -m azpgauth.settings.reference"


def test_every_setting_is_in_the_example_file_and_the_reference():
    text = (ROOT / ".env.example").read_text()
    page = (ROOT / "schemas/settings.md").read_text()
    for section, names in SECTIONS.items():
        for name in names:
            assert f"| `{name}` | `{variable(section, name)}` |" in page
    named = set(re.findall(r"^#?(AZPG_\w+)=", text, re.MULTILINE))
    assert named == {
        variable(section, name) for section, names in SECTIONS.items() for name in names
    }


def test_the_example_file_loads(tmp_path):
    (tmp_path / ".env").write_text((ROOT / ".env.example").read_text())
    assert dotenv_values(tmp_path / ".env").keys() == GOOD.keys()
    assert load_settings().server.host == GOOD["AZPG_SERVER_HOST"]


SCHEMA = json.loads((ROOT / "schemas/azpgauth.schema.json").read_text())
TOMLS = {
    **{str(path.relative_to(ROOT)): path.read_text() for path in ROOT.glob("examples/**/*.toml")},
    **{str(block): block.text for block in blocks("toml")},
}
DOTENVS = {
    **{str(path.relative_to(ROOT)): path.read_text() for path in ROOT.glob("examples/**/*.env")},
    **{str(block): block.text for block in blocks("dotenv")},
}


def test_the_schema_is_one():
    Draft202012Validator.check_schema(SCHEMA)
    fields = SCHEMA["properties"]
    assert fields.keys() == SECTIONS.keys()
    for section, names in SECTIONS.items():
        assert fields[section]["properties"].keys() == names
        for name in names:
            assert fields[section]["properties"][name]["description"], name


@pytest.mark.parametrize("name", TOMLS)
def test_every_toml_file_that_is_shown_validates(tmp_path, name):
    Draft202012Validator(SCHEMA).validate(tomllib.loads(TOMLS[name]))
    (tmp_path / "azpgauth.toml").write_text(TOMLS[name])
    assert load_settings(server={"host": "h"}, database={"name": "d"})


@pytest.mark.parametrize("name", DOTENVS)
def test_every_dotenv_file_that_is_shown_validates(tmp_path, name):
    (tmp_path / ".env").write_text(DOTENVS[name])
    assert load_settings(server={"host": "h"}, database={"name": "d"})


def test_there_is_something_to_validate():
    assert len(TOMLS) >= 4
    assert len(DOTENVS) >= 1


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ('[server]\nhost = ["a", "b"]\nport = 6432', True),
        ("[credential]\nclient_id = 'c'\nrefresh = 'on-demand'", True),
        ("[server]\nport = 0", False),
        ("[server]\nhots = 'h'", False),
        ("[sever]\nhost = 'h'", False),
        ("[server]\nsslmode = 'verify-all'", False),
        ("[pool]\ntimeout = 0", False),
        ("[credential]\nkind = 'azure_cli'", False),
        ("[credential]\nkind = 'azure-cli'\nclient_id = 'c'", False),
        ("[credential]\nkind = 'azure-cli'\nprocess_timeout = 20", True),
    ],
)
def test_what_the_schema_tells_apart(text, good):
    assert Draft202012Validator(SCHEMA).is_valid(tomllib.loads(text)) == good
