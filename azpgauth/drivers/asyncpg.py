"""Connects with asyncpg: each connection signs in with the token of its moment."""

from __future__ import annotations

import asyncio
import inspect
import os
import random
import time
import weakref
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from azpgauth.drivers.asking import ASYNCPG
from azpgauth.drivers.checks import GOODBYE, checkout, patience
from azpgauth.drivers.connector import Connector
from azpgauth.drivers.inherited import foreign
from azpgauth.drivers.native import check_native
from azpgauth.drivers.signin import KeepFresh, add_notes
from azpgauth.errors import missing_driver
from azpgauth.runtime.redacted import Redacted
from azpgauth.runtime.waiting import ON_LOOP

try:
    import asyncpg
    from asyncpg.pool import Pool
except ImportError as exc:
    raise missing_driver("asyncpg", exc) from exc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from azpgauth.drivers.connector import Attempt
    from azpgauth.drivers.driver import ConnectArguments

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
        self._connector = _connector(arguments)
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
        conn = await _connect(self._arguments, self._connector, self.first_timeout, keywords)
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
            try:
                limit = max(deadline - time.monotonic(), 0.001)
                with checkout(limit):
                    proxy = await super()._acquire(limit)  # type: ignore[misc]  # not in the stubs
            except asyncio.TimeoutError as exc:  # TimeoutError itself since Python 3.11
                if not hasattr(exc, "__notes__"):  # it is the pool's own, not a connect's
                    add_notes(exc, self._connector.notes())
                raise
            conn = proxy._con  # noqa: SLF001 - no other way
            try:
                if await self._can_be_used(conn, deadline):
                    return proxy
                if not conn.is_closed():
                    # It gives its place back; the next connection there is another one.
                    with suppress(Exception):
                        await proxy.close(
                            timeout=min(patience(deadline - time.monotonic()), GOODBYE)
                        )
            except BaseException:
                conn.terminate()  # a task that was cancelled: its place comes free as well
                raise

    async def _can_be_used(self, conn: Any, deadline: float) -> bool:
        """Whether a connection can be handed out; if its server is gone, so are those of others."""
        now, used_at = time.monotonic(), self._used_at.get(conn, 0)
        if now >= self._renew_at.get(conn, 0):
            return False
        connector = self._connector
        if connector.fresh(conn, used_at):
            return True
        if await connector.good(conn, used_at, deadline - now, ON_LOOP):
            return True
        await self.expire_connections()
        return False

    async def release(self, connection: Any, *, timeout: float | None = None) -> None:
        if (conn := getattr(connection, "_con", None)) is not None:
            self._used_at[conn] = time.monotonic()
        await super().release(connection, timeout=timeout)

    async def close(self) -> None:
        try:
            if self._initialized:  # type: ignore[attr-defined]  # not in the stubs
                await super().close()
        finally:
            self._end()

    def terminate(self) -> None:
        try:
            if self._initialized:  # type: ignore[attr-defined]  # as above
                super().terminate()
        finally:
            self._end()

    def _end(self) -> None:
        self._keep_fresh.end()
        if (unused := self._connector.end()) is not None:
            unused.terminate()


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
    return await _connect(arguments, _connector(arguments, pooled=False), timeout, {})


def _connector(arguments: ConnectArguments, *, pooled: bool = True) -> Connector:
    return Connector(arguments, ASYNCPG, pooled=pooled)


async def _connect(
    arguments: ConnectArguments,
    connector: Connector,
    timeout: int | None,
    from_pool: Mapping[str, Any],
) -> Any:
    plan, own = arguments.plan, arguments.own
    check_native(own, _OWNED_BY_CONNECT, _CONNECT_ARGUMENTS, "asyncpg's connect")
    ours = plan.asyncpg()
    settings = {**ours["server_settings"], **(own.get("server_settings") or {})}
    keywords = {**from_pool, **ours, **own, "server_settings": settings}

    async def connect(attempt: Attempt) -> Any:
        context = await plan.tls.acontext(attempt.roots, attempt.server)
        statements = {} if attempt.statements else {"statement_cache_size": 0}
        return await asyncpg.connect(
            **{**keywords, **statements},
            **attempt.server.asyncpg(),
            **attempt.grant.for_asyncpg(),
            ssl=context,
            timeout=attempt.seconds,
        )

    return await connector.connect(connect, ON_LOOP, timeout)
