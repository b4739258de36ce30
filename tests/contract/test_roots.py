"""Which root certificates a server of Azure is verified with."""

import asyncio
import hashlib
import os
import re
import socket
import ssl
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import certifi
import pytest

from azpgauth import ConnectError, aconnect_from_env
from azpgauth.sandbox.box import AZURE_NAME
from azpgauth.server import roots as trusted
from azpgauth.server.clouds import CLOUDS

PUBLIC = CLOUDS["public"]


def fingerprints(path):
    blocks = re.findall(r"-----BEGIN.+?END CERTIFICATE-----", Path(path).read_text(), re.DOTALL)
    return {hashlib.sha256(ssl.PEM_cert_to_DER_cert(block)).hexdigest() for block in blocks}


@pytest.fixture
def azure(box, monkeypatch, tmp_path):
    """The sandbox under a name of Azure's, with its authority among the system's roots."""
    ours = Path(box.environment["AZPG_SERVER_SSLROOTCERT"])
    whole = tmp_path / "bundle.pem"
    whole.write_text(Path(certifi.where()).read_text() + ours.read_text())
    monkeypatch.setenv("SSL_CERT_FILE", str(whole))
    monkeypatch.delenv("AZPG_SERVER_SSLROOTCERT")
    monkeypatch.setenv("AZPG_SERVER_HOST", AZURE_NAME)
    real = socket.getaddrinfo

    def resolve(host, *args, **kwargs):
        return real(
            "127.0.0.1" if host in {AZURE_NAME, AZURE_NAME.encode()} else host, *args, **kwargs
        )

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    box.whole, box.own = whole, ours
    return box


def test_azures_roots_are_picked_from_the_bundle():
    roots = trusted.default_roots(["shop.postgres.database.azure.com"])
    assert roots.path != trusted.bundle()
    assert fingerprints(roots.path) <= PUBLIC.roots
    assert fingerprints(roots.path)
    assert Path(roots.path).stat().st_size < 10_000
    assert oct(Path(roots.path).stat().st_mode & 0o777) == "0o600"
    assert trusted.default_roots(["other.postgres.database.azure.com"]).path == roots.path


def test_other_hosts_get_the_whole_bundle():
    for hosts in (["localhost"], ["a.postgres.database.azure.com", "b.example"]):
        assert trusted.default_roots(hosts).path == trusted.bundle()


def test_a_bundle_without_azures_roots_is_taken_whole(azure, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(azure.own))
    assert trusted.default_roots([AZURE_NAME]).path == str(azure.own)


def test_a_file_that_was_cleaned_away_comes_back():
    path = trusted.default_roots([AZURE_NAME]).path
    Path(path).unlink()
    again = trusted.default_roots([AZURE_NAME]).path
    assert fingerprints(again) <= PUBLIC.roots


def test_nothing_is_left_when_the_process_ends(tmp_path):
    program = (
        "from azpgauth.server.roots import default_roots;"
        "print(default_roots(['x.postgres.database.azure.com']).path)"
    )
    out = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.startswith(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


DRIVERS = ["psycopg-async", "sqlalchemy-async", "asyncpg"]


async def opened(driver):
    from azpgauth.opening.info import _logins

    async with aconnect_from_env(driver=driver, pool={"min_size": 2}) as pool:
        assert pool in _logins
    await asyncio.sleep(0.05)


@pytest.mark.parametrize("driver", DRIVERS)
def test_azures_roots_alone_do(azure, monkeypatch, driver):
    known = replace(PUBLIC, roots=PUBLIC.roots | fingerprints(azure.own))
    monkeypatch.setitem(CLOUDS, "public", known)
    asyncio.run(opened(driver))
    assert azure.gateway.connections == azure.gateway.passwords


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_whole_bundle_where_they_do_not(azure, driver):
    asyncio.run(opened(driver))
    # One attempt fails; those after it begin with what did.
    assert azure.gateway.connections - azure.gateway.passwords == 1
    assert len(azure.authority.requests) == 1


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_impostor_is_refused_with_both(azure, driver):
    azure.gateway.certificate = "unknown-ca"
    with pytest.raises(ConnectError, match="certificate verify failed"):
        asyncio.run(opened(driver))
    assert azure.gateway.passwords == 0


def test_a_root_file_that_vanishes_in_a_pools_life(azure, monkeypatch):
    known = replace(PUBLIC, roots=PUBLIC.roots | fingerprints(azure.own))
    monkeypatch.setitem(CLOUDS, "public", known)

    def vanish():
        Path(trusted.default_roots([AZURE_NAME]).path).unlink()

    async def main():
        async with aconnect_from_env(driver="psycopg-async") as pool, pool.connection():
            vanish()
            async with pool.connection() as conn:
                await conn.execute("select 1")

    asyncio.run(main())
    assert azure.gateway.refusals == []
