"""Lists what servers and drivers say on a failed connect, and what each of it means. Pure.

libpq's drivers give no SQLSTATE on a failed connect, so the text decides; the wording varies by the
server's generation and is matched loosely. The first row that matches counts, so rows of which one
can stand in the same text as another come in order of weight. No other module matches such a text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from azpgauth.errors import FaultLayer

__all__ = ["ROWS", "Diagnosis", "Mend"]

Mend = Literal["waiting", "token", "roots", "host"]


@dataclass(frozen=True)
class Diagnosis:
    """What a failed connect means.

    Attributes:
        cause: What is wrong, in the user's terms; empty if the driver's words are all there is.
        remedy: What to do about it; `{role}` and `{name}` are the role, quoted as a literal and as
            an identifier, `{options}` the statements that set a session's options on the role.
        layer: What is at fault.
        mended_by: What may mend it without anybody's doing: waiting for some seconds, another token
            than a cached one, more trusted roots, another host of several.
    """

    cause: str
    remedy: str
    layer: FaultLayer = "database"
    mended_by: frozenset[Mend] = frozenset()


def _row(
    layer: FaultLayer, pattern: str, cause: str, remedy: str, mended_by: tuple[Mend, ...] = ()
) -> tuple[re.Pattern[str], Diagnosis]:
    compiled = re.compile(pattern, re.IGNORECASE)
    return compiled, Diagnosis(cause, remedy, layer, frozenset(mended_by))


_NO_ROLE = (
    "in database postgres, as an administrator: select * from "
    "pgaadauth_create_principal('{role}', false, false); or set database.user "
    "(AZPG_DATABASE_USER) to the role that exists; names are case-sensitive"
)

ROWS: tuple[tuple[re.Pattern[str], Diagnosis], ...] = (
    _row(
        "database",
        r"unsupported startup parameter",
        "PgBouncer stands between, and refuses what a session would begin with",
        "remove database.options, and set them on the role instead: {options}",
    ),
    _row(
        "database",
        r"partial pkt in startup phase",
        "PgBouncer before its fix of July 2026 refuses a password as long as this token",
        "set server.port to 5432, or sign in with an identity that is in fewer groups, such as a "
        "managed one",
    ),
    _row(
        "database",
        r"server\.target_session_attrs wants",
        "the server is not the one that server.target_session_attrs wants",
        "set server.target_session_attrs (AZPG_SERVER_TARGET_SESSION_ATTRS) to any, or to "
        "prefer-standby for a reader; or name the other server in server.host, too",
        mended_by=("waiting", "host"),
    ),
    _row(
        "database",
        r"invalid value for parameter|unrecognized configuration parameter"
        r"|parameter \"[^\"]*\" (cannot be|requires)|permission denied to set (parameter|role)",
        "the server refuses an option that the session begins with",
        "check database.options (AZPG_DATABASE_OPTIONS), and what was set on the role and the "
        "database with alter role and alter database",
    ),
    _row(
        "identity",
        r"access token has expired",
        "the server says that the token has expired",
        "check this machine's clock",
        mended_by=("token",),
    ),
    _row(
        "identity",
        r"valid audience claim",
        "the token is for another service or another cloud",
        "check credential.scope and server.cloud; leave both unset for the public cloud",
        mended_by=("token",),
    ),
    _row(
        "identity",
        r"valid oid claim|validating the access token",
        "the server could not read the password as a token of Microsoft Entra ID",
        "check credential.kind; the role must have been made with pgaadauth_create_principal",
        mended_by=("token",),
    ),
    _row(
        "identity",
        r"cannot generate AAD_AUTH_TOKENTYPE_APP_USER",
        "a user's token was used on a service's role",
        "set database.user to the role made for the identity that signs in",
        mended_by=("token",),
    ),
    _row(
        "identity",
        r"neither an AAD_AUTH_TOKENTYPE_APP_USER",
        "a service's token was used on a user's role",
        "set database.user to the role made for the identity that signs in",
        mended_by=("token",),
    ),
    _row(
        "identity",
        r"oid mismatch",
        "the identity was deleted and made again since its role was created",
        "drop the role and make it again with pgaadauth_create_principal",
        mended_by=("token",),
    ),
    _row(
        "identity",
        r"no password supplied|password is required|empty password returned",
        "the server wants a password, and none was sent",
        "set credential.kind (AZPG_CREDENTIAL_KIND): none sends nothing",
    ),
    _row(
        "identity",
        r"not permitted to log in",
        "the role may not log in",
        'as an administrator: alter role "{name}" login',
    ),
    _row(
        "identity",
        r"password authentication failed|authentication failed",
        "the role does not exist on the server, or is not the token's",
        _NO_ROLE,
        mended_by=("token",),
    ),
    _row(
        "identity",
        r'role "[^"]*" does not exist',
        "the role does not exist on the server, or is not the token's",
        _NO_ROLE,
    ),
    _row(
        "database",
        r"no pg_hba.conf entry",
        "the server does not let this address, role and database in",
        "check the server's firewall rules, its TLS setting and the database's name",
    ),
    _row(
        "database",
        r"database \"[^\"]*\" does not exist",
        "the server has no such database",
        "check database.name (AZPG_DATABASE_NAME)",
    ),
    _row(
        "tls",
        r"server does not support SSL|rejected SSL upgrade|SSL was required",
        "the server offers no TLS, and a token never travels in clear",
        "check server.host and server.port: is this the Azure server itself? A server of your own "
        "without TLS takes credential.kind password or none, and AZPG_SERVER_SSLMODE=prefer",
    ),
    _row(
        "tls",
        r"server certificate for .* does not match host name|hostname mismatch|IP address mismatch",
        "the server's certificate is for another name",
        "set server.host to the server's full name, NAME.postgres.database.azure.com, not to an "
        "address or an alias",
    ),
    _row(
        "tls",
        r"certificate has expired",
        "the server's certificate has expired",
        "have it renewed; check this machine's clock",
        mended_by=("roots",),
    ),
    _row(
        "tls",
        r"certificate is not yet valid",
        "the server's certificate is not valid yet",
        "check this machine's clock",
    ),
    _row(
        "tls",
        r"NO_CERTIFICATE_OR_CRL_FOUND|no certificate or crl found",
        "the file of trusted roots has no certificate in it",
        "check server.sslrootcert: it is to be a PEM file, or auto",
    ),
    _row(
        "tls",
        r"certificate verify failed|unable to get local issuer",
        "the server's certificate is signed by none of the trusted roots",
        "check server.host; is a proxy in between? server.sslrootcert names a PEM file of other "
        "roots",
        mended_by=("roots",),
    ),
    _row(
        "tls",
        r"root certificate file .* does not exist|could not read root certificate",
        "the file of trusted roots cannot be read",
        "check server.sslrootcert",
        mended_by=("roots",),
    ),
    _row(
        "network",
        r"resolve host|translate host name|name or service not known|nodename nor servname"
        r"|name resolution|getaddrinfo|no address associated",
        "the host's name is unknown",
        "check server.host (AZPG_SERVER_HOST), and this machine's DNS; a private server is known "
        "only inside its network",
        mended_by=("host",),
    ),
    _row(
        "network",
        r"on socket \"[^\"]*\" failed: No such file",
        "there is no such socket",
        "check server.host, the socket's folder, and server.port, which is in its name",
        mended_by=("host",),
    ),
    _row(
        "database",
        r"too many connections for role",
        "the role's own limit of connections is reached",
        'lower pool.max_size, or raise it: alter role "{name}" connection limit 50',
        mended_by=("waiting", "host"),
    ),
    _row(
        "database",
        r"no more connections allowed|max_client_conn",
        "PgBouncer has no free place for a client",
        "lower pool.max_size, or raise max_client_conn on the server",
        mended_by=("waiting", "host"),
    ),
    _row(
        "database",
        r"server_login_retry|server login has been failing|cannot connect to server"
        r"|query_wait_timeout|client_login_timeout|server conn crashed|pgbouncer is shutting down",
        "PgBouncer has no connection to the server",
        "try again in a moment; if it goes on, see whether the server runs",
        mended_by=("waiting", "host"),
    ),
    _row(
        "database",
        r"remaining connection slots|too many (clients|connections)",
        "the server has no free connection",
        "lower pool.max_size",
        mended_by=("waiting", "host"),
    ),
    _row(
        "database",
        r"database system is (starting up|shutting down|in recovery|not (yet )?accepting)",
        "the server is starting or stopping",
        "try again in a moment",
        mended_by=("waiting", "host"),
    ),
    _row(
        "network",
        r"connection refused|connect call failed|no route to host|network is unreachable"
        r"|host is down",
        "nothing answers there",
        "check server.port (AZPG_SERVER_PORT), the server's state and its firewall",
        mended_by=("waiting", "host"),
    ),
    _row(
        "network",
        r"timeout expired|timed out|timeout",
        "no answer in time",
        "check the server's firewall rules and private endpoint: packets seem to be dropped; "
        "server.connect_timeout says how long to wait",
        mended_by=("waiting", "host"),
    ),
    _row(
        "network",
        r"server closed the connection|connection reset|connection to server was lost"
        r"|SSL SYSCALL error|SSL error: unexpected eof|broken pipe|terminating connection"
        r"|connection was closed|unexpected connection_lost|could not receive data",
        "the connection was dropped",
        "try again in a moment",
        mended_by=("waiting", "host"),
    ),
    _row(
        "identity",
        r"access token|audience claim|oid claim|AAD_AUTH_TOKENTYPE",
        "the server refused the token",
        "check credential.kind and database.user: is the role the one of the identity that signs "
        "in?",
        mended_by=("token",),
    ),
)
"""The patterns, and what a text that one of them matches means."""
