"""Signing in: one connection with a login, and what may be tried once more.

Sync and async alike, in no driver's terms: a driver module hands in how it connects.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from azpgauth.errors import ConnectError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from azpgauth.identity.login import Grant, Login
    from azpgauth.server.tls import Roots

__all__ = ["Hold", "asign_in", "refuse_proactor", "sign_in", "without_secrets"]

C = TypeVar("C")


def sign_in(login: Login, roots: Roots, connect: Callable[[Grant, str], C]) -> C:
    """Connect, once more with another token if the server refuses a cached one.

    Args:
        login: What to sign in with.
        roots: The trusted roots; a larger set is tried where these do not do.
        connect: Makes one connection, with a grant and a file of roots.

    Raises:
        Exception: What `connect` raised, without its traceback: its frames hold the password.
    """
    try:
        return _sign_in(login, roots, connect)
    except BaseException as exc:  # noqa: BLE001 - raised again
        # Also what a signal's handler raised while a failed connect was being looked at.
        error = without_secrets(exc)
    raise error


def _sign_in(login: Login, roots: Roots, connect: Callable[[Grant, str], C]) -> C:
    grant = login.grant()
    trusted = roots.path
    while True:
        try:
            conn = connect(grant, trusted)
        except BaseException as exc:  # noqa: BLE001 - raised again
            error = without_secrets(exc)
        else:
            login.accepted(grant)
            roots.proved(trusted)
            return conn
        if (wider := roots.wider(trusted, str(error))) is not None:
            trusted = wider
        elif (again := login.regrant(grant, str(error))) is not None:
            grant = again
        else:
            raise error


async def asign_in(login: Login, roots: Roots, connect: Callable[[Grant, str], Awaitable[C]]) -> C:
    """As `sign_in`, on an event loop."""
    try:
        return await _asign_in(login, roots, connect)
    except BaseException as exc:  # noqa: BLE001 - raised again
        error = without_secrets(exc)
    raise error


async def _asign_in(login: Login, roots: Roots, connect: Callable[[Grant, str], Awaitable[C]]) -> C:
    grant = await login.agrant()
    trusted = roots.path
    while True:
        try:
            conn = await connect(grant, trusted)
        except BaseException as exc:  # noqa: BLE001 - raised again
            error = without_secrets(exc)
        else:
            login.accepted(grant)
            roots.proved(trusted)
            return conn
        if (wider := roots.wider(trusted, str(error))) is not None:
            trusted = wider
        elif (again := await login.aregrant(grant, str(error))) is not None:
            grant = again
        else:
            raise error


def without_secrets(exc: BaseException) -> BaseException:
    """The error of a failed connect without what holds the password."""
    if hasattr(exc, "pgconn"):  # psycopg's errors carry libpq's connection: a new one of its kind
        return type(exc)(*exc.args)
    seen: set[int] = set()
    left: list[BaseException | None] = [exc]
    while left:
        each = left.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            each.__traceback__ = None
            left += [each.__cause__, each.__context__]
    return exc


class Hold:
    """Keeps a login fresh from a pool's first connection until it closes.

    Args:
        login: What the pool signs in with.
    """

    def __init__(self, login: Login) -> None:
        self._login = login
        self._begin_process()

    def _begin_process(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()  # an engine's threads connect at the same time
        self._release: Callable[[], None] | None = None

    def start(self) -> None:
        """The pool opens, or connects: from now on the login is kept fresh."""
        if self._pid != os.getpid():
            self._begin_process()  # an engine in a child after fork: nothing is held there yet
        if self._release is not None:
            return
        with self._lock:
            if self._release is None:
                self._release = self._login.hold()

    def end(self) -> None:
        """The pool has closed, for now at least."""
        if self._pid != os.getpid():
            return
        with self._lock:
            release, self._release = self._release, None
        if release is not None:
            release()

    def end_with(self, pool: Any) -> None:
        """A pool that is forgotten has closed too."""
        weakref.finalize(pool, self.end).atexit = False


def refuse_proactor(loop: asyncio.AbstractEventLoop) -> None:
    """Say at once that async psycopg cannot work on this event loop, and what does.

    https://www.psycopg.org/psycopg3/docs/advanced/async.html

    Raises:
        ConnectError: It is the loop that Windows has by default.
    """
    if any(base.__name__ == "ProactorEventLoop" for base in type(loop).__mro__):
        raise ConnectError(
            "async psycopg does not work on the event loop that Windows has by default, "
            "ProactorEventLoop\n"
            "  to do: run the program with "
            "asyncio.run(main(), loop_factory=asyncio.SelectorEventLoop), before Python 3.12 "
            "asyncio.set_event_loop_policy(asyncio.WindowsSelectorEventLoopPolicy()), "
            "or use asyncpg, which works on it"
        )
