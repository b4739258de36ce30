"""Says what TLS a connection wants, in the terms of each driver: `Tls`."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from azpgauth.server.roots import Roots

__all__ = ["ENCRYPTING", "NO_ROOTS", "SslMode", "Tls"]

SslMode = Literal["verify-full", "verify-ca", "require", "prefer", "disable"]

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
    _contexts: dict[str, ssl.SSLContext] = field(default_factory=dict, repr=False, compare=False)

    @property
    def verifies(self) -> bool:
        """Whether the server's certificate is verified."""
        return self.mode in {"verify-full", "verify-ca"}

    def libpq(self, roots: str | None = None) -> dict[str, str]:
        """The keywords for libpq; `roots` stands in for the file to use now."""
        path = (roots or self.roots.path) if self.verifies else NO_ROOTS
        return {"sslmode": self.mode, "sslrootcert": path}

    def context(self, roots: str | None = None) -> ssl.SSLContext | Literal["prefer"] | bool:
        """What asyncpg's `ssl` takes: one context, made once; reads the file of roots then."""
        if self.mode == "prefer":
            return "prefer"
        if self.mode == "disable":
            return False
        path = roots or self.roots.path
        context = self._contexts.get(path)
        if context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.check_hostname = self.mode == "verify-full"
            if self.verifies:
                context.load_verify_locations(path)
            else:
                context.verify_mode = ssl.CERT_NONE
            self._contexts[path] = context
        return context

    async def acontext(self, roots: str | None = None) -> ssl.SSLContext | Literal["prefer"] | bool:
        """As `context`, on an event loop, which reading a file would hold up."""
        if (roots or self.roots.path) in self._contexts:
            return self.context(roots)
        import asyncio

        return await asyncio.to_thread(self.context, roots)
