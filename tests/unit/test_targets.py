"""Which server fits which target; and that no pool refuses every server for good."""

import random
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azpgauth.drivers import checks, connector, preference
from azpgauth.drivers.connector import Connector
from azpgauth.drivers.driver import ConnectArguments
from azpgauth.identity.login import StaticLogin
from azpgauth.runtime.waiting import Blocking, run
from azpgauth.server.plan import ConnectPlan, PoolLimits
from azpgauth.server.roots import Roots
from azpgauth.server.targets import (
    TARGETS,
    Fit,
    Report,
    Server,
    fit,
    in_order,
    is_reader,
    keeps,
    parsed_rows,
    reported,
)
from azpgauth.server.tls import Tls

PRIMARY, READ_ONLY = Report(standby=False, read_only=False), Report(standby=False, read_only=True)
STANDBY = Report(standby=True, read_only=False)


@pytest.mark.parametrize(
    ("target", "fitting"),
    [
        (None, [PRIMARY, READ_ONLY]),
        ("any", [PRIMARY, READ_ONLY, STANDBY]),
        ("primary", [PRIMARY, READ_ONLY]),
        ("read-write", [PRIMARY]),
        ("read-only", [READ_ONLY, STANDBY]),
        ("standby", [STANDBY]),
        ("prefer-standby", [STANDBY]),
    ],
)
def test_which_servers_fit(target, fitting):
    found = [each for each in (PRIMARY, READ_ONLY, STANDBY) if fit(target, each) is Fit.GOOD]
    assert found == fitting
    wishes = {None, "prefer-standby"}
    kept = [each for each in (PRIMARY, READ_ONLY, STANDBY) if keeps(target, each)]
    assert kept == ([PRIMARY, READ_ONLY, STANDBY] if target in wishes else fitting)
    assert fit(target, Report()) is Fit.GOOD  # before PostgreSQL 14


def test_what_servers_say():
    assert reported("off", "on") == reported(b"off", b"on") == READ_ONLY
    assert reported(None, None) == Report()
    assert [parsed_rows(rows) for rows in (1, 2, 3, 4)] == [
        PRIMARY,
        Report(standby=True, read_only=False),
        READ_ONLY,
        Report(standby=True, read_only=True),
    ]


def test_readers_names():
    assert is_reader("shop.reader.postgres.database.azure.com")
    assert is_reader("Shop.Reader.postgres.database.azure.com")
    assert not is_reader("reader.postgres.database.azure.com")
    assert not is_reader("shop.writer.postgres.database.azure.com")


def test_random_order_has_all():
    servers = [Server("h", port) for port in range(1, 9)]
    assert in_order(servers, randomly=False) == servers
    shuffle = random.Random(3).shuffle  # noqa: S311 - no secret
    found = in_order(servers, randomly=True, shuffled=shuffle)
    assert found != servers
    assert sorted(found, key=lambda each: each.port) == servers


# -- histories -----------------------------------------------------------------------------------


class Clock(Blocking):
    """Time that passes only when somebody waits."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    async def sleep(self, seconds):
        self.now += seconds


@dataclass(eq=False)
class Conn:
    world: list
    place: int
    process: int
    closed: bool = False

    def close(self):
        self.closed = True

    @property
    def state(self):
        """As the server is now, if the process that it was made to is still there."""
        state, process = self.world[self.place]
        return state if process == self.process else "down"


REPORTED = {"primary": ("off", "off"), "read-only": ("off", "on"), "standby": ("on", "off")}
REPORTS = {state: reported(*said) for state, said in REPORTED.items()}


class Asking:
    """How a server is asked that is a word in a list."""

    names_statements = False

    def process_id(self, conn):
        return 7

    def told(self, conn):
        return None if conn.closed else REPORTED[conn.state]

    async def close(self, conn, wait):
        conn.close()

    async def rows(self, conn, question, seconds, wait):
        return None if conn.state == "down" else 1

    def settle(self, conn, keepalives):
        pass

    def without_statements(self, conn):
        return True

    def error(self, text, *, unmet=False):
        return ConnectionError(text, unmet)


def plan_of(count, target=None, *, randomly=False):
    return ConnectPlan(
        servers=tuple(Server("h", port) for port in range(1, count + 1)),
        database="shop",
        application_name="test",
        connect_timeout=10,
        tls=Tls("require", Roots("/roots.pem")),
        pool=PoolLimits(1, 10, 30.0, 3600.0, 600.0),
        pooler=False,
        target=target,
        load_balance=randomly,
    )


def test_a_look_for_a_primary_that_takes_long_is_not_begun_again_at_once(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(preference, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    found = preference.Preference(plan_of(2))
    assert found.is_due(STANDBY)
    clock[0] += 60
    found.looked()
    assert not found.is_due(STANDBY)
    clock[0] += preference.LOOK
    assert found.is_due(STANDBY)


class Pool:
    """The least that a pool is: connections that are idle, and a rule for handing one out."""

    def __init__(self, world, target, clock, *, randomly):
        self.world, self.clock = world, clock
        plan = plan_of(len(world), target, randomly=randomly)
        arguments = ConnectArguments("psycopg", plan, StaticLogin("app"))
        self.connector = Connector(arguments, Asking())
        self.made, self.idle = [], []

    def connect(self, attempt):
        state, process = self.world[attempt.server.port - 1]
        if state == "down":
            raise ConnectionRefusedError("connection refused")
        self.made.append(Conn(self.world, attempt.server.port - 1, process))
        return self.made[-1]

    def lease(self):
        """A connection, used and given back; its server's state."""
        while self.idle:
            conn = self.idle.pop()
            if run(self.connector.good(conn, self.clock.now - 1, 30.0, self.clock)):
                break
            for each in (conn, *self.idle):
                each.close()
            self.idle = []
        else:
            conn = run(self.connector.connect(self.connect, self.clock))
        self.idle.append(conn)
        return conn.state


STATES = st.sampled_from(["primary", "standby", "read-only", "down"])
# What becomes of which server, and how many seconds later a connection is asked for.
STEPS = st.lists(st.tuples(st.integers(0, 2), STATES, st.floats(0, 20)), max_size=12)


@given(
    target=st.sampled_from([None, *TARGETS]),
    first=st.lists(STATES, min_size=1, max_size=3),
    steps=STEPS,
    randomly=st.booleans(),
)
def test_no_pool_refuses_every_server_for_good(target, first, steps, randomly):
    clock, world = Clock(), [(state, 0) for state in first]
    with pytest.MonkeyPatch.context() as patch:
        time = SimpleNamespace(monotonic=clock.monotonic)
        patch.setattr(connector, "time", time)
        patch.setattr(checks, "time", time)
        patch.setattr(preference, "time", time)
        pool = Pool(world, target, clock, randomly=randomly)
        had_primary = False
        for number, (which, state, seconds) in enumerate(((0, first[0], 0.0), *steps)):
            place = which % len(world)
            # A promotion keeps sessions, everything else ends them.
            kept = (world[place][0], state) in {("standby", "primary"), ("primary", "read-only")}
            world[place] = (state, world[place][1] if kept else number)
            clock.now += seconds
            try:
                found = pool.lease()
            except OSError:
                up = [REPORTS[state] for state, _ in world if state != "down"]
                assert not any(keeps(target, each) for each in up)
            else:
                assert keeps(target, REPORTS[found])
                had_primary |= found in {"primary", "read-only"}
            assert sum(not conn.closed for conn in pool.made) <= 1
        clock.now += preference.LOOK
        up = [state for state, _ in world if state != "down"]
        if any(keeps(target, REPORTS[state]) for state in up):
            found = pool.lease()
            assert keeps(target, REPORTS[found])
            if (
                target is None
                and {"primary", "read-only"} & set(up)
                and (had_primary or len(world) > 1)
            ):
                assert found in {"primary", "read-only"}
