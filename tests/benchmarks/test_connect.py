"""Ratios of the design's table, each measured side by side in one run."""

import statistics
import subprocess
import sys
import time

import psycopg
from psycopg import pq

from azpgauth.factory import _login, _plan
from azpgauth.psycopg3 import SignedInConnection
from azpgauth.settings import load_settings


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


def test_one_connect_with_a_cached_token(box, record_property):
    settings = load_settings()
    keywords = _plan(settings).libpq(pq.version())
    login = _login(settings, None)
    token = login.grant().password
    raw = {
        "host": settings.server.host,
        "port": settings.server.port,
        "dbname": settings.database.name,
        "sslmode": "verify-full",
        "sslrootcert": str(settings.server.sslrootcert),
        "connect_timeout": 10,
        "gssencmode": "disable",
    }

    def ours():
        SignedInConnection.connect(**keywords, login=login).close()

    def theirs():
        psycopg.connect(**raw, user="sandbox-app", password=token).close()

    found = best_of(lambda: ratio(ours, theirs, 60), 1.02)
    record_property("ratio", round(found, 3))
    assert found <= 1.05


def test_import(record_property):
    def started(program):
        return lambda: subprocess.run([sys.executable, "-c", program], check=True)

    found = best_of(lambda: ratio(started("import azpgauth"), started("pass"), 9), 1.2)
    record_property("ratio", round(found, 3))
    assert found <= 1.5
