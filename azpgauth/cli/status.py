"""Exit statuses: which part of the way did not hold."""

from __future__ import annotations

from enum import IntEnum

from azpgauth.diagnosis import Layer, diagnose
from azpgauth.errors import (
    AzpgauthError,
    ConnectError,
    MissingDriverError,
    RoleError,
    SettingsError,
    TokenError,
)

__all__ = ["Status", "status_of"]


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
