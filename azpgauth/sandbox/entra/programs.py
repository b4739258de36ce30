"""Answers `az`, `azd` and `pwsh`, which azure-identity runs for developers' credentials.

The programs hand their arguments over and print what is answered (see `_program`); what they are
asked for and what they print is decided here, as the real ones would.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
import shlex
import sys
import threading
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from azpgauth.sandbox.entra.answers import Answer, EntraError
from azpgauth.sandbox.entra.identity import TENANT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from azpgauth.sandbox.entra.answers import Door, Issued, Issuing, Request
    from azpgauth.sandbox.entra.identity import Identity

__all__ = ["Programs"]

_SIGNED_OUT = "signed_out"
_WRAPPER = """#!/bin/sh
export SANDBOX_PORT={port} SANDBOX_DOOR={door} SANDBOX_HEADER={header}
exec {python} -I -S {script} "$@"
"""


class Programs:
    """Answers the programs it installs.

    Args:
        authority: Issues the tokens.
        folder: Where the programs are put.
    """

    def __init__(self, authority: Issuing, folder: Path) -> None:
        self._authority = authority
        self._folder = folder
        self._header = secrets.token_hex(16)
        self._lock = threading.Lock()

    def install(self, port: int, identity: Identity | None) -> Path:
        """A folder with the programs.

        Args:
            port: Where they ask.
            identity: Who is signed in; None for whoever the authority then speaks for.
        """
        name, query = "anybody", ""
        if identity is not None:
            name, query = identity.client_id, f"?client_id={quote(identity.client_id)}"
        folder = self._folder / "programs" / name
        with self._lock:
            if folder.exists():
                return folder
            folder.mkdir(parents=True)
            for program in _PROGRAMS:
                path = folder / program
                path.touch(mode=0o700)
                path.write_text(
                    _WRAPPER.format(
                        port=port,
                        door=shlex.quote(f"/programs/{program}{query}"),
                        header=self._header,
                        python=shlex.quote(sys.executable),
                        script=shlex.quote(str(Path(__file__).with_name("_program.py"))),
                    )
                )
        return folder

    def answer(self, request: Request) -> Answer | None:
        """The answer; None if the request is for another door."""
        program = _PROGRAMS.get(request.path.removeprefix("/programs/"))
        if program is None:
            return None
        given = request.headers.get("X-SANDBOX-HEADER", "")
        if not secrets.compare_digest(given, self._header):
            return _text(403, "forbidden")
        resource, tenant = program.asked(request.body.split("\0"))
        if resource is None:
            return _text(400, f"the sandbox's {program.door} can get access tokens, and no more")
        try:
            issued = self._authority.issue(
                program.door, resource, lambda: self._who(request, tenant)
            )
        except EntraError as exc:
            signed_out = exc.error == _SIGNED_OUT
            return _text(
                exc.status, program.complaint(program.signed_out if signed_out else exc.said)
            )
        return _text(200, program.printed(issued))

    def _who(self, request: Request, tenant: str | None) -> Identity:
        identity = self._authority.known(request.query.get("client_id"))
        if self._authority.signed_out or identity is None:
            raise EntraError(401, _SIGNED_OUT, 0, "")
        if tenant not in {None, TENANT}:
            raise EntraError(400, "invalid_request", 90002, f"Tenant '{tenant}' not found.")
        return identity


Asked = tuple[str | None, str | None]


@dataclass(frozen=True)
class _Program:
    """One program's ways.

    Attributes:
        door: Its name.
        asked: From its arguments, the resource and the tenant; None where they name none.
        printed: What it prints of a token.
        complaint: How it words an error.
        signed_out: What it says if nobody is signed in.
    """

    door: Door
    asked: Callable[[Sequence[str]], Asked]
    printed: Callable[[Issued], str]
    complaint: Callable[[str], str]
    signed_out: str


def _option(arguments: Sequence[str], name: str) -> str | None:
    """The value behind an option, if it is there."""
    return dict(pairwise(arguments)).get(name)


def _az_asked(arguments: Sequence[str]) -> Asked:
    # https://learn.microsoft.com/cli/azure/account#az-account-get-access-token
    resource = _option(arguments, "--resource")
    if resource is None and (scope := _option(arguments, "--scope")):
        resource = scope.removesuffix("/.default")
    return resource, _option(arguments, "--tenant")


def _az_printed(issued: Issued) -> str:
    local = datetime.fromtimestamp(issued.expires_on)  # noqa: DTZ006 - local and naive, as az does
    return json.dumps(
        {
            "accessToken": issued.token,
            "expiresOn": f"{local:%Y-%m-%d %H:%M:%S.%f}",
            "expires_on": issued.expires_on,
            "subscription": "00000000-0000-0000-0000-000000000001",
            "tenant": TENANT,
            "tokenType": "Bearer",
        },
        indent=2,
    )


def _azd_asked(arguments: Sequence[str]) -> Asked:
    # https://learn.microsoft.com/azure/developer/azure-developer-cli/reference#azd-auth-token
    scope = _option(arguments, "--scope")
    resource = scope.removesuffix("/.default") if scope else None
    return resource, _option(arguments, "--tenant-id")


def _azd_printed(issued: Issued) -> str:
    # In UTC, as azd does; azure-identity takes it for local time.
    utc = datetime.fromtimestamp(issued.expires_on, timezone.utc)
    return json.dumps({"token": issued.token, "expiresOn": f"{utc:%Y-%m-%dT%H:%M:%SZ}"})


def _pwsh_asked(arguments: Sequence[str]) -> Asked:
    try:
        encoded = _option(arguments, "-EncodedCommand") or ""
        script = base64.b64decode(encoded, validate=True).decode("utf-16-le")
    except (binascii.Error, UnicodeDecodeError):
        return None, None
    resource = re.search(r"'ResourceUrl' = '([^']+)'", script)
    tenant = re.search(r"\$tenantId = '([^']+)'", script)
    return resource and resource[1], tenant and tenant[1]


_PROGRAMS = {
    "az": _Program(
        "az",
        _az_asked,
        _az_printed,
        "ERROR: {}".format,
        "Please run 'az login' to setup account.",
    ),
    "azd": _Program(
        "azd",
        _azd_asked,
        _azd_printed,
        lambda said: json.dumps({"error": said}),
        "not logged in, run `azd auth login` to login",
    ),
    "pwsh": _Program(
        "pwsh",
        _pwsh_asked,
        lambda issued: f"\nazsdk%{issued.token}%{issued.expires_on}\n",
        "Get-AzAccessToken: {}".format,
        "Run Connect-AzAccount to login.",
    ),
}


def _text(status: int, text: str) -> Answer:
    return Answer(status, text + "\n", content_type="text/plain; charset=utf-8")
