"""Describes what one source says: values by setting, each with its origin. No I/O here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from azpgauth.runtime.printable import escaped
from azpgauth.runtime.redacted import scrubbed
from azpgauth.settings.models.sections import SECTIONS

if TYPE_CHECKING:
    from azpgauth.errors import Problem

__all__ = ["PREFIX", "Dropped", "Key", "Layer", "Origin", "Value", "variable"]

PREFIX = "AZPG_"

Key = tuple[str, str]
"""Section and field."""

Kind = Literal["keyword", "environment", "dotenv", "secret", "toml", "convention", "default"]


@dataclass(frozen=True)
class Origin:
    """Where a value came from.

    Attributes:
        kind: What kind of source that is.
        where: What to edit to change the value: a variable, a file and what stands in it, ….
        name: The variable, if it is one, or what part of a variable.
    """

    kind: Kind
    where: str
    name: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        # Names are typed, too: of a file, of a table, of a field.
        object.__setattr__(self, "where", scrubbed(self.where))

    def __str__(self) -> str:
        return escaped(self.where)


@dataclass(frozen=True)
class Value:
    """A raw value; its repr does not show it, for it may be a secret.

    Attributes:
        raw: As the source has it; a text without the white space around it, which `echo`, editors
            and portals add.
        origin: Where that is.
    """

    raw: Any = field(repr=False)
    origin: Origin

    def __post_init__(self) -> None:
        if isinstance(self.raw, str):
            object.__setattr__(self, "raw", self.raw.strip())


@dataclass(frozen=True)
class Dropped:
    """A value that was set aside, not for its rank but for what it is.

    Attributes:
        key: Its section and field; of what is no setting here, "" and the name that others have.
        value: The value.
        reason: Why it does not count.
    """

    key: Key
    value: Value
    reason: str


@dataclass
class Layer:
    """What one source says.

    Attributes:
        values: Its values.
        problems: What is wrong with it.
        unreadable: Whether there may be more that could not be read.
    """

    values: dict[Key, Value] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unreadable: bool = False


def variable(section: str, name: str, prefix: str = PREFIX) -> str:
    """The environment variable of a setting."""
    return f"{prefix}{section}_{name}".upper()


def variables(prefix: str = PREFIX) -> dict[str, Key]:
    """The settings by their environment variables."""
    return {
        variable(section, name, prefix): (section, name)
        for section in SECTIONS
        for name in SECTIONS[section]
    }
