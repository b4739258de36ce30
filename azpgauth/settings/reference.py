"""Every setting, told for people: `.env.example`, made from the models' own descriptions.

>>> python -m azpgauth.settings.reference  # doctest: +SKIP

writes it anew, in the root of the project.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from azpgauth.settings.credential import KINDS
from azpgauth.settings.layers import variable
from azpgauth.settings.models import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

__all__ = ["Entry", "dotenv_example", "entries"]


@dataclass(frozen=True)
class Entry:
    """One setting.

    Attributes:
        section: Its section.
        name: Its name there.
        kinds: For the credential's: which kinds have it, by what they say of it.
        description: What it means.
        required: Whether there must be one.
        example: A value to show.
    """

    section: str
    name: str
    kinds: dict[str, tuple[str, ...]]
    description: str
    required: bool
    example: str

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return variable(self.section, self.name)


def entries() -> Iterator[Entry]:
    """All settings, in the order of the models."""
    for section, info in Settings.model_fields.items():
        if section == "credential":
            yield from _of_credential()
        else:
            model: type[BaseModel] = info.annotation  # type: ignore[assignment]
            for name, field in model.model_fields.items():
                yield Entry(
                    section,
                    name,
                    {},
                    field.description or "",
                    field.is_required(),
                    _example(field),
                )


def _of_credential() -> Iterator[Entry]:
    kinds = ", ".join(KINDS)
    yield Entry("credential", "kind", {}, f"How to sign in: {kinds}.", False, "default")
    names = dict.fromkeys(name for model in KINDS.values() for name in model.model_fields)
    for name in names:
        if name == "kind":
            continue
        having = {kind: model for kind, model in KINDS.items() if name in model.model_fields}
        said: dict[str, list[str]] = {}
        for kind, model in having.items():
            said.setdefault(model.model_fields[name].description or "", []).append(kind)
        first = next(iter(having.values())).model_fields[name]
        told = {text: tuple(kinds) for text, kinds in said.items()}
        yield Entry("credential", name, told, "", False, _example(first))


def _example(field: FieldInfo) -> str:
    if field.examples:
        return str(field.examples[0])
    if field.default is not None and not field.is_required():
        return str(field.default)
    return "true" if bool in get_args(field.annotation) else ""


_ALL_WITH_TOKENS = len(KINDS) - 2


def dotenv_example() -> str:
    """The text of `.env.example`."""
    lines = [
        "# Copy to .env, and remove the first # of the lines you need. Only AZPG_* is read from it."
    ]
    section = ""
    for entry in entries():
        if entry.section != section:
            section = entry.section
            lines.append("")
        lines += _comments(entry)
        mark = "" if entry.required else "#"
        lines.append(f"{mark}{entry.variable}={entry.example}")
    return "\n".join(lines) + "\n"


def _comments(entry: Entry) -> list[str]:
    if not entry.kinds:
        text = entry.description + (" Required." if entry.required else "")
        return _wrapped(text)
    lines = []
    for text, kinds in entry.kinds.items():
        whose = "all with tokens" if len(kinds) == _ALL_WITH_TOKENS else ", ".join(kinds)
        lines += _wrapped(f"{whose}: {text}")
    return lines


def _wrapped(text: str) -> list[str]:
    wrap: Any = textwrap.wrap
    return [f"# {line}" for line in wrap(text, 98, break_on_hyphens=False)]


def main() -> None:
    """Write the file."""
    root = Path(__file__).parents[2]
    (root / ".env.example").write_text(dotenv_example(), encoding="utf-8")


if __name__ == "__main__":
    main()
