"""Collects the commands, and shows an error of the library as one clean report, no traceback."""

from __future__ import annotations

import json
import sys
import traceback
from dataclasses import asdict
from typing import Any

import click

from azpgauth import __version__
from azpgauth.cli.check.command import check
from azpgauth.cli.config import config
from azpgauth.cli.init import init
from azpgauth.cli.options import wants_json
from azpgauth.cli.run import run
from azpgauth.cli.sandbox import sandbox
from azpgauth.cli.status import status_of
from azpgauth.cli.token import token
from azpgauth.errors import AzpgauthError, ConnectError, RoleError, SettingsError, TokenError
from azpgauth.runtime.printable import printable

__all__ = ["app"]


class _App(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        sys.excepthook = _print_traceback
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(130)  # as shells have it: 128 and the signal
        except AzpgauthError as exc:
            if ctx.params.get("debug"):
                raise
            if wants_json(ctx):
                click.echo(json.dumps(_document(exc), indent=2))
            else:
                click.echo(f"Error: {exc}", err=True)
            sys.exit(status_of(exc))


def _print_traceback(kind: type[BaseException], exc: BaseException, trace: Any) -> None:
    """As Python does, but a server's words in it are no commands to a terminal."""
    click.echo(printable("".join(traceback.format_exception(kind, exc, trace))), err=True, nl=False)


def _document(exc: AzpgauthError) -> dict[str, Any]:
    """An error for programs, all mistakes in the settings with it."""
    document: dict[str, Any] = {"error": str(exc), "status": int(status_of(exc))}
    if isinstance(exc, (ConnectError, RoleError, TokenError)):
        document |= {"error": exc.said, "cause": exc.cause, "remedy": exc.remedy}
    if isinstance(exc, SettingsError):
        document["problems"] = [asdict(problem) for problem in exc.problems]
    return document


@click.group(cls=_App)
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def app(debug: bool) -> None:
    """Connect Python to Azure Database for PostgreSQL.

    Begin with: azpgauth init, azpgauth check
    """


for _command in (check, config, init, run, sandbox, token):
    app.add_command(_command)
