"""Starts authority, gateway and server together, and ends them together: `Sandbox`."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

from azpgauth.errors import AzpgauthError, MissingDriverError
from azpgauth.sandbox.environment import APPLICATIONS, variables
from azpgauth.sandbox.postgres import wire
from azpgauth.sandbox.postgres.server import Server, new_folder

try:
    from azpgauth.sandbox.certificates import CertificateAuthority
    from azpgauth.sandbox.entra.authority import Authority
    from azpgauth.sandbox.entra.directory import Directory
    from azpgauth.sandbox.entra.identity import Identity, Issuer
    from azpgauth.sandbox.postgres.gateway import Gateway
    from azpgauth.sandbox.postgres.pgbouncer import PORT, PgBouncer
except ImportError as exc:
    raise MissingDriverError(
        f"the sandbox needs packages that are not installed ({exc}); "
        "run: pip install 'azpgauth[sandbox]'",
        name=exc.name,
    ) from exc

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

    from azpgauth.sandbox.environment import Credential, Endpoint
    from azpgauth.sandbox.postgres.gateway import Certificate

__all__ = ["Sandbox"]

DATABASE = "app"

AZURE_NAME = "sandbox.postgres.database.azure.com"
"""A name for tests that make it lead to loopback: the certificate holds for it, too."""


class Sandbox:
    """A local Entra ID with an Azure Database for PostgreSQL behind it.

    Args:
        identity: Who signs in; by default a user-assigned managed identity, `sandbox-app`. For a
            group, a member of it signs in.
        endpoint: Where azure-identity finds the managed identity: as on App Service, or as on a
            virtual machine (IMDS).
        pgbouncer: Whether a real PgBouncer stands between gateway and server, where the machine has
            the program; on port 6432 if that is free.
        standby: Whether there is a hot standby, behind a gateway of its own; the environment names
            both, the primary first.

    Attributes:
        authority: Hands out tokens; has faults and counts.
        directory: Who is known to the authority, with secrets, certificates and federated tokens.
        gateway: Takes connections; has faults and counts.
        server: PostgreSQL itself; of two, the primary.
        standby: The standby, if there is one.
        standby_gateway: Takes connections to the standby.
        pgbouncer: PgBouncer, if there is one.
        issuer: Signs tokens and checks them.
        identity: Who signs in.
        service_principal: Who signs in by the credentials that only applications have, if nobody
            is named: `sandbox-sp`.

    Raises:
        MissingDriverError: What `azpgauth[sandbox]` installs is not there, or PgBouncer's program.
        AzpgauthError: It did not start.

    Example:
        >>> with Sandbox() as box:  # doctest: +SKIP
        ...     box.gateway.mode = "starting-up"
        ...     subprocess.run(["python", "app.py"], env={**os.environ, **box.environment})
    """

    def __init__(
        self,
        *,
        identity: Identity | None = None,
        endpoint: Endpoint = "app-service",
        pgbouncer: bool = False,
        standby: bool = False,
    ) -> None:
        self.identity = identity or Identity()
        self.service_principal = (
            self.identity
            if self.identity.kind == "service-principal"
            else Identity("sandbox-sp", kind="service-principal")
        )
        self.endpoint = endpoint
        self._pooled = pgbouncer
        self.pgbouncer: PgBouncer | None = None
        self._wants_standby = standby
        self.standby: Server | None = None
        self.standby_gateway: Gateway | None = None
        self._poolers: dict[Server, PgBouncer] = {}
        self._moving: threading.Timer | None = None
        self._members: dict[Identity, Identity] = {}
        self._stack = ExitStack()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it; about a second."""
        if sys.platform == "win32":
            raise AzpgauthError("the sandbox runs on Linux and macOS")
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop it, and leave nothing behind. Once is enough, twice does no harm."""
        with self._lock:
            self._stack.close()

    def _start(self) -> None:
        folder = new_folder()
        self.server = Server(folder)
        self._stack.callback(self.server.stop)
        # RSA keys take a while to find: meanwhile the server starts.
        with ThreadPoolExecutor(1) as pool:
            issuer = pool.submit(Issuer)
            self.server.start()
            self.issuer = issuer.result()
        self.roles: dict[str, Identity] = {}
        self.directory = Directory(folder)
        self.add(self.identity)
        self.add(self.service_principal)
        owner = _quoted(self.identity.name)
        self.server.execute(f"create database {DATABASE} owner {owner} strategy wal_log")

        ours, foreign = CertificateAuthority("azpgauth sandbox"), CertificateAuthority("unknown")
        self._root = ours.write(folder / "ca.pem")
        local = ("localhost", "127.0.0.1", "::1", AZURE_NAME)
        good = ours.issue(folder / "good.pem", *local)
        speaking = self._member(self.identity) if self.identity.kind == "group" else self.identity
        self.authority = Authority(self.issuer, self.directory, speaking, good, folder)
        self._stack.callback(self.authority.stop)
        self.authority.start()
        if self._wants_standby:
            self.standby = Server(folder / "standby")
            self._stack.callback(self.standby.stop)
            self.standby.start_as_standby_of(self.server)
        if self._pooled:
            self._start_poolers(folder)
        self._certificates: dict[Certificate, Path] = {
            "good": good,
            "other-name": ours.issue(folder / "other-name.pem", "other.example"),
            "unknown-ca": foreign.issue(folder / "unknown-ca.pem", *local),
        }
        self.gateway = self._gateway(self.server, PORT if self.pgbouncer and _is_free(PORT) else 0)
        if self.standby is not None:
            self.standby_gateway = self._gateway(self.standby, 0)
            self._stack.callback(self._stay)

    def _start_poolers(self, folder: Path) -> None:
        """One before each server, as on Azure."""
        self.pgbouncer = self._poolers[self.server] = PgBouncer(folder, self.server.options)
        if self.standby is not None:
            pooler = PgBouncer(folder / "standby", self.standby.options)
            self._poolers[self.standby] = pooler
        for each in self._poolers.values():
            self._stack.callback(each.stop)
            each.start()

    def _gateway(self, server: Server, port: int) -> Gateway:
        gateway = Gateway(
            lambda password, role: self.issuer.refusal(password, role, self.roles),
            self._place(server),
            self._certificates,
            port,
        )
        self._stack.callback(gateway.stop)
        gateway.start()
        return gateway

    def _place(self, server: Server) -> str:
        return self._poolers[server].socket if server in self._poolers else server.socket

    def switchover(self, lag: float | None = 0.0, *, pause: float = 0.0) -> None:
        """Make the standby the primary, and the primary its standby; less than a second.

        Nothing that was written is lost. The names, which are the gateways, follow as in DNS:
        each leads to the other server then.

        Args:
            lag: Seconds for which the names still lead to where they led; None: for good, as the
                names of two servers do that are no endpoints of Azure's.
            pause: Seconds without a primary in between, as in a failover.

        Raises:
            AzpgauthError: There is no standby.

        Example:
            >>> with Sandbox(standby=True) as box:  # doctest: +SKIP
            ...     box.switchover(lag=4)
        """
        if self.standby is None:
            raise AzpgauthError("there is no standby: start it as Sandbox(standby=True)")
        self._stay()
        old, new = self.server, self.standby
        old.end()
        time.sleep(pause)
        new.promote()
        self.server, self.standby = new, old
        old.follow(new)
        if lag is not None:
            self._moving = threading.Timer(lag, self._move)
            self._moving.daemon = True
            self._moving.start()

    def _move(self) -> None:
        """Have each name lead to where it should."""
        self.gateway.lead_to(self._place(self.server))
        if self.standby is not None and self.standby_gateway is not None:
            self.standby_gateway.lead_to(self._place(self.standby))

    def _stay(self) -> None:
        if self._moving is not None:
            self._moving.cancel()

    def create_role(self, identity: Identity) -> None:
        """Make the PostgreSQL role of an identity, as `pgaadauth_create_principal` does.

        PostgreSQL keeps no more than 63 bytes of its name.
        """
        self.server.execute(f"create role {_quoted(identity.name)} login")
        self.roles[wire.identifier(identity.name)] = identity

    def add(self, identity: Identity) -> None:
        """Make an identity known: to PostgreSQL by its role, to the authority by its client id.

        Once is enough, twice does no harm.
        """
        if not self._has_role(identity):
            self.create_role(identity)
        if identity.kind != "group":
            self.directory.add(identity)

    def reset(self) -> None:
        """No faults, nothing counted: as if newly started, but for what is in the database."""
        self.authority.reset()
        self._stay()
        self._move()
        for gateway in filter(None, (self.gateway, self.standby_gateway)):
            gateway.reset()
            gateway.listen()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point azpgauth and azure-identity at this sandbox."""
        return self.environment_for("managed-identity")

    def environment_for(
        self, credential: Credential, *, identity: Identity | None = None
    ) -> dict[str, str]:
        """The variables by which azpgauth signs in here with one kind of credential.

        Args:
            credential: Its kind, as in AZPG_CREDENTIAL_KIND.
            identity: Who signs in, and is added if not known yet; of a group, a member. By default
                whoever the authority speaks for, or `service_principal` where only an application
                can.

        Raises:
            AzpgauthError: The identity cannot have such a credential.

        Example:
            >>> with Sandbox() as box:  # doctest: +SKIP
            ...     environment = box.environment_for("client-secret")
        """
        if identity is None and credential in APPLICATIONS:
            identity = self.service_principal
        who = identity or self.authority.identity
        if credential in APPLICATIONS and not who.is_application:
            raise AzpgauthError(
                f"{who.name} is not an application: it has no credential {credential}"
            )
        if who.kind == "group":
            identity = who = self._member(who)
        elif identity is not None and identity not in self.directory:
            self.add(identity)
        gateways = [self.gateway, *filter(None, [self.standby_gateway])]
        direct = [*os.environ.get("NO_PROXY", "").split(","), "localhost", "127.0.0.1"]
        return {
            "AZPG_SERVER_HOST": ",".join("localhost" for _ in gateways),
            "AZPG_SERVER_PORT": ",".join(str(gateway.port) for gateway in gateways),
            "AZPG_SERVER_SSLROOTCERT": str(self._root),
            "AZPG_DATABASE_NAME": DATABASE,
            **self._user(who),
            **variables(
                credential,
                identity,
                authority=self.authority,
                directory=self.directory,
                endpoint=self.endpoint,
                root=self._root,
            ),
            "NO_PROXY": ",".join(dict.fromkeys(filter(None, direct))),
        }

    def _user(self, identity: Identity) -> dict[str, str]:
        """Names the role of an identity, if its tokens do not."""
        roles = [each for each in (identity, *identity.groups) if self._has_role(each)]
        role = roles[0] if roles else identity
        if role is identity and identity.kind != "service-principal":
            return {}
        return {"AZPG_DATABASE_USER": role.name}

    def _member(self, group: Identity) -> Identity:
        """A user who has no role but that of the group."""
        self.add(group)
        member = self._members.setdefault(
            group, Identity("member@sandbox.example", kind="user", groups=(group,))
        )
        self.directory.add(member)
        return member

    def _has_role(self, identity: Identity) -> bool:
        return self.roles.get(wire.identifier(identity.name)) == identity


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
