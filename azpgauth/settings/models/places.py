"""Defines what the settings say of places: hosts, ports, addresses."""

from __future__ import annotations

import re
from typing import Annotated
from unicodedata import normalize

from pydantic import BeforeValidator, Field, TypeAdapter, WrapValidator
from pydantic_core import PydanticCustomError

from azpgauth.settings.models.fields import no_bool
from azpgauth.settings.models.nearness import is_address

__all__ = ["Address", "Host", "Port"]


def _no_host(reason: str) -> PydanticCustomError:
    action = "give the host's name alone, such as shop.postgres.database.azure.com"
    return PydanticCustomError("host", "{reason}", {"reason": reason, "action": action})


def _hosts(value: object) -> object:
    """One name, or several from a comma-separated string."""
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, (list, tuple)) or not all(isinstance(each, str) for each in given):
        raise _no_host("is not a name, nor a list of names")
    names = [name.strip() for each in given for name in each.split(",")]
    if not names:
        raise _no_host("has no name in it")
    names = [_checked_host(name) for name in names]
    return names[0] if len(names) == 1 else tuple(names)


def _checked_host(name: str) -> str:
    if not name:
        raise _no_host("a host's name is empty")
    if "://" in name:
        raise _no_host("is a URL")
    if "@" in name:
        raise _no_host("holds a user; that goes into database.user, and a password into no host")
    if "$" in name:
        raise _no_host("is not a host's name: variables in it are not replaced")
    if name.startswith("/"):
        return name
    address, _, zone = name.strip("[]").partition("%")
    if is_address(address) and (not zone or re.fullmatch(r"[\w.-]+", zone)):
        return name.strip("[]")
    if ":" in name:
        raise _no_host("holds a port; that goes into server.port")
    if not all(map(_may_be_in_a_name, normalize("NFKC", name))):
        raise _no_host("is not a host's name")
    return name


def _may_be_in_a_name(char: str) -> bool:
    # Names of other scripts than ASCII's are for the resolver to judge.
    if char.isascii():
        return char.isalnum() or char in "-._"
    return char.isprintable() and not char.isspace()


def _listed(value: object) -> object:
    """One of them, or several from a comma-separated string or a list."""
    if isinstance(value, str) and "," in value:
        value = value.split(",")
    if isinstance(value, (list, tuple)):
        found = [each.strip() if isinstance(each, str) else each for each in value]
        return found[0] if len(found) == 1 else tuple(found)
    return value


def _addresses(value: object) -> object:
    found = _listed(value)
    if isinstance(found, tuple):
        found = tuple(each.strip("[]") if isinstance(each, str) else each for each in found)
    elif isinstance(found, str):
        found = found.strip("[] ")
    for each in found if isinstance(found, tuple) else (found,):
        if not isinstance(each, str) or not is_address(each.strip()):
            action = "write an IP address for each of the hosts, such as 127.0.0.1"
            raise PydanticCustomError("address", "is not an IP address", {"action": action})
    return found


Host = Annotated[str | tuple[str, ...], BeforeValidator(_hosts)]
PortNumber = Annotated[int, Field(ge=1, le=65535), BeforeValidator(no_bool)]


def _ports(value: object, _: object) -> object:
    # Not by pydantic's union, which would tell each mistake twice.
    found = _listed(value)
    if isinstance(found, tuple):
        return tuple(map(_NUMBER.validate_python, found))
    return _NUMBER.validate_python(found)


_NUMBER: TypeAdapter[int] = TypeAdapter(PortNumber)
Port = Annotated[PortNumber | tuple[PortNumber, ...], WrapValidator(_ports)]
Address = Annotated[str | tuple[str, ...], BeforeValidator(_addresses)]
