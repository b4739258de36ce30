"""Verifies what a client proves itself with: secret, certificate or federated token. Pure.

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
"""

from __future__ import annotations

import base64
import secrets
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives import hashes

from azpgauth.sandbox.entra.answers import EntraError
from azpgauth.sandbox.entra.directory import CLUSTER, EXCHANGE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["check_certificate", "check_federated", "check_secret", "thumbprint"]

_NO_FEDERATION = "No matching federated identity record found for presented assertion"


def check_secret(given: str, right: str, client_id: str) -> None:
    """Compare a client secret.

    Args:
        given: What the client sent.
        right: What it should be.
        client_id: The application, for the message.

    Raises:
        EntraError: It is another.
    """
    if not secrets.compare_digest(given.encode(), right.encode()):
        raise _refusal(
            7000215,
            "Invalid client secret provided. Ensure the secret being sent in the request is the "
            "client secret value, not the client secret ID, for a secret added to app "
            f"'{client_id}'.",
        )


def thumbprint(assertion: str) -> str | None:
    """The certificate's thumbprint in an assertion's header; None if it was not signed by one.

    Args:
        assertion: A JSON Web Token.

    Raises:
        EntraError: It is none.
    """
    header = _header(assertion)
    found = header.get("x5t#S256") or header.get("x5t")
    # msal pads it, the standard does not.
    return str(found).rstrip("=") if found else None


def check_certificate(
    assertion: str, certificate: x509.Certificate | None, *, client_id: str, audience: str
) -> None:
    """Verify an assertion that a client signed with its certificate.

    Args:
        assertion: The assertion, as msal makes it.
        certificate: The one that is registered for the application.
        client_id: The application.
        audience: The token endpoint.

    Raises:
        EntraError: It does not hold.
    """
    shown = thumbprint(assertion)
    if certificate is None or shown not in _thumbprints(certificate):
        raise _bad_signature(f"[Reason - The key was not found., Thumbprint used: '{shown}']")
    claims = _claims(
        assertion,
        certificate.public_key(),
        ["RS256", "PS256"],
        audience,
        _refusal(700023, "Client assertion audience claim does not match Realm issuer."),
    )
    if {claims["iss"], claims["sub"]} != {client_id}:
        raise _refusal(700021, "Client assertion application identifier doesn't match 'client_id'.")


def check_federated(assertion: str, key: ec.EllipticCurvePublicKey, subject: str) -> None:
    """Verify a federated token.

    Args:
        assertion: The token of the service account.
        key: The cluster's.
        subject: The service account that stands for the application.

    Raises:
        EntraError: It does not hold.
    """
    claims = _claims(
        assertion, key, ["ES256"], EXCHANGE, _refusal(700212, f"{_NO_FEDERATION} audience.")
    )
    if claims["iss"] != CLUSTER:
        raise _refusal(700211, f"{_NO_FEDERATION} issuer '{claims['iss']}'.")
    if claims["sub"] != subject:
        raise _refusal(700213, f"{_NO_FEDERATION} subject '{claims['sub']}'.")


def _claims(
    assertion: str, key: Any, algorithms: list[str], audience: str, wrong_audience: EntraError
) -> Mapping[str, Any]:
    try:
        claims: Mapping[str, Any] = jwt.decode(
            assertion,
            key,
            algorithms=algorithms,
            audience=audience,
            options={"require": ["aud", "exp", "iss", "sub"]},
        )
    except (jwt.ExpiredSignatureError, jwt.ImmatureSignatureError):
        raise _refusal(700024, "Client assertion is not within its valid time range.") from None
    except jwt.InvalidAudienceError:
        raise wrong_audience from None
    except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
        raise _bad_signature("[Reason - The key was not found.]") from None
    except jwt.InvalidTokenError:
        raise _malformed() from None
    return claims


def _header(assertion: str) -> Mapping[str, Any]:
    try:
        return jwt.get_unverified_header(assertion)
    except jwt.InvalidTokenError:
        raise _malformed() from None


def _thumbprints(certificate: x509.Certificate) -> set[str]:
    # SHA-1 names a certificate here, it proves nothing: azure-identity sends no other.
    kinds = (hashes.SHA1(), hashes.SHA256())  # noqa: S303
    raw = (certificate.fingerprint(kind) for kind in kinds)
    return {base64.urlsafe_b64encode(each).decode().rstrip("=") for each in raw}


def _refusal(code: int, text: str) -> EntraError:
    return EntraError(401, "invalid_client", code, text)


def _bad_signature(reason: str) -> EntraError:
    return _refusal(700027, f"Client assertion contains an invalid signature. {reason}")


def _malformed() -> EntraError:
    return _refusal(50027, "JWT token is invalid or malformed.")
