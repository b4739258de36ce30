"""Gives commands the options that several have: those of `load_settings`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from azpgauth.runtime.drivers import DRIVERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["given", "json_option", "settings_options", "wants_json"]

F = TypeVar("F", bound="Callable[..., Any]")

_DRIVER = click.Choice(list(DRIVERS))


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that were given, as keyword arguments of `load_settings`."""
    return {name: value for name, value in options.items() if value is not None}


_JSON = "azpgauth.json"


def json_option(command: F) -> F:
    """Give a command the option `--json`; errors are JSON then, too."""

    def noted(context: click.Context, _: click.Parameter, value: bool) -> bool:
        context.meta[_JSON] = value
        return value

    return click.option(
        "--json",
        "as_json",
        is_flag=True,
        callback=noted,
        help="Print one JSON document instead.",
    )(command)


def wants_json(context: click.Context) -> bool:
    """Whether the command was given `--json`.

    Args:
        context: Of the command, or of the program.
    """
    return bool(context.meta.get(_JSON))


def settings_options(command: F) -> F:
    """Give a command the options that say where settings come from.

    The command gets them as keyword arguments, None where they were not given.
    """
    for option in reversed(
        (
            click.option("--env", help="The environment, such as prod, instead of AZPG_ENV."),
            click.option("--config", help="A TOML file instead of azpgauth.toml."),
            click.option("--env-file", help="A file instead of .env."),
            click.option("--secrets-dir", help="A directory with a file for each secret."),
            click.option("--prefix", help="What the variables of a second database begin with."),
            click.option("--driver", type=_DRIVER, help="Instead of driver.name."),
        )
    ):
        command = option(command)
    return command
