"""What the drop-in classes make of a caller's parameters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azpgauth.drivers.dropin import entry_of, named_servers, tls_of
from azpgauth.errors import CredentialValueError, EntraConnectionValueError
from azpgauth.runtime.waiting import BLOCKING, run
from azpgauth.server.roots import bundle
from azpgauth.server.tls import NO_ROOTS
from azpgauth.testing import FakeCredential


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


NAMED = [
    ({"host": "h"}, {}, ("h",)),
    ({"host": "a, b"}, {}, ("a", "b")),
    ({"host": ["a", "b,c"]}, {}, ("a", "b", "c")),
    ({"host": "127.0.0.1"}, {}, ("127.0.0.1",)),
    ({"host": "h", "hostaddr": "10.0.0.4"}, {"PGHOSTADDR": "10.0.0.5"}, ("h",)),
    ({"host": "h"}, {"PGHOST": "/tmp", "PGSERVICEFILE": "/s"}, ("h",)),
    ({}, {"PGHOST": "a,b", "PGHOSTADDR": "10.0.0.5"}, ("a", "b")),
    ({"host": None, "service": None}, {"PGHOST": "h:6543"}, ("h:6543",)),
]


@pytest.mark.parametrize(("said", "environ", "names"), NAMED)
def test_who_is_named(said, environ, names):
    assert named_servers(said, environ) == names


UNNAMED = [
    ({}, {}, "no server is named"),
    ({"hostaddr": "127.0.0.1"}, {}, "hostaddr alone"),
    ({"port": "5432", "user": "u", "dbname": "host=h"}, {}, "no server is named"),
    ({"host": ""}, {"PGHOST": "h"}, "host is empty"),
    ({"host": "", "hostaddr": "127.0.0.1"}, {}, "host is empty"),
    ({"host": " "}, {}, "host is empty"),
    ({"host": ","}, {}, "host is empty"),
    ({"host": "a,"}, {}, "host is empty"),
    ({"host": ",a"}, {}, "host is empty"),
    ({"host": "a,,b"}, {}, "host is empty"),
    ({"host": []}, {}, "host is empty"),
    ({"host": ["a", ""]}, {}, "host is empty"),
    ({"host": "/var/run/postgresql"}, {}, "host is a socket's folder"),
    ({"host": "a, /tmp"}, {}, "host is a socket's folder"),
    ({"host": ["/tmp", "a"]}, {}, "host is a socket's folder"),
    ({"host": "@abstract"}, {}, "host is a socket's folder"),
    ({"host": "C:\\sockets"}, {}, "host is a socket's folder"),
    ({"host": "c:/sockets"}, {}, "host is a socket's folder"),
    ({"host": "\\\\here"}, {}, "host is a socket's folder"),
    ({"service": "s", "host": "h"}, {}, "service names a service file"),
    ({"service": ""}, {}, "service names a service file"),
    ({"host": "h"}, {"PGSERVICE": "s"}, "PGSERVICE names a service file"),
    ({}, {"PGHOST": ""}, "PGHOST is empty"),
    ({}, {"PGHOST": "a,"}, "PGHOST is empty"),
    ({}, {"PGHOST": "/tmp"}, "PGHOST is a socket's folder"),
    ({}, {"PGHOST": "@x"}, "PGHOST is a socket's folder"),
    ({}, {"PGHOST": "[/tmp]"}, "PGHOST is a socket's folder"),
    ({}, {"PGHOST": "a,[/tmp]:5432"}, "PGHOST is a socket's folder"),
    ({}, {"PGHOSTADDR": "127.0.0.1"}, "no server is named"),
    ({}, {"PGSERVICEFILE": "/s", "PGPORT": "1", "PGDATABASE": "host=h"}, "no server is named"),
]


@pytest.mark.parametrize(("said", "environ", "words"), UNNAMED)
def test_who_is_not_named(said, environ, words):
    with pytest.raises(EntraConnectionValueError, match=words):
        named_servers(said, environ)


hosts = st.lists(st.sampled_from(["", " ", "a", "b.example", "/tmp", "@x", "10.0.0.1"]))


@given(hosts, st.booleans())
def test_a_name_stands_in_each_place_or_nobody_is_named(names, in_environment):
    text = ",".join(names)
    said, environ = ({}, {"PGHOST": text}) if in_environment else ({"host": text}, {})
    good = bool(names) and all(name.strip() and name[0] not in "/@" for name in names)
    try:
        found = named_servers(said, environ)
    except EntraConnectionValueError:
        assert not good
    else:
        assert good
        assert list(found) == names


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
    assert run(entry.login.grant(BLOCKING)).role == "somebody@example.com"
    assert credential.scopes == [f"https://{resource}/.default"]


def test_the_host_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("PGHOST", "shop.postgres.database.usgovcloudapi.net")
    credential = FakeCredential()
    run(entry_of(credential, {}).login.grant(BLOCKING))
    assert credential.scopes == ["https://ossrdbms-aad.database.usgovcloudapi.net/.default"]


def test_a_user_is_enough():
    credential = FakeCredential(claims={})
    entry = entry_of(credential, {"host": "db.example", "user": "shop-app"})
    assert run(entry.login.grant(BLOCKING)).role == "shop-app"
    assert len(credential.scopes) == 1


def test_a_password_of_the_callers_own_stays():
    entry = entry_of(FakeCredential(), {"host": "db.example", "password": "mine"})
    assert entry.libpq(run(entry.login.grant(BLOCKING)), "") == {"user": "somebody@example.com"}
    assert "mine" not in repr(entry)


def test_user_and_password_are_left_alone():
    credential = FakeCredential()
    assert entry_of(credential, {"user": "u", "password": "p", "sslmode": "disable"}) is None
    assert credential.scopes == []


def test_no_credential():
    for nothing in (None, "token", 1):
        with pytest.raises(CredentialValueError, match="DefaultAzureCredential"):
            entry_of(nothing, {})
