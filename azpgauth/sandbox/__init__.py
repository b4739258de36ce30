"""Runs the whole thing on one machine, no Azure: an authority, a gateway and a real PostgreSQL.

>>> from azpgauth.sandbox import Sandbox
>>> with Sandbox() as box:  # doctest: +SKIP
...     subprocess.run(["python", "app.py"], env={**os.environ, **box.environment})

The authority speaks what azure-identity's credentials ask: managed and workload identities, client
secrets and certificates, device codes, and what stands behind `az`, `azd` and `pwsh`. The gateway
demands TLS and checks tokens as Azure does, and the server is PostgreSQL 18. All of it listens on
loopback only, and is gone when the block ends. For pytest there is the fixture `azpgauth_sandbox`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azpgauth.sandbox.box import Sandbox
    from azpgauth.sandbox.entra.identity import Identity

__all__ = ["Identity", "Sandbox"]


def __getattr__(name: str) -> Any:
    # Not at import: pytest loads this package for its fixture, in every run.
    if name == "Sandbox":
        from azpgauth.sandbox.box import Sandbox

        return Sandbox
    if name == "Identity":
        from azpgauth.sandbox.entra.identity import Identity

        return Identity
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
