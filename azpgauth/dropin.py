"""What the drop-in classes share: a credential object and a driver's parameters, to what to add.

They have no close and no settings: tokens are kept as long as the credential lives and renewed on
demand; the rest is what the caller wrote, and what libpq's environment says of TLS.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from azpgauth.clouds import CLOUDS, PGBOUNCER_PORTS, cloud_of
from azpgauth.errors import CredentialValueError, EntraConnectionValueError, RoleError, TokenError
from azpgauth.login import TokenLogin
from azpgauth.passed import is_async, is_credential, source_of
from azpgauth.tls import ENCRYPTING, Roots, Tls, default_roots

if TYPE_CHECKING:
    from collections.abc import Mapping

    from azpgauth.login import Grant
    from azpgauth.tls import SslMode

__all__ = ["Entry", "check_credential", "entry_of", "tls_of"]

_TOKEN_TIMEOUT = 60.0
"""Seconds to wait for a token: longer than any of azure-identity's own attempts should take."""


class _EntraLogin(TokenLogin):
    """Tells its failures in the words that the drop-in classes' users catch."""

    def grant(self) -> Grant:
        """The present token and its role."""
        try:
            return super().grant()
        except (TokenError, RoleError) as exc:
            raise EntraConnectionValueError(str(exc)) from exc

    async def agrant(self) -> Grant:
        """The present token and its role."""
        try:
            return await super().agrant()
        except (TokenError, RoleError) as exc:
            raise EntraConnectionValueError(str(exc)) from exc


@dataclass(frozen=True)
class Entry:
    """What a drop-in class adds to the caller's parameters.

    Attributes:
        login: Where role and token come from.
        tls: What TLS to demand.
        password: The caller's own password, used instead of the token.
    """

    login: TokenLogin
    tls: Tls
    password: str | None = field(default=None, repr=False)

    def libpq(self, grant: Grant, trusted: str) -> dict[str, str | None]:
        """The keywords to add, for libpq."""
        if self.password is not None:  # the caller's own: so is how it travels
            return {"user": grant.role}
        return {
            "user": grant.role,
            "password": grant.password,
            **self.tls.libpq(trusted),
            "gssencmode": "disable",  # Kerberos' encryption is not TLS, and verifies nothing here
        }


def check_credential(credential: object, *, on_loop: bool) -> None:
    """Refuse what gives no token here.

    Args:
        credential: What the caller passed.
        on_loop: Whether there is an event loop to await an async credential on.

    Raises:
        CredentialValueError: It is none, or an async one where nothing can be awaited.
    """
    if not is_credential(credential):
        got = "none was given" if credential is None else f"got {type(credential).__name__}"
        raise CredentialValueError(
            "credential is required, a TokenCredential such as "
            f"azure.identity.DefaultAzureCredential(); {got}"
        )
    if not on_loop and is_async(credential):
        raise CredentialValueError(
            f"{type(credential).__name__} is an async credential; a sync connection needs a "
            "TokenCredential, the one of the same name from azure.identity"
        )


def entry_of(
    credential: object, parameters: Mapping[str, Any], *, on_loop: bool = False
) -> Entry | None:
    """What to add to a caller's parameters; None if they have user and password already.

    Args:
        credential: The caller's credential.
        parameters: What the caller says of the connection, in libpq's names.
        on_loop: Whether it is made on an event loop.

    Raises:
        CredentialValueError: See `check_credential`.
        EntraConnectionValueError: The token would travel unprotected.
    """
    check_credential(credential, on_loop=on_loop)
    user, password = parameters.get("user"), parameters.get("password")
    if user and password:
        return None
    hosts = _hosts(parameters)
    clouds = [cloud for host in hosts if (cloud := cloud_of(host))]
    facts = CLOUDS[clouds[0] if clouds else "public"]
    port = str(parameters.get("port") or os.environ.get("PGPORT") or "")
    login = _EntraLogin(
        source_of(credential, facts.scope),
        role=user or None,
        fallback=source_of(credential, facts.management_scope),
        timeout=_TOKEN_TIMEOUT,
        owner=credential,
        pgbouncer=any(port == str(each) for each in PGBOUNCER_PORTS),
    )
    tls = Tls("require", Roots("")) if password else tls_of(parameters, hosts, os.environ)
    return Entry(login, tls, password or None)


def _hosts(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    said = parameters.get("host") or parameters.get("hostaddr") or os.environ.get("PGHOST") or ""
    names = said.split(",") if isinstance(said, str) else said
    return tuple(host.strip() for host in names if host.strip())


def tls_of(
    parameters: Mapping[str, Any], hosts: tuple[str, ...], environ: Mapping[str, str]
) -> Tls:
    """The TLS to demand: what the caller says, within bounds; verified where nothing is said.

    Args:
        parameters: The caller's, in libpq's names.
        hosts: The servers' names.
        environ: `PGSSLMODE` and `PGSSLROOTCERT` count as the caller's word.

    Raises:
        EntraConnectionValueError: The token would travel unprotected.
    """
    if any(host.startswith(("/", "@")) for host in hosts):
        raise EntraConnectionValueError(
            "the host is a socket's folder, where no TLS protects the token: name the server"
        )
    mode = parameters.get("sslmode") or environ.get("PGSSLMODE") or "verify-full"
    if mode not in ENCRYPTING:
        raise EntraConnectionValueError(
            f"sslmode={mode} is no mode that protects the token: use verify-full "
            "(what holds if nothing is said), verify-ca or require"
        )
    roots = parameters.get("sslrootcert") or environ.get("PGSSLROOTCERT")
    if roots and roots != "system":  # which leads nowhere in the drivers' wheels
        # In libpq, `require` beside a root file verifies the certificate: so in every driver.
        meant = "verify-ca" if mode == "require" else mode
        return Tls(cast("SslMode", meant), Roots(str(roots)))
    return Tls(cast("SslMode", mode), Roots("") if mode == "require" else default_roots(hosts))
