"""Runs `azpgauth sandbox`: starts the sandbox, runs a command in it, stops it."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from azpgauth.cli.process import ENDING, run_program
from azpgauth.runtime.printable import one_line
from azpgauth.sandbox.environment import Credential, Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from azpgauth.sandbox.entra.identity import Kind

__all__ = ["sandbox"]

_NAMES: dict[Kind, str] = {
    "user-assigned": "sandbox-app",
    "system-assigned": "sandbox-app",
    "service-principal": "sandbox-sp",
    "user": "ada@sandbox.example",
    "guest": "ada_example.com#EXT#@sandbox.onmicrosoft.com",
    "group": "sandbox-group",
}


@click.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "--env-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the environment to this new file; it is removed at the end.",
)
@click.option(
    "--credential",
    type=click.Choice(get_args(Credential)),
    default="managed-identity",
    show_default=True,
    help="What COMMAND signs in with.",
)
@click.option(
    "--identity",
    "kind",
    type=click.Choice(list(_NAMES)),
    help="Who signs in; user-assigned by default, or service-principal where only an application "
    "can. Of a group, a member does.",
)
@click.option(
    "--endpoint",
    type=click.Choice(get_args(Endpoint)),
    default="app-service",
    show_default=True,
    help="Where azure-identity finds the managed identity.",
)
@click.option("--pgbouncer", is_flag=True, help="Put a real PgBouncer before PostgreSQL.")
@click.option("--standby", is_flag=True, help="Add a hot standby; the environment names both.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def sandbox(
    env_file: Path | None,
    credential: Credential,
    kind: Kind | None,
    endpoint: Endpoint,
    pgbouncer: bool,
    standby: bool,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND with a local Entra ID and PostgreSQL, and return its status.

    Without COMMAND, print the environment that points at the sandbox (or write it with
    --env-file), and serve until interrupted.

    Example: azpgauth sandbox -- python app.py
    """
    from azpgauth.sandbox.box import Sandbox  # first: it says what is not installed
    from azpgauth.sandbox.entra.identity import Identity

    if env_file is not None and env_file.exists():
        raise click.ClickException(
            f"{one_line(str(env_file))} exists; name a new file, or remove it first"
        )
    with contextlib.ExitStack() as stack:
        with _signals_end():
            identity = Identity(_NAMES[kind], kind=kind) if kind else None
            box = stack.enter_context(
                Sandbox(identity=identity, endpoint=endpoint, pgbouncer=pgbouncer, standby=standby)
            )
            environment = box.environment_for(credential, identity=identity)
            if env_file is not None:
                stack.enter_context(_written(env_file, environment))
        # From here on a signal is passed to the command, or ends the wait for one: what was
        # started is stopped in any case.
        status = (
            run_program(command, {**os.environ, **environment})
            if command
            else _serve(env_file, environment)
        )
    sys.exit(status)


@contextlib.contextmanager
def _signals_end() -> Iterator[None]:
    """Until here, a signal unwinds the stack like Ctrl-C does."""

    def end(number: int, _: FrameType | None) -> None:
        for each in ENDING:
            signal.signal(each, signal.SIG_IGN)  # the stack unwinds once, in peace
        sys.exit(128 + number)

    for each in ENDING:
        signal.signal(each, end)
    yield


def _serve(env_file: Path | None, environment: dict[str, str]) -> int:
    ended = threading.Event()
    for each in ENDING:
        signal.signal(each, lambda *_: ended.set())
    if env_file is None:
        click.echo(_dotenv(environment), nl=False)
    click.echo("The sandbox is up; Ctrl-C ends it.", err=True)
    # An Event's wait() without a time-out would not see the signal on every platform.
    while not ended.wait(0.2):
        pass
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)
    return 0


@contextlib.contextmanager
def _written(path: Path, environment: dict[str, str]) -> Iterator[None]:
    path.touch(mode=0o600, exist_ok=False)
    try:
        path.write_text(_dotenv(environment))
        yield
    finally:
        path.unlink(missing_ok=True)


def _dotenv(environment: dict[str, str]) -> str:
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in environment.items())
