"""`load_settings`: all sources by rank, to one `Settings` or one error with all mistakes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from azpgauth.errors import Problem, SettingsError
from azpgauth.settings.conventions import convention_layer
from azpgauth.settings.credential import SECRETS, fields_of, kinds_with
from azpgauth.settings.models import SECTIONS, Settings
from azpgauth.settings.sources import (
    Layer,
    Value,
    dotenv_layer,
    environment_layer,
    keyword_layer,
    toml_layer,
    variable,
)

__all__ = ["load_settings", "sealed"]

_KEYWORDS = {"config", "env_file", *SECTIONS}


def load_settings(
    *,
    config: str | os.PathLike[str] | None = None,
    env_file: str | os.PathLike[str] | None = None,
    **sections: Any,
) -> Settings:
    """Read the settings from keyword arguments, `AZPG_*`, `.env` and `azpgauth.toml`.

    What comes first in that list wins, setting by setting. Files are looked for in the working
    directory.

    Args:
        config: A TOML file to read instead of `azpgauth.toml`; it must exist.
        env_file: A file to read instead of `.env`; it must exist.
        **sections: `server`, `database`, `driver`, `pool` and `credential`, each a mapping;
            `driver` may be the driver's name alone.

    Returns:
        The settings, complete and checked.

    Raises:
        SettingsError: With every mistake that was found, and what to edit for each.

    Example:
        >>> load_settings(server={"port": 6432})  # doctest: +SKIP
    """
    sections = sealed(sections)
    layers = [
        _keywords(sections),
        environment_layer(),
        _file(env_file, ".env", dotenv_layer, "env_file"),
        _file(config, "azpgauth.toml", toml_layer, "config"),
        convention_layer(os.environ),
    ]
    settings, problems = _checked(layers)
    if settings is None or problems:
        raise SettingsError(problems)
    return settings


def _checked(layers: list[Layer]) -> tuple[Settings | None, list[Problem]]:
    """The settings, or what is wrong. Raw values stay in this frame, out of any traceback."""
    problems = [problem for layer in layers for problem in layer.problems]
    merged = _merge(_of_one_kind(layers))
    data: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for (section, name), (winner, *_) in merged.items():
        data[section][name] = winner.raw
    _warn_of_secrets(merged)
    try:
        return Settings.model_validate(data), problems
    except ValidationError as exc:
        return None, problems + _translated(exc, data, merged)


def _warn_of_secrets(merged: dict[tuple[str, str], list[Value]]) -> None:
    for (section, name), values in merged.items():
        for value in values:
            if section == "credential" and name in SECRETS and value.in_file:
                warnings.warn(
                    f"credential.{name} stands in {value.origin}: a secret in a file that may be "
                    f"under version control. Move it to {variable(section, name)} in the "
                    "environment or in .env",
                    stacklevel=4,
                )


def sealed(sections: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments of a call with their secrets wrapped.

    Whoever takes such arguments binds them to this at once: then a traceback that shows locals
    does not show the secrets.
    """
    credential = sections.get("credential")
    if not isinstance(credential, Mapping):
        return sections
    return {
        **sections,
        "credential": {
            name: SecretStr(value) if name in SECRETS and isinstance(value, str) else value
            for name, value in credential.items()
        },
    }


def _keywords(sections: Mapping[str, Any]) -> Layer:
    fine: dict[str, Mapping[str, Any]] = {}
    wrong = []
    for name, value in sections.items():
        given = {"name": value} if name == "driver" and isinstance(value, str) else value
        if name not in SECTIONS:
            near = get_close_matches(name, sorted(_KEYWORDS), 1, 0.6)
            action = (
                f"did you mean {near[0]}=?" if near else f"those that exist: {_listed(_KEYWORDS)}"
            )
            wrong.append(
                Problem(name, f"keyword argument {name}=", "there is no such keyword", action)
            )
        elif not isinstance(given, Mapping):
            reason = f"is a {type(given).__name__} where a mapping is needed"
            action = f"write {name}={{…}} with {_listed(SECTIONS[name])}"
            wrong.append(Problem(name, f"keyword argument {name}=", reason, action))
        else:
            fine[name] = given
    layer = keyword_layer(fine)
    layer.problems[:0] = wrong
    return layer


def _file(named: str | os.PathLike[str] | None, usual: str, read: Any, keyword: str) -> Layer:
    path = Path(usual if named is None else named)
    if path.is_file():
        layer: Layer = read(path)
        return layer
    if named is None:
        return Layer()
    origin, action = f"keyword argument {keyword}=", "name a file that exists"
    return Layer(problems=[Problem(keyword, origin, f"there is no file {path}", action)])


def _of_one_kind(layers: list[Layer]) -> list[Layer]:
    """The layers without the credential's fields that were meant for a kind named further down.

    So one file for production and one variable on a laptop suffice. In the layer that names the
    kind, and above it, a field of another kind stays, to be reported.
    """
    kind_of = (layer.values.get(("credential", "kind")) for layer in layers)
    named = next(((n, kind) for n, kind in enumerate(kind_of) if kind is not None), None)
    if named is None:
        return layers
    rank, kind = named
    fields = fields_of(str(kind.raw))
    return layers[: rank + 1] + [
        Layer(
            {
                (section, name): value
                for (section, name), value in layer.values.items()
                if section != "credential" or name in fields
            }
        )
        for layer in layers[rank + 1 :]
    ]


def _merge(layers: list[Layer]) -> dict[tuple[str, str], list[Value]]:
    """For each setting, its values by rank: the first one holds, the others are shadowed."""
    merged: dict[tuple[str, str], list[Value]] = {}
    for layer in layers:
        for key, value in layer.values.items():
            merged.setdefault(key, []).append(value)
    return merged


def _translated(
    exc: ValidationError,
    data: dict[str, dict[str, Any]],
    merged: dict[tuple[str, str], list[Value]],
) -> list[Problem]:
    """What pydantic found, told with the place to edit."""
    problems = []
    for error in exc.errors(include_url=False, include_input=False):
        context = error.get("ctx", {})
        section, *rest = (
            str(context.get("setting", "")).split(".")
            if "setting" in context
            else (str(part) for part in error["loc"])
        )
        if "setting" in context and not rest:
            section, rest = str(error["loc"][0]), [section]
        # In a discriminated union, the kind stands between section and field.
        if section == "credential" and rest and rest[0] not in SECTIONS["credential"]:
            rest = rest[1:]
        name = rest[0] if rest else "kind"
        values = merged.get((section, name))
        here = variable(section, name)
        origin = (
            values[0].origin
            if values
            else f"not set ({here}, or {name} in [{section}] of azpgauth.toml)"
        )
        raw = data.get(section, {}).get(name)
        reason, action = _reason(error, section, name, data)
        shown = "" if values is None or name in SECRETS else f"{raw!r} "
        problems.append(Problem(f"{section}.{name}", origin, shown + reason, action))
    return problems


def _reason(
    error: Any, section: str, name: str, data: dict[str, dict[str, Any]]
) -> tuple[str, str]:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return (
            "is required",
            f"set {variable(section, name)}, or {name} in [{section}] of azpgauth.toml",
        )
    if kind == "extra_forbidden" and section == "credential":
        mine = data["credential"].get("kind", "default")
        kinds = " or ".join(kinds_with(name))
        return (
            f"does not belong to credential.kind {mine}",
            f"remove it, or set credential.kind to {kinds}",
        )
    if kind == "contradiction":
        return str(context["message"]), str(context["action"])
    if kind in {"literal_error", "union_tag_invalid"}:
        allowed = str(context.get("expected") or context.get("expected_tags"))
        given = str(data.get(section, {}).get(name))
        near = get_close_matches(
            given, [word.strip("' ") for word in allowed.replace(" or ", ",").split(",")], 1
        )
        return "is not allowed", f"allowed: {allowed}" + (
            f"; did you mean {near[0]}?" if near else ""
        )
    if kind == "path_not_file":
        return "is not a file", "name a PEM file that exists, or auto"
    message = str(error["msg"])
    return (
        f"is wrong: {message[:1].lower()}{message[1:]}",
        "correct it there",
    )


def _listed(names: Any) -> str:
    return ", ".join(sorted(names))
