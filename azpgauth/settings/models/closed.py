"""Keeps inputs out of pydantic's errors and frames: what every model of ours is made of.

pydantic keeps what it was given in its errors: their pickles and `errors()` have it, whatever
`hide_input_in_errors` says, and its own frames hold it too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping  # noqa: TC003 - pydantic looks at them
from typing import TYPE_CHECKING, Any, cast, get_args

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_core.core_schema import ErrorType

from azpgauth.runtime.redacted import MASK, Redacted, masked, scrubbed
from azpgauth.settings.models.secret import presentable, sealed_values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

__all__ = ["FROZEN", "Closed", "without_inputs"]

FROZEN = ConfigDict(
    frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=False
)

_KNOWN = frozenset(get_args(ErrorType))


def without_inputs(exc: ValidationError) -> ValidationError:
    """The same error, with masks where it has what was put in.

    Args:
        exc: The error; what it says of places and values that look like secrets is masked too.
    """
    details = [
        InitErrorDetails(
            type=_type(error),
            loc=tuple(masked(part) if isinstance(part, str) else part for part in error["loc"]),
            input=MASK,
        )
        | ({"ctx": _context(error)} if error["type"] in _KNOWN and "ctx" in error else {})
        for error in exc.errors(include_url=False, include_input=False)
    ]
    return ValidationError.from_exception_data(exc.title, details, hide_input=True)


def _type(error: Any) -> Any:
    if error["type"] in _KNOWN:
        return error["type"]
    # Its text is finished: no braces of it are to be filled in again.
    return PydanticCustomError(error["type"], scrubbed(error["msg"]), _context(error))


def _context(error: Any) -> dict[str, Any]:
    return {
        name: masked(value) if isinstance(value, str) else value
        for name, value in error.get("ctx", {}).items()
    }


def _failure(make: Callable[[], Any]) -> tuple[Any, ValidationError | None]:
    """What a function makes, or the error that it ends with, without the frames behind it."""
    try:
        return make(), None
    except ValidationError as exc:
        return None, without_inputs(exc)


class Closed(BaseModel):
    """A frozen model. What it was given is neither in its errors nor in their frames."""

    model_config = FROZEN

    def __init__(self, /, **data: Any) -> None:
        given = Redacted(data)
        del data  # a traceback shows locals
        make = super().__init__
        _, error = _failure(lambda: make(**given.held))
        if error is not None:
            raise error

    # As it is with pydantic's own: models within others are then made without it.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @model_validator(mode="wrap")
    @classmethod
    def _without_inputs(cls, data: Any, validated: Callable[[Any], Any]) -> Any:
        made, error = _failure(lambda: validated(data))
        if error is not None:
            raise error
        return made

    if not TYPE_CHECKING:  # type checkers have their own notion of these

        def __setattr__(self, name: str, value: Any) -> None:
            given = Redacted(value)
            del value
            assign = super().__setattr__
            _, error = _failure(lambda: assign(name, given.held))
            if error is not None:
                raise error

        @classmethod
        def model_construct(cls, _fields_set: set[str] | None = None, **values: Any) -> Self:
            """As pydantic's, without validation; but secrets are wrapped."""
            return super().model_construct(_fields_set, **sealed_values(values))

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        # What was made without validation may hold anything.
        for name, value in super().__repr_args__():
            closed = isinstance(value, (BaseModel, SecretStr))
            yield name, value if closed else presentable("", name or "", value)

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """As pydantic's."""
        given = Redacted(obj)
        del obj
        return cls._validated(super().model_validate, given, options)

    @classmethod
    def model_validate_json(cls, json_data: Any, **options: Any) -> Self:
        """As pydantic's."""
        given = Redacted(json_data)
        del json_data
        return cls._validated(super().model_validate_json, given, options)

    @classmethod
    def model_validate_strings(cls, obj: Any, **options: Any) -> Self:
        """As pydantic's."""
        given = Redacted(obj)
        del obj
        return cls._validated(super().model_validate_strings, given, options)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, but what is updated is validated, and the copy as a whole."""
        copied = super().model_copy(deep=deep)
        if not update:
            return copied
        there = {k: v for k, v in vars(copied).items() if k in copied.model_fields_set}
        given = Redacted({**there, **update})
        del update
        return self._validated(super().model_validate, given, {})

    @classmethod
    def _validated(
        cls, validate: Callable[..., Self], given: Redacted[Any], options: Mapping[str, Any]
    ) -> Self:
        made, error = _failure(lambda: validate(given.held, **options))
        if error is not None:
            raise error
        return cast("Self", made)
