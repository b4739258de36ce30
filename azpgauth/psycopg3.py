"""psycopg 3: pools whose connections sign in afresh, each with the token of its moment."""

from __future__ import annotations

import inspect
import weakref
from collections import deque
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
import psycopg_pool
from psycopg import pq

from azpgauth.errors import Problem, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from typing_extensions import Self

    from azpgauth.login import Login
    from azpgauth.plan import ConnectPlan

__all__ = ["ERRORS", "open_async_pool", "open_pool", "unopened_async_pool"]

ERRORS = (psycopg.Error,)
"""What a failed connect raises."""

_OWNED = frozenset(
    {"conninfo", "kwargs", "open", "min_size", "max_size", "timeout", "max_lifetime", "max_idle"}
    | {"host", "hostaddr", "port", "dbname", "user", "password", "passfile", "service"}
    | {"connect_timeout", "application_name", "gssencmode", "channel_binding", "require_auth"}
    | {"requirepeer", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcertmode"}
    | {"sslcrl", "sslcrldir", "sslsni", "sslnegotiation"}
    | {"ssl_min_protocol_version", "ssl_max_protocol_version", "login", "first"}
)


class _SignIn:
    """Mixed into a connection class: `connect` takes a login instead of user and password."""

    @classmethod
    def connect(
        cls, conninfo: str = "", *, login: Login, first: _First | None = None, **kwargs: Any
    ) -> Self:
        """Sign in, once more with another token if the server refuses a cached one."""
        if first is not None and (ready := first.take()) is not None:
            return ready  # type: ignore[no-any-return]
        grant = login.grant()
        while True:
            try:
                conn = super().connect(  # type: ignore[misc]
                    conninfo, user=grant.role, password=grant.password, **kwargs
                )
            except psycopg.Error as exc:
                # A new one of its kind: this one's frames and libpq connection hold the token.
                error = type(exc)(*exc.args)
            except BaseException as exc:  # noqa: BLE001 - raised again
                raise exc.with_traceback(None) from None
            else:
                login.accepted(grant)
                return conn  # type: ignore[no-any-return]
            again = login.regrant(grant, str(error))
            if again is None:
                raise error
            grant = again


_C = TypeVar("_C", bound="psycopg.Connection[Any]")


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

    def close(self) -> None:
        conn = self.take()
        if conn is not None:
            conn.close()


class _ConnectionPool(psycopg_pool.ConnectionPool[_C]):
    """A pool that tells when it closes."""

    on_close: Callable[[], None] | None = None

    def close(self, timeout: float = 5.0) -> None:
        try:
            super().close(timeout)
        finally:
            if self.on_close is not None:
                self.on_close()


class _AsyncSignIn:
    """As `_SignIn`, for connections of an event loop."""

    @classmethod
    async def connect(
        cls, conninfo: str = "", *, login: Login, first: _First | None = None, **kwargs: Any
    ) -> Self:
        """Sign in, once more with another token if the server refuses a cached one."""
        if first is not None and (ready := first.take()) is not None:
            return ready  # type: ignore[no-any-return]
        grant = await login.agrant()
        while True:
            try:
                conn = await super().connect(  # type: ignore[misc]
                    conninfo, user=grant.role, password=grant.password, **kwargs
                )
            except psycopg.Error as exc:
                error = type(exc)(*exc.args)
            except BaseException as exc:  # noqa: BLE001 - raised again
                raise exc.with_traceback(None) from None
            else:
                login.accepted(grant)
                return conn  # type: ignore[no-any-return]
            again = await login.aregrant(grant, str(error))
            if again is None:
                raise error
            grant = again


class _AsyncConnectionPool(psycopg_pool.AsyncConnectionPool[Any]):
    """A pool that holds its login while it is open."""

    login: Login
    first: _First
    release: Callable[[], None] | None = None

    async def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        await super().open(wait, timeout)
        if self.release is None:
            self.release = self.login.hold()
            weakref.finalize(self, self.release).atexit = False

    async def close(self, timeout: float = 5.0) -> None:
        try:
            await super().close(timeout)
        finally:
            if self.release is not None:
                self.release()
            if (unused := self.first.take()) is not None:
                await unused.close()


class SignedInAsyncConnection(_AsyncSignIn, psycopg.AsyncConnection[Any]):  # type: ignore[misc]
    """The connection of an async pool that azpgauth made."""


class SignedInConnection(_SignIn, psycopg.Connection[Any]):  # type: ignore[misc]
    """The connection of a pool that azpgauth opened."""


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
    connection_class = _signed_in(for_pool.pop("connection_class", psycopg.Connection))
    configure = for_pool.pop("configure", None)
    keywords = {**plan.libpq(pq.version()), **for_connection, "login": login}

    timeout = plan.connect_timeout if timeout is None else timeout
    conn = connection_class.connect(**{**keywords, "connect_timeout": timeout})
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
        pool.open()
    except BaseException:
        conn.close()
        raise
    pool.on_close = _on_close(first, login.hold())
    weakref.finalize(pool, pool.on_close).atexit = False
    return pool


def unopened_async_pool(
    plan: ConnectPlan, login: Login, native: Mapping[str, Any] | None = None
) -> psycopg_pool.AsyncConnectionPool[Any]:
    """A pool to be opened on the event loop it will be used on.

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
    keywords = {**plan.libpq(pq.version()), **for_connection, "login": login, "first": first}
    pool = _AsyncConnectionPool(
        kwargs=keywords,
        connection_class=_signed_in_async(base),
        **_limits(plan),
        **{"check": psycopg_pool.AsyncConnectionPool.check_connection, **for_pool},
    )
    pool.login, pool.first = login, first
    return pool


async def open_async_pool(
    plan: ConnectPlan,
    login: Login,
    native: Mapping[str, Any] | None = None,
    *,
    timeout: int | None = None,
) -> psycopg_pool.AsyncConnectionPool[Any]:
    """As `open_pool`, on an event loop."""
    for_pool, for_connection = _split(native or {})
    configure = for_pool.pop("configure", None)
    base = for_pool.get("connection_class", psycopg.AsyncConnection)
    keywords = {**plan.libpq(pq.version()), **for_connection, "login": login}
    timeout = plan.connect_timeout if timeout is None else timeout
    conn = await _signed_in_async(base).connect(**{**keywords, "connect_timeout": timeout})
    try:
        if configure is not None:
            await configure(conn)
            configure = _except_for(conn, configure, done=_nothing)
        pool = unopened_async_pool(
            plan, login, {**for_connection, **for_pool, "configure": configure}
        )
        pool.first.put(conn)  # type: ignore[attr-defined]
        await pool.open()
    except BaseException:
        await conn.close()
        raise
    return pool


async def _nothing() -> None:
    pass


def _limits(plan: ConnectPlan) -> dict[str, Any]:
    return {
        "min_size": plan.pool.min_size,
        "max_size": plan.pool.max_size,
        "timeout": plan.pool.timeout,
        "max_lifetime": plan.pool.max_lifetime,
        "max_idle": plan.pool.max_idle,
        "open": False,
    }


def _on_close(first: _First, release: Callable[[], None]) -> Callable[[], None]:
    def on_close() -> None:
        release()
        first.close()

    return on_close


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
    problems = []
    for key in native:
        if key in _OWNED:
            reason, action = "azpgauth sets this itself", "use the settings instead"
        elif key in _POOL_ARGUMENTS | _CONNECT_ARGUMENTS:
            continue
        else:
            near = get_close_matches(key, _POOL_ARGUMENTS | _CONNECT_ARGUMENTS - _OWNED, 1)
            reason = "neither ConnectionPool nor connect of psycopg has such an argument"
            action = f"did you mean {near[0]}?" if near else "see psycopg's documentation"
        problems.append(Problem(f"native[{key!r}]", "argument native", reason, action))
    if problems:
        raise SettingsError(problems)
    for_pool = {key: native[key] for key in native if key in _POOL_ARGUMENTS}
    return for_pool, {key: native[key] for key in native if key not in _POOL_ARGUMENTS}
