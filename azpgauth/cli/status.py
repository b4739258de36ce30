"""Exit statuses: which part of the way did not hold, and why."""

from __future__ import annotations

from enum import IntEnum

from azpgauth.errors import (
    AzpgauthError,
    ConnectError,
    MissingDriverError,
    Problem,
    RoleError,
    SettingsError,
    TokenError,
)
from azpgauth.server.diagnosis import Layer, diagnose

__all__ = ["Status", "StepError", "explained", "status_of"]


class Status(IntEnum):
    """The exit status of a command."""

    OK = 0
    OTHER = 1
    USAGE = 2  # click's own
    SETTINGS = 3
    NETWORK = 4
    TLS = 5
    IDENTITY = 6
    DATABASE = 7


_LAYERS = {
    "network": Status.NETWORK,
    "tls": Status.TLS,
    "identity": Status.IDENTITY,
    "database": Status.DATABASE,
}


def status_of(what: Layer | AzpgauthError) -> Status:
    """The status for what is at fault.

    Args:
        what: A layer of the connection, or an error of the library.
    """
    if isinstance(what, str):
        return _LAYERS[what]
    if isinstance(what, (SettingsError, MissingDriverError)):
        return Status.SETTINGS
    if isinstance(what, (TokenError, RoleError)):
        return Status.IDENTITY
    if isinstance(what, ConnectError):
        return _LAYERS[diagnose(str(what.__cause__ or what)).layer]
    return Status.OTHER


class StepError(Exception):
    """A step that did not hold.

    Args:
        said: What went wrong, in whoever's words.
        cause: What that means.
        remedy: What to do.
        status: The exit status.
        problems: The mistakes in the settings, where these are what does not hold.
        ours: Whether the words are ours, and their lines as they should be.
    """

    def __init__(
        self,
        said: str,
        cause: str,
        remedy: str,
        status: Status,
        *,
        problems: tuple[Problem, ...] = (),
        ours: bool = False,
    ) -> None:
        super().__init__(said)
        self.said = said
        self.cause = cause
        self.remedy = remedy
        self.status = status
        self.problems = problems
        self.ours = ours


def explained(said: str, otherwise: Status | None = None) -> StepError:
    """A step that did not hold, with what its words mean.

    Args:
        said: The words.
        otherwise: The exit status, instead of that of what is at fault.
    """
    diagnosis = diagnose(said)
    status = otherwise or status_of(diagnosis.layer if diagnosis.cause else "network")
    return StepError(said, diagnosis.cause, diagnosis.remedy, status)
