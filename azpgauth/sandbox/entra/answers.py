"""Describes what goes in and out at the authority's doors: requests, answers, tokens, refusals."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from azpgauth.sandbox.entra.identity import Identity

__all__ = ["Answer", "Door", "EntraError", "Issued", "Issuing", "Request", "pairs"]

Door = Literal["app-service", "imds", "oauth2", "az", "azd", "pwsh"]
"""Where a request for a token came in."""


@dataclass(frozen=True)
class Request:
    """An HTTP request. Its parts are not shown: they hold secrets."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: str = field(default="", repr=False)


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    body: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"

    @classmethod
    def json(
        cls,
        document: Mapping[str, Any],
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """An answer that is a JSON document."""
        return cls(status, json.dumps(document), headers or {})


@dataclass(frozen=True)
class Issued:
    """A token that is handed out, and what is told about it.

    Attributes:
        token: The token.
        identity: Whose it is.
        resource: What it was asked for.
        lifetime: Seconds it is said to live.
        expires_on: Until when it is said to live, in seconds since the epoch.
        refresh_in: Seconds after which to ask for the next one, if the client is to be told.
    """

    token: str = field(repr=False)
    identity: Identity
    resource: str
    lifetime: int
    expires_on: int
    refresh_in: int | None


class Issuing(Protocol):
    """What a door needs of the authority behind it.

    Attributes:
        signed_out: Whether nobody has signed in with the developers' programs.
    """

    signed_out: bool

    @property
    def url(self) -> str:
        """Where OAuth 2.0 is spoken."""

    def known(self, client_id: str | None) -> Identity | None:
        """Who has this client id, if anybody does."""

    def issue(self, door: Door, resource: str, who: Callable[[], Identity]) -> Issued:
        """A token.

        Raises:
            EntraError: There is none.
        """


class EntraError(Exception):
    """What Entra ID answers instead of a token.

    Args:
        status: The HTTP status.
        error: The kind of error, in the words of OAuth 2.0.
        code: The number behind `AADSTS`; 0 where there is none.
        text: What is wrong.
        headers: HTTP headers that belong to it.
    """

    def __init__(
        self,
        status: int,
        error: str,
        code: int,
        text: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.error = error
        self.code = code
        self.headers = headers or {}
        self.said = f"AADSTS{code}: {text}" if code else text
        super().__init__(self.said)

    def document(self) -> dict[str, Any]:
        """The JSON document of the token endpoint.

        https://learn.microsoft.com/entra/identity-platform/reference-error-codes
        """
        trace, correlation = str(uuid.uuid4()), str(uuid.uuid4())
        now = f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M:%SZ}"
        return {
            "error": self.error,
            "error_description": f"{self.said} Trace ID: {trace} "
            f"Correlation ID: {correlation} Timestamp: {now}",
            "error_codes": [self.code],
            "timestamp": now,
            "trace_id": trace,
            "correlation_id": correlation,
        }


def pairs(text: str) -> dict[str, str]:
    """A query or a form; of a name that comes twice, the first."""
    return {name: values[0] for name, values in parse_qs(text).items()}
