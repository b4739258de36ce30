"""Makes the JSON Schema of a TOML file with settings from the models. Pure.

Editors complete and check a file that begins with a line such as
`#:schema https://…/azpgauth.schema.json`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from azpgauth.settings.models.credential import KINDS
from azpgauth.settings.models.sections import Settings

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["json_schema", "properties_of"]


def json_schema() -> dict[str, Any]:
    """The schema, in JSON Schema 2020-12.

    No setting is required of a file: what it does not say, another source may.
    """
    sections = {}
    for name, info in Settings.model_fields.items():
        if name == "credential":
            sections[name] = _credential()
        else:
            model: Any = info.annotation
            sections[name] = _table(model.__doc__, properties_of(model))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "azpgauth.toml",
        "description": "Settings of azpgauth: a table for each section.",
        **_table(None, sections),
    }


def properties_of(model: type[BaseModel]) -> dict[str, Any]:
    """The fields of one model, as properties of a TOML table."""
    found = model.model_json_schema()["properties"]
    return {name: _without_null(schema) for name, schema in found.items()}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """TOML has no null: a setting that may be absent is simply not there."""
    plain = {key: value for key, value in schema.items() if key not in {"title", "anyOf"}}
    if plain.get("default", 0) is None:
        del plain["default"]
    choices = [each for each in schema.get("anyOf", []) if each.get("type") != "null"]
    if len(choices) == 1:
        return {**choices[0], **plain}
    return {**plain, "anyOf": choices} if choices else plain


def _table(description: str | None, properties: dict[str, Any]) -> dict[str, Any]:
    described = {"description": description.strip()} if description else {}
    return {
        **described,
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def _credential() -> dict[str, Any]:
    """All kinds' fields in one table; a kind that is named allows its own alone."""
    merged: dict[str, Any] = {"kind": {"enum": list(KINDS), "default": "default"}}
    merged["kind"]["description"] = "How to sign in."
    described_as: dict[str, dict[str, list[str]]] = {}
    for kind, model in KINDS.items():
        for name, schema in properties_of(model).items():
            if name != "kind":
                merged.setdefault(name, {k: v for k, v in schema.items() if k != "description"})
                described_as.setdefault(name, {}).setdefault(schema["description"], []).append(kind)
    for name, texts in described_as.items():
        lines = (f"{', '.join(kinds)}: {text}" for text, kinds in texts.items())
        merged[name] = {"description": "\n".join(lines), **merged[name]}
        if name == "refresh":
            merged[name].pop("default", None)  # it depends on the kind
    table = _table("How to sign in: which fields there are depends on the kind.", merged)
    table["allOf"] = [
        {
            "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
            "then": {"propertyNames": {"enum": sorted(model.model_fields)}},
        }
        for kind, model in KINDS.items()
    ]
    return table
