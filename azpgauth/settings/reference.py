"""Writes the files for people and editors that are made from the models: every setting in them.

>>> python -m azpgauth.settings.reference  # doctest: +SKIP

writes them anew, in the root of the project.
"""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azpgauth.settings.models.credential import KINDS
from azpgauth.settings.models.sections import Settings
from azpgauth.settings.schema import json_schema, properties_of
from azpgauth.settings.sources.conventions import FAMILIES, described
from azpgauth.settings.sources.layers import variable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Entry", "dotenv_example", "entries", "generated", "settings_page", "toml_example"]


@dataclass(frozen=True)
class Entry:
    """One setting.

    Attributes:
        section: Its section.
        name: Its name there.
        schema: Its JSON Schema.
        meanings: What it means; for the credential's, with the kinds of which that is true.
        required: Whether there must be one.
    """

    section: str
    name: str
    schema: dict[str, Any]
    meanings: tuple[tuple[str, tuple[str, ...]], ...]
    required: bool = False

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return variable(self.section, self.name)

    @property
    def example(self) -> str:
        """A value to show."""
        if self.name == "kind":
            return "default"
        examples = self.schema.get("examples") or [self.schema.get("default")]
        if examples[0] is not None:
            return str(examples[0])
        if "enum" in self.schema:
            return str(self.schema["enum"][0])
        return "true" if self.schema.get("type") == "boolean" else ""


def entries() -> Iterator[Entry]:
    """All settings, in the order of the models."""
    for section, info in Settings.model_fields.items():
        if section == "credential":
            yield from _of_credential()
            continue
        model: Any = info.annotation
        for name, schema in properties_of(model).items():
            required = model.model_fields[name].is_required()
            yield Entry(section, name, schema, ((schema["description"], ()),), required)


def _of_credential() -> Iterator[Entry]:
    table = json_schema()["properties"]["credential"]["properties"]
    for name, schema in table.items():
        if name == "kind":
            text = f"How to sign in: {', '.join(KINDS)}."
            yield Entry("credential", name, schema, ((text, ()),))
            continue
        said: dict[str, list[str]] = {}
        for kind, model in KINDS.items():
            if name in model.model_fields:
                text = model.model_fields[name].description or ""
                said.setdefault(text, []).append(kind)
        meanings = tuple((text, tuple(kinds)) for text, kinds in said.items())
        yield Entry("credential", name, schema, meanings)


_ALL_WITH_TOKENS = len(KINDS) - 2


def _whose(kinds: tuple[str, ...]) -> str:
    if not kinds:
        return ""
    return "all with tokens: " if len(kinds) == _ALL_WITH_TOKENS else f"{', '.join(kinds)}: "


def dotenv_example() -> str:
    """The text of `.env.example`."""
    lines = [
        "# Copy to .env, and remove the first # of the lines you need. Besides AZPG_*, only the",
        "# names that other tools set are read from it; schemas/settings.md has them.",
    ]
    section = ""
    for entry in entries():
        if entry.section != section:
            section = entry.section
            lines.append("")
        for text, kinds in entry.meanings:
            described = f"{_whose(kinds)}{text}" + (" Required." if entry.required else "")
            wrapped = textwrap.wrap(described, 98, break_on_hyphens=False)
            lines += [f"# {line}" for line in wrapped]
        lines.append(f"{'' if entry.required else '#'}{entry.variable}={entry.example}")
    return "\n".join(lines) + "\n"


def toml_example() -> str:
    """A commented `azpgauth.toml` to begin with."""
    lines = ["# Remove the # of the lines you need."]
    section = ""
    for entry in entries():
        if entry.section != section:
            section = entry.section
            lines += ["", f"[{section}]"]
        if entry.schema.get("format") == "password":
            continue  # a secret has no place in a file that is put under version control
        for text, kinds in entry.meanings:
            described = f"{_whose(kinds)}{text}" + (" Required." if entry.required else "")
            lines += [f"# {line}" for line in textwrap.wrap(described, 98, break_on_hyphens=False)]
        number = entry.schema.get("type") in {"integer", "number", "boolean"}
        value = entry.example if number and entry.example else json.dumps(entry.example)
        if entry.schema.get("type") == "array":
            value = f"[{value}]"
        lines.append(f"{'' if entry.required else '# '}{entry.name} = {value}")
    return "\n".join(lines) + "\n"


_PAGE = """# Settings

Made from the models by `python -m azpgauth.settings.reference`; do not edit.

Where a value comes from, the highest first:

1. keyword arguments of `load_settings`, `connect_from_env` and their like
2. environment variables, `AZPG_*`
3. `.env.<env>`, then `.env`, in the working directory (read, never exported)
4. a secrets directory, `AZPG_SECRETS_DIR` or `secrets_dir=`: one file for each value, named like
   its variable
5. `azpgauth.<env>.toml`, then `azpgauth.toml`; or the file that `AZPG_CONFIG` or `config=` names,
   with its neighbour for the environment
6. what other tools set, from the environment or `.env`: Azure Service Connector, then
   `DATABASE_URL`, then `PG*`, then `POSTGRES_SERVER` and `POSTGRES_DATABASE`
7. defaults

`<env>` is `AZPG_ENV`, or the argument `env=`. With `prefix="REPORTS_"`, for a second database, the
variables are `REPORTS_SERVER_HOST` and so on; 6 does not count then, and a TOML file only if
`config=` names it.
"""

_POOLS = """
How far the pool's settings reach in each driver:

| setting | psycopg, psycopg-async | psycopg2 | sqlalchemy, sqlalchemy-async | asyncpg |
|---|---|---|---|---|
| min_size | kept open | kept open, once there | no such thing | kept open |
| max_size | yes | yes | yes | yes |
| timeout | yes | yes | yes | yes |
| max_lifetime | yes | yes | yes | yes |
| max_idle | yes | yes | no such thing | yes |
"""


def settings_page() -> str:
    """The text of `schemas/settings.md`."""
    parts = [_PAGE]
    section = ""
    for entry in entries():
        if entry.section != section:
            if section == "pool":
                parts.append(_POOLS)
            section = entry.section
            parts.append(f"\n## [{section}]\n\n{_about(section)}\n")
            parts.append(
                "| TOML key | environment | type | default | meaning |\n|---|---|---|---|---|"
            )
        parts.append(_row(entry))
    parts.append("\n## What other tools set\n")
    parts.append(_FAMILIES)
    for family in FAMILIES:
        parts.append(f"\n### `{family}`\n")
        parts += [
            f"- {meaning}: " + ", ".join(f"`{name}`" for name in names)
            for meaning, names in described(family)
        ]
    return "\n".join(parts) + "\n"


_FAMILIES = """\
Each of these families describes one server. It counts as a whole, and only where its host is the
one in force: its own, where nothing above it names one, or the same that is said above it. What is
first here counts most. A family that does not count, or that names no host, lends nothing and is no
mistake; `azpgauth config` shows it as set aside, and why. Of one that counts, what is no setting
here is set aside, too. Its `sslmode` can raise ours and lower it only for kinds password and none
towards this machine. A password in it beside a credential that signs in with a token is a mistake.
Empty variables are as if they were not there."""


def _about(section: str) -> str:
    description: str = json_schema()["properties"][section]["description"]
    return description


def _row(entry: Entry) -> str:
    default = entry.schema.get("default")
    shown = "required" if entry.required else "" if default is None else f"`{default}`"
    meaning = "<br>".join(f"{_whose(kinds)}{text}" for text, kinds in entry.meanings)
    cells = (f"`{entry.name}`", f"`{entry.variable}`", _type(entry.schema), shown, meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if schema.get("format") in {"path", "password"}:
        return {"path": "path of a file", "password": "secret"}[schema["format"]]
    kind = {"integer": "whole number", "boolean": "true or false", "object": "table"}.get(
        schema.get("type", ""), schema.get("type", "")
    )
    low, high = schema.get("minimum"), schema.get("maximum")
    low = "" if low is None else f" from {low}"
    high = "" if high is None else f" to {high}"
    return f"{kind}{low}{high}" + (" over 0" if "exclusiveMinimum" in schema else "")


def generated() -> dict[str, str]:
    """The files and their texts, by their paths in the project."""
    return {
        ".env.example": dotenv_example(),
        "schemas/settings.md": settings_page(),
        "schemas/azpgauth.schema.json": json.dumps(json_schema(), indent=2) + "\n",
    }


def main() -> None:
    """Write the files."""
    root = Path(__file__).parents[2]
    for name, text in generated().items():
        (root / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
