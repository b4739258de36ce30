"""Runs `azpgauth run`: any program that speaks libpq, signed in."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any

import click

from azpgauth.cli.options import given, settings_options
from azpgauth.cli.process import run_program
from azpgauth.cli.withheld import is_withheld
from azpgauth.runtime.waiting import BLOCKING
from azpgauth.runtime.waiting import run as waited_for
from azpgauth.server.tls import NO_ROOTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from azpgauth.identity.login import Grant
    from azpgauth.server.plan import ConnectPlan
    from azpgauth.settings import Explanation

__all__ = ["environment_for", "run"]


@click.command(context_settings={"allow_interspersed_args": False})
@settings_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(command: tuple[str, ...], **keywords: Any) -> None:
    """Run COMMAND with the variables by which libpq's programs sign in, and return its status.

    The token is in its environment and nowhere else; it is good for connections that COMMAND makes
    until the token expires.

    COMMAND gets no variable with a secret of the settings in it: PREFIX_CREDENTIAL_PASSWORD,
    _CLIENT_SECRET and _CERTIFICATE_PASSWORD under any prefix, POSTGRES_PASSWORD and its like, a
    URL or connection string with a password. What Azure's own libraries read, it keeps.

    Example: azpgauth run -- psql -c 'select current_user'
    """
    from azpgauth.opening.prepare import login_of, plan_of
    from azpgauth.settings import explain, load_settings

    settings = load_settings(**given(keywords))
    taken = _taken(explain(settings))
    environ = {name: value for name, value in os.environ.items() if name not in taken}
    login = login_of(settings, None)
    login.prefetch()
    plan = plan_of(settings)
    sys.exit(
        run_program(command, environment_for(plan, waited_for(login.grant(BLOCKING)), environ))
    )


def _taken(explanation: Explanation) -> set[str]:
    """The variables from which these settings took a secret, whatever their names are."""
    from azpgauth.settings.models.secret import SECRETS

    origins = [
        str(origin)
        for each in explanation.settings
        if each.setting.rpartition(".")[2] in SECRETS
        for origin in (each.origin, *(origin for _, origin in each.shadowed))
    ]
    found = [re.match(r"environment variable (\w+)", origin) for origin in origins]
    return {match[1] for match in found if match}


_VARIABLES = {
    "dbname": "PGDATABASE",
    "application_name": "PGAPPNAME",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "gssencmode": "PGGSSENCMODE",
}
"""libpq's variables by its keywords: https://www.postgresql.org/docs/current/libpq-envars.html"""

_OTHERS = ("PGPORT", "PGTARGETSESSIONATTRS", "PGUSER", "PGPASSWORD", "PGPASSFILE", "PGOPTIONS")


def environment_for(plan: ConnectPlan, grant: Grant, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program that signs in with libpq. Pure.

    Args:
        plan: Where it connects.
        grant: As whom.
        environ: The environment that it has besides; what else of it libpq would read is left out,
            and what holds a secret of settings.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if not _of_libpq(name) and not is_withheld(name, value)
    }
    keywords = plan.libpq(0, kept)
    found = {name: str(keywords[keyword]) for keyword, name in _VARIABLES.items()}
    found |= _places(plan)
    found["PGUSER"] = grant.role
    if grant.password is not None:
        found["PGPASSWORD"] = grant.password
    else:
        found["PGPASSFILE"] = NO_ROOTS  # none is sent: not one from a file either
    found["PGSSLCERTMODE"] = "disable"  # no certificate of a client's own is offered
    return {**kept, **found}


def _places(plan: ConnectPlan) -> dict[str, str]:
    servers = plan.servers
    found = {
        "PGHOST": ",".join(server.host for server in servers),
        "PGPORT": ",".join(str(server.port) for server in servers),
        "PGTARGETSESSIONATTRS": plan.target or "any",  # libpq cannot prefer a primary
        "PGLOADBALANCEHOSTS": "random" if plan.load_balance else "disable",
    }
    if any(server.address for server in servers):
        found["PGHOSTADDR"] = ",".join(server.address or "" for server in servers)
    return found


def _of_libpq(name: str) -> bool:
    """Whether libpq reads it about the connection; PGDATA, PSQLRC and their like stay."""
    return name in {*_VARIABLES.values(), *_OTHERS} or (
        name.startswith(
            (
                "PGSSL",
                "PGHOST",
                "PGSERVICE",
                "PGREQUIRE",
                "PGCHANNEL",
                "PGGSS",
                "PGKRB",
                "PGLOADBALANCE",
                "PGMIN",
                "PGMAX",
            )
        )
    )
