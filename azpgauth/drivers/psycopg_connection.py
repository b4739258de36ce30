"""Signs psycopg's own connections in: classes whose `connect` takes what to sign in with."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from azpgauth.drivers.signin import refuse_proactor
from azpgauth.errors import missing_driver
from azpgauth.runtime.waiting import BLOCKING, ON_LOOP, run

try:
    import psycopg
except ImportError as exc:
    raise missing_driver("psycopg", exc) from exc

if TYPE_CHECKING:
    from typing_extensions import Self

    from azpgauth.drivers.connector import Attempt, Connector
    from azpgauth.runtime.waiting import Wait
    from azpgauth.server.tls import Tls

__all__ = ["Signing", "async_class", "check", "sync_class"]


@dataclass(frozen=True)
class Signing:
    """What the connections of one pool sign in with.

    Attributes:
        connector: Makes them.
        tls: The TLS to demand.
    """

    connector: Connector
    tls: Tls


def libpq_keywords(attempt: Attempt, tls: Tls) -> dict[str, Any]:
    """What one connect of psycopg's goes with, besides what stays the same.

    Args:
        attempt: The attempt.
        tls: The TLS to demand.
    """
    found: dict[str, Any] = {
        **attempt.server.libpq(),
        **attempt.grant.for_libpq(),
        **tls.libpq(attempt.roots),
        "connect_timeout": ceil(attempt.seconds),
    }
    return found if attempt.statements else {**found, "prepare_threshold": None}


class _SignIn:
    """Mixed into a connection class."""

    used_at: float

    @classmethod
    def connect(
        cls, conninfo: str = "", *, signing: Signing, seconds: int | None = None, **kwargs: Any
    ) -> Self:
        connect: Any = super().connect  # type: ignore[misc]
        made = signing.connector.connect(
            lambda attempt: connect(conninfo, **{**kwargs, **libpq_keywords(attempt, signing.tls)}),
            BLOCKING,
            seconds,
        )
        conn: Self = run(made)
        conn.used_at = time.monotonic()
        return conn


class _AsyncSignIn:
    """As `_SignIn`, for connections of an event loop."""

    used_at: float

    @classmethod
    async def connect(
        cls, conninfo: str = "", *, signing: Signing, seconds: int | None = None, **kwargs: Any
    ) -> Self:
        refuse_proactor(asyncio.get_running_loop())
        connect: Any = super().connect  # type: ignore[misc]
        conn: Self = await signing.connector.connect(
            lambda attempt: connect(conninfo, **{**kwargs, **libpq_keywords(attempt, signing.tls)}),
            ON_LOOP,
            seconds,
        )
        conn.used_at = time.monotonic()
        return conn


async def check(pool: Any, conn: Any, wait: Wait) -> None:
    """Before a pool hands a connection out: whether it can be.

    Args:
        pool: The pool; if this one cannot, neither can the others that are idle, most likely.
        conn: The connection.
        wait: How to wait.

    Raises:
        psycopg.OperationalError: It cannot.
    """
    connector: Connector = pool.signing.connector
    if not await connector.good(conn, conn.used_at, pool.timeout, wait):
        await wait.call(conn.close)  # else the pool would keep it
        await wait.call(pool.drain)
        raise psycopg.OperationalError(
            "the server does not answer any more, or is not the right one"
        )


class _Connection(_SignIn, psycopg.Connection[Any]):  # type: ignore[misc]
    """A connection that azpgauth opened."""


class _AsyncConnection(_AsyncSignIn, psycopg.AsyncConnection[Any]):  # type: ignore[misc]
    """A connection that azpgauth opened, of an event loop."""


def sync_class(base: type[psycopg.Connection[Any]] | None = None) -> Any:
    """A class of connections that sign in.

    Args:
        base: The program's own class.
    """
    if base in {None, psycopg.Connection}:
        return _Connection
    return type(f"SignedIn{base.__name__}", (_SignIn, base), {})


def async_class(base: type[psycopg.AsyncConnection[Any]] | None = None) -> Any:
    """As `sync_class`, for an event loop."""
    if base in {None, psycopg.AsyncConnection}:
        return _AsyncConnection
    if issubclass(base, _AsyncSignIn):
        return base
    return type(f"SignedIn{base.__name__}", (_AsyncSignIn, base), {})
