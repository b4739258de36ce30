"""Reads names that other tools already set, as families: each describes one server. Pure.

Azure Service Connector: https://learn.microsoft.com/azure/service-connector/how-to-integrate-postgres
App Service: https://learn.microsoft.com/azure/app-service/reference-app-settings
libpq: https://www.postgresql.org/docs/current/libpq-envars.html
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from azpgauth.errors import Problem
from azpgauth.runtime.redacted import MASK
from azpgauth.server.clouds import cloud_of
from azpgauth.settings.sources.layers import Dropped, Layer, Origin, Value
from azpgauth.settings.sources.strings import StringError, connection_string

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from azpgauth.settings.sources.layers import Key

__all__ = ["FAMILIES", "HOST", "Family", "described", "hosts_in", "read_families", "spellings"]

HOST: Key = ("server", "host")
_PORT: Key = ("server", "port")
_USER: Key = ("database", "user")
_MODE: Key = ("server", "sslmode")

_SETTINGS: dict[str, Key] = {
    "host": HOST,
    "port": _PORT,
    "sslmode": _MODE,
    "ssl": _MODE,  # JDBC, asyncpg's URLs under SQLAlchemy, Service Connector
    "sslrootcert": ("server", "sslrootcert"),
    "connect_timeout": ("server", "connect_timeout"),
    "target_session_attrs": ("server", "target_session_attrs"),
    "load_balance_hosts": ("server", "load_balance_hosts"),
    "keepalives_idle": ("server", "keepalives_idle"),
    "keepalives_interval": ("server", "keepalives_interval"),
    "keepalives_count": ("server", "keepalives_count"),
    "tcp_user_timeout": ("server", "tcp_user_timeout"),
    "dbname": ("database", "name"),
    "user": _USER,
    "application_name": ("database", "application_name"),
    "options": ("database", "options"),
    "dialect": ("driver", "dialect"),
    "password": ("credential", "password"),
    "client_id": ("credential", "client_id"),
    "client_secret": ("credential", "client_secret"),
    "tenant_id": ("credential", "tenant_id"),
}
"""The settings by libpq's keywords, and by those of other clients."""

_ASIDE = {
    "hostaddr": "an address leads elsewhere than its name says: server.hostaddr alone sets one",
    "passfile": "a password is given by credential.password, if at all",
    "service": "services are not read: what one names can be set here",
    "servicefile": "services are not read: what one names can be set here",
}
"""Why some of what others say is no setting here."""

_WORDS = {
    "host": ("HOST", "SERVER", "HOST_NAME", "HOSTNAME"),
    "port": ("PORT",),
    "dbname": ("NAME", "DATABASE", "DB", "DBNAME"),
    "user": ("USER", "USERNAME"),
    "password": ("PASSWORD", "PASS"),
    "sslmode": ("SSLMODE", "SSL_MODE"),
    "ssl": ("SSL",),
}
"""How people spell what describes a server, by libpq's keywords."""


def _spelled(*prefixes: str) -> dict[str, str]:
    return {
        f"{prefix}{word}": keyword
        for prefix in prefixes
        for keyword, words in _WORDS.items()
        for word in words
    }


_STRING = "a connection string"
_CONNECTION = "AZURE_POSTGRESQL_CONNECTIONSTRING"
_APP_SERVICE = "POSTGRESQLCONNSTR_"
"""What App Service puts before the name of a connection string of its type PostgreSQL."""

FAMILIES: dict[str, dict[str, str]] = {
    "AZURE_POSTGRESQL_*": {
        **_spelled("AZURE_POSTGRESQL_"),
        _CONNECTION: _STRING,
        f"{_APP_SERVICE}{_CONNECTION}": _STRING,
        "AZURE_POSTGRESQL_CLIENTID": "client_id",
        "AZURE_POSTGRESQL_CLIENTSECRET": "client_secret",
        "AZURE_POSTGRESQL_TENANTID": "tenant_id",
    },
    f"{_APP_SERVICE}*": {},  # whatever names there are, each a family of its own
    "DATABASE_URL": {"DATABASE_URL": _STRING},
    "PG*": {
        "PGHOST": "host",
        "PGHOSTADDR": "hostaddr",
        "PGPORT": "port",
        "PGDATABASE": "dbname",
        "PGUSER": "user",
        "PGPASSWORD": "password",
        "PGSSLMODE": "sslmode",
        "PGSSLROOTCERT": "sslrootcert",
        "PGCONNECT_TIMEOUT": "connect_timeout",
        "PGTARGETSESSIONATTRS": "target_session_attrs",
        "PGLOADBALANCEHOSTS": "load_balance_hosts",
        "PGAPPNAME": "application_name",
        "PGOPTIONS": "options",
        "PGPASSFILE": "passfile",
        "PGSERVICE": "service",
        "PGSERVICEFILE": "servicefile",
        "PGREQUIREAUTH": "require_auth",
        "PGCHANNELBINDING": "channel_binding",
        "PGREQUIREPEER": "requirepeer",
        "PGSSLNEGOTIATION": "sslnegotiation",
        "PGSSLCERT": "sslcert",
        "PGSSLKEY": "sslkey",
        "PGSSLCERTMODE": "sslcertmode",
        "PGSSLCRL": "sslcrl",
        "PGSSLCRLDIR": "sslcrldir",
        "PGSSLSNI": "sslsni",
        "PGSSLMINPROTOCOLVERSION": "ssl_min_protocol_version",
        "PGSSLMAXPROTOCOLVERSION": "ssl_max_protocol_version",
        "PGGSSENCMODE": "gssencmode",
        "PGGSSDELEGATION": "gssdelegation",
        "PGGSSLIB": "gsslib",
        "PGKRBSRVNAME": "krbsrvname",
        "PGCLIENTENCODING": "client_encoding",
        "PGDATESTYLE": "datestyle",
        "PGTZ": "timezone",
        "PGGEQO": "geqo",
    },
    "POSTGRES_*": _spelled("POSTGRES_"),
    "DB_*": _spelled("DB_", "DB"),
}
"""What other tools set, the family that counts most first: variables, and what each says."""

_OTHER_DATABASES = ("mysql", "maria", "sqlite", "sqlsrv", "mssql", "sqlserver", "oracle", "mongo")
_TELLING = ("DB_CONNECTION", "DB_ENGINE", "DB_DIALECT", "DB_DRIVER", "DB_CLIENT", "DB_TYPE")
_OTHER_PORTS = {"3306": "mysql", "1433": "mssql", "1521": "oracle", "27017": "mongo"}


@dataclass
class Family(Layer):
    """What one family says of one server.

    Attributes:
        name: The family's, such as `PG*`.
        others: What it says that is no setting here.
        texts: What could not be read, with why.
        another: The database that it is of, if that is not PostgreSQL.
    """

    name: str = ""
    others: list[Dropped] = field(default_factory=list)
    texts: list[Dropped] = field(default_factory=list)
    another: str = ""

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts that it names, as they compare."""
        said = self.values.get(HOST)
        return hosts_in(said.raw) if said else ()

    def add(self, keyword: str, value: Value) -> None:
        """Take what a keyword says, in the form that a setting has here."""
        reason = _unusable(keyword, str(value.raw))
        if reason is not None:
            self.others.append(Dropped(_SETTINGS.get(keyword, ("", keyword)), value, reason))
            return
        key = _SETTINGS[keyword]
        if key == _MODE:
            value = Value(_mode(str(value.raw)), value.origin)
        there = self.values.setdefault(key, value)
        if there is not value and str(there.raw) != str(value.raw):
            self.others.append(Dropped(key, value, f"{there.origin} says it already"))

    def take(self, other: Family) -> None:
        """What another part says that this one does not."""
        for key, value in other.values.items():
            self.values.setdefault(key, value)
        self.others += other.others
        self.texts += other.texts
        self.problems += other.problems
        self.unreadable |= other.unreadable
        self.another = self.another or other.another


def hosts_in(said: object) -> tuple[str, ...]:
    """The hosts in what a setting says, as they compare: without case, brackets and a last dot."""
    given = said if isinstance(said, (list, tuple)) else str(said).split(",")
    return tuple(str(name).strip().strip("[]").rstrip(".").lower() for name in given)


def spellings(key: Key, families: Sequence[str]) -> list[str]:
    """The variables in which some families say what a setting has.

    Args:
        key: The setting.
        families: Their names.
    """
    found = []
    for name in families:
        names = FAMILIES.get(name, {})
        mine = [each for each, keyword in names.items() if _SETTINGS.get(keyword) == key]
        strings = [each for each, keyword in names.items() if keyword == _STRING]
        if key[0] != "credential" or key[1] == "password":
            mine = mine or strings[:1]
        found += mine[:1]
    return found


def described(family: str) -> Iterator[tuple[str, list[str]]]:
    """What the variables of a family say: a meaning, and the names that have it.

    Args:
        family: Its name.
    """
    names = FAMILIES[family] or {f"{_APP_SERVICE}NAME": _STRING}
    meanings: dict[str, list[str]] = {}
    for name, keyword in names.items():
        key = _SETTINGS.get(keyword)
        meaning = ".".join(key) if key else keyword if keyword == _STRING else "set aside"
        meanings.setdefault(meaning, []).append(name)
    yield from meanings.items()


def read_families(sources: Sequence[Mapping[str, Value]]) -> list[Family]:
    """What others say: a family for each server that one of them names, the first counts most.

    Args:
        sources: Variables of any name, with their values: of the environment, then of files. As
            with `load_dotenv`, a file adds to a family what the environment does not say; but what
            it says of another host is a family of its own.
    """
    found: list[Family] = []
    for name, names in FAMILIES.items():
        if not names:
            strings = {
                each for source in sources for each in source if each.startswith(_APP_SERVICE)
            }
            for string in sorted(strings - FAMILIES["AZURE_POSTGRESQL_*"].keys()):
                found += _joined(list(_parts(string, {string: _STRING}, sources)))
        else:
            found += _joined(list(_parts(name, names, sources)))
    for family in found:
        _without_server(family)
        _with_kind(family)
    return found


def _parts(
    name: str, names: Mapping[str, str], sources: Sequence[Mapping[str, Value]]
) -> Iterator[tuple[str, Family]]:
    """Each part of a family that is said in one place, with the variable if that is a string."""
    for source in sources:
        told = {each: source[each] for each in names if each in source and str(source[each].raw)}
        plain = Family(name=name)
        for variable, value in told.items():
            if names[variable] != _STRING:
                plain.add(names[variable], _here(value))
        if plain.values or plain.others:
            plain.another = _another(name, source, plain)
            yield "", plain
        for variable, value in told.items():
            if names[variable] == _STRING:
                yield variable, _of_string(name, value)


def _joined(parts: list[tuple[str, Family]]) -> list[Family]:
    """The parts that speak of the same server, or of none, put together."""
    found = []
    while parts:
        hosts = next((set(part.hosts) for _, part in parts if part.hosts), set())
        rest, strings = [], set()
        family = Family(name=parts[0][1].name)
        for string, part in parts:
            if part.hosts and set(part.hosts) != hosts:
                rest.append((string, part))
            elif string not in strings:  # else the environment's counts in place of the file's
                family.take(part)
                strings |= {string} - {""}
        found.append(family)
        parts = rest
    return found


def _here(value: Value, keyword: str = "") -> Value:
    where, name = str(value.origin), value.origin.name
    if keyword:
        where, name = f"{where}, {keyword}", f"{keyword} in {name}"
    return Value(value.raw, Origin("convention", where, name))


def _of_string(name: str, value: Value) -> Family:
    """What a connection string says, in the form of whichever client it was made for."""
    family = Family(name=name)
    try:
        said = connection_string(str(value.raw))
    except StringError as exc:
        unread = Value(MASK, _here(value).origin)
        family.texts.append(Dropped(("", value.origin.name), unread, exc.reason))
        if exc.another:
            family.another = exc.reason.rpartition(" ")[2].strip("'")
        else:
            action = f"{exc.action}, or set {{server.host}}, which then counts"
            family.problems.append(Problem("server.host", str(value.origin), exc.reason, action))
            family.unreadable = True
        return family
    for keyword, text in said.items():
        if text.strip():
            family.add(keyword, _here(Value(text, value.origin), keyword))
    return family


def _unusable(keyword: str, text: str) -> str | None:
    """Why what a keyword says can be no setting here; None if it can."""
    if keyword not in _SETTINGS:
        return _ASIDE.get(keyword, "there is no such setting here")
    if (keyword, text) == ("sslrootcert", "system"):
        return "the usual root certificates are found without it"
    if keyword == "ssl" and _mode(text) not in _MODES:
        return "does not say which sslmode is meant"
    if keyword == "connect_timeout" and text.lstrip("-").isdigit() and int(text) <= 0:
        return "means without end there, and here no connect is without"
    return None


_MODES = frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"})
_TRUE = frozenset({"true", "1", "on", "yes", "enabled", "no-verify"})  # node-postgres has that one
_FALSE = frozenset({"false", "0", "off", "no", "disabled"})


def _mode(text: str) -> str:
    """What libpq would call what other clients say of TLS."""
    word = text.lower().replace("_", "-")
    word = {"verifyca": "verify-ca", "verifyfull": "verify-full"}.get(word, word)
    if word in _TRUE:
        return "require"
    return "disable" if word in _FALSE else word if word in _MODES else text


def _another(name: str, source: Mapping[str, Value], family: Family) -> str:
    """The other database that a family is of: names such as DB_HOST are everybody's."""
    if name != "DB_*":
        return ""
    for each in _TELLING:
        said = str(source[each].raw).lower() if each in source else ""
        if any(word in said for word in _OTHER_DATABASES):
            return said
    port = family.values.get(_PORT)
    return _OTHER_PORTS.get(str(port.raw), "") if port else ""


def _without_server(family: Family) -> None:
    """Old servers of Azure's wanted `user@server`; today's take the user alone.

    https://learn.microsoft.com/azure/postgresql/migrate/concepts-single-to-flexible
    """
    user = family.values.get(_USER)
    if user is None:
        return
    for host in family.hosts:
        end = f"@{host.partition('.')[0]}"
        if cloud_of(host) and str(user.raw).lower().endswith(end):
            family.values[_USER] = Value(str(user.raw)[: -len(end)], user.origin)


def _with_kind(family: Family) -> None:
    """The kind that Service Connector's identity implies.

    A client id alone is that of a user-assigned identity, one with a secret a service principal's.
    That is what `kind` is then, unless something above this family names one.
    """
    for field_name, kind in (("client_secret", "client-secret"), ("client_id", "managed-identity")):
        telling = family.values.get(("credential", field_name))
        if telling is not None:
            where = f"{telling.origin}, which implies it"
            origin = Origin("convention", where, telling.origin.name)
            family.values["credential", "kind"] = Value(kind, origin)
            return
