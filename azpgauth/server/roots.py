"""Finds the trusted root certificates: Azure's alone for its servers, else a whole bundle.

libpq in the drivers' wheels looks for roots in folders that exist on no user's machine, so a path
is always given. Roots of Azure Database for PostgreSQL:
https://learn.microsoft.com/azure/postgresql/security/security-tls
"""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import ssl
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

from azpgauth.runtime.forks import Lock
from azpgauth.runtime.importing import guard
from azpgauth.server.clouds import CLOUDS, cloud_of
from azpgauth.server.diagnosis import mends

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Roots", "bundle", "default_roots"]


class Roots:
    """The trusted root certificates of one plan: a file, and a larger one in case it fails.

    Args:
        path: A PEM file.
        whole: The bundle that `path` was picked from. It is taken, from then on, once a server
            was verified with it that could not be with `path`.

    Attributes:
        path: The PEM file to use now.
    """

    def __init__(self, path: str, whole: str | None = None) -> None:
        self.path = path
        self._whole = whole

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"

    def wider(self, tried: str, error: str) -> str | None:
        """The file to try next, if more roots may mend the error; None if not."""
        if self._whole in {None, tried} or not mends("roots", error):
            return None
        return self._whole

    def proved(self, path: str) -> None:
        """A server was verified with this file: further connections begin with it."""
        self.path = path


def default_roots(hosts: Iterable[str]) -> Roots:
    """The roots for these hosts when none are named: reads files, so not on an event loop.

    Servers of Azure get Azure's roots alone, since libpq reads the file at every connect; the
    whole bundle is there in case that does not do. Others get the whole bundle.

    Args:
        hosts: The servers' names.
    """
    whole = bundle()
    clouds = {cloud_of(host) for host in hosts}
    if None not in clouds and clouds:
        wanted = frozenset().union(*(CLOUDS[cloud].roots for cloud in clouds if cloud))
        with suppress(OSError, ValueError):
            return Roots(_picked(whole, wanted), whole)
    return Roots(whole)


def bundle() -> str:
    """The PEM file of the system's trusted roots where Python knows one, else certifi's.

    `SSL_CERT_FILE` is respected, as everywhere in Python.
    """
    known = ssl.get_default_verify_paths().cafile
    if known and os.access(known, os.R_OK):
        return known
    with guard():
        import certifi

    return certifi.where()


_lock = Lock()
_files: dict[tuple[str, frozenset[str]], str] = {}
"""Files of picked roots, for each bundle and choice. They end with the process."""

_CERTIFICATE = re.compile(
    r"-----BEGIN CERTIFICATE-----\s.+?\s-----END CERTIFICATE-----\s?", re.DOTALL
)


def _picked(whole: str, wanted: frozenset[str]) -> str:
    """A file with the wanted certificates of a bundle.

    Raises:
        OSError: The bundle cannot be read, or there is no folder to write to.
        ValueError: It has none of them.
    """
    key = (whole, wanted)
    with _lock:
        known = _files.get(key)
        # Folders of temporary files are cleaned now and then.
        if known is not None and os.access(known, os.R_OK):
            return known
        with open(whole, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - a str
            blocks = _CERTIFICATE.findall(file.read())
        found = [block for block in blocks if _fingerprint(block) in wanted]
        if not found:
            raise ValueError("none of the wanted certificates is in the bundle")
        # mkstemp: a file of this user alone, under a name that nobody could put something at.
        handle, path = tempfile.mkstemp(prefix="azpgauth-roots-", suffix=".pem")
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write("".join(found))
        atexit.register(_remove, path, os.getpid())
        _files[key] = path
        return path


def _fingerprint(block: str) -> str | None:
    try:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(block.strip())).hexdigest()
    except ValueError:
        return None


def _remove(path: str, pid: int) -> None:
    if os.getpid() == pid:  # a child after fork ends before its parent
        with suppress(OSError):
            os.unlink(path)  # noqa: PTH108 - a str
