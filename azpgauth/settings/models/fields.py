"""Defines the types that several fields of the settings share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticCustomError

from azpgauth.server.clouds import full_scope
from azpgauth.settings.models.closed import Closed
from azpgauth.settings.models.secret import hidden

__all__ = [
    "Authority",
    "ExistingFile",
    "Name",
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
    return value


Name = Annotated[str, StringConstraints(min_length=1), AfterValidator(_no_nul)]
# The characters that azure-identity allows.
Tenant = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z.\-]+$")]
AnyTenant = Annotated[str, StringConstraints(pattern=r"^(\*|[0-9A-Za-z.\-]+)$")]
Tenants = Annotated[tuple[AnyTenant, ...], BeforeValidator(_listed)]
Authority = Annotated[Name, BeforeValidator(_authority)]
Scope = Annotated[Name, BeforeValidator(_scope)]
