"""The commands, and how an error of the library is shown: one clean report, no traceback."""

from __future__ import annotations

from typing import Any

import click

from azpgauth import __version__
from azpgauth.cli.sandbox import sandbox
from azpgauth.errors import AzpgauthError

__all__ = ["app"]


class _App(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AzpgauthError as exc:
            raise click.ClickException(str(exc)) from None


@click.group(cls=_App)
@click.version_option(__version__)
def app() -> None:
    """Connect Python to Azure Database for PostgreSQL."""


app.add_command(sandbox)
