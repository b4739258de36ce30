"""Makes text from elsewhere safe to show: no command to a terminal, no report of any length.

Files, variables, tokens and servers say what they like; what a person sees of it passes here. Pure.
"""

from __future__ import annotations

import re

__all__ = ["one_line", "printable", "shortened"]

LONGEST = 300
"""Characters of one value, or of one name, that a report shows."""

# Control characters but the line break and the tab; what turns the direction of text, which hides
# what stands there; other line breaks; halves of characters, which cannot be encoded.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""The text with everything escaped that a terminal could take for a command.

    Example:
        >>> printable("a\x1b[2Jb")
        'a\\x1b[2Jb'
    """
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)


def one_line(text: str) -> str:
    """As `printable`, and line breaks are escaped too: a value forges no line of a report."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def shortened(text: str) -> str:
    """The text, cut where it is too long for a report, and with its length then."""
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}… ({len(text)} characters)"
