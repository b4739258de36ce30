"""Merges layers into one value for each setting; keeps what it overrides. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from azpgauth.errors import Problem
from azpgauth.runtime.redacted import masked
from azpgauth.settings.models.credential import KINDS, TOKENLESS, fields_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from azpgauth.settings.sources.layers import Key, Layer, Value

__all__ = ["Dropped", "Merged", "merge"]

_MODES = ("allow", "disable", "prefer", "require", "verify-ca", "verify-full")
"""libpq's, the weakest first (`allow`, which nobody can set here, counts as none): https://www.postgresql.org/docs/current/libpq-ssl.html"""

_KIND = ("credential", "kind")
_MODE = ("server", "sslmode")


@dataclass(frozen=True)
class Dropped:
    """A value that was set aside, not for its rank but for what it is.

    Attributes:
        key: Its section and field.
        value: The value.
        reason: Why it does not count.
    """

    key: Key
    value: Value
    reason: str


@dataclass
class Merged:
    """What the layers come to.

    Attributes:
        values: For each setting its values by rank: the first one holds, the others are shadowed.
        dropped: What was set aside.
        problems: What is wrong with the layers, and between them.
        unreadable: Whether there may be more that could not be read.
    """

    values: dict[Key, list[Value]] = field(default_factory=dict)
    dropped: list[Dropped] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unreadable: bool = False

    def take_problems(self, layer: Layer) -> None:
        """What is wrong with a layer is wrong here."""
        self.problems += layer.problems
        self.unreadable |= layer.unreadable


def merge(layers: Sequence[Layer], conventions: Sequence[Layer], default_mode: str) -> Merged:
    """Put layers together.

    Args:
        layers: Our own, the highest first.
        conventions: What other tools set; below all of ours.
        default_mode: The sslmode that holds if nobody says anything.
    """
    merged = Merged()
    rank, kind = _kind([*layers, *conventions])
    # A kind that could not be read, or that there is not, is not known: it contradicts nothing.
    known = kind in KINDS and not any(layer.unreadable for layer in layers)
    for number, layer in enumerate([*layers, *conventions]):
        if number < len(layers):
            merged.take_problems(layer)
        for key, value in layer.values.items():
            foreign = number >= len(layers)
            if foreign and _dealt_with(merged, key, value, kind if known else "", default_mode):
                continue
            lower = number > rank or foreign
            if key[0] == "credential" and lower and key[1] not in fields_of(kind):
                merged.dropped.append(Dropped(key, value, f"is not for kind {masked(kind)}"))
            else:
                merged.values.setdefault(key, []).append(value)
    if ("server", "host") not in merged.values:  # else they were not needed
        for layer in conventions:
            merged.take_problems(layer)
    return merged


def _kind(layers: Sequence[Layer]) -> tuple[int, str]:
    """The credential's kind, and which layer names it: the highest that does.

    So one file for production and one variable on a laptop suffice: what lower layers say for
    another kind is set aside. In that layer, and above it, a field of another kind is a mistake.
    """
    for rank, layer in enumerate(layers):
        if _KIND in layer.values:
            return rank, str(layer.values[_KIND].raw)
    return len(layers), "default"


def _dealt_with(merged: Merged, key: Key, value: Value, kind: str, default_mode: str) -> bool:
    """Whether what another tool set is no ordinary value: then it is put where it belongs here."""
    if key == _MODE:
        _put_mode(merged, value, default_mode)
        return True
    if key == ("credential", "password") and kind and kind not in TOKENLESS:
        merged.problems.append(
            Problem(
                "credential.password",
                str(value.origin),
                f"is a password beside credential.kind {masked(kind)}, which signs in with a token",
                "remove the password there, or set AZPG_CREDENTIAL_KIND=password to use it",
            )
        )
        return True
    return False


def _put_mode(merged: Merged, value: Value, default: str) -> None:
    mode = str(value.raw)
    if mode not in _MODES:
        merged.problems.append(
            Problem(
                "server.sslmode",
                str(value.origin),
                "is not an sslmode",
                f"use one of {', '.join(reversed(_MODES[1:]))}",
                repr(masked(mode)),
            )
        )
        return
    there = merged.values.get(_MODE)
    ours = str(there[0].raw) if there else default
    if ours not in _MODES or _MODES.index(mode) <= _MODES.index(ours):
        why = f"does not raise {masked(ours)}, and what other tools set cannot lower it"
        merged.dropped.append(Dropped(_MODE, value, why))
    else:  # above ours: it is the one rule in which the lower rank wins
        merged.values[_MODE] = [value, *(there or ())]
