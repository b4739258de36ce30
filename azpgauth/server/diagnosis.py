"""A failed connect, from the driver's words to cause and remedy. Pure.

libpq's drivers give no SQLSTATE on a failed connect, so the text decides; the wording varies by the
server's generation and is matched loosely. What the first matching row says holds, so rows of
which one can stand in the same text as another come in order of weight.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

__all__ = ["Diagnosis", "Layer", "diagnose", "diagnose_token", "retry_delay"]


Layer = Literal["network", "tls", "identity", "database"]


@dataclass(frozen=True)
class Diagnosis:
    """What a failed connect means.

    Attributes:
        cause: What is wrong, in the user's terms; empty if the driver's words are all there is.
        remedy: What to do about it.
        passing: Whether it may pass by itself within seconds.
        layer: What is at fault.
    """

    cause: str
    remedy: str
    passing: bool = False
    layer: Layer = "database"


_UNKNOWN = Diagnosis("", "")
_WRONG_PASSWORD = Diagnosis(
    "the role does not exist on the server, or its password is another",
    "check database.user (AZPG_DATABASE_USER) and credential.password (AZPG_CREDENTIAL_PASSWORD)",
    layer="identity",
)

_TABLE: tuple[tuple[str, Diagnosis], ...] = (
    (
        r"partial pkt in startup phase",
        Diagnosis(
            "PgBouncer before its fix of July 2026 refuses a password as long as this token",
            "set server.port to 5432, or sign in with an identity that is in fewer groups, "
            "such as a managed one",
        ),
    ),
    (
        r"access token has expired",
        Diagnosis(
            "the server says that the token has expired",
            "check this machine's clock",
            layer="identity",
        ),
    ),
    (
        r"valid audience claim",
        Diagnosis(
            "the token is for another service or another cloud",
            "check credential.scope and server.cloud; leave both unset for the public cloud",
            layer="identity",
        ),
    ),
    (
        r"valid oid claim|validating the access token",
        Diagnosis(
            "the server could not read the password as a token of Microsoft Entra ID",
            "check credential.kind; the role must have been made with pgaadauth_create_principal",
            layer="identity",
        ),
    ),
    (
        r"cannot generate AAD_AUTH_TOKENTYPE_APP_USER",
        Diagnosis(
            "a user's token was used on a service's role",
            "set database.user to the role made for the identity that signs in",
            layer="identity",
        ),
    ),
    (
        r"neither an AAD_AUTH_TOKENTYPE_APP_USER",
        Diagnosis(
            "a service's token was used on a user's role",
            "set database.user to the role made for the identity that signs in",
            layer="identity",
        ),
    ),
    (
        r"oid mismatch",
        Diagnosis(
            "the identity was deleted and made again since its role was created",
            "drop the role and make it anew with pgaadauth_create_principal",
            layer="identity",
        ),
    ),
    (
        r"no password supplied|password is required|empty password returned",
        Diagnosis(
            "the server wants a password, and none was sent",
            "set credential.kind (AZPG_CREDENTIAL_KIND): none sends nothing",
            layer="identity",
        ),
    ),
    (
        r"not permitted to log in",
        Diagnosis(
            "the role may not log in",
            'as an administrator: alter role "{name}" login',
            layer="identity",
        ),
    ),
    (
        r"password authentication failed|role \"[^\"]*\" does not exist|authentication failed",
        Diagnosis(
            "the role does not exist on the server, or is not the token's",
            "in database postgres, as an administrator: "
            "select * from pgaadauth_create_principal('{role}', false, false); "
            "or set database.user (AZPG_DATABASE_USER) to the role that exists; "
            "names are case-sensitive",
            layer="identity",
        ),
    ),
    (
        r"no pg_hba.conf entry",
        Diagnosis(
            "the server does not let this address, role and database in",
            "check the server's firewall rules, its TLS setting and the database's name",
        ),
    ),
    (
        r"database \"[^\"]*\" does not exist",
        Diagnosis("the server has no such database", "check database.name (AZPG_DATABASE_NAME)"),
    ),
    (
        r"server does not support SSL|rejected SSL upgrade|SSL was required",
        Diagnosis(
            "the server offers no TLS, and a token never travels in clear",
            "check server.host and server.port: is this the Azure server itself?",
            layer="tls",
        ),
    ),
    (
        r"server certificate for .* does not match host name|hostname mismatch|IP address mismatch",
        Diagnosis(
            "the server's certificate is for another name",
            "set server.host to the server's full name, NAME.postgres.database.azure.com, "
            "not to an address or an alias",
            layer="tls",
        ),
    ),
    (
        r"certificate has expired",
        Diagnosis(
            "the server's certificate has expired",
            "have it renewed; check this machine's clock",
            layer="tls",
        ),
    ),
    (
        r"certificate is not yet valid",
        Diagnosis(
            "the server's certificate is not valid yet", "check this machine's clock", layer="tls"
        ),
    ),
    (
        r"NO_CERTIFICATE_OR_CRL_FOUND|no certificate or crl found",
        Diagnosis(
            "the file of trusted roots has no certificate in it",
            "check server.sslrootcert: it is to be a PEM file, or auto",
            layer="tls",
        ),
    ),
    (
        r"certificate verify failed|unable to get local issuer",
        Diagnosis(
            "the server's certificate is signed by none of the trusted roots",
            "check server.host; is a proxy in between? "
            "server.sslrootcert names a PEM file of other roots",
            layer="tls",
        ),
    ),
    (
        r"root certificate file .* does not exist|could not read root certificate",
        Diagnosis(
            "the file of trusted roots cannot be read", "check server.sslrootcert", layer="tls"
        ),
    ),
    (
        (
            r"resolve host|translate host name|name or service not known|nodename nor servname"
            r"|name resolution|getaddrinfo"
        ),
        Diagnosis(
            "the host's name is unknown",
            "check server.host (AZPG_SERVER_HOST), and this machine's DNS; "
            "a private server is known only inside its network",
            layer="network",
        ),
    ),
    (
        r"on socket \"[^\"]*\" failed: No such file",
        Diagnosis(
            "there is no such socket",
            "check server.host, the socket's folder, and server.port, which is in its name",
            layer="network",
        ),
    ),
    (
        r"too many connections for role",
        Diagnosis(
            "the role's own limit of connections is reached",
            'lower pool.max_size, or raise it: alter role "{name}" connection limit 50',
            passing=True,
        ),
    ),
    (
        r"remaining connection slots|too many (clients|connections)",
        Diagnosis("the server has no free connection", "lower pool.max_size", passing=True),
    ),
    (
        r"database system is (starting up|shutting down|in recovery|not yet accepting)",
        Diagnosis("the server is starting or stopping", "try again in a moment", passing=True),
    ),
    (
        (
            r"connection refused|connect call failed|no route to host|network is unreachable"
            r"|host is down"
        ),
        Diagnosis(
            "nothing answers there",
            "check server.port (AZPG_SERVER_PORT), the server's state and its firewall",
            passing=True,
            layer="network",
        ),
    ),
    (
        r"timeout expired|timed out|timeout",
        Diagnosis(
            "no answer in time",
            "check the server's firewall rules and private endpoint: packets seem to be dropped; "
            "server.connect_timeout says how long to wait",
            passing=True,
            layer="network",
        ),
    ),
    (
        (
            r"server closed the connection|connection reset|connection to server was lost"
            r"|SSL SYSCALL error|SSL error: unexpected eof|broken pipe|terminating connection"
            r"|connection was closed|unexpected connection_lost|could not receive data"
        ),
        Diagnosis(
            "the connection was dropped", "try again in a moment", passing=True, layer="network"
        ),
    ),
)

_ROWS = tuple((re.compile(pattern, re.IGNORECASE), diagnosis) for pattern, diagnosis in _TABLE)


def diagnose(message: str, role: str | None = None, *, token: bool = True) -> Diagnosis:
    """What a failed connect means.

    Args:
        message: The driver's words, with the server's in them.
        role: Who wanted in, for what there is to run.
        token: Whether a token was the password.

    Example:
        >>> diagnose('FATAL:  database "shop" does not exist').cause
        'the server has no such database'
    """
    for pattern, diagnosis in _ROWS:
        if pattern.search(message):
            if diagnosis.layer == "identity" and "{role}" in diagnosis.remedy and not token:
                return _WRONG_PASSWORD
            literal = (role or "ROLE").replace("'", "''")
            name = (role or "ROLE").replace('"', '""')
            remedy = diagnosis.remedy.replace("{role}", literal).replace("{name}", name)
            return replace(diagnosis, remedy=remedy)
    return _UNKNOWN


_TOKENS = tuple(
    (re.compile(pattern, re.IGNORECASE), Diagnosis(cause, remedy, layer="identity"))
    for pattern, cause, remedy in (
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
            "there is no such tenant there",
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
                "check that this machine reaches its identity endpoint, or "
                "login.microsoftonline.com; pool.timeout says how long to wait"
            ),
        ),
    )
)


def diagnose_token(message: str) -> Diagnosis:
    """What it means that there is no token.

    Args:
        message: The words of the error.

    Example:
        >>> diagnose_token("Please run 'az login' to set up an account").remedy
        'sign in as it says'
    """
    for pattern, diagnosis in _TOKENS:
        if pattern.search(message):
            return diagnosis
    return Diagnosis("", "check credential.kind and what belongs to it", layer="identity")


def retry_delay(attempt: int, left: float) -> float | None:
    """Seconds to wait before the next attempt; None if there is no time for one.

    Args:
        attempt: How many attempts have failed.
        left: Seconds that are left for all further attempts.
    """
    delay = min(0.1 * 2 ** min(attempt - 1, 10), 1.0)
    return delay if delay < left else None
