"""Ratios of the design's table, each measured side by side in one run."""

import asyncio
import hashlib
import socket
import ssl
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import asyncpg
import certifi
import psycopg
import psycopg2
import pytest
import sqlalchemy
from sqlalchemy.pool import NullPool

import azpgauth.drivers.asyncpg as ours_asyncpg
import azpgauth.drivers.psycopg as ours3
import azpgauth.drivers.psycopg2 as ours2
from azpgauth import connect_from_env, load_settings
from azpgauth.drivers.driver import ConnectArguments
from azpgauth.opening.prepare import login_of, plan_of
from azpgauth.runtime.waiting import BLOCKING, run
from azpgauth.sandbox.box import AZURE_NAME
from azpgauth.server.clouds import CLOUDS

pytestmark = pytest.mark.thorough  # by itself: what it measures is a time


def seconds(action):
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def ratio(ours, theirs, rounds):
    """Median of the ratios pair by pair: drift of the machine's speed cancels out."""
    for action in (ours, theirs):
        action()
    pairs = []
    for number in range(rounds):
        # In turns, who goes first: the second one finds warmer caches.
        if number % 2:
            a, b = seconds(ours), seconds(theirs)
        else:
            b, a = seconds(theirs), seconds(ours)
        pairs.append(a / b)
    return statistics.median(pairs)


def best_of(measure, goal, tries=4):
    """The machine may be busy in one try; a real slowdown shows in all."""
    found = []
    for _ in range(tries):
        found.append(measure())
        if found[-1] <= goal:
            break
    return min(found)


@pytest.fixture
def loop():
    found = asyncio.new_event_loop()
    yield found
    found.run_until_complete(found.shutdown_default_executor())
    found.close()


def both(box, driver, loop, **sections):
    """Two ways to connect once: through azpgauth, and by hand with the same token."""
    settings = load_settings(**sections)
    given = ConnectArguments(driver, plan_of(settings), login_of(settings, None))
    token = run(given.login.grant(BLOCKING)).password
    raw = {
        "host": settings.server.host,
        "port": settings.server.port,
        "dbname": settings.database.name,
        "user": "sandbox-app",
        "password": token,
        "sslmode": "verify-full",
        "sslrootcert": box.environment["AZPG_SERVER_SSLROOTCERT"],
        "connect_timeout": 10,
        "gssencmode": "disable",
    }
    if driver == "psycopg2":
        connecting = ours2._Connecting.with_(given)  # once for a pool
        return lambda: connecting.connect().close(), lambda: psycopg2.connect(**raw).close()
    if driver == "psycopg":
        return lambda: ours3.connect(given).close(), lambda: psycopg.connect(**raw).close()
    if driver == "sqlalchemy":
        engine = connect_from_env(driver="sqlalchemy", native={"poolclass": NullPool})
        by_hand = sqlalchemy.create_engine(
            "postgresql+psycopg://", connect_args=raw, poolclass=NullPool
        )
        return lambda: engine.connect().close(), lambda: by_hand.connect().close()
    if driver == "psycopg-async":

        async def ours():
            await (await ours3.aconnect(given)).close()

        async def theirs():
            await (await psycopg.AsyncConnection.connect(**raw)).close()

    else:
        context = ssl.create_default_context(cafile=raw["sslrootcert"])

        async def ours():
            await (await ours_asyncpg.aconnect(given)).close()

        async def theirs():
            conn = await asyncpg.connect(
                host=raw["host"],
                port=raw["port"],
                database=raw["dbname"],
                user=raw["user"],
                password=token,
                ssl=context,
            )
            await conn.close()

    return lambda: loop.run_until_complete(ours()), lambda: loop.run_until_complete(theirs())


@pytest.mark.parametrize(
    "driver", ["psycopg", "psycopg-async", "psycopg2", "sqlalchemy", "asyncpg"]
)
def test_one_connect_with_a_cached_token(box, driver, loop, record_property):
    ours, theirs = both(box, driver, loop)
    found = best_of(lambda: ratio(ours, theirs, 40), 1.02)
    record_property("ratio", round(found, 3))
    # The goal is 1.02. Beside a server on the same two cores, without a network, the same code is
    # seen at 0.99 to 1.05: this fails for what is slower without a doubt.
    assert found <= 1.1


def test_one_connect_to_an_azure_host_with_default_roots(
    box, loop, monkeypatch, tmp_path, record_property
):
    own = Path(box.environment["AZPG_SERVER_SSLROOTCERT"]).read_text()
    whole = tmp_path / "bundle.pem"
    whole.write_text(Path(certifi.where()).read_text() + own)
    monkeypatch.setenv("SSL_CERT_FILE", str(whole))
    monkeypatch.delenv("AZPG_SERVER_SSLROOTCERT")
    der = ssl.PEM_cert_to_DER_cert(own)
    public = CLOUDS["public"]
    known = replace(public, roots=public.roots | {hashlib.sha256(der).hexdigest()})
    monkeypatch.setitem(CLOUDS, "public", known)
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *args, **more: real(
            "127.0.0.1" if host == AZURE_NAME else host, *args, **more
        ),
    )
    ours, theirs = both(box, "psycopg-async", loop, server={"host": AZURE_NAME})
    found = best_of(lambda: ratio(ours, theirs, 40), 1.05)
    record_property("ratio", round(found, 3))
    assert found <= 1.1


def test_import(record_property):
    def started(program):
        return lambda: subprocess.run([sys.executable, "-c", program], check=True)

    found = best_of(lambda: ratio(started("import azpgauth"), started("pass"), 9), 1.2)
    record_property("ratio", round(found, 3))
    assert found <= 1.5
