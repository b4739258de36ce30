"""Finds settings that contradict each other, which no field can see by itself. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from azpgauth.runtime.drivers import DRIVERS
from azpgauth.runtime.printable import either
from azpgauth.server.clouds import cloud_of, is_pooled
from azpgauth.server.options import alter_role
from azpgauth.server.tls import ENCRYPTING
from azpgauth.settings.models.credential import KINDS, TOKENLESS
from azpgauth.settings.models.nearness import is_nearby

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["contradictions"]

Found = tuple[str, str, str]
"""A setting, what is wrong with it, what to do; there, others are named as `{section.name}`."""


def contradictions(values: Mapping[tuple[str, str], Any]) -> list[Found]:
    """All of them.

    Args:
        values: The values by section and field. What is not there is not known, and then
            contradicts nothing.
    """
    return [found for check in _CHECKS for found in check(values)]


def _of_pool(values: Mapping[tuple[str, str], Any]) -> Iterator[Found]:
    low, high = values.get(("pool", "min_size")), values.get(("pool", "max_size"))
    if low is not None and high is not None and low > high:
        yield "pool.min_size", f"is over max_size {high}", _LOWER


_LOWER = "lower {pool.min_size} or raise {pool.max_size}"


def _of_driver(values: Mapping[tuple[str, str], Any]) -> Iterator[Found]:
    driver, dialect = values.get(("driver", "name")), values.get(("driver", "dialect"))
    mine = DRIVERS[driver].dialects if driver in DRIVERS else ()
    if mine and dialect is not None and dialect not in mine:
        other = next(name for name, facts in DRIVERS.items() if dialect in facts.dialects)
        message = f"does not go with driver.name {driver}"
        yield "driver.dialect", message, f"set it to {either(mine)}, or {{driver.name}} to {other}"


def _of_keepalives(values: Mapping[tuple[str, str], Any]) -> Iterator[Found]:
    names = ("keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")
    found = [values.get(("server", name)) or 0 for name in names]
    if not all(found):  # 0 leaves it to the system
        return
    idle, interval, count, limit = found
    needed = 1000 * (idle + interval * count)
    if limit < needed:
        reason = f"is over before keepalives are: {idle} s and {count} times {interval} s"
        yield "server.tcp_user_timeout", reason, f"set it to {needed} or more, or {_SHORTEN}"


_SHORTEN = (
    "lower {server.keepalives_idle}, {server.keepalives_interval} or {server.keepalives_count}"
)


def _of_options(values: Mapping[tuple[str, str], Any]) -> Iterator[Found]:
    options, port = values.get(("database", "options")), values.get(("server", "port"))
    if options and port is not None and is_pooled(values.get(("server", "pooler")), port):
        reason = f"has {', '.join(options)}, and PgBouncer refuses what a session would begin with"
        statements = alter_role(options, values.get(("database", "user")) or "ROLE")
        yield "database.options", reason, f"remove it, and run: {statements}"
    driver, dialect = values.get(("driver", "name")), values.get(("driver", "dialect"))
    asyncpg = driver == "asyncpg" or (driver == "sqlalchemy-async" and dialect == "asyncpg")
    if asyncpg and "client_encoding" in map(str.lower, options or ()):
        reason = "has client_encoding, and asyncpg reads everything as UTF-8"
        yield "database.options", reason, "remove client_encoding"


def _of_lists(values: Mapping[tuple[str, str], Any]) -> Iterator[Found]:
    hosts = len(_hosts(values))
    for name, what in (("port", "ports"), ("hostaddr", "addresses")):
        value = values.get(("server", name))
        given = len(value) if isinstance(value, tuple) else 1
        alone = not isinstance(value, tuple) and (value is None or name == "port")
        if hosts and not alone and given != hosts:
            message = f"has {given} of the {hosts} {what} that server.host needs"
            action = f"give one for each of the {hosts} hosts"
            yield f"server.{name}", message, action + (", or one for all" if name == "port" else "")


def _of_addresses(values: Mapping[tuple[str, str], Any]) -> Iterator[Found]:
    address = values.get(("server", "hostaddr"))
    if address is not None and any(host.startswith("/") for host in _hosts(values)):
        message = "is an address, and server.host names the folder of a socket, which has none"
        yield "server.hostaddr", message, "remove it, or name the server in {server.host}"


def _of_clouds(values: Mapping[tuple[str, str], Any]) -> Iterator[Found]:
    clouds = {host: cloud for host in _hosts(values) if (cloud := cloud_of(host))}
    names = sorted(set(clouds.values()))
    if len(names) > 1:
        message = f"names servers of different clouds: {', '.join(names)}"
        yield "server.host", message, "name the servers of one cloud; a token is good in one"
        return
    said = values.get(("server", "cloud"))
    if said is not None and names and said != names[0]:
        message = f"contradicts server.host, for {next(iter(clouds))} is in cloud {names[0]}"
        yield "server.cloud", message, f"remove it, or set it to {names[0]}"


def _of_protection(values: Mapping[tuple[str, str], Any]) -> Iterator[Found]:
    kind, mode = values.get(("credential", "kind")), values.get(("server", "sslmode"))
    if kind not in KINDS:
        return
    with_token = kind not in TOKENLESS
    better = "use verify-full (the default), verify-ca or require; weaker modes are for "
    if mode is not None and mode not in ENCRYPTING:
        if with_token:
            message = "could send the token in clear"
            yield "server.sslmode", message, f"{better}{{credential.kind}} password and none"
        elif not all(is_nearby(place) for place in (*_hosts(values), *_addresses(values))):
            message = "sends everything in clear, and to another machine"
            near = "this machine, names without a dot and private addresses in {server.host}"
            yield "server.sslmode", message, f"{better}{near}"
    if with_token and any(host.startswith("/") for host in _hosts(values)):
        message = "is a socket's folder, where no TLS protects the token"
        action = "give the server's name, or set {credential.kind} to password or none"
        yield "server.host", message, action


def _of_identity(values: Mapping[tuple[str, str], Any]) -> Iterator[Found]:
    if values.get(("credential", "kind")) != "managed-identity":
        return
    names = ("client_id", "object_id", "resource_id")
    first, *more = [name for name in names if values.get(("credential", name))] or [""]
    for name in more:
        message = f"names the identity a second time, beside {first}"
        action = f"remove {{credential.{name}}} or {{credential.{first}}}"
        yield f"credential.{name}", message, action


def _of_user(values: Mapping[tuple[str, str], Any]) -> Iterator[Found]:
    kind = values.get(("credential", "kind"))
    if kind in TOKENLESS and values.get(("database", "user"), "unknown") is None:
        message = f"is required with credential.kind {kind}: no token names the role"
        yield "database.user", message, "set it to the PostgreSQL role"


def _hosts(values: Mapping[tuple[str, str], Any]) -> tuple[str, ...]:
    host = values.get(("server", "host"), ())
    return (host,) if isinstance(host, str) else tuple(host)


def _addresses(values: Mapping[tuple[str, str], Any]) -> tuple[str, ...]:
    address = values.get(("server", "hostaddr")) or ()
    return (address,) if isinstance(address, str) else tuple(address)


_CHECKS = (
    *(_of_pool, _of_driver, _of_keepalives, _of_options),
    *(_of_lists, _of_addresses),
    *(_of_clouds, _of_protection, _of_identity, _of_user),
)
