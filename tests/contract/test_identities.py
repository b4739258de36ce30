"""Every identity signs in through the real azure-identity, by every kind that needs no person."""

import logging
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from kits import KITS, Loop
from leaks import whole

from azpgauth import ConnectError, RoleError, TokenError, connect_from_env, token_info
from azpgauth.identity.azure import forget
from azpgauth.identity.token import MARGIN
from azpgauth.sandbox import Identity

KINDS = [
    "default",
    "managed-identity",
    "workload-identity",
    "client-secret",
    "client-certificate",
    "environment",
    "azure-cli",
    "azure-developer-cli",
    "azure-powershell",
    "device-code",
]
WHO = "select current_user::text"


@pytest.fixture
def as_kind(box, monkeypatch):
    """A function that points the environment at the sandbox for one kind of credential."""

    def point(kind, **options):
        for name, value in box.environment_for(kind, **options).items():
            monkeypatch.setenv(name, value)

    for name in box.environment:
        monkeypatch.delenv(name)
    return point


def row(pool):
    with pool.connection() as conn:
        return conn.execute(WHO).fetchone()[0]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_signs_in(box, as_kind, nothing_leaks, kind, capsys):
    as_kind(kind)
    with connect_from_env() as pool:
        assert row(pool) in {"sandbox-app", "sandbox-sp"}
        assert (token_info(pool).requests, token_info(pool).failures) == (1, 0)
        assert token_info(pool).identity.endswith("Credential")
    assert len(box.authority.requests) == 1
    assert box.authority.requests == ["https://ossrdbms-aad.database.windows.net"]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert ("enter the code" in printed.err) == (kind == "device-code")


@pytest.mark.parametrize("door", ["app-service", "imds"])
@pytest.mark.parametrize("kind", ["user-assigned", "system-assigned"])
def test_managed_identities(box, as_kind, monkeypatch, door, kind):
    identity = Identity(f"{kind} of {door}", kind=kind)
    box.add(identity)
    as_kind("managed-identity", identity=identity)
    if door == "imds":
        for name in ("IDENTITY_ENDPOINT", "IDENTITY_HEADER"):
            monkeypatch.delenv(name)
        for name, value in box.authority.imds.items():
            monkeypatch.setenv(name, value)
    with connect_from_env() as pool:
        assert row(pool) == identity.name
    assert set(box.authority.endpoints) == {door}


@pytest.mark.parametrize("kind", ["user", "guest", "system-assigned", "user-assigned"])
def test_a_token_names_its_role(box, as_kind, kind):
    name = {"guest": "ada_x.com#EXT#@y.onmicrosoft.com", "user": "Ada@x.com"}.get(kind, f"a {kind}")
    identity = Identity(name, kind=kind)
    box.add(identity)
    as_kind("azure-cli", identity=identity)
    with connect_from_env() as pool:
        assert row(pool) == token_info(pool).role == name


def test_a_member_signs_in_as_the_group(box, as_kind, monkeypatch):
    team = Identity("the team", kind="group")
    as_kind("azure-cli", identity=team)
    with connect_from_env() as pool:
        assert row(pool) == "the team"
        assert "member@" in token_info(pool).identity
    monkeypatch.delenv("AZPG_DATABASE_USER")  # the member has no role but the group's
    with pytest.raises(ConnectError, match=r"password authentication failed for user \"member@"):
        connect_from_env()


def test_a_service_principal_without_a_role_is_told_what_to_set(as_kind, monkeypatch):
    as_kind("client-secret")
    monkeypatch.delenv("AZPG_DATABASE_USER")
    with pytest.raises(RoleError, match=r"(?s)service principal.*AZPG_DATABASE_USER"):
        connect_from_env()


NAMES = [
    "it's",
    'say "hi"',
    "bob_x.com#EXT#@y.onmicrosoft.com",
    "  two  spaces ",
    "Größe 漢字 🐘",
    "back\\slash %20 ${x} a=b&c",
    "n" * 63,
    "langer name " * 8,
    "ß" * 40,
]
NAMED = {}


@pytest.mark.parametrize("kit", KITS, ids=str)
def test_names_pass_unharmed_through_every_driver(box, as_kind, kit):
    with Loop() as loop:
        kit.loop = loop
        for name in NAMES:
            identity = NAMED.setdefault(name, Identity(name, kind="user"))
            as_kind("managed-identity", identity=identity)
            forget()
            box.gateway.users.clear()
            with kit.pool() as pool:
                (seen,) = kit.row(pool, WHO)
            assert set(box.gateway.users) == {name}
            assert name.encode().startswith(seen.encode())
            assert len(seen.encode()) >= min(len(name.encode()), 60)


def test_azure_cli_runs_once_for_ten_connections(box, as_kind):
    as_kind("azure-cli")
    with connect_from_env(pool={"min_size": 10, "max_size": 10}) as pool, ExitStack() as stack:
        pool.wait(20)
        for _ in range(10):
            stack.enter_context(pool.connection())
    assert box.authority.endpoints == ["az"]
    assert box.gateway.passwords == 10


def test_default_goes_on_to_what_there_is(box, as_kind, monkeypatch):
    # On a laptop: no managed identity, a signed-in az.
    as_kind("azure-cli")
    monkeypatch.delenv("AZPG_CREDENTIAL_KIND")
    left_out = {
        "exclude_managed_identity_credential": True,  # would wait for an address that is not there
        "exclude_powershell_credential": True,
    }
    with connect_from_env(credential=left_out) as pool:
        assert "DefaultAzureCredential: AzureCliCredential" in token_info(pool).identity
    assert box.authority.endpoints == ["az"]


def test_azure_token_credentials_is_honoured(box, as_kind, monkeypatch):
    as_kind("azure-cli")
    monkeypatch.setenv("AZPG_CREDENTIAL_KIND", "default")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "AzureCliCredential")
    with connect_from_env() as pool:
        assert "AzureCliCredential" in token_info(pool).identity


WRONG = {
    "secret": ("client-secret", {"AZPG_CREDENTIAL_CLIENT_SECRET": "wr0ng"}, "AADSTS7000215"),
    "tenant": ("client-secret", {"AZPG_CREDENTIAL_TENANT_ID": "other"}, "your tenant name"),
    "client": ("client-secret", {"AZPG_CREDENTIAL_CLIENT_ID": "nobody"}, "AADSTS700016"),
    "environment": ("environment", {"AZURE_CLIENT_SECRET": "wr0ng"}, "AADSTS7000215"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_entra_id_refuses_is_told_in_its_words(as_kind, monkeypatch, nothing_leaks, what):
    kind, changed, code = WRONG[what]
    as_kind(kind)
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TokenError, match=code) as caught:
        connect_from_env()
    found = whole(caught.value)
    for secret in ("wr0ng", *(os.environ.get(name, "wr0ng") for name in SECRETS)):
        assert secret not in found


SECRETS = ("AZPG_CREDENTIAL_CLIENT_SECRET", "AZURE_CLIENT_SECRET")


def test_what_was_put_right_is_taken_without_a_restart(box, as_kind, monkeypatch, tmp_path):
    as_kind("environment")
    right = os.environ["AZURE_CLIENT_SECRET"]
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "wr0ng")
    with pytest.raises(TokenError, match="AADSTS7000215"):
        connect_from_env()
    monkeypatch.setenv("AZURE_CLIENT_SECRET", right)
    with connect_from_env() as pool:
        assert row(pool) == "sandbox-sp"

    as_kind("client-certificate")
    pem = tmp_path / "client.pem"
    good = Path(os.environ["AZPG_CREDENTIAL_CERTIFICATE_PATH"]).read_bytes()
    pem.write_bytes(box.directory.certificate(Identity("another")).read_bytes())
    monkeypatch.setenv("AZPG_CREDENTIAL_CERTIFICATE_PATH", str(pem))
    with pytest.raises(TokenError, match="AADSTS700027"):
        connect_from_env()
    pem.write_bytes(good)
    with connect_from_env() as pool:
        assert row(pool) == "sandbox-sp"


def test_a_signed_out_az_is_told(box, as_kind):
    as_kind("azure-cli")
    box.authority.signed_out = True
    with pytest.raises(TokenError, match="az login"):
        connect_from_env()


@pytest.mark.parametrize("kind", ["managed-identity", "client-secret", "azure-cli"])
def test_a_refused_cached_token_is_replaced_past_azure_identitys_cache(box, as_kind, kind):
    as_kind(kind)
    box.authority.resource = "https://wrong.example"
    with pytest.raises(ConnectError, match="audience"):
        connect_from_env()  # the token is cached now, here and in azure-identity
    box.authority.resource = None
    with connect_from_env() as pool:
        row(pool)
    assert len(box.authority.requests) == 2


def test_a_short_life_is_renewed_while_connections_go_on(box, as_kind):
    as_kind("workload-identity")
    box.authority.lifetime = MARGIN + 1
    with connect_from_env() as pool:
        until = time.monotonic() + 20
        while token_info(pool).requests < 2:
            assert time.monotonic() < until
            row(pool)
        assert box.gateway.refusals == []


def test_throttling_is_waited_out(box, as_kind):
    as_kind("managed-identity")
    box.authority.throttled = 1
    with connect_from_env() as pool:
        row(pool)
    assert len(box.authority.requests) == 2


def test_what_is_no_token_is_refused_by_the_server(box, as_kind):
    as_kind("managed-identity")
    box.authority.malformed = True
    with pytest.raises(RoleError, match="AZPG_DATABASE_USER"):
        connect_from_env()
    with pytest.raises(ConnectError, match="validating the access token"):
        connect_from_env(database={"user": "sandbox-app"})


def test_a_long_token_on_pgbouncers_port_is_warned_about(box, as_kind, monkeypatch, caplog):
    many = tuple(Identity(f"group {n}", kind="group") for n in range(200))
    crowded = Identity("crowd@x.example", kind="user", groups=many)
    box.add(crowded)
    as_kind("managed-identity", identity=crowded)
    monkeypatch.setattr("azpgauth.server.clouds.PGBOUNCER_PORTS", {box.gateway.port})
    with caplog.at_level(logging.WARNING, "azpgauth"), connect_from_env() as pool:
        row(pool)
        with connect_from_env() as other:
            row(other)
    told = [each.getMessage() for each in caplog.records if "PgBouncer" in each.getMessage()]
    assert len(told) == 2, "once for each pool"
    assert "server.port to 5432" in told[0]


def test_threads_loops_and_pools_of_one_identity_share_one_request(box, as_kind):
    """64 threads, 4 event loops and 5 pools on each side, all at once and cold."""
    as_kind("managed-identity")
    box.authority.delay = 0.5
    start = threading.Barrier(64 + 4)
    shared = {}
    opened = [threading.Event() for _ in range(5)]

    def work(number):
        start.wait(30)
        which = number % 5
        if number < 5:
            shared[which] = connect_from_env(pool={"max_size": 4})
            opened[which].set()
        assert opened[which].wait(40)
        return row(shared[which])

    async def on_loop():
        import asyncio

        from azpgauth import aconnect_from_env

        async with asyncio.TaskGroup() if hasattr(asyncio, "TaskGroup") else _Group() as group:
            tasks = [group.create_task(one(aconnect_from_env)) for _ in range(5)]
        return [task.result() for task in tasks]

    async def one(connect):
        async with connect(driver="asyncpg", pool={"max_size": 2}) as pool:
            return await pool.fetchval(WHO)

    def loop(_):
        import asyncio

        start.wait(30)
        return asyncio.run(on_loop())

    with ThreadPoolExecutor(64 + 4) as threads:
        rows = threads.map(work, range(64))
        loops = threads.map(loop, range(4))
        assert set(rows) == {"sandbox-app"}
        assert [set(each) for each in loops] == [{"sandbox-app"}] * 4
    for pool in shared.values():
        assert token_info(pool).requests == 1
        pool.close()
    assert len(box.authority.requests) == 1


class _Group:
    """Python 3.10 has no TaskGroup."""

    async def __aenter__(self):
        import asyncio

        self._tasks = []
        self._create = asyncio.create_task
        return self

    def create_task(self, coroutine):
        task = self._create(coroutine)
        self._tasks.append(task)
        return task

    async def __aexit__(self, *_):
        import asyncio

        await asyncio.gather(*self._tasks)


FORGETFUL = """
import sys
from azpgauth import connect_from_env
pool = connect_from_env(driver=sys.argv[1])
if sys.argv[2] == "hanging":
    from azpgauth.opening.info import _logins
    source = list(_logins.values())[0].source
    source._token = None
    source.prefetch()
print("done", flush=True)
"""


@pytest.mark.parametrize("how", ["idle", "hanging"])
@pytest.mark.parametrize("driver", ["psycopg", "sqlalchemy"])
def test_a_program_that_forgets_to_close_ends_at_once(box, driver, how):
    program = subprocess.Popen(
        [sys.executable, "-c", FORGETFUL, driver, how], stdout=subprocess.PIPE, text=True
    )
    with program:
        if how == "hanging":
            while not box.authority.requests:
                assert program.poll() is None
            box.authority.hanging = True
        assert program.stdout.readline() == "done\n"
        said = time.monotonic()
        assert program.wait(20) == 0
        assert time.monotonic() - said < 10


FORKING = """
import contextlib, os, sys, threading
from azpgauth import connect_from_env, token_info
from azpgauth.identity.azure import _lock
from azpgauth.identity.credential import _lock as other_lock
pool = connect_from_env(driver="sqlalchemy")
locks = (_lock, other_lock)
def hold():
    with contextlib.ExitStack() as stack:
        for lock in locks:
            stack.enter_context(lock)
        held.set()
        forked.wait()

held, forked = threading.Event(), threading.Event()
threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if child == 0:
    pool.dispose(close=False)
    with connect_from_env() as own, own.connection() as conn:
        assert conn.execute("select current_user").fetchone() == ("sandbox-app",)
    with pool.connect() as conn:
        assert conn.exec_driver_sql("select current_user").scalar() == "sandbox-app"
    import threading
    assert [t for t in threading.enumerate() if t.name == "azpgauth-refresher"]
    assert token_info(pool).requests == 1
    os._exit(0)
forked.set()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
pool.dispose()
"""


FORKING_EARLY = """
import os, sys, threading, time
from azpgauth import connect_from_env
opening = threading.Thread(target=lambda: connect_from_env().close())
opening.start()
while "azure" not in sys.modules:
    time.sleep(0.001)
child = os.fork()
if child == 0:
    with connect_from_env(pool={"timeout": 20}) as pool, pool.connection() as conn:
        assert conn.execute("select current_user").fetchone() == ("sandbox-app",)
    os._exit(0)
opening.join()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
def test_a_fork_while_azure_identity_is_imported(box):
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING_EARLY],
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
def test_a_child_after_fork_signs_in_with_the_parents_token(box):
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING],
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
    )
    assert done.returncode == 0, done.stderr
    assert len(box.authority.requests) == 1
