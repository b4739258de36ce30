"""Says by exit statuses which part of the way failed, and why."""

from __future__ import annotations

from enum import IntEnum

from azpgauth.errors import (
    AzpgauthError,
    ConnectError,
    FaultLayer,
    MissingDriverError,
    Problem,
    RoleError,
    SettingsError,
    TokenError,
)
from azpgauth.server.diagnosis import diagnose

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


def status_of(what: FaultLayer | AzpgauthError) -> Status:
    """The status for what is at fault.

    Args:
        what: A layer of the connection, or an error of the library.
    """
    if isinstance(what, str):
        return _LAYERS[what]
    if isinstance(what, (SettingsError, MissingDriverError)):
        return Status.SETTINGS
    if isinstance(what, (TokenError, RoleError, ConnectError)):
        return _LAYERS[what.layer]
    return Status.OTHER


class StepError(Exception):
    """A step that failed.

    Args:
        said: What went wrong, in whoever's words.
        cause: What that means.
        remedy: What to do.
        status: The exit status.
        problems: The mistakes in the settings, where these are why.
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
    """A step that failed, with what its words mean.

    Args:
        said: The words.
        otherwise: The exit status, instead of that of what is at fault.
    """
    diagnosis = diagnose(said)
    status = otherwise or status_of(diagnosis.layer if diagnosis.cause else "network")
    return StepError(said, diagnosis.cause, diagnosis.remedy, status)
