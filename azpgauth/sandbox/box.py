"""Sandbox: authority, gateway and server, started together and gone together."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal

from azpgauth.errors import AzpgauthError, MissingDriverError
from azpgauth.sandbox.server import Server, new_folder

try:
    from azpgauth.sandbox.authority import Authority
    from azpgauth.sandbox.certificates import CertificateAuthority
    from azpgauth.sandbox.gateway import Gateway
    from azpgauth.sandbox.identity import Identity, Issuer
except ImportError as exc:
    raise MissingDriverError(
        f"the sandbox needs packages that are not installed ({exc}); "
        "run: pip install 'azpgauth[sandbox]'",
        name=exc.name,
    ) from exc

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Sandbox"]

DATABASE = "app"

AZURE_NAME = "sandbox.postgres.database.azure.com"
"""A name for tests that make it lead to loopback: the certificate holds for it, too."""


class Sandbox:
    """A local Entra ID with an Azure Database for PostgreSQL behind it.

    Args:
        identity: Who signs in; by default a user-assigned managed identity, `sandbox-app`.
        endpoint: Where azure-identity finds the managed identity: as on App Service, or as on a
            virtual machine (IMDS).

    Attributes:
        authority: Hands out tokens; has faults and counts.
        gateway: Takes connections; has faults and counts.
        server: PostgreSQL itself.
        issuer: Signs tokens and checks them.
        identity: Who signs in.

    Raises:
        MissingDriverError: What `azpgauth[sandbox]` installs is not there.
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
        endpoint: Literal["app-service", "imds"] = "app-service",
    ) -> None:
        self.identity = identity or Identity()
        self.endpoint = endpoint
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
        self.create_role(self.identity)
        owner = _quoted(self.identity.name)
        self.server.execute(f"create database {DATABASE} owner {owner} strategy wal_log")

        ours, foreign = CertificateAuthority("azpgauth sandbox"), CertificateAuthority("unknown")
        self._root = ours.write(folder / "ca.pem")
        local = ("localhost", "127.0.0.1", "::1", AZURE_NAME)
        self.authority = Authority(self.issuer, self.identity)
        self._stack.callback(self.authority.stop)
        self.authority.start()
        self.gateway = Gateway(
            lambda password, role: self.issuer.refusal(password, role, self.roles),
            self.server.socket,
            {
                "good": ours.issue(folder / "good.pem", *local),
                "other-name": ours.issue(folder / "other-name.pem", "other.example"),
                "unknown-ca": foreign.issue(folder / "unknown-ca.pem", *local),
            },
        )
        self._stack.callback(self.gateway.stop)
        self.gateway.start()

    def create_role(self, identity: Identity) -> None:
        """Make the PostgreSQL role of an identity, as `pgaadauth_create_principal` does."""
        self.server.execute(f"create role {_quoted(identity.name)} login")
        self.roles[identity.name] = identity

    def reset(self) -> None:
        """No faults, nothing counted: as if newly started, but for what is in the database."""
        self.authority.reset()
        self.gateway.reset()
        self.gateway.listen()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point azpgauth and azure-identity at this sandbox."""
        found = (
            self.authority.app_service if self.endpoint == "app-service" else self.authority.imds
        )
        direct = [name for name in (os.environ.get("NO_PROXY"), "localhost", "127.0.0.1") if name]
        return {
            "AZPG_SERVER_HOST": "localhost",
            "AZPG_SERVER_PORT": str(self.gateway.port),
            "AZPG_SERVER_SSLROOTCERT": str(self._root),
            "AZPG_DATABASE_NAME": DATABASE,
            "AZPG_CREDENTIAL_KIND": "managed-identity",
            **found,
            "NO_PROXY": ",".join(direct),
        }


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
