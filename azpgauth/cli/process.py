"""Runs another program: its status is ours, and signals are passed on to it."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import click

from azpgauth.runtime.printable import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType

__all__ = ["ENDING", "run_program"]

ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""The signals that end a program."""


_TELLING = tuple(
    getattr(signal, name)
    for name in ("SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGCONT")
    if hasattr(signal, name)
)
"""Those that tell a program something."""


def run_program(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program and wait for it.

    Args:
        command: The program and its arguments.
        environment: Its whole environment.

    Returns:
        Its exit status; 127 if there is no such program, 128 and the signal if one ended it.
    """
    try:
        process = subprocess.Popen(command, env=dict(environment))
    except OSError as exc:
        click.echo(f"Error: cannot run {one_line(str(command[0]))}: {exc.strerror}", err=True)
        return 127 if isinstance(exc, FileNotFoundError) else 126

    def pass_on(number: int, _: FrameType | None) -> None:
        # The terminal gives Ctrl-C to the command too; once more does no harm to most, but some
        # take the second one as "at once".
        if number != signal.SIGINT or sys.stdin is None or not sys.stdin.isatty():
            process.send_signal(number)

    for each in (*ENDING, *_TELLING):
        signal.signal(each, pass_on)
    status = process.wait()
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)
    return status if status >= 0 else 128 - status
