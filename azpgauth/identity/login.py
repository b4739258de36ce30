"""Gives each physical connection what it signs in with: a role, and the password of that moment.

A driver module asks for a `Grant`, connects with it, and tells what the server made of it. It does
not know whether the password is a token or a fixed one.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from azpgauth.errors import TokenError
from azpgauth.identity.claims import claims_of, no_role, role_of
from azpgauth.server.diagnosis import mends

if TYPE_CHECKING:
    from collections.abc import Callable

    from azpgauth.identity.flight import Flight
    from azpgauth.identity.token import Token
    from azpgauth.identity.tokens import Refresh, TokenSource
    from azpgauth.runtime.waiting import Wait

__all__ = ["Grant", "Login", "StaticLogin", "TokenLogin"]

logger = logging.getLogger("azpgauth.login")

LONG = 6000
"""Bytes of a token from which PgBouncer may refuse it: https://github.com/pgbouncer/pgbouncer/issues/874"""


@dataclass(frozen=True)
class Grant:
    """What one connection signs in with; its repr shows no secret.

    Attributes:
        role: The PostgreSQL role.
        password: The password, an access token or a fixed one; None where none is sent.
        fresh: Whether the token was fetched for this very attempt.
        token: The token behind the password, if it is one.
    """

    role: str
    password: str | None = field(repr=False)
    fresh: bool = False
    token: Token | None = None

    def for_libpq(self) -> dict[str, str]:
        """Role and password in libpq's names; where none is to be sent, an empty password.

        Without one libpq would look for it in its environment and in files; an empty one it never
        sends.
        """
        return {"user": self.role, "password": self.password or ""}

    def for_asyncpg(self) -> dict[str, Any]:
        """Role and password as asyncpg takes them."""
        # As a function: asyncpg looks for no other one then, neither in its environment nor in
        # files, and what it keeps of a connection has no token in its repr.
        password = _NoPassword() if self.password is None else self.password
        return {"user": self.role, "password": lambda: password}


class _NoPassword:
    """What asyncpg has for a password where none is to be sent.

    It would answer with an empty one where it has None. It looks at what it has when the server
    asks for a password, and only then: by its truth, before 0.32 also by its bytes.
    """

    def __bool__(self) -> bool:
        raise PermissionError("no password supplied")

    def encode(self, _: str) -> bytes:
        """It has no bytes."""
        raise PermissionError("no password supplied")


class Login(Protocol):
    """Where a driver gets its grants from."""

    @property
    def role(self) -> str | None:
        """The role, as far as it is known by now."""

    async def grant(self, wait: Wait) -> Grant:
        """What to sign in with now. May wait for a token.

        Args:
            wait: How to wait.

        Raises:
            TokenError: There is none.
            RoleError: It names no role.
        """

    async def regrant(self, refused: Grant, message: str, wait: Wait) -> Grant | None:
        """What to try once more with, after the server refused; None if there is no point.

        Args:
            refused: What was refused.
            message: The server's words.
            wait: How to wait.
        """

    def accepted(self, grant: Grant) -> None:
        """The server accepted this."""

    def prefetch(self) -> None:
        """Begin to get what the first grant will need, without waiting for it."""

    def keep_fresh(self) -> Callable[[], None]:
        """A pool is open; the returned function says that it closed."""


@dataclass(frozen=True)
class StaticLogin:
    """A role with a fixed password, or none: for a local PostgreSQL."""

    role: str
    password: str | None = field(repr=False, default=None)

    async def grant(self, wait: Wait) -> Grant:  # noqa: ARG002 - nothing to wait for
        """The fixed role and password."""
        return Grant(self.role, self.password)

    async def regrant(self, refused: Grant, message: str, wait: Wait) -> None:
        """A fixed password refused once is refused again."""

    def accepted(self, grant: Grant) -> None:
        """Nothing depends on it."""

    def prefetch(self) -> None:
        """Nothing to get."""

    def keep_fresh(self) -> Callable[[], None]:
        """Nothing to keep fresh."""
        return _nothing


def _nothing() -> None:
    pass


class TokenLogin:
    """A token as the password, and the role it names.

    Args:
        source: Gives the database's tokens.
        role: The role; None takes it from the token.
        fallback: Gives tokens of the management scope, which name the identity where the
            database's do not; asked once at most.
        timeout: Seconds to wait for a token.
        owner: What the source needs and knows only weakly; it is kept alive here.
        refresh: When the token is renewed while a pool is open: in the background, or on demand.
        pgbouncer: Whether PgBouncer stands before the server, which may refuse a long token.
    """

    def __init__(
        self,
        source: TokenSource,
        *,
        role: str | None = None,
        fallback: TokenSource | None = None,
        timeout: float | None = None,
        owner: object = None,
        refresh: Refresh | None = None,
        pgbouncer: bool = False,
    ) -> None:
        self.source = source
        self._owner = owner
        self._refresh = refresh
        self._pgbouncer = pgbouncer
        self._ahead: Flight | None = None
        self._explicit = role
        self._fallback = fallback
        self.timeout = timeout
        self._known: tuple[Token, str] | None = None
        self._fallback_role: str | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} role={self.role!r} {self.source!r}>"

    @property
    def role(self) -> str | None:
        """The role, as far as it is known by now."""
        return self._explicit or (self._known[1] if self._known else None)

    async def grant(self, wait: Wait) -> Grant:
        """The present token and its role."""
        self._raise_what_failed_ahead()
        token, fresh = await self.source.get_with(wait, self.timeout)
        fresh = self._asked_for_ahead(token) or fresh
        self._warn_of_length(token)
        role = self._role_at_once(token)
        if role is None:
            role = self._role_from(token, await self._fallback_token(wait))
        return Grant(role, token.value, fresh, token)

    async def regrant(self, refused: Grant, message: str, wait: Wait) -> Grant | None:
        """Another token, if the refused one came from the cache."""
        if refused.fresh or refused.token is None or not mends("token", message):
            return None
        token = await self.source.get_other_with(wait, refused.token, self.timeout, by=self)
        if token is None:
            return None
        return Grant(self._role_at_once(token) or refused.role, token.value, True, token)

    def accepted(self, grant: Grant) -> None:
        """The token proved good."""
        if grant.token is not None:
            self.source.accepted(grant.token, by=self)

    def prefetch(self) -> None:
        """Begin to fetch the token."""
        self._ahead = self.source.prefetch()

    def keep_fresh(self) -> Callable[[], None]:
        """Keep the token fresh until the returned function is called."""
        return self.source.keep_fresh(self._refresh)

    def _raise_what_failed_ahead(self) -> None:
        """What `prefetch` asked for failed a moment ago: say so now, rather than ask again.

        Raises:
            TokenError: It failed, and its pause is not over.
        """
        ahead = self._ahead
        error = ahead.future.result() if ahead is not None and ahead.future.done() else None
        if ahead is not None and isinstance(error, TokenError):
            self._ahead = None
            if self.source.paused and not ahead.short:
                raise error.again()

    def _asked_for_ahead(self, token: Token) -> bool:
        """Whether this is what `prefetch` asked for: then it is as fresh as if asked for now."""
        ahead, self._ahead = self._ahead, None
        return ahead is not None and ahead.future.done() and ahead.future.result() is token

    def _warn_of_length(self, token: Token) -> None:
        if self._pgbouncer and len(token.value) > LONG:
            self._pgbouncer = False  # said once
            logger.warning(
                "the token has %d bytes (its user is in many groups), and PgBouncer before its fix "
                "of July 2026 refuses long passwords: if it does, set server.port to 5432, or sign "
                "in with a managed identity",
                len(token.value),
            )

    def _role_at_once(self, token: Token) -> str | None:
        if self._explicit is not None:
            return self._explicit
        known = self._known
        if known is not None and known[0] is token:
            return known[1]
        role = role_of(claims_of(token.value)) or self._fallback_role
        if role is not None:
            self._known = (token, role)
        return role

    async def _fallback_token(self, wait: Wait) -> Token | None:
        if self._fallback is not None:
            # An identity that may not ask for the management scope has no name there: an answer.
            with suppress(TokenError):
                return (await self._fallback.get_with(wait, self.timeout))[0]
        return None

    def _role_from(self, token: Token, management: Token | None) -> str:
        role = role_of(claims_of(management.value)) if management is not None else None
        if role is None:
            raise no_role(claims_of(token.value))
        self._fallback_role = role
        self._known = (token, role)
        return role
