"""asyncpg: pools and connections that sign in afresh, each with the token of its moment."""

from __future__ import annotations

import asyncio
import inspect
import random
import time
import weakref
from typing import TYPE_CHECKING, Any

from azpgauth.drivers.native import check_native
from azpgauth.drivers.signin import Hold, asign_in
from azpgauth.errors import missing_driver
from azpgauth.runtime.redacted import Redacted

try:
    import asyncpg
    from asyncpg.pool import Pool
except ImportError as exc:
    raise missing_driver("asyncpg", exc) from exc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from azpgauth.identity.login import Grant, Login
    from azpgauth.server.plan import ConnectPlan

__all__ = ["aconnect", "aopen_pool", "errors", "unopened_pool"]


def errors() -> tuple[type[BaseException], ...]:
    """What a failed connect raises."""
    own = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
    return (*own, OSError, asyncio.TimeoutError)


_OWNED_BY_CONNECT = frozenset(
    {"dsn", "host", "port", "user", "password", "passfile", "service", "servicefile", "database"}
    | {"loop", "timeout", "ssl", "direct_tls", "krbsrvname", "gsslib"}
)
_OWNED = _OWNED_BY_CONNECT | {"min_size", "max_size", "max_inactive_connection_lifetime", "connect"}
_CONNECT_ARGUMENTS = frozenset(inspect.signature(asyncpg.connect).parameters)
_POOL_ARGUMENTS = frozenset(inspect.signature(Pool).parameters) - {"connect_args", "connect_kwargs"}


class _Pool(Pool):
    """A pool whose `acquire` waits no longer than `timeout`, and renews what is too old."""

    def __init__(
        self, plan: ConnectPlan, login: Login, for_pool: dict[str, Any], for_connection: Any
    ) -> None:
        self._plan = plan
        self._login = login
        self._more = Redacted(for_connection)
        self._hold = Hold(login)
        self._hold.end_with(self)
        self._renew_at: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()
        self.first_timeout: int | None = None
        super().__init__(
            **{
                "max_queries": 50000,
                "setup": None,
                "init": None,
                "connection_class": asyncpg.Connection,
                "record_class": asyncpg.Record,
                **for_pool,
            },
            min_size=plan.pool.min_size,
            max_size=plan.pool.max_size,
            max_inactive_connection_lifetime=plan.pool.max_idle,
            connect=self._sign_in,
            loop=asyncio.get_running_loop(),
        )

    async def _sign_in(self, *_: Any, **keywords: Any) -> Any:
        self._hold.start()
        conn = await aconnect(
            self._plan, self._login, self._more.held, timeout=self.first_timeout, **keywords
        )
        # Connections that were opened together are not renewed all at the same moment.
        lifetime = self._plan.pool.max_lifetime * random.uniform(0.9, 1.0)  # noqa: S311 - no secret
        self._renew_at[conn] = time.monotonic() + lifetime
        return conn

    def acquire(self, *, timeout: float | None = None) -> Any:
        return super().acquire(timeout=self._plan.pool.timeout if timeout is None else timeout)

    async def _acquire(self, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        while True:
            proxy = await super()._acquire(  # type: ignore[misc]  # not in the stubs
                max(deadline - time.monotonic(), 0.001)
            )
            if time.monotonic() < self._renew_at.get(proxy._con, 0):  # noqa: SLF001 - no other way
                return proxy
            await proxy.close()  # gives its place back; the next one there is another

    async def close(self) -> None:
        try:
            if self._initialized:  # type: ignore[attr-defined]  # not in the stubs
                await super().close()
        finally:
            self._hold.end()

    def terminate(self) -> None:
        try:
            if self._initialized:  # type: ignore[attr-defined]  # as above
                super().terminate()
        finally:
            self._hold.end()


def unopened_pool(
    plan: ConnectPlan, login: Login, native: Mapping[str, Any] | None = None
) -> _Pool:
    """A pool of the running event loop, to be awaited or entered.

    Args:
        plan: Where to connect.
        login: What to sign in with.
        native: Arguments of asyncpg's own: those of `create_pool`, and those of `connect`.

    Raises:
        RuntimeError: There is no running event loop.
        SettingsError: `native` has a key that is unknown or that azpgauth owns.
    """
    check_native(
        native or {},
        _OWNED,
        _POOL_ARGUMENTS | _CONNECT_ARGUMENTS,
        "asyncpg's create_pool or connect",
    )
    asyncio.get_running_loop()
    plan.tls.context()  # reads the roots: once, and here
    for_pool = {k: v for k, v in (native or {}).items() if k in _POOL_ARGUMENTS}
    return _Pool(
        plan, login, for_pool, {k: v for k, v in (native or {}).items() if k not in for_pool}
    )


async def aopen_pool(
    plan: ConnectPlan,
    login: Login,
    native: Mapping[str, Any] | None = None,
    *,
    timeout: int | None = None,
) -> Pool:
    """A pool of the running event loop, with one connection made and proven.

    Args:
        plan: Where to connect.
        login: What to sign in with.
        native: Arguments of asyncpg's own: those of `create_pool`, and those of `connect`.
        timeout: Seconds for the first connection, if it shall have less than those to come.

    Raises:
        asyncpg.PostgresError: The server refused.
        OSError: The server could not be reached.
        SettingsError: `native` has a key that is unknown or that azpgauth owns.
    """
    await plan.tls.acontext()
    pool = unopened_pool(plan, login, native)
    pool.first_timeout = timeout
    try:
        await pool
        if not pool.get_size():
            async with pool.acquire():
                pass
    except BaseException:
        pool.terminate()
        raise
    pool.first_timeout = None
    return pool


async def aconnect(
    plan: ConnectPlan,
    login: Login,
    native: Mapping[str, Any] | None = None,
    *,
    timeout: int | None = None,
    **keywords: Any,
) -> Any:
    """One connection of the running event loop.

    Args:
        plan: Where to connect.
        login: What to sign in with.
        native: Arguments of asyncpg's `connect`.
        timeout: Seconds, if it shall have less than the plan says.
        **keywords: What the pool adds.

    Raises:
        asyncpg.PostgresError: The server refused.
        OSError: The server could not be reached.
        SettingsError: `native` has a key that is unknown or that azpgauth owns.
    """
    more = dict(native or {})
    check_native(more, _OWNED_BY_CONNECT, _CONNECT_ARGUMENTS, "asyncpg's connect")
    keywords = {**keywords, **plan.asyncpg(), **more}
    keywords["server_settings"] = {
        **plan.asyncpg()["server_settings"],
        **(more.get("server_settings") or {}),
    }
    if timeout is not None:
        keywords["timeout"] = float(timeout)

    async def attempt(grant: Grant, trusted: str) -> Any:
        context = await plan.tls.acontext(trusted)
        conn = await asyncpg.connect(**keywords, **grant.for_asyncpg(), ssl=context)
        # Its protocol keeps the answer, where whoever walks a frame's objects would find it.
        protocol: Any = getattr(conn, "_protocol")  # noqa: B009 - not in the stubs
        protocol.password = None  # it is sent once, and needed no more
        return conn

    return await asign_in(login, plan.tls.roots, attempt)
