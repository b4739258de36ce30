"""Signs one connection in with a login, and tries once more what may be mended that way.

Sync and async alike, in no driver's terms: a driver module hands in how it connects.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from azpgauth.errors import AzpgauthError, ConnectError
from azpgauth.identity.login import TokenLogin
from azpgauth.runtime.forks import renew_in_child
from azpgauth.runtime.printable import one_line, their_words
from azpgauth.runtime.redacted import scrubbed
from azpgauth.runtime.waiting import BLOCKING, ON_LOOP, run
from azpgauth.server.diagnosis import diagnose

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Iterable

    from azpgauth.identity.login import Grant, Login
    from azpgauth.runtime.waiting import Wait
    from azpgauth.server.roots import Roots

__all__ = [
    "KeepFresh",
    "add_notes",
    "asign_in",
    "notes_on",
    "refuse_proactor",
    "shown",
    "sign_in",
    "signed_in",
    "without_secrets",
    "words_of",
]

C = TypeVar("C")


def sign_in(
    login: Login, roots: Roots, connect: Callable[[Grant, str], C], wait: Wait = BLOCKING
) -> C:
    """Connect, once more with another token if the server refuses a cached one.

    Args:
        login: What to sign in with.
        roots: The trusted roots; a larger set is tried where these do not do.
        connect: Makes one connection, with a grant and a file of roots.
        wait: How to wait for a token; it must not suspend.

    Raises:
        Exception: What `connect` raised, without its traceback: its frames hold the password.
    """
    conn: C = run(signed_in(login, roots, connect, wait))
    return conn


async def asign_in(login: Login, roots: Roots, connect: Callable[[Grant, str], Awaitable[C]]) -> C:
    """As `sign_in`, on an event loop."""
    conn: C = await signed_in(login, roots, connect, ON_LOOP)
    return conn


async def signed_in(login: Login, roots: Roots, connect: Callable[..., Any], wait: Wait) -> Any:
    """As `sign_in`, in any way of waiting: what `connect` gives is awaited on an event loop."""
    try:
        return await _attempts(login, roots, connect, wait)
    except BaseException as exc:  # noqa: BLE001 - raised again
        # Also what a signal's handler raised while a failed connect was being looked at.
        error = without_secrets(exc)
    add_notes(error, notes_on(error, login))
    raise error


async def _attempts(login: Login, roots: Roots, connect: Callable[..., Any], wait: Wait) -> Any:
    grant = await login.grant(wait)
    trusted = roots.path
    while True:
        try:
            conn = await wait.call(connect, grant, trusted)
        except BaseException as exc:  # noqa: BLE001 - raised again
            error = without_secrets(exc)
        else:
            login.accepted(grant)
            roots.proved(trusted)
            return conn
        if (wider := roots.wider(trusted, str(error))) is not None:
            trusted = wider
        elif (again := await login.regrant(grant, str(error), wait)) is not None:
            grant = again
        else:
            raise error


def notes_on(error: BaseException, login: Login) -> list[str]:
    """What a failed connect means and what to do, to be shown with the driver's error.

    Args:
        error: What was raised; one of ours says it already.
        login: Who wanted in.
    """
    if isinstance(error, AzpgauthError) or not isinstance(error, Exception):
        return []
    role = one_line(login.role) if login.role else None
    meaning = diagnose(words_of(error), role, token=isinstance(login, TokenLogin))
    return (
        [f"cause: {meaning.cause}", f"to do: {scrubbed(meaning.remedy)}"] if meaning.cause else []
    )


def words_of(error: BaseException) -> str:
    """What an error says; asyncio's time-out says nothing.

    Args:
        error: What a connect raised.
    """
    return str(error).strip() or "timed out"


def shown(error: BaseException) -> str:
    """What an error says, as it may be shown.

    Args:
        error: What a connect raised.
    """
    return scrubbed(their_words(words_of(error)))


def add_notes(error: BaseException, notes: Iterable[str]) -> None:
    """Show more with an error, where Python can: since 3.11.

    Args:
        error: The error.
        notes: The lines to add.
    """
    add = getattr(error, "add_note", None)
    for note in notes:
        if add is not None:
            add(note)


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


class KeepFresh:
    """Keeps a login fresh from a pool's first connection until it closes.

    Args:
        login: What the pool signs in with.
    """

    def __init__(self, login: Login) -> None:
        self._login = login
        self.begin_process()
        renew_in_child(self)

    def begin_process(self) -> None:
        """Nothing is kept fresh in this process yet."""
        self._lock = threading.Lock()  # an engine's threads connect at the same time
        self._release: Callable[[], None] | None = None

    def start(self) -> None:
        """The pool opens, or connects: from now on the login is kept fresh."""
        if self._release is not None:
            return
        with self._lock:
            if self._release is None:
                self._release = self._login.keep_fresh()

    def end(self) -> None:
        """The pool has closed, for now at least."""
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
            "ProactorEventLoop",
            remedy="run the program with "
            "asyncio.run(main(), loop_factory=asyncio.SelectorEventLoop), before Python 3.12 "
            "asyncio.set_event_loop_policy(asyncio.WindowsSelectorEventLoopPolicy()), "
            "or use asyncpg, which works on it",
            layer="database",
        )
