"""New connections, one after another, while the token is renewed again and again.

python tests/benchmarks/renewal.py    # the design's own figures: about 45 seconds
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import time

from azpgauth import closing, connect_from_env, token_info
from azpgauth.identity.token import MARGIN
from azpgauth.sandbox import Sandbox


def measured(box, *, every, takes, seconds):
    """What a process of its own sees that connects for some seconds, and once more after a pause.

    Args:
        box: The sandbox.
        every: Seconds between renewals.
        takes: Seconds that each renewal takes.
        seconds: How long.
    """
    box.authority.lifetime = MARGIN + 2 * every  # it is renewed at half of its usable life
    box.authority.delay = takes
    command = [sys.executable, __file__, "--client", *map(str, (seconds, 1.5 * every, takes))]
    environment = {**os.environ, **box.environment}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as client:
        assert client.stdout.readline() == "busy no more\n"
        busy = len(box.authority.requests)
        found = json.loads(client.communicate()[0])
    idle = len(box.authority.requests) - busy
    return {
        **found,
        "requests": busy,
        "requests_while_idle": idle,
        "refusals": len(box.gateway.refusals),
    }


class Arrivals(logging.Handler):
    """When tokens arrive."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.times = []

    def emit(self, _):
        self.times.append(time.monotonic())


def client(seconds, pause, takes):
    arrivals = Arrivals()
    logging.getLogger("azpgauth.tokens").addHandler(arrivals)
    logging.getLogger("azpgauth.tokens").setLevel(logging.DEBUG)
    with closing(connect_from_env(driver="sqlalchemy")) as engine:
        times, began = [], []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began.append(time.monotonic())
            times.append(_connect(engine))
        renewals = [(end - takes, end) for end in arrivals.times[1:]]
        meanwhile = [
            took
            for at, took in zip(began, times, strict=True)
            if any(start <= at <= end for start, end in renewals)
        ]
        print("busy no more", flush=True)
        time.sleep(pause)
        found = {
            "connections": len(times),
            "median": statistics.median(times),
            "slowest": max(times),
            "slowest_while_renewed": max(meanwhile),
            "after_idle": _connect(engine),
            "failures": token_info(engine).failures,
        }
    print(json.dumps(found))


def _connect(engine):
    with engine.connect() as conn:
        conn.invalidate()  # so that the next one is a new one
    start = time.perf_counter()
    with engine.connect():
        return time.perf_counter() - start


def main():
    if "--client" in sys.argv:
        client(*map(float, sys.argv[2:]))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=float, default=10)
    parser.add_argument("--takes", type=float, default=1.5)
    parser.add_argument("--seconds", type=float, default=28)
    with Sandbox() as box:
        found = measured(box, **vars(parser.parse_args()))
    for name in ("slowest", "slowest_while_renewed"):
        found[f"{name} / median"] = round(found[name] / found["median"], 2)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
