"""What an error tracker would store of a sign-in that failed has no token and no secret."""

from dataclasses import replace

import psycopg
import psycopg2
import pytest
from kits import KITS, Loop
from leaks import leaked, walked

from azpgauth import AzpgauthError, ConnectError, SettingsError, TokenError
from azpgauth.identity.azure import forget

PASSWORD = "hunter2-hunter2"
FIXED = {"kind": "password", "password": PASSWORD}


@pytest.fixture(params=KITS, ids=str)
def kit(request, box):
    with Loop() as loop:
        yield replace(request.param, loop=loop)


@pytest.fixture
def secrets(box):
    """A function that gives all that must not show: the tokens, and what bought them."""
    secret = box.environment_for("client-secret")["AZPG_CREDENTIAL_CLIENT_SECRET"]

    def found():
        signatures = [token.rsplit(".", 1)[-1] for token in box.authority.issued]
        return [*box.authority.issued, *signatures, secret, PASSWORD]

    return found


FAULTS = {
    "role": ({"database": {"user": "nope"}}, {}),
    "database": ({"database": {"name": "nope"}}, {}),
    "audience": ({}, {"resource": "https://else.example"}),
    "key": ({}, {"other_key": True}),
    "expired": ({}, {"lifetime": -10}),
    "no TLS": ({}, {"mode": "no-tls"}),
    "other CA": ({}, {"certificate": "unknown-ca"}),
    "other name": ({}, {"certificate": "other-name"}),
    "status 400": ({}, {"status": 400}),
    "no token": ({}, {"malformed": True}),
    "fixed password": ({"credential": FIXED, "database": {"user": "sandbox-app"}}, {}),
    "password beside a token": ({"credential": {"password": PASSWORD}}, {}),
    "argument": ({"native": {"password": PASSWORD}}, {}),
    "unknown argument": ({"native": {"pasword": PASSWORD}}, {}),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_failed_sign_in_shows_no_secret(kit, box, secrets, nothing_leaks, what):
    sections, faults = FAULTS[what]
    for name, value in faults.items():
        setattr(box.gateway if hasattr(box.gateway, name) else box.authority, name, value)
    for use in (kit.open, kit.one):
        with pytest.raises((AzpgauthError, TypeError)) as caught:
            use(**sections)
        assert leaked(caught.value, *secrets()) == []


@pytest.mark.parametrize("what", ["role", "key", "other CA"])
def test_a_pool_that_was_open_shows_none_either(kit, box, secrets, what):
    with kit.pool(pool={"max_size": 4, "timeout": 1}) as pool:
        with kit.lease(pool), kit.lease(pool):
            pass
        box.gateway.drop()
        for name, value in FAULTS[what][1].items():
            setattr(box.gateway if hasattr(box.gateway, name) else box.authority, name, value)
        for _ in range(2):
            error = later(kit, pool)
            assert error is None or leaked(error, *secrets()) == []


def test_neither_pool_nor_connection_shows_one(kit, box, secrets):
    def found(where, value):
        texts = walked(where, value)
        return [place for place, text in texts if any(secret in text for secret in secrets())]

    with kit.pool() as pool:
        assert kit.row(pool, "select 1") == (1,)
        assert found("pool", pool) == []
    _, conn = kit.one()
    assert found("connection", conn) == []


def later(kit, pool):
    """What the next use of a pool ends with; None if with nothing."""
    try:
        kit.row(pool, "select 1")
    except Exception as exc:  # noqa: BLE001 - any driver's
        return exc
    return None


WRONG = {
    "secret": ("client-secret", {"AZPG_CREDENTIAL_CLIENT_SECRET": PASSWORD}, TokenError),
    "tenant": ("client-secret", {"AZPG_CREDENTIAL_TENANT_ID": "other"}, TokenError),
    "client": ("client-secret", {"AZPG_CREDENTIAL_CLIENT_ID": "nobody"}, TokenError),
    "environment": ("environment", {"AZURE_CLIENT_SECRET": PASSWORD}, TokenError),
    "certificate's password": (
        "client-certificate",
        {"AZPG_CREDENTIAL_CERTIFICATE_PASSWORD": PASSWORD},
        TokenError,
    ),
    "authority": ("client-secret", {"AZPG_CREDENTIAL_AUTHORITY": f"u:{PASSWORD}@h"}, SettingsError),
    "role": ("client-secret", {"AZPG_DATABASE_USER": "nope"}, ConnectError),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("kit", KITS[:2], ids=str, indirect=True)
def test_a_credential_that_is_refused_shows_no_secret(kit, box, monkeypatch, secrets, what):
    kind, changed, expected = WRONG[what]
    for name in box.environment:
        monkeypatch.delenv(name)
    for name, value in {**box.environment_for(kind), **changed}.items():
        monkeypatch.setenv(name, value)
    forget()
    with pytest.raises(expected) as caught:
        kit.open()
    assert leaked(caught.value, *secrets()) == []


@pytest.mark.parametrize("driver", [psycopg, psycopg2])
def test_a_driver_by_itself_shows_it(box, driver):
    """So that the tests above are known to be able to fail."""
    with pytest.raises(driver.Error) as caught:
        driver.connect(
            f"host=localhost port={box.gateway.port} user=nope dbname=app", password=PASSWORD
        )
    assert leaked(caught.value, PASSWORD)
