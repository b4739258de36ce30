"""psycopg2: a pool that waits, checks and renews, and connections that sign in afresh."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from azpgauth.dropin import entry_of
from azpgauth.errors import missing_driver
from azpgauth.native import OWNED_BY_LIBPQ, check_native, unfit
from azpgauth.signin import Hold, sign_in

try:
    import psycopg2
    from psycopg2 import extensions
    from psycopg2.pool import PoolError, ThreadedConnectionPool
except ImportError as exc:
    raise missing_driver("psycopg2", exc) from exc

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping

    from typing_extensions import Self

    from azpgauth.login import Grant, Login
    from azpgauth.plan import ConnectPlan, PoolLimits
    from azpgauth.tls import Tls

__all__ = ["ConnectionPool", "EntraConnection", "connect", "errors", "open_pool"]


def errors() -> tuple[type[BaseException], ...]:
    """What a failed connect raises."""
    return (psycopg2.Error,)


_OWNED = OWNED_BY_LIBPQ | {"dsn", "minconn", "maxconn", "database"}


@dataclass
class _Member:
    """A connection of a pool."""

    conn: Any
    renew_at: float
    idle_since: float = 0.0


class ConnectionPool(ThreadedConnectionPool):
    """psycopg2's own pool, but it waits for a connection, and hands out none that is dead or old.

    `getconn` and `putconn` are as in psycopg2; `connection()` does both.

    Args:
        connect: Makes a connection.
        limits: The pool's bounds.
        hold: Told when the pool closes.
        first: A connection that is there already.
    """

    def __init__(
        self, connect: Callable[[], Any], limits: PoolLimits, hold: Hold, first: Any
    ) -> None:
        super().__init__(0, limits.max_size)
        self.minconn = limits.min_size
        self._new = connect
        self._limits = limits
        self._hold = hold
        self._guard = threading.Lock()
        self._line: deque[threading.Event] = deque()  # who waits for a place, first come first
        self._idle: list[_Member] = []
        self._leased: dict[Hashable, _Member] = {}
        self._keys_of: dict[int, Hashable] = {}
        self._last_key = 0
        # Places that are taken: by connections in use, and by those being checked or opened.
        self._taken = 0
        self._idle.append(self._joined(first))
        try:
            while len(self._idle) < self.minconn:
                self._idle.append(self._joined(connect()))
        except BaseException:
            self.closeall()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closeall()

    @contextmanager
    def connection(self) -> Iterator[Any]:
        """A connection for a block: committed at its end, rolled back after an error.

        Raises:
            psycopg2.pool.PoolError: None was free in time, or the pool is closed.

        Example:
            >>> with pool.connection() as conn, conn.cursor() as cur:  # doctest: +SKIP
            ...     cur.execute("select 1")
        """
        conn = self.getconn()
        try:
            with conn:
                yield conn
        finally:
            self.putconn(conn)

    def getconn(self, key: Hashable | None = None) -> Any:
        """A connection, checked; if all are in use, the next one to come free.

        Args:
            key: As in psycopg2: asking again with the same key gives the same connection.

        Raises:
            psycopg2.pool.PoolError: None was free within the pool's `timeout`, or it is closed.
            psycopg2.Error: A new one could not be made.
        """
        with self._guard:
            if key is not None and key in self._leased:
                return self._leased[key].conn
        self._take_place()
        # Outside of the lock: meanwhile others come and go.
        try:
            member = self._ready()
        except BaseException:
            with self._guard:
                self._leave_place()
            raise
        with self._guard:
            if not self.closed:
                if key is None:
                    self._last_key += 1
                    key = f"azpgauth-{self._last_key}"  # no key that a program would choose
                self._leased[key] = member
                self._keys_of[id(member.conn)] = key
                return member.conn
        member.conn.close()
        raise PoolError("connection pool is closed")

    def putconn(self, conn: Any = None, key: Hashable | None = None, close: bool = False) -> None:
        """Give a connection back; what was not committed is rolled back.

        Args:
            conn: The connection.
            key: What it was asked for with, if with a key.
            close: Close it instead of keeping it.

        Raises:
            psycopg2.pool.PoolError: It is not one of this pool's connections in use.
        """
        with self._guard:
            key = self._keys_of.get(id(conn)) if key is None else key
            if key not in self._leased:
                if self.closed and conn is not None:
                    return  # closing the pool closed it too
                raise PoolError("trying to put unkeyed connection")
            member = self._leased.pop(key)
            self._keys_of.pop(id(member.conn))
        keep = not close and self._settled(member)
        with self._guard:
            superfluous = [] if keep and not self.closed else [member]
            if not superfluous:
                member.idle_since = time.monotonic()
                self._idle.append(member)
            self._leave_place()
            superfluous += self._idle_for_long()
        for other in superfluous:
            other.conn.close()

    def closeall(self) -> None:
        """Close all connections, also those in use; closing twice does no harm."""
        with self._guard:
            self.closed = True
            conns = [member.conn for member in [*self._idle, *self._leased.values()]]
            self._idle.clear()
            self._leased.clear()
            self._keys_of.clear()
            while self._line:
                self._line.popleft().set()
        self._hold.end()
        for conn in conns:
            with suppress(psycopg2.Error):
                conn.close()

    close = closeall

    def _take_place(self) -> None:
        """Wait for one of the `max_size` places, in turn."""
        turn = threading.Event()
        with self._guard:
            if self.closed:
                raise PoolError("connection pool is closed")
            if self._taken < self.maxconn:
                self._taken += 1
                return
            self._line.append(turn)
        try:
            turn.wait(self._limits.timeout)
        except BaseException:  # Ctrl-C
            with self._guard:
                self._leave_place() if turn.is_set() else self._line.remove(turn)
            raise
        with self._guard:
            came = turn.is_set()
            if not came:
                self._line.remove(turn)
        if self.closed:
            raise PoolError("connection pool is closed")
        if not came:
            raise PoolError(
                f"no connection came free within {self._limits.timeout:g} s: "
                f"all {self.maxconn} are in use"
            )

    def _leave_place(self) -> None:
        """Hand the place over to whoever waits longest. The lock is held."""
        if self._line:
            self._line.popleft().set()
        else:
            self._taken -= 1

    def _ready(self) -> _Member:
        """A connection for a place: the one used last if it is good, else a new one."""
        while True:
            with self._guard:
                member = self._idle.pop() if self._idle else None
            if member is None:
                return self._joined(self._new())
            if time.monotonic() < member.renew_at and _alive(member.conn):
                return member
            member.conn.close()

    def _joined(self, conn: Any) -> _Member:
        # Connections that were opened together are not renewed all at the same moment.
        lifetime = self._limits.max_lifetime * random.uniform(0.9, 1.0)  # noqa: S311 - no secret
        now = time.monotonic()
        return _Member(conn, now + lifetime, now)

    def _settled(self, member: _Member) -> bool:
        """Bring it back to a state in which it can be handed out again, if that can be."""
        conn = member.conn
        if conn.closed or time.monotonic() >= member.renew_at:
            return False
        status = conn.info.transaction_status
        if status == extensions.TRANSACTION_STATUS_UNKNOWN:
            return False
        if status != extensions.TRANSACTION_STATUS_IDLE:
            try:
                conn.rollback()
            except psycopg2.Error:
                return False
        return True

    def _idle_for_long(self) -> list[_Member]:
        """Take out what nobody needed for `max_idle`, down to `min_size`. The lock is held."""
        until = time.monotonic() - self._limits.max_idle
        found = []
        while (
            self._idle
            and self._idle[0].idle_since < until
            and self._taken + len(self._idle) > self.minconn
        ):
            found.append(self._idle.pop(0))
        return found


def _alive(conn: Any) -> bool:
    """Whether the server still answers."""
    if conn.closed:
        return False
    try:
        autocommit = conn.autocommit
        # Else psycopg2 would begin a transaction around it: three round trips instead of one.
        conn.autocommit = True
        with conn.cursor() as cursor:
            cursor.execute("select 1")
        conn.autocommit = autocommit
    except psycopg2.Error:
        return False
    return True


def open_pool(
    plan: ConnectPlan,
    login: Login,
    native: Mapping[str, Any] | None = None,
    *,
    timeout: int | None = None,
) -> ConnectionPool:
    """An open pool with one connection made and proven.

    Args:
        plan: Where to connect.
        login: What to sign in with.
        native: Arguments of `psycopg2.connect`.
        timeout: Seconds for the first connection, if it shall have less than those to come.

    Raises:
        psycopg2.Error: The first connection failed; one attempt is made.
        SettingsError: `native` has a key that is unknown or that azpgauth owns.
    """
    how = _How.of(plan, native)
    first = how.connect(login, timeout)
    hold = Hold(login)
    pool = ConnectionPool(lambda: how.connect(login), plan.pool, hold, first)
    hold.start()
    hold.end_with(pool)
    return pool


def connect(
    plan: ConnectPlan,
    login: Login,
    native: Mapping[str, Any] | None = None,
    *,
    timeout: int | None = None,
) -> Any:
    """One connection.

    Args:
        plan: Where to connect.
        login: What to sign in with.
        native: Arguments of `psycopg2.connect`.
        timeout: Seconds, if it shall have less than the plan says.

    Raises:
        psycopg2.Error: It failed; one attempt is made.
        SettingsError: `native` has a key that is unknown or that azpgauth owns.
    """
    return _How.of(plan, native).connect(login, timeout)


@dataclass(frozen=True)
class _How:
    """How the connections of one pool are made: all but role, password and roots."""

    dsn: str
    factories: Mapping[str, Any]
    tls: Tls

    @classmethod
    def of(cls, plan: ConnectPlan, native: Mapping[str, Any] | None) -> Self:
        """Checked, and put into libpq's form, once for all connections."""
        check_native(native or {}, _OWNED, None, "psycopg2's connect")
        keywords = {**plan.libpq(extensions.libpq_version()), **(native or {})}
        factories = {name: keywords.pop(name) for name in _FACTORIES if name in keywords}
        try:
            return cls(extensions.make_dsn(**keywords), factories, plan.tls)
        except psycopg2.ProgrammingError as exc:
            raise unfit(TypeError(str(exc).strip())) from None

    def connect(self, login: Login, timeout: int | None = None) -> Any:
        """A connection."""

        def attempt(grant: Grant, trusted: str) -> Any:
            # In a DSN, what comes later holds.
            fresh = extensions.make_dsn(
                **grant.for_libpq(), **self.tls.libpq(trusted), connect_timeout=timeout
            )
            return psycopg2.connect(f"{self.dsn} {fresh}", **self.factories)

        return sign_in(login, self.tls.roots, attempt)


_FACTORIES = ("connection_factory", "cursor_factory", "async", "async_")


class _TryAgain(Exception):  # noqa: N818 - a signal
    """The server refused a cached token, and there is another one by now."""


class _Retrying(type):
    """A psycopg2 connection cannot be initialized twice: another attempt is another object."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        while True:
            try:
                return super().__call__(*args, **kwargs)
            except _TryAgain:  # noqa: PERF203 - once or twice
                continue


class EntraConnection(extensions.connection, metaclass=_Retrying):
    """A connection that signs in with a credential object; also as a `connection_factory`.

    Signs in with a token, unless user and password are given. TLS is verified unless `sslmode` (or
    `PGSSLMODE`) says how; below `require` is refused.

    Args:
        dsn: As for psycopg2; a user in it counts.
        credential: A `TokenCredential`, such as `azure.identity.DefaultAzureCredential()`.
        **kwargs: More of libpq's keywords; they come before those of the DSN.

    Raises:
        CredentialValueError: There is no credential, or an async one.
        EntraConnectionValueError: No token, no role, or the token would travel unprotected.
        psycopg2.Error: The server could not be reached, or refused.

    Example:
        >>> factory = partial(EntraConnection, credential=credential)  # doctest: +SKIP
        >>> psycopg2.connect(dsn, connection_factory=factory)  # doctest: +SKIP
    """

    def __init__(self, dsn: str = "", *args: Any, credential: Any = None, **kwargs: Any) -> None:
        parameters = {**extensions.parse_dsn(dsn or ""), **kwargs}
        parameters = {name: value for name, value in parameters.items() if value is not None}
        if "database" in parameters:  # psycopg2's other name of it
            parameters["dbname"] = parameters.pop("database")
        asynchronous = {k: parameters.pop(k) for k in ("async", "async_") if k in parameters}
        initialize = super().__init__
        entry = entry_of(credential, parameters)
        if entry is None:
            initialize(extensions.make_dsn(**parameters), *args, **asynchronous)
            return
        # One attempt: what comes after it is up to the metaclass.
        grant = entry.login.grant()
        try:
            initialize(
                extensions.make_dsn(**{**parameters, **entry.libpq(grant, entry.tls.roots.path)}),
                *args,
                **asynchronous,
            )
        except psycopg2.Error as exc:
            error = exc.with_traceback(None)
        else:
            entry.login.accepted(grant)
            return
        if entry.login.regrant(grant, str(error)) is not None:
            raise _TryAgain
        raise error
