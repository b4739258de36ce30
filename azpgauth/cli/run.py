"""`azpgauth run`: any program that speaks libpq, signed in."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any

import click

from azpgauth.cli.options import given, settings_options
from azpgauth.cli.process import run_program

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from azpgauth.login import Grant
    from azpgauth.plan import ConnectPlan
    from azpgauth.settings import Explanation

__all__ = ["environment_for", "run", "without_secrets"]


@click.command(context_settings={"allow_interspersed_args": False})
@settings_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(command: tuple[str, ...], **keywords: Any) -> None:
    """Run COMMAND with the variables by which libpq's programs sign in, and return its status.

    The token is in its environment and nowhere else; it is good for connections that COMMAND makes
    until the token expires. The variables from which azpgauth takes secrets (a password, a client
    secret, a URL with a password) are not handed on.

    Example: azpgauth run -- psql -c 'select current_user'
    """
    from azpgauth.prepare import login_of, plan_of
    from azpgauth.settings import explain, load_settings

    settings = load_settings(**given(keywords))
    environ = without_secrets(os.environ, _taken(explain(settings)))
    login = login_of(settings, None)
    login.prefetch()
    plan = plan_of(settings)
    sys.exit(run_program(command, environment_for(plan, login.grant(), environ)))


_VARIABLES = {
    "host": "PGHOST",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "application_name": "PGAPPNAME",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "gssencmode": "PGGSSENCMODE",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "passfile": "PGPASSFILE",  # none: where no password is sent, none is to be found either
}
"""libpq's variables by its keywords: https://www.postgresql.org/docs/current/libpq-envars.html"""


def environment_for(plan: ConnectPlan, grant: Grant, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program that signs in with libpq. Pure.

    Args:
        plan: Where it connects.
        grant: As whom.
        environ: The environment that it has besides; what else of it libpq would read is left out.
    """
    kept = {name: value for name, value in environ.items() if not _of_libpq(name)}
    keywords = plan.libpq(0, kept)
    found = {name: str(keywords[keyword]) for keyword, name in _VARIABLES.items()}
    found["PGUSER"] = grant.role
    if grant.password is not None:
        found["PGPASSWORD"] = grant.password
    found["PGSSLCERTMODE"] = "disable"  # no certificate of a client's own is offered
    return {**kept, **found}


_SECRET_SETTINGS = (
    "_CREDENTIAL_PASSWORD",
    "_CREDENTIAL_CLIENT_SECRET",
    "_CREDENTIAL_CERTIFICATE_PASSWORD",
)
_SECRET_OF_A_FAMILY = re.compile(
    r"(AZURE_POSTGRES(QL)?_(\w+_)?|POSTGRES(QL)?_|PG_?|DATABASE_|DB_?)"
    r"(PASSWORD|PASSWD|PASS|PWD|CLIENT_?SECRET)"
)
_URL_WITH_PASSWORD = re.compile(
    r"(jdbc:)?(postgres|postgis|pgsql|timescale)[\w+.-]*://([^/?#]*:[^/?#]*@|.*[?&](password|pwd)=.)"
)
_ANY_URL_WITH_PASSWORD = re.compile(r"[a-z][\w+.-]*://[^/?#]*:[^/?#]*@")
_PASSWORD_PAIR = re.compile(r"(^|[\s;])(password|pwd)\s*=\s*[^\s;]")
_HOST_PAIR = re.compile(r"(^|[\s;])(host|hostaddr|server|service|dbname|database|user|user id)\s*=")
_OTHER_DATABASES = ("SQLCONNSTR_", "SQLAZURECONNSTR_", "MYSQLCONNSTR_")


def _taken(told: Explanation) -> set[str]:
    """The variables from which these settings took a secret, whatever their names are."""
    from azpgauth.settings.secret import SECRETS

    origins = [
        str(origin)
        for each in told.settings
        if each.setting.rpartition(".")[2] in SECRETS
        for origin in (each.origin, *(origin for _, origin in each.shadowed))
    ]
    found = [re.match(r"environment variable (\w+)", origin) for origin in origins]
    return {match[1] for match in found if match}


def without_secrets(environ: Mapping[str, str], taken: Container[str] = ()) -> dict[str, str]:
    """The environment without what a setting takes a secret from, or could. Pure.

    What azure-identity (AZURE_CLIENT_SECRET) or the platform (IDENTITY_HEADER) reads stays.

    Args:
        environ: The environment.
        taken: Variables from which a setting did take one.
    """
    return {
        name: value
        for name, value in environ.items()
        if name not in taken and not _has_secret(name.upper(), value)
    }


def _has_secret(name: str, value: str) -> bool:
    if name.startswith("AZPG_"):
        # Also one that there is not, such as AZPG_PASSWORD under another prefix.
        return bool(re.search(r"PASSWORD|SECRET(?!S_DIR)", name)) or _connects(value)
    if name.endswith(_SECRET_SETTINGS) or _SECRET_OF_A_FAMILY.fullmatch(name):
        return True
    if name.startswith(_OTHER_DATABASES):
        return False
    if name.endswith("DATABASE_URL") and _ANY_URL_WITH_PASSWORD.match(value.strip().lower()):
        return True
    return _connects(value)


def _connects(value: str) -> bool:
    """Whether this is a URL or connection string of PostgreSQL that has a password."""
    text = value.strip().strip("\"'").lower()
    if _URL_WITH_PASSWORD.match(text):
        return True
    return bool(_PASSWORD_PAIR.search(text) and _HOST_PAIR.search(text))


def _of_libpq(name: str) -> bool:
    """Whether libpq reads it about the connection; PGDATA, PSQLRC and their like stay."""
    return name in {*_VARIABLES.values(), "PGUSER", "PGPASSWORD", "PGPASSFILE", "PGOPTIONS"} or (
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
