"""Finds the variables with secrets of settings, which a program that `run` starts does not get.

It signs in with what it is handed, and the secret would outlive that. Where a value cannot be read
for certain it counts as holding one. Credentials of Azure's own libraries stay: they are for the
program as much as for us.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

__all__ = ["is_withheld"]

_PASS = r"(?:PASSWORD|PASSWD|PASS|PWD)"  # noqa: S105 - names

_NAMES = re.compile(
    # Our own, under any prefix: what another database's settings are read with.
    r"\w+_CREDENTIAL_(?:PASSWORD|CLIENT_SECRET|CERTIFICATE_PASSWORD)"
    rf"|AZPG_(?:\w+_)?(?:{_PASS}|SECRET)"
    # Other tools'.
    rf"|AZURE_POSTGRESQL_(?:\w+_)?(?:{_PASS}|CLIENT_?SECRET)"
    rf"|(?:POSTGRES|POSTGRESQL|PG|DB|DATABASE)_?{_PASS}",
    re.IGNORECASE,
)

_STRINGS = re.compile(
    r"AZURE_POSTGRESQL_(?:\w+_)?CONNECTION_?STRING|POSTGRESQLCONNSTR_\w+"
    r"|(?:\w+_)?(?:POSTGRES|POSTGRESQL|PG|DB|DATABASE)_?(?:URL|URI|DSN|CONNECTION_?STRING)",
    re.IGNORECASE,
)
"""Variables whose whole purpose is to hold a URL or a connection string."""

_OTHERS = re.compile(r"(?:MYSQL|SQL|SQLAZURE)CONNSTR_", re.IGNORECASE)
"""Connection strings that App Service sets for other databases: no setting reads them."""

_BEFORE = r"""[\s"']*(?:psql\s+["']?)?(?:jdbc:)?"""
_URL = re.compile(
    rf"{_BEFORE}(?:postgres(?:ql)?|postgis)(?:\+\w+)?://(?P<rest>.*)", re.IGNORECASE | re.DOTALL
)
_ANY_URL = re.compile(rf"{_BEFORE}(?:[\w+.-]+://)?(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_PLACES = re.compile(r"(?:(?:\[[^\]]*\]|[^:\[\]]*)(?::\d*)?(?:,|$))*")

_SECRET = r"(?:(?:ssl)?password|passwd|pwd|psw|oauth_client_secret)"  # noqa: S105 - names
_PARAMETER = re.compile(rf"(?:^|[?&;]){_SECRET}=[^&]", re.IGNORECASE)
_PAIR = re.compile(
    # Not empty: neither two quotes and no more, nor a semicolon before another pair.
    rf"""(?:^|[\s;"']){_SECRET}\s*=\s*(?!(?:''|"")(?:[\s;]|$))(?:[^\s;]|;[^\s;=]+(?:\s|$))""",
    re.IGNORECASE,
)
_SERVER = re.compile(
    r"""(?:^|[\s;"'])(?:host(?:addr)?|server|data\s*source|port|service|dbname|database|db"""
    r"|user(?:\s*id|\s*name)?|uid)\s*=",
    re.IGNORECASE,
)


def is_withheld(name: str, value: str) -> bool:
    """Whether a setting took a secret from this variable, or could take one.

    Args:
        name: The variable's name.
        value: Its value.

    Example:
        >>> is_withheld("DATABASE_URL", "postgresql://app:hunter2@localhost/shop")
        True
        >>> is_withheld("DATABASE_URL", "postgresql://app@localhost/shop")
        False
    """
    if _NAMES.fullmatch(name):
        return True
    if _OTHERS.match(name):
        return False
    for_it = _STRINGS.fullmatch(name) is not None
    url = (_ANY_URL if for_it else _URL).match(value)
    if url is not None and _in_url(url["rest"]):
        return True
    return bool(_PAIR.search(value) and (for_it or _SERVER.search(value)))


def _in_url(rest: str) -> bool:
    """Whether there is a password in a URL, of which this follows the scheme."""
    path, _, query = rest.partition("?")
    if _PARAMETER.search(query) or _PARAMETER.search(unquote(query)):
        return True
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        return bool(authority.rpartition("@")[0].partition(":")[2])
    # A password may have / ? or # in it as they stand; what follows a server's name may have an @.
    return ("@" in path and ":" in authority) or ("@" in rest and not _PLACES.fullmatch(authority))
