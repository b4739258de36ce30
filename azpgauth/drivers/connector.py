"""Makes the connections of one pool: at the right one of its servers, signed in, and kept right.

One loop over the servers, for every driver: a driver is given one at an attempt. What decides is in
`server.targets`; what is asked of a connection goes through `asking`.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from azpgauth.drivers.asking import PING
from azpgauth.drivers.checks import left, patience, used_lately
from azpgauth.drivers.inherited import Connections
from azpgauth.drivers.pooler import Pooler
from azpgauth.drivers.preference import LONGEST_LOOK, LOOK, Preference
from azpgauth.drivers.rounds import Round, with_others
from azpgauth.drivers.signin import add_notes, notes_on, shown, signed_in, words_of
from azpgauth.errors import AzpgauthError
from azpgauth.runtime.forks import renew_in_child
from azpgauth.server.diagnosis import diagnose, mends, retry_delay
from azpgauth.server.targets import (
    QUESTION,
    Fit,
    Report,
    fit,
    in_order,
    keeps,
    parsed_rows,
    reported,
    unmet,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from azpgauth.drivers.asking import Asking
    from azpgauth.drivers.driver import ConnectArguments
    from azpgauth.identity.login import Grant
    from azpgauth.runtime.waiting import Wait
    from azpgauth.server.targets import Server, Target

__all__ = ["Attempt", "Connector"]

logger = logging.getLogger("azpgauth.targets")

_SHORTEST = 0.1
"""Seconds of one connect, however few are left."""


@dataclass(frozen=True)
class Attempt:
    """What one connect goes with.

    Attributes:
        server: Where.
        grant: As whom.
        roots: The file of trusted roots.
        seconds: The limit; libpq takes whole ones.
        statements: Whether the connection may make named prepared statements.
    """

    server: Server
    grant: Grant
    roots: str
    seconds: float
    statements: bool


class Connector:
    """Makes the connections of one pool or, without a pool, one.

    Args:
        arguments: What to connect with.
        asking: How the driver's connections are asked.
        pooled: Whether there is a pool.
        raw: The driver's own connection in what its connect gives.
    """

    def __init__(
        self,
        arguments: ConnectArguments,
        asking: Asking,
        *,
        pooled: bool = True,
        raw: Callable[[Any], Any] = lambda conn: conn,
    ) -> None:
        self._plan = arguments.plan
        self._login = arguments.login
        self._asking = asking
        self._raw = raw
        self._pooled = pooled
        self._pooler = Pooler(arguments, asks=pooled, warns=asking.names_statements)
        self._connections = Connections()
        self._connect: Callable[[Attempt], Any] | None = None
        self._preference = Preference(arguments.plan)
        self._asked_at: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()
        self._good: dict[tuple[Any, Any], bool] = {}  # by what a server says of itself
        self._failed: list[str] = []
        self._began: float | None = None
        self._ended = False
        self.begin_process()
        renew_in_child(self)

    def begin_process(self) -> None:
        """In a child after fork: a connection that waits here is the parent's."""
        self._ready: deque[Any] = deque()

    def put(self, conn: Any) -> None:
        """A connection that is there already: the next one that is made is this."""
        self._ready.append(conn)

    def take(self) -> Any:
        """The connection that is there already, if there is one."""
        try:
            return self._ready.pop()  # atomic: a pool's workers race for it
        except IndexError:
            return None

    def end(self) -> Any:
        """The pool closes: the connection that is there already, if there is one, goes too."""
        self._ended = True
        return self.take()

    async def connect(
        self, connect: Callable[[Attempt], Any], wait: Wait, seconds: float | None = None
    ) -> Any:
        """A connection to the right server.

        Args:
            connect: Makes one connection, to one server.
            wait: How to wait.
            seconds: The limit for all; by default the settings' for each server.

        Raises:
            Exception: What `connect` raised, or the driver's error for an unmet target; what the
                other servers said is in its notes.
        """
        if (ready := self.take()) is not None:
            return ready
        self._connect = connect
        longest: float = self._plan.connect_timeout * len(self._plan.servers)
        if seconds is not None:
            longest = min(longest, seconds)
        elif self._pooled and len(self._plan.servers) > 1:
            # Nobody waits longer: a silent server must not use up what the next one needs.
            longest = min(longest, self._plan.pool.timeout)
        until = time.monotonic() + left(longest)
        self._began = time.monotonic()
        try:
            conn = await self._rounds(wait, until)
        except Exception as exc:
            said = f"the last connect failed: {shown(exc)}"
            self._failed = [said, *getattr(exc, "__notes__", ())]
            raise
        except BaseException:  # a pool gave up waiting for it
            self._failed = self._unanswered()
            raise
        finally:
            self._began = None
        self._failed = []
        return conn

    def notes(self) -> list[str]:
        """What to say where a pool tells only that it gave no connection in time."""
        return self._failed or self._unanswered()

    def _unanswered(self) -> list[str]:
        if self._began is None:
            return []
        seconds = time.monotonic() - self._began
        meaning = diagnose("timed out")
        return [
            f"a connect to {self._plan.where} had no answer for {seconds:.1f} s",
            f"cause: {meaning.cause}",
            f"to do: {meaning.remedy}",
        ]

    async def good(self, conn: Any, used_at: float, seconds: float, wait: Wait) -> bool:
        """Whether a connection can be handed out; if not, all older ones are no better.

        Args:
            conn: The driver's own connection, idle.
            used_at: When it was used last, by `time.monotonic`.
            seconds: How long whoever asks for it may be held; a new one must fit in as well.
            wait: How to wait.
        """
        if self.fresh(conn, used_at):
            return True
        asks = self._asks
        report = Report()
        if not used_lately(used_at) or (asks and self._is_stale(conn)):
            question = QUESTION if asks else PING
            rows = await self._asking.rows(conn, question, patience(left(seconds)), wait)
            if rows is None:
                return False
            if asks:
                report = parsed_rows(rows)
                self._asked_at[conn] = time.monotonic()
        told = self._asking.told(conn)
        if told is None:
            return False
        if not asks:
            report = reported(*told)
        if not keeps(self._plan.target, report):
            return False
        due = self._preference.is_due(report)
        return not (due and await self._primary_is_there(left(seconds), wait))

    def fresh(self, conn: Any, used_at: float) -> bool:
        """As `good`, where that is clear at once: after its last use, at the right server.

        Args:
            conn: The driver's own connection, idle.
            used_at: When it was used last.
        """
        told = self._asking.told(conn) if used_lately(used_at) else None
        if told is None:
            return False
        if self._pooler.between and self._asks:
            return not self._is_stale(conn)
        good = self._good.get(told)
        if good is None:
            good = self._good[told] = fit(self._plan.target, reported(*told)) is Fit.GOOD
        return good

    @property
    def _asks(self) -> bool:
        """Whether servers have to be asked: behind PgBouncer, what is reported is another's."""
        return bool(self._pooler.between) and self._plan.target != "any"

    def _is_stale(self, conn: Any) -> bool:
        """Whether a connection that is always in use has not been asked for a while."""
        return time.monotonic() - self._asked_at.get(conn, 0.0) >= LOOK

    # -- making one --------------------------------------------------------------------------

    async def _rounds(self, wait: Wait, until: float) -> Any:
        """A connection: from the first round over the servers that comes to one."""
        count = 0
        while True:
            found = await self._round(wait, until, self._plan.target)
            if found.conn is not None:
                assert found.server is not None  # noqa: S101 - set with the connection
                self._preference.took(found.server, found.report, found.failed)
                return found.conn
            count += 1
            again = len(self._plan.servers) > 1 or found.unmet is not None
            passing = any(mends("waiting", words_of(error)) for _, error in found.failed)
            pause = retry_delay(count, until - time.monotonic()) if again and passing else None
            if pause is None:
                # What answered is nearest to what was wanted.
                raise with_others(*(found.unmet or found.failed[-1]), found.failed)
            await wait.sleep(pause)

    async def _round(self, wait: Wait, until: float, target: Target | None) -> Round:
        """Each server once, until one fits.

        Args:
            wait: How to wait.
            until: When the time is over. None of them can use up what the others need.
            target: What is wanted.
        """
        found = Round()
        servers = in_order(self._plan.servers, randomly=self._plan.load_balance)
        try:
            for number, server in enumerate(servers):
                share = (until - time.monotonic()) / (len(servers) - number)
                seconds = max(min(self._plan.connect_timeout, share), _SHORTEST)
                try:
                    conn, report = await self._one(server, seconds, wait)
                except Exception as exc:  # noqa: BLE001 - of any driver
                    passes = not isinstance(exc, AzpgauthError) and mends("host", words_of(exc))
                    if not passes:
                        raise with_others(server, exc, found.failed) from None
                    found.failed.append((server, exc))
                    continue
                how = fit(target, report)
                surplus = found.surplus(conn, server, report, how)
                if surplus is not None:
                    await self._leave(surplus, wait)
                if how is Fit.GOOD:
                    break
                if how is Fit.UNMET:
                    error = self._lost(unmet(server, target, report), unmet=True)
                    found.failed.append((server, error))
                    found.unmet = found.unmet or found.failed[-1]
        except BaseException:
            if found.conn is not None:
                await self._leave(found.conn, wait)
            raise
        return found

    async def _leave(self, conn: Any, wait: Wait) -> None:
        """Close a connection that nobody has seen."""
        with suppress(Exception):
            await self._asking.close(self._raw(conn), wait)

    async def _one(self, server: Server, seconds: float, wait: Wait) -> tuple[Any, Report]:
        """A connection to this server, and what that says of itself."""
        connect = self._connect
        assert connect is not None  # noqa: S101 - `connect` has set it
        while True:
            statements = self._pooler.named_statements

            def attempt(grant: Grant, roots: str, statements: bool = statements) -> Any:
                return connect(Attempt(server, grant, roots, seconds, statements))

            conn = await signed_in(self._login, self._plan.tls.roots, attempt, wait)
            try:
                raw = self._raw(conn)
                self._asking.settle(raw, self._plan.keepalives)
                self._connections.add(raw)
                await self._find_pooler(raw, seconds, wait)
                off = statements and not self._pooler.named_statements
                if not off or self._asking.without_statements(raw):
                    return conn, await self._report(raw, seconds, wait)
            except BaseException:
                await self._leave(conn, wait)
                raise
            await self._leave(conn, wait)  # it could make some, and cannot be told not to

    async def _find_pooler(self, raw: Any, seconds: float, wait: Wait) -> None:
        own = self._asking.process_id(raw)
        if self._pooler.has_to_ask(own):
            question = f"select where pg_backend_pid() = {own}"
            rows = await self._answer(raw, question, seconds, wait)
            self._pooler.heard(direct=rows == 1)

    async def _answer(self, raw: Any, question: str, seconds: float, wait: Wait) -> int:
        """What a new connection answers with.

        Raises:
            Exception: It is lost; the driver's own error.
        """
        began = time.monotonic()
        rows = await self._asking.rows(raw, question, seconds, wait)
        if rows is None:
            silent = time.monotonic() - began >= seconds
            raise self._lost("timed out" if silent else "server closed the connection")
        return rows

    def _lost(self, said: str, *, unmet: bool = False) -> Exception:
        error = self._asking.error(said, unmet=unmet)
        add_notes(error, notes_on(error, self._login))
        return error

    async def _report(self, raw: Any, seconds: float, wait: Wait) -> Report:
        """What a new connection's server says of itself; it is asked only where that matters."""
        report = (
            Report()
            if self._pooler.between
            else reported(*(self._asking.told(raw) or (None, None)))
        )
        wanted = self._plan.target is not None or len(self._plan.servers) > 1
        if report.standby is not None or not wanted or self._plan.target == "any":
            return report
        return parsed_rows(await self._answer(raw, QUESTION, seconds, wait))

    async def _primary_is_there(self, seconds: float, wait: Wait) -> bool:
        """Look for a primary; the connection to it is the next one that is made."""
        if self._connect is None:
            return False
        try:
            until = time.monotonic() + min(patience(seconds), LONGEST_LOOK)
            found = await self._round(wait, until, "primary")
        except Exception as exc:  # noqa: BLE001 - the standby goes on
            logger.debug("no primary was found: %s", shown(exc))
            return False
        finally:
            self._preference.looked()
        if found.conn is not None and self._ended:  # the pool was closed meanwhile
            await self._leave(found.conn, wait)
        elif found.conn is not None:
            self.put(found.conn)
        return found.conn is not None
