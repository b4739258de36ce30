"""The places that settings come from, each read into a `Layer` whose values know their origin.

To add a source, write a function that gives a `Layer` (and what it found wrong), and put it in its
rank in `load.py`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from difflib import get_close_matches
from io import StringIO
from typing import TYPE_CHECKING, Any

from dotenv.parser import parse_stream
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from azpgauth.errors import Problem
from azpgauth.settings.models import SECTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "PREFIX",
    "Layer",
    "Value",
    "dotenv_layer",
    "environment_layer",
    "keyword_layer",
    "toml_layer",
]

PREFIX = "AZPG_"

Key = tuple[str, str]
"""Section and field."""


@dataclass(frozen=True)
class Value:
    """A raw value; its repr does not show it, for it may be a secret.

    Attributes:
        raw: As the source has it.
        origin: What to edit to change it.
        in_file: Whether that is a file of the kind that is put under version control.
    """

    raw: Any = field(repr=False)
    origin: str
    in_file: bool = False


@dataclass
class Layer:
    """What one source says."""

    values: dict[Key, Value] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


class _Names(BaseSettings):
    """How names of variables map to sections; its values stay raw."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="_", env_nested_max_split=1
    )

    server: dict[str, str] = {}
    database: dict[str, str] = {}
    driver: dict[str, str] = {}
    pool: dict[str, str] = {}
    credential: dict[str, str] = {}


def variable(section: str, name: str) -> str:
    """The environment variable of a setting."""
    return f"{PREFIX}{section}_{name}".upper()


_VARIABLES = {
    variable(section, name): (section, name) for section in SECTIONS for name in SECTIONS[section]
}


def keyword_layer(sections: Mapping[str, Mapping[str, Any]]) -> Layer:
    """The keyword arguments of a call."""
    layer = Layer()
    for section, fields in sections.items():
        for name, raw in fields.items():
            origin = f"keyword argument {section}={{{name!r}: …}}"
            _put(layer, section, name, raw, origin, f"{section}[{name!r}]")
    return layer


def environment_layer() -> Layer:
    """The process environment."""
    return _variables(os.environ, "environment variable {}")


def dotenv_layer(path: Path) -> Layer:
    """One `.env` file; only its `AZPG_*` are looked at, and nothing is exported."""
    # utf-8-sig: Windows editors like to begin a file with a byte order mark.
    try:
        bindings = list(parse_stream(StringIO(path.read_text(encoding="utf-8-sig"))))
    except (OSError, UnicodeDecodeError) as exc:
        return Layer(problems=[_unreadable(path, exc)])
    found = {binding.key: binding.value or "" for binding in bindings if binding.key}
    layer = _variables(found, f"{path}, {{}}")
    for binding in bindings:
        if binding.error:  # its text may hold a secret
            reason, action = "cannot be read", "write NAME=value, or quote the value"
            where = f"{path}, line {binding.original.line}"
            layer.problems.append(Problem(str(path), where, reason, action))
    return layer


def toml_layer(path: Path) -> Layer:
    """One TOML file, a table for each section."""
    try:
        tables = TomlConfigSettingsSource(_Names, toml_file=path).toml_data
    except (OSError, ValueError) as exc:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        return Layer(problems=[_unreadable(path, exc)])
    layer = Layer()
    for section, table in tables.items():
        if section not in SECTIONS:
            layer.problems.append(
                _unknown(f"[{section}]", f"{path}, [{section}]", section, SECTIONS, "tables")
            )
        elif not isinstance(table, dict):
            reason = "is a value where a table is needed"
            action = f"write [{section}] on a line of its own, and the settings below it"
            layer.problems.append(Problem(section, f"{path}, {section}", reason, action))
        else:
            for name, raw in table.items():
                origin = f"{path}, [{section}] {name}"
                _put(layer, section, name, raw, origin, f"[{section}] {name}", in_file=True)
    return layer


def _variables(environ: Mapping[str, str], origin: str) -> Layer:
    layer = Layer()
    ours = {name: raw for name, raw in environ.items() if name.upper().startswith(PREFIX)}
    for name, raw in ours.items():
        if name.upper() not in _VARIABLES:
            where = origin.format(name)
            layer.problems.append(_unknown(name, where, name.upper(), _VARIABLES, "names"))
        elif not raw.strip():
            section, setting = _VARIABLES[name.upper()]
            reason = "is empty"
            action = "give it a value, or remove it for the default"
            layer.problems.append(
                Problem(f"{section}.{setting}", origin.format(name), reason, action)
            )
    source = EnvSettingsSource(_Names)
    source.env_vars = {
        name.lower(): raw
        for name, raw in ours.items()
        if name.upper() in _VARIABLES and raw.strip()
    }
    spelled = {name.upper(): name for name in ours}
    for section, fields in source().items():
        for name, raw in fields.items():
            where = origin.format(spelled[variable(section, name)])
            layer.values[section, name] = Value(raw, where)
    return layer


def _put(
    layer: Layer,
    section: str,
    name: str,
    raw: object,
    origin: str,
    shown: str,
    *,
    in_file: bool = False,
) -> None:
    if name in SECTIONS[section]:
        layer.values[section, name] = Value(raw, origin, in_file)
    else:
        problem = _unknown(shown, origin, name, SECTIONS[section], f"settings in {section}")
        layer.problems.append(problem)


def _unknown(
    shown: str, origin: str, name: str, known: Mapping[str, Any] | frozenset[str], what: str
) -> Problem:
    near = get_close_matches(str(name), sorted(known), 1, 0.6)
    names = ", ".join(sorted(known))
    action = f"did you mean {near[0]}?" if near else f"{what} that exist: {names}"
    return Problem(shown, origin, "there is no such setting", action)


def _unreadable(path: Path, exc: Exception) -> Problem:
    # A parser's message quotes no values; what a decoder says names bytes and positions only.
    reason = exc.strerror or type(exc).__name__ if isinstance(exc, OSError) else str(exc)
    return Problem(str(path), str(path), f"cannot be read: {reason}", "correct or remove the file")
