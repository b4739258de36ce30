"""A psycopg pool on the sandbox: a real PostgreSQL, the real azure-identity."""

import gc
import threading
import time

import psycopg
import psycopg_pool
import pytest
from leaks import leaked
from psycopg.rows import dict_row

from azpgauth import (
    ConnectError,
    TokenError,
    connect_from_env,
    token_info,
)
from azpgauth.identity.credential import source_of
from azpgauth.sandbox import Identity
from azpgauth.testing import FakeCredential


def test_the_one_liner(box, nothing_leaks):
    with connect_from_env() as pool:
        assert isinstance(pool, psycopg_pool.ConnectionPool)
        with pool.connection() as conn:
            row = conn.execute(
                "select current_user, ssl, version from pg_stat_ssl where pid = pg_backend_pid()"
            ).fetchone()
            assert row == ("sandbox-app", True, "TLSv1.3")
            assert conn.info.server_version // 10000 == 18
        info = token_info(pool)
        assert (info.role, info.requests, info.failures) == ("sandbox-app", 1, 0)
        shown = repr([pool, vars(pool), pool.kwargs, info, pool.get_stats()])
        assert not any(token in shown for token in box.authority.issued)
    assert pool.closed
    pool.close()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"mode": "no-tls"}, "server does not support SSL"),
        ({"certificate": "other-name"}, "does not match host name"),
        ({"certificate": "unknown-ca"}, "certificate verify failed"),
    ],
    ids=str,
)
def test_a_server_that_is_not_the_right_one_never_gets_a_token(box, nothing_leaks, fault, said):
    for name, value in fault.items():
        setattr(box.gateway, name, value)
    start = time.monotonic()
    with pytest.raises(ConnectError, match=said) as caught:
        connect_from_env()
    assert time.monotonic() - start < 8, "it did not wait for the time-out of 10 s"
    assert box.gateway.connections >= 1
    assert box.gateway.passwords == 0
    assert leaked(caught.value, *box.authority.issued) == []


def test_a_server_without_tls_would_get_the_password_of_a_careless_client(box):
    """So that the test above is known to be able to fail."""
    box.gateway.mode = "no-tls"
    with psycopg.connect(
        f"host=localhost port={box.gateway.port} user=sandbox-app dbname=app sslmode=prefer",
        password=box.issuer.token(box.identity),
    ):
        pass
    assert box.gateway.passwords == 1


PERMANENT = {
    "unknown host": ({"server": {"host": "nowhere.invalid"}}, {}, "nowhere.invalid"),
    "no such database": ({"database": {"name": "nope"}}, {}, 'database "nope" does not exist'),
    "no such role": ({"database": {"user": "nope"}}, {}, 'failed for user "nope"'),
    "expired token": ({}, {"lifetime": -10}, "The access token has expired"),
    "wrong audience": ({}, {"resource": "https://else.example"}, "valid audience claim"),
    "signed by another key": ({}, {"other_key": True}, "validating the access token"),
    "untrusted certificate": ({}, {"certificate": "unknown-ca"}, "certificate verify failed"),
    "certificate of another name": ({}, {"certificate": "other-name"}, "does not match host name"),
    "no TLS": ({}, {"mode": "no-tls"}, "does not support SSL"),
}


@pytest.mark.parametrize("what", PERMANENT)
def test_permanent_mistakes_are_told_at_once(box, nothing_leaks, what, record_property):
    sections, faults, said = PERMANENT[what]
    with connect_from_env():
        pass  # so that the time is that of the mistake, not of the first imports
    from azpgauth.identity.azure import forget

    forget()
    for name, value in faults.items():
        setattr(box.gateway if hasattr(box.gateway, name) else box.authority, name, value)
    start = time.monotonic()
    with pytest.raises(ConnectError) as caught:
        connect_from_env(**sections)
    seconds = time.monotonic() - start
    record_property("seconds", round(seconds, 2))
    record_property("text", str(caught.value))
    message = str(caught.value)
    assert said in message
    assert "cause:" in message
    assert "to do:" in message
    assert f'"{sections.get("database", {}).get("name", "app")}"' in message
    assert sections.get("server", {}).get("host", "localhost") in message
    assert "attempts" not in message, "one attempt is enough for what waiting does not mend"
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)
    assert caught.value.__cause__.__traceback__ is None
    assert leaked(caught.value, *box.authority.issued) == []
    assert seconds < 8


@pytest.mark.parametrize("mode", ["starting-up", "dropping", "full"])
def test_servers_that_are_not_ready_yet(box, mode):
    box.gateway.mode = mode

    def get_well():
        box.gateway.mode = "normal"

    threading.Timer(0.5, get_well).start()
    with connect_from_env() as pool, pool.connection() as conn:
        conn.execute("select 1")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("refused", "Connection refused"),
        ("starting-up", "the database system is starting up"),
    ],
)
def test_what_does_not_pass_ends_with_the_connect_timeout(box, fault, said):
    if fault == "refused":
        box.gateway.refuse()
    else:
        box.gateway.mode = fault
    start = time.monotonic()
    with pytest.raises(ConnectError, match=said):
        connect_from_env(server={"connect_timeout": 2})
    assert 1 < time.monotonic() - start < 12


def test_an_authority_that_hangs_ends_with_the_pools_timeout(box):
    box.authority.hanging = True
    with pytest.raises(TokenError, match=r"within 0\.5 s"):
        connect_from_env(pool={"timeout": 0.5})


class Changing(FakeCredential):
    """Gives tokens of the sandbox's issuer, at first for the wrong audience."""

    def __init__(self, box, *resources):
        super().__init__()
        self.box = box
        self.resources = list(resources)

    def get_token(self, *scopes, **_):
        self.scopes.extend(scopes)
        resource = self.resources.pop(0) if len(self.resources) > 1 else self.resources[0]
        token = self.box.issuer.token(self.box.identity, resource=resource)
        return type("Answer", (), {"token": token, "expires_on": int(time.time()) + 3600})()


GOOD, BAD = "https://ossrdbms-aad.database.windows.net", "https://wrong.example"
SCOPE = f"{GOOD}/.default"


def test_a_cached_token_that_is_refused_is_replaced_once(box, nothing_leaks):
    credential = Changing(box, BAD, GOOD)
    source_of(credential, SCOPE, "background").get()  # cached, and no server has seen it
    with connect_from_env(credential=credential) as pool, pool.connection() as conn:
        conn.execute("select 1")
    assert len(credential.scopes) == 2
    assert len(box.gateway.refusals) == 1


def test_a_fresh_token_that_is_refused_is_not_minted_again(box):
    credential = Changing(box, BAD)
    with pytest.raises(ConnectError, match="audience"):
        connect_from_env(credential=credential)
    assert len(credential.scopes) == 1
    assert len(box.gateway.refusals) == 1


def test_a_server_that_refuses_everybody_is_not_hammered(box):
    credential = Changing(box, BAD)
    for _ in range(5):
        with pytest.raises(ConnectError, match="audience"):
            connect_from_env(credential=credential)
    assert len(credential.scopes) == 2
    assert len(box.gateway.refusals) <= 6


def test_a_credential_of_the_program_lives_as_long_as_its_pool(box):
    pool = connect_from_env(credential=Changing(box, GOOD), pool={"min_size": 0})
    gc.collect()
    with pool, pool.connection() as conn:
        assert conn.execute("select current_user").fetchone() == ("sandbox-app",)


def test_an_async_credential_is_told_as_such(box):
    class OfAnEventLoop(FakeCredential):
        async def get_token(self, *scopes, **_):
            return super().get_token(*scopes)

    with pytest.raises(TokenError, match="OfAnEventLoop is an async credential"):
        connect_from_env(credential=OfAnEventLoop())


def test_another_ones_role_is_refused(box):
    other = Identity('o\'ther "quoted" rôle', kind="user")
    box.create_role(other)
    with pytest.raises(ConnectError, match="password authentication failed"):
        connect_from_env(database={"user": other.name})
    box.authority.identity = other
    from azpgauth.identity.azure import forget

    forget()
    try:
        with connect_from_env() as pool, pool.connection() as conn:
            assert conn.execute("select current_user").fetchone() == (other.name,)
    finally:
        box.authority.identity = box.identity


def test_native_arguments(box):
    configured = []

    def configure(conn):
        configured.append(conn.info.backend_pid)

    class Mine(psycopg.Connection):
        pass

    native = {
        "row_factory": dict_row,
        "configure": configure,
        "connection_class": Mine,
        "autocommit": True,
        "name": "mine",
        "options": "-c search_path=pg_temp",
    }
    with connect_from_env(native=native, pool={"min_size": 3}) as pool:
        pool.wait()
        with pool.connection() as conn:
            assert isinstance(conn, Mine)
            assert conn.autocommit
            assert conn.execute("show search_path").fetchone() == {"search_path": "pg_temp"}
        assert pool.name == "mine"
        assert len(configured) == len(set(configured)) == 3


def test_a_configure_that_fails_is_told_as_it_is(box):
    def configure(conn):
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        connect_from_env(native={"configure": configure})


def test_a_closed_pool_leaves_no_thread(box):
    pool = connect_from_env(pool={"min_size": 0})
    assert [t for t in threading.enumerate() if t.name == "azpgauth-refresher"]
    pool.close()
    forgotten = connect_from_env()
    forgotten_name = forgotten.name
    del forgotten
    gc.collect()
    names = [thread.name for thread in threading.enumerate()]
    assert "azpgauth-refresher" not in names
    assert not [name for name in names if name.startswith(forgotten_name + "-")]
