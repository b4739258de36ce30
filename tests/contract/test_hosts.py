"""Several hosts: which one a connect takes, which ones it tells a token, and how pools follow."""

import asyncio
import logging
import time
from contextlib import ExitStack, contextmanager, suppress

import pytest

from azpgauth import ConnectError, SettingsError, aconnection_from_env, connect_from_env
from azpgauth.drivers.asking import ASYNCPG
from azpgauth.identity.azure import forget
from azpgauth.runtime.waiting import ON_LOOP
from azpgauth.sandbox import Sandbox
from azpgauth.sandbox.postgres.pgbouncer import program

RECOVERY = "select pg_is_in_recovery()"


@pytest.fixture(scope="module")
def running():
    with Sandbox(standby=True) as box:
        yield box


@pytest.fixture
def two(running, monkeypatch):
    """A primary and its standby; the environment names both, the primary first."""
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    running.reset()
    forget()
    yield running
    running.reset()


def ports(box, *, standby_first=False):
    found = [box.gateway.port, box.standby_gateway.port]
    return found[::-1] if standby_first else found


@contextmanager
def faulty(gateway, fault):
    """What is wrong with the first host; its name, where that is what is wrong."""
    if fault == "refusing":
        gateway.refuse()
    elif fault == "wrong certificate":
        gateway.certificate = "unknown-ca"
    elif fault == "refused password":
        gateway.answer = 'password authentication failed for user "sandbox-app"'
    elif fault != "unknown":
        gateway.mode = fault
    yield "unknown.invalid" if fault == "unknown" else "localhost"


PASSING = ["refusing", "unknown", "starting-up", "full", "dropping"]


def goes_on(two, kit, fault, record_property):
    with faulty(two.gateway, fault) as name:
        server = {"host": [name, "localhost"], "connect_timeout": 2}
        began = time.monotonic()
        with kit.pool(server=server) as pool:
            record_property("seconds", round(time.monotonic() - began, 2))
            assert kit.row(pool, RECOVERY) == (True,)
    assert two.gateway.passwords == 0


@pytest.mark.parametrize("fault", ["refusing", "deaf"])
def test_a_host_that_does_not_take_it_is_passed_over(two, kit, fault, record_property):
    goes_on(two, kit, fault, record_property)


@pytest.mark.thorough
def test_a_silent_host_leaves_time_for_the_next_one(two, kit):
    """Also where a check-out has less time than a connect."""
    limits = {"timeout": 4, "max_size": 2}
    with kit.pool(server={"target_session_attrs": "any"}, pool=limits) as pool:
        with kit.lease(pool) as query:
            query("select 1")
            two.gateway.mode = "deaf"
            assert kit.row(pool, RECOVERY) == (True,)
        two.gateway.mode = "normal"


@pytest.mark.parametrize(
    "words",
    [
        "no more connections allowed (max_client_conn)",
        "server login has been failing, try again later (server_login_retry)",
        "the database system is not accepting connections",
        'too many connections for database "app"',
    ],
)
def test_words_that_lead_to_the_next_host(two, words):
    two.gateway.answer = words
    with connect_from_env() as pool, pool.connection() as conn:
        assert conn.execute(RECOVERY).fetchone() == (True,)


@pytest.mark.thorough
@pytest.mark.parametrize("fault", PASSING[1:])
def test_so_is_one_that_may_pass(two, kit, fault, record_property):
    goes_on(two, kit, fault, record_property)


@pytest.mark.parametrize("fault", ["wrong certificate", "refused password"])
def test_what_is_a_mistake_ends_it_at_once(two, kit, fault, record_property):
    began = time.monotonic()
    with faulty(two.gateway, fault), pytest.raises(ConnectError) as caught, kit.pool():
        pass
    record_property("seconds", round(time.monotonic() - began, 2))
    assert caught.value.remedy
    assert two.standby_gateway.connections == 0
    assert two.gateway.passwords <= 2  # with another token once more


@pytest.mark.parametrize("target", ["primary", "read-write", "standby", "read-only"])
def test_the_target_is_what_is_connected_to(two, kit, target):
    standby = target in {"standby", "read-only"}
    server = {"port": ports(two, standby_first=not standby), "target_session_attrs": target}
    with kit.pool(server=server, pool={"min_size": 2}) as pool:
        assert kit.row(pool, RECOVERY) == (standby,)
    assert tuple(kit.one(server=server)[0]) == ("sandbox-app",)


def test_a_target_that_no_server_meets_names_the_setting(two, kit):
    server = {
        "host": "localhost",
        "port": two.gateway.port,
        "target_session_attrs": "standby",
        "connect_timeout": 1,
    }
    with pytest.raises(ConnectError) as caught, kit.pool(server=server):
        pass
    assert "is a primary" in str(caught.value)
    assert "AZPG_SERVER_TARGET_SESSION_ATTRS" in caught.value.remedy
    assert caught.value.layer == "database"


def test_all_hosts_are_in_the_error(two, kit):
    two.gateway.refuse()
    two.standby_gateway.mode = "starting-up"
    with pytest.raises(ConnectError) as caught, kit.pool(server={"connect_timeout": 1}):
        pass
    said = str(caught.value)
    assert "starting up" in said
    assert f"localhost:{two.gateway.port}:" in said


def test_without_a_target_a_primary_is_preferred(two, kit, caplog):
    with kit.pool(server={"port": ports(two, standby_first=True)}) as pool:
        assert kit.row(pool, RECOVERY) == (False,)
    assert not warnings(caplog)


def test_a_replica_alone_connects_and_is_warned_of_once(two, kit, caplog):
    server = {"host": "localhost", "port": two.standby_gateway.port}
    with kit.pool(server=server, pool={"min_size": 2}) as pool:
        assert kit.row(pool, RECOVERY) == (True,)
        with kit.lease(pool) as one, kit.lease(pool) as other:
            assert one(RECOVERY) == other(RECOVERY) == (True,)
    assert len(warnings(caplog)) == 1


def warnings(caplog):
    found = [each for each in caplog.records if each.name == "azpgauth.targets"]
    return [each for each in found if each.levelno == logging.WARNING]


def test_once_a_primary_is_found_standbys_that_were_in_use_go_too(two, kit, monkeypatch, caplog):
    caplog.set_level(logging.ERROR, "azpgauth.targets")
    two.gateway.refuse()
    server = {"port": ports(two, standby_first=True)}
    with kit.pool(server=server, pool={"max_size": 3}) as pool:
        with ExitStack() as leases:
            with kit.lease(pool) as idle:
                asks = [leases.enter_context(kit.lease(pool)) for _ in range(2)]
                assert [ask(RECOVERY) for ask in (idle, *asks)] == [(True,)] * 3
            two.gateway.listen()
            monkeypatch.setattr("azpgauth.drivers.checks.FRESH", 0)
            monkeypatch.setattr("azpgauth.drivers.preference.LOOK", 0)
            assert kit.row(pool, RECOVERY) == (False,)
            # Nobody looks for another one now: what is handed out is what is there.
            monkeypatch.setattr("azpgauth.drivers.preference.LOOK", 3600)
        assert {kit.row(pool, RECOVERY) for _ in range(6)} == {(False,)}


def test_a_connection_that_nobody_has_seen_is_closed_in_a_moment(two):
    async def closes():
        async with aconnection_from_env(driver="asyncpg") as conn:
            two.gateway.freeze()
            with suppress(asyncio.TimeoutError):
                await ASYNCPG.close(conn, ON_LOOP)  # by itself it would wait for an answer
            return conn.is_closed()

    assert asyncio.run(closes())


@pytest.mark.parametrize("fault", ["wrong certificate", "refused password"])
def test_a_mistake_ends_it_also_where_another_host_would_do(two, kit, fault):
    server = {"port": ports(two, standby_first=True)}  # of which the first is second choice
    with faulty(two.gateway, fault), pytest.raises(ConnectError) as caught, kit.pool(server=server):
        pass
    assert caught.value.remedy


def test_a_reader_is_the_same_settings_with_another_target(two, kit, caplog):
    with kit.pool(server={"target_session_attrs": "prefer-standby"}) as pool:
        assert kit.row(pool, RECOVERY) == (True,)
    assert not warnings(caplog)


def test_random_order_takes_both(two, kit):
    server = {"load_balance_hosts": "random", "target_session_attrs": "any"}
    with kit.pool(server=server, pool={"max_size": 12}) as pool:
        leases = [kit.lease(pool) for _ in range(12)]
        queries = [each.__enter__() for each in leases]
        found = {query(RECOVERY)[0] for query in queries}
        for each in leases:
            each.__exit__(None, None, None)
    assert found == {True, False}  # all alike: once in 2048


def writes(kit, pool, seconds):
    """Seconds until a write succeeds, and what was raised before that."""
    began, errors = time.monotonic(), []
    while time.monotonic() - began < seconds:
        error = refused(kit, pool, "insert into noted values (1) returning 1")
        if error is None:
            return time.monotonic() - began, errors
        errors.append(error)
        time.sleep(0.05)
    raise AssertionError(errors[-1])


def refused(kit, pool, sql):
    """What one query in a pool fails with, if it fails."""
    try:
        with kit.lease(pool) as query:
            query(sql)
    except Exception as exc:  # noqa: BLE001 - of each driver
        return f"{type(exc).__name__}: {exc}"
    return None


def prepare(box):
    box.server.execute(
        "drop table if exists noted; create table noted (n int);"
        'alter table noted owner to "sandbox-app"',
        "app",
    )


@pytest.mark.parametrize("target", [None, "read-write"])
def test_two_names_and_a_switchover(two, kit, target, record_property):
    prepare(two)
    with kit.pool(server={"target_session_attrs": target}, pool={"min_size": 3}) as pool:
        writes(kit, pool, 10)
        two.switchover(lag=None)
        seconds, errors = writes(kit, pool, 20)
        record_property("seconds", round(seconds, 2))
        record_property("errors", errors)
        assert not [each for each in errors if "read-only" in each]
        with kit.lease(pool) as one, kit.lease(pool) as other, kit.lease(pool) as third:
            assert {query(RECOVERY) for query in (one, other, third)} == {(False,)}


@pytest.mark.thorough
@pytest.mark.parametrize("target", [None, "read-write"])
def test_a_name_that_moves_late(two, kit, target, record_property):
    prepare(two)
    server = {"host": "localhost", "port": two.gateway.port, "target_session_attrs": target}
    with kit.pool(server=server, pool={"min_size": 3}) as pool:
        writes(kit, pool, 10)
        two.switchover(lag=4)
        seconds, errors = writes(kit, pool, 30)
        record_property("seconds", round(seconds, 2))
        record_property("read-only", sum("read-only" in each for each in errors))
        if target:
            assert not [each for each in errors if "read-only" in each]
        with kit.lease(pool) as one, kit.lease(pool) as other, kit.lease(pool) as third:
            assert {query(RECOVERY) for query in (one, other, third)} == {(False,)}


@pytest.mark.thorough
def test_a_server_that_turns_read_only_is_left(two, kit):
    """As at 95 % of its storage; its sessions are told when they are next asked."""
    server = {"target_session_attrs": "read-write", "connect_timeout": 1}
    with kit.pool(server=server, pool={"timeout": 3}) as pool:
        kit.row(pool, "select 1")
        two.server.execute("alter system set default_transaction_read_only = on")
        two.server.execute("select pg_reload_conf()")
        try:
            time.sleep(0.7)
            said = [error for _ in range(3) if (error := refused(kit, pool, "select 1"))]
            assert said
        finally:
            two.server.execute("alter system reset default_transaction_read_only")
            two.server.execute("select pg_reload_conf()")


def test_through_a_tunnel_the_certificate_is_checked_against_the_name(two, kit, monkeypatch):
    """Where nobody can look the name up: only the address leads there."""
    tunnel = {"port": two.gateway.port, "hostaddr": "127.0.0.1"}
    name = "sandbox.postgres.database.azure.com"
    with kit.pool(server={"host": name, **tunnel}) as pool:
        assert kit.row(pool, "select current_user") == ("sandbox-app",)
    assert tuple(kit.one(server={"host": name, **tunnel})[0]) == ("sandbox-app",)
    seen = two.gateway.passwords
    with (
        pytest.raises(ConnectError) as caught,
        kit.pool(server={"host": "other.example", **tunnel}),
    ):
        pass
    assert caught.value.layer == "tls"
    assert two.gateway.passwords == seen


@pytest.mark.parametrize(
    ("server", "setting"),
    [
        ({"host": "a,b", "port": "1,2,3"}, "server.port"),
        ({"host": "a", "port": "1,2"}, "server.port"),
        ({"host": "a,b", "hostaddr": "127.0.0.1"}, "server.hostaddr"),
        ({"hostaddr": "localhost"}, "server.hostaddr"),
        ({"port": "5432,none"}, "server.port"),
        ({"target_session_attrs": "master"}, "server.target_session_attrs"),
    ],
)
def test_lists_that_do_not_fit(two, server, setting):
    from azpgauth import load_settings

    with pytest.raises(SettingsError) as caught:
        load_settings(server={"host": "a", "port": 5432, **server})
    assert [each.setting for each in caught.value.problems] == [setting]
    assert caught.value.problems[0].action


@pytest.fixture(scope="module")
def running_pooled():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("azpgauth.sandbox.box.PORT", 0)
        box = Sandbox(standby=True, pgbouncer=True)
        box.start()
    yield box
    box.stop()


@pytest.mark.skipif(program() is None, reason="the machine has no PgBouncer")
@pytest.mark.thorough
@pytest.mark.parametrize(
    ("target", "often"), [(None, False), ("read-write", False), ("read-write", True)]
)
def test_behind_pgbouncer_the_server_is_asked(
    running_pooled, kit, target, often, monkeypatch, record_property
):
    """Clients of PgBouncer stay connected when the server behind it is another one."""
    for name, value in running_pooled.environment.items():
        monkeypatch.setenv(name, value)
    running_pooled.reset()
    forget()
    prepare(running_pooled)
    if often:  # in use all the time, so that no check is due
        monkeypatch.setattr("azpgauth.drivers.checks.FRESH", 3600)
        monkeypatch.setattr("azpgauth.drivers.connector.LOOK", 1)
    else:
        monkeypatch.setattr("azpgauth.drivers.checks.FRESH", 0)
    with kit.pool(server={"target_session_attrs": target, "pooler": True}) as pool:
        writes(kit, pool, 20)
        running_pooled.switchover(lag=None)
        seconds, errors = writes(kit, pool, 30)
        record_property("seconds", round(seconds, 2))
        record_property("errors", errors)
        assert kit.row(pool, RECOVERY) == (False,)
        assert not [each for each in errors if "read-only" in each and target and not often]
    server = {"target_session_attrs": "standby", "pooler": True}
    with kit.pool(server=server) as pool:
        assert kit.row(pool, RECOVERY) == (True,)


@pytest.mark.skipif(program() is None, reason="the machine has no PgBouncer")
@pytest.mark.thorough
def test_a_replica_alone_behind_pgbouncer_is_not_connected_to_again(
    running_pooled, kit, monkeypatch, caplog
):
    for name, value in running_pooled.environment.items():
        monkeypatch.setenv(name, value)
    running_pooled.reset()
    forget()
    monkeypatch.setattr("azpgauth.drivers.checks.FRESH", 0)
    monkeypatch.setattr("azpgauth.drivers.preference.LOOK", 0)
    gateway = running_pooled.standby_gateway
    server = {"host": "localhost", "port": gateway.port, "pooler": True}
    with kit.pool(server=server, pool={"min_size": 1, "max_size": 1}) as pool:
        for _ in range(4):
            assert kit.row(pool, RECOVERY) == (True,)
        assert gateway.connections == 1
    assert len(warnings(caplog)) == 1
