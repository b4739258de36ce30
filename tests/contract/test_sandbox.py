"""The sandbox itself: it can say no, and it leaves nothing behind."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
from azure.identity import ManagedIdentityCredential

from azpgauth import connect_from_env
from azpgauth.sandbox import Identity, Sandbox

ROOT = Path(__file__).parents[2]
SCOPE = "https://ossrdbms-aad.database.windows.net/.default"


def sign_in(box, password, user="sandbox-app", sslmode="verify-full"):
    conninfo = f"host=localhost port={box.gateway.port} dbname=app sslmode={sslmode}"
    root = box.environment["AZPG_SERVER_SSLROOTCERT"]
    with psycopg.connect(conninfo, user=user, password=password, sslrootcert=root) as conn:
        return conn.execute("select current_user").fetchone()[0]


def test_a_good_token_is_let_in(box):
    assert sign_in(box, box.issuer.token(box.identity)) == "sandbox-app"


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ({"lifetime": -1}, "The access token has expired"),
        ({"resource": "https://management.azure.com"}, "valid audience claim"),
        ({"resource": "https://ossrdbms-aad.database.windows.net/"}, "valid audience claim"),
        ({"other_key": True}, "validating the access token"),
    ],
    ids=str,
)
def test_a_bad_token_is_refused(box, token, said):
    with pytest.raises(psycopg.OperationalError, match=said):
        sign_in(box, box.issuer.token(box.identity, **token))
    assert len(box.gateway.refusals) == 1


def test_what_is_no_token_is_refused(box):
    good = box.issuer.token(box.identity)
    header, payload, _ = good.split(".")
    unsigned = f"eyJhbGciOiJub25lIn0.{payload}."
    for password in ("hunter2", "", "a.b.c", f"{header}.{payload}.", unsigned, good[:-4]):
        with pytest.raises(psycopg.OperationalError):
            sign_in(box, password)


def test_another_identity_or_role_is_refused(box):
    stranger = Identity("sandbox-app")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        sign_in(box, box.issuer.token(stranger))
    for role in ("postgres", "nobody-has-this"):
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            sign_in(box, box.issuer.token(box.identity), user=role)


def test_tls_is_demanded(box):
    with pytest.raises(psycopg.OperationalError, match="no encryption"):
        sign_in(box, box.issuer.token(box.identity), sslmode="disable")
    assert box.gateway.passwords == 0


def test_the_authority_says_no(box, monkeypatch):
    monkeypatch.setenv("IDENTITY_HEADER", "wrong")
    with pytest.raises(Exception, match="App Service managed identity"):
        ManagedIdentityCredential().get_token(SCOPE)
    assert box.authority.requests == []


def test_imds(monkeypatch):
    with Sandbox(endpoint="imds") as box:
        for name, value in box.environment.items():
            monkeypatch.setenv(name, value)
        with connect_from_env() as pool, pool.connection() as conn:
            assert conn.execute("select current_user").fetchone() == ("sandbox-app",)
        assert box.authority.requests == ["https://ossrdbms-aad.database.windows.net"]


def test_a_cancel_request_passes_through(box):
    import threading

    with connect_from_env() as pool, pool.connection() as conn:
        threading.Timer(0.3, conn.cancel_safe).start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            conn.execute("select pg_sleep(20)")


def command(*words):
    return [sys.executable, "-m", "azpgauth", "sandbox", *words]


@pytest.fixture
def temporary():
    """A folder for temporary files that is short enough for sockets and open to every user."""
    with tempfile.TemporaryDirectory(prefix="azpg-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def environ(temporary, tmp_path):
    names = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")
    keep = {name: os.environ[name] for name in names if name in os.environ}
    return {**keep, "TMPDIR": str(temporary), "HOME": str(tmp_path / "home")}


@contextlib.contextmanager
def started(*words, **options):
    """A sandbox of the command line, which is ended if the test fails."""
    with subprocess.Popen(command(*words), text=True, **options) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def left_of(temporary):
    """What is left: files, and processes that name the folder."""
    done = subprocess.run(["/bin/ps", "-wwAo", "args"], capture_output=True, text=True, check=True)
    processes = [line for line in done.stdout.splitlines() if f"{temporary}/" in line]
    return list(temporary.iterdir()), processes


def test_a_command_gets_the_environment_and_gives_the_status(tmp_path, temporary, environ):
    program = (
        "import os, sys\n"
        "from azpgauth import connect_from_env\n"
        "with connect_from_env() as pool, pool.connection() as conn:\n"
        "    print(conn.execute('select current_user').fetchone()[0])\n"
        "sys.exit(7)\n"
    )
    done = subprocess.run(
        command("--", sys.executable, "-W", "error", "-c", program),
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (7, "sandbox-app\n"), done.stderr
    assert left_of(temporary) == ([], [])


def test_a_command_that_does_not_exist(tmp_path, temporary, environ):
    done = subprocess.run(
        command("no-such-program"), env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 127
    assert "cannot run no-such-program" in done.stderr
    assert left_of(temporary) == ([], [])


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_leaves_nothing_behind(tmp_path, temporary, environ, how):
    env_file = tmp_path / "sandbox.env"
    words = ("--env-file", str(env_file))
    with started(*words, env=environ, stderr=subprocess.PIPE) as process:
        assert "The sandbox is up" in process.stderr.readline()
        assert "AZPG_SERVER_PORT=" in env_file.read_text()
        assert left_of(temporary)[1]
        process.send_signal(how)
        status = process.wait(20)
    if how == signal.SIGKILL:
        # Nobody can clean up after that but the janitor, who takes a moment.
        deadline = time.monotonic() + 15
        while left_of(temporary) != ([], []) and time.monotonic() < deadline:
            time.sleep(0.05)
    else:
        assert status == 0
        assert not env_file.exists()
    assert left_of(temporary) == ([], [])


def test_a_signal_while_it_starts(tmp_path, temporary, environ):
    with started(env=environ, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 20
        while not list(temporary.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM
    assert left_of(temporary) == ([], [])


def test_a_signal_is_passed_to_the_command(tmp_path, temporary, environ):
    program = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))\n"
        "print('ready', flush=True)\n"
        "time.sleep(30)\n"  # ended by the signal
    )
    words = ("--", sys.executable, "-c", program)
    with started(*words, env=environ, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 9
    assert left_of(temporary) == ([], [])


def test_an_env_file_that_exists_is_not_touched(tmp_path, environ):
    (tmp_path / ".env").write_text("mine")
    done = subprocess.run(
        command("--env-file", str(tmp_path / ".env")),
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "exists" in done.stderr
    assert (tmp_path / ".env").read_text() == "mine"


def test_two_at_once():
    with Sandbox() as one, Sandbox() as other:
        for box in (one, other):
            assert sign_in(box, box.issuer.token(box.identity)) == "sandbox-app"
        with pytest.raises(psycopg.OperationalError, match="validating"):
            sign_in(other, one.issuer.token(one.identity))
    one.stop()
