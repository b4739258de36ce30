"""Secrets among the settings: no error, dump or pickle of ours has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, SecretStr
from pydantic_core import PydanticCustomError

from azpgauth.errors import Problem, SettingsError

__all__ = ["SECRETS", "SecretText", "Unshown", "sealed"]

SECRETS: frozenset[str] = frozenset({"password", "client_secret", "certificate_password"})
"""The fields whose values no message may show."""


class Unshown(dict[str, Any]):
    """The keyword arguments of a call, of which a traceback that shows locals shows the names.

    A secret may be among them under any name: under a mistyped one, for instance.
    """

    def __repr__(self) -> str:
        return f"<keywords {', '.join(self)}>"


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
    """Stands for what was given as a secret, and is no string."""

    def __repr__(self) -> str:
        return "**********"


def sealed(credential: Any) -> Any:
    """The credential's fields with their secrets wrapped, so that no error can show them.

    Args:
        credential: A mapping; anything else is given back as it is.
    """
    if not isinstance(credential, Mapping):
        return credential
    return {
        name: _wrapped(value) if name in SECRETS else value for name, value in credential.items()
    }


def _wrapped(value: object) -> object:
    if value is None or isinstance(value, SecretStr):
        return value
    return SecretStr(value) if isinstance(value, str) else _Hidden()


def _kept(value: SecretStr) -> SecretStr:
    if isinstance(value, (Secret, _LostSecret)):
        return value
    if not value.get_secret_value():
        raise PydanticCustomError("empty", "is empty", {"action": "give it a value, or remove it"})
    return Secret(value.get_secret_value())


SecretText = Annotated[SecretStr, AfterValidator(_kept)]
"""The type of a secret; an empty one is a mistake."""
