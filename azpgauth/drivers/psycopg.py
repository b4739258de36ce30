"""psycopg 3: pools and connections that sign in afresh, each with the token of its moment."""

from __future__ import annotations

import asyncio
import atexit
import inspect
import os
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from azpgauth.drivers.native import OWNED_BY_LIBPQ, check_native
from azpgauth.drivers.signin import Hold, asign_in, refuse_proactor, sign_in
from azpgauth.errors import missing_driver

try:
    import psycopg
    import psycopg_pool
    from psycopg import pq
except ImportError as exc:
    raise missing_driver("psycopg", exc) from exc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from typing_extensions import Self

    from azpgauth.identity.login import Login
    from azpgauth.server.plan import ConnectPlan
    from azpgauth.server.tls import Tls

__all__ = [
    "aconnect",
    "aopen_pool",
    "connect",
    "errors",
    "open_pool",
    "unopened_pool",
]


def errors() -> tuple[type[BaseException], ...]:
    """What a failed connect raises."""
    return (psycopg.Error,)


_OWNED = (
    OWNED_BY_LIBPQ
    | {"conninfo", "kwargs", "open", "min_size", "max_size", "timeout"}
    | {"max_lifetime", "max_idle", "login", "tls", "first"}
)


class _SignIn:
    """Mixed into a connection class: `connect` takes a login instead of user and password."""

    @classmethod
    def connect(
        cls,
        conninfo: str = "",
        *,
        login: Login,
        tls: Tls,
        first: _First | None = None,
        **kwargs: Any,
    ) -> Self:
        """Sign in, once more with another token if the server refuses a cached one."""
        if first is not None and (ready := first.take()) is not None:
            return ready  # type: ignore[no-any-return]
        connect: Callable[..., Self] = super().connect  # type: ignore[misc]
        return sign_in(
            login,
            tls.roots,
            lambda grant, trusted: connect(
                conninfo, **{**kwargs, **grant.for_libpq(), **tls.libpq(trusted)}
            ),
        )


class _AsyncSignIn:
    """As `_SignIn`, for connections of an event loop."""

    @classmethod
    async def connect(
        cls,
        conninfo: str = "",
        *,
        login: Login,
        tls: Tls,
        first: _First | None = None,
        **kwargs: Any,
    ) -> Self:
        """Sign in, once more with another token if the server refuses a cached one."""
        if first is not None and (ready := first.take()) is not None:
            return ready  # type: ignore[no-any-return]
        refuse_proactor(asyncio.get_running_loop())
        connect: Callable[..., Awaitable[Self]] = super().connect  # type: ignore[misc]
        return await asign_in(
            login,
            tls.roots,
            lambda grant, trusted: connect(
                conninfo, **{**kwargs, **grant.for_libpq(), **tls.libpq(trusted)}
            ),
        )


class SignedInConnection(_SignIn, psycopg.Connection[Any]):  # type: ignore[misc]
    """A connection that azpgauth opened."""


class SignedInAsyncConnection(_AsyncSignIn, psycopg.AsyncConnection[Any]):  # type: ignore[misc]
    """A connection that azpgauth opened, of an event loop."""


class _First:
    """The proven connection, until the pool asks for its first one."""

    def __init__(self, *conns: Any) -> None:
        self._conns = deque(conns)

    def put(self, conn: Any) -> None:
        self._conns.append(conn)

    def take(self) -> Any:
        try:
            return self._conns.pop()  # atomic: the pool's workers race for it
        except IndexError:
            return None


_C = TypeVar("_C", bound="psycopg.Connection[Any]")


class _ConnectionPool(psycopg_pool.ConnectionPool[_C]):
    """A pool that holds its login while it is open."""

    hold: Hold
    first: _First
    process: int

    def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        super().open(wait, timeout)
        self.hold.start()
        self.process = os.getpid()
        _forgotten.add(self)

    def close(self, timeout: float = 5.0) -> None:
        try:
            super().close(timeout)
        finally:
            self.hold.end()
            if (unused := self.first.take()) is not None:
                unused.close()


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
    """A pool that holds its login while it is open."""

    hold: Hold
    first: _First

    async def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        refuse_proactor(asyncio.get_running_loop())
        await super().open(wait, timeout)
        self.hold.start()

    async def close(self, timeout: float = 5.0) -> None:
        try:
            await super().close(timeout)
        finally:
            self.hold.end()
            if (unused := self.first.take()) is not None:
                await unused.close()


def open_pool(
    plan: ConnectPlan,
    login: Login,
    native: Mapping[str, Any] | None = None,
    *,
    timeout: int | None = None,
) -> psycopg_pool.ConnectionPool[Any]:
    """An open pool with one connection made and proven.

    Args:
        plan: Where to connect.
        login: What to sign in with.
        native: Arguments of psycopg's own: those of `ConnectionPool`, and those of `connect`.
        timeout: Seconds for the first connection, if it shall have less than those to come.

    Raises:
        psycopg.Error: The first connection failed; one attempt is made.
        SettingsError: `native` has a key that is unknown or that azpgauth owns.
    """
    for_pool, for_connection = _split(native or {})
    configure = for_pool.pop("configure", None)
    connection_class = _signed_in(for_pool.pop("connection_class", psycopg.Connection))
    keywords = _keywords(plan, login, for_connection)
    conn = connection_class.connect(**_sooner(keywords, timeout))
    try:
        if configure is not None:
            # Here rather than by a worker of the pool, where an error would end in a log line.
            configure(conn)
            configure = _except_for(conn, configure)
        first = _First(conn)
        pool: _ConnectionPool[Any] = _ConnectionPool(
            kwargs={**keywords, "first": first},
            connection_class=connection_class,
            configure=configure,
            **_limits(plan),
            **{"check": psycopg_pool.ConnectionPool.check_connection, **for_pool},
        )
        pool.first, pool.hold = first, Hold(login)
        pool.hold.end_with(pool)
        pool.open()
    except BaseException:
        conn.close()
        raise
    return pool


def unopened_pool(
    plan: ConnectPlan, login: Login, native: Mapping[str, Any] | None = None
) -> psycopg_pool.AsyncConnectionPool[Any]:
    """An async pool, to be opened on the event loop it will be used on.

    Args:
        plan: Where to connect.
        login: What to sign in with.
        native: Arguments of psycopg's own: those of `AsyncConnectionPool`, and those of `connect`.

    Raises:
        SettingsError: `native` has a key that is unknown or that azpgauth owns.
    """
    for_pool, for_connection = _split(native or {})
    base = for_pool.pop("connection_class", psycopg.AsyncConnection)
    first = _First()
    pool = _AsyncConnectionPool(
        kwargs={**_keywords(plan, login, for_connection), "first": first},
        connection_class=_signed_in_async(base),
        **_limits(plan),
        **{"check": psycopg_pool.AsyncConnectionPool.check_connection, **for_pool},
    )
    pool.first, pool.hold = first, Hold(login)
    pool.hold.end_with(pool)
    return pool


async def aopen_pool(
    plan: ConnectPlan,
    login: Login,
    native: Mapping[str, Any] | None = None,
    *,
    timeout: int | None = None,
) -> psycopg_pool.AsyncConnectionPool[Any]:
    """As `open_pool`, on an event loop."""
    native = dict(native or {})
    pool = unopened_pool(plan, login, native)  # also checks what is in native
    configure = native.pop("configure", None)
    conn = await aconnect(plan, login, _split(native)[1], timeout=timeout, of=pool.connection_class)
    try:
        if configure is not None:
            await configure(conn)
            configure = _except_for(conn, configure, done=_nothing)
            pool = unopened_pool(plan, login, {**native, "configure": configure})
        pool.first.put(conn)  # type: ignore[attr-defined]
        await pool.open()
    except BaseException:
        await conn.close()
        raise
    return pool


async def _nothing() -> None:
    pass


def connect(
    plan: ConnectPlan,
    login: Login,
    native: Mapping[str, Any] | None = None,
    *,
    timeout: int | None = None,
) -> psycopg.Connection[Any]:
    """One connection.

    Args:
        plan: Where to connect.
        login: What to sign in with.
        native: Arguments of psycopg's own `connect`.
        timeout: Seconds, if it shall have less than the plan says.

    Raises:
        psycopg.Error: It failed; one attempt is made.
        SettingsError: `native` has a key that is unknown or that azpgauth owns.
    """
    check_native(native or {}, _OWNED, _CONNECT_ARGUMENTS, "psycopg's connect")
    return SignedInConnection.connect(**_sooner(_keywords(plan, login, native or {}), timeout))


async def aconnect(
    plan: ConnectPlan,
    login: Login,
    native: Mapping[str, Any] | None = None,
    *,
    timeout: int | None = None,
    of: type[Any] = SignedInAsyncConnection,
) -> psycopg.AsyncConnection[Any]:
    """As `connect`, on an event loop."""
    check_native(native or {}, _OWNED, _CONNECT_ARGUMENTS, "psycopg's connect")
    conn: psycopg.AsyncConnection[Any] = await of.connect(
        **_sooner(_keywords(plan, login, native or {}), timeout)
    )
    return conn


def _keywords(plan: ConnectPlan, login: Login, more: Mapping[str, Any]) -> dict[str, Any]:
    return {**plan.libpq(pq.version()), **more, "login": login, "tls": plan.tls}


def _sooner(keywords: dict[str, Any], timeout: int | None) -> dict[str, Any]:
    return keywords if timeout is None else {**keywords, "connect_timeout": timeout}


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


def _signed_in_async(
    base: type[psycopg.AsyncConnection[Any]],
) -> type[psycopg.AsyncConnection[Any]]:
    if base is psycopg.AsyncConnection:
        return SignedInAsyncConnection
    return type(f"SignedIn{base.__name__}", (_AsyncSignIn, base), {})


def _signed_in(base: type[psycopg.Connection[Any]]) -> type[psycopg.Connection[Any]]:
    if base is psycopg.Connection:
        return SignedInConnection
    return type(f"SignedIn{base.__name__}", (_SignIn, base), {})


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
