"""Answers managed identities: the endpoints of App Service, and of virtual machines (IMDS).

Both are answered as azure-identity expects them:
https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference and
https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from azpgauth.sandbox.entra.answers import Answer, EntraError

if TYPE_CHECKING:
    from azpgauth.sandbox.entra.answers import Door, Issued, Issuing, Request
    from azpgauth.sandbox.entra.identity import Identity

__all__ = ["ManagedIdentity"]

_APP_SERVICE = "/msi/token"
_DOORS: dict[str, Door] = {
    _APP_SERVICE: "app-service",
    "/metadata/identity/oauth2/token": "imds",
}


class ManagedIdentity:
    """Answers for the identities of the machine that asks.

    Args:
        authority: Issues the tokens.
    """

    def __init__(self, authority: Issuing) -> None:
        self._authority = authority
        self._header = secrets.token_hex(16)

    def app_service(self, url: str) -> dict[str, str]:
        """The environment by which App Service tells a program of its identity."""
        return {"IDENTITY_ENDPOINT": url + _APP_SERVICE, "IDENTITY_HEADER": self._header}

    def imds(self, url: str) -> dict[str, str]:
        """The environment that moves azure-identity's IMDS requests here."""
        return {"AZURE_POD_IDENTITY_AUTHORITY_HOST": url}

    def answer(self, request: Request) -> Answer | None:
        """The answer; None if the request is for another door."""
        door = _DOORS.get(request.path)
        if door is None:
            return None
        resource = request.query.get("resource")
        if not self._allowed(door, request):
            return Answer.json({"error": "forbidden"}, 403)
        if not resource:
            return Answer.json({"error": "invalid_request"}, 400)
        try:
            issued = self._authority.issue(
                door, resource, lambda: self._who(request.query.get("client_id"))
            )
        except EntraError as exc:
            # What App Service calls `message`, IMDS calls `error_description`.
            return Answer.json(
                {
                    "error": exc.error,
                    "error_description": exc.said,
                    "statusCode": exc.status,
                    "message": exc.said,
                },
                exc.status,
                exc.headers,
            )
        return Answer.json(_document(issued))

    def _allowed(self, door: Door, request: Request) -> bool:
        if door == "imds":
            return request.headers.get("Metadata") == "true"
        return secrets.compare_digest(request.headers.get("X-IDENTITY-HEADER", ""), self._header)

    def _who(self, client_id: str | None) -> Identity:
        identity = self._authority.known(client_id)
        if identity is None:
            raise EntraError(400, "invalid_request", 0, "Identity not found")
        return identity


def _document(issued: Issued) -> dict[str, str]:
    return {
        "access_token": issued.token,
        "client_id": issued.identity.client_id,
        "expires_in": str(issued.lifetime),
        "expires_on": str(issued.expires_on),
        "resource": issued.resource,
        "token_type": "Bearer",
    }
