"""Makes engines of SQLAlchemy whose connections sign in, sync and async, under each dialect.

The token enters through the event `do_connect`, on a copy of the parameters: SQLAlchemy hands the
same dict to every connect. https://docs.sqlalchemy.org/en/20/core/events.html
"""

from __future__ import annotations

import asyncio
import os
import time
import weakref
from contextlib import suppress
from inspect import isawaitable
from math import ceil
from typing import TYPE_CHECKING, Any, TypeVar

from azpgauth.drivers.asking import ASKING, ASYNCPG
from azpgauth.drivers.checks import GOODBYE, checkout
from azpgauth.drivers.connector import Connector
from azpgauth.drivers.inherited import foreign
from azpgauth.drivers.native import OWNED_BY_LIBPQ, check_native, unfit, with_options
from azpgauth.drivers.signin import KeepFresh, refuse_proactor
from azpgauth.errors import missing_driver
from azpgauth.runtime.drivers import ASYNC_DRIVERS
from azpgauth.runtime.forks import renew_in_child
from azpgauth.runtime.importing import guard
from azpgauth.runtime.waiting import BLOCKING, ON_LOOP, Blocking, run

try:
    import sqlalchemy
    from sqlalchemy import event
    from sqlalchemy.exc import InvalidatePoolError
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, QueuePool
    from sqlalchemy.util import await_only
    from sqlalchemy.util.concurrency import in_greenlet
except ImportError as exc:
    raise missing_driver("sqlalchemy", exc) from exc

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from sqlalchemy import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from azpgauth.drivers.connector import Attempt
    from azpgauth.drivers.driver import ConnectArguments
    from azpgauth.runtime.waiting import Wait

__all__ = [
    "IN_GREENLET",
    "aconnect",
    "aopen_pool",
    "connect",
    "errors",
    "open_pool",
    "unopened_pool",
]

T = TypeVar("T")

_USED = "azpgauth.used"


def _hand_notes_on(context: Any) -> None:
    """What is said of the driver's error is said of the one that the caller catches."""
    wrapper = context.sqlalchemy_exception
    for note in getattr(context.original_exception, "__notes__", ()):
        if wrapper is not None:
            wrapper.add_note(note)


def errors(arguments: ConnectArguments, /) -> tuple[type[BaseException], ...]:
    """What a failed connect raises; a `DBAPIError` has the driver's own as its `orig`."""
    found = (sqlalchemy.exc.DBAPIError, OSError, asyncio.TimeoutError)
    if arguments.dialect != "asyncpg":
        return found
    try:  # SQLAlchemy 2.0 does not wrap what asyncpg raises on connecting
        from asyncpg import InterfaceError, InternalClientError, PostgresError
    except ImportError as exc:
        raise missing_driver(arguments.dialect, exc) from exc
    return (*found, PostgresError, InterfaceError, InternalClientError)


_OWNED = frozenset(
    "url creator async_creator pool pool_size max_overflow pool_timeout pool_recycle".split()  # noqa: SIM905
)
_OWNED_BY_CONNECT = OWNED_BY_LIBPQ | {"dsn", "conninfo", "database", "ssl", "timeout", "direct_tls"}


class _InGreenlet(Blocking):
    """Waits in code that SQLAlchemy runs beside an event loop, which goes on meanwhile."""

    async def result(self, future: Future[T], timeout: float | None) -> T:
        """See `Wait.result`."""
        return await_only(ON_LOOP.result(future, timeout))

    async def sleep(self, seconds: float) -> None:
        """See `Wait.sleep`."""
        await_only(ON_LOOP.sleep(seconds))

    async def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """See `Wait.call`; SQLAlchemy's own functions have waited already."""
        found = function(*args, **kwargs)
        return await_only(found) if isawaitable(found) else found

    async def readable(self, descriptor: int, seconds: float) -> bool:
        """See `Wait.readable`."""
        return await_only(ON_LOOP.readable(descriptor, seconds))


IN_GREENLET: Wait = _InGreenlet()
"""For what an async engine connects with: it calls sync code, which awaits by `await_only`."""


class _Wiring:
    """How one engine's connections sign in."""

    def __init__(self, arguments: ConnectArguments, *, alone: bool = False) -> None:
        self.arguments = arguments
        self.on_loop = arguments.driver in ASYNC_DRIVERS
        self._wait = IN_GREENLET if self.on_loop else BLOCKING
        self._asking = ASKING[arguments.dialect]
        raw = _driver_connection if self.on_loop else _same
        self._connector = Connector(arguments, self._asking, pooled=not alone, raw=raw)
        self.first_timeout: int | None = None
        self._pooled = False
        self.checks = True
        self._keep_fresh = KeepFresh(arguments.login)
        self._idle: weakref.WeakSet[Any] = weakref.WeakSet()
        self._process = os.getpid()
        self._engine: weakref.ref[Engine] | None = None
        renew_in_child(self)

    def begin_process(self) -> None:
        """In a child after fork: its idle connections are the parent's."""
        engine = self._engine() if self._engine is not None else None
        if engine is not None:
            engine.dispose(close=False)

    def wire(self, engine: Engine) -> None:
        """Have this engine's connections sign in; the login is kept fresh while it has any."""
        event.listen(engine, "do_connect", self._do_connect)
        event.listen(engine, "handle_error", _hand_notes_on)
        self._engine = weakref.ref(engine)
        self._pooled = not isinstance(engine.pool, NullPool)
        if self.checks:
            event.listen(engine, "connect", self._used)
            event.listen(engine, "checkin", self._given_back)
            event.listen(engine, "checkout", self._check)
        if self._asking is ASYNCPG:
            event.listen(engine, "close", _say_goodbye)
        event.listen(engine, "engine_disposed", self._disposed)
        self._keep_fresh.end_with(engine)

    def _do_connect(self, dialect: Any, _: Any, cargs: Any, cparams: Mapping[str, Any]) -> Any:
        plan, asyncpg = self.arguments.plan, self.arguments.dialect == "asyncpg"
        if self.on_loop and self._process != os.getpid():
            raise foreign("AsyncEngine")
        if self.on_loop and not asyncpg:
            refuse_proactor(asyncio.get_running_loop())
        if self._pooled:
            self._keep_fresh.start()
        parameters = dict(cparams)

        def connect(attempt: Attempt) -> Any:
            added: dict[str, Any] = {}
            if asyncpg:
                context = await_only(plan.tls.acontext(attempt.roots, attempt.server))
                added |= {**attempt.server.asyncpg(), **attempt.grant.for_asyncpg()}
                added |= {"ssl": context, "timeout": attempt.seconds}
            else:
                added |= {**attempt.server.libpq(), **attempt.grant.for_libpq()}
                added |= plan.tls.libpq(attempt.roots)
                added["connect_timeout"] = ceil(attempt.seconds)
            if not attempt.statements:
                added |= _NO_STATEMENTS[self.arguments.dialect]
            return dialect.connect(*cargs, **{**parameters, **added})

        return run(self._connector.connect(connect, self._wait, self.first_timeout))

    def _disposed(self, _: Engine) -> None:
        self._keep_fresh.end()
        if (unused := self._connector.take()) is not None:
            unused.close()

    def _used(self, _: Any, record: Any) -> None:
        record.info[_USED] = time.monotonic()

    def _given_back(self, conn: Any, record: Any) -> None:
        self._used(conn, record)
        if self.on_loop and conn is not None:
            self._idle.add(conn.driver_connection)

    def _check(self, conn: Any, record: Any, _: Any) -> None:
        """Before a connection is handed out: whether its server still answers."""
        if self.on_loop:
            self._idle.discard(conn.driver_connection)
        raw = conn.driver_connection if self.on_loop else conn
        connector, used_at = self._connector, record.info.get(_USED, 0)
        if connector.fresh(raw, used_at):
            return
        seconds = self.arguments.plan.pool.timeout
        if run(connector.good(raw, used_at, seconds, self._wait)):
            return
        if self._asking is ASYNCPG:
            for idle in list(self._idle):
                idle.terminate()  # SQLAlchemy would wait 2 s for a goodbye to each
        raise InvalidatePoolError("the server does not answer any more, or is not the right one")


_NO_STATEMENTS: dict[str, dict[str, Any]] = {
    "psycopg": {"prepare_threshold": None},
    "psycopg2": {},
    "asyncpg": {
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": None,
    },
}


def _say_goodbye(conn: Any, _: Any) -> None:
    """Close a connection of asyncpg's within a limit: SQLAlchemy waits as long as it takes."""
    raw = conn.driver_connection
    if in_greenlet() and not raw.is_closed():
        with suppress(Exception):
            await_only(raw.close(timeout=GOODBYE))


def _driver_connection(conn: Any) -> Any:
    return conn.driver_connection


def _same(conn: Any) -> Any:
    return conn


def open_pool(arguments: ConnectArguments, /, *, timeout: int | None = None) -> Engine:
    """An `Engine`: see `Driver.open_pool`."""
    wiring = _Wiring(arguments)
    engine: Engine = _engine(wiring, _pool_arguments(arguments))
    wiring.first_timeout = timeout
    try:
        engine.connect().close()
    except BaseException:
        engine.dispose()
        raise
    wiring.first_timeout = None
    return engine


def unopened_pool(arguments: ConnectArguments, /) -> AsyncEngine:
    """An `AsyncEngine`: see `AsyncDriver.unopened_pool`."""
    return _unopened(_Wiring(arguments))


def _unopened(wiring: _Wiring) -> AsyncEngine:
    arguments = wiring.arguments
    engine: AsyncEngine = _engine(wiring, _pool_arguments(arguments))
    if arguments.dialect == "asyncpg":
        arguments.plan.tls.context()  # reads the roots: once, and here
    return engine


async def aopen_pool(arguments: ConnectArguments, /, *, timeout: int | None = None) -> AsyncEngine:
    """An `AsyncEngine`: see `AsyncDriver.aopen_pool`."""
    wiring = _Wiring(arguments)
    # On a thread: this imports the dialect, and reads the roots.
    engine = await asyncio.to_thread(_unopened, wiring)
    wiring.first_timeout = timeout
    try:
        async with engine.connect():
            pass
    except BaseException:
        await engine.dispose()
        raise
    wiring.first_timeout = None
    return engine


def connect(arguments: ConnectArguments, /, *, timeout: int | None = None) -> Connection:
    """A `Connection`: see `Driver.connect`."""
    wiring = _Wiring(arguments, alone=True)
    wiring.first_timeout = timeout
    engine: Engine = _engine(wiring, {"poolclass": NullPool})
    return engine.connect()


async def aconnect(
    arguments: ConnectArguments, /, *, timeout: int | None = None
) -> AsyncConnection:
    """An `AsyncConnection`: see `AsyncDriver.aconnect`."""
    wiring = _Wiring(arguments, alone=True)
    wiring.first_timeout = timeout
    engine: AsyncEngine = await asyncio.to_thread(_engine, wiring, {"poolclass": NullPool})
    return await engine.connect()


def _engine(wiring: _Wiring, for_pool: Mapping[str, Any]) -> Any:
    """An engine that signs in; it has not connected yet."""
    arguments, dialect = wiring.arguments, wiring.arguments.dialect
    own = arguments.own
    check_native(own, _OWNED, None, "SQLAlchemy's create_engine")
    for_connection = dict(own.pop("connect_args", None) or {})
    wiring.checks = own.pop("pool_pre_ping", True) is not False  # ours is in its place
    if "poolclass" in for_pool:  # the program's own is in it
        own.pop("poolclass", None)
    check_native(for_connection, _OWNED_BY_CONNECT, None, "the driver's connect")
    url = sqlalchemy.URL.create(
        f"postgresql+{dialect}",
        host=arguments.plan.servers[0].host,
        port=arguments.plan.servers[0].port,
        database=arguments.plan.database,
    )
    create: Any = create_async_engine if wiring.on_loop else sqlalchemy.create_engine
    try:
        with guard():  # imports the dialect, and its driver
            engine = create(
                url,
                connect_args=_connect_arguments(arguments, for_connection),
                **{**for_pool, **own},
            )
    except ImportError as exc:
        raise missing_driver(dialect, exc) from exc
    except TypeError as exc:
        raise unfit(exc) from None
    wiring.wire(engine.sync_engine if wiring.on_loop else engine)
    return engine


def _pool_arguments(arguments: ConnectArguments) -> dict[str, Any]:
    limits = arguments.plan.pool
    # Our own check takes the place of pool_pre_ping, which knows neither limit nor last use.
    found: dict[str, Any] = {"pool_pre_ping": False, "pool_recycle": limits.max_lifetime}
    own = arguments.own.get("poolclass")
    usual = AsyncAdaptedQueuePool if arguments.driver in ASYNC_DRIVERS else QueuePool
    if own is None or issubclass(own, QueuePool):
        found |= {
            "poolclass": _limited(own or usual),
            "pool_size": limits.max_size,
            "max_overflow": 0,
            "pool_timeout": limits.timeout,
        }
    return found


class _Limited:
    """Mixed into a pool: what a check-out does knows how much time is left for it."""

    timeout: Callable[[], float]

    def connect(self) -> Any:
        with checkout(self.timeout()):
            return super().connect()  # type: ignore[misc]  # the pool's


def _limited(poolclass: type[Any]) -> type[Any]:
    return type(poolclass.__name__, (_Limited, poolclass), {})


def _connect_arguments(arguments: ConnectArguments, more: dict[str, Any]) -> dict[str, Any]:
    plan = arguments.plan
    if arguments.dialect == "asyncpg":
        ours = plan.asyncpg()
        ours["server_settings"] = {**ours["server_settings"], **more.pop("server_settings", {})}
        return {**ours, **more}
    if arguments.dialect == "psycopg2":
        from psycopg2.extensions import libpq_version
    else:
        from psycopg.pq import version as libpq_version
    return with_options(plan.libpq(libpq_version()), more)
