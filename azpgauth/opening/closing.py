"""Closes whatever `connect` and the like returned, in its driver's way."""

from __future__ import annotations

from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["closing"]

T = TypeVar("T")


class closing(Generic[T]):  # noqa: N801 - as contextlib.closing
    """Close a pool, engine or connection at the end of a block, in its driver's way.

    Args:
        pool: What `connect` and the like returned; an async one wants `async with`.

    Example:
        >>> with closing(connect_from_env(driver="sqlalchemy")) as engine:  # doctest: +SKIP
        ...     engine.connect()
    """

    def __init__(self, pool: T) -> None:
        self._pool = pool
        names = ("dispose", "closeall", "close")
        self._close: Callable[[], Any] | None = next(
            (getattr(pool, name) for name in names if hasattr(pool, name)), None
        )
        if self._close is None:
            raise TypeError(f"{type(pool).__name__} has none of {', '.join(names)}")
        self._awaited = iscoroutinefunction(self._close)

    def __enter__(self) -> T:
        if self._awaited:
            raise TypeError(f"{type(self._pool).__name__} is async: use async with")
        return self._pool

    def __exit__(self, *_: object) -> None:
        assert self._close is not None  # noqa: S101 - see __init__
        self._close()

    async def __aenter__(self) -> T:
        return self._pool

    async def __aexit__(self, *_: object) -> None:
        assert self._close is not None  # noqa: S101 - see __init__
        ended = self._close()
        if self._awaited:
            await ended
