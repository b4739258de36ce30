"""Speaks OAuth 2.0, as msal and azure-identity use it: discovery, tokens, device codes.

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow and
https://learn.microsoft.com/entra/identity-platform/v2-oauth2-device-code
"""

from __future__ import annotations

import base64
import json
import secrets
from typing import TYPE_CHECKING, Any

from azpgauth.sandbox.entra import proofs
from azpgauth.sandbox.entra.answers import Answer, EntraError, pairs
from azpgauth.sandbox.entra.directory import subject
from azpgauth.sandbox.entra.identity import TENANT

if TYPE_CHECKING:
    from collections.abc import Callable

    from azpgauth.sandbox.entra.answers import Issued, Issuing, Request
    from azpgauth.sandbox.entra.directory import Directory
    from azpgauth.sandbox.entra.identity import Identity, Issuer

__all__ = ["OAuth", "resource_of"]

_AZURE_CLI = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
"""The application by which developers sign in if they name none; known in every tenant."""

_TENANTS = {TENANT, "organizations", "common"}
_DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
_RESERVED = {"openid", "profile", "offline_access", "email"}


class OAuth:
    """Answers clients that prove who they are, and users who sign in with a device code.

    Args:
        authority: Issues the tokens.
        directory: Knows the clients and their secrets.
        issuer: Signs what says who signed in.
    """

    def __init__(self, authority: Issuing, directory: Directory, issuer: Issuer) -> None:
        self._authority = authority
        self._directory = directory
        self._issuer = issuer
        # Device codes, with the scope they are for, and refresh tokens; both are approved.
        self._codes: dict[str, tuple[Identity, str]] = {}
        self._sessions: dict[str, Identity] = {}

    def answer(self, request: Request) -> Answer:
        """The answer to a request."""
        tenant, _, rest = request.path.strip("/").partition("/")
        form = pairs(request.body)
        try:
            if rest == "v2.0/.well-known/openid-configuration":
                return Answer.json(self._configuration(tenant))
            if rest == "oauth2/v2.0/devicecode":
                return Answer.json(self._device_code(tenant, form))
            if rest == "oauth2/v2.0/token":
                return Answer.json(self._token(tenant, form))
        except EntraError as exc:
            return Answer.json(exc.document(), exc.status, exc.headers)
        return Answer.json({"error": "not_found"}, 404)

    def _configuration(self, tenant: str) -> dict[str, Any]:
        _check_tenant(tenant)
        base = f"{self._authority.url}/{tenant}"
        return {
            "issuer": f"{base}/v2.0",
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            "token_endpoint": f"{base}/oauth2/v2.0/token",
            "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
        }

    def _token(self, tenant: str, form: dict[str, str]) -> dict[str, Any]:
        grant = form.get("grant_type")
        scope = form.get("scope", "")
        if grant == "client_credentials":
            return _bearer(self._issue(tenant, scope, lambda: self._client(tenant, form)))
        if grant == "refresh_token":
            session = form.get("refresh_token", "")
            issued = self._issue(tenant, scope, lambda: self._resumed(session))
        elif grant == _DEVICE_CODE:
            # msal sends what the standard calls `device_code` as `code`, too.
            approved = self._codes.pop(form.get("device_code") or form.get("code", ""), None)
            if approved is None:
                raise EntraError(400, "bad_verification_code", 70018, "Bad verification code.")
            identity, scope = approved
            issued = self._issue(tenant, scope, lambda: identity)
            session = secrets.token_urlsafe(24)
            self._sessions[session] = identity
        else:
            raise EntraError(
                400, "unsupported_grant_type", 70003, f"The app requested the grant '{grant}'."
            )
        return {
            **_bearer(issued),
            "scope": scope,
            "refresh_token": session,
            "id_token": self._issuer.id_token(issued.identity, form.get("client_id", "")),
            "client_info": _client_info(issued.identity),
        }

    def _issue(self, tenant: str, scope: str, who: Callable[[], Identity]) -> Issued:
        def checked() -> Identity:
            _check_tenant(tenant)
            return who()

        return self._authority.issue("oauth2", resource_of(scope), checked)

    def _client(self, tenant: str, form: dict[str, str]) -> Identity:
        """The application that sent this, if it proves to be the one."""
        client_id = form.get("client_id", "")
        identity = self._authority.known(client_id)
        if identity is None or not identity.is_application:
            raise _unknown(client_id, tenant)
        if not form.get("scope", "").endswith("/.default"):
            raise EntraError(
                400,
                "invalid_scope",
                1002012,
                f"The provided value for scope {form.get('scope', '')} is not valid. Client "
                "credential flows must have a scope value with /.default suffixed to the resource "
                "identifier (application ID URI).",
            )
        secret, assertion = form.get("client_secret"), form.get("client_assertion")
        if secret is not None:
            proofs.check_secret(secret, self._directory.secret(identity), client_id)
        elif assertion is None:
            raise EntraError(
                401,
                "invalid_client",
                7000218,
                "The request body must contain the following parameter: 'client_assertion' or "
                "'client_secret'.",
            )
        elif proofs.thumbprint(assertion):
            proofs.check_certificate(
                assertion,
                self._directory.registered(identity),
                client_id=client_id,
                audience=f"{self._authority.url}/{tenant}/oauth2/v2.0/token",
            )
        else:
            proofs.check_federated(assertion, self._directory.cluster_key, subject(identity))
        return identity

    def _resumed(self, session: str) -> Identity:
        identity = self._sessions.get(session)
        if identity is None:
            raise EntraError(400, "invalid_grant", 700082, "The refresh token has expired.")
        return identity

    def _device_code(self, tenant: str, form: dict[str, str]) -> dict[str, Any]:
        """A device code, approved at once by whoever the client id stands for."""
        _check_tenant(tenant)
        client_id = form.get("client_id", "")
        identity = self._authority.known(None if client_id == _AZURE_CLI else client_id)
        if identity is None:
            raise _unknown(client_id, tenant)
        code = secrets.token_urlsafe(24)
        self._codes[code] = identity, form.get("scope", "")
        page = f"{self._authority.url}/device"
        return {
            "user_code": "SANDBOX",
            "device_code": code,
            "verification_uri": page,
            "expires_in": 900,
            "interval": 5,
            "message": f"To sign in, open {page} and enter the code SANDBOX. The sandbox has done "
            "it already.",
        }


def resource_of(scope: str) -> str:
    """What a scope asks for: the audience of the token.

    Args:
        scope: Scopes with spaces between, as they are sent.

    Example:
        >>> resource_of("https://vault.azure.net/.default openid")
        'https://vault.azure.net'
    """
    asked = [word for word in scope.split() if word not in _RESERVED]
    return asked[0].rpartition("/")[0] if asked else ""


def _bearer(issued: Issued) -> dict[str, Any]:
    document: dict[str, Any] = {
        "token_type": "Bearer",
        "expires_in": issued.lifetime,
        "ext_expires_in": issued.lifetime,
        "access_token": issued.token,
    }
    if issued.refresh_in is not None:
        document["refresh_in"] = issued.refresh_in
    return document


def _client_info(identity: Identity) -> str:
    account = {"uid": identity.object_id, "utid": TENANT}
    return base64.urlsafe_b64encode(json.dumps(account).encode()).decode().rstrip("=")


def _check_tenant(tenant: str) -> None:
    if tenant not in _TENANTS:
        raise EntraError(
            400,
            "invalid_request",
            90002,
            f"Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and "
            "are signing into the correct cloud.",
        )


def _unknown(client_id: str, tenant: str) -> EntraError:
    return EntraError(
        400,
        "unauthorized_client",
        700016,
        f"Application with identifier '{client_id}' was not found in the directory '{tenant}'. "
        "This can happen if the application has not been installed by the administrator of the "
        "tenant or consented to by any user in the tenant. You may have sent your authentication "
        "request to the wrong tenant.",
    )
