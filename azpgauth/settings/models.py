"""The settings themselves: five sections, frozen, every field described.

The descriptions are what users read: keep them to one line that says meaning and unit.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    FilePath,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from azpgauth.clouds import cloud_of
from azpgauth.settings.credential import (
    FIELDS,
    FROZEN,
    TOKENLESS,
    CredentialSettings,
    DefaultCredentialSettings,
    Name,
    Section,
    TokenCredentialSettings,
)
from azpgauth.settings.secret import sealed
from azpgauth.tls import ENCRYPTING

__all__ = [
    "SECTIONS",
    "DatabaseSettings",
    "DriverSettings",
    "PoolSettings",
    "ServerSettings",
    "Settings",
    "contradictions",
    "valid_sections",
]


def _hosts(value: object) -> object:
    """One name, or several from a comma-separated string."""
    if isinstance(value, str):
        names = [name.strip() for name in value.split(",")]
    elif isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value):
        names = [name.strip() for name in value]
    else:
        raise PydanticCustomError("host", "is not a name, nor a list of names")
    for name in names:
        _check_host(name)
    return names[0] if len(names) == 1 else tuple(names)


def _check_host(name: str) -> None:
    if not name:
        raise PydanticCustomError("host", "a host's name is empty")
    if "://" in name:
        raise PydanticCustomError("host", "is a URL; give the host's name alone")
    if name.startswith("/") or _is_address(name):
        return
    if ":" in name:
        raise PydanticCustomError("host", "holds a port; put it into server.port")
    if any(char.isspace() or char in "/@'\"\\" for char in name):
        raise PydanticCustomError("host", "is not a host's name")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _sslmode(value: object) -> object:
    if value == "verify-all":
        raise PydanticCustomError(
            "verify_all",
            "there is no such mode, although Microsoft's documentation names it; "
            "verify-full is meant",
        )
    return value


def _root(value: object) -> object:
    # FilePath's own message does not say that `auto` exists.
    return None if value == "auto" else value


Host = Annotated[str | tuple[str, ...], BeforeValidator(_hosts)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ServerSettings(Section):
    """Where the server is, and how far to trust it."""

    host: Host = Field(
        description="The server's name; several, separated by commas, are tried in their order.",
        examples=["shop.postgres.database.azure.com"],
    )
    port: int = Field(5432, ge=1, le=65535, description="The TCP port; 6432 is PgBouncer.")
    sslmode: Annotated[
        Literal["verify-full", "verify-ca", "require", "prefer", "disable"],
        BeforeValidator(_sslmode),
    ] = Field(
        "verify-full",
        description=(
            "verify-full checks the server's certificate and name, verify-ca the certificate, "
            "require nothing; prefer and disable only for kinds password and none, "
            "towards this machine."
        ),
    )
    sslrootcert: Annotated[FilePath | None, BeforeValidator(_root)] = Field(
        None,
        description=(
            "Path of a PEM file with the trusted root certificates; "
            "auto takes Azure's own for an Azure server, else the system's, or certifi's."
        ),
        examples=["auto", "/etc/ssl/certs/own-ca.pem"],
    )
    connect_timeout: int = Field(
        10,
        ge=1,
        le=3600,
        description="Seconds for one attempt to connect, and for all attempts at start-up.",
    )
    cloud: Literal["public", "usgov", "china"] | None = Field(
        None,
        description="The Azure cloud (public, usgov, china); by default from the host's suffix.",
        examples=["public"],
    )

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts, always as a tuple."""
        return (self.host,) if isinstance(self.host, str) else self.host

    @property
    def cloud_name(self) -> str:
        """The cloud: as set, or by the hosts' suffix."""
        if self.cloud is not None:
            return self.cloud
        return next((cloud for host in self.hosts if (cloud := cloud_of(host))), "public")


class DatabaseSettings(Section):
    """Which database, as whom."""

    name: Name = Field(description="The database's name.", examples=["shop"])
    user: Name | None = Field(
        None,
        description=(
            "The PostgreSQL role; by default from the token. Needed for groups, service "
            "principals, and kinds password and none."
        ),
        examples=["shop-app"],
    )
    application_name: Name = Field(
        "azpgauth", description="The program's name in the server's statistics."
    )


class DriverSettings(Section):
    """Which driver."""

    name: Literal[
        "psycopg", "psycopg-async", "psycopg2", "sqlalchemy", "sqlalchemy-async", "asyncpg"
    ] = Field(
        "psycopg",
        description=(
            "The driver: psycopg, psycopg-async, psycopg2, sqlalchemy, sqlalchemy-async or asyncpg."
        ),
    )
    dialect: Literal["psycopg", "psycopg2", "asyncpg"] = Field(
        "psycopg",
        description=(
            "What SQLAlchemy connects with: psycopg or psycopg2 under sqlalchemy, "
            "psycopg or asyncpg under sqlalchemy-async; other drivers do not look at it."
        ),
    )


class PoolSettings(Section):
    """The bounds of the pool."""

    min_size: int = Field(1, ge=0, description="Connections to keep open.")
    max_size: int = Field(10, ge=1, description="Connections to have at most.")
    timeout: Seconds = Field(30, description="Seconds to wait for a connection.")
    max_lifetime: Seconds = Field(3600, description="Seconds until a connection is replaced.")
    max_idle: Seconds = Field(
        600, description="Seconds until an unused connection above min_size is closed."
    )

    @model_validator(mode="after")
    def _bounds(self) -> PoolSettings:
        if self.min_size > self.max_size:
            raise PydanticCustomError(
                "contradiction",
                "{setting} {message}",
                {
                    "setting": "pool.min_size",
                    "message": f"is over max_size {self.max_size}",
                    "action": "lower min_size or raise max_size",
                },
            )
        return self


class Settings(BaseModel):
    """All of it. `load_settings` reads it from the world; a program can also make it itself.

    Example:
        >>> settings = Settings(server={"host": "localhost"}, database={"name": "shop"})
        >>> settings.server.port
        5432
    """

    model_config = FROZEN

    server: ServerSettings
    database: DatabaseSettings
    driver: DriverSettings = DriverSettings()
    pool: PoolSettings = PoolSettings()
    credential: CredentialSettings = DefaultCredentialSettings()

    @model_validator(mode="before")
    @classmethod
    def _kind_by_default(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("credential"), Mapping):
            return {**data, "credential": with_kind(sealed(data["credential"]))}
        return data

    @model_validator(mode="after")
    def _no_contradictions(self) -> Settings:
        found = contradictions(**{name: getattr(self, name) for name in type(self).model_fields})
        if found:
            lines = (f"{setting} {message}: {action}" for setting, message, action in found)
            raise PydanticCustomError("contradictions", "{all}", {"all": "; ".join(lines)})
        return self


def with_kind(credential: Mapping[str, Any]) -> Mapping[str, Any]:
    """The credential's fields with the kind that holds if none is named."""
    return credential if "kind" in credential else {**credential, "kind": "default"}


def valid_sections(data: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the sections that are valid by themselves."""
    valid = {}
    for name, info in Settings.model_fields.items():
        given = data.get(name, {})
        with suppress(ValidationError):
            if name == "credential":
                valid[name] = _CREDENTIAL.validate_python(with_kind(sealed(given)))
            else:
                section: Any = info.annotation
                valid[name] = section.model_validate(given)
    return valid


_CREDENTIAL: TypeAdapter[Any] = TypeAdapter(CredentialSettings)


def contradictions(
    *,
    server: ServerSettings | None = None,
    database: DatabaseSettings | None = None,
    driver: DriverSettings | None = None,
    credential: Any = None,
    **_: Any,
) -> list[tuple[str, str, str]]:
    """What no field can see by itself: setting, what is wrong, what to do.

    Sections that are not given are not looked at.
    """
    found = []
    if driver is not None:
        found += _of_driver(driver)
    if server is not None:
        found += _of_clouds(server)
    if server is not None and credential is not None:
        found += _of_protection(server, isinstance(credential, TokenCredentialSettings))
    if database is not None and credential is not None and credential.kind in TOKENLESS:
        message = f"is required with credential.kind {credential.kind}: no token names the role"
        action = "set it (AZPG_DATABASE_USER) to the PostgreSQL role"
        if database.user is None:
            found.append(("database.user", message, action))
    return found


def _of_driver(driver: DriverSettings) -> list[tuple[str, str, str]]:
    wrong = {"sqlalchemy": "asyncpg", "sqlalchemy-async": "psycopg2"}.get(driver.name)
    if driver.dialect != wrong:
        return []
    right = "psycopg2" if driver.name == "sqlalchemy" else "asyncpg"
    other = "sqlalchemy-async" if driver.name == "sqlalchemy" else "sqlalchemy"
    message = f"does not go with driver.name {driver.name}"
    action = f"set it to psycopg or {right}, or driver.name to {other}"
    return [("driver.dialect", message, action)]


def _of_clouds(server: ServerSettings) -> list[tuple[str, str, str]]:
    clouds = {host: cloud for host in server.hosts if (cloud := cloud_of(host))}
    names = sorted(set(clouds.values()))
    if len(names) > 1:
        message = f"names servers of different clouds: {', '.join(names)}"
        return [("server.host", message, "name the servers of one cloud; a token is good in one")]
    if server.cloud is None or not names or server.cloud == names[0]:
        return []
    message = f"contradicts server.host, for {next(iter(clouds))} is in cloud {names[0]}"
    return [("server.cloud", message, f"remove server.cloud, or set it to {names[0]}")]


def _of_protection(server: ServerSettings, with_token: bool) -> list[tuple[str, str, str]]:
    found = []
    better = "use verify-full (the default), verify-ca or require; weaker modes are for "
    if server.sslmode not in ENCRYPTING:
        if with_token:
            message = "could send the token in clear"
            found.append(("server.sslmode", message, f"{better}credential.kind password and none"))
        elif not all(_is_local(host) for host in server.hosts):
            message = "sends everything in clear, and to another machine"
            action = f"{better}this machine's own addresses and sockets"
            found.append(("server.sslmode", message, action))
    if with_token and any(host.startswith("/") for host in server.hosts):
        message = "is a socket's folder, where no TLS protects the token"
        action = "give the server's name, or set credential.kind to password or none"
        found.append(("server.host", message, action))
    return found


def _is_local(host: str) -> bool:
    if host.startswith("/") or host.lower() == "localhost":
        return True
    return _is_address(host) and ipaddress.ip_address(host).is_loopback


SECTIONS: dict[str, frozenset[str]] = {
    "server": frozenset(ServerSettings.model_fields),
    "database": frozenset(DatabaseSettings.model_fields),
    "driver": frozenset(DriverSettings.model_fields),
    "pool": frozenset(PoolSettings.model_fields),
    "credential": FIELDS,
}
"""The fields of each section; for credential, those of all kinds."""
