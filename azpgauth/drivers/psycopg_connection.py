"""Signs psycopg's own connections in: classes whose `connect` takes what to sign in with."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from azpgauth.drivers.checks import left, patience, used_lately
from azpgauth.drivers.inherited import Connections
from azpgauth.drivers.pooler import look_at_psycopg, psycopg_answers
from azpgauth.drivers.signin import refuse_proactor, signed_in
from azpgauth.errors import missing_driver
from azpgauth.runtime.printable import their_words
from azpgauth.runtime.redacted import scrubbed
from azpgauth.runtime.waiting import BLOCKING, ON_LOOP, run

try:
    import psycopg
except ImportError as exc:
    raise missing_driver("psycopg", exc) from exc

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from typing_extensions import Self

    from azpgauth.drivers.pooler import Pooler
    from azpgauth.identity.login import Grant, Login
    from azpgauth.runtime.waiting import Wait
    from azpgauth.server.tls import Tls

__all__ = ["Proven", "SigningIn", "async_class", "check", "sync_class"]


class Proven:
    """The proven connection, until the pool asks for its first one."""

    def __init__(self) -> None:
        self._conns: deque[Any] = deque()

    def put(self, conn: Any) -> None:
        """Here it is."""
        self._conns.append(conn)

    def take(self) -> Any:
        """The connection, if it is still there."""
        try:
            return self._conns.pop()  # atomic: the pool's workers race for it
        except IndexError:
            return None


@dataclass(frozen=True)
class SigningIn:
    """What the connections of one pool sign in with.

    Attributes:
        login: Role and password.
        tls: The TLS to demand.
        pooler: What is known of PgBouncer.
        proven: A connection that is there already, and is taken first.
        connections: All that were made.
        failed: What is to be said of the last connect, if it failed: psycopg's pools do not.
    """

    login: Login
    tls: Tls
    pooler: Pooler
    proven: Proven = field(default_factory=Proven)
    connections: Connections = field(default_factory=Connections)
    failed: list[str] = field(default_factory=list)

    async def connect(
        self, connect: Callable[..., Any], conninfo: str, keywords: Mapping[str, Any], wait: Wait
    ) -> Any:
        """One connection, by a function of psycopg's own."""
        if (ready := self.proven.take()) is not None:
            return ready
        statements = {} if self.pooler.named_statements else {"prepare_threshold": None}

        def attempt(grant: Grant, trusted: str) -> Any:
            signed = {**grant.for_libpq(), **self.tls.libpq(trusted)}
            return connect(conninfo, **{**keywords, **statements, **signed})

        try:
            conn = await signed_in(self.login, self.tls.roots, attempt, wait)
        except Exception as exc:
            said = scrubbed(f"the last connect failed: {their_words(str(exc))}")
            self.failed[:] = [said, *getattr(exc, "__notes__", ())]
            raise
        self.failed.clear()
        self.connections.add(conn)
        conn.used_at = time.monotonic()
        try:
            await look_at_psycopg(self.pooler, conn, keywords["connect_timeout"], wait)
        except BaseException:
            await wait.call(conn.close)
            raise
        return conn


class _SignIn:
    """Mixed into a connection class."""

    @classmethod
    def connect(cls, conninfo: str = "", *, signing: SigningIn, **kwargs: Any) -> Self:
        connect: Any = super().connect  # type: ignore[misc]
        conn: Self = run(signing.connect(connect, conninfo, kwargs, BLOCKING))
        return conn


class _AsyncSignIn:
    """As `_SignIn`, for connections of an event loop."""

    @classmethod
    async def connect(cls, conninfo: str = "", *, signing: SigningIn, **kwargs: Any) -> Self:
        refuse_proactor(asyncio.get_running_loop())
        connect: Any = super().connect  # type: ignore[misc]
        conn: Self = await signing.connect(connect, conninfo, kwargs, ON_LOOP)
        return conn


async def check(pool: Any, conn: Any, wait: Wait) -> None:
    """Before a pool hands a connection out: whether its server still answers.

    Args:
        pool: The pool; if this one is dead, so are the others that are idle, most likely.
        conn: The connection.
        wait: How to wait.

    Raises:
        psycopg.OperationalError: There was no answer.
    """
    if used_lately(conn.used_at) and not conn.closed:
        return
    if not await psycopg_answers(conn.pgconn, patience(left(pool.timeout)), wait):
        await wait.call(conn.close)  # else the pool would keep it
        await wait.call(pool.drain)
        raise psycopg.OperationalError("the server does not answer any more")


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
