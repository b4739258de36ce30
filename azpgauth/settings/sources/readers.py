"""Reads each source of settings into a `Layer` whose values know their origin.

To add a source, write a function that gives a `Layer` (and what it found wrong), and put it in its
rank in `load.py`.
"""

from __future__ import annotations

import codecs
import encodings.utf_8_sig  # noqa: F401 - else the first file that is read imports it
from collections.abc import Mapping
from difflib import get_close_matches
from io import StringIO
from typing import TYPE_CHECKING, Any

from dotenv.main import resolve_variables
from dotenv.parser import parse_stream
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from azpgauth.errors import SHOWN, Problem
from azpgauth.runtime.importing import guard
from azpgauth.runtime.redacted import MASK, masked
from azpgauth.settings.models.sections import SECTIONS
from azpgauth.settings.sources.files import CONTROLS
from azpgauth.settings.sources.layers import PREFIX, Key, Layer, Origin, Value, variable, variables

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = [
    "keyword_layer",
    "read_dotenv",
    "read_secrets",
    "toml_layer",
    "unknown",
    "variable_layer",
]


class _Names(BaseSettings):
    """How names of variables map to sections; its values stay raw."""

    model_config = SettingsConfigDict(env_nested_delimiter="_", env_nested_max_split=1)

    server: dict[str, str] = {}
    database: dict[str, str] = {}
    driver: dict[str, str] = {}
    pool: dict[str, str] = {}
    credential: dict[str, str] = {}


def keyword_layer(sections: Mapping[str, Any], keywords: Iterable[str]) -> Layer:
    """The keyword arguments of a call.

    Args:
        sections: The arguments that are not those of `keywords`.
        keywords: The other arguments that the call knows.
    """
    layer = Layer()
    for section, value in sections.items():
        given = {"name": value} if section == "driver" and isinstance(value, str) else value
        shown = masked(str(section))
        where = f"keyword argument {shown}="
        if section not in SECTIONS:
            known = sorted({*keywords, *SECTIONS})
            near = _near(section, known)
            action = f"did you mean {near[0]}=?" if near else f"those that exist: {_listed(known)}"
            layer.problems.append(Problem(shown, where, "there is no such keyword", action))
        elif not isinstance(given, Mapping):
            reason = f"is a {type(given).__name__} where a mapping is needed"
            action = f"write {section}={{…}} with {_listed(SECTIONS[section])}"
            layer.problems.append(Problem(section, where, reason, action))
        else:
            for name, raw in given.items():
                shown = repr(masked(name) if isinstance(name, str) else MASK)
                origin = Origin("keyword", f"keyword argument {section}={{{shown}: …}}")
                _put(layer, section, name, Value(raw, origin), f"{section}[{shown}]")
    return layer


def variable_layer(found: Mapping[str, Value], prefix: str = PREFIX) -> Layer:
    """Variables, from wherever they were read.

    Args:
        found: Variables of any name, with their values; those of another prefix are not looked at.
        prefix: What ours begin with.
    """
    layer = Layer()
    names = variables(prefix)
    ours: dict[str, Value] = {}
    for name, value in found.items():
        upper = name.upper()
        if not upper.startswith(prefix.upper()) or upper in CONTROLS:
            continue
        if upper not in names:
            if not _meant(upper, names, prefix):
                continue
            if len(layer.problems) < SHOWN:
                problem = _unknown_variable(name, str(value.origin), names, prefix)
            else:  # no report shows it, and looking for what was meant takes a while
                problem = unknown(name, str(value.origin), "", names, "names")
            layer.problems.append(problem)
            continue
        short = upper.removeprefix(prefix.upper()).lower()
        if name == upper or short not in ours:  # of two spellings, the usual one
            ours[short] = value
        if not str(value.raw).strip():
            section, setting = names[upper]
            layer.problems.append(empty(f"{section}.{setting}", str(value.origin)))
    # pydantic-settings splits the names; whatever it would make of the values is not asked for.
    source = EnvSettingsSource(_Names)
    source.env_vars = {name: str(value.raw) for name, value in ours.items()}
    for section, fields in source().items():
        for name in fields:
            layer.values[section, name] = ours[f"{section}_{name}"]
    return layer


def _meant(name: str, names: Mapping[str, Any], prefix: str) -> bool:
    """Whether a name was meant for us: all of AZPG_* are, of another prefix what looks like it."""
    if prefix == PREFIX:
        return True
    return bool(_near(name, names, 0.9))


def _near(name: str, known: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """The name that was probably meant, if any was: nobody means a name by a long text."""
    return get_close_matches(name, sorted(known), 1, cutoff) if 0 < len(name) <= _LONG else []


_LONG = 100


_COMPARED = 100
"""Unknown names that are compared with those that exist: it takes a millisecond each."""

_ALIASES: dict[str, Key] = {
    "USER": ("database", "user"),
    "USERNAME": ("database", "user"),
    "DATABASE": ("database", "name"),
    "DBNAME": ("database", "name"),
    "SERVER": ("server", "host"),
    "SECRET": ("credential", "client_secret"),
    "TYPE": ("credential", "kind"),
}
"""What people call some settings."""

_CONTROL_ALIASES = {
    "ENVIRONMENT": "AZPG_ENV",
    "CONFIG_FILE": "AZPG_CONFIG",
    "SECRETS": "AZPG_SECRETS_DIR",
}


def _unknown_variable(name: str, origin: str, names: Mapping[str, Key], prefix: str) -> Problem:
    """A variable that there is not: its field may be that of another section."""
    upper = name.upper()
    short = upper.removeprefix(prefix.upper())
    words = (short, short.partition("_")[2])
    known = {**names, **dict.fromkeys(CONTROLS if prefix == PREFIX else ())}
    near = _near(upper, known, 0.85)
    fields = {field.upper(): (section, field) for section, field in reversed(list(names.values()))}
    for word in words:
        if not near and prefix == PREFIX and word in _CONTROL_ALIASES:
            near = [_CONTROL_ALIASES[word]]
        if not near and (meant := _ALIASES.get(word) or fields.get(word)):
            near = [variable(*meant, prefix)]
    if near:
        return Problem(name, origin, "there is no such setting", f"did you mean {near[0]}?")
    return unknown(name, origin, upper, names, "names")


def read_dotenv(path: Path, prefix: str = PREFIX) -> tuple[dict[str, Value], Layer]:
    """The variables of one `.env` file, none of them exported; and what is wrong with it.

    They are what `load_dotenv()` would set: `${VAR}` is replaced from the environment, then from
    the file. A line that cannot be read is a mistake only where it speaks of our settings.

    Args:
        path: The file.
        prefix: What our variables begin with.
    """
    try:
        bindings = list(parse_stream(StringIO(decoded(path.read_bytes()))))
    except OSError as exc:
        return {}, Layer(problems=[unreadable(path, exc)], unreadable=True)
    pairs = [(binding.key, binding.value) for binding in bindings if binding.key]
    found = {
        name: Value(value or "", Origin("dotenv", f"{path}, {name}", name))
        for name, value in resolve_variables(pairs, override=False).items()
        # A name alone sets nothing; of ours, it is told as one that is empty.
        if value is not None or name.upper().startswith(prefix.upper())
    }
    layer = Layer()
    for binding in bindings:
        if binding.error and prefix.upper() in binding.original.string.upper():
            # Its text may hold a secret.
            reason, action = "cannot be read", "write NAME=value, or quote the value"
            where = f"{path}, line {binding.original.line}"
            layer.problems.append(Problem(str(path), where, reason, action))
            layer.unreadable = True
    return found, layer


def decoded(content: bytes) -> str:
    """The text of a file that editors of any system wrote.

    UTF-16 is what PowerShell's `>` writes. What is not UTF-8 either is kept as half characters, so
    that only what is read of it is a mistake.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content.decode(
                encoding, "surrogateescape" if encoding == "utf-8-sig" else "replace"
            )
    head = content[:_LOOKED_AT]
    for encoding, halves in (("utf-16-le", head[1::2]), ("utf-16-be", head[::2])):
        if 2 * halves.count(0) > len(halves):  # without a mark, but in letters of ASCII
            return content.decode(encoding, "replace")
    return content.decode("utf-8", "surrogateescape")


_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like UTF-16's
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LOOKED_AT = 100


def read_secrets(folder: Path, prefix: str = PREFIX) -> tuple[dict[str, Value], Layer]:
    """The files of a secrets directory, as variables; and what is wrong with it.

    Args:
        folder: The directory; each file is named like its variable, in any case.
        prefix: What the names begin with; other files are not read.
    """
    found: dict[str, Value] = {}
    layer = Layer()
    try:
        paths = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as exc:
        return {}, Layer(problems=[unreadable(folder, exc)], unreadable=True)
    for path in paths:
        if path.name.upper().startswith(prefix.upper()):
            try:
                text = decoded(path.read_bytes())
            except OSError as exc:
                layer.problems.append(unreadable(path, exc))
                layer.unreadable = True
            else:
                found[path.name] = Value(text, Origin("secret", f"file {path}", path.name))
    return found, layer


def toml_layer(path: Path) -> Layer:
    """One TOML file, a table for each section."""
    try:
        with guard():  # the first one imports the parser
            tables = TomlConfigSettingsSource(_Names, toml_file=path).toml_data
    # TOMLDecodeError and UnicodeDecodeError are ValueErrors.
    except (OSError, ValueError, RecursionError) as exc:
        return Layer(problems=[unreadable(path, exc)], unreadable=True)
    layer = Layer()
    for section, table in tables.items():
        if section not in SECTIONS:
            shown = f"[{masked(section)}]"
            layer.problems.append(unknown(shown, f"{path}, {shown}", section, SECTIONS, "tables"))
        elif not isinstance(table, dict):
            reason = "is a value where a table is needed"
            action = f"write [{section}] on a line of its own, and the settings below it"
            layer.problems.append(Problem(section, f"{path}, {section}", reason, action))
        else:
            for name, raw in table.items():
                shown = f"[{section}] {masked(name)}"
                origin = Origin("toml", f"{path}, {shown}")
                _put(layer, section, name, Value(raw, origin), shown)
    return layer


def _put(layer: Layer, section: str, name: str, value: Value, shown: str) -> None:
    if name in SECTIONS[section]:
        layer.values[section, name] = value
    else:
        layer.problems.append(
            unknown(shown, str(value.origin), name, SECTIONS[section], f"settings in {section}")
        )


def unknown(shown: str, origin: str, name: object, known: Iterable[str], what: str) -> Problem:
    """A name that there is not, with the one that was probably meant."""
    near = _near(str(name), known)
    action = f"did you mean {near[0]}?" if near else f"{what} that exist: {_listed(known)}"
    return Problem(shown, origin, "there is no such setting", action)


def _some(name: object, names: list[str]) -> str:
    """All names, or of many the nearest."""
    if len(names) <= _MANY:
        return _listed(names)
    return f"{', '.join(get_close_matches(str(name), names, 5, 0.0))}, ... (azpgauth config)"


_MANY = 30


def empty(setting: str, origin: str) -> Problem:
    """A variable without a value, which is more likely forgotten than meant."""
    return Problem(setting, origin, "is empty", "give it a value, or remove it for the default")


def unreadable(path: Path, exc: Exception) -> Problem:
    """A file that cannot be read."""
    # A parser's message quotes no values; what a decoder says names bytes and positions only.
    reason = exc.strerror or type(exc).__name__ if isinstance(exc, OSError) else str(exc)
    return Problem(str(path), str(path), f"cannot be read: {reason}", "correct or remove the file")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
