"""Listens for HTTP on loopback: hands requests to a function and sends what it answers."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from azpgauth.sandbox.entra.answers import Request, pairs

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from azpgauth.sandbox.entra.answers import Answer

__all__ = ["Listener"]

_LARGEST = 64 * 1024  # bytes of a body; the longest are assertions, of some kB
_PATIENCE = 10  # seconds for a client that connects and says nothing


class Listener:
    """Answers requests, each in a thread of its own.

    Args:
        answer: Gives the answer to a request.
        name: What its thread is called.
        tls: The context for TLS; without it, plain HTTP.

    Attributes:
        port: Where it listens, on 127.0.0.1.
    """

    def __init__(
        self, answer: Callable[[Request], Answer], name: str, tls: ssl.SSLContext | None = None
    ) -> None:
        self._http = _Server(answer, tls)
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(0.05,), name=name, daemon=True
        )
        self.port: int = self._http.server_address[1]

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """End, and hang up on whoever is connected."""
        if self._thread.is_alive():
            self._http.shutdown()
        self._http.server_close()
        self._http.hang_up()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answer: Callable[[Request], Answer], tls: ssl.SSLContext | None) -> None:
        self.answer = answer
        self._tls = tls
        self._open: dict[Any, threading.Thread] = {}
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(_PATIENCE)
        if self._tls is not None:
            # The handshake comes with the first read, in the thread: here it would hold up all.
            request = self._tls.wrap_socket(
                request, server_side=True, do_handshake_on_connect=False
            )
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=True
        )
        self._open[request] = thread
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self._open.pop(request, None)

    def hang_up(self) -> None:
        for request, thread in list(self._open.items()):
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=5)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that hangs up, or that does not trust the certificate, is its own business.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        size = min(int(self.headers.get("Content-Length", 0)), _LARGEST)
        request = Request(
            self.command,
            url.path,
            pairs(url.query),
            self.headers,  # type: ignore[arg-type]  # a Message maps names of any case
            self.rfile.read(size).decode(errors="replace"),
        )
        answer = self.server.answer(request)
        body = answer.body.encode()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - the base's name

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing on standard error."""
