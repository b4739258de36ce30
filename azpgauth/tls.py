"""What TLS a connection wants, and with which root certificates.

libpq in the drivers' wheels looks for roots in folders that exist on no user's machine, so a path
is always given. Roots of Azure Database for PostgreSQL:
https://learn.microsoft.com/azure/postgresql/security/security-tls
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from typing import Literal

__all__ = ["ENCRYPTING", "NO_ROOTS", "SslMode", "Tls", "default_roots"]

SslMode = Literal["verify-full", "verify-ca", "require", "prefer", "disable"]

ENCRYPTING: frozenset[str] = frozenset({"verify-full", "verify-ca", "require"})
"""The modes that never send anything in clear."""

NO_ROOTS = os.path.join(os.devnull, "none")  # noqa: PTH118 - not a path that may ever exist
"""A path where nothing can be: with a root file, libpq would take `require` for `verify-ca`."""


@dataclass(frozen=True)
class Tls:
    """The TLS of one plan.

    Attributes:
        mode: As libpq names it. `require` encrypts and verifies nothing, in every driver.
        roots: Path of the PEM file with the trusted roots; unused where nothing is verified.
    """

    mode: SslMode
    roots: str

    def libpq(self) -> dict[str, str]:
        """The keywords for libpq."""
        verifies = self.mode in {"verify-full", "verify-ca"}
        return {"sslmode": self.mode, "sslrootcert": self.roots if verifies else NO_ROOTS}


def default_roots() -> str:
    """The PEM file of the system's trusted roots where Python knows one, else certifi's.

    `SSL_CERT_FILE` is respected, as everywhere in Python.
    """
    known = ssl.get_default_verify_paths().cafile
    if known and os.access(known, os.R_OK):
        return known
    import certifi

    return certifi.where()
