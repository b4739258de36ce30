"""One contract, over all drivers: a real PostgreSQL, the real azure-identity."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

import pytest
from kits import KITS, Loop
from leaks import leaked

from azpgauth import (
    ConnectError,
    MissingDriverError,
    RoleError,
    SettingsError,
    TokenError,
    connect_from_env,
    token_info,
)
from azpgauth.sandbox import Identity

WHO = "select current_user::text, version from pg_stat_ssl where pid = pg_backend_pid()"
PID = "select pg_backend_pid()"


@pytest.fixture(params=KITS, ids=str)
def kit(request, box):
    found = request.param
    with Loop() as loop:
        found.loop = loop
        yield found


def with_every_driver(work):
    """Do the same with all of them at once, where most of the time is spent waiting."""

    def one(kit):
        with Loop() as loop:
            work(replace(kit, loop=loop))

    with ThreadPoolExecutor(len(KITS)) as threads:
        done = {str(kit): threads.submit(one, kit) for kit in KITS}
        failed = {name: future.exception(50) for name, future in done.items()}
    assert not {name: error for name, error in failed.items() if error is not None}


def test_role_and_tls(kit, box, nothing_leaks):
    with kit.pool() as pool:
        assert isinstance(pool, kit.pool_class)
        assert kit.row(pool, WHO) == ("sandbox-app", "TLSv1.3")
        assert token_info(pool).requests == 1
        assert token_info(pool).role == "sandbox-app"
        shown = repr(pool) + str(vars(pool) if hasattr(pool, "__dict__") else "")
    assert not any(token in shown for token in box.authority.issued)


def test_twenty_at_once_ask_for_one_token(kit, box):
    box.authority.delay = 0.3
    with kit.pool(pool={"min_size": 1, "max_size": 20}) as pool:
        all_there = threading.Barrier(20)

        def work(_):
            with kit.lease(pool) as query:
                all_there.wait(20)
                return query(PID)

        with ThreadPoolExecutor(20) as threads:
            assert len(set(threads.map(work, range(20)))) == 20
    assert len(box.authority.requests) == 1
    assert box.gateway.refusals == []


def test_two_pools_share_the_token(kit, box):
    with kit.pool() as one, kit.pool() as other:
        kit.row(one, WHO)
        kit.row(other, WHO)
    assert len(box.authority.requests) == 1


@pytest.mark.thorough
def test_a_token_is_renewed_in_the_pools_life(kit, box):
    # One that lives so short that it is renewed at half of the time in which it may be used.
    box.authority.lifetime = 37
    with kit.pool(pool={"max_size": 5}) as pool:
        before = len(box.authority.requests)
        until = time.monotonic() + 20
        while len(box.authority.requests) == before:
            assert time.monotonic() < until
            time.sleep(0.05)
        box.authority.lifetime = 3600
        while token_info(pool).expires_on < time.time() + 3000:
            assert time.monotonic() < until
            time.sleep(0.05)
        with ExitStack() as stack:
            for _ in range(5):
                assert stack.enter_context(kit.lease(pool))(WHO)[0] == "sandbox-app"
    assert box.gateway.refusals == []


def test_max_size_is_held_and_waited_for(kit, box):
    with kit.pool(pool={"max_size": 2, "timeout": 0.5}) as pool:
        with kit.lease(pool) as one, kit.lease(pool) as other:
            assert one(PID) != other(PID)
            start = time.monotonic()
            with pytest.raises(kit.too_late), kit.lease(pool):
                pass
            assert time.monotonic() - start >= 0.4
        assert kit.row(pool, WHO)[0] == "sandbox-app"


def test_whoever_waits_gets_the_next_one(kit, box):
    with kit.pool(pool={"max_size": 1, "timeout": 20}) as pool:
        with ThreadPoolExecutor(4) as threads:
            pids = list(threads.map(lambda _: kit.row(pool, PID), range(8)))
        assert len(set(pids)) == 1
    assert box.gateway.passwords == 1


def test_connections_are_renewed(box):
    def renewed(kit):
        with kit.pool(pool={"max_size": 1, "max_lifetime": 1}) as pool:
            before = kit.row(pool, PID)
            time.sleep(1.1)
            until = time.monotonic() + 10
            while kit.row(pool, PID) == before:
                assert time.monotonic() < until
                time.sleep(0.05)

    with_every_driver(renewed)


def test_a_broken_connection_is_replaced(kit, box, monkeypatch):
    monkeypatch.setattr("azpgauth.drivers.checks.FRESH", 0)  # as if it had been idle for longer
    with kit.pool(pool={"max_size": 2}) as pool:
        with kit.lease(pool) as one, kit.lease(pool) as other:
            one(PID)
            other(PID)
        box.gateway.drop()
        time.sleep(0.1)
        with kit.lease(pool) as one, kit.lease(pool) as other:
            assert one(WHO)[0] == other(WHO)[0] == "sandbox-app"


def test_an_error_inside_gives_the_connection_back(kit, box):
    with kit.pool(pool={"max_size": 1, "timeout": 5}) as pool:
        for _ in range(3):
            with pytest.raises(Exception, match="division by zero"):
                kit.row(pool, "select 1/0")
        assert kit.row(pool, WHO)[0] == "sandbox-app"


def test_a_restart_under_load_is_survived(kit, box, record_property):
    with kit.pool(pool={"max_size": 4, "timeout": 5}) as pool:
        stop, done = threading.Event(), []

        def work():
            while not stop.is_set():
                try:
                    kit.row(pool, "select 1")
                    done.append(time.monotonic())
                except Exception:  # noqa: BLE001, PERF203 - any driver's: the server is away
                    time.sleep(0.05)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        try:
            time.sleep(0.3)
            box.server.restart()
            back = time.monotonic()
            while not done or done[-1] < back:
                assert time.monotonic() < back + 10
                time.sleep(0.02)
            record_property("seconds", round(time.monotonic() - back, 2))
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        # All places of the pool are there again.
        with ExitStack() as stack:
            pids = {stack.enter_context(kit.lease(pool))(PID) for _ in range(4)}
        assert len(pids) == 4


@pytest.mark.parametrize(
    ("sections", "fault", "said"),
    [
        ({"database": {"name": "nope"}}, None, 'database "nope" does not exist'),
        ({"database": {"user": "nope"}}, None, "password authentication failed"),
        ({}, ("certificate", "unknown-ca"), "certificate verify failed"),
        ({}, ("certificate", "other-name"), r"match|mismatch"),
        ({}, ("mode", "no-tls"), "SSL"),
        ({"server": {"host": "nowhere.invalid"}}, None, "(?i)name|resolve"),
    ],
    ids=["database", "role", "ca", "name", "tls", "host"],
)
def test_permanent_mistakes_are_told_at_once(kit, box, nothing_leaks, sections, fault, said):
    if fault is not None:
        setattr(box.gateway, *fault)
    start = time.monotonic()
    with pytest.raises(ConnectError, match=said) as caught:
        kit.open(**sections)
    assert time.monotonic() - start < 8
    message = str(caught.value)
    assert "cause:" in message
    assert "to do:" in message
    assert "attempts" not in message
    cause = caught.value.__cause__
    assert isinstance(cause, (kit.cause, OSError))
    assert cause.__traceback__ is None
    assert leaked(caught.value, *box.authority.issued) == []
    if fault is not None:
        assert box.gateway.passwords == 0


@pytest.mark.parametrize("mode", ["starting-up", "refused"])
def test_what_may_pass_is_waited_for(box, mode):
    if mode == "refused":
        box.gateway.refuse()
        threading.Timer(0.5, box.gateway.listen).start()
    else:
        box.gateway.mode = mode
        threading.Timer(0.5, lambda: setattr(box.gateway, "mode", "normal")).start()

    def waited(kit):
        with kit.pool() as pool:
            assert kit.row(pool, WHO)[0] == "sandbox-app"

    with_every_driver(waited)


def test_a_deaf_server_ends_with_the_connect_timeout(box):
    box.gateway.mode = "deaf"

    def ended(kit):
        start = time.monotonic()
        with pytest.raises(ConnectError, match=r"(?i)time"):
            kit.open(server={"connect_timeout": 2})
        assert 1 < time.monotonic() - start < 12

    with_every_driver(ended)


def test_later_errors_hold_no_token(kit, box, nothing_leaks):
    with kit.pool(pool={"max_size": 4, "timeout": 1}) as pool, ExitStack() as stack:

        def take_all():  # a pool may have grown ahead, but not to four
            for _ in range(4):
                stack.enter_context(kit.lease(pool))

        box.gateway.certificate = "unknown-ca"
        with pytest.raises(Exception) as caught:  # noqa: PT011 - any driver's
            take_all()
        assert leaked(caught.value, *box.authority.issued) == []
        stack.close()
        box.gateway.certificate = "good"
        assert kit.row(pool, WHO)[0] == "sandbox-app"


def test_no_token(kit, box):
    box.authority.status = 400
    with pytest.raises(TokenError, match="Microsoft Entra ID"):
        kit.open()
    assert box.gateway.connections == 0


def test_a_role_that_is_not_in_the_token(kit, box):
    principal = Identity(f"sp-{kit}", kind="service-principal")
    box.create_role(principal)
    box.authority.identity = principal
    try:
        with pytest.raises(RoleError, match="AZPG_DATABASE_USER"):
            kit.open()
        with kit.pool(database={"user": principal.name}) as pool:
            assert kit.row(pool, WHO)[0] == principal.name
    finally:
        box.authority.identity = box.identity


def test_closing_twice(kit, box):
    with kit.pool() as pool:
        kit.row(pool, PID)
        kit.close(pool)
    names = {thread.name for thread in threading.enumerate()}
    assert "azpgauth-refresher" not in names


def test_one_connection(kit, box):
    row, conn = kit.one()
    assert row == ("sandbox-app",)
    assert conn.is_closed() if hasattr(conn, "is_closed") else conn.closed
    assert box.gateway.passwords == 1
    assert "azpgauth-refresher" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(ConnectError, match='database "nope" does not exist'):
        kit.one(database={"name": "nope"})


def test_native_names_that_cannot_be(kit, box):
    key = "url" if kit.driver.startswith("sqlalchemy") else "password"
    with pytest.raises(SettingsError, match="azpgauth sets this itself") as caught:
        kit.open(native={key: "hunter2"})
    assert "hunter2" not in str(caught.value)
    with pytest.raises(SettingsError, match="no_such_thing"):
        kit.open(native={"no_such_thing": 1})
    assert box.gateway.connections == 0


def test_the_environment_does_not_redirect(kit, box, monkeypatch):
    for name, value in {
        "PGHOSTADDR": "127.0.0.9",
        "PGHOST": "elsewhere",
        "PGPORT": "1",
        "PGUSER": "somebody",
        "PGSSLMODE": "disable",
        "PGSSLROOTCERT": "/nowhere",
        "PGDATABASE": "nope",
        "PGOPTIONS": "-c search_path=nowhere",
        "PGTARGETSESSIONATTRS": "standby",
        "PGSSLNEGOTIATION": "direct",
        "PGAPPNAME": "other",
        "PGREQUIREAUTH": "scram-sha-256",
        "PGCHANNELBINDING": "require",
        "PGSSLMAXPROTOCOLVERSION": "TLSv1",
        # What of these is a setting, too, counts below our own.
        "AZPG_DATABASE_USER": "sandbox-app",
    }.items():
        monkeypatch.setenv(name, value)
    with kit.pool() as pool:
        row = kit.row(pool, "select current_user::text, current_setting('application_name')")
        assert tuple(row) == ("sandbox-app", "azpgauth")
    monkeypatch.setenv("PGPASSWORD", "x")
    with kit.pool():
        pass
    monkeypatch.setenv("PGHOST", "localhost")
    with pytest.raises(SettingsError, match=r"password beside credential\.kind[\s\S]*PGPASSWORD"):
        kit.open()
    monkeypatch.delenv("PGPASSWORD")
    monkeypatch.setenv("PGSERVICE", "other")
    with pytest.raises(SettingsError, match="unset PGSERVICE"):
        kit.open()


def test_require_encrypts_and_verifies_nothing(kit, box):
    box.gateway.certificate = "unknown-ca"
    with kit.pool(server={"sslmode": "require"}) as pool:
        assert kit.row(pool, WHO) == ("sandbox-app", "TLSv1.3")


def test_verify_ca_does_not_look_at_the_name(kit, box):
    box.gateway.certificate = "other-name"
    with kit.pool(server={"sslmode": "verify-ca"}) as pool:
        assert kit.row(pool, WHO) == ("sandbox-app", "TLSv1.3")
    box.gateway.certificate = "unknown-ca"
    with pytest.raises(ConnectError, match="certificate verify failed"):
        kit.open(server={"sslmode": "verify-ca"})


def test_several_hosts(kit, box):
    with kit.pool(server={"host": "127.0.0.9,localhost"}) as pool:
        assert kit.row(pool, WHO)[0] == "sandbox-app"


def test_a_password_without_azure(kit, box, monkeypatch):
    """The same program on a laptop: here towards PostgreSQL's own socket, which trusts."""
    monkeypatch.setenv("PGPASSWORD", "not this one")
    folder = box.server.socket.rpartition("/")[0]
    local = {"host": folder, "sslmode": "disable", "port": 5432}
    for kind in ({"kind": "none"}, {"kind": "password", "password": "hunter2"}):
        monkeypatch.delenv("AZPG_CREDENTIAL_KIND")
        with kit.pool(server=local, database={"user": "postgres"}, credential=kind) as pool:
            assert tuple(kit.row(pool, "select current_user::text")) == ("postgres",)
            assert token_info(pool).requests == 0
        monkeypatch.setenv("AZPG_CREDENTIAL_KIND", "managed-identity")
    assert box.authority.requests == []


def test_the_wrong_face(kit, box):
    if kit.is_async:
        from azpgauth import connection_from_env

        with pytest.raises(SettingsError, match=f"{kit.driver} is not a sync driver"):
            connection_from_env(driver=kit.settings)
    else:
        from azpgauth import aconnect_from_env

        async def main():
            await aconnect_from_env(driver=kit.settings)

        with pytest.raises(SettingsError, match=f"{kit.driver} is not an async driver"):
            kit.loop.do(main())


def test_a_driver_that_is_not_installed(kit, box, monkeypatch):
    import sys

    package = {"psycopg-async": "psycopg", "sqlalchemy-async": "sqlalchemy"}.get(
        kit.driver, kit.driver
    )
    monkeypatch.delitem(sys.modules, f"azpgauth.drivers.{package}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDriverError, match=rf"pip install 'azpgauth\[{package}\]'"):
        connect_from_env(driver=kit.settings) if not kit.is_async else kit.open()
