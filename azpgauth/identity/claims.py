"""Reads from a token's claims which PostgreSQL role it signs in as. Pure.

The claims are read without checking the signature: the server does that. Facts about the claims
and the role names: https://learn.microsoft.com/azure/postgresql/security/security-entra-configure
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import TYPE_CHECKING, Any

from azpgauth.errors import RoleError
from azpgauth.runtime.printable import one_line, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["claims_of", "no_role", "role_of", "who"]

_NAME_CLAIMS = ("upn", "preferred_username", "unique_name")


def claims_of(token: str) -> dict[str, Any]:
    """The claims of a JSON Web Token; empty if it is none.

    Args:
        token: The token, three base64url parts with dots between.

    Example:
        >>> claims_of("not a token")
        {}
    """
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    payload = parts[1]
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def role_of(claims: Mapping[str, Any]) -> str | None:
    """The role that the claims name, or None.

    A managed identity has `xms_mirid`, its Azure resource: the name of a user-assigned identity,
    or that of the resource a system-assigned one belongs to. A user has `upn`, or one of the
    names that stand in for it.

    Args:
        claims: The claims, with values of any kind.

    Example:
        >>> role_of({"upn": "ada@example.com"})
        'ada@example.com'
    """
    resource = claims.get("xms_mirid")
    if isinstance(resource, str) and (name := _resource_name(resource)) and _is_name(name):
        return name
    for claim in _NAME_CLAIMS:
        value = claims.get(claim)
        if isinstance(value, str) and _is_name(value):
            return value
    return None


def _is_name(text: str) -> bool:
    """Whether PostgreSQL could have a role of this name: bytes in UTF-8, and none of them NUL."""
    # JSON can hold halves of surrogate pairs, which are no characters.
    return bool(text.strip()) and "\0" not in text and not _SURROGATE.search(text)


_SURROGATE = re.compile("[\ud800-\udfff]")


def who(claims: Mapping[str, Any]) -> str:
    """Who a token is for, for logs and reports; never empty.

    Args:
        claims: The claims, with values of any kind.

    Example:
        >>> who({"upn": "ada@example.com"})
        "'ada@example.com'"
    """
    if (role := role_of(claims)) is not None:
        return ascii(shortened(role))  # nothing in it can break a line of the log
    for claim, what in (("appid", "application"), ("azp", "application"), ("oid", "object")):
        value = claims.get(claim)
        if isinstance(value, str) and value:
            return f"{what} {shortened(value)!a}"
    return "somebody that it does not name"


def _resource_name(resource: str) -> str | None:
    """The name of an identity by its Azure resource id."""
    parts = resource.split("/")
    lowered = [part.lower() for part in parts]
    if "providers" not in lowered or len(parts) - lowered.index("providers") < 4:
        return None
    # A deployment slot's identity is called SITE/slots/SLOT, see
    # https://learn.microsoft.com/azure/app-service/overview-managed-identity
    if lowered[-2] == "slots" and lowered[-4] == "sites":
        return "/".join([parts[-3], "slots", parts[-1]]) if parts[-3] and parts[-1] else None
    return parts[-1] or None


def no_role(claims: Mapping[str, Any]) -> RoleError:
    """The error for claims that name no role.

    Args:
        claims: The claims of the token.
    """
    app = claims.get("appid") or claims.get("azp")
    cause = (
        f"it is that of the service principal with application id {one_line(app)}, "
        "and such a token has no name in it"
        if isinstance(app, str)
        else ""
    )
    return RoleError(
        "the token does not name the PostgreSQL role",
        cause=cause,
        remedy="set AZPG_DATABASE_USER, or user in [database] of azpgauth.toml, to the role that "
        "was made for the identity (for a service principal, a group or an application: its "
        "display name)",
    )
