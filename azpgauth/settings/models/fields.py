"""Defines the types that several fields of the settings share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticCustomError, core_schema

from azpgauth.server.clouds import full_scope
from azpgauth.server.options import is_option, parsed
from azpgauth.settings.models.closed import Closed
from azpgauth.settings.models.secret import hidden

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

__all__ = [
    "Authority",
    "ExistingFile",
    "Flag",
    "Name",
    "Options",
    "Scope",
    "Section",
    "Tenant",
    "Tenants",
    "Whole",
    "no_bool",
]


class Section(Closed):
    """One of the five sections. No error shows what stands under a name that there is not."""

    @model_validator(mode="before")
    @classmethod
    def _hide(cls, data: Any) -> Any:
        return hidden(data, set(cls.model_fields)) if isinstance(data, Mapping) else data


def _existing(path: Path) -> Path:
    """A file that must be there; it may hold a key, which no message shows."""
    text = str(path)
    if "-----BEGIN" in text:
        raise PydanticCustomError(
            "file",
            "holds the certificate or key itself, and its path is wanted",
            {"action": "write it to a file, and name that"},
        )
    try:
        found = path.is_file()
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or type(exc).__name__
        raise PydanticCustomError(
            "file", "cannot be looked at: {reason}", {"reason": reason, "action": _NAME_ONE}
        ) from None
    if not found:
        raise PydanticCustomError("file", "is not a file", {"action": _NAME_ONE})
    return path


_NAME_ONE = "name a file that exists and can be read"
ExistingFile = Annotated[Path, AfterValidator(_existing)]


def no_bool(value: object) -> object:
    """Python takes true for 1; a setting does not."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "is not a number", {"action": "write a number"})
    return value


Whole = Annotated[int, BeforeValidator(no_bool)]


def _flag(value: object) -> object:
    """True or false, as people write it; pydantic also takes 1, on and yes."""
    if isinstance(value, str):
        return value.strip().lower()
    return value


Flag = Annotated[bool, BeforeValidator(_flag)]


class Options(dict[str, str]):
    """A session's options by name. Frozen, as the settings that hold it, and hashable like them."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def _frozen(self, *_: object, **__: object) -> Any:
        raise TypeError("settings are frozen: make others, with model_copy(update=...)")

    __setitem__ = __delitem__ = __ior__ = _frozen
    clear = pop = popitem = setdefault = update = _frozen

    def __reduce__(self) -> Any:
        return type(self), (dict(self),)

    def __deepcopy__(self, _: Any) -> Options:
        return self

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        table = handler.generate_schema(dict[str, str])
        frozen = core_schema.no_info_after_validator_function(cls, table)
        return core_schema.no_info_before_validator_function(_options, frozen)

    @classmethod
    def __get_pydantic_json_schema__(cls, _: Any, __: Any) -> dict[str, Any]:
        values = {"type": ["string", "number", "boolean"]}
        table = {"type": "object", "additionalProperties": values}
        return {"anyOf": [{"type": "string"}, table]}


def _options(value: object) -> object:
    """A table of them from a table, from JSON or from libpq's words."""
    if isinstance(value, str):
        value = _options_in(value)
    if not isinstance(value, Mapping):
        raise _no_options("is not a table of options")
    found = {}
    for name, each in value.items():
        if not isinstance(name, str) or not is_option(name):
            raise _no_options("has a name that no option has")
        if isinstance(each, bool):
            found[name] = "on" if each else "off"
        elif isinstance(each, (str, int, float)):
            found[name] = _no_nul(str(each))
        else:
            raise _no_options(f"has a {type(each).__name__} for an option's value")
    return found


def _options_in(text: str) -> object:
    try:
        return json.loads(text) if text.lstrip().startswith("{") else parsed(text)
    except json.JSONDecodeError:
        raise _no_options("is not JSON that can be read") from None
    except ValueError as exc:
        raise _no_options(str(exc)) from None


def _no_options(reason: str) -> PydanticCustomError:
    action = "write -c search_path=shop -c statement_timeout=30s, or a table of such names"
    return PydanticCustomError("options", "{reason}", {"reason": reason, "action": action})


def _listed(value: object) -> object:
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(","))
    return value


def _authority(value: object) -> object:
    if not isinstance(value, str):
        return value
    if "://" in value and not value.lower().startswith("https://"):
        raise PydanticCustomError(
            "authority", "is not an https URL, and tokens travel protected only"
        )
    if any(char.isspace() or char in "@;=?#%" for char in value.strip()):
        raise PydanticCustomError(
            "authority",
            "is not an authority's host",
            {"action": "give its name alone, such as login.microsoftonline.com"},
        )
    return value


def _scope(value: object) -> object:
    if not isinstance(value, str):
        return value
    if not value.strip().removesuffix("/.default") or len(value.split()) != 1:
        raise PydanticCustomError(
            "scope",
            "is not a scope",
            {"action": "name the resource, such as https://HOST/.default"},
        )
    return full_scope(value)


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise PydanticCustomError("nul", "holds a NUL character, which PostgreSQL cannot take")
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise PydanticCustomError(
            "encoding", "holds bytes that are no text", {"action": "save the file as UTF-8"}
        )
    return value


Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1), AfterValidator(_no_nul)
]
# The characters that azure-identity allows.
Tenant = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z.\-]+$")]
AnyTenant = Annotated[str, StringConstraints(pattern=r"^(\*|[0-9A-Za-z.\-]+)$")]
Tenants = Annotated[tuple[AnyTenant, ...], BeforeValidator(_listed)]
Authority = Annotated[Name, BeforeValidator(_authority)]
Scope = Annotated[Name, BeforeValidator(_scope)]
