"""No settings error has a secret, in whichever way it came about."""

import json
import os
import pickle
import string
from pathlib import Path
from unittest.mock import patch
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from leaks import leaked, walked
from pydantic import BaseModel, TypeAdapter, ValidationError

from azpgauth import (
    Problem,
    Settings,
    SettingsError,
    TokenError,
    connect,
    connect_from_env,
    connection_from_env,
    explain,
    load_settings,
)
from azpgauth.drivers.driver import ConnectArguments
from azpgauth.drivers.psycopg2 import _Connecting
from azpgauth.identity.azure import _Minter
from azpgauth.identity.login import Grant, StaticLogin
from azpgauth.identity.token import Token
from azpgauth.opening.attempts import Opening, _Attempts
from azpgauth.opening.prepare import plan_of
from azpgauth.runtime.redacted import MASK, Redacted, holds_secret, masked, scrubbed
from azpgauth.runtime.waiting import BLOCKING, run
from azpgauth.settings.merge import Dropped, Merged
from azpgauth.settings.models.credential import (
    KINDS,
    ClientCertificateSettings,
    ClientSecretSettings,
    PasswordSettings,
)
from azpgauth.settings.models.sections import (
    SECTIONS,
    DatabaseSettings,
    PoolSettings,
    ServerSettings,
)
from azpgauth.settings.sources.files import Asked
from azpgauth.settings.sources.layers import Layer, Origin, Value

SECRET = "hunter2"
GOOD = {"server": {"host": "h"}, "database": {"name": "d"}}
CLIENT = {**GOOD, "credential": {"kind": "client-secret", "client_secret": SECRET}}
PASSWORD = {**GOOD, "credential": {"kind": "password", "password": SECRET}}


class Embedding(BaseModel):
    """What an application makes of it."""

    db: Settings
    debug: bool = False


# -- made by the program --------------------------------------------------------------------------


DIRECT = {
    "a tenant that is missing": lambda: Settings(**CLIENT),
    "a role that is missing": lambda: Settings(**PASSWORD),
    "a credential that is a string": lambda: Settings(**GOOD, credential=SECRET),
    "a credential that is a list": lambda: Settings(**GOOD, credential=[SECRET]),
    "a kind that holds it": lambda: Settings(**GOOD, credential={"kind": f"u:{SECRET}@h"}),
    "a section that there is not": lambda: Settings(**GOOD, pasword=SECRET),
    "a name that holds it": lambda: Settings(**GOOD, **{f"password={SECRET}": 1}),
    "a host that holds it": lambda: Settings(server={"host": f"x;password={SECRET}"}),
    "a mapping": lambda: Settings.model_validate(CLIENT),
    "a mapping, strictly": lambda: Settings.model_validate(CLIENT, strict=True),
    "a string": lambda: Settings.model_validate(SECRET),
    "JSON": lambda: Settings.model_validate_json(json.dumps(CLIENT)),
    "bytes of JSON": lambda: Settings.model_validate_json(json.dumps(CLIENT).encode()),
    "JSON that is none": lambda: Settings.model_validate_json(json.dumps(CLIENT)[:-2]),
    "strings": lambda: Settings.model_validate_strings(CLIENT),
    "server alone": lambda: ServerSettings(host=f"x password={SECRET}"),
    "server by a mapping": lambda: ServerSettings.model_validate({"host": f"u:{SECRET}@h"}),
    "database alone": lambda: DatabaseSettings(password=SECRET),
    "pool alone": lambda: PoolSettings(timeout=f"password={SECRET}"),
    "a password without kind": lambda: PasswordSettings(password=SECRET),
    "a field that there is not": lambda: PasswordSettings(
        kind="password", password=SECRET, pasword=SECRET
    ),
    "a password that is a list": lambda: PasswordSettings(kind="password", password=[SECRET]),
    "a secret without the rest": lambda: ClientSecretSettings(
        kind="client-secret", client_secret=SECRET
    ),
    "a certificate's password": lambda: ClientCertificateSettings(
        kind="client-certificate", certificate_password=SECRET, certificate_path=f"{SECRET}@x:y@h"
    ),
    "an attribute that is set": lambda: setattr(
        PasswordSettings(kind="password", password="a"), "password", SECRET
    ),
    "an unknown attribute that is set": lambda: setattr(Settings(**GOOD), "credentials", SECRET),
    "a copy": lambda: Settings(**GOOD).model_copy(update={"credential": PASSWORD["credential"]}),
    "a copy with a string": lambda: Settings(**GOOD).model_copy(update={"credential": SECRET}),
    "a section's copy": lambda: PasswordSettings(kind="password", password="a").model_copy(
        update={"password": [SECRET]}
    ),
}


@pytest.mark.parametrize("way", DIRECT)
def test_no_error_of_a_model_has_it(way):
    with pytest.raises(ValidationError) as caught:
        DIRECT[way]()
    assert leaked(caught.value, SECRET) == []
    assert caught.value.__cause__ is caught.value.__context__ is None
    try:
        again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
    except KeyError as exc:  # pydantic 2.8 writes errors of other types that it cannot read
        assert "Invalid error type" in str(exc)  # noqa: PT017 - beside the check above
        return
    assert str(again) == str(caught.value)
    assert leaked(again, SECRET) == []


EMBEDDED = {
    "a field": lambda: Embedding(db=CLIENT),
    "a mapping": lambda: Embedding.model_validate({"db": PASSWORD}),
    "JSON": lambda: Embedding.model_validate_json(json.dumps({"db": CLIENT})),
    "a wrong field beside it": lambda: Embedding(db=CLIENT, debug="perhaps"),
    "an adapter": lambda: TypeAdapter(Settings).validate_python(CLIENT),
    "an adapter of several": lambda: TypeAdapter(list[Settings]).validate_python([CLIENT]),
    "an adapter of a section": lambda: TypeAdapter(PasswordSettings).validate_python(
        {"password": SECRET, "wrong": SECRET}
    ),
}


@pytest.mark.parametrize("way", EMBEDDED)
def test_what_is_embedded_keeps_to_it(way):
    with pytest.raises(ValidationError) as caught:
        EMBEDDED[way]()
    # The frames are those of the application's own model, which has what it was given.
    assert leaked(caught.value.with_traceback(None), SECRET) == []


def test_errors_of_models_still_say_what_is_wrong():
    with pytest.raises(ValidationError) as caught:
        Settings(
            server={"host": "h", "port": 0, "cloud": "mars", "sslmode": "verify-all"},
            driver={"nam": 1},
        )
    found = {error["loc"]: error for error in caught.value.errors()}
    assert found["server", "port"]["type"] == "greater_than_equal"
    assert found["server", "port"]["ctx"] == {"ge": 1}
    assert "'public', 'usgov' or 'china'" in found["server", "cloud"]["msg"]
    assert "verify-full is meant" in found["server", "sslmode"]["msg"]
    assert found["driver", "nam"]["type"] == "extra_forbidden"
    assert found["database",]["type"] == "missing"
    assert {error["input"] for error in found.values()} == {MASK}
    assert caught.value.title == "Settings"


# -- what was never checked -----------------------------------------------------------------------


def test_what_is_made_without_validation_shows_none():
    made = [
        Settings.model_construct(**PASSWORD),
        Settings.model_construct(server=f"u:{SECRET}@h"),
        PasswordSettings.model_construct(password=SECRET),
        ServerSettings.model_construct(host=f"x password={SECRET}"),
    ]
    assert SECRET not in repr(made)
    assert SECRET not in "".join(map(str, made))
    assert SECRET not in pickle.dumps(made[:1] + made[2:3]).decode("latin-1")


def test_a_copy_with_another_password_is_as_good_as_new():
    settings = Settings(**GOOD)
    copied = settings.model_copy(
        update={"credential": PASSWORD["credential"], "database": {"name": "d", "user": "me"}}
    )
    assert copied.credential.password.get_secret_value() == SECRET
    assert copied.server == settings.server
    assert SECRET not in repr(copied)
    assert SECRET not in pickle.dumps(copied).decode("latin-1")
    assert settings.model_copy() == settings
    assert "driver" not in copied.model_fields_set


# -- arguments of the driver's own ----------------------------------------------------------------


@pytest.mark.parametrize("driver", ["psycopg", "psycopg-async", "psycopg2", "sqlalchemy"])
@pytest.mark.parametrize(
    "native",
    [{"password": SECRET}, {"pasword": SECRET}, {"connect_args": {"password": SECRET}}],
    ids=lambda native: next(iter(native)),
)
def test_an_argument_that_is_refused_is_not_shown(driver, native):
    settings = {"host": "127.0.0.1", "port": 1}
    keywords = {
        "server": settings,
        "database": {"name": "d", "user": "u"},
        "credential": {"kind": "none"},
        "driver": driver,
        "native": native,
    }
    with pytest.raises(SettingsError) as caught:
        connect_from_env(**keywords)
    assert leaked(caught.value, SECRET) == []
    del keywords["native"]
    with pytest.raises(SettingsError) as caught:
        connect(load_settings(**keywords), native=native)
    assert leaked(caught.value, SECRET) == []


class Walked:
    """A credential object like azure-identity's: it has no repr, and the secret in an attribute."""

    def __init__(self):
        self._client_credential = {"secret": SECRET}

    def get_token(self, *_, **__):
        raise RuntimeError("no")


class WalkedAsync(Walked):
    async def get_token(self, *_, **__):
        raise RuntimeError("no")


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "sqlalchemy"])
@pytest.mark.parametrize("make", [Walked, WalkedAsync])
@pytest.mark.parametrize("use", [connect, connect_from_env, connection_from_env])
def test_a_credential_object_of_the_programs_own_is_not_walked(driver, make, use):
    keywords = {**GOOD, "driver": driver}
    if use is connect:
        keywords = {"settings": load_settings(**keywords)}
    with pytest.raises(TokenError) as caught:
        use(**keywords, credential=make())
    assert leaked(caught.value, SECRET) == []


def test_our_own_objects_show_no_secret():
    token = Token(SECRET, 2e9)
    value = Value(SECRET, Origin("keyword", "keyword argument credential={'password': …}"))
    layer = Layer({("credential", "password"): value})
    login = StaticLogin("me", SECRET)
    settings = Settings(**{**PASSWORD, "database": {"name": "d", "user": "me"}})
    plan = plan_of(settings)
    native = {"options": f"-c app.secret={SECRET}"}
    arguments = ConnectArguments("psycopg2", plan, login, Redacted(native))
    client = ClientSecretSettings(
        kind="client-secret", tenant_id="t", client_id="c", client_secret=SECRET
    )
    minter = _Minter(client, "https://a/.default", "https://b")
    minter._credential = Walked()  # as azure-identity's
    objects = [
        *(token, value, layer, Dropped(("credential", "password"), value, "no"), login, settings),
        *(Merged({("credential", "password"): [value]}), run(login.grant(BLOCKING)), arguments),
        *(client, minter, Grant("me", SECRET, True, token), Asked(config=f"u:{SECRET}@h")),
        *(_Connecting.with_(arguments), _Attempts(arguments)),
        Problem("a", f"u:{SECRET}@h", f"is password={SECRET}", "b", repr(f"u:{SECRET}@h")),
        Opening(lambda: arguments, "aconnect", print),
    ]
    for each in objects:
        assert [text for _, text in walked("local", each) if SECRET in text] == [], type(each)


# -- hosts that are none --------------------------------------------------------------------------

NO_HOSTS = [
    f"x;password={SECRET}",
    f"x password={SECRET}",
    f"x={SECRET}",
    f"{SECRET}@h",
    "@abstract",
    f"x%20password%3D{SECRET}",
    f"x\tpwd={SECRET}",
    f"x\u00a0password\uff1d{SECRET}",
    f"x&pass={SECRET}",
    f"x?pass={SECRET}",
    f"x#pass={SECRET}",
    f"fe80::1%x password={SECRET}",
    f"[fe80::1%x;pwd={SECRET}]",
]
WAYS = {
    "variable": ("AZPG_SERVER_HOST", None),
    "PGHOST": ("PGHOST", None),
    "Service Connector": ("AZURE_POSTGRESQL_HOST", None),
    "keyword": (None, lambda host: {"host": host}),
    "list": (None, lambda host: {"host": ["h", host]}),
    "tuple": (None, lambda host: {"host": (host, "h")}),
    "TOML": ("TOML", None),
}


@pytest.mark.parametrize("host", NO_HOSTS)
@pytest.mark.parametrize("way", WAYS)
def test_what_is_no_host_is_refused_and_masked(monkeypatch, host, way):
    name, section = WAYS[way]
    keywords = {"database": {"name": "d"}}
    if name == "TOML":
        Path("azpgauth.toml").write_text(f"[server]\nhost = {json.dumps(host)}\n", "utf-8")
    elif name is not None:
        monkeypatch.setenv(name, host)
    else:
        keywords["server"] = section(host)
    with pytest.raises(SettingsError) as caught:
        load_settings(**keywords)
    assert [problem.setting for problem in caught.value.problems] == ["server.host"]
    assert leaked(caught.value, SECRET) == []
    with pytest.raises(ValidationError):
        ServerSettings(host=("h", host))


@pytest.mark.parametrize(
    "host",
    [
        *("h", "a-b_c.example", "127.0.0.1", "::1", "[::1]", "fe80::1%eth0", "/var/run/x y"),
        *("b\u00fccher.example", "\u0939\u093f\u0928\u094d\u0926\u0940.example"),
    ],
)
def test_what_is_a_host_is_taken(host):
    assert ServerSettings(host=host).host == host.strip("[]")


# -- masks ----------------------------------------------------------------------------------------

HOLDING = [
    f"postgresql://u:{SECRET}@h/d",
    f"postgresql+asyncpg://{SECRET}@h",
    f"POSTGRES://u:p@{SECRET}@h",
    f"//u:{SECRET}@h",
    f"u:{SECRET}@h:5432",
    f"u:my {SECRET}@h",
    f"u:{SECRET}@",
    f"host=h user=u password={SECRET}",
    f"host=h password = '{SECRET} x@y'",
    f"Server=h;Password={SECRET};Ssl Mode=Require",
    f"Host=h;PWD={SECRET}",
    f"h?user=u&password={SECRET}",
    f"h,password={SECRET}",
    f"sslpassword={SECRET}",
    f"passphrase={SECRET}",
    f"passwd={SECRET}",
    f"pass={SECRET}",
    f"PGPASSWORD={SECRET}",
    f"AZPG_CREDENTIAL_CLIENT_SECRET={SECRET}",
    f"client_secret={SECRET}",
    f"ClientSecret={SECRET}",
    f"AccountKey={SECRET}==",
    f"SharedAccessKey={SECRET}",
    f"api-key: {SECRET}",
    f"access_token={SECRET}",
    f"https://x.blob.core.windows.net/c?sv=1&sig={SECRET}",
    f'{{"password": "{SECRET}"}}',
    f"{{'client_secret': '{SECRET}'}}",
    f"password:{SECRET}",
    f"eyJhbGciOiJub25lIn0.{SECRET}.x",
    f"Bearer eyJhbGciOiJub25lIn0.{SECRET}",
    f"-----BEGIN PRIVATE KEY-----\n{SECRET}",
    f"x{SECRET}"[:3] + "8Q~" + SECRET + "a" * 27,
    f"p%61ssword={SECRET}",
    f"password\uff1d{SECRET}",
]


@pytest.mark.parametrize("value", HOLDING)
def test_what_looks_like_a_secret_is_masked(value):
    for form in (value, quote(value), quote(quote(value)), f"  {value}  "):
        assert holds_secret(form)
        assert SECRET not in masked(form)
        assert MASK in masked(form)


@pytest.mark.parametrize(
    "value",
    [
        "shop.postgres.database.azure.com",
        "shop.postgres.database.azure.com:5432",
        "me@contoso.com",
        "me_mail.example#EXT#@contoso.onmicrosoft.com",
        "https://ossrdbms-aad.database.windows.net/.default",
        "api://shop/.default",
        "/subscriptions/1/resourcegroups/r/providers/Microsoft.ManagedIdentity/x",
        "C:\\Users\\me\\azpgauth.toml",
        "C:/etc/azpgauth.toml",
        "/etc/ssl/certs/own-ca.pem",
        "fe80::1%eth0",
        "password",
        "client-secret",
        "secrets",
        "a=b",
        "-c search_path=shop",
        "100%",
        "",
    ],
)
def test_nothing_else_is(value):
    assert masked(value) == scrubbed(value) == value


def test_a_wrapper_is_no_mapping_and_shows_names_alone():
    wrapper = Redacted({"host": SECRET, f"password={SECRET}": 1})
    assert repr(wrapper) == f"<keywords host, {MASK}>"
    assert not [text for _, text in walked("x", [wrapper, Redacted(SECRET)]) if SECRET in text]
    with pytest.raises(TypeError, match="is not pickled"):
        pickle.dumps(wrapper)


@pytest.mark.parametrize(
    "piece", ["pass", "a:", "@a:", "%25", "=", "eyJ", "token ", "sig=", "u:p@"]
)
def test_a_long_text_is_looked_at_at_once(piece):
    text = piece * (200_000 // len(piece))  # a search that goes back would take minutes
    assert len(masked(text)) <= len(text)
    assert len(scrubbed(text)) <= len(text)


# -- a secret at any place ------------------------------------------------------------------------

FIELDS = [(section, name) for section, names in sorted(SECTIONS.items()) for name in sorted(names)]
FORMS = st.sampled_from(
    [
        "postgresql://app:{}@h/d",
        "{}:{}@h",
        "host=h password={}",
        "h;Pwd = {}",
        "h?sslpassword={}&x=1",
        "AccountKey={}",
        "eyJhbGciOiJub25lIn0.{}.x",
        "-----BEGIN KEY-----{}",
    ]
)
SECRETS = st.text(string.ascii_letters + string.digits + "~.+/!", min_size=6, max_size=20).map(
    lambda text: f"s3{text}"
)
OTHERS = st.dictionaries(
    st.sampled_from(FIELDS), st.sampled_from(["x", "1", "", "true", 5, None, ["x"]]), max_size=5
)


@given(
    SECRETS, FORMS, st.sampled_from(FIELDS), OTHERS, st.sampled_from(sorted(KINDS)), st.booleans()
)
def test_a_secret_typed_anywhere_shows_nowhere(secret, form, place, others, kind, as_list):
    text = form.replace("{}", secret)
    sections = {section: {} for section in SECTIONS}
    for (section, name), value in others.items():
        sections[section][name] = value
    sections["credential"].setdefault("kind", kind)
    sections[place[0]][place[1]] = [text] if as_list else text
    settings, error = outcome(lambda: load_settings(**sections))
    assert settings or leaked(error, secret) == []
    made, error = outcome(lambda: Settings(**sections))
    assert made or leaked(error, secret) == []
    for each in (settings, made):
        assert secret not in ("" if each is None else str(explain(each)))
    if settings is None:  # else it would connect
        error = outcome(lambda: connect_from_env(**sections, native={"no": secret}))[1]
        assert leaked(error, secret) == []


def outcome(make):
    """What is made, or the error with which that ends."""
    try:
        return make(), None
    except (SettingsError, ValidationError) as exc:
        return None, exc


@given(
    SECRETS,
    st.sampled_from(
        [
            "PGHOST",
            "DATABASE_URL",
            "AZURE_POSTGRESQL_CONNECTIONSTRING",
            "PGPORT",
            "PGSSLMODE",
            "AZPG_CONFIG",
            "AZPG_ENV",
            "AZPG_SERVER_HOST",
        ]
    ),
    FORMS,
    st.text("@:/?#;= '\"%,", max_size=4),
    st.integers(0, 30),
)
def test_a_secret_in_a_mangled_variable_shows_nowhere(secret, name, form, noise, at):
    text = form.replace("{}", secret)
    at = min(at, text.index(secret))  # the noise is before the secret, or within what leads to it
    text = text[:at] + noise + text[at:]
    with patch.dict(os.environ, {name: text}):
        settings, error = outcome(lambda: load_settings(database={"name": "d"}))
    if holds_secret(text):
        assert leaked(error, secret) == [] if settings is None else secret not in repr(settings)


@pytest.mark.parametrize(
    "value",
    [
        *("passport-db:5432", "bypass:5432", "tokens:5432", "token-service:5432", "compass:1,b:2"),
        *("heyJude-production-db.contoso.com", "ada@contoso.com", "compass:api", "[::1]:5432"),
    ],
)
def test_what_is_no_secret_is_shown(value):
    assert masked(value) == value


@pytest.mark.parametrize("native", ["password=hunter2", ["hunter2"], 5])
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "sqlalchemy", "asyncpg"])
def test_arguments_of_a_driver_that_are_no_mapping(native, driver):
    server = {"server": {"host": "h"}, "database": {"name": "d"}}
    with pytest.raises(SettingsError, match="where a mapping is needed") as caught:
        connect_from_env(driver=driver, native=native, **server)
    assert leaked(caught.value, "hunter2") == []
