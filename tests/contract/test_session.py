"""What each session begins with, and when its peer is given up, with every driver."""

import json
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from azpgauth import ConnectError, SettingsError, load_settings
from azpgauth.server.keepalives import Keepalives

SHOWN = "select current_setting('search_path'), current_setting('statement_timeout'), current_user"


@pytest.fixture
def owner(box):
    name = "shop owner\\s"  # with a blank and a backslash, as odd as it may be
    box.server.execute(f'create role "{name}"; grant "{name}" to "{box.identity.name}"')
    yield name
    box.server.execute(f'drop role "{name}"')


@pytest.mark.parametrize("how", ["table", "words", "JSON"])
def test_a_session_begins_with_its_options(box, kit, owner, how, monkeypatch):
    options = {"search_path": '"$user", shop', "statement_timeout": 5000, "role": owner}
    keywords = {}
    if how == "table":
        keywords = {"database": {"options": options}}
    elif how == "words":
        words = r'-c search_path="$user",\ shop --statement-timeout=5000 -crole=shop\ owner\\s'
        monkeypatch.setenv("AZPG_DATABASE_OPTIONS", words)
    else:
        monkeypatch.setenv("AZPG_DATABASE_OPTIONS", json.dumps(options))
    assert load_settings(**keywords).database.options["statement_timeout"] == "5000"
    with kit.pool(**keywords) as pool:
        assert kit.row(pool, SHOWN) == ('"$user", shop', "5s", owner)
        assert kit.row(pool, "select session_user") == ("sandbox-app",)


@pytest.mark.parametrize("name", ["user", "Database", "replication", "options"])
def test_what_a_connection_begins_with_is_no_option(box, name):
    with pytest.raises(SettingsError) as caught:
        load_settings(database={"options": {name: "postgres"}})
    assert [each.setting for each in caught.value.problems] == ["database.options"]


def test_asyncpg_reads_utf_8_alone(box):
    options = {"options": {"Client_Encoding": "latin1"}}
    for driver in ("asyncpg", {"name": "sqlalchemy-async", "dialect": "asyncpg"}):
        with pytest.raises(SettingsError, match="UTF-8"):
            load_settings(driver=driver, database=options)
    load_settings(driver="psycopg", database=options)


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"lock_timeout": "5 parsecs"}, "the server refuses an option"),
        ({"no_such_option": "1"}, "the server refuses an option"),
        ({"role": "nobody at all"}, "the role that the session is to act as does not exist"),
    ],
)
def test_an_option_that_the_server_refuses_is_a_mistake(box, kit, options, cause):
    with pytest.raises(ConnectError) as caught, kit.pool(database={"options": options}):
        pass
    assert cause in caught.value.cause
    assert "AZPG_DATABASE_OPTIONS" in caught.value.remedy
    assert box.gateway.passwords <= 2  # not tried again and again


def test_options_of_toml(box, kit, tmp_path):
    (tmp_path / "azpgauth.toml").write_text(
        '[database.options]\nsearch_path = "shop"\nstatement_timeout = 5000\n'
    )
    with kit.pool() as pool:
        assert kit.row(pool, SHOWN)[:2] == ("shop", "5s")


def test_what_the_program_says_itself_counts_as_well(box, kit):
    if kit.driver == "asyncpg":
        native = {"server_settings": {"statement_timeout": "7s"}}
    elif kit.dialect == "asyncpg":
        native = {"connect_args": {"server_settings": {"statement_timeout": "7s"}}}
    elif kit.driver.startswith("sqlalchemy"):
        native = {"connect_args": {"options": "-c statement_timeout=7s"}}
    else:
        native = {"options": "-c statement_timeout=7s"}
    keywords = {"database": {"options": {"search_path": "shop", "statement_timeout": "5s"}}}
    with kit.pool(native=native, **keywords) as pool:
        assert kit.row(pool, SHOWN)[:2] == ("shop", "7s")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("search_path=shop", "has a word that is not an option"),
        ("-c search_path", "has an option without name or value"),
        ('{"search_path": ', "is not JSON that can be read"),
        ('{"search path": "a"}', "has a name that no option has"),
        ({"search_path": ["a"]}, "has a list for an option's value"),
        (["a"], "is not a table of options"),
        ({"search_path": "a\0b"}, "holds a NUL character"),
    ],
    ids=str,
)
def test_options_that_are_none(value, reason):
    with pytest.raises(SettingsError, match=reason) as caught:
        load_settings(server={"host": "h"}, database={"name": "d", "options": value})
    assert caught.value.problems[0].setting == "database.options"


NAMES = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")


def values_of(port):
    """The options of this process's sockets to a port."""
    found = set()
    numbers = [path for path in Path("/proc/self/fd").iterdir() if path.is_socket()]
    for path in numbers:
        with suppress(OSError), socket.socket(fileno=os.dup(int(path.name))) as sock:
            inet = sock.family in {socket.AF_INET, socket.AF_INET6}
            if inet and sock.getpeername()[1] == port:
                on = sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                rest = [sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, n)) for n in NAMES]
                found.add((on, *rest))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="sockets are looked at in /proc")
def test_sockets_have_what_the_settings_say(box, kit):
    with kit.pool() as pool, kit.lease(pool) as query:
        assert query("select 1") == (1,)
        assert values_of(box.gateway.port) == {(1, 15, 5, 3, 30_000)}
    server = {"keepalives_idle": 40, "keepalives_interval": 7, "keepalives_count": 2}
    with kit.pool(server={**server, "tcp_user_timeout": 60_000}) as pool, kit.lease(pool) as query:
        assert query("select 1") == (1,)
        assert values_of(box.gateway.port) == {(1, 40, 7, 2, 60_000)}


@pytest.mark.skipif(sys.platform != "linux", reason="sockets are looked at in /proc")
def test_nought_leaves_it_to_the_system(box, kit):
    names = ("keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")
    with kit.pool(server=dict.fromkeys(names, 0)) as pool, kit.lease(pool) as query:
        assert query("select 1") == (1,)
        with socket.socket() as fresh:
            usual = [fresh.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in NAMES]
        assert values_of(box.gateway.port) == {(1, *usual)}


def test_a_system_that_lacks_some(monkeypatch):
    """As on systems other than Linux: what there is not is left alone."""
    for name in NAMES:
        monkeypatch.delattr(socket, name)
    with socket.socket() as sock:
        Keepalives().apply(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    left, right = socket.socketpair()
    with left, right:
        Keepalives().apply(left)  # a folder's socket has none of them
        assert left.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


def test_a_limit_that_would_kill_a_healthy_connection_is_a_mistake():
    with pytest.raises(SettingsError, match="set it to 30000 or more") as caught:
        load_settings(server={"host": "h", "tcp_user_timeout": 20_000}, database={"name": "d"})
    assert caught.value.problems[0].setting == "server.tcp_user_timeout"
    load_settings(
        server={"host": "h", "tcp_user_timeout": 20_000, "keepalives_idle": 5},
        database={"name": "d"},
    )
