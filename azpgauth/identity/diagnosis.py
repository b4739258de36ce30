"""Tells what it means that there is no token, from the words of azure-identity and its authority.

Pure. No other module matches such a text.
"""

from __future__ import annotations

import re

from azpgauth.errors import TokenError

__all__ = ["ROWS", "needs_loop", "no_token"]

_ROWS = (
    (r"az login|azd auth login|Connect-AzAccount", "nobody is signed in", "sign in as it says"),
    (
        r"not found on path|is not installed",
        "the program is not on PATH",
        "install it, or set credential.kind (AZPG_CREDENTIAL_KIND) to another",
    ),
    (
        r"AADSTS7000215|AADSTS7000222",
        "the client secret is wrong, or has expired",
        "check AZPG_CREDENTIAL_CLIENT_SECRET (of kind environment: AZURE_CLIENT_SECRET)",
    ),
    (
        r"AADSTS700027|AADSTS700024",
        "the certificate, or the pod's token, is not the application's, or has expired",
        "check credential.certificate_path or credential.token_file_path",
    ),
    (
        r"AADSTS700016",
        "the tenant does not know the application",
        "check credential.client_id and credential.tenant_id",
    ),
    (
        r"AADSTS90002|your tenant name",
        "there is no such tenant in this cloud",
        "check credential.tenant_id, and server.cloud",
    ),
    (
        r"\b429\b|too many (incoming )?requests",
        "Microsoft Entra ID asks for patience",
        "try again in a while; share one pool, whose connections share one token",
    ),
    (
        r"managed identity|IMDS|ManagedIdentityCredential",
        "this machine has no such managed identity, or cannot reach its endpoint",
        "assign one, check credential.client_id, or set credential.kind to another",
    ),
    (
        r"with -?\d+ s left",
        "the token is about to expire, or this machine's clock is wrong",
        "check this machine's clock",
    ),
    (
        r"within [\d.]+ s\b",
        "no answer in time",
        (
            "check that this machine reaches its identity endpoint, or login.microsoftonline.com; "
            "pool.timeout says how long to wait"
        ),
    ),
)

ROWS = tuple((re.compile(row[0], re.IGNORECASE), *row[1:]) for row in _ROWS)
"""The patterns, and cause and remedy of a text that one of them matches; the first one counts."""

_OTHERWISE = "", "check credential.kind and what belongs to it"


def no_token(said: str) -> TokenError:
    """The error for a token that did not come.

    Args:
        said: What went wrong, in whoever's words.

    Example:
        >>> no_token("Please run 'az login' to set up an account").remedy
        'sign in as it says'
    """
    for pattern, cause, remedy in ROWS:
        if pattern.search(said):
            return TokenError(said, cause=cause, remedy=remedy)
    cause, remedy = _OTHERWISE
    return TokenError(said, cause=cause, remedy=remedy)


def needs_loop(name: str) -> TokenError:
    """The error for a credential that is to be awaited, where nothing can be.

    Args:
        name: Which credential, such as the name of its class.
    """
    return TokenError(
        f"{name} is an async credential",
        cause="its tokens are awaited, and there is no event loop to do so here",
        remedy="pass the one of the same name from azure.identity, or use an async driver",
    )
