"""Keeps secrets among the settings out of errors, dumps and pickles."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, time
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, SecretStr, WrapValidator
from pydantic_core import PydanticCustomError

from azpgauth.errors import Problem, SettingsError
from azpgauth.runtime.redacted import MASK, holds_secret, masked

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

__all__ = ["SECRETS", "SecretText", "hidden", "presentable", "sealed", "sealed_values"]

SECRETS: frozenset[str] = frozenset({"password", "client_secret", "certificate_password"})
"""The credential's fields whose values no message may show."""


class Secret(SecretStr):
    """A secret that stays in this process: no pickle has it."""

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, _: object) -> Secret:
        return self

    def __reduce__(self) -> tuple[type[_LostSecret], tuple[()]]:
        return _LostSecret, ()


class _LostSecret(SecretStr):
    """What a pickle has in its place."""

    def __init__(self) -> None:
        super().__init__("")

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def get_secret_value(self) -> str:
        raise SettingsError(
            [
                Problem(
                    "credential",
                    "settings that were pickled",
                    "have no secret any more: pickles are not for secrets",
                    "call load_settings() in this process, too",
                )
            ]
        )


class _Hidden:
    """Stands for what may be a secret, and is not where one belongs."""

    def __repr__(self) -> str:
        return MASK


def sealed(credential: Any, known: AbstractSet[str]) -> Any:
    """The credential's fields with their secrets wrapped, so that no error can show them.

    Args:
        credential: A mapping or a model. What else it is, is hidden.
        known: The fields that there are; what stands under another name may be a secret.
    """
    if isinstance(credential, BaseModel):
        return credential
    if not isinstance(credential, Mapping):
        return _Hidden()
    return {
        name: _wrapped(value) if name in SECRETS else value
        for name, value in hidden(credential, known).items()
    }


def hidden(fields: Mapping[str, Any], known: AbstractSet[str]) -> dict[str, Any]:
    """These fields, without the values of those that there are not."""
    return {name: value if name in known else _Hidden() for name, value in fields.items()}


def sealed_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values that nobody checks, with those that stand where secrets do wrapped."""
    return {
        name: Secret(value)
        if name in SECRETS and isinstance(value, str)
        else sealed_values(value)
        if isinstance(value, Mapping)
        else value
        for name, value in values.items()
    }


def _wrapped(value: object) -> object:
    if value is None or isinstance(value, SecretStr):
        return value
    return SecretStr(value) if isinstance(value, str) else _Hidden()


def _secret(value: Any, validated: Callable[[Any], SecretStr]) -> SecretStr:
    # What is wrapped already would be refused where the rest comes from JSON.
    secret = value if isinstance(value, SecretStr) else validated(value)
    if isinstance(secret, (Secret, _LostSecret)):
        return secret
    text = secret.get_secret_value().strip()  # secrets made with `echo` end with a line break
    if not text:
        raise PydanticCustomError("empty", "is empty", {"action": "give it a value, or remove it"})
    return Secret(text)


SecretText = Annotated[SecretStr, WrapValidator(_secret)]
"""The type of a secret; an empty one is a mistake."""


def presentable(section: str, name: str, value: Any) -> Any:
    """A value as reports may show it.

    Args:
        section: Its section.
        name: Its field.
        value: The value, as a source has it.
    """
    if name in SECRETS:
        return None if value is None else MASK
    if isinstance(value, str):
        return _presentable_text(section, value)
    if isinstance(value, PurePath):
        return value if masked(str(value)) == str(value) else masked(str(value))
    if isinstance(value, (list, tuple)):
        kind = list if isinstance(value, list) else tuple
        return kind(presentable(section, name, each) for each in value)
    if isinstance(value, Mapping):
        return {
            masked(str(key)): MASK if holds_secret(f"{key}={each}") else presentable("", "", each)
            for key, each in value.items()
        }
    plain = value is None or isinstance(value, (bool, int, float, date, time))
    return value if plain else MASK  # what else there is may show a secret in its repr


def _presentable_text(section: str, text: str) -> str:
    if section != "server":
        return masked(text)
    # Here, whatever stands before an @ is a user, who goes with a password, and whatever stands
    # behind a sign of equality or a question mark is a part of a connection string.
    shown = masked(f"{MASK}:{text}" if "@" in text else text).partition("?")[0]
    name, sign, _ = shown.partition("=")
    return f"{name}={MASK}" if sign else shown or MASK
