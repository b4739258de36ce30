"""Explains where each setting came from, what it overrides, and what was set aside."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from azpgauth.runtime.printable import one_line
from azpgauth.runtime.redacted import MASK, holds_secret
from azpgauth.settings.models.secret import presentable
from azpgauth.settings.sources.layers import Dropped, Origin

if TYPE_CHECKING:
    from azpgauth.settings.merge import Merged
    from azpgauth.settings.models.sections import Settings

__all__ = ["Explained", "Explanation", "explain", "remember"]

_BY_DEFAULT = Origin("default", "default")
_BY_PROGRAM = Origin("keyword", "the program")


@dataclass(frozen=True)
class Explained:
    """One value, and where it came from.

    Attributes:
        setting: Such as ``pool.max_size``.
        value: The value; of a secret, a mask.
        origin: Where it came from.
        shadowed: The values of lower rank, the highest first, with their origins.
        reason: Why it was set aside; None where it was not.
    """

    setting: str
    value: Any
    origin: Origin
    shadowed: tuple[tuple[Any, Origin], ...] = ()
    reason: str | None = None

    def __str__(self) -> str:
        why = self.reason or self.origin
        lines = [
            f"{one_line(self.setting)} = {one_line(str(self.value))}    ({one_line(str(why))})"
        ]
        if self.reason is not None:
            lines.append(f"    from {one_line(str(self.origin))}")
        lines += [
            f"    overrides {one_line(str(value))} from {one_line(str(origin))}"
            for value, origin in self.shadowed
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Explanation:
    """All of it; as text, for people.

    Attributes:
        settings: Every setting that holds, in the order of the models.
        dropped: What a source said and what does not count: fields of another credential kind, what
            other tools set for another server, an sslmode that would weaken ours, what is no
            setting here.
    """

    settings: tuple[Explained, ...]
    dropped: tuple[Explained, ...] = ()

    def __getitem__(self, setting: str) -> Explained:
        for each in self.settings:
            if each.setting == setting:
                return each
        raise KeyError(setting)

    def masked(self) -> dict[str, dict[str, Any]]:
        """The settings as sections of values, with masks for secrets: fit for a log."""
        sections: dict[str, dict[str, Any]] = {}
        for each in self.settings:
            section, _, name = each.setting.partition(".")
            sections.setdefault(section, {})[name] = each.value
        return sections

    def set_aside(self) -> list[str]:
        """What other tools set and does not count, in a line for each reason."""
        reasons: dict[str, dict[str, None]] = {}
        for each in self.dropped:
            if each.origin.kind == "convention":
                reasons.setdefault(str(each.reason), {})[str(each.origin)] = None
        return [f"{', '.join(origins)}: {reason}" for reason, origins in reasons.items()]

    def __str__(self) -> str:
        lines = [str(each) for each in self.settings]
        if self.dropped:
            lines += ["set aside:", *(str(each) for each in self.dropped)]
        return "\n".join(lines)


def explain(settings: Settings) -> Explanation:
    """Where each of these settings came from.

    Args:
        settings: From `load_settings`. Of settings made otherwise, or copied, it is known only
            which are defaults.

    Example:
        >>> settings = load_settings()  # doctest: +SKIP
        >>> explain(settings)["server.port"].origin.where  # doctest: +SKIP
        'environment variable AZPG_SERVER_PORT'
    """
    known = _known.get(id(settings))
    if known is not None and known[0]() is settings:
        return known[1]
    return _explained(settings, None)


def remember(settings: Settings, merged: Merged) -> None:
    """Keep where settings came from, for as long as they live."""
    key = id(settings)
    reference = weakref.ref(settings, lambda _: _known.pop(key, None))
    _known[key] = (reference, _explained(settings, merged))


# By identity: settings that are equal may come from different places.
_known: dict[int, tuple[weakref.ref[Settings], Explanation]] = {}


def _explained(settings: Settings, merged: Merged | None) -> Explanation:
    found = []
    for section in type(settings).model_fields:
        part = getattr(settings, section)
        for name in type(part).model_fields:
            values = [] if merged is None else merged.values.get((section, name), [])
            given = merged is None and name in part.model_fields_set
            found.append(
                Explained(
                    f"{section}.{name}",
                    presentable(section, name, getattr(part, name)),
                    values[0].origin if values else _BY_PROGRAM if given else _BY_DEFAULT,
                    tuple(
                        (presentable(section, name, value.raw), value.origin)
                        for value in values[1:]
                    ),
                )
            )
    dropped = () if merged is None else merged.dropped
    return Explanation(
        tuple(found),
        tuple(
            Explained(
                ".".join(filter(None, each.key)),
                _aside(each),
                each.value.origin,
                reason=each.reason,
            )
            for each in dropped
        ),
    )


def _aside(each: Dropped) -> Any:
    section, name = each.key
    if not section and holds_secret(f"{name}={each.value.raw}"):
        return MASK
    return presentable(section, name, each.value.raw)
