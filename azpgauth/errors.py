"""Defines every error that azpgauth raises, one tree; each class says what its reader can do.

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

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from azpgauth.runtime.printable import LINE, one_line, printable
from azpgauth.runtime.redacted import scrubbed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from typing_extensions import Self

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
    """Root of all errors of this package; nothing in its text is a command to a terminal."""

    def __str__(self) -> str:
        return printable(super().__str__())


SHOWN = 20
"""Mistakes that the text of a report has; the rest is counted."""

_SENTENCE = 2000
"""Characters of a reason, or of what to do: it may list all names that there are."""


@dataclass(frozen=True)
class Problem:
    """One mistake in the settings, told so that one edit mends it.

    Its text is fit for a terminal: what stands in it from elsewhere is escaped, and what is long is
    cut. The attributes are as they were found.

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
        value = "" if self.value is None else f"{one_line(self.value)} "
        return (
            f"{one_line(self.setting)}: {value}{one_line(self.reason, _SENTENCE)}\n"
            f"    from: {one_line(self.origin)}\n"
            f"    to do: {one_line(self.action, _SENTENCE)}"
        )


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
        lines = [f"{head}:", *_reported(self.problems[:SHOWN])]
        if count > SHOWN:
            lines.append(f"  … and {count - SHOWN} more")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[type[SettingsError], tuple[tuple[Problem, ...]]]:
        # The default would hand the finished message to __init__, which takes problems.
        return type(self), (self.problems,)


def _reported(problems: Iterable[Problem]) -> Iterator[str]:
    """What is said of each; a long list of what is allowed is given once."""
    first_with: dict[str, str] = {}
    for problem in problems:
        first = first_with.setdefault(problem.action, problem.setting)
        if len(problem.action) > LINE and first != problem.setting:
            yield f"  {replace(problem, action=f'as for {one_line(first)}')}"
        else:
            yield f"  {problem}"


class MissingDriverError(AzpgauthError, ImportError):
    """A package that is needed here is not installed; the message has the pip command.

    Attributes:
        said: What is missing.
        remedy: The command that installs it.
    """

    said: str = ""
    remedy: str = ""


def missing_driver(extra: str, exc: ImportError) -> MissingDriverError:
    """The error for a failed import of a driver, with the extra that installs it."""
    said = f"this needs packages that are not installed ({one_line(str(exc))})"
    remedy = f"run: pip install 'azpgauth[{extra}]'"
    error = MissingDriverError(f"{said}; {remedy}", name=exc.name)
    error.said, error.remedy = said, remedy
    return error


FaultLayer = Literal["network", "tls", "identity", "database"]
"""What can be at fault on the way to a signed-in connection."""


class _ExplainedError(AzpgauthError):
    """An error that carries what it means; its text is made from that.

    Args:
        said: What went wrong, in whoever's words.
        cause: What that means; empty where the words say it already.
        remedy: What to do; empty where nothing is known.
        layer: What is at fault.

    Attributes:
        said: As given.
        cause: As given.
        remedy: As given.
        layer: As given: ``network``, ``tls``, ``identity`` or ``database``.
    """

    def __init__(
        self,
        said: object = "",
        *,
        cause: str = "",
        remedy: str = "",
        layer: FaultLayer | None = None,
    ) -> None:
        super().__init__(said)
        self.said = str(said)
        self.cause = cause
        self.remedy = remedy
        self.layer: FaultLayer = layer or self._usual_layer

    _usual_layer: FaultLayer = "identity"

    def __str__(self) -> str:
        lines = [self.said]
        if self.cause:
            lines.append(f"cause: {self.cause}")
        if self.remedy:
            lines.append(f"to do: {self.remedy}")
        return printable("\n  ".join(lines))

    def again(self, said: str | None = None) -> Self:
        """Another error that means the same, to be raised elsewhere: it has frames of its own.

        Args:
            said: What it says instead.
        """
        words = self.said if said is None else said
        error = type(self)(words, cause=self.cause, remedy=self.remedy, layer=self.layer)
        error.__cause__ = self.__cause__
        return error


class TokenError(_ExplainedError):
    """Microsoft Entra ID gave no token, or not in time; has `cause`, `remedy` and `layer`."""


class RoleError(_ExplainedError):
    """The token does not say which PostgreSQL role is meant; ``database.user`` does."""


class ConnectError(_ExplainedError):
    """No connection at start-up: says where to, as whom, why, and what to do.

    Its ``__cause__`` is the driver's error; `cause`, `remedy` and `layer` say what that means.
    """

    _usual_layer = "database"


class CredentialValueError(AzpgauthError, ValueError):
    """A drop-in class was given no credential, or one that it cannot use."""


class EntraConnectionValueError(AzpgauthError, ValueError):
    """A drop-in class got no token or no role, or was asked to send the token unprotected."""


# The names under which azure-postgresql-auth's users catch the same things.
AzurePgEntraError = AzpgauthError
ScopePermissionError = TokenError
TokenDecodeError = UsernameExtractionError = RoleError
