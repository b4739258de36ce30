"""Names settings in sentences, in the terms of whoever reads them. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["named"]

_SETTING = re.compile(r"\{(server|database|driver|pool|credential)\.(\w+)\}")


def named(text: str, term: Callable[[str, str], str] = "{}.{}".format) -> str:
    """A sentence with the settings in it named.

    Args:
        text: The sentence, with a setting as `{section.name}`.
        term: What the reader calls a setting, by section and name.

    Example:
        >>> named("raise {pool.max_size}")
        'raise pool.max_size'
    """
    return _SETTING.sub(lambda match: term(match[1], match[2]), text)
