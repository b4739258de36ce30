"""Parses connection strings of other tools into libpq's keywords. Pure.

What cannot be read for certain is not guessed at: a part of a password might be taken for a host,
and shown.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from azpgauth.settings.sources.placeholders import placeholder

__all__ = ["StringError", "connection_string", "postgres_url"]


class StringError(Exception):
    """A string that cannot be read.

    Args:
        reason: Why; holds nothing of the string that could be a secret.
        action: What to do.
        another: Whether it is that of another database.
    """

    def __init__(self, reason: str, action: str, *, another: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.action = action
        self.another = another


_WRITE = "write postgresql://USER@HOST:PORT/DATABASE"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=://)")
_URL = re.compile(
    r"postgres(?:ql)?(?:\+(?P<dialect>\w+))?://"
    # A user may have one @ as it is, as `user@server` and `ada@contoso.com` have.
    r"(?:(?P<user>[^:@/?#]*(?:@[^:@/?#]*){0,2})(?::(?P<password>[^@/?#]*))?@)?"
    r"(?P<places>[^@/?#]*)"
    r"(?:/(?P<dbname>[^@/?#]*))?"
    r"(?:\?(?P<query>[^@#]*))?",
    re.IGNORECASE,
)
_PLACE = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(?::(?P<port>\d*))?")


def postgres_url(text: str) -> dict[str, str]:
    """The parts of a URL.

    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS

    Args:
        text: The URL.

    Returns:
        Its parts by libpq's keywords, and `dialect` for what stands behind a + in the scheme.

    Raises:
        StringError: It is none, or of another scheme, or cannot be read for certain.

    Example:
        >>> postgres_url("postgresql://app@h/shop")
        {'user': 'app', 'host': 'h', 'dbname': 'shop'}
    """
    scheme = _SCHEME.match(text)
    if scheme is None:
        raise StringError("is not a URL", _WRITE)
    if scheme[0].lower() == "postgis":
        reason = "is of Django's scheme postgis, which no other tool reads"
        raise StringError(reason, "write postgresql:// in place of it")
    if not re.fullmatch(r"postgres(ql)?(\+\w+)?", scheme[0].lower()):
        reason = f"is of another scheme, {scheme[0]!r}"
        raise StringError(reason, _WRITE, another=True)
    match = _URL.fullmatch(text)
    places = [_PLACE.fullmatch(each) for each in match["places"].split(",")] if match else [None]
    if match is None and (at := text.find("@Microsoft.KeyVault(")) >= 0:
        left = placeholder(text[at:], whole=True)
        if left is not None:
            raise StringError(*left)
    if match is None or None in places:
        action = f"{_WRITE}, with # / ? @ : % of user and password percent-encoded (%23 for #)"
        raise StringError("cannot be read as a URL", action)
    found = [place for place in places if place is not None]
    ports = [place["port"] or "5432" for place in found]
    parts = {
        "dialect": (match["dialect"] or "").lower(),
        "user": unquote(match["user"] or ""),
        "password": unquote(match["password"] or ""),
        "host": ",".join(unquote(place["host"].strip("[]")) for place in found),
        "port": ",".join(ports if len(set(ports)) > 1 else ports[:1])
        if any(place["port"] for place in found)
        else "",
        "dbname": unquote(match["dbname"] or ""),
    }
    given = {name: part for name, part in parts.items() if part}
    return {**given, **_query(match["query"] or "")}


def _query(text: str) -> dict[str, str]:
    """The parameters; libpq takes `+` as it stands, and so do we."""
    pairs = (part.partition("=") for part in text.split("&") if part)
    return {unquote(name): unquote(value) for name, _, value in pairs}


def connection_string(text: str) -> dict[str, str]:
    """The parts of a connection string, in the form of whichever client it was made for.

    Args:
        text: libpq's `keyword=value …`, a URL, JDBC's URL, or Npgsql's `Keyword=value;…`.

    Returns:
        Its parts by libpq's keywords; what has none is under the name that it has there.

    Raises:
        StringError: It is none of these.
    """
    plain = text.strip().removeprefix("jdbc:")
    found = placeholder(plain, whole=True)
    if found is not None:
        raise StringError(*found)
    if re.match(r"psql\s", plain):
        raise StringError(
            "is a command of psql, not what that connects to",
            "remove psql, and the quotes around what follows it",
        )
    if plain[:1] in {'"', "'"}:
        raise StringError("is not a URL: it is in quotes", "remove the quotes around it")
    if _SCHEME.match(plain):
        return postgres_url(plain)
    said = _keywords(plain)
    if said is not None and {"host", "dbname", "user"} & said.keys() and not _separated(said):
        return said
    said = _npgsql(plain)
    if said and {"host", "dbname", "user"} & said.keys():
        return said
    raise StringError(
        "is not a URL, and not a connection string that can be read",
        f"{_WRITE}, or host=HOST dbname=DATABASE user=USER, a value with blanks in quotes",
    )


def _separated(said: dict[str, str]) -> bool:
    """Whether this is another form, in which semicolons stand between the pairs."""
    return any(";" in said.get(name, "") for name in ("host", "dbname", "user", "port"))


_TOKEN = re.compile(r"\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?!')(?:[^\s\\]|\\.)*)(?=\s|$)")


def _keywords(text: str) -> dict[str, str] | None:
    """Libpq's form; None if it is not that.

    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-KEYWORD-VALUE
    """
    said: dict[str, str] = {}
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            return None
        value = match[2][1:-1] if match[2].startswith("'") else match[2]
        said[match[1]] = re.sub(r"\\(.)", r"\1", value)
        at = match.end()
    return said


_NPGSQL = {
    "server": "host",
    "host": "host",
    "port": "port",
    "database": "dbname",
    "db": "dbname",
    "userid": "user",
    "uid": "user",
    "user": "user",
    "username": "user",
    "password": "password",
    "pwd": "password",
    "psw": "password",
    "sslmode": "sslmode",
    "applicationname": "application_name",
    "options": "options",
}
"""Npgsql's keywords, without spaces: https://www.npgsql.org/doc/connection-string-parameters.html"""

_PAIR = re.compile(r"""\s*([\w ]+?)\s*=\s*("(?:[^"]|"")*"|'(?:[^']|'')*'|[^;"']*)\s*(?:;|$)""")


def _npgsql(text: str) -> dict[str, str] | None:
    """Npgsql's form; None if it is not that."""
    said: dict[str, str] = {}
    at = 0
    while text[at:].strip():
        match = _PAIR.match(text, at)
        if match is None:
            return None
        name = match[1].replace(" ", "").lower()
        value = match[2].strip()
        if value[:1] in {'"', "'"}:
            value = value[1:-1].replace(value[0] * 2, value[0])
        said[_NPGSQL.get(name, name)] = value
        at = match.end()
    return said
