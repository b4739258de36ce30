"""Knows who there is, and by what they prove themselves to the authority."""

from __future__ import annotations

import secrets
import threading
import time
from typing import TYPE_CHECKING

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from azpgauth.sandbox.certificates import client_certificate

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography import x509

    from azpgauth.sandbox.entra.identity import Identity

__all__ = ["CLUSTER", "EXCHANGE", "Directory", "subject"]

CLUSTER = "https://cluster.sandbox.example/"
"""The issuer of federated tokens: a Kubernetes cluster, were it real."""

EXCHANGE = "api://AzureADTokenExchange"
"""The audience of federated tokens."""

_DAY = 86400  # seconds; the longest that AKS lets such a token live


class Directory:
    """Knows identities by their client ids.

    Args:
        folder: Where files are put that programs read their secrets from.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._known: dict[str, Identity] = {}
        self._secrets: dict[Identity, str] = {}
        self._certificates: dict[Identity, tuple[Path, x509.Certificate]] = {}
        self._cluster = ec.generate_private_key(ec.SECP256R1())

    def add(self, identity: Identity) -> None:
        """Make an identity known; once is enough, twice does no harm."""
        self._known[identity.client_id] = identity

    def __contains__(self, identity: Identity) -> bool:
        return self._known.get(identity.client_id) == identity

    def find(self, client_id: str) -> Identity | None:
        """Who has this client id."""
        return self._known.get(client_id)

    def secret(self, identity: Identity) -> str:
        """The client secret of an identity."""
        return self._secrets.setdefault(identity, secrets.token_urlsafe(24))

    def certificate(self, identity: Identity) -> Path:
        """A PEM with the key and the certificate of an identity, made when first asked for."""
        with self._lock:
            if identity not in self._certificates:
                pem, certificate = client_certificate(identity.name)
                path = self._private(f"{identity.client_id}.pem", pem)
                self._certificates[identity] = path, certificate
            return self._certificates[identity][0]

    def registered(self, identity: Identity) -> x509.Certificate | None:
        """The certificate by which an identity is known, if it has one."""
        found = self._certificates.get(identity)
        return None if found is None else found[1]

    def federated_token(
        self,
        identity: Identity,
        *,
        lifetime: float = _DAY,
        audience: str = EXCHANGE,
        other_key: bool = False,
    ) -> str:
        """A token of a Kubernetes service account that stands for an identity.

        Args:
            identity: Whom it stands for.
            lifetime: Seconds until it expires; below 0 it has already.
            audience: Whom it is meant for.
            other_key: Sign with a key that is not the cluster's.
        """
        now = int(time.time())
        claims = {
            "iss": CLUSTER,
            "sub": subject(identity),
            "aud": [audience],
            "iat": now,
            "nbf": min(now, int(now + lifetime)),
            "exp": int(now + lifetime),
        }
        key = ec.generate_private_key(ec.SECP256R1()) if other_key else self._cluster
        return jwt.encode(claims, key, algorithm="ES256", headers={"kid": "cluster"})

    def federated_token_file(self, identity: Identity) -> Path:
        """A file with such a token, as the kubelet puts it into a pod."""
        return self._private(f"{identity.client_id}.token", self.federated_token(identity).encode())

    @property
    def cluster_key(self) -> ec.EllipticCurvePublicKey:
        """What federated tokens are verified with."""
        return self._cluster.public_key()

    def _private(self, name: str, content: bytes) -> Path:
        path = self._folder / name
        path.touch(mode=0o600)
        path.write_bytes(content)
        return path


def subject(identity: Identity) -> str:
    """The service account that stands for an identity."""
    return f"system:serviceaccount:default:{identity.client_id}"
