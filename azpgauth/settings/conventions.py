"""Names that other tools already set, as a layer below our own settings.

Azure Service Connector tells a program of the identity it was given:
https://learn.microsoft.com/azure/service-connector/how-to-integrate-postgres
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from azpgauth.settings.sources import Layer, Value

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["convention_layer"]

_CREDENTIAL = {
    "AZURE_POSTGRESQL_CLIENTID": "client_id",
    "AZURE_POSTGRESQL_CLIENTSECRET": "client_secret",
    "AZURE_POSTGRESQL_TENANTID": "tenant_id",
}


def convention_layer(environ: Mapping[str, str]) -> Layer:
    """What Service Connector says of the credential.

    A client id alone is that of a user-assigned identity, one with a secret a service principal's.
    That is what `kind` is then, unless something above this layer names one.

    Args:
        environ: Variables and their values.
    """
    layer = Layer()
    for name, field in _CREDENTIAL.items():
        if environ.get(name, "").strip():
            origin = f"environment variable {name}"
            layer.values["credential", field] = Value(environ[name], origin)
    given = {field for _, field in layer.values}
    if "client_secret" in given:
        kind, telling = "client-secret", "AZURE_POSTGRESQL_CLIENTSECRET"
    elif "client_id" in given:
        kind, telling = "managed-identity", "AZURE_POSTGRESQL_CLIENTID"
    else:
        return layer
    layer.values["credential", "kind"] = Value(
        kind, f"environment variable {telling}, which implies it"
    )
    return layer
