"""Connects with psycopg 3: each connection signs in with the token of its moment."""

from __future__ import annotations

import asyncio
import atexit
import inspect
import os
import time
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from azpgauth.drivers.asking import PSYCOPG
from azpgauth.drivers.checks import checkout
from azpgauth.drivers.connector import Connector
from azpgauth.drivers.inherited import foreign
from azpgauth.drivers.native import OWNED_BY_LIBPQ, check_native, with_options
from azpgauth.drivers.psycopg_connection import Signing, async_class, check, sync_class
from azpgauth.drivers.signin import KeepFresh, add_notes, refuse_proactor
from azpgauth.errors import missing_driver
from azpgauth.runtime.forks import Lock
from azpgauth.runtime.waiting import BLOCKING, ON_LOOP, run

try:
    import psycopg
    import psycopg_pool
    from psycopg import pq
except ImportError as exc:
    raise missing_driver("psycopg", exc) from exc

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from azpgauth.drivers.driver import ConnectArguments
    from azpgauth.server.plan import ConnectPlan

__all__ = [
    "aconnect",
    "aopen_pool",
    "connect",
    "errors",
    "open_pool",
    "unopened_pool",
]


def errors(_: ConnectArguments, /) -> tuple[type[BaseException], ...]:
    """What a failed connect raises."""
    return (psycopg.Error,)


_OWNED = OWNED_BY_LIBPQ.union(
    "conninfo kwargs open min_size max_size timeout max_lifetime max_idle signing seconds".split()  # noqa: SIM905
)


_PSYCOPGS_OWN = psycopg_pool.ConnectionPool.check_connection
_PSYCOPGS_OWN_ASYNC = psycopg_pool.AsyncConnectionPool.check_connection

_C = TypeVar("_C", bound="psycopg.Connection[Any]")


class _ConnectionPool(psycopg_pool.ConnectionPool[_C]):
    """A pool that keeps its login fresh while it is open."""

    keep_fresh: KeepFresh
    signing: Signing
    made_with: dict[str, Any]
    process: int

    def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        super().open(wait, timeout)
        self.keep_fresh.start()
        self.process = os.getpid()
        _forgotten.add(self)

    def getconn(self, timeout: float | None = None) -> _C:
        if self.process != os.getpid():
            self._begin_again()
        try:
            with checkout(self.timeout if timeout is None else timeout):
                return super().getconn(timeout)
        except psycopg_pool.PoolTimeout as exc:
            add_notes(exc, self.signing.connector.notes())
            raise

    def putconn(self, conn: _C) -> None:
        conn.used_at = time.monotonic()  # type: ignore[attr-defined]  # ours have it
        super().putconn(conn)

    def _check_connection(self, conn: _C) -> None:
        if self._check is _PSYCOPGS_OWN:  # ours is in its place: it is bounded, and knows when
            if not self.signing.connector.fresh(conn, conn.used_at):  # type: ignore[attr-defined]  # as below
                run(check(self, conn, BLOCKING))
        else:
            super()._check_connection(conn)

    def _begin_again(self) -> None:
        """In a child after fork: its threads are gone, and its connections are the parent's."""
        with _beginning:
            if self.process != os.getpid() and not self.closed:
                sizes = {"min_size": self.min_size, "max_size": self.max_size, "name": self.name}
                _ConnectionPool.__init__(self, **{**self.made_with, **sizes})
                self.open()

    def close(self, timeout: float = 5.0) -> None:
        try:
            super().close(timeout)
        finally:
            self.keep_fresh.end()
            if (unused := self.signing.connector.end()) is not None:
                unused.close()


_beginning = Lock()

# Pools that a program forgets to close: once the interpreter goes down, their threads cannot be
# stopped any more, and psycopg_pool would wait for each of them for seconds.
_forgotten: weakref.WeakSet[_ConnectionPool[Any]] = weakref.WeakSet()


@atexit.register
def _close_forgotten() -> None:
    for pool in list(_forgotten):
        # In a child after fork, the connections are the parent's.
        if not pool.closed and pool.process == os.getpid():
            pool.close(timeout=1.0)


class _AsyncConnectionPool(psycopg_pool.AsyncConnectionPool[Any]):
    """A pool that keeps its login fresh while it is open."""

    keep_fresh: KeepFresh
    signing: Signing
    process: int | None = None

    async def getconn(self, timeout: float | None = None) -> Any:
        if self.process not in {None, os.getpid()}:
            raise foreign("AsyncConnectionPool")
        try:
            with checkout(self.timeout if timeout is None else timeout):
                return await super().getconn(timeout)
        except psycopg_pool.PoolTimeout as exc:
            add_notes(exc, self.signing.connector.notes())
            raise

    async def putconn(self, conn: Any) -> None:
        conn.used_at = time.monotonic()
        await super().putconn(conn)

    async def _check_connection(self, conn: Any) -> None:
        if self._check is _PSYCOPGS_OWN_ASYNC:
            if not self.signing.connector.fresh(conn, conn.used_at):
                await check(self, conn, ON_LOOP)
        else:
            await super()._check_connection(conn)

    async def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        refuse_proactor(asyncio.get_running_loop())
        await super().open(wait, timeout)
        self.keep_fresh.start()
        self.process = os.getpid()

    async def close(self, timeout: float = 5.0) -> None:
        try:
            await super().close(timeout)
        finally:
            self.keep_fresh.end()
            if (unused := self.signing.connector.end()) is not None:
                await unused.close()


def open_pool(
    arguments: ConnectArguments, /, *, timeout: int | None = None
) -> psycopg_pool.ConnectionPool[Any]:
    """A `ConnectionPool`: see `Driver.open_pool`."""
    for_pool, for_connection = _split(arguments.own)
    configure = for_pool.pop("configure", None)
    connection_class = sync_class(for_pool.pop("connection_class", None))
    keywords = _keywords(arguments, for_connection)
    conn = connection_class.connect(**keywords, seconds=timeout)
    try:
        if configure is not None:
            # Here rather than by a worker of the pool, where an error would end in a log line.
            configure(conn)
            configure = _except_for(conn, configure)
        signing = keywords["signing"]
        signing.connector.put(conn)
        made_with = {
            "kwargs": keywords,
            "connection_class": connection_class,
            "configure": configure,
            **_limits(arguments.plan),
            "check": _PSYCOPGS_OWN,
            **for_pool,
        }
        pool: _ConnectionPool[Any] = _ConnectionPool(**made_with)
        pool.made_with = made_with
        pool.signing, pool.keep_fresh = signing, KeepFresh(arguments.login)
        pool.keep_fresh.end_with(pool)
        pool.open()
    except BaseException:
        conn.close()
        raise
    return pool


def unopened_pool(arguments: ConnectArguments, /) -> psycopg_pool.AsyncConnectionPool[Any]:
    """An `AsyncConnectionPool`: see `AsyncDriver.unopened_pool`."""
    for_pool, for_connection = _split(arguments.own)
    return _unopened(arguments, for_pool, _keywords(arguments, for_connection))


def _unopened(
    arguments: ConnectArguments, for_pool: dict[str, Any], keywords: dict[str, Any]
) -> _AsyncConnectionPool:
    connection_class = async_class(for_pool.pop("connection_class", None))
    pool = _AsyncConnectionPool(
        kwargs=keywords,
        connection_class=connection_class,
        **_limits(arguments.plan),
        **{"check": _PSYCOPGS_OWN_ASYNC, **for_pool},
    )
    pool.signing, pool.keep_fresh = keywords["signing"], KeepFresh(arguments.login)
    pool.keep_fresh.end_with(pool)
    return pool


async def aopen_pool(
    arguments: ConnectArguments, /, *, timeout: int | None = None
) -> psycopg_pool.AsyncConnectionPool[Any]:
    """An `AsyncConnectionPool`: see `AsyncDriver.aopen_pool`."""
    for_pool, for_connection = _split(arguments.own)
    configure = for_pool.pop("configure", None)
    connection_class = async_class(for_pool.get("connection_class"))
    for_pool["connection_class"] = connection_class
    keywords = _keywords(arguments, for_connection)
    conn = await connection_class.connect(**keywords, seconds=timeout)
    try:
        if configure is not None:
            await configure(conn)
            for_pool["configure"] = _except_for(conn, configure, done=_nothing)
        pool = _unopened(arguments, for_pool, keywords)
        pool.signing.connector.put(conn)
        await pool.open()
    except BaseException:
        await conn.close()
        raise
    return pool


async def _nothing() -> None:
    pass


def connect(
    arguments: ConnectArguments, /, *, timeout: int | None = None
) -> psycopg.Connection[Any]:
    """A `Connection`: see `Driver.connect`."""
    keywords = _keywords(arguments, _for_connect(arguments), pooled=False)
    conn: psycopg.Connection[Any] = sync_class().connect(**keywords, seconds=timeout)
    return conn


async def aconnect(
    arguments: ConnectArguments, /, *, timeout: int | None = None
) -> psycopg.AsyncConnection[Any]:
    """An `AsyncConnection`: see `AsyncDriver.aconnect`."""
    keywords = _keywords(arguments, _for_connect(arguments), pooled=False)
    conn: psycopg.AsyncConnection[Any] = await async_class().connect(**keywords, seconds=timeout)
    return conn


def _for_connect(arguments: ConnectArguments) -> dict[str, Any]:
    own = arguments.own
    check_native(own, _OWNED, _CONNECT_ARGUMENTS, "psycopg's connect")
    return own


def _keywords(
    arguments: ConnectArguments, own: Mapping[str, Any], *, pooled: bool = True
) -> dict[str, Any]:
    """What our connection classes take."""
    plan = arguments.plan
    connector = Connector(arguments, PSYCOPG, pooled=pooled)
    return {
        **with_options(plan.libpq(pq.version()), own),
        "signing": Signing(connector, plan.tls),
    }


def _limits(plan: ConnectPlan) -> dict[str, Any]:
    return {
        "min_size": plan.pool.min_size,
        "max_size": plan.pool.max_size,
        "timeout": plan.pool.timeout,
        "max_lifetime": plan.pool.max_lifetime,
        "max_idle": plan.pool.max_idle,
        "open": False,
    }


def _except_for(
    conn: object, configure: Callable[[Any], Any], done: Callable[[], Any] = lambda: None
) -> Callable[[Any], Any]:
    """`configure` for all other connections; what it gives may be awaitable, as `done()` then."""
    configured = weakref.ref(conn)

    def configure_others(other: Any) -> Any:
        return done() if other is configured() else configure(other)

    return configure_others


_POOL_ARGUMENTS = frozenset(inspect.signature(psycopg_pool.ConnectionPool).parameters)
_CONNECT_ARGUMENTS = frozenset(inspect.signature(psycopg.Connection.connect).parameters) - {
    "kwargs"
} | {option.keyword.decode() for option in pq.Conninfo.get_defaults()}


def _split(native: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pool's arguments and the connections', or an error that names what cannot be."""
    known = _POOL_ARGUMENTS | _CONNECT_ARGUMENTS
    check_native(native, _OWNED, known, "psycopg's ConnectionPool or connect")
    for_pool = {key: native[key] for key in native if key in _POOL_ARGUMENTS}
    return for_pool, {key: native[key] for key in native if key not in _POOL_ARGUMENTS}
