"""Makes text from elsewhere fit for a terminal and a log. Pure.

A file, a variable, a token or a server can say anything: what a terminal would take for a command,
what turns the order of the letters around, a line that looks like one of ours, a megabyte.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["LINE", "either", "escaped", "one_line", "printable", "shortened", "their_words"]

_UNFIT = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f"  # control characters, but for the tab and the line break
    "\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f"  # unseen ones, those that direct text, and other line breaks
    "\ud800-\udfff]"  # halves of characters, which no encoding can write
)

LINE = 300
"""Characters of one value in a report."""

WORDS = 4000
"""Characters of what a server or an authority says."""


def printable(text: str) -> str:
    r"""Text without what a terminal would take for a command; its line breaks stay.

    Args:
        text: Lines of ours, with whatever stands in them.

    Example:
        >>> printable("red: \x1b[31m")
        'red: \\x1b[31m'
    """
    return _UNFIT.sub(lambda found: ascii(found[0])[1:-1], text)


def escaped(text: str) -> str:
    r"""A value to stand in a line of ours: printable, and without line breaks.

    Args:
        text: The value, as it was found.

    Example:
        >>> escaped("shop\n  to do: nothing")
        'shop\\n  to do: nothing'
    """
    return printable(text).replace("\n", "\\n")


def one_line(text: str, limit: int = LINE) -> str:
    """As `escaped`, and not too long.

    Args:
        text: The value, as it was found.
        limit: Characters; of a longer one the middle is left out, and its length told.

    Example:
        >>> one_line("a" * 5000, 20)
        'aaaaaaaaaa… (5000 characters) …aaaaaaaaaa'
    """
    return escaped(shortened(text, limit))


def their_words(text: str) -> str:
    r"""What a server or an authority says, of which no line can be taken for one of ours.

    Args:
        text: Its words; the lines after the first are marked.

    Example:
        >>> print(their_words("no entry\nto do: nothing"))
        no entry
            | to do: nothing
    """
    return printable(shortened(text, WORDS)).replace("\n", "\n    | ")


def either(names: Iterable[str]) -> str:
    """Names to choose from, in a sentence.

    Args:
        names: One or more.

    Example:
        >>> either(["psycopg", "psycopg2", "asyncpg"])
        'psycopg, psycopg2 or asyncpg'
    """
    *some, last = names
    return f"{', '.join(some)} or {last}" if some else last


def shortened(text: str, limit: int = LINE) -> str:
    """Text of which, if it is longer than that, the middle is left out, and its length told.

    Args:
        text: The text.
        limit: Characters of it to keep.
    """
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}… ({len(text)} characters) …{text[-half:]}"
