"""Describes identities, issues and checks their tokens. Keys live in memory only."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from azpgauth.sandbox.postgres import wire

__all__ = ["DATABASE_RESOURCE", "TENANT", "Identity", "Issuer", "Kind"]

DATABASE_RESOURCE = "https://ossrdbms-aad.database.windows.net"
"""The audience of a database token; with a trailing slash it is refused."""

TENANT = "7b2f3c64-9c0d-4a57-8c7e-5d2f0a6b1e93"
"""The tenant's id."""

_ISSUER = f"https://sts.windows.net/{TENANT}/"
_RESOURCES = f"/subscriptions/{uuid.UUID(int=1)}/resourcegroups/sandbox/providers"

Kind = Literal["user-assigned", "system-assigned", "service-principal", "user", "guest", "group"]


@dataclass(frozen=True)
class Identity:
    """Somebody who can sign in, or a group of them, whose role its members use.

    Attributes:
        name: The PostgreSQL role, as Azure would call it.
        kind: What it is; decides which claims its tokens have. A group has none of its own.
        client_id: The application's id; in the sandbox, users have one, too, to be told apart by.
        object_id: What ties the role to the identity.
        groups: The groups it is a member of.
    """

    name: str = "sandbox-app"
    kind: Kind = "user-assigned"
    client_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    object_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    groups: tuple[Identity, ...] = ()

    @property
    def is_application(self) -> bool:
        """Whether it can prove itself to the authority without a person being there."""
        return self.kind in {"user-assigned", "system-assigned", "service-principal"}

    def claims(self) -> dict[str, Any]:
        """The claims that a token of this kind of identity has."""
        claims: dict[str, Any] = {"oid": self.object_id}
        if self.groups:
            claims["groups"] = [group.object_id for group in self.groups]
        if not self.is_application:
            # Not every token of a guest has a upn; then another claim has the name.
            name = "unique_name" if self.kind == "guest" else "upn"
            return {**claims, "idtyp": "user", name: self.name}
        claims.update(idtyp="app", appid=self.client_id)
        if self.kind == "user-assigned":
            provider = "Microsoft.ManagedIdentity/userAssignedIdentities"
            claims["xms_mirid"] = f"{_RESOURCES}/{provider}/{self.name}"
        elif self.kind == "system-assigned":
            claims["xms_mirid"] = f"{_RESOURCES}/Microsoft.Web/sites/{self.name}"
        return claims


class Issuer:
    """Signs tokens, and says in Azure's words what is wrong with one."""

    def __init__(self) -> None:
        self._key = _key()
        self._other_key: rsa.RSAPrivateKey | None = None

    def token(
        self,
        identity: Identity,
        *,
        resource: str = DATABASE_RESOURCE,
        lifetime: float = 3600,
        other_key: bool = False,
    ) -> str:
        """A token.

        Args:
            identity: Whose.
            resource: Its audience.
            lifetime: Seconds until it expires; below 0 it has already.
            other_key: Sign with a key that the gateway does not know.
        """
        if other_key and self._other_key is None:
            self._other_key = _key()
        now = int(time.time())
        claims = {
            "aud": resource,
            "iss": _ISSUER,
            "tid": TENANT,
            "iat": now,
            "nbf": min(now, int(now + lifetime)),
            "exp": int(now + lifetime),
            "uti": uuid.uuid4().hex,
            **identity.claims(),
        }
        key = self._other_key if other_key and self._other_key is not None else self._key
        return jwt.encode(claims, key, algorithm="RS256", headers={"kid": "sandbox"})

    def id_token(self, identity: Identity, client_id: str) -> str:
        """A token that tells an application who signed in.

        Args:
            identity: Who did.
            client_id: The application.
        """
        now = int(time.time())
        claims = {
            "aud": client_id,
            "iss": _ISSUER,
            "tid": TENANT,
            "iat": now,
            "exp": now + 3600,
            "oid": identity.object_id,
            "sub": identity.object_id,
            "preferred_username": identity.name,
        }
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": "sandbox"})

    def refusal(self, token: str, role: str, roles: dict[str, Identity]) -> str | None:
        """Why the server does not let this token in as this role; None if it does.

        Args:
            token: What came as the password.
            role: Who wants in.
            roles: The identities for which roles were made, by the roles' names in PostgreSQL.
        """
        try:
            claims = jwt.decode(
                token,
                self._key.public_key(),
                algorithms=["RS256"],
                audience=DATABASE_RESOURCE,
                issuer=_ISSUER,
            )
        except jwt.ExpiredSignatureError:
            return "The access token has expired. Acquire a new token and retry."
        except jwt.InvalidAudienceError:
            return "The access token does not have a valid audience claim."
        except jwt.InvalidTokenError:
            return (
                "An error occurred while validating the access token. "
                "Please acquire a new token and retry."
            )
        owner = roles.get(wire.identifier(role))
        if owner is None or owner.object_id not in {claims.get("oid"), *claims.get("groups", ())}:
            return f'password authentication failed for user "{role}"'
        return None


def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)
