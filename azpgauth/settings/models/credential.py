"""Declares the credential's settings: one model for each kind, told apart by `kind`.

Fields have the names that azure-identity gives its options, which is also how they reach it.
https://learn.microsoft.com/python/api/azure-identity/azure.identity
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from azpgauth.settings.models.fields import (
    Authority,
    ExistingFile,
    Name,
    Scope,
    Section,
    Tenant,
    Tenants,
    Whole,
)
from azpgauth.settings.models.secret import SecretText, sealed

__all__ = [
    "FIELDS",
    "KINDS",
    "TOKENLESS",
    "CredentialSettings",
    "DefaultCredentialSettings",
    "PasswordSettings",
    "TokenCredentialSettings",
    "fields_of",
    "kinds_with",
]

TOKENLESS = frozenset({"password", "none"})
"""The kinds that sign in without a token."""


class CredentialSection(Section):
    """What every kind has: no error shows what was given as a secret."""

    @model_validator(mode="before")
    @classmethod
    def _sealed(cls, data: Any) -> Any:
        return sealed(data, set(cls.model_fields))


class TokenCredentialSettings(CredentialSection):
    """What every kind that gets tokens has."""

    kind: str
    scope: Scope | None = Field(
        None,
        description="The token's scope; by default that of the server's cloud.",
        examples=["https://ossrdbms-aad.database.windows.net/.default"],
    )
    refresh: Literal["background", "on-demand"] = Field(
        "background",
        description=(
            "When tokens are renewed: background, on time; on-demand, at the next connect, "
            "for hosts that freeze idle processes."
        ),
    )


class _Tenants(TokenCredentialSettings):
    additionally_allowed_tenants: Tenants | None = Field(
        None,
        description="Tenants to get tokens of besides the credential's own; * allows all.",
        examples=["*"],
    )


class _Authority(_Tenants):
    authority: Authority | None = Field(
        None,
        description=(
            "Host of Microsoft Entra ID; by default AZURE_AUTHORITY_HOST, or that of the "
            "server's cloud."
        ),
        examples=["login.microsoftonline.com"],
    )
    disable_instance_discovery: bool | None = Field(
        None,
        description="Do not ask Microsoft whether the authority is known: for private clouds.",
    )


class _Process(_Tenants):
    tenant_id: Tenant | None = Field(None, description="The tenant to get the token of.")
    process_timeout: Whole | None = Field(
        None, ge=1, description="Seconds to wait for the program; by default 10."
    )


def _excluded(what: str) -> Any:
    return Field(None, description=f"Leave {what} out of the chain.")


class DefaultCredentialSettings(_Authority):
    """DefaultAzureCredential: what the environment offers, in its order."""

    kind: Literal["default"] = "default"
    client_id: Name | None = Field(
        None,
        description="Client id of the managed or workload identity to prefer.",
        examples=["00000000-0000-0000-0000-000000000000"],
    )
    process_timeout: Whole | None = Field(
        None, ge=1, description="Seconds to wait for each of the programs; by default 10."
    )
    exclude_environment_credential: bool | None = _excluded("EnvironmentCredential")
    exclude_workload_identity_credential: bool | None = _excluded("WorkloadIdentityCredential")
    exclude_managed_identity_credential: bool | None = _excluded("ManagedIdentityCredential")
    exclude_shared_token_cache_credential: bool | None = _excluded("SharedTokenCacheCredential")
    exclude_visual_studio_code_credential: bool | None = _excluded("VisualStudioCodeCredential")
    exclude_cli_credential: bool | None = _excluded("AzureCliCredential")
    exclude_developer_cli_credential: bool | None = _excluded("AzureDeveloperCliCredential")
    exclude_powershell_credential: bool | None = _excluded("AzurePowerShellCredential")
    exclude_broker_credential: bool | None = _excluded("the broker")
    exclude_interactive_browser_credential: bool | None = Field(
        None, description="Leave InteractiveBrowserCredential out, as it is unless this is false."
    )


class ManagedIdentitySettings(TokenCredentialSettings):
    """ManagedIdentityCredential: the identity of the Azure resource this runs on."""

    kind: Literal["managed-identity"]
    client_id: Name | None = Field(
        None, description="Client id of a user-assigned identity; without, the system-assigned one."
    )
    object_id: Name | None = Field(
        None, description="Object id of a user-assigned identity, instead of its client id."
    )
    resource_id: Name | None = Field(
        None, description="Resource id of a user-assigned identity, instead of its client id."
    )


class WorkloadIdentitySettings(_Authority):
    """WorkloadIdentityCredential: a pod's identity; AKS sets all that it needs."""

    kind: Literal["workload-identity"]
    tenant_id: Tenant | None = Field(None, description="The tenant; by default AZURE_TENANT_ID.")
    client_id: Name | None = Field(None, description="The client id; by default AZURE_CLIENT_ID.")
    token_file_path: ExistingFile | None = Field(
        None, description="The pod's own token; by default AZURE_FEDERATED_TOKEN_FILE."
    )


class _ServicePrincipal(_Authority):
    tenant_id: Tenant = Field(description="The service principal's tenant.")
    client_id: Name = Field(description="The service principal's client id.")


class ClientSecretSettings(_ServicePrincipal):
    """ClientSecretCredential: a service principal with a secret."""

    kind: Literal["client-secret"]
    client_secret: SecretText = Field(
        description="The secret; from the environment, .env or a secrets directory."
    )


class ClientCertificateSettings(_ServicePrincipal):
    """CertificateCredential: a service principal with a certificate."""

    kind: Literal["client-certificate"]
    certificate_path: ExistingFile = Field(
        description="Path of the certificate with its private key, PEM or PKCS12."
    )
    certificate_password: SecretText | None = Field(
        None, description="What the private key is encrypted with."
    )
    send_certificate_chain: bool | None = Field(
        None, description="Send the chain too, for authentication by subject name and issuer."
    )


class EnvironmentSettings(_Authority):
    """EnvironmentCredential: a service principal from AZURE_TENANT_ID, AZURE_CLIENT_ID, ...."""

    kind: Literal["environment"]


class AzureCliSettings(_Process):
    """AzureCliCredential: whoever signed in with `az login`."""

    kind: Literal["azure-cli"]
    subscription: Name | None = Field(
        None, description="Name or id of the subscription whose account to use."
    )


class AzureDeveloperCliSettings(_Process):
    """AzureDeveloperCliCredential: whoever signed in with `azd auth login`."""

    kind: Literal["azure-developer-cli"]


class AzurePowerShellSettings(_Process):
    """AzurePowerShellCredential: whoever signed in with `Connect-AzAccount`."""

    kind: Literal["azure-powershell"]


class InteractiveSettings(_Authority):
    """What needs a person. Renewed on demand: nobody is asked while nobody connects."""

    tenant_id: Tenant | None = Field(None, description="The tenant; by default the person's own.")
    client_id: Name | None = Field(
        None, description="Client id of the application to sign in to; by default a common one."
    )
    timeout: Whole = Field(300, ge=1, description="Seconds to wait for the person.")
    refresh: Literal["background", "on-demand"] = Field(
        "on-demand",
        description=(
            "When tokens are renewed: on-demand, at the next connect; background, on time, "
            "though it may have to ask a person."
        ),
    )


class InteractiveBrowserSettings(InteractiveSettings):
    """InteractiveBrowserCredential: a person signs in with a browser."""

    kind: Literal["interactive-browser"]
    redirect_uri: Name | None = Field(
        None, description="The application's redirect URI, on this machine."
    )
    login_hint: Name | None = Field(None, description="The user name to suggest.")


class DeviceCodeSettings(InteractiveSettings):
    """DeviceCodeCredential: a person signs in elsewhere, with a code shown here."""

    kind: Literal["device-code"]


class PasswordSettings(CredentialSection):
    """A fixed password: for a local PostgreSQL."""

    kind: Literal["password"]
    password: SecretText = Field(
        description="The password; from the environment, .env or a secrets directory."
    )


class NoneSettings(CredentialSection):
    """Nothing is sent: for a local PostgreSQL that trusts its clients."""

    kind: Literal["none"]


CredentialSettings = Annotated[
    DefaultCredentialSettings
    | ManagedIdentitySettings
    | WorkloadIdentitySettings
    | ClientSecretSettings
    | ClientCertificateSettings
    | EnvironmentSettings
    | AzureCliSettings
    | AzureDeveloperCliSettings
    | AzurePowerShellSettings
    | InteractiveBrowserSettings
    | DeviceCodeSettings
    | PasswordSettings
    | NoneSettings,
    Field(discriminator="kind"),
]


def _kinds() -> dict[str, type[BaseModel]]:
    union: Any = CredentialSettings
    models = union.__origin__.__args__
    return {model.model_fields["kind"].annotation.__args__[0]: model for model in models}


KINDS: dict[str, type[BaseModel]] = _kinds()
"""The model of each kind."""

FIELDS: frozenset[str] = frozenset(name for model in KINDS.values() for name in model.model_fields)
"""The fields of all kinds."""


def fields_of(kind: str) -> frozenset[str]:
    """The fields that a kind has; none if there is no such kind."""
    return frozenset(KINDS[kind].model_fields) if kind in KINDS else frozenset()


def kinds_with(field: str) -> list[str]:
    """The credential kinds that have a field."""
    return [kind for kind, model in KINDS.items() if field in model.model_fields]
