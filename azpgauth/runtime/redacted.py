"""Keeps secrets out of reports: wraps objects that may hold one, and masks texts. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Generic, TypeVar
from unicodedata import normalize
from urllib.parse import unquote, unquote_plus

__all__ = ["MASK", "Redacted", "holds_secret", "masked", "scrubbed"]

MASK = "**********"

T = TypeVar("T")


class Redacted(Generic[T]):
    """Holds an object of which a report that shows locals shows no content.

    A dict with a repr of its own would not do: error trackers walk mappings, item by item.

    Args:
        held: The object. Of a mapping, the names are shown, as those of keyword arguments are.
    """

    __slots__ = ("held",)

    def __init__(self, held: T) -> None:
        self.held = held

    @classmethod
    def of(cls, held: T | None) -> Redacted[T] | None:
        """The object wrapped, if there is one."""
        return None if held is None else cls(held)

    def __repr__(self) -> str:
        if isinstance(self.held, Mapping):
            return f"<keywords {', '.join(masked(str(name)) for name in self.held)}>"
        return f"<{type(self.held).__name__} {MASK}>"

    def __reduce__(self) -> Any:
        raise TypeError("what is redacted is not pickled")


# As texts: they are compiled by the first mistake, and most programs make none.
# Bounded, so that a long text is looked at in one go.
_NAME = (
    r"(?:passw(?:or)?[dt]|passphrase|pass|pwd|secret|token|signature|(?<![a-z])sig(?![a-z])"
    r"|(?:access|account|api|shared|private|master)[ _-]?(?:access)?[ _-]?key)[\w-]{0,100}"
)
_PAIR = rf"(?is)(?P<name>{_NAME})(?P<sign>\s*=\s*)(?=\S).*"
# Before a colon the name is whole, and no port follows: `passport-db:5432` is a host.
_WHOLE = (
    r"(?<![a-z0-9-])(?:[a-z]{0,20}_)?(?:pg|ssl)?"
    r"(?:password|passwd|passphrase|pass|pwd|(?:client[_ -]?)?secret|(?:access[_ -]?)?token"
    r"|signature|(?:access|account|api|shared|private|master)[ _-]?(?:access)?[ _-]?key)"
)
_PAIR_OF_ANY_FORM = rf"""(?i)(?:{_NAME}["']?\s*=>?|{_WHOLE}["']?\s*:(?!\d+(?:[,/]|$)))\s*\S"""
_PEM = r"(?s)-----BEGIN.*"
# What begins like this is a header of JSON in base64; a part of one is masked as well.
_JWT = r"(?<![\w-])eyJ[\w-]{10,}(?:\.[\w.-]*)?"
# https://learn.microsoft.com/purview/sit-defn-client-secret-api-key
_CLIENT_SECRET = r"(?<![\w~.-])[\w~.-]{3}\dQ~[\w~.-]{31,34}(?![\w~.-])"  # noqa: S105 - a pattern
_SIGNS = ("=", "@", "-----BEGIN", "eyJ", "Q~")
"""Without any of these, a sentence has no secret."""

_PLACE = r"[\w.,:/\[\]-]*"


def scrubbed(text: str) -> str:
    """A sentence that may echo what somebody typed, without what looks like a secret there.

    Args:
        text: The sentence.
    """
    if not any(sign in text for sign in _SIGNS):
        return text
    text = re.sub(_PEM, f"-----BEGIN {MASK}", text)
    text = re.sub(_CLIENT_SECRET, MASK, re.sub(_JWT, MASK, text))
    text = re.sub(r"\S+", _without_user, text)
    # Where a secret ends is not known for certain: nothing after its sign is shown.
    return re.sub(_PAIR, rf"\g<name>\g<sign>{MASK}", text)


def masked(value: str) -> str:
    """A value that somebody typed, as reports may show it.

    Connection strings, URLs with user information, keys and tokens come to be typed anywhere.

    Args:
        value: The value, whole.
    """
    if not holds_secret(value):
        return value
    if "-----BEGIN" in value:
        return f"-----BEGIN {MASK}"
    before, _, place = value.rpartition("@")
    # Where another secret ends is not known: an @ may be part of it.
    if before and not any(map(_holds_more, _readings(value))) and re.fullmatch(_PLACE, place):
        return f"{MASK}@{place}"
    return MASK


def _without_user(word: re.Match[str]) -> str:
    before, at, place = word[0].rpartition("@")
    if not at or ":" not in before:
        return word[0]
    opening = before[: len(before) - len(before.lstrip("'\"({[<"))]
    return f"{opening}{MASK}@{place}"


def holds_secret(value: str) -> bool:
    """Whether a value looks like a connection string with a secret, or like a secret itself.

    Args:
        value: The value, whole.
    """
    return any(map(_holds_secret, _readings(value)))


def _readings(value: str) -> set[str]:
    """The text as it is, and as whoever decodes or normalises it would read it."""
    found: set[str] = set()
    left = [value]
    while left and len(found) < _READINGS:
        text = left.pop()
        if text not in found:
            found.add(text)
            left += [unquote(text), unquote_plus(text), normalize("NFKC", text)]
    return found


_READINGS = 12


def _holds_secret(text: str) -> bool:
    before, at, _ = text.rpartition("@")
    return bool(at and ":" in before) or _holds_more(text)


def _holds_more(text: str) -> bool:
    """Whether there is a secret in it that is not that of a URL's user."""
    kinds = (_PEM, _JWT, _CLIENT_SECRET, _PAIR_OF_ANY_FORM)
    return any(re.search(kind, text) is not None for kind in kinds)
