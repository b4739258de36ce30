"""Declares the settings: five sections, frozen, every field described.

The descriptions are what users read: keep them to one line that says meaning and unit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from azpgauth.runtime.drivers import DRIVERS, Dialect, DriverName
from azpgauth.runtime.printable import either
from azpgauth.runtime.redacted import MASK
from azpgauth.server.clouds import cloud_of, is_pooled
from azpgauth.server.targets import TARGETS, Server, Target, is_reader
from azpgauth.settings.models.closed import Closed
from azpgauth.settings.models.contradictions import contradictions
from azpgauth.settings.models.credential import (
    FIELDS,
    KINDS,
    TOKENLESS,
    CredentialSettings,
    DefaultCredentialSettings,
)
from azpgauth.settings.models.fields import (
    ExistingFile,
    Flag,
    Name,
    Options,
    Section,
    Whole,
    no_bool,
)
from azpgauth.settings.models.nearness import is_this_machine
from azpgauth.settings.models.places import Address, Host, Port  # noqa: TC001 - pydantic reads them
from azpgauth.settings.models.secret import hidden, sealed
from azpgauth.settings.models.terms import named

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

__all__ = [
    "SECTIONS",
    "DatabaseSettings",
    "DriverSettings",
    "PoolSettings",
    "ServerSettings",
    "Settings",
    "valid_values",
]


def _sslmode(value: object) -> object:
    if value == "verify-all":
        raise PydanticCustomError(
            "verify_all",
            "there is no such mode, although Microsoft's documentation names it; "
            "verify-full is meant",
        )
    return value


def _root(value: object) -> object:
    return None if value == "auto" else value


Span = Annotated[int, Field(ge=0, le=32767), BeforeValidator(no_bool)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(no_bool)]


class ServerSettings(Section):
    """Where the server is, and how far to trust it."""

    host: Host = Field(
        description="The server's name; several, separated by commas, are tried in their order.",
        examples=["shop.postgres.database.azure.com"],
    )
    port: Port = Field(
        5432,
        description=("The TCP port, or one for each host, separated by commas; 6432 is PgBouncer."),
    )
    hostaddr: Address | None = Field(
        None,
        description=(
            "An IP address for each host, to connect to in its place, as through a tunnel; the "
            "certificate is checked against the host's name."
        ),
        examples=["127.0.0.1"],
    )
    target_session_attrs: Target | None = Field(
        None,
        description=(
            f"Which of the servers is wanted: {either(TARGETS)}; by default a primary if there "
            "is one, else a standby."
        ),
        examples=["read-write"],
    )
    load_balance_hosts: Literal["disable", "random"] = Field(
        "disable",
        description="Whether each connection tries the hosts in another order: disable or random.",
    )
    sslmode: Annotated[
        Literal["verify-full", "verify-ca", "require", "prefer", "allow", "disable"],
        BeforeValidator(_sslmode),
    ] = Field(
        "verify-full",
        description=(
            "verify-full checks the server's certificate and name, verify-ca the certificate, "
            "require nothing; prefer, allow and disable only for kinds password and none, towards "
            "this machine (prefer is the default there), a name without a dot or a private address."
        ),
    )
    sslrootcert: Annotated[ExistingFile | None, BeforeValidator(_root)] = Field(
        None,
        description=(
            "Path of a PEM file with the trusted root certificates; "
            "auto takes Azure's own for an Azure server, else the system's, or certifi's."
        ),
        examples=["auto", "/etc/ssl/certs/own-ca.pem"],
    )
    connect_timeout: Whole = Field(
        10,
        ge=1,
        le=3600,
        description=(
            "Seconds for one attempt to connect to a host, and for all attempts at start-up, times "
            "the number of hosts."
        ),
    )
    keepalives_idle: Span = Field(
        15,
        description=(
            "Seconds of silence until the server is asked whether it lives; 0: the system decides."
        ),
    )
    keepalives_interval: Span = Field(
        5, description="Seconds between such questions; 0: the system decides."
    )
    keepalives_count: Span = Field(
        3,
        description="Unanswered questions until the connection is given up; 0: the system decides.",
    )
    tcp_user_timeout: Annotated[int, Field(ge=0, le=2**31 - 1), BeforeValidator(no_bool)] = Field(
        30_000,
        description=(
            "Milliseconds that what was sent may stay unacknowledged until the connection is given "
            "up; not below keepalives_idle and the questions after it; 0: the system decides."
        ),
    )
    pooler: Flag | None = Field(
        None,
        description=(
            "Whether PgBouncer stands between (true or false); by default true on ports 6432 and "
            "8432, else found out."
        ),
        examples=["true"],
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
    def pooled(self) -> bool | None:
        """Whether PgBouncer stands between: as set, or by the port; None is to be found out."""
        return is_pooled(self.pooler, self.port)

    @property
    def servers(self) -> tuple[Server, ...]:
        """Each host with its port and address."""
        hosts = self.hosts
        ports = self.port if isinstance(self.port, tuple) else (self.port,) * len(hosts)
        found = self.hostaddr
        addresses = found if isinstance(found, tuple) else (found,) * len(hosts)
        return tuple(map(Server, hosts, ports, addresses))

    @property
    def target(self) -> Target | None:
        """Which server is wanted: as set; any where all are readers; None prefers a primary."""
        if self.target_session_attrs is None and all(map(is_reader, self.hosts)):
            return "any"
        return self.target_session_attrs

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
    options: Options = Field(
        Options(),
        description=(
            "What each session begins with, such as search_path, statement_timeout or role: a "
            "table in TOML, JSON or libpq's -c name=value in a variable. Not behind PgBouncer."
        ),
        examples=["-c search_path=shop -c statement_timeout=30s"],
    )


class DriverSettings(Section):
    """Which driver."""

    name: DriverName = Field("psycopg", description=f"The driver: {either(DRIVERS)}.")
    dialect: Dialect = Field(
        "psycopg",
        description=(
            "What SQLAlchemy connects with: psycopg or psycopg2 under sqlalchemy, "
            "psycopg or asyncpg under sqlalchemy-async; other drivers do not look at it."
        ),
    )
    prepared_statements: Flag | None = Field(
        None,
        description=(
            "Whether the driver may make named prepared statements (true or false); by default "
            "not behind PgBouncer, where another client's statement could answer."
        ),
        examples=["true"],
    )


class PoolSettings(Section):
    """The bounds of the pool."""

    min_size: Whole = Field(1, ge=0, description="Connections to keep open.")
    max_size: Whole = Field(10, ge=1, description="Connections to have at most.")
    timeout: Seconds = Field(30, description="Seconds to wait for a connection.")
    max_lifetime: Seconds = Field(3600, description="Seconds until a connection is replaced.")
    max_idle: Seconds = Field(
        600, description="Seconds until an unused connection above min_size is closed."
    )


class Settings(Closed):
    """All of it. `load_settings` reads it from the world; a program can also make it itself.

    Example:
        >>> settings = Settings(server={"host": "localhost"}, database={"name": "shop"})
        >>> settings.server.port
        5432
    """

    server: ServerSettings
    database: DatabaseSettings
    driver: DriverSettings = DriverSettings()
    pool: PoolSettings = PoolSettings()
    credential: CredentialSettings = DefaultCredentialSettings()

    @model_validator(mode="wrap")
    @classmethod
    def _checked(cls, data: Any, validated: Callable[[Any], Settings]) -> Settings:
        # As a whole around all: else pydantic's errors would show what came in.
        data = _sealed(data)
        settings = _with_default_mode(validated(data))
        found = contradictions(
            {
                (section, name): value
                for section in cls.model_fields
                for name, value in getattr(settings, section)
            }
        )
        if found:
            lines = "; ".join(f"{each} {said}: {named(action)}" for each, said, action in found)
            error = PydanticCustomError("contradictions", "{all}", {"all": lines})
            raise ValidationError.from_exception_data(
                cls.__name__, [InitErrorDetails(type=error, input=MASK)], hide_input=True
            )
        return settings


def _sealed(data: Any) -> Any:
    if not isinstance(data, Mapping):
        return data
    found = hidden(data, set(Settings.model_fields))
    if "credential" in found:
        credential = sealed(found["credential"], FIELDS)
        found["credential"] = (
            with_kind(credential) if isinstance(credential, Mapping) else credential
        )
    return found


def _with_default_mode(settings: Settings) -> Settings:
    """The settings with the sslmode that holds if none is set: it depends on what is protected."""
    server = settings.server
    found = server.hostaddr or ()
    places = (*server.hosts, *((found,) if isinstance(found, str) else found))
    local = all(map(is_this_machine, places))
    mode = "prefer" if settings.credential.kind in TOKENLESS and local else "verify-full"
    if "sslmode" in server.model_fields_set or server.sslmode == mode:
        return settings
    # Neither is anybody's but the caller's own, so copies are changed.
    server, settings = server.model_copy(), settings.model_copy()
    vars(server)["sslmode"], vars(settings)["server"] = mode, server
    return settings


def with_kind(credential: Mapping[str, Any]) -> Mapping[str, Any]:
    """The credential's fields with the kind that holds if none is named."""
    return credential if "kind" in credential else {**credential, "kind": "default"}


def _adapter(field: FieldInfo) -> TypeAdapter[Any]:
    annotated: Any = Annotated
    kind: Any = field.annotation
    parts = (kind, *field.metadata)
    return TypeAdapter(annotated[parts] if field.metadata else kind)


def valid_values(data: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], Any]:
    """The fields that are valid by themselves, and the defaults of those that are not there.

    Args:
        data: For each section, its fields as some source has them.
    """
    values: dict[tuple[str, str], Any] = {}
    for section, info in Settings.model_fields.items():
        given: Mapping[str, Any] = data.get(section, {})
        if section == "credential":
            model: Any = KINDS.get(str(with_kind(given)["kind"]))
        else:
            model = info.annotation
        for name, field in model.model_fields.items() if model else ():
            if name in given:
                with suppress(ValidationError):
                    values[section, name] = _adapter(field).validate_python(given[name])
            elif not field.is_required():
                values[section, name] = field.default
    if ("credential", "kind") not in values and not data.get("credential", {}).get("kind"):
        values["credential", "kind"] = "default"
    return values


SECTIONS: dict[str, frozenset[str]] = {
    "server": frozenset(ServerSettings.model_fields),
    "database": frozenset(DatabaseSettings.model_fields),
    "driver": frozenset(DriverSettings.model_fields),
    "pool": frozenset(PoolSettings.model_fields),
    "credential": FIELDS,
}
"""The fields of each section; for credential, those of all kinds."""
