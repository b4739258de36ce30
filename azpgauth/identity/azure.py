"""Turns settings into a credential of azure-identity, and that into a `TokenSource`.

The only module that imports azure.identity, and only when a token is needed. One `TokenSource` per
(credential, scope) in a process, shared by all pools that are opened with equal settings.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from azpgauth.identity.credential import ask
from azpgauth.identity.credential import forget as forget_objects
from azpgauth.identity.diagnosis import no_token
from azpgauth.identity.fetching import STUCK
from azpgauth.identity.tokens import TokenSource
from azpgauth.runtime.forks import Lock, renew_in_child
from azpgauth.runtime.importing import guard
from azpgauth.runtime.printable import their_words

if TYPE_CHECKING:
    import datetime as dt

    from azure.core.credentials import TokenCredential

    from azpgauth.identity.token import Token
    from azpgauth.server.clouds import Cloud
    from azpgauth.settings.models.credential import TokenCredentialSettings

__all__ = ["build", "forget", "options_of", "person_timeout", "source_for"]

_CLASSES = {
    "default": "DefaultAzureCredential",
    "managed-identity": "ManagedIdentityCredential",
    "workload-identity": "WorkloadIdentityCredential",
    "client-secret": "ClientSecretCredential",
    "client-certificate": "CertificateCredential",
    "environment": "EnvironmentCredential",
    "azure-cli": "AzureCliCredential",
    "azure-developer-cli": "AzureDeveloperCliCredential",
    "azure-powershell": "AzurePowerShellCredential",
    "interactive-browser": "InteractiveBrowserCredential",
    "device-code": "DeviceCodeCredential",
}
"""For each kind, its class in azure.identity."""

_OURS = {"kind", "scope", "refresh"}
"""The fields that are not azure-identity's."""

_PUBLIC = "https://login.microsoftonline.com"


def source_for(settings: TokenCredentialSettings, scope: str, cloud: Cloud) -> TokenSource:
    """The process's source of tokens for these settings.

    Args:
        settings: The credential's settings.
        scope: The scope to ask for, ending in `/.default`.
        cloud: Whose authority is asked, unless the settings or AZURE_AUTHORITY_HOST name one.
    """
    key = settings, scope, cloud.authority
    with _lock:
        if key not in _sources:
            _forget_idle()
            minter = _Minter(settings, scope, cloud.authority)
            person = person_timeout(settings)
            source = TokenSource(
                minter.token,
                # A person is not asked anew because a server said no.
                mint_anew=None if person else minter.token_anew,
                refresh=settings.refresh,
                # The time-out of a person or a program speaks first.
                patience=STUCK + person + (getattr(settings, "process_timeout", None) or 0),
            )
            _sources[key] = source, minter
        return _sources[key][0]


def person_timeout(settings: TokenCredentialSettings) -> float:
    """Seconds that a person has to sign in; 0 for kinds that need none."""
    return float(getattr(settings, "timeout", 0))


def forget() -> None:
    """Forget all tokens and credentials, so that the next pool starts afresh. For tests."""
    with _lock:
        minters = [minter for _, minter in _sources.values()]
        _sources.clear()
    for minter in minters:
        minter.drop()
    forget_objects()


class _Minter:
    """A credential made from settings, remade to get past its cache, and after it failed."""

    def __init__(self, settings: TokenCredentialSettings, scope: str, authority: str) -> None:
        self._settings = settings
        self._scope = scope
        self._authority = authority
        self._credential: TokenCredential | None = None
        renew_in_child(self)

    def __repr__(self) -> str:  # the credential has none, and its attributes have the secret
        return f"<{type(self).__name__} {self._settings.kind} for {self._scope}>"

    def token(self) -> Token:
        """A token, perhaps from the credential's cache."""
        if self._credential is None:
            self._credential = build(self._settings, self._authority)
        try:
            return ask(self._credential, self._scope)
        except BaseException:
            # A certificate, or a variable, that was put right is read by a new credential only.
            if not person_timeout(self._settings):
                self.drop()
            raise

    def token_anew(self) -> Token:
        """A token of a new credential, whose cache is empty; the old one goes if it is given."""
        credential = build(self._settings, self._authority)
        try:
            token = ask(credential, self._scope)
        except BaseException:
            _close(credential)
            raise
        old, self._credential = self._credential, credential
        _close(old)
        return token

    def drop(self) -> None:
        """Let the credential go."""
        credential, self._credential = self._credential, None
        _close(credential)

    def begin_process(self) -> None:
        """After a fork: the credential's connections are the parent's."""
        self._credential = None


def _forget_idle() -> None:
    """Let go of what nobody uses, if there is much of it: a program may have many identities."""
    if len(_sources) < _MANY:
        return
    for key, (source, minter) in list(_sources.items()):
        if source.idle:
            del _sources[key]
            minter.drop()


_MANY = 64


def _close(credential: object) -> None:
    # Of the classes here, only some hold anything open; those have a close().
    with suppress(Exception):
        getattr(credential, "close", lambda: None)()


def build(settings: TokenCredentialSettings, authority: str = _PUBLIC) -> TokenCredential:
    """The credential of azure-identity that the settings name.

    Args:
        settings: The credential's settings.
        authority: The cloud's.

    Raises:
        TokenError: azure-identity finds the settings unusable.
    """
    options = options_of(settings, authority, os.environ)
    if settings.kind == "device-code":
        options["prompt_callback"] = _show_code
    try:
        with guard():
            from azure import identity

            credential: TokenCredential = getattr(identity, _CLASSES[settings.kind])(**options)
    except (ValueError, TypeError) as exc:
        # A TypeError: an option that this version of azure-identity does not have yet.
        reason = str(exc)
    else:
        return credential
    finally:
        options.clear()  # it holds secrets, and a traceback would show it
    raise no_token(f"credential.kind {settings.kind}: {their_words(reason)}")


def options_of(
    settings: TokenCredentialSettings, authority: str, environ: Any = os.environ
) -> dict[str, Any]:
    """The arguments of the kind's class; pure.

    Args:
        settings: The credential's settings.
        authority: The cloud's.
        environ: Where AZURE_AUTHORITY_HOST may be, which azure-identity reads by itself.
    """
    options: dict[str, Any] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if name in _OURS or value is None:
            continue
        if hasattr(value, "get_secret_value"):
            value = value.get_secret_value()
        elif isinstance(value, os.PathLike):
            value = os.fspath(value)
        elif isinstance(value, tuple):
            value = list(value)
        options[name] = value
    if (
        "authority" in type(settings).model_fields
        and authority != _PUBLIC
        and not environ.get("AZURE_AUTHORITY_HOST")
    ):
        options.setdefault("authority", authority)
    return _renamed(settings.kind, options)


def _renamed(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options under the names that the kind's class has for them."""
    if kind == "default" and "client_id" in options:
        client_id = options.pop("client_id")
        options |= {
            "managed_identity_client_id": client_id,
            "workload_identity_client_id": client_id,
        }
    elif kind == "client-certificate" and "certificate_password" in options:
        options["password"] = options.pop("certificate_password")
    elif kind == "managed-identity":
        config = {
            name: options.pop(name) for name in ("object_id", "resource_id") if name in options
        }
        if config:
            options["identity_config"] = config
    return options


def _show_code(uri: str, code: str, _: dt.datetime) -> None:
    # On standard error: standard output is the program's own.
    sys.stderr.write(f"To sign in, open {uri} and enter the code {code}\n")
    sys.stderr.flush()


_lock = Lock()
_sources: dict[tuple[TokenCredentialSettings, str, str], tuple[TokenSource, _Minter]] = {}
