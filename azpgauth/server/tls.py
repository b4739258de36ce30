"""Says what TLS a connection wants, in the terms of each driver: `Tls`."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from azpgauth.runtime.importing import guard

if TYPE_CHECKING:
    from azpgauth.server.roots import Roots
    from azpgauth.server.targets import Server

__all__ = ["ENCRYPTING", "MODES", "NO_ROOTS", "SslMode", "Tls"]

SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]

MODES: tuple[SslMode, ...] = get_args(SslMode)
"""libpq's, the weakest first: https://www.postgresql.org/docs/current/libpq-ssl.html"""

ENCRYPTING: frozenset[str] = frozenset({"verify-full", "verify-ca", "require"})
"""The modes that never send anything in clear."""

NO_ROOTS = os.path.join(os.devnull, "none")  # noqa: PTH118 - not a path that may ever exist
"""A path where nothing can be: with a root file, libpq would take `require` for `verify-ca`.

It keeps libpq from a file of passwords in the user's folder, too."""


@dataclass(frozen=True)
class Tls:
    """The TLS of one plan.

    Attributes:
        mode: As libpq names it. `require` encrypts and verifies nothing, in every driver.
        roots: The trusted roots; unused where nothing is verified.
    """

    mode: SslMode
    roots: Roots
    _contexts: dict[tuple[str, str | None], ssl.SSLContext] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def verifies(self) -> bool:
        """Whether the server's certificate is verified."""
        return self.mode in {"verify-full", "verify-ca"}

    def libpq(self, roots: str | None = None) -> dict[str, str]:
        """The keywords for libpq; `roots` stands in for the file to use now."""
        path = (roots or self.roots.path) if self.verifies else NO_ROOTS
        return {"sslmode": self.mode, "sslrootcert": path}

    def context(
        self, roots: str | None = None, server: Server | None = None
    ) -> ssl.SSLContext | Literal["allow", "prefer"] | bool:
        """What asyncpg's `ssl` takes: one context, made once; reads the file of roots then.

        Args:
            roots: The file to use now.
            server: Where it connects; asyncpg would check the certificate against its address.
        """
        if self.mode in {"allow", "prefer"}:
            return self.mode
        if self.mode == "disable":
            return False
        path = roots or self.roots.path
        name = server.host if server is not None and server.address else None
        context = self._contexts.get((path, name))
        if context is None:
            with guard():  # OpenSSL's first ones take locks that a fork would leave taken
                context = self._contexts[path, name] = self._made(path, name)
        return context

    def _made(self, path: str, name: str | None) -> _Context:
        context = _Context(ssl.PROTOCOL_TLS_CLIENT)
        context.name = name
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = self.mode == "verify-full"
        if self.verifies:
            context.load_verify_locations(path)
        else:
            context.verify_mode = ssl.CERT_NONE
        return context

    async def acontext(
        self, roots: str | None = None, server: Server | None = None
    ) -> ssl.SSLContext | Literal["allow", "prefer"] | bool:
        """As `context`, on an event loop, which reading a file would hold up."""
        name = server.host if server is not None and server.address else None
        if (roots or self.roots.path, name) in self._contexts:
            return self.context(roots, server)
        import asyncio

        return await asyncio.to_thread(self.context, roots, server)


class _Context(ssl.SSLContext):
    """A context for a server whose name is known, wherever the connection leads."""

    name: str | None = None

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """As in `ssl`, with the server's name."""
        if self.name is not None:
            kwargs["server_hostname"] = self.name
        return super().wrap_bio(*args, **kwargs)
