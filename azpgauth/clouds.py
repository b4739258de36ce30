"""What differs between Azure's clouds: the names of servers, the token's scope, the roots. Pure.

Roots: https://learn.microsoft.com/azure/postgresql/security/security-tls
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CLOUDS", "MANAGEMENT_SCOPE", "Cloud", "cloud_of"]

_DIGICERT_G2 = "cb3ccbb76031e5e0138f8dd39a23f9de47ffc35e43c1144cea27d46a5ab1cb5f"
_MICROSOFT_RSA_2017 = "c741f70f4b2a8d88bf2e71c14122ef53ef10eba0cfa5e64cfa20f418853073e0"
_DIGICERT_GLOBAL = "4348a0e9444c78cb265e058d5e8944b4d84f9662bd26db257f8934a443c70161"


@dataclass(frozen=True)
class Cloud:
    """One of Azure's clouds.

    Attributes:
        suffix: How the names of its servers end.
        scope: What a token for its databases is asked for.
        roots: SHA-256 of the root certificates its servers' certificates lead to, in hex.
    """

    suffix: str
    scope: str
    roots: frozenset[str]


CLOUDS = {
    "public": Cloud(
        ".postgres.database.azure.com",
        "https://ossrdbms-aad.database.windows.net/.default",
        frozenset({_DIGICERT_G2, _MICROSOFT_RSA_2017}),
    ),
    "usgov": Cloud(
        ".postgres.database.usgovcloudapi.net",
        "https://ossrdbms-aad.database.usgovcloudapi.net/.default",
        frozenset({_DIGICERT_G2, _MICROSOFT_RSA_2017}),
    ),
    "china": Cloud(
        ".postgres.database.chinacloudapi.cn",
        "https://ossrdbms-aad.database.chinacloudapi.cn/.default",
        frozenset({_DIGICERT_G2, _MICROSOFT_RSA_2017, _DIGICERT_GLOBAL}),
    ),
}
"""Azure's clouds by name."""

MANAGEMENT_SCOPE = "https://management.azure.com/.default"
"""A token of this scope names the identity where the database's token does not."""


def cloud_of(host: str) -> str | None:
    """The name of the cloud that a server is in, by its host's suffix; None if in none.

    Example:
        >>> cloud_of("shop.postgres.database.azure.com")
        'public'
    """
    name = host.lower().rstrip(".")
    for cloud, facts in CLOUDS.items():
        if name.endswith(facts.suffix):
            return cloud
    return None
