"""azpgauth: settings in, a signed-in connection pool for Azure Database for PostgreSQL out.

>>> from azpgauth import connect_from_env
>>> pool = connect_from_env()  # doctest: +SKIP

Names are loaded when they are first used: importing this package costs next to nothing.
"""

from __future__ import annotations

from azpgauth.runtime.importing import load

TYPE_CHECKING = False  # type checkers know this name; typing itself would take half the import
if TYPE_CHECKING:
    from typing import Any

    from azpgauth.errors import (
        AzpgauthError,
        ConnectError,
        MissingDriverError,
        Problem,
        RoleError,
        SettingsError,
        TokenError,
    )
    from azpgauth.opening.closing import closing
    from azpgauth.opening.connect import (
        aconnect,
        aconnect_from_env,
        aconnection_from_env,
        connect,
        connect_from_env,
        connection_from_env,
    )
    from azpgauth.opening.info import PoolTokenInfo, token_info
    from azpgauth.settings import Explained, Explanation, Settings, explain, load_settings

__version__ = "0.1.0"

__all__ = [
    "AzpgauthError",
    "ConnectError",
    "Explained",
    "Explanation",
    "MissingDriverError",
    "PoolTokenInfo",
    "Problem",
    "RoleError",
    "Settings",
    "SettingsError",
    "TokenError",
    "__version__",
    "aconnect",
    "aconnect_from_env",
    "aconnection_from_env",
    "closing",
    "connect",
    "connect_from_env",
    "connection_from_env",
    "explain",
    "load_settings",
    "token_info",
]

_HOMES = {
    "azpgauth.errors": (
        "AzpgauthError",
        "ConnectError",
        "MissingDriverError",
        "Problem",
        "RoleError",
        "SettingsError",
        "TokenError",
    ),
    "azpgauth.opening.connect": (
        "aconnect",
        "aconnect_from_env",
        "aconnection_from_env",
        "connect",
        "connect_from_env",
        "connection_from_env",
    ),
    "azpgauth.opening.info": ("PoolTokenInfo", "token_info"),
    "azpgauth.opening.closing": ("closing",),
    "azpgauth.settings": ("Explained", "Explanation", "Settings", "explain", "load_settings"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(load(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
