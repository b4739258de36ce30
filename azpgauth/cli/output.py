"""What the commands print: in colour on a terminal, plain and never wrapped in a pipe."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from azpgauth.cli.status import status_of
from azpgauth.errors import SettingsError
from azpgauth.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from azpgauth.cli.status import StepError
    from azpgauth.errors import Problem

__all__ = ["console", "json_problems", "print_step", "problem_data"]


def console() -> Console:
    """Where to print; NO_COLOR is respected."""
    return Console(highlight=False, soft_wrap=True)


def problem_data(problems: Iterable[Problem]) -> list[dict[str, str | None]]:
    """Mistakes of the settings for a JSON document: all of them, whole."""
    return [vars(problem) for problem in problems]


@contextmanager
def json_problems(*, wanted: bool) -> Iterator[None]:
    """Print mistakes of the settings as one JSON document, where one was asked for, and end."""
    try:
        yield
    except SettingsError as exc:
        if not wanted:
            raise
        click.echo(json.dumps({"problems": problem_data(exc.problems)}, indent=2))
        sys.exit(status_of(exc))


def print_step(
    out: Console, name: str, seconds: float, found: dict[str, Any], error: StepError | None
) -> None:
    """One step: what it found, or why it does not hold and what to do.

    Args:
        out: Where to print it.
        name: The step.
        seconds: How long it took.
        found: What it found.
        error: What went wrong, if anything did.
    """
    if error is None:
        details = Text()
        for number, (key, value) in enumerate(found.items()):
            details.append("; " if number else "", "dim").append(f"{key} ", "dim")
            details.append(printable(str(value)))
        _print(out, Text(_mark(out, "✓", "ok"), "green"), Text(name, "bold"), seconds, details)
        return
    details = Text(printable(error.said))
    for what, text in (("cause", error.cause), ("to do", error.remedy)):
        if text:
            details.append(f"\n{what}: ", "bold").append(printable(text))
    _print(out, Text(_mark(out, "✗", "no"), "bold red"), Text(name, "bold red"), seconds, details)


def _mark(out: Console, mark: str, plain: str) -> str:
    """The mark, or what stands for it where there is no such character."""
    try:
        mark.encode(out.encoding)
    except (UnicodeEncodeError, LookupError):
        return plain
    return mark


def _print(out: Console, mark: Text, name: Text, seconds: float, details: Text) -> None:
    name.pad_right(9 - len(name))
    time = Text(f"{seconds * 1000:6.0f} ms", "dim")
    if out.is_terminal:
        grid = Table.grid(padding=(0, 1))
        for _ in range(3):
            grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row(mark, name, time, details)
        out.print(grid, soft_wrap=False)
    else:
        lines = Text.assemble(mark, " ", name, " ", time, "  ", details)
        out.print(Text("\n  ").join(lines.split("\n")))
