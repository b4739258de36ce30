"""Tells what a drop-in class adds to a driver's parameters, for a credential object.

Such a class has no close and no settings: tokens are kept as long as the credential lives, and
renewed on demand; the rest is what the caller wrote, and what libpq's environment says of TLS.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from azpgauth.errors import CredentialValueError, EntraConnectionValueError, RoleError, TokenError
from azpgauth.identity.credential import is_async, is_credential, source_of
from azpgauth.identity.diagnosis import needs_loop
from azpgauth.identity.login import TokenLogin
from azpgauth.runtime.redacted import Redacted
from azpgauth.server.clouds import CLOUDS, PGBOUNCER_PORTS, cloud_of
from azpgauth.server.roots import Roots, default_roots
from azpgauth.server.tls import ENCRYPTING, Tls

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from azpgauth.identity.login import Grant
    from azpgauth.runtime.waiting import Wait
    from azpgauth.server.tls import SslMode

__all__ = ["Entry", "Given", "check_credential", "entry_of", "named_servers", "tls_of"]

_TOKEN_TIMEOUT = 60.0
"""Seconds to wait for a token: longer than any of azure-identity's own attempts should take."""


class _EntraLogin(TokenLogin):
    """Raises what the drop-in classes' users catch."""

    async def grant(self, wait: Wait) -> Grant:
        """The present token and its role."""
        try:
            return await super().grant(wait)
        except (TokenError, RoleError) as exc:
            raise EntraConnectionValueError(str(exc)) from exc


@dataclass(frozen=True)
class Entry:
    """What a drop-in class adds to the caller's parameters.

    Attributes:
        login: Where role and token come from.
        tls: What TLS to demand.
        hosts: The servers that the caller named.
        hostaddr: Their addresses, if the caller gave them too.
        password: The caller's own password, used instead of the token.
    """

    login: TokenLogin
    tls: Tls
    hosts: tuple[str, ...]
    hostaddr: str = ""
    password: str | None = field(default=None, repr=False)

    def libpq(self, grant: Grant, trusted: str) -> dict[str, str | None]:
        """The keywords to add, for libpq."""
        if self.password is not None:  # the caller's own: so is how it travels
            return {"user": grant.role}
        return {
            # Pinned: PGHOSTADDR would lead elsewhere, and PGHOST may have changed meanwhile.
            "host": ",".join(self.hosts),
            "hostaddr": self.hostaddr,
            "user": grant.role,
            "password": grant.password,
            **self.tls.libpq(trusted),
            "gssencmode": "disable",  # Kerberos' encryption is not TLS, and verifies nothing here
        }


class Given:
    """What the caller of a drop-in class gave; it may hold secrets, which its repr does not.

    Args:
        conninfo: As for the driver.
        credential: The credential.
        kwargs: Further arguments for the driver.
        parse: Reads a conninfo.
    """

    def __init__(
        self,
        conninfo: str,
        credential: Any,
        kwargs: dict[str, Any],
        parse: Callable[[str], Mapping[str, Any]],
    ) -> None:
        self._conninfo = conninfo
        self._credential = credential
        self._kwargs = kwargs
        self._parse = parse

    def __repr__(self) -> str:
        return f"<arguments {', '.join(self._kwargs)}>"

    def says(self, name: str) -> bool:
        """Whether the caller gave an argument of this name."""
        return name in self._kwargs

    def entry(self, *, on_loop: bool = False) -> Entry | None:
        """What to add to it."""
        return entry_of(self._credential, self._parameters(), on_loop=on_loop)

    def call(self, connect: Callable[..., Any], added: Mapping[str, Any] | None = None) -> Any:
        """Connect with it, and with what is added."""
        return connect(self._conninfo, **{**self._kwargs, **(added or {})})

    def _parameters(self) -> dict[str, Any]:
        said = {name: value for name, value in self._kwargs.items() if value is not None}
        return {**self._parse(self._conninfo), **said}


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
        raise CredentialValueError(str(needs_loop(type(credential).__name__)))


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
        EntraConnectionValueError: No server is named, or the token would travel unprotected.
    """
    # A traceback shows locals, and the environment and many a credential hold a secret.
    given = Redacted((credential, parameters))
    del credential, parameters
    entry, error = _entry_or_error(given, on_loop=on_loop)
    if error is not None:
        raise error
    return entry


def _entry_or_error(
    given: Redacted[tuple[object, Mapping[str, Any]]], *, on_loop: bool
) -> tuple[Entry | None, Exception | None]:
    try:
        return _entry_of(*given.held, on_loop=on_loop), None
    except (CredentialValueError, EntraConnectionValueError) as exc:
        return None, exc.with_traceback(None)


def _entry_of(credential: object, parameters: Mapping[str, Any], *, on_loop: bool) -> Entry | None:
    check_credential(credential, on_loop=on_loop)
    user, password = parameters.get("user"), parameters.get("password")
    if user and password:
        return None
    hosts = named_servers(parameters, os.environ)
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
    return Entry(login, tls, hosts, str(parameters.get("hostaddr") or ""), password or None)


def named_servers(parameters: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[str, ...]:
    """The servers that the caller names; what leads elsewhere is refused. Pure.

    Where no host is named, libpq and asyncpg go to whatever listens in a folder of this machine, to
    an address that no certificate is for, or where a service file says.
    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-HOST

    Args:
        parameters: The caller's, in libpq's names; an empty value is said, None is not.
        environ: `PGHOST` counts as the caller's word.

    Raises:
        EntraConnectionValueError: No server is named, or not by each place of the list.
    """
    if parameters.get("service") is not None or "PGSERVICE" in environ:
        where = "service" if parameters.get("service") is not None else "PGSERVICE"
        raise EntraConnectionValueError(
            f"{where} names a service file, which may lead the token anywhere: remove it, and give "
            "what the service says as arguments (host, port, dbname, ...)"
        )
    said, where = parameters.get("host"), "host"
    if said is None:
        said, where = environ.get("PGHOST"), "PGHOST"
    if said is None:
        alone = (
            "hostaddr alone names no server" if parameters.get("hostaddr") else "no server is named"
        )
        raise EntraConnectionValueError(
            f"{alone}, and a token goes to a named one only: {_NAME_IT}"
        )
    names = tuple(name.strip() for each in _listed(said) for name in each.split(","))
    if not names or not all(names):
        raise EntraConnectionValueError(
            f"{where} is empty, or has an empty place in its list, where a server of this machine "
            f"would get the token: {_NAME_IT}"
        )
    if any(_is_socket(name) for name in names):
        raise EntraConnectionValueError(
            f"{where} is a socket's folder, where no TLS protects the token: {_NAME_IT}"
        )
    return names


_NAME_IT = "name the server in host (as argument, in the conninfo or URL) or in PGHOST"


def _listed(said: object) -> list[str]:
    return [str(each) for each in said] if isinstance(said, (list, tuple)) else [str(said)]


def _is_socket(name: str) -> bool:
    """Whether libpq takes it for a socket: a path, also one of Windows, or an abstract name."""
    bare = name.lstrip("[")  # asyncpg takes the brackets of an IPv6 address off
    return bare.startswith(("/", "@", "\\")) or bare[1:3] in {":/", ":\\"}


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
    mode = parameters.get("sslmode") or environ.get("PGSSLMODE") or "verify-full"
    if mode not in ENCRYPTING:
        raise EntraConnectionValueError(
            f"sslmode={mode} does not protect the token: use verify-full "
            "(the default), verify-ca or require"
        )
    roots = parameters.get("sslrootcert") or environ.get("PGSSLROOTCERT")
    if roots and roots != "system":  # which leads nowhere in the drivers' wheels
        # In libpq, `require` beside a root file verifies the certificate: so in every driver.
        meant = "verify-ca" if mode == "require" else mode
        return Tls(cast("SslMode", meant), Roots(str(roots)))
    return Tls(cast("SslMode", mode), Roots("") if mode == "require" else default_roots(hosts))
