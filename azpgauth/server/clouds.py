"""Lists what differs between Azure's clouds: names, scopes, authorities, roots. Pure.

Roots: https://learn.microsoft.com/azure/postgresql/security/security-tls
Authorities: https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CLOUDS", "PGBOUNCER_PORTS", "Cloud", "cloud_of", "full_scope", "is_pooled"]

PGBOUNCER_PORTS = frozenset({6432, 8432})
"""Where PgBouncer listens; 8432 on elastic clusters.

https://learn.microsoft.com/azure/postgresql/connectivity/concepts-pgbouncer
"""

_DIGICERT_G2 = "cb3ccbb76031e5e0138f8dd39a23f9de47ffc35e43c1144cea27d46a5ab1cb5f"
_MICROSOFT_RSA_2017 = "c741f70f4b2a8d88bf2e71c14122ef53ef10eba0cfa5e64cfa20f418853073e0"
_DIGICERT_GLOBAL = "4348a0e9444c78cb265e058d5e8944b4d84f9662bd26db257f8934a443c70161"


@dataclass(frozen=True)
class Cloud:
    """One of Azure's clouds.

    Attributes:
        suffix: How the names of its servers end.
        scope: What a token for its databases is asked for.
        management_scope: A token of this scope names the identity where the database's does not.
        authority: Where its users and applications get their tokens.
        roots: SHA-256 of the root certificates its servers' certificates lead to, in hex.
    """

    suffix: str
    scope: str
    management_scope: str
    authority: str
    roots: frozenset[str]


CLOUDS = {
    "public": Cloud(
        ".postgres.database.azure.com",
        "https://ossrdbms-aad.database.windows.net/.default",
        "https://management.azure.com/.default",
        "https://login.microsoftonline.com",
        frozenset({_DIGICERT_G2, _MICROSOFT_RSA_2017}),
    ),
    "usgov": Cloud(
        ".postgres.database.usgovcloudapi.net",
        "https://ossrdbms-aad.database.usgovcloudapi.net/.default",
        "https://management.usgovcloudapi.net/.default",
        "https://login.microsoftonline.us",
        frozenset({_DIGICERT_G2, _MICROSOFT_RSA_2017}),
    ),
    "china": Cloud(
        ".postgres.database.chinacloudapi.cn",
        "https://ossrdbms-aad.database.chinacloudapi.cn/.default",
        "https://management.chinacloudapi.cn/.default",
        "https://login.chinacloudapi.cn",
        frozenset({_DIGICERT_G2, _MICROSOFT_RSA_2017, _DIGICERT_GLOBAL}),
    ),
}
"""Azure's clouds by name."""


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


def full_scope(scope: str) -> str:
    """A scope as Entra ID wants it: the resource, without a slash at its end, and `/.default`.

    Without `/.default` a service principal gets no token; with a slash before it the token's
    audience ends in one, and the server refuses it. A scope of another form is left as it is.

    Args:
        scope: The scope, or the resource alone, with or without its `https://`.

    Example:
        >>> full_scope("ossrdbms-aad.database.windows.net/")
        'https://ossrdbms-aad.database.windows.net/.default'
    """
    text = scope.strip()
    resource = text.removesuffix("/.default").rstrip("/")
    name = resource.partition("://")[2] or resource
    if "/" in name and not text.endswith("/.default"):
        return text  # one permission, such as /user_impersonation
    if "://" not in resource and "." in name:
        resource = f"https://{resource}"
    return f"{resource}/.default"


def is_pooled(said: bool | None, port: int | tuple[int, ...]) -> bool | None:
    """Whether PgBouncer stands between: as somebody said, or by the port; None is not known.

    Args:
        said: What the settings say.
        port: The server's port, or those of several: one of PgBouncer's is enough.
    """
    ports = port if isinstance(port, tuple) else (port,)
    return True if said is None and not PGBOUNCER_PORTS.isdisjoint(ports) else said
