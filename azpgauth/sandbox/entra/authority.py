"""Issues every token of every door, and every fault: a local Entra ID's authority.

The doors: `managed` (App Service and IMDS), `oauth` (OAuth 2.0 over HTTPS), and `programs` (what
stands behind `az`, `azd` and `pwsh`).
"""

from __future__ import annotations

import ssl
import threading
import time
from typing import TYPE_CHECKING

from azpgauth.sandbox.entra.answers import Answer, EntraError, Issued
from azpgauth.sandbox.entra.identity import TENANT
from azpgauth.sandbox.entra.listener import Listener
from azpgauth.sandbox.entra.managed import ManagedIdentity
from azpgauth.sandbox.entra.oauth import OAuth
from azpgauth.sandbox.entra.programs import Programs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from azpgauth.sandbox.entra.answers import Door, Request
    from azpgauth.sandbox.entra.directory import Directory
    from azpgauth.sandbox.entra.identity import Identity, Issuer

__all__ = ["Authority"]

_MALFORMED = "not-a-token"


class Authority:
    """Hands out tokens on loopback. Its attributes are its faults: set them at any time.

    Args:
        issuer: Signs the tokens.
        directory: Who is known, and by what they prove themselves.
        identity: Whose tokens it hands out where nobody is named.
        certificate: A PEM for `localhost`, with its key.
        folder: Where the programs are put.

    Attributes:
        identity: Whose tokens it hands out where nobody is named: to managed identity without a
            client id, and to `az`, `azd` and `pwsh`.
        requests: The resources that tokens were asked for, one entry a request.
        endpoints: Where they were asked for, in the same order.
        issued: The tokens it handed out, for a test to look for where they must not be.
        lifetime: Seconds that tokens live.
        refresh_in: Seconds after which OAuth 2.0 clients are told to ask for the next one.
        delay: Seconds before it answers.
        status: Answers with this HTTP status instead of a token.
        hanging: Does not answer at all until this is False again, or the sandbox stops.
        throttled: Answers this many of the next requests with 429, Too Many Requests.
        retry_after: The seconds it then asks for, in the header `Retry-After`.
        resource: Puts this audience into tokens, instead of what was asked for.
        other_key: Signs with a key that the gateway does not know.
        malformed: Hands out what is no JSON Web Token.
        signed_out: Nobody has run `az login`, `azd auth login` or `Connect-AzAccount`.
        tenant: The id of the tenant.
    """

    tenant = TENANT

    def __init__(
        self,
        issuer: Issuer,
        directory: Directory,
        identity: Identity,
        certificate: Path,
        folder: Path,
    ) -> None:
        self._issuer = issuer
        self._directory = directory
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.identity = identity
        self.requests: list[str] = []
        self.endpoints: list[Door] = []
        self.issued: list[str] = []
        self.reset()
        self._managed = ManagedIdentity(self)
        self._programs = Programs(self, folder)
        self._oauth = OAuth(self, directory, issuer)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
        tls.load_cert_chain(certificate)
        self._http = Listener(self._answer, "sandbox-authority")
        self._https = Listener(self._oauth.answer, "sandbox-authority-https", tls)

    def reset(self) -> None:
        """No faults, and no requests counted."""
        self.requests.clear()
        self.endpoints.clear()
        self.issued.clear()
        self.lifetime: float = 3600
        self.refresh_in: int | None = None
        self.delay: float = 0
        self.status: int | None = None
        self.hanging = False
        self.throttled = 0
        self.retry_after: int | str = 0
        self.resource: str | None = None
        self.other_key = False
        self.malformed = False
        self.signed_out = False

    def start(self) -> None:
        """Begin to answer."""
        self._http.start()
        self._https.start()

    def stop(self) -> None:
        """End, requests under way included."""
        self._stopping.set()
        self._http.stop()
        self._https.stop()

    @property
    def url(self) -> str:
        """Where OAuth 2.0 is spoken: the `authority` of azure-identity's credentials."""
        return f"https://localhost:{self._https.port}"

    @property
    def app_service(self) -> dict[str, str]:
        """The environment by which App Service tells a program of its identity."""
        return self._managed.app_service(f"http://127.0.0.1:{self._http.port}")

    @property
    def imds(self) -> dict[str, str]:
        """The environment that moves azure-identity's IMDS requests here."""
        return self._managed.imds(f"http://127.0.0.1:{self._http.port}")

    def programs(self, identity: Identity | None = None) -> Path:
        """A folder with `az`, `azd` and `pwsh`, to be put first on PATH.

        Args:
            identity: Who is signed in with them; by default whoever `self.identity` is when they
                run.
        """
        return self._programs.install(self._http.port, identity)

    def known(self, client_id: str | None) -> Identity | None:
        """Who has this client id, if anybody who can have tokens does.

        Args:
            client_id: The id; None for who is meant where nobody is named.
        """
        if client_id in {None, self.identity.client_id}:
            found: Identity | None = self.identity
        else:
            found = self._directory.find(client_id or "")
        return None if found is None or found.kind == "group" else found

    def issue(self, door: Door, resource: str, who: Callable[[], Identity]) -> Issued:
        """A token, after whatever fault it is time for.

        Args:
            door: Where it is asked for.
            resource: What it is asked for.
            who: Says whose token it is to be, or raises what they are told instead.

        Raises:
            EntraError: There is none.
        """
        with self._lock:
            self.requests.append(resource)
            self.endpoints.append(door)
        self._suffer()
        identity = who()
        token = (
            _MALFORMED
            if self.malformed
            else self._issuer.token(
                identity,
                resource=self.resource or resource,
                lifetime=self.lifetime,
                other_key=self.other_key,
            )
        )
        self.issued.append(token)
        # What is told of its life is never over: a client would not even try an expired token.
        life = int(self.lifetime) if self.lifetime > 0 else 3600
        expires_on = int(time.time()) + life
        return Issued(token, identity, resource, life, expires_on, self.refresh_in)

    def _suffer(self) -> None:
        if self.delay:
            self._stopping.wait(self.delay)
        while self.hanging and not self._stopping.wait(0.02):
            pass
        with self._lock:
            throttled = self.throttled > 0
            self.throttled -= throttled
        if throttled:
            raise EntraError(
                429,
                "temporarily_unavailable",
                90055,
                "There are too many incoming requests.",
                {"Retry-After": str(self.retry_after)},
            )
        if self.status is not None:
            raise EntraError(self.status, "sandbox_fault", 90033, "A transient error, as wanted.")

    def _answer(self, request: Request) -> Answer:
        return (
            self._managed.answer(request)
            or self._programs.answer(request)
            or Answer.json({"error": "not_found"}, 404)
        )
