"""Login: what each physical connection needs anew, a role and a password.

A driver module asks for a `Grant`, connects with it, and tells what the server made of it. It does
not know whether the password is a token or a fixed one.
"""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from azpgauth.errors import TokenError
from azpgauth.identity.claims import claims_of, no_role, role_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from azpgauth.identity.flight import Flight
    from azpgauth.identity.token import Token
    from azpgauth.identity.tokens import Refresh, TokenSource

__all__ = ["Grant", "Login", "StaticLogin", "TokenLogin"]

logger = logging.getLogger("azpgauth.login")

LONG = 6000
"""Bytes of a token from which PgBouncer may refuse it: https://github.com/pgbouncer/pgbouncer/issues/874"""

_REFUSED = re.compile(
    r"password authentication failed|access token|audience claim|oid claim|oid mismatch"
    r"|AAD_AUTH_TOKENTYPE|authentication failed",
    re.IGNORECASE,
)


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

    def grant(self) -> Grant:
        """What to sign in with now. May wait for a token.

        Raises:
            TokenError: There is none.
            RoleError: It names no role.
        """

    async def agrant(self) -> Grant:
        """As `grant`, on an event loop."""

    def regrant(self, refused: Grant, message: str) -> Grant | None:
        """What to try once more with, after the server refused; None if there is no point.

        Args:
            refused: What was refused.
            message: The server's words.
        """

    async def aregrant(self, refused: Grant, message: str) -> Grant | None:
        """As `regrant`, on an event loop."""

    def accepted(self, grant: Grant) -> None:
        """The server accepted this."""

    def prefetch(self) -> None:
        """Begin to get what the first grant will need, without waiting for it."""

    def hold(self) -> Callable[[], None]:
        """A pool is open; the returned function says that it closed."""


@dataclass(frozen=True)
class StaticLogin:
    """A role with a fixed password, or none: for a local PostgreSQL."""

    role: str
    password: str | None = field(repr=False, default=None)

    def grant(self) -> Grant:
        """The fixed role and password."""
        return Grant(self.role, self.password)

    async def agrant(self) -> Grant:
        """The fixed role and password."""
        return self.grant()

    def regrant(self, refused: Grant, message: str) -> None:
        """A fixed password refused once is refused again."""

    async def aregrant(self, refused: Grant, message: str) -> None:
        """A fixed password refused once is refused again."""

    def accepted(self, grant: Grant) -> None:
        """Nothing depends on it."""

    def prefetch(self) -> None:
        """Nothing to get."""

    def hold(self) -> Callable[[], None]:
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

    def grant(self) -> Grant:
        """The present token and its role."""
        self._failed_ahead()
        token, fresh = self.source.get(self.timeout)
        fresh = self._looked_at(token) or fresh
        role = self._role_at_once(token)
        if role is None:
            role = self._role_from(token, self._fallback_token())
        return Grant(role, token.value, fresh, token)

    async def agrant(self) -> Grant:
        """The present token and its role."""
        self._failed_ahead()
        token, fresh = await self.source.aget(self.timeout)
        fresh = self._looked_at(token) or fresh
        role = self._role_at_once(token)
        if role is None:
            role = self._role_from(token, await self._afallback_token())
        return Grant(role, token.value, fresh, token)

    def regrant(self, refused: Grant, message: str) -> Grant | None:
        """Another token, if the refused one came from the cache."""
        if not _worth_another_token(refused, message) or refused.token is None:
            return None
        token = self.source.instead_of(refused.token, self.timeout, by=self)
        return self._regranted(token, refused)

    async def aregrant(self, refused: Grant, message: str) -> Grant | None:
        """Another token, if the refused one came from the cache."""
        if not _worth_another_token(refused, message) or refused.token is None:
            return None
        token = await self.source.ainstead_of(refused.token, self.timeout, by=self)
        return self._regranted(token, refused)

    def accepted(self, grant: Grant) -> None:
        """The token proved good."""
        if grant.token is not None:
            self.source.accepted(grant.token, by=self)

    def prefetch(self) -> None:
        """Begin to fetch the token."""
        self._ahead = self.source.prefetch()

    def hold(self) -> Callable[[], None]:
        """Keep the token fresh until the returned function is called."""
        return self.source.hold(self._refresh)

    def _failed_ahead(self) -> None:
        """What `prefetch` asked for failed a moment ago: it is told now, rather than asked again.

        Raises:
            TokenError: It failed, and its pause is not over.
        """
        ahead = self._ahead
        error = ahead.future.result() if ahead is not None and ahead.future.done() else None
        if ahead is not None and isinstance(error, TokenError):
            self._ahead = None
            if self.source.paused and not ahead.short:
                raise TokenError(*error.args) from error.__cause__

    def _looked_at(self, token: Token) -> bool:
        """Whether this is what `prefetch` asked for: then it is as fresh as if asked for now."""
        if self._pgbouncer and len(token.value) > LONG:
            self._pgbouncer = False  # said once
            logger.warning(
                "the token has %d bytes (its user is in many groups), and PgBouncer before its fix "
                "of July 2026 refuses long passwords: if it does, set server.port to 5432, or sign "
                "in with a managed identity",
                len(token.value),
            )
        ahead, self._ahead = self._ahead, None
        return ahead is not None and ahead.future.done() and ahead.future.result() is token

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

    # An identity that may not ask for the management scope has no name there: that is an answer.

    def _fallback_token(self) -> Token | None:
        with suppress(TokenError):
            return self._fallback.get(self.timeout)[0] if self._fallback is not None else None
        return None

    async def _afallback_token(self) -> Token | None:
        if self._fallback is not None:
            with suppress(TokenError):
                return (await self._fallback.aget(self.timeout))[0]
        return None

    def _role_from(self, token: Token, management: Token | None) -> str:
        role = role_of(claims_of(management.value)) if management is not None else None
        if role is None:
            raise no_role(claims_of(token.value))
        self._fallback_role = role
        self._known = (token, role)
        return role

    def _regranted(self, token: Token | None, refused: Grant) -> Grant | None:
        if token is None:
            return None
        return Grant(self._role_at_once(token) or refused.role, token.value, True, token)


def _worth_another_token(refused: Grant, message: str) -> bool:
    return not refused.fresh and bool(_REFUSED.search(message))
