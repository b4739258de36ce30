"""Every error that azpgauth raises, one tree; each class says what its reader can do.

    AzpgauthError
     ├── SettingsError        edit the places that .problems names
     ├── MissingDriverError   run the pip command in the message (also an ImportError)
     ├── TokenError           Microsoft Entra ID gave no token: look at the credential
     ├── RoleError            the token names no PostgreSQL role: set database.user
     ├── ConnectError         no connection at start-up; the cause is the driver's error
     ├── CredentialValueError        a drop-in class was given no credential it can use
     └── EntraConnectionValueError   a drop-in class got no token, no role, or unsafe TLS

Errors of a driver on later connections of a pool are the driver's own. Programs moved from
azure-postgresql-auth find its other names at the end of this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from azpgauth.printable import one_line, printable, shortened
from azpgauth.redacted import scrubbed

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "AzpgauthError",
    "AzurePgEntraError",
    "ConnectError",
    "CredentialValueError",
    "EntraConnectionValueError",
    "MissingDriverError",
    "Problem",
    "RoleError",
    "ScopePermissionError",
    "SettingsError",
    "TokenDecodeError",
    "TokenError",
    "UsernameExtractionError",
    "missing_driver",
]


class AzpgauthError(Exception):
    """Root of all errors of this package; its text is safe to print, whatever a server said."""

    def __str__(self) -> str:
        return printable(super().__str__())


@dataclass(frozen=True)
class Problem:
    """One mistake in the settings, told so that one edit mends it.

    Attributes:
        setting: The setting's name, such as ``server.port``; for an unknown name, that name.
        origin: What to edit: ``environment variable AZPG_SERVER_PORT``,
            ``azpgauth.toml, [server] port``, …
        reason: What is wrong.
        action: What is allowed, or the name that was probably meant.
        value: The offending value as Python writes it; never a secret, None where there is none.

    What looks like a secret in them is masked.
    """

    setting: str
    origin: str
    reason: str
    action: str
    value: str | None = None

    def __post_init__(self) -> None:
        # All but the action may echo what somebody typed.
        for name in ("setting", "origin", "reason", "value"):
            if (text := getattr(self, name)) is not None:
                object.__setattr__(self, name, scrubbed(text))

    def __str__(self) -> str:
        reason = self.reason if self.value is None else f"{shortened(self.value)} {self.reason}"
        parts = (shortened(self.setting), reason, shortened(self.origin), self.action)
        setting, reason, origin, action = (one_line(part) for part in parts)
        return f"{setting}: {reason}\n    from: {origin}\n    to do: {action}"


_SHOWN = 20
"""Mistakes that the text of a report shows: more do not fit a screen."""


class SettingsError(AzpgauthError, ValueError):
    """The settings hold mistakes; ``problems`` has all of them.

    The text shows the first 20 of them, and how many more there are.

    Args:
        problems: What was found, in the order of the settings.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        count = len(self.problems)
        head = "1 mistake in the settings" if count == 1 else f"{count} mistakes in the settings"
        lines = [f"{head}:", *(f"  {problem}" for problem in self.problems[:_SHOWN])]
        if count > _SHOWN:
            lines.append(f"  ... and {count - _SHOWN} more")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[type[SettingsError], tuple[tuple[Problem, ...]]]:
        # The default would hand the finished message to __init__, which takes problems.
        return type(self), (self.problems,)


class MissingDriverError(AzpgauthError, ImportError):
    """A package that is needed here is not installed; the message has the pip command."""


def missing_driver(extra: str, exc: ImportError) -> MissingDriverError:
    """The error for a failed import of a driver, with the extra that installs it."""
    return MissingDriverError(
        f"this needs packages that are not installed ({exc}); run: pip install 'azpgauth[{extra}]'",
        name=exc.name,
    )


class TokenError(AzpgauthError):
    """Microsoft Entra ID gave no token, or not in time."""


class RoleError(AzpgauthError):
    """The token does not say which PostgreSQL role is meant; ``database.user`` does."""


class ConnectError(AzpgauthError):
    """No connection at start-up: says where to, as whom, why, and what to do."""


class CredentialValueError(AzpgauthError, ValueError):
    """A drop-in class was given no credential, or one that it cannot use."""


class EntraConnectionValueError(AzpgauthError, ValueError):
    """A drop-in class got no token or no role, or was asked to send the token unprotected."""


# The names under which azure-postgresql-auth's users catch the same things.
AzurePgEntraError = AzpgauthError
ScopePermissionError = TokenError
TokenDecodeError = UsernameExtractionError = RoleError
