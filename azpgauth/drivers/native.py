"""Checks the argument `native`: which of the driver's own arguments a program may pass. Pure."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from azpgauth.errors import Problem, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

__all__ = ["OWNED_BY_LIBPQ", "check_native", "unfit", "with_options"]

OWNED_BY_LIBPQ = frozenset(
    """
    host hostaddr port dbname user password passfile service connect_timeout application_name
    gssencmode channel_binding require_auth requirepeer sslmode sslrootcert sslcert sslkey
    sslpassword sslcertmode sslcrl sslcrldir sslsni sslnegotiation ssl_min_protocol_version
    ssl_max_protocol_version
    """.split()  # noqa: SIM905 - a list of such names is read more easily
)
"""What the settings say of a connection, or what protects it, in libpq's names."""


def check_native(
    native: Mapping[str, Any],
    owned: AbstractSet[str],
    known: AbstractSet[str] | None,
    where: str,
) -> None:
    """Refuse what azpgauth sets itself, and what the driver does not know.

    Args:
        native: The arguments, by name.
        owned: The names that azpgauth owns.
        known: The names that the driver knows; None leaves that to the driver.
        where: Whose arguments these are, for the message.

    Raises:
        SettingsError: With all names that cannot be; it does not show their values.
    """
    problems = []
    for key in native:
        if key in owned:
            reason, action = "azpgauth sets this itself", "use the settings instead"
        elif known is None or key in known:
            continue
        else:
            near = get_close_matches(key, known - owned, 1)
            reason = f"is not an argument of {where}"
            action = f"did you mean {near[0]}?" if near else "see the driver's documentation"
        problems.append(Problem(f"native[{key!r}]", "argument native", reason, action))
    if problems:
        raise SettingsError(problems)


def with_options(ours: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Libpq's keywords with the program's own; what both say of `options` counts.

    Args:
        ours: The plan's.
        own: The program's.
    """
    options = " ".join(filter(None, (ours.get("options"), own.get("options"))))
    return {**ours, **own, "options": options}


def unfit(exc: TypeError) -> SettingsError:
    """The driver's own complaint of an argument, as an error of ours."""
    return SettingsError(
        [Problem("native", "argument native", str(exc), "see the driver's documentation")]
    )
