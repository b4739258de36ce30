"""Names that other tools already set, each family a layer below our own settings. Pure.

Azure Service Connector: https://learn.microsoft.com/azure/service-connector/how-to-integrate-postgres
libpq: https://www.postgresql.org/docs/current/libpq-envars.html
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

from azpgauth.errors import Problem
from azpgauth.settings.layers import Layer, Origin, Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from azpgauth.settings.layers import Key

__all__ = ["SPELLINGS", "convention_layers"]

_LIBPQ: dict[str, Key] = {
    "host": ("server", "host"),
    "port": ("server", "port"),
    "sslmode": ("server", "sslmode"),
    "sslrootcert": ("server", "sslrootcert"),
    "connect_timeout": ("server", "connect_timeout"),
    "dbname": ("database", "name"),
    "user": ("database", "user"),
    "application_name": ("database", "application_name"),
    "password": ("credential", "password"),
}
"""The settings by libpq's keywords; whatever else others say is theirs."""

_PG = {
    "PGHOST": "host",
    "PGPORT": "port",
    "PGDATABASE": "dbname",
    "PGUSER": "user",
    "PGPASSWORD": "password",
    "PGSSLMODE": "sslmode",
    "PGSSLROOTCERT": "sslrootcert",
    "PGCONNECT_TIMEOUT": "connect_timeout",
    "PGAPPNAME": "application_name",
}
_POSTGRES = {"POSTGRES_SERVER": "host", "POSTGRES_DATABASE": "dbname"}
_CONNECTOR = {  # one client type or another sets each of these
    "AZURE_POSTGRESQL_HOST": "host",
    "AZURE_POSTGRESQL_PORT": "port",
    "AZURE_POSTGRESQL_NAME": "dbname",
    "AZURE_POSTGRESQL_DATABASE": "dbname",
    "AZURE_POSTGRESQL_USER": "user",
    "AZURE_POSTGRESQL_USERNAME": "user",
    "AZURE_POSTGRESQL_PASSWORD": "password",
}
_IDENTITY = {
    "AZURE_POSTGRESQL_CLIENTID": "client_id",
    "AZURE_POSTGRESQL_CLIENTSECRET": "client_secret",
    "AZURE_POSTGRESQL_TENANTID": "tenant_id",
}
_DOTNET = {
    "server": "host",
    "host": "host",
    "port": "port",
    "database": "dbname",
    "user id": "user",
    "username": "user",
    "password": "password",
    "ssl mode": "sslmode",
}
"""Npgsql's keywords, in lower case: https://www.npgsql.org/doc/connection-string-parameters.html"""


SPELLINGS: dict[Key, list[str]] = {
    ("server", "host"): [
        *("AZURE_POSTGRESQL_HOST", "DATABASE_URL", "PGHOST", "POSTGRES_SERVER"),
    ],
    ("database", "name"): [
        *("AZURE_POSTGRESQL_DATABASE", "DATABASE_URL", "PGDATABASE", "POSTGRES_DATABASE"),
    ],
    ("credential", "client_id"): ["AZURE_POSTGRESQL_CLIENTID"],
    ("credential", "client_secret"): ["AZURE_POSTGRESQL_CLIENTSECRET"],
    ("credential", "tenant_id"): ["AZURE_POSTGRESQL_TENANTID"],
    ("credential", "password"): ["PGPASSWORD", "DATABASE_URL"],
}
"""Where others say what a setting must have, for whoever misses it."""


def convention_layers(found: Mapping[str, Value]) -> list[Layer]:
    """What others say, the family that counts most first.

    Args:
        found: Variables of any name, with their values.
    """
    return [
        _service_connector(found),
        _database_url(found),
        _by_name(found, _PG),
        _by_name(found, _POSTGRES),
    ]


def _by_name(found: Mapping[str, Value], names: Mapping[str, str]) -> Layer:
    layer = Layer()
    for name, keyword in names.items():
        if name in found:
            value = found[name]
            _put(layer, keyword, str(value.raw), Origin("convention", str(value.origin)))
    return layer


def _put(layer: Layer, keyword: str, text: str, origin: Origin) -> None:
    key = _LIBPQ.get(keyword)
    # libpq takes an empty variable for one that is not there; `system` is the usual bundle.
    if key is None or not text.strip() or (keyword, text) == ("sslrootcert", "system"):
        return
    layer.values.setdefault(key, Value(text, origin))


def _service_connector(found: Mapping[str, Value]) -> Layer:
    """What Azure Service Connector sets, for any client type.

    A client id alone is that of a user-assigned identity, one with a secret a service principal's.
    That is what `kind` is then, unless something above this layer names one.
    """
    layer = _by_name(found, _CONNECTOR)
    ssl = found.get("AZURE_POSTGRESQL_SSL")
    if ssl is not None and str(ssl.raw).strip().lower() in {"true", "require"}:
        _put(layer, "sslmode", "require", Origin("convention", str(ssl.origin)))
    string = found.get("AZURE_POSTGRESQL_CONNECTIONSTRING")
    if string is not None and str(string.raw).strip():
        _connection_string(layer, string)
    _without_server(layer)
    for name, field in _IDENTITY.items():
        if name in found and str(found[name].raw).strip():
            origin = Origin("convention", str(found[name].origin))
            layer.values["credential", field] = Value(found[name].raw, origin)
    telling = next(
        (each for each in ("client_secret", "client_id") if ("credential", each) in layer.values),
        None,
    )
    if telling is not None:
        kind = "client-secret" if telling == "client_secret" else "managed-identity"
        where = f"{layer.values['credential', telling].origin}, which implies it"
        layer.values["credential", "kind"] = Value(kind, Origin("convention", where))
    return layer


def _connection_string(layer: Layer, string: Value) -> None:
    """The connection string, in the form of whichever client it was made for."""
    text = str(string.raw).strip().removeprefix("jdbc:")
    if "://" in text.split("=")[0]:
        said = _url(text)
    elif ";" in text:
        pairs = (part.partition("=") for part in text.split(";"))
        said = {_DOTNET.get(name.strip().lower(), ""): value.strip() for name, _, value in pairs}
        said["sslmode"] = re.sub(r"(?<=verify)(?=ca|full)", "-", said.get("sslmode", "").lower())
    else:
        said = _keywords(text)
    if said is None:
        layer.unreadable = True
        layer.problems.append(
            Problem(
                "server.host",
                str(string.origin),
                "is no connection string that can be read",
                "let Service Connector set it anew, or remove it",
            )
        )
        return
    for keyword, value in said.items():
        where = f"{string.origin}, {keyword}"
        _put(layer, keyword, value, Origin("convention", where))


def _without_server(layer: Layer) -> None:
    """Old servers wanted `user@server`; today's take the user alone.

    https://learn.microsoft.com/azure/postgresql/migrate/concepts-single-to-flexible
    """
    host, user = layer.values.get(("server", "host")), layer.values.get(("database", "user"))
    if host is not None and user is not None:
        server = str(host.raw).partition(".")[0]
        name = str(user.raw).removesuffix(f"@{server}")
        layer.values["database", "user"] = Value(name, user.origin)


_TOKEN = re.compile(r"\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)(?=\s|$)")


def _keywords(text: str) -> dict[str, str] | None:
    """Libpq's `keyword=value …`; None if it is not that.

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


_SCHEME = re.compile(r"(postgres|postgresql)(\+\w+)?$")


def _database_url(found: Mapping[str, Value]) -> Layer:
    layer = Layer()
    value = found.get("DATABASE_URL")
    if value is None or not str(value.raw).strip():
        return layer
    text = str(value.raw).strip()
    scheme = text.partition(":")[0].lower()
    said = _url(text) if _SCHEME.match(scheme) else None
    if said is not None:
        for keyword, part in said.items():
            _put(layer, keyword, part, Origin("convention", f"{value.origin}, {keyword}"))
        return layer
    # The text may hold a password.
    layer.unreadable = bool(_SCHEME.match(scheme))
    other = f"is of another scheme, {scheme[:20]!r}"
    reason = "cannot be read as a URL" if layer.unreadable else other
    layer.problems.append(
        Problem(
            "server.host",
            str(value.origin),
            reason,
            "write postgresql://HOST:PORT/DATABASE, or set AZPG_SERVER_HOST, which then counts",
        )
    )
    return layer


def _url(text: str) -> dict[str, str] | None:
    """A `postgresql://` URL in libpq's keywords; None if it cannot be read."""
    try:
        url = urlsplit(text)
        credentials, _, places = url.netloc.rpartition("@")
        user, _, password = credentials.partition(":")
        hosts, ports = [], set()
        for place in places.split(","):
            host, port = (place, "") if place.endswith("]") else _host_and_port(place)
            hosts.append(unquote(host.strip("[]")))
            ports |= {port} - {""}
        if len(ports) > 1:
            return None  # one port for all is what there is a setting for
        query = dict(parse_qsl(url.query))
    except ValueError:
        return None
    # asyncpg's URLs under SQLAlchemy say `ssl` for what libpq calls `sslmode`.
    query.setdefault("sslmode", query.pop("ssl", ""))
    parts = {
        "user": unquote(user),
        "password": unquote(password),
        "host": ",".join(hosts),
        "port": "".join(ports),
        "dbname": unquote(url.path.removeprefix("/")),
    }
    return {**query, **{name: part for name, part in parts.items() if part}}


def _host_and_port(place: str) -> tuple[str, str]:
    host, found, port = place.rpartition(":")
    return (host, port) if found else (place, "")
