"""What the drop-in classes make of a caller's parameters."""

import pytest

from azpgauth.dropin import entry_of, tls_of
from azpgauth.errors import CredentialValueError, EntraConnectionValueError
from azpgauth.testing import FakeCredential
from azpgauth.tls import NO_ROOTS, bundle


@pytest.mark.parametrize(
    ("said", "environ", "mode", "roots"),
    [
        ({}, {}, "verify-full", "default"),
        ({"sslmode": "verify-ca"}, {}, "verify-ca", "default"),
        ({"sslmode": "require"}, {}, "require", NO_ROOTS),
        ({"sslmode": "require", "sslrootcert": "/r.pem"}, {}, "verify-ca", "/r.pem"),
        ({"sslrootcert": "/r.pem"}, {}, "verify-full", "/r.pem"),
        ({"sslrootcert": "system"}, {}, "verify-full", "default"),
        ({}, {"PGSSLMODE": "require"}, "require", NO_ROOTS),
        ({}, {"PGSSLROOTCERT": "/r.pem"}, "verify-full", "/r.pem"),
        ({"sslmode": "verify-full"}, {"PGSSLMODE": "disable"}, "verify-full", "default"),
        ({"sslrootcert": "/a"}, {"PGSSLROOTCERT": "/b"}, "verify-full", "/a"),
    ],
)
def test_tls(said, environ, mode, roots):
    found = tls_of(said, ("db.example",), environ).libpq()
    assert found["sslmode"] == mode
    assert found["sslrootcert"] == (bundle() if roots == "default" else roots)


@pytest.mark.parametrize("mode", ["prefer", "allow", "disable", "verify-all", "VERIFY-FULL"])
def test_modes_that_do_not_protect(mode):
    for said, environ in (({"sslmode": mode}, {}), ({}, {"PGSSLMODE": mode})):
        with pytest.raises(EntraConnectionValueError, match=f"sslmode={mode}"):
            tls_of(said, ("db.example",), environ)


@pytest.mark.parametrize("host", ["/var/run/postgresql", "@abstract"])
def test_sockets_are_refused(host):
    with pytest.raises(EntraConnectionValueError, match="socket"):
        entry_of(FakeCredential(), {"host": host})


@pytest.mark.parametrize(
    ("host", "resource"),
    [
        ("shop.postgres.database.azure.com", "ossrdbms-aad.database.windows.net"),
        ("db.example", "ossrdbms-aad.database.windows.net"),
        ("shop.postgres.database.usgovcloudapi.net", "ossrdbms-aad.database.usgovcloudapi.net"),
        ("SHOP.postgres.database.chinacloudapi.cn.", "ossrdbms-aad.database.chinacloudapi.cn"),
    ],
)
def test_the_scope_is_that_of_the_hosts_cloud(host, resource):
    credential = FakeCredential()
    entry = entry_of(credential, {"host": host})
    assert entry.login.grant().role == "somebody@example.com"
    assert credential.scopes == [f"https://{resource}/.default"]


def test_the_host_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("PGHOST", "shop.postgres.database.usgovcloudapi.net")
    credential = FakeCredential()
    entry_of(credential, {}).login.grant()
    assert credential.scopes == ["https://ossrdbms-aad.database.usgovcloudapi.net/.default"]


def test_a_user_is_enough():
    credential = FakeCredential(claims={})
    entry = entry_of(credential, {"host": "db.example", "user": "shop-app"})
    assert entry.login.grant().role == "shop-app"
    assert len(credential.scopes) == 1


def test_a_password_of_the_callers_own_stays():
    entry = entry_of(FakeCredential(), {"host": "db.example", "password": "mine"})
    assert entry.libpq(entry.login.grant(), "") == {"user": "somebody@example.com"}
    assert "mine" not in repr(entry)


def test_user_and_password_are_left_alone():
    credential = FakeCredential()
    assert entry_of(credential, {"user": "u", "password": "p", "sslmode": "disable"}) is None
    assert credential.scopes == []


def test_no_credential():
    for nothing in (None, "token", 1):
        with pytest.raises(CredentialValueError, match="DefaultAzureCredential"):
            entry_of(nothing, {})
