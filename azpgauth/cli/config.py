"""Runs `azpgauth config`: shows every setting, where it came from, and what it overrides."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from azpgauth.cli.options import given, json_option, settings_options
from azpgauth.cli.output import console
from azpgauth.runtime.printable import one_line

if TYPE_CHECKING:
    from azpgauth.settings import Explained

__all__ = ["config"]


@click.group(invoke_without_command=True)
@settings_options
@json_option
@click.pass_context
def config(context: click.Context, /, as_json: bool, **keywords: Any) -> None:
    """Show every setting: its value, where it came from, what it lies over.

    Secrets are masked.

    Example: azpgauth config --env prod
    """
    if context.invoked_subcommand is not None:
        return
    from azpgauth.settings import explain, load_settings

    found = explain(load_settings(**given(keywords)))
    if as_json:
        document = {
            "settings": {each.setting: _as_data(each) for each in found.settings},
            "dropped": [{"setting": each.setting, **_as_data(each)} for each in found.dropped],
        }
        click.echo(json.dumps(document, indent=2, default=str))
        return
    out = console()
    for each in found.settings:
        out.print(_line(each))
    if found.dropped:
        out.print(Text("\nSet aside", "bold"))
    for each in found.dropped:
        out.print(_line(each).append(f"\n{'':<28} {one_line(str(each.reason))}", "yellow"))


@config.command()
def schema() -> None:
    """Print the JSON Schema of azpgauth.toml.

    Example: azpgauth config schema > azpgauth.schema.json
    """
    from azpgauth.settings.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


def _as_data(each: Explained) -> dict[str, Any]:
    data: dict[str, Any] = {
        "value": each.value,
        "origin": {"kind": each.origin.kind, "where": each.origin.where},
        "shadowed": [
            {"value": value, "origin": {"kind": origin.kind, "where": origin.where}}
            for value, origin in each.shadowed
        ],
    }
    return data if each.reason is None else {**data, "reason": each.reason}


def _line(each: Explained) -> Text:
    by_default = each.origin.kind == "default"
    line = Text().append(f"{each.setting:<28} ", "dim" if by_default else "bold")
    line.append("-" if each.value is None else one_line(str(each.value)))
    line.append(f"  {one_line(str(each.origin))}", "dim" if by_default else "cyan")
    for value, origin in each.shadowed:
        overridden = f"overrides {one_line(str(value))} from {one_line(str(origin))}"
        line.append(f"\n{'':<28} {overridden}", "dim")
    return line
