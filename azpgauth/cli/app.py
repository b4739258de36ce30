"""The commands, and how an error of the library is shown: one clean report, no traceback."""

from __future__ import annotations

import sys
from typing import Any

import click

from azpgauth import __version__
from azpgauth.cli.check import check
from azpgauth.cli.config import config
from azpgauth.cli.init import init
from azpgauth.cli.run import run
from azpgauth.cli.sandbox import sandbox
from azpgauth.cli.status import status_of
from azpgauth.cli.token import token
from azpgauth.errors import AzpgauthError

__all__ = ["app"]


class _App(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(130)  # as shells have it: 128 and the signal
        except AzpgauthError as exc:
            if ctx.params.get("debug"):
                raise
            click.echo(f"Error: {exc}", err=True)
            sys.exit(status_of(exc))


@click.group(cls=_App)
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def app(debug: bool) -> None:
    """Connect Python to Azure Database for PostgreSQL.

    Begin with: azpgauth init, azpgauth check
    """


for _command in (check, config, init, run, sandbox, token):
    app.add_command(_command)
