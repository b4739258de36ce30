"""Runs `azpgauth token`: shows who signs in, and until when; the token itself only if asked for."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import click
from rich.text import Text

from azpgauth.cli.options import given, json_option, settings_options
from azpgauth.cli.output import console
from azpgauth.runtime.printable import one_line, printable

__all__ = ["token"]

_SHOWN = ("aud", "iss", "tid", "oid", "appid", "idtyp", "upn", "preferred_username", "unique_name")
_TIMES = ("iat", "nbf", "exp")


@click.command()
@settings_options
@click.option("--raw", is_flag=True, help="Print the token alone: a secret, mind where it goes.")
@json_option
def token(raw: bool, as_json: bool, **keywords: Any) -> None:
    """Get a token, and show its claims and times, but not the token.

    Example: PGPASSWORD="$(azpgauth token --raw)" psql ...
    """
    from azpgauth.errors import TokenError
    from azpgauth.identity.claims import claims_of, role_of
    from azpgauth.identity.login import TokenLogin
    from azpgauth.opening.prepare import login_of
    from azpgauth.settings import load_settings

    settings = load_settings(**given(keywords))
    login = login_of(settings, None)
    if not isinstance(login, TokenLogin):
        raise TokenError(
            f"credential.kind {settings.credential.kind} signs in without a token",
            remedy="set credential.kind (AZPG_CREDENTIAL_KIND) to one that has tokens",
        )
    found, _ = login.source.get(login.timeout)
    if raw:
        if printable(found.value) != found.value or not found.value.isascii():
            raise TokenError("the token holds characters that no token has: it is not printed")
        click.echo(found.value)
        return
    claims = claims_of(found.value)
    document: dict[str, Any] = {
        "identity": login.source.info().identity,
        "role": settings.database.user or role_of(claims),
        "bytes": len(found.value),
        "expires": _stamp(found.expires_on),
        "renewed": _stamp(found.renew_at()),
        "claims": {
            **{name: claims[name] for name in (*_SHOWN, "xms_mirid") if name in claims},
            **{name: _stamp(claims[name]) for name in _TIMES if name in claims},
            **({"groups": len(claims["groups"])} if "groups" in claims else {}),
        },
    }
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    out = console()
    flat = {**document, **{f"claim {name}": value for name, value in document["claims"].items()}}
    del flat["claims"]
    for name, value in flat.items():
        out.print(
            Text()
            .append(f"{name:<24} ", "bold")
            .append("-" if value is None else one_line(str(value)))
        )


def _stamp(seconds: Any) -> str:
    try:
        when = dt.datetime.fromtimestamp(float(seconds), dt.timezone.utc)
    except (ValueError, TypeError, OverflowError, OSError):
        return str(seconds)
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"
