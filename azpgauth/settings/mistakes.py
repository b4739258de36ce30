"""Tells what pydantic found wrong, with the place to edit, and what is allowed there. Pure."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from azpgauth.errors import Problem
from azpgauth.runtime.printable import either
from azpgauth.runtime.redacted import masked
from azpgauth.settings.models.contradictions import contradictions
from azpgauth.settings.models.credential import KINDS, kinds_with
from azpgauth.settings.models.secret import SECRETS, presentable
from azpgauth.settings.models.sections import valid_values
from azpgauth.settings.models.terms import named
from azpgauth.settings.sources.conventions import FAMILIES, HOST, spellings
from azpgauth.settings.sources.layers import PREFIX, variable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import ValidationError

    from azpgauth.settings.merge import Merged
    from azpgauth.settings.sources.layers import Dropped, Key, Value

__all__ = ["MISSING", "in_terms", "problems_of"]

MISSING = "is required"


def problems_of(
    exc: ValidationError,
    data: Mapping[str, Mapping[str, Any]],
    merged: Merged,
    prefix: str = PREFIX,
) -> list[Problem]:
    """The problems behind a `ValidationError`, and those that it hides.

    Args:
        exc: What pydantic raised.
        data: What it was given.
        merged: Where that came from. If there is more that could not be read, nothing is missing
            yet, and what has a default may have another value.
        prefix: What variables begin with.
    """
    values, incomplete = merged.values, merged.unreadable
    found: dict[Key, Problem] = {}
    for error in exc.errors(include_url=False, include_input=False):
        if error["type"] == "contradictions":
            continue
        section, name = _place(error)
        of_another_kind = error["type"] == "extra_forbidden" and section == "credential"
        if incomplete and (error["type"] == "missing" or of_another_kind):
            continue
        if of_another_kind:
            reason, action = _of_another_kind(name, values.get(("credential", "kind"), ()))
        else:
            reason, action = _reason(error, section, name, data)
        if reason == MISSING:
            action = f"set {_spellings(section, name, prefix, merged.counting)}"
            action += _aside(merged.dropped, (section, name))
        found.setdefault((section, name), _problem(section, name, reason, action, values, prefix))
    # pydantic looks across the fields only when each is valid by itself.
    valid = valid_values(data)
    if incomplete:
        valid = {key: value for key, value in valid.items() if key in values}
    for setting, reason, action in contradictions(valid):
        section, _, name = setting.partition(".")
        meant = "" if (section, name) in values else _aside(merged.dropped, (section, name))
        problem = _problem(section, name, reason, action + meant, values, prefix)
        found.setdefault((section, name), problem)
    return list(found.values())


def _place(error: Any) -> Key:
    """Section and field of an error."""
    setting = error.get("ctx", {}).get("setting")
    if setting is not None:
        section, _, name = str(setting).partition(".")
        return section, name
    section, *rest = (str(part) for part in error["loc"])
    # In a discriminated union, the kind stands between section and field.
    if section == "credential" and rest and rest[0] in KINDS:
        rest = rest[1:]
    return section, rest[0] if rest else "kind"


def _problem(
    section: str,
    name: str,
    reason: str,
    action: str,
    values: Mapping[Key, Sequence[Value]],
    prefix: str,
) -> Problem:
    there = values.get((section, name))
    origin = str(there[0].origin) if there else f"not set ({variable(section, name, prefix)})"
    shown = None if not there or name in SECRETS else _shown(section, name, there[0].raw)
    return Problem(f"{section}.{name}", origin, reason, action, shown)


def _shown(section: str, name: str, raw: Any) -> str:
    value = presentable(section, name, raw)
    # What TOML has as a date or a time is best told as it stands there.
    return str(value) if hasattr(value, "isoformat") else repr(value)


def _reason(
    error: Any,
    section: str,
    name: str,
    data: Mapping[str, Mapping[str, Any]],
) -> tuple[str, str]:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return MISSING, ""
    if kind == "contradiction":
        return str(context["message"]), str(context["action"])
    if kind in {"literal_error", "union_tag_invalid"}:
        return _not_allowed(context, str(data.get(section, {}).get(name)))
    if kind == "file" and name == "sslrootcert":
        return str(error["msg"]), f"{context['action']}, or auto"
    reason_and_action: tuple[str, str] = _BY_TYPE.get(kind, _other)(error, context)
    return reason_and_action


def _of_another_kind(name: str, kinds: Sequence[Value]) -> tuple[str, str]:
    """About a field that the credential's kind does not have."""
    mine = kinds[0].raw if kinds else "default"
    # Of a kind that another tool implies, the user may not know.
    implied = kinds and kinds[0].origin.kind == "convention"
    reason = f"does not belong to credential.kind {masked(str(mine))}"
    reason += f" (from {kinds[0].origin})" if implied else ""
    fitting = either(kinds_with(name))
    return reason, f"remove it, or set {{credential.kind}} to {fitting}"


def _not_allowed(context: Mapping[str, Any], given: str) -> tuple[str, str]:
    allowed = str(context.get("expected") or context.get("expected_tags"))
    words = [word.strip("' ") for word in allowed.replace(" or ", ",").split(",")]
    near = get_close_matches(given.lower(), words, 1)
    meant = f"; did you mean {near[0]}?" if near else ""
    return "is not allowed", f"allowed: {allowed}{meant}"


def _number(what: str) -> Any:
    return lambda _error, _context: (f"is not {what}", f"write {what}, such as 10")


def _bound(words: str, name: str) -> Any:
    return lambda _error, context: (
        f"is out of range: it must be {words} {context[name]}",
        f"write a number {words} {context[name]}",
    )


_BY_TYPE: dict[str, Any] = {
    "int_parsing": _number("a whole number (an integer)"),
    "int_type": _number("a whole number (an integer)"),
    "int_from_float": _number("a whole number (an integer)"),
    "float_parsing": _number("a number"),
    "float_type": _number("a number"),
    "finite_number": _number("a finite number"),
    "greater_than": _bound("greater than", "gt"),
    "greater_than_equal": _bound("greater than or equal to", "ge"),
    "less_than_equal": _bound("less than or equal to", "le"),
    "bool_parsing": lambda *_: ("is neither true nor false", "write true or false"),
    "bool_type": lambda *_: ("is neither true nor false", "write true or false"),
    "string_type": lambda *_: ("is not a string", "write it in quotes"),
    "string_too_short": lambda *_: ("is empty", "give it a value, or remove it"),
    "string_pattern_mismatch": lambda *_: (
        "has characters that cannot be there",
        "use letters, digits, - and . alone: a tenant's id, or its domain",
    ),
}


def _other(error: Any, context: Mapping[str, Any]) -> tuple[str, str]:
    message = str(error["msg"])
    action = str(context.get("action") or "correct it there")
    return f"{message[:1].lower()}{message[1:]}", action


def _spellings(section: str, name: str, prefix: str, families: Sequence[str]) -> str:
    """Every way in which a setting can be given, those of the families that count among them."""
    ways = [
        variable(section, name, prefix),
        f"{name} in [{section}] of " + ("azpgauth.toml" if prefix == PREFIX else "a file config="),
        f"the keyword argument {section}={{{name!r}: …}}",
    ]
    if prefix == PREFIX:
        others = tuple(FAMILIES) if (section, name) == HOST else families
        ways += spellings((section, name), others)
    return ", or ".join([", ".join(ways[:-1]), ways[-1]])


def _aside(dropped: Sequence[Dropped], key: Key) -> str:
    """What was set aside that whoever misses a setting may have meant."""
    told: dict[str, list[str]] = {}
    for each in dropped:
        name = each.value.origin.name
        # What misses a host names none at all; a string that could not be read may say anything.
        if name and (each.key in {key, ("", name)} or key == HOST):
            told.setdefault(each.reason, []).append(str(each.value.origin))
    return "".join(
        f"; set aside: {', '.join(dict.fromkeys(origins))} ({reason})"
        for reason, origins in told.items()
    )


def in_terms(problem: Problem, values: Mapping[Key, Sequence[Value]], prefix: str) -> Problem:
    """A problem that says what to do in its reader's terms: variables, or what stands in TOML.

    Args:
        problem: Its action names settings as `{section.name}`.
        values: Where they came from.
        prefix: What variables begin with.
    """
    section, _, name = problem.setting.partition(".")
    mine = values.get((section, name), ())
    form = mine[0].origin.kind if mine else "default"

    def term(section: str, name: str) -> str:
        there = values.get((section, name), ())
        origin = there[0].origin if there else None
        if origin is not None and origin.name:
            return origin.name
        kind = origin.kind if origin is not None else form
        if kind == "toml":
            return f"{name} in [{section}]"
        if kind == "keyword":
            return f"{section}={{{name!r}: …}}"
        return variable(section, name, prefix)

    return replace(problem, action=named(problem.action, term))
