"""Reads names that other tools already set, each family a layer below our own settings. Pure.

Azure Service Connector: https://learn.microsoft.com/azure/service-connector/how-to-integrate-postgres
libpq: https://www.postgresql.org/docs/current/libpq-envars.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from azpgauth.errors import Problem
from azpgauth.settings.sources.layers import Layer, Origin, Value
from azpgauth.settings.sources.strings import StringError, connection_string, postgres_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from azpgauth.settings.sources.layers import Key

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
    try:
        said = connection_string(str(string.raw))
    except StringError as exc:
        layer.unreadable = True
        layer.problems.append(Problem("server.host", str(string.origin), exc.reason, exc.action))
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


def _database_url(found: Mapping[str, Value]) -> Layer:
    layer = Layer()
    value = found.get("DATABASE_URL")
    if value is None or not str(value.raw).strip():
        return layer
    try:
        said = postgres_url(str(value.raw).strip())
    except StringError as exc:
        action = f"{exc.action}, or set AZPG_SERVER_HOST, which then counts"
        layer.unreadable = not exc.reason.startswith("is of another scheme")
        layer.problems.append(Problem("server.host", str(value.origin), exc.reason, action))
        return layer
    for keyword, part in said.items():
        _put(layer, keyword, part, Origin("convention", f"{value.origin}, {keyword}"))
    return layer
