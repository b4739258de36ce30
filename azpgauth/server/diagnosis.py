"""Tells what a failed connect means, and what may mend it, from the driver's words. Pure."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from azpgauth.server.options import alter_role
from azpgauth.server.words import ROWS, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Mapping

    from azpgauth.server.words import Mend

__all__ = ["diagnose", "mends", "retry_delay"]

_MISSING_ROLE = re.compile(r'role "([^"]*)" does not exist')
_OTHER_ROLE = Diagnosis(
    "the role that the session is to act as does not exist",
    "check role in database.options (AZPG_DATABASE_OPTIONS)",
)
_UNKNOWN = Diagnosis("", "")
_WRONG_PASSWORD = Diagnosis(
    "the role does not exist on the server, or its password is another",
    "check database.user (AZPG_DATABASE_USER) and credential.password (AZPG_CREDENTIAL_PASSWORD)",
    layer="identity",
)


def diagnose(
    message: str,
    role: str | None = None,
    *,
    token: bool = True,
    options: Mapping[str, str] | None = None,
) -> Diagnosis:
    """What a failed connect means.

    Args:
        message: The driver's words, with the server's in them.
        role: Who wanted in, for what there is to run.
        token: Whether a token was the password.
        options: What the session was to begin with.

    Example:
        >>> diagnose('FATAL:  database "shop" does not exist').cause
        'the server has no such database'
    """
    found = next((meaning for pattern, meaning in ROWS if pattern.search(message)), _UNKNOWN)
    missing = _MISSING_ROLE.search(message)
    if missing and role and not role.startswith(missing[1]):  # the server cuts long names
        return _OTHER_ROLE
    if "{role}" in found.remedy and not token:
        return _WRONG_PASSWORD
    literal = (role or "ROLE").replace("'", "''")
    name = (role or "ROLE").replace('"', '""')
    filled = {
        "{role}": literal,
        "{name}": name,
        "{options}": alter_role(options or {"OPTION": "VALUE"}, role or "ROLE"),
    }
    remedy = found.remedy
    for place, text in filled.items():
        remedy = remedy.replace(place, text)
    return replace(found, remedy=remedy)


def mends(mend: Mend, message: str) -> bool:
    """Whether this may mend a failed connect.

    Args:
        mend: What could be tried.
        message: The driver's words. Of several addresses each may have said something else: more
            roots or another token may mend one of them, but time mends nothing where one says no.

    Example:
        >>> mends("token", "FATAL:  The access token has expired")
        True
    """
    if mend in {"waiting", "host"}:
        return mend in diagnose(message).mended_by
    return any(mend in meaning.mended_by and pattern.search(message) for pattern, meaning in ROWS)


def retry_delay(attempt: int, left: float) -> float | None:
    """Seconds to wait before the next attempt; None if there is no time for one.

    Args:
        attempt: How many attempts have failed.
        left: Seconds that are left for all further attempts.
    """
    delay = min(0.1 * 2 ** min(attempt - 1, 10), 1.0)
    return delay if delay < left else None
