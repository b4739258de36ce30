"""Lists the variables by which azpgauth and azure-identity sign in with one kind of credential."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from azpgauth.sandbox.entra.authority import Authority
    from azpgauth.sandbox.entra.directory import Directory
    from azpgauth.sandbox.entra.identity import Identity

__all__ = ["APPLICATIONS", "Credential", "Endpoint", "variables"]

Credential = Literal[
    "default",
    "managed-identity",
    "workload-identity",
    "client-secret",
    "client-certificate",
    "environment",
    "azure-cli",
    "azure-developer-cli",
    "azure-powershell",
    "device-code",
]
Endpoint = Literal["app-service", "imds"]

APPLICATIONS = frozenset(
    {"workload-identity", "client-secret", "client-certificate", "environment"}
)
"""The credentials that only applications have."""


def variables(
    credential: Credential,
    identity: Identity | None,
    *,
    authority: Authority,
    directory: Directory,
    endpoint: Endpoint,
    root: Path,
) -> dict[str, str]:
    """The variables for one kind of credential.

    Args:
        credential: Its kind.
        identity: Who is to sign in; None for whoever the authority speaks for, which only the
            kinds can tell that need no more than the machine they run on.
        authority: Where.
        directory: What the identity proves itself with.
        endpoint: Where a managed identity is found.
        root: The certificate authority of the HTTPS endpoint.
    """
    kind = {"AZPG_CREDENTIAL_KIND": credential}
    if credential in {"default", "managed-identity"}:
        found = authority.app_service if endpoint == "app-service" else authority.imds
        return {**kind, **found, **_asked_by_name(identity, authority)}
    if credential in {"azure-cli", "azure-developer-cli", "azure-powershell"}:
        path = [str(authority.programs(identity)), os.environ.get("PATH", os.defpath)]
        return {**kind, "PATH": os.pathsep.join(path)}
    who = identity or authority.identity
    https = {
        **kind,
        "AZPG_CREDENTIAL_DISABLE_INSTANCE_DISCOVERY": "true",
        "REQUESTS_CA_BUNDLE": str(root),
    }
    if credential == "environment":
        return {
            **https,
            **_as_aks_does(who, authority),
            "AZURE_CLIENT_SECRET": directory.secret(who),
        }
    if credential == "workload-identity":
        return {
            **https,
            **_as_aks_does(who, authority),
            "AZURE_FEDERATED_TOKEN_FILE": str(directory.federated_token_file(who)),
        }
    named = {
        **https,
        "AZPG_CREDENTIAL_TENANT_ID": authority.tenant,
        "AZPG_CREDENTIAL_CLIENT_ID": who.client_id,
        "AZPG_CREDENTIAL_AUTHORITY": authority.url,
    }
    if credential == "client-secret":
        named["AZPG_CREDENTIAL_CLIENT_SECRET"] = directory.secret(who)
    elif credential == "client-certificate":
        named["AZPG_CREDENTIAL_CERTIFICATE_PATH"] = str(directory.certificate(who))
    elif credential != "device-code":
        raise ValueError(f"the sandbox has no credential {credential!r}")
    return named


def _as_aks_does(identity: Identity, authority: Authority) -> dict[str, str]:
    """What AKS's webhook sets, and EnvironmentCredential reads."""
    return {
        "AZURE_TENANT_ID": authority.tenant,
        "AZURE_CLIENT_ID": identity.client_id,
        "AZURE_AUTHORITY_HOST": f"{authority.url}/",
    }


def _asked_by_name(identity: Identity | None, authority: Authority) -> dict[str, str]:
    # A system-assigned identity is had by not naming any.
    if identity is None or (identity.kind == "system-assigned" and identity == authority.identity):
        return {}
    return {"AZPG_CREDENTIAL_CLIENT_ID": identity.client_id}
