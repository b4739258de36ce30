"""Kind none sends no password, whatever libpq or asyncpg would find."""

import hashlib
import os
import subprocess
import sys
from contextlib import closing

import pytest
from kits import KITS, Loop
from rogue import CLEARTEXT, MD5, SCRAM, Rogue

from azpgauth import ConnectError

SECRET = "hunter2"


@pytest.fixture(params=KITS, ids=str)
def kit(request):
    if not request.param.is_async:
        yield request.param
        return
    with Loop() as loop:
        request.param.loop = loop
        yield request.param
        request.param.loop = None


def lay_out_passwords(monkeypatch, tmp_path, port):
    """A password wherever a driver might look for one."""
    entry = f"*:*:*:*:{SECRET}\nlocalhost:{port}:*:*:{SECRET}\n"
    for file in (tmp_path / ".pgpass", tmp_path / "another"):
        file.write_text(entry)
        file.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "another"))
    monkeypatch.setenv("PGPASSWORD", SECRET)


def settings(port):
    return {
        "server": {"host": "127.0.0.1", "port": port, "sslmode": "prefer"},
        "database": {"name": "app", "user": "me"},
        "credential": {"kind": "none"},
    }


@pytest.mark.parametrize("ask", [CLEARTEXT, MD5, SCRAM], ids=["cleartext", "md5", "scram"])
@pytest.mark.parametrize("without", ["", "PGPASSWORD", "PGPASSFILE"])
def test_nothing_is_sent(kit, ask, without, monkeypatch, tmp_path):
    with closing(Rogue(ask=ask)) as rogue:
        lay_out_passwords(monkeypatch, tmp_path, rogue.port)
        if without:
            monkeypatch.delenv(without)
        if without == "PGPASSFILE":
            monkeypatch.delenv("PGPASSWORD")
        for use in (kit.open, kit.one):
            with pytest.raises(ConnectError, match="none was sent"):
                use(**settings(rogue.port))
    # Asked for a password, asyncpg answers with an empty one where libpq hangs up; what SCRAM
    # begins with has no password in it.
    assert {answer for _, answer in rogue.heard} <= {b"\0", md5_of("")} or ask is SCRAM
    assert all(
        b"n=,r=" in answer or b"n=me,r=" in answer for _, answer in rogue.heard if ask is SCRAM
    )
    assert not rogue.heard or "asyncpg" in str(kit)


def md5_of(password):
    """https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP"""
    inner = hashlib.md5(f"{password}me".encode(), usedforsecurity=False).hexdigest()
    outer = hashlib.md5(inner.encode() + b"salt", usedforsecurity=False).hexdigest()
    return f"md5{outer}\0".encode()


def test_the_listener_hears_kind_password(kit):
    with closing(Rogue()) as rogue:
        said = settings(rogue.port)
        said["credential"] = {"kind": "password", "password": SECRET}
        with pytest.raises(ConnectError):
            kit.one(**{**said, "server": {**said["server"], "connect_timeout": 1}})
        assert {text for _, text in rogue.heard} == {SECRET.encode() + b"\0"}


def test_a_server_that_trusts_lets_it_in(kit, box):
    """The sandbox's own server, without the gateway, does."""
    folder = os.path.dirname(box.gateway._server)  # noqa: PTH120 - a str
    port = int(box.gateway._server.rpartition(".")[2])
    said = settings(port)
    said["server"] |= {"host": folder, "sslmode": "disable"}
    said["database"]["user"] = "sandbox-app"
    assert kit.one(**said)[0] == ("sandbox-app",)


def test_a_child_of_run_finds_none_either(monkeypatch, tmp_path):
    for name, value in {
        "AZPG_SERVER_HOST": "127.0.0.1",
        "AZPG_SERVER_SSLMODE": "prefer",
        "AZPG_DATABASE_NAME": "app",
        "AZPG_DATABASE_USER": "me",
        "AZPG_CREDENTIAL_KIND": "none",
    }.items():
        monkeypatch.setenv(name, value)
    with closing(Rogue()) as rogue:
        lay_out_passwords(monkeypatch, tmp_path, rogue.port)
        monkeypatch.delenv("PGPASSWORD")
        monkeypatch.setenv("AZPG_SERVER_PORT", str(rogue.port))
        program = "import psycopg; psycopg.connect()"
        run = subprocess.run(
            [sys.executable, "-m", "azpgauth", "run", "--", sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 1
        assert "no password supplied" in run.stderr
        assert rogue.heard == []


def test_a_child_of_run_has_no_secret_of_the_settings(box, tmp_path):
    secrets = box.environment_for("client-secret")
    environ = {
        **os.environ,
        **secrets,
        "REPORTS_CREDENTIAL_PASSWORD": SECRET,
        "ORDERS_URL": f"postgresql://u:{SECRET}@127.0.0.1/d",
        "AZURE_CLIENT_SECRET": "stays",
    }
    run = subprocess.run(
        [sys.executable, "-m", "azpgauth", "run", "--", "env"],
        capture_output=True,
        text=True,
        check=True,
        env=environ,
    )
    assert SECRET not in run.stdout
    assert secrets["AZPG_CREDENTIAL_CLIENT_SECRET"] not in run.stdout
    assert f"PGPASSWORD={box.authority.issued[-1]}" in run.stdout
    assert "AZURE_CLIENT_SECRET=stays" in run.stdout
    assert f"AZPG_SERVER_HOST={secrets['AZPG_SERVER_HOST']}" in run.stdout
