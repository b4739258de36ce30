"""Secrets among the settings: no error, dump or pickle of ours has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, SecretStr, WrapValidator
from pydantic_core import PydanticCustomError

from azpgauth.errors import Problem, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

__all__ = ["MASK", "SECRETS", "SecretText", "Unshown", "hidden", "presentable", "sealed"]

SECRETS: frozenset[str] = frozenset({"password", "client_secret", "certificate_password"})
"""The credential's fields whose values no message may show."""

MASK = "**********"


class Unshown(dict[str, Any]):
    """The keyword arguments of a call, of which a traceback that shows locals shows the names.

    A secret may be among them under any name: under a mistyped one, for instance.
    """

    def __repr__(self) -> str:
        return f"<keywords {', '.join(map(str, self))}>"


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


def _wrapped(value: object) -> object:
    if value is None or isinstance(value, SecretStr):
        return value
    return SecretStr(value) if isinstance(value, str) else _Hidden()


def _secret(value: Any, validated: Callable[[Any], SecretStr]) -> SecretStr:
    # What is wrapped already would be refused where the rest comes from JSON.
    secret = value if isinstance(value, SecretStr) else validated(value)
    if isinstance(secret, (Secret, _LostSecret)):
        return secret
    if not secret.get_secret_value():
        raise PydanticCustomError("empty", "is empty", {"action": "give it a value, or remove it"})
    return Secret(secret.get_secret_value())


SecretText = Annotated[SecretStr, WrapValidator(_secret)]
"""The type of a secret; an empty one is a mistake."""


def presentable(section: str, name: str, value: Any) -> Any:
    """A value as reports may show it.

    Args:
        section: Its section.
        name: Its field.
        value: The value, as a source has it.
    """
    if value is None:
        return None
    if section == "credential" and name in SECRETS:
        return MASK
    if isinstance(value, str):
        if "-----BEGIN" in value:  # a key or a certificate where its path belongs
            return f"-----BEGIN {MASK}"
        if section == "server" and "@" in value:  # a URL with a password where a name belongs
            return f"{MASK}@{value.rpartition('@')[2].partition('?')[0]}"
        if section == "server" and "?" in value:
            return value.partition("?")[0]
    return value
