"""Reads and writes a session's options, such as `search_path`, in the forms that there are. Pure.

libpq's `options` are words, separated by blanks, in which a backslash makes the next character an
ordinary one: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-OPTIONS
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["alter_role", "as_words", "is_option", "parsed"]

# C's isspace, by which the server splits: Python's `\s` has blanks of other scripts, too.
_BLANK = r" \t\n\r\f\v"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)*")


_OF_CONNECTIONS = frozenset({"user", "database", "options", "replication"})
"""What a connection begins with besides: asyncpg would take one of these for that."""


def is_option(name: str) -> bool:
    """Whether PostgreSQL could have a parameter of this name; an extension's has a dot in it."""
    return _NAME.fullmatch(name) is not None and name.lower() not in _OF_CONNECTIONS


def parsed(text: str) -> dict[str, str]:
    """The options in libpq's words: `-c name=value`, `-cname=value` or `--name=value`.

    Args:
        text: The words.

    Raises:
        ValueError: A word is none of these; it is not in the message.

    Example:
        >>> parsed("-c search_path=shop,public --statement-timeout=5s")
        {'search_path': 'shop,public', 'statement_timeout': '5s'}
    """
    found: dict[str, str] = {}
    words = _words(text)
    for word in words:
        if word == "-c":
            setting = next(words, "")
        elif word.startswith(("--", "-c")):
            setting = word[2:]
        else:
            raise ValueError("has a word that is not an option")
        name, sign, value = setting.partition("=")
        name = name.replace("-", "_")
        if not sign or not is_option(name):
            raise ValueError("has an option without name or value")
        found[name] = value
    return found


def _words(text: str) -> Iterator[str]:
    for match in re.finditer(rf"(?:\\.|[^{_BLANK}\\])+", text, re.DOTALL):
        yield re.sub(r"(?s)\\(.)", r"\1", match[0])


def as_words(options: Mapping[str, str]) -> str:
    r"""Options as libpq's words.

    Args:
        options: Values by name.

    Example:
        >>> as_words({"search_path": "shop, public"})
        '-c search_path=shop,\\ public'
    """
    return " ".join(
        f"-c {name}=" + re.sub(rf"([{_BLANK}\\])", r"\\\1", value)
        for name, value in options.items()
    )


def alter_role(options: Mapping[str, str], role: str) -> str:
    r"""The statements that give a role the options for good.

    Args:
        options: Values by name.
        role: Whose sessions.

    Example:
        >>> alter_role({"statement_timeout": "5s"}, "shop-app")
        'alter role "shop-app" set statement_timeout = \'5s\''
    """
    quoted = role.replace('"', '""')
    return "; ".join(
        f'alter role "{quoted}" set {_quoted(name)} = {_value(name, value)}'
        for name, value in options.items()
    )


def _quoted(name: str) -> str:
    # What follows a dot could be one of SQL's own words.
    return ".".join(f'"{part}"' for part in name.split(".")) if "." in name else name


def _value(name: str, value: str) -> str:
    # A list is given as a list: in quotes, it would be one name with a comma in it.
    parts = [value]
    if name.lower() in _LISTS:
        found = re.findall(r'\s*("(?:[^"]|"")*"|[^,"]+)\s*(?:,|$)', value)
        parts = [_name_in(part.strip()) for part in found] or [value]
    return ", ".join("'" + part.replace("'", "''") + "'" for part in parts)


def _name_in(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part


_LISTS = frozenset(
    {
        *("search_path", "temp_tablespaces"),
        *("session_preload_libraries", "local_preload_libraries"),
    }
)
