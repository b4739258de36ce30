"""What may hold a secret, kept out of reports: a wrapper for objects, and masks for texts. Pure."""

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

    def __repr__(self) -> str:
        if isinstance(self.held, Mapping):
            return f"<keywords {', '.join(masked(str(name)) for name in self.held)}>"
        return f"<{type(self.held).__name__} {MASK}>"

    def __reduce__(self) -> Any:
        raise TypeError("what is redacted is not pickled")


_NAME = (
    r"[\w-]*(?:passw(?:or)?d|passwort|passphrase|pass|pwd|secret|token|signature|sig"
    r"|(?:access|account|api|shared|private|master)[ _-]?(?:access)?[ _-]?key)[\w-]*"
)
_ANY_CASE = re.IGNORECASE | re.DOTALL
_PAIR = re.compile(rf"(?P<name>(?<![\w-]){_NAME})(?P<sign>\s*=\s*)(?=\S).*", _ANY_CASE)
_PAIR_OF_ANY_FORM = re.compile(rf"""(?<![\w-]){_NAME}["']?\s*(?:=>|[:=])\s*\S""", _ANY_CASE)
_PEM = re.compile(r"-----BEGIN.*", _ANY_CASE)
# What begins like this is a header of JSON in base64; a part of one is masked as well.
_JWT = re.compile(r"eyJ[\w-]{10,}(?:\.[\w.-]*)?")
# https://learn.microsoft.com/purview/sit-defn-client-secret-api-key
_CLIENT_SECRET = re.compile(r"(?<![\w~.-])[\w~.-]{3}\dQ~[\w~.-]{31,34}(?![\w~.-])")
_USER_IN_URL = re.compile(r":/{1,2}[^\s/?#'\"]*:?\S*@")
_USER_AND_PASSWORD = re.compile(r"[^\s'\"({\[<]+:\S*@")
_SUSPECT = re.compile(r"[=@]|-----BEGIN|eyJ|Q~")
_PLACE = re.compile(r"[\w.,:/\[\]-]*")


def scrubbed(text: str) -> str:
    """A sentence that may echo what somebody typed, without what looks like a secret there.

    Args:
        text: The sentence.
    """
    if not _SUSPECT.search(text):
        return text
    text = _PEM.sub(f"-----BEGIN {MASK}", text)
    text = _CLIENT_SECRET.sub(MASK, _JWT.sub(MASK, text))
    text = _USER_IN_URL.sub(f"://{MASK}@", text)
    text = _USER_AND_PASSWORD.sub(f"{MASK}@", text)
    # Where a secret ends is not known for certain: nothing after its sign is shown.
    return _PAIR.sub(rf"\g<name>\g<sign>{MASK}", text)


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
    place = value.rpartition("@")[2]
    if place == value or any(map(_PAIR_OF_ANY_FORM.search, _readings(value))):
        return MASK  # where a secret ends is not known: an @ may be part of it
    return f"{MASK}@{place}" if _PLACE.fullmatch(place) and not holds_secret(place) else MASK


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
    if "-----BEGIN" in text or _JWT.search(text) or _CLIENT_SECRET.search(text):
        return True
    before, at, _ = text.rpartition("@")
    if at and ":" in before:
        return True
    return _PAIR_OF_ANY_FORM.search(text) is not None
