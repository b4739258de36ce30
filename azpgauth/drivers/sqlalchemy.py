"""SQLAlchemy: engines whose connections sign in afresh, sync and async, under each dialect.

The token enters through the event `do_connect`, on a copy of the parameters: SQLAlchemy hands the
same dict to every connect. https://docs.sqlalchemy.org/en/20/core/events.html
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

from azpgauth.drivers.native import OWNED_BY_LIBPQ, check_native, unfit
from azpgauth.drivers.signin import Hold, refuse_proactor, sign_in
from azpgauth.errors import missing_driver
from azpgauth.runtime.importing import guard

try:
    import sqlalchemy
    from sqlalchemy import event
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool, QueuePool
    from sqlalchemy.util import await_only
except ImportError as exc:
    raise missing_driver("sqlalchemy", exc) from exc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from azpgauth.identity.login import Grant, Login
    from azpgauth.server.plan import ConnectPlan

__all__ = [
    "OnLoop",
    "aconnect",
    "aopen_pool",
    "connect",
    "errors",
    "open_pool",
    "unopened_pool",
]

Dialect = Literal["psycopg", "psycopg2", "asyncpg"]


def errors(dialect: Dialect = "psycopg") -> tuple[type[BaseException], ...]:
    """What a failed connect raises; a `DBAPIError` has the driver's own as its `orig`."""
    found = (sqlalchemy.exc.DBAPIError, OSError, asyncio.TimeoutError)
    if dialect != "asyncpg":
        return found
    try:  # SQLAlchemy 2.0 does not wrap what asyncpg raises on connecting
        from asyncpg import InterfaceError, InternalClientError, PostgresError
    except ImportError as exc:
        raise missing_driver(dialect, exc) from exc
    return (*found, PostgresError, InterfaceError, InternalClientError)


_OWNED = frozenset(
    {"url", "creator", "async_creator", "pool", "pool_size", "max_overflow", "pool_timeout"}
    | {"pool_recycle"}
)
_OWNED_BY_CONNECT = OWNED_BY_LIBPQ | {"dsn", "conninfo", "database", "ssl", "timeout", "direct_tls"}


class OnLoop:
    """A login for code that SQLAlchemy runs beside an event loop: it waits without blocking."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self.accepted = login.accepted

    def grant(self) -> Grant:
        """The present role and password."""
        return await_only(self._login.agrant())

    def regrant(self, refused: Grant, message: str) -> Grant | None:
        """What to try once more with."""
        return await_only(self._login.aregrant(refused, message))


class _Wiring:
    """How one engine's connections sign in."""

    def __init__(
        self, plan: ConnectPlan, login: Login, dialect: Dialect, *, is_async: bool
    ) -> None:
        self.plan = plan
        self.dialect = dialect
        self.is_async = is_async
        self.first_timeout: int | None = None
        self._pooled = False
        self.hold = Hold(login)
        self._login: Any = OnLoop(login) if is_async else login

    def wire(self, engine: Engine) -> None:
        """Have this engine's connections sign in; the login is held while it has any."""
        event.listen(engine, "do_connect", self._do_connect)
        self._pooled = not isinstance(engine.pool, NullPool)
        event.listen(engine, "engine_disposed", lambda _: self.hold.end())
        self.hold.end_with(engine)

    def _do_connect(self, dialect: Any, _: Any, cargs: Any, cparams: Mapping[str, Any]) -> Any:
        if self.is_async and self.dialect == "psycopg":
            refuse_proactor(asyncio.get_running_loop())
        if self._pooled:
            self.hold.start()
        sooner: dict[str, Any] = {}
        if self.first_timeout is not None:
            name = "timeout" if self.dialect == "asyncpg" else "connect_timeout"
            sooner = {name: self.first_timeout}

        def attempt(grant: Grant, trusted: str) -> Any:
            return dialect.connect(*cargs, **{**cparams, **sooner, **self._added(grant, trusted)})

        return sign_in(self._login, self.plan.tls.roots, attempt)

    def _added(self, grant: Grant, trusted: str) -> dict[str, Any]:
        tls = self.plan.tls
        if self.dialect != "asyncpg":
            return {**grant.for_libpq(), **tls.libpq(trusted)}
        context = await_only(tls.acontext(trusted))
        return {**grant.for_asyncpg(), "ssl": context}


def open_pool(
    plan: ConnectPlan,
    login: Login,
    native: Mapping[str, Any] | None = None,
    *,
    timeout: int | None = None,
    dialect: Dialect = "psycopg",
) -> Engine:
    """An engine with one connection made and proven.

    Args:
        plan: Where to connect.
        login: What to sign in with.
        native: Arguments of `create_engine`.
        timeout: Seconds for the first connection, if it shall have less than those to come.
        dialect: What SQLAlchemy connects with.

    Raises:
        sqlalchemy.exc.DBAPIError: The first connection failed; one attempt is made.
        SettingsError: `native` has a key that is unknown or that azpgauth owns.
        MissingDriverError: The dialect's driver is not installed.
    """
    wiring = _Wiring(plan, login, dialect, is_async=False)
    pool_arguments = _pool_arguments(plan, native)
    engine: Engine = _engine(sqlalchemy.create_engine, wiring, pool_arguments, native)
    wiring.first_timeout = timeout
    try:
        engine.connect().close()
    except BaseException:
        engine.dispose()
        raise
    wiring.first_timeout = None
    return engine


def unopened_pool(
    plan: ConnectPlan,
    login: Login,
    native: Mapping[str, Any] | None = None,
    *,
    dialect: Dialect = "psycopg",
) -> AsyncEngine:
    """An async engine, which connects when it is first used.

    Args:
        plan: Where to connect.
        login: What to sign in with.
        native: Arguments of `create_async_engine`.
        dialect: What SQLAlchemy connects with.

    Raises:
        SettingsError: `native` has a key that is unknown or that azpgauth owns.
        MissingDriverError: The dialect's driver is not installed.
    """
    return _unopened(_Wiring(plan, login, dialect, is_async=True), native)


def _unopened(wiring: _Wiring, native: Mapping[str, Any] | None) -> AsyncEngine:
    engine: AsyncEngine = _engine(
        create_async_engine, wiring, _pool_arguments(wiring.plan, native), native
    )
    if wiring.dialect == "asyncpg":
        wiring.plan.tls.context()  # reads the roots: once, and here
    return engine


async def aopen_pool(
    plan: ConnectPlan,
    login: Login,
    native: Mapping[str, Any] | None = None,
    *,
    timeout: int | None = None,
    dialect: Dialect = "psycopg",
) -> AsyncEngine:
    """As `open_pool`, an async engine on the running event loop."""
    wiring = _Wiring(plan, login, dialect, is_async=True)
    # On a thread: this imports the dialect, and reads the roots.
    engine = await asyncio.to_thread(_unopened, wiring, native)
    wiring.first_timeout = timeout
    try:
        async with engine.connect():
            pass
    except BaseException:
        await engine.dispose()
        raise
    wiring.first_timeout = None
    return engine


def connect(
    plan: ConnectPlan,
    login: Login,
    native: Mapping[str, Any] | None = None,
    *,
    timeout: int | None = None,
    dialect: Dialect = "psycopg",
) -> Connection:
    """One connection; closing it leaves nothing open.

    Args:
        plan: Where to connect.
        login: What to sign in with.
        native: Arguments of `create_engine`.
        timeout: Seconds, if it shall have less than the plan says.
        dialect: What SQLAlchemy connects with.

    Raises:
        sqlalchemy.exc.DBAPIError: It failed; one attempt is made.
        SettingsError: `native` has a key that is unknown or that azpgauth owns.
        MissingDriverError: The dialect's driver is not installed.
    """
    wiring = _Wiring(plan, login, dialect, is_async=False)
    wiring.first_timeout = timeout
    engine: Engine = _engine(sqlalchemy.create_engine, wiring, {"poolclass": NullPool}, native)
    return engine.connect()


async def aconnect(
    plan: ConnectPlan,
    login: Login,
    native: Mapping[str, Any] | None = None,
    *,
    timeout: int | None = None,
    dialect: Dialect = "psycopg",
) -> AsyncConnection:
    """As `connect`, on the running event loop."""
    wiring = _Wiring(plan, login, dialect, is_async=True)
    wiring.first_timeout = timeout
    engine: AsyncEngine = await asyncio.to_thread(
        _engine, create_async_engine, wiring, {"poolclass": NullPool}, native
    )
    return await engine.connect()


def _engine(
    create: Any,
    wiring: _Wiring,
    pool_arguments: Mapping[str, Any],
    native: Mapping[str, Any] | None,
) -> Any:
    """An engine that signs in; it has not connected yet."""
    arguments = dict(native or {})
    check_native(arguments, _OWNED, None, "SQLAlchemy's create_engine")
    for_connection = dict(arguments.pop("connect_args", None) or {})
    check_native(for_connection, _OWNED_BY_CONNECT, None, "the driver's connect")
    url = sqlalchemy.URL.create(
        f"postgresql+{wiring.dialect}",
        host=wiring.plan.hosts[0],
        port=wiring.plan.port,
        database=wiring.plan.database,
    )
    try:
        with guard():  # imports the dialect, and its driver
            engine = create(
                url,
                connect_args=_connect_arguments(wiring, for_connection),
                **{**pool_arguments, **arguments},
            )
    except ImportError as exc:
        raise missing_driver(wiring.dialect, exc) from exc
    except TypeError as exc:
        raise unfit(exc) from None
    wiring.wire(engine.sync_engine if wiring.is_async else engine)
    return engine


def _pool_arguments(plan: ConnectPlan, native: Mapping[str, Any] | None) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "pool_pre_ping": True,
        "pool_recycle": plan.pool.max_lifetime,
    }
    poolclass = (native or {}).get("poolclass")
    if poolclass is None or issubclass(poolclass, QueuePool):
        arguments |= {
            "pool_size": plan.pool.max_size,
            "max_overflow": 0,
            "pool_timeout": plan.pool.timeout,
        }
    return arguments


def _connect_arguments(wiring: _Wiring, more: dict[str, Any]) -> dict[str, Any]:
    if wiring.dialect == "asyncpg":
        ours = wiring.plan.asyncpg()
        ours["server_settings"] = {**ours["server_settings"], **more.pop("server_settings", {})}
        return {**ours, **more}
    if wiring.dialect == "psycopg2":
        from psycopg2.extensions import libpq_version
    else:
        from psycopg.pq import version as libpq_version
    return {**wiring.plan.libpq(libpq_version()), **more}
