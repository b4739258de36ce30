"""Runs `azpgauth check`: step by step to the server, and what to do where a step fails."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from azpgauth.cli.options import given, json_option, settings_options
from azpgauth.cli.output import console, print_step
from azpgauth.cli.status import Status, StepError
from azpgauth.errors import AzpgauthError
from azpgauth.runtime.printable import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from azpgauth.cli.check.steps import Check, Found
    from azpgauth.errors import Problem

__all__ = ["check"]


@click.command()
@settings_options
@json_option
def check(as_json: bool, **keywords: Any) -> None:
    """Go the whole way to the server, and say what works.

    Settings, driver, DNS, TCP, TLS, token, role, login, query: each with its time. The first step
    that fails ends it, with its cause and what to do.

    Exit status: 0 if it passed, else 3 settings, 4 network, 5 TLS, 6 identity, 7 database.

    Example: azpgauth check --env prod
    """
    begin = time.perf_counter()
    from azpgauth.cli.check.steps import STEPS, Check

    out = console()
    state = Check(given(keywords))
    report: list[dict[str, Any]] = []
    status = Status.OK
    problems: tuple[Problem, ...] = ()
    start = begin
    try:
        for name, step in STEPS:
            found, error = _done(state, step)
            seconds = time.perf_counter() - start
            entry = {"step": name, "holds": error is None, "seconds": round(seconds, 4)}
            if error is None:
                report.append({**entry, "found": found})
            else:
                meaning = {"cause": error.cause, "remedy": error.remedy}
                report.append({**entry, "error": error.said, **meaning})
                status, problems = error.status, error.problems
            if not as_json:
                print_step(out, name, seconds, found, error)
            if error is not None:
                break
            start = time.perf_counter()
    finally:
        state.close()
    if as_json:
        document = {"holds": status is Status.OK, "status": int(status), "steps": report}
        if problems:
            document["problems"] = [asdict(problem) for problem in problems]
        if status is not Status.OK:
            document["set_aside"] = state.set_aside
        click.echo(json.dumps(document, indent=2))
    elif status is not Status.OK:
        _print_set_aside(out, state)
    else:
        out.print(f"The check passed in {time.perf_counter() - begin:.1f} s.")
    sys.exit(status)


def _print_set_aside(out: Console, state: Check) -> None:
    """Print what other tools set and does not count: somebody may have meant it."""
    for line in state.set_aside:
        out.print(f"Set aside: {one_line(line)}", markup=False)


def _done(state: Check, step: Callable[[Check], Found]) -> tuple[Found, StepError | None]:
    """What a step found, or why it failed."""
    from azpgauth.cli.check.steps import step_error, unexpected

    try:
        return step(state), None
    except StepError as exc:
        return {}, exc
    except Exception as exc:
        if click.get_current_context().find_root().params.get("debug"):
            raise
        return {}, step_error(exc) if isinstance(exc, AzpgauthError) else unexpected(exc)
