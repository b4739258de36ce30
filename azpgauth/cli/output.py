"""What the commands print: in colour on a terminal, plain and never wrapped in a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from azpgauth.cli.steps import StepError

__all__ = ["console", "print_failed", "print_passed"]


def console() -> Console:
    """Where to print; NO_COLOR is respected."""
    return Console(highlight=False, soft_wrap=True)


def print_passed(out: Console, name: str, found: dict[str, Any], seconds: float) -> None:
    """One step that holds.

    Args:
        out: Where.
        name: The step.
        found: What it found.
        seconds: How long it took.
    """
    details = Text()
    for number, (key, value) in enumerate(found.items()):
        details.append("; " if number else "", "dim").append(f"{key} ", "dim").append(str(value))
    _print(out, Text("✓", "green"), Text(name, "bold"), seconds, details)


def print_failed(out: Console, name: str, error: StepError, seconds: float) -> None:
    """One step that does not hold, with what to do.

    Args:
        out: Where.
        name: The step.
        error: What went wrong.
        seconds: How long it took.
    """
    details = Text(error.said)
    for what, text in (("cause", error.cause), ("to do", error.remedy)):
        if text:
            details.append(f"\n{what}: ", "bold").append(text)
    _print(out, Text("✗", "bold red"), Text(name, "bold red"), seconds, details)


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
