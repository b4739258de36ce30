"""Behind a real PgBouncer: no other client's rows, found out on any port, options refused."""

import logging
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from azure.identity import ManagedIdentityCredential
from kits import KITS, Loop

from azpgauth import ConnectError, SettingsError
from azpgauth.drivers import pooler
from azpgauth.identity.azure import forget
from azpgauth.psycopg3 import EntraConnection
from azpgauth.sandbox import Sandbox
from azpgauth.sandbox.postgres.pgbouncer import PORT, program

pytestmark = pytest.mark.skipif(program() is None, reason="the machine has no PgBouncer")

PROGRAM = Path(__file__).with_name("pooled.py")


@pytest.fixture(scope="module")
def pooled():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("azpgauth.sandbox.box.PORT", 0)
        box = Sandbox(pgbouncer=True)
        box.start()
    yield box
    box.stop()


@pytest.fixture
def behind(pooled, _clean_environment, monkeypatch):
    """PgBouncer on a port that tells nothing."""
    assert pooled.gateway.port != PORT
    for name, value in pooled.environment.items():
        monkeypatch.setenv(name, value)
    forget()  # another sandbox's token
    yield pooled
    pooled.reset()
    forget()


def two_processes(kit, mode="autocommit", count=130, min_size=1):
    """What two processes with four workers each come to: right, wrong, errors, warnings."""
    command = [sys.executable, str(PROGRAM), kit.driver, kit.dialect or "-"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [
        subprocess.Popen([*command, mark, mode, str(count), str(min_size)], text=True, **pipes)
        for mark in ("one", "two")
    ]
    for each in both:
        each.stdin.write("go\n")
        each.stdin.flush()
    found = []
    for each in both:
        out, err = each.communicate(timeout=50)
        assert each.returncode == 0, err
        found.append([*map(int, out.split()), err])
    return found


@pytest.mark.thorough
def test_no_row_is_another_clients(behind, kit, record_property):
    found = two_processes(kit)
    record_property("found", [each[:4] for each in found])
    for right, wrong, errors, warnings, said in found:
        assert (right, wrong, errors) == (520, 0, 0), said
        assert warnings == (0 if "psycopg2" in str(kit) else 1)


@pytest.mark.thorough
@pytest.mark.parametrize("how", ["found out", "setting"])
@pytest.mark.parametrize("mode", ["autocommit", "transactions"])
@pytest.mark.parametrize("min_size", [1, 10])
def test_nor_in_any_other_way(behind, kit, mode, min_size, how, monkeypatch):
    if how == "setting":
        monkeypatch.setenv("AZPG_SERVER_POOLER", "true")
    for right, wrong, errors, warnings, said in two_processes(kit, mode, 130, min_size):
        assert (right, wrong, errors) == (520, 0, 0), said
        assert warnings == (0 if "psycopg2" in str(kit) or how == "setting" else 1)


def named(kit, **keywords):
    """How many named prepared statements one connection of a pool has made; more uses make more."""
    with kit.pool(**keywords) as pool, kit.lease(pool) as query:
        for _ in range(8):
            query("select 1")
        return query("select count(*)::int from pg_prepared_statements where name <> ''")[0]


@pytest.mark.parametrize(
    ("settings", "made"),
    [
        ({"AZPG_SERVER_POOLER": "true"}, False),
        ({"AZPG_SERVER_POOLER": "true", "AZPG_DRIVER_PREPARED_STATEMENTS": "true"}, True),
        ({"AZPG_DRIVER_PREPARED_STATEMENTS": "false"}, False),
        ({}, True),
    ],
    ids=str,
)
def test_settings_say_it_before_anybody_looks(box, kit, monkeypatch, caplog, settings, made):
    """Without a PgBouncer: whether named statements are made is seen by the server."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    if "psycopg2" in str(kit):
        made = False  # it has none
    assert bool(named(kit)) == made
    assert caplog.records == []


def test_a_single_connection(behind, kit, monkeypatch, caplog):
    # One process id in 600 is one that a server could have: asked again until it is another.
    assert tuple(kit.one()[0]) == ("sandbox-app",)
    count = 0 if "psycopg2" in str(kit) else 1
    assert len([r for r in caplog.records if r.name == "azpgauth.pooler"]) == count
    monkeypatch.setenv("AZPG_SERVER_POOLER", "true")
    caplog.clear()
    assert tuple(kit.one()[0]) == ("sandbox-app",)
    assert not [r for r in caplog.records if r.name == "azpgauth.pooler"]


def test_a_process_id_that_a_server_could_have_is_asked_for(behind, kit, monkeypatch, caplog):
    monkeypatch.setattr(pooler, "_LARGEST", 2**31)
    monkeypatch.setattr(pooler, "_SMALLEST", -(2**31))
    with kit.pool() as pool, kit.lease(pool) as query:
        assert query("select 1") == (1,)
    count = 0 if "psycopg2" in str(kit) else 1
    found = [r for r in caplog.records if r.name == "azpgauth.pooler"]
    assert [r.levelno for r in found] == [logging.WARNING] * count


@pytest.mark.parametrize("said", ["setting", "found out"])
def test_options_are_refused_with_what_does_the_same(behind, kit, monkeypatch, said):
    monkeypatch.setenv("AZPG_DATABASE_OPTIONS", "-c statement_timeout=5s")
    if said == "setting":
        monkeypatch.setenv("AZPG_SERVER_POOLER", "true")
    with pytest.raises((SettingsError, ConnectError)) as caught, kit.pool():
        pass
    assert isinstance(caught.value, SettingsError if said == "setting" else ConnectError)
    said = str(caught.value)
    assert "database.options" in said
    assert "set statement_timeout = '5s'" in said


@pytest.mark.usefixtures("_clean_environment")
def test_by_port(monkeypatch, caplog):
    """On 6432 nobody looks, and nobody is warned."""
    with Sandbox(pgbouncer=True) as box:
        if box.gateway.port != PORT:
            pytest.skip(f"port {PORT} is not free")
        for name, value in box.environment.items():
            monkeypatch.setenv(name, value)
        forget()
        for kit in KITS:
            with Loop() as kit.loop:
                with kit.pool() as pool, kit.lease(pool) as query:
                    assert query("select 1") == (1,)
                assert tuple(kit.one()[0]) == ("sandbox-app",)
            kit.loop = None
        forget()
    assert not [r for r in caplog.records if r.name == "azpgauth.pooler"]


def test_it_comes_back_after_a_restart(behind, kit, monkeypatch):
    monkeypatch.setattr("azpgauth.drivers.checks.FRESH", 0)  # as if it had been idle for longer
    with kit.pool() as pool:
        with kit.lease(pool) as query:
            assert query("select 1") == (1,)
        behind.pgbouncer.restart()
        with kit.lease(pool) as query:
            assert query("select 1") == (1,)


NAMED = {
    "psycopg": {"prepare_threshold": 0},
    "asyncpg": {"statement_cache_size": 50},
    "psycopg2": {},
}


@pytest.mark.parametrize("server", [{}, {"pooler": True}], ids=["found out", "said"])
def test_what_a_program_says_of_statements_gives_way(behind, kit, server):
    ours = NAMED[kit.dialect or kit.driver.partition("-")[0]]
    if kit.dialect == "asyncpg":  # as SQLAlchemy's documentation has it
        ours = {**ours, "prepared_statement_name_func": lambda: f"__asyncpg_{uuid4()}__"}
    native = ours if kit.dialect is None else {"connect_args": ours}
    limits = {"min_size": 1, "max_size": 1}
    mark = f"u_{uuid4().hex}"  # statements of other tests are on the server's session, too
    with kit.pool(native=native, server=server, pool=limits) as pool, kit.lease(pool) as query:
        query(f"select current_user as {mark}")
        named = "select count(*) from pg_prepared_statements where statement ~ 'as MARK$'"
        assert query(named.replace("MARK", mark)) == (0,)


def test_a_drop_in_makes_none_either(behind):
    where = f"host=localhost port={behind.gateway.port} dbname=app"
    root = behind.environment["AZPG_SERVER_SSLROOTCERT"]
    keywords = {"credential": ManagedIdentityCredential(), "sslrootcert": root}
    # Nothing is asked here: one process id in 600 is one that a server could have.
    made = []
    for _ in range(3):
        with EntraConnection.connect(where, **keywords) as conn:
            made.append(conn.prepare_threshold)
    assert made.count(None) >= 2
    with EntraConnection.connect(where, prepare_threshold=3, **keywords) as conn:
        assert conn.prepare_threshold == 3
