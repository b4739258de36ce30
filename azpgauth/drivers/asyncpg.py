"""Connects with asyncpg: each connection signs in with the token of its moment."""

from __future__ import annotations

import asyncio
import inspect
import os
import random
import time
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from azpgauth.drivers.checks import asyncpg_answers, patience, used_lately
from azpgauth.drivers.inherited import Connections, foreign
from azpgauth.drivers.native import check_native
from azpgauth.drivers.pooler import Pooler, look_at_asyncpg, settle_asyncpg
from azpgauth.drivers.signin import KeepFresh, asign_in
from azpgauth.errors import missing_driver
from azpgauth.runtime.redacted import Redacted

try:
    import asyncpg
    from asyncpg.pool import Pool
except ImportError as exc:
    raise missing_driver("asyncpg", exc) from exc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from azpgauth.drivers.driver import ConnectArguments
    from azpgauth.identity.login import Grant

__all__ = ["aconnect", "aopen_pool", "errors", "unopened_pool"]


def errors(_: ConnectArguments, /) -> tuple[type[BaseException], ...]:
    """What a failed connect raises."""
    own = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
    return (*own, OSError, asyncio.TimeoutError)


_OWNED_BY_CONNECT = frozenset(
    """
    dsn host port user password passfile service servicefile database loop timeout ssl direct_tls
    krbsrvname gsslib
    """.split()  # noqa: SIM905 - as in native.py
)
_OWNED = _OWNED_BY_CONNECT | {"min_size", "max_size", "max_inactive_connection_lifetime", "connect"}
_CONNECT_ARGUMENTS = frozenset(inspect.signature(asyncpg.connect).parameters)
_POOL_ARGUMENTS = frozenset(inspect.signature(Pool).parameters) - {"connect_args", "connect_kwargs"}


class _Pool(Pool):
    """A pool whose `acquire` waits no longer than `timeout`, and renews what is too old."""

    def __init__(
        self, arguments: ConnectArguments, for_pool: dict[str, Any], for_connection: dict[str, Any]
    ) -> None:
        plan = arguments.plan
        self._plan = plan
        self._arguments = replace(arguments, native=Redacted(for_connection))
        self._process = os.getpid()
        self._connections = Connections()
        self._pooler = Pooler(arguments)
        self._keep_fresh = KeepFresh(arguments.login)
        self._keep_fresh.end_with(self)
        self._renew_at: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()
        self._used_at: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()
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
        self._keep_fresh.start()
        conn = await _connect(self._arguments, self._pooler, self.first_timeout, keywords)
        self._connections.add(conn)
        # Connections that were opened together are not renewed all at the same moment.
        lifetime = self._plan.pool.max_lifetime * random.uniform(0.9, 1.0)  # noqa: S311 - no secret
        self._renew_at[conn] = time.monotonic() + lifetime
        self._used_at[conn] = time.monotonic()
        return conn

    def acquire(self, *, timeout: float | None = None) -> Any:
        return super().acquire(timeout=self._plan.pool.timeout if timeout is None else timeout)

    async def _acquire(self, timeout: float) -> Any:
        if self._process != os.getpid():
            raise foreign("Pool")
        deadline = time.monotonic() + timeout
        while True:
            proxy = await super()._acquire(  # type: ignore[misc]  # not in the stubs
                max(deadline - time.monotonic(), 0.001)
            )
            conn, now = proxy._con, time.monotonic()  # noqa: SLF001 - no other way
            if now >= self._renew_at.get(conn, 0):
                await proxy.close()  # gives its place back; the next one there is another
            elif await self._is_good(conn, now, deadline):
                return proxy
            else:  # so are the others that are idle, most likely
                await self.expire_connections()

    async def _is_good(self, conn: Any, now: float, deadline: float) -> bool:
        if used_lately(self._used_at.get(conn, 0)) and not conn.is_closed():
            return True
        return await asyncpg_answers(conn, patience(deadline - now))

    async def release(self, connection: Any, *, timeout: float | None = None) -> None:
        if (conn := getattr(connection, "_con", None)) is not None:
            self._used_at[conn] = time.monotonic()
        await super().release(connection, timeout=timeout)

    async def close(self) -> None:
        try:
            if self._initialized:  # type: ignore[attr-defined]  # not in the stubs
                await super().close()
        finally:
            self._keep_fresh.end()

    def terminate(self) -> None:
        try:
            if self._initialized:  # type: ignore[attr-defined]  # as above
                super().terminate()
        finally:
            self._keep_fresh.end()


def unopened_pool(arguments: ConnectArguments, /) -> _Pool:
    """A `Pool`, made on its event loop: see `AsyncDriver.unopened_pool`."""
    own = arguments.own
    known = _POOL_ARGUMENTS | _CONNECT_ARGUMENTS
    check_native(own, _OWNED, known, "asyncpg's create_pool or connect")
    asyncio.get_running_loop()
    arguments.plan.tls.context()  # reads the roots: once, and here
    for_pool = {name: own.pop(name) for name in list(own) if name in _POOL_ARGUMENTS}
    return _Pool(arguments, for_pool, own)


async def aopen_pool(arguments: ConnectArguments, /, *, timeout: int | None = None) -> Pool:
    """A `Pool`: see `AsyncDriver.aopen_pool`."""
    await arguments.plan.tls.acontext()
    pool = unopened_pool(arguments)
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


async def aconnect(arguments: ConnectArguments, /, *, timeout: int | None = None) -> Any:
    """A `Connection`: see `AsyncDriver.aconnect`."""
    return await _connect(arguments, Pooler(arguments, asks=False), timeout, {})


async def _connect(
    arguments: ConnectArguments,
    pooler: Pooler,
    timeout: int | None,
    from_pool: Mapping[str, Any],
) -> Any:
    plan, own = arguments.plan, arguments.own
    check_native(own, _OWNED_BY_CONNECT, _CONNECT_ARGUMENTS, "asyncpg's connect")
    ours = plan.asyncpg()
    settings = {**ours["server_settings"], **(own.get("server_settings") or {})}
    keywords = {**from_pool, **ours, **own, "server_settings": settings}
    if timeout is not None:
        keywords["timeout"] = float(timeout)

    async def attempt(grant: Grant, trusted: str) -> Any:
        context = await plan.tls.acontext(trusted)
        statements = {} if pooler.named_statements else {"statement_cache_size": 0}
        conn = await asyncpg.connect(
            **{**keywords, **statements}, **grant.for_asyncpg(), ssl=context
        )
        settle_asyncpg(conn, plan.keepalives)
        return conn

    conn = await asign_in(arguments.login, plan.tls.roots, attempt)
    try:
        again = await look_at_asyncpg(pooler, conn)
    except BaseException:
        conn.terminate()
        raise
    if not again:
        return conn
    await conn.close()  # its cache of statements cannot be turned off any more
    return await asign_in(arguments.login, plan.tls.roots, attempt)
