"""The authority: the managed-identity endpoints of App Service and of virtual machines (IMDS).

Both are answered as azure-identity expects them:
https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference and
https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from azpgauth.sandbox.identity import Identity, Issuer

__all__ = ["Authority"]

_APP_SERVICE = "/msi/token"
_IMDS = "/metadata/identity/oauth2/token"


class Authority:
    """Hands out tokens over HTTP on loopback. Its attributes are its faults: set them at any time.

    Attributes:
        identity: Whose tokens it hands out.
        requests: The resources that tokens were asked for, one entry a request.
        issued: The tokens it handed out, for a test to look for where they must not be.
        lifetime: Seconds that tokens live.
        delay: Seconds before it answers.
        status: Answers with this HTTP status instead of a token.
        hanging: Does not answer at all until this is False again, or the sandbox stops.
        resource: Puts this audience into tokens, instead of what was asked for.
        other_key: Signs with a key that the gateway does not know.
    """

    def __init__(self, issuer: Issuer, identity: Identity) -> None:
        self._issuer = issuer
        self.identity = identity
        self.requests: list[str] = []
        self.issued: list[str] = []
        self.reset()
        self._header = secrets.token_hex(16)
        self._stopping = threading.Event()
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.authority = self
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(0.05,), name="sandbox-authority", daemon=True
        )

    def reset(self) -> None:
        """No faults, and no requests counted."""
        self.requests.clear()
        self.issued.clear()
        self.lifetime: float = 3600
        self.delay: float = 0
        self.status: int | None = None
        self.hanging = False
        self.resource: str | None = None
        self.other_key = False

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """End, requests under way included."""
        self._stopping.set()
        if self._thread.is_alive():
            self._http.shutdown()
        self._http.server_close()

    @property
    def app_service(self) -> dict[str, str]:
        """The environment by which App Service tells a program of its identity."""
        return {
            "IDENTITY_ENDPOINT": self._url + _APP_SERVICE,
            "IDENTITY_HEADER": self._header,
        }

    @property
    def imds(self) -> dict[str, str]:
        """The environment that moves azure-identity's IMDS requests here."""
        return {"AZURE_POD_IDENTITY_AUTHORITY_HOST": self._url}

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def answer(self, target: str, headers: Any) -> tuple[int, dict[str, str]]:
        """The answer to one GET: a status and a JSON document."""
        url = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == _APP_SERVICE:
            allowed = secrets.compare_digest(headers.get("X-IDENTITY-HEADER", ""), self._header)
        elif url.path == _IMDS:
            allowed = headers.get("Metadata") == "true"
        else:
            return HTTPStatus.NOT_FOUND, {"error": "not_found"}
        if not allowed:
            return HTTPStatus.FORBIDDEN, {"error": "forbidden"}
        resource = query.get("resource")
        if not resource:
            return HTTPStatus.BAD_REQUEST, {"error": "invalid_request"}
        self.requests.append(resource)
        client_id = query.get("client_id")
        if client_id not in {None, self.identity.client_id}:
            return HTTPStatus.BAD_REQUEST, {
                "error": "invalid_request",
                "error_description": "Identity not found",
            }
        self._suffer()
        if self.status is not None:
            return self.status, {"error": "sandbox_fault", "message": "as the test wants it"}
        token = self._issuer.token(
            self.identity,
            resource=self.resource or resource,
            lifetime=self.lifetime,
            other_key=self.other_key,
        )
        self.issued.append(token)
        # What is told of its life is never over: a client would not even try an expired token.
        life = int(self.lifetime) if self.lifetime > 0 else 3600
        return HTTPStatus.OK, {
            "access_token": token,
            "client_id": self.identity.client_id,
            "expires_in": str(life),
            "expires_on": str(int(time.time()) + life),
            "resource": resource,
            "token_type": "Bearer",
        }

    def _suffer(self) -> None:
        if self.delay:
            self._stopping.wait(self.delay)
        while self.hanging and not self._stopping.wait(0.02):
            pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    authority: Authority


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status, document = self.server.authority.answer(self.path, self.headers)
        body = json.dumps(document).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True  # the client gave up

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing on standard error."""
