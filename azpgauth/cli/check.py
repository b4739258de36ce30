"""`azpgauth check`: step by step to the server, and what to do where a step does not hold."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click

from azpgauth.cli.options import given, settings_options
from azpgauth.cli.output import console, print_failed, print_passed
from azpgauth.cli.status import Status
from azpgauth.errors import AzpgauthError

__all__ = ["check"]


@click.command()
@settings_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")
def check(as_json: bool, **keywords: Any) -> None:
    """Go the whole way to the server, and say what holds.

    Settings, driver, DNS, TCP, TLS, token, role, login, query: each with its time. The first step
    that does not hold ends it, with its cause and what to do.

    Exit status: 0 if all hold, else 3 settings, 4 network, 5 TLS, 6 identity, 7 database.

    Example: azpgauth check --env prod
    """
    from azpgauth.cli.steps import STEPS, Check, StepError, told

    out = console()
    state = Check(given(keywords))
    report: list[dict[str, Any]] = []
    status = Status.OK
    try:
        for name, step in STEPS:
            start = time.perf_counter()
            try:
                found = step(state)
            except (StepError, AzpgauthError) as exc:
                seconds = time.perf_counter() - start
                role = state.prepared.login.role if hasattr(state, "prepared") else None
                error = exc if isinstance(exc, StepError) else told(exc, role)
                status = error.status
                if not as_json:
                    print_failed(out, name, error, seconds)
                entry: dict[str, Any] = {
                    "error": error.said,
                    "cause": error.cause,
                    "remedy": error.remedy,
                }
            else:
                seconds = time.perf_counter() - start
                if not as_json:
                    print_passed(out, name, found, seconds)
                entry = {"found": found}
            holds = status is Status.OK
            report.append({"step": name, "holds": holds, "seconds": round(seconds, 4), **entry})
            if not holds:
                break
    finally:
        state.close()
    if as_json:
        document = {"holds": status is Status.OK, "status": int(status), "steps": report}
        click.echo(json.dumps(document, indent=2))
    elif status is Status.OK:
        out.print("All holds.")
    sys.exit(status)
