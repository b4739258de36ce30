"""Prints what the commands say: in colour on a terminal, plain and never wrapped in a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from azpgauth.runtime.printable import escaped, one_line, printable, their_words

if TYPE_CHECKING:
    from azpgauth.cli.status import StepError

__all__ = ["console", "print_step"]


_LONG = 2000
"""Characters of one thing that a step found: all addresses of a host, say."""


def console() -> Console:
    """Where to print; NO_COLOR is respected."""
    return Console(highlight=False, soft_wrap=True)


def print_step(
    out: Console, name: str, seconds: float, found: dict[str, Any], error: StepError | None
) -> None:
    """One step: what it found, or why it failed and what to do.

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
            details.append("; " if number else "", "dim").append(f"{escaped(key)} ", "dim")
            details.append(one_line(str(value), _LONG))
        _print(out, Text(_mark(out, "✓", "ok"), "green"), Text(name, "bold"), seconds, details)
        return
    details = Text(printable(error.said) if error.ours else their_words(error.said))
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
