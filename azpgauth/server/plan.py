"""Holds what stays the same for a pool's life, for any driver: `ConnectPlan`. Frozen."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from azpgauth.errors import Problem, SettingsError
from azpgauth.server.keepalives import Keepalives
from azpgauth.server.options import as_words
from azpgauth.server.tls import NO_ROOTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from azpgauth.server.targets import Server, Target
    from azpgauth.server.tls import Tls

__all__ = ["ConnectPlan", "PoolLimits"]


_ANY_PASSWORD = "none,password,md5,scram-sha-256"  # noqa: S105 - methods
"""libpq's default but for Kerberos; Azure asks for a password in clear, inside TLS."""


@dataclass(frozen=True)
class PoolLimits:
    """The bounds of a pool.

    Attributes:
        min_size: Connections to keep open.
        max_size: Connections to have at most.
        timeout: Seconds to wait for a connection.
        max_lifetime: Seconds after which a connection is replaced.
        max_idle: Seconds after which an unused one above `min_size` is closed.
    """

    min_size: int
    max_size: int
    timeout: float
    max_lifetime: float
    max_idle: float


@dataclass(frozen=True)
class ConnectPlan:
    """Where to connect, and how.

    Attributes:
        servers: Where the servers are, tried in this order.
        database: The database's name.
        application_name: What the server's statistics show.
        connect_timeout: Seconds for one attempt at one server.
        tls: What TLS to demand.
        pool: The pool's bounds.
        options: What each session begins with, such as `search_path`.
        keepalives: When a dead peer is given up.
        pooler: Whether PgBouncer stands between; None is to be found out.
        target: Which of the servers is wanted; None prefers a primary.
        load_balance: Whether each connect tries the servers in another order.
    """

    servers: tuple[Server, ...]
    database: str
    application_name: str
    connect_timeout: int
    tls: Tls
    pool: PoolLimits
    options: Mapping[str, str] = field(default_factory=dict)
    keepalives: Keepalives = field(default_factory=Keepalives)
    pooler: bool | None = None
    target: Target | None = None
    load_balance: bool = False

    @property
    def where(self) -> str:
        """Host and port of each server, for messages."""
        return ", ".join(map(str, self.servers))

    def libpq(self, version: int, environ: Mapping[str, str] | None = None) -> dict[str, str | int]:
        """The keywords of a connection for libpq, without server and role.

        What libpq would take from its environment behind the settings is pinned: an empty value
        stands for libpq's default and keeps the variable out. https://www.postgresql.org/docs/current/libpq-envars.html

        The password is pinned as an empty one, which libpq never sends, and the file of passwords
        as one that cannot be: whoever signs in with one puts it in their place.

        Args:
            version: libpq's version, as `PQlibVersion` gives it.
            environ: The environment, `os.environ` if not given.

        Raises:
            SettingsError: `PGSERVICE` is set, which cannot be pinned.
        """
        _refuse_service(environ)
        pinned: dict[str, str | int] = {
            "dbname": self.database,
            "password": "",
            "passfile": NO_ROOTS,
            "application_name": self.application_name,
            "connect_timeout": self.connect_timeout,
            **self.tls.libpq(),
            "ssl_min_protocol_version": "TLSv1.2",
            "ssl_max_protocol_version": "",
            "sslcert": "",
            "sslkey": "",
            "sslcrl": "",
            "sslcrldir": "",
            "sslsni": "1",
            # Kerberos is never used: not asking for it saves a round trip.
            "gssencmode": "disable",
            "channel_binding": "prefer",
            "requirepeer": "",
            "options": as_words(self.options),
            "target_session_attrs": "any",
            **self.keepalives.libpq(),
        }
        if version >= 160000:
            pinned |= {
                "sslcertmode": "disable",
                "require_auth": _ANY_PASSWORD,
                "load_balance_hosts": "disable",
            }
        if version >= 170000:
            pinned |= {"sslnegotiation": "postgres"}
        return pinned

    def asyncpg(self, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The keywords of a connection for asyncpg, without server, role, password and TLS.

        Args:
            environ: The environment, `os.environ` if not given.

        Raises:
            SettingsError: `PGSERVICE` is set, which cannot be pinned.
        """
        _refuse_service(environ)
        return {
            "database": self.database,
            "direct_tls": False,
            "target_session_attrs": "any",
            "server_settings": {"application_name": self.application_name, **self.options},
        }


def _refuse_service(environ: Mapping[str, str] | None) -> None:
    if "PGSERVICE" in (os.environ if environ is None else environ):
        raise SettingsError(
            [
                Problem(
                    "PGSERVICE",
                    "environment variable PGSERVICE",
                    "connection parameters would be read from this service, behind the settings",
                    "unset PGSERVICE for this program, and put what the service says into "
                    "azpgauth's own settings",
                )
            ]
        )
