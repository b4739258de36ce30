"""No public name of an earlier version is lost, and the drop-ins need their own driver alone."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from azpgauth.opening import connect
from azpgauth.runtime.drivers import ASYNC_DRIVERS, DRIVERS

OF_0_1_0 = {
    "azpgauth": (
        "AzpgauthError ConnectError Explained Explanation MissingDriverError PoolTokenInfo Problem "
        "RoleError Settings SettingsError TokenError __version__ aconnect aconnect_from_env "
        "aconnection_from_env closing connect connect_from_env connection_from_env explain "
        "load_settings token_info"
    ),
    "azpgauth.errors": (
        "AzpgauthError AzurePgEntraError ConnectError CredentialValueError "
        "EntraConnectionValueError MissingDriverError Problem RoleError ScopePermissionError "
        "SettingsError TokenDecodeError TokenError UsernameExtractionError"
    ),
    "azpgauth.testing": "FakeCredential FakeToken ManualClock fake_token",
    "azpgauth.sandbox": "Identity Sandbox",
    "azpgauth.psycopg3": "AsyncEntraConnection EntraConnection",
    "azpgauth.psycopg2": "ConnectionPool EntraConnection",
    "azpgauth.sqlalchemy": (
        "create_asyncpg_engine enable_entra_authentication enable_entra_authentication_async"
    ),
}


@pytest.mark.parametrize("module", OF_0_1_0)
def test_no_public_name_is_lost(module):
    found = import_module(module)
    names = set(OF_0_1_0[module].split())
    assert names <= set(found.__all__)
    assert all(getattr(found, name) is not None for name in names)


OTHERS = {"psycopg", "psycopg_pool", "psycopg2", "sqlalchemy", "asyncpg"}


@pytest.mark.parametrize(
    ("module", "needed"),
    [
        ("azpgauth.psycopg3", {"psycopg"}),
        ("azpgauth.psycopg2", {"psycopg2"}),
        ("azpgauth.sqlalchemy", {"sqlalchemy"}),
    ],
)
def test_a_drop_in_needs_its_own_driver_alone(module, needed):
    program = (
        "import sys\n"
        f"for name in {sorted(OTHERS - needed)}: sys.modules[name] = None\n"
        f"import {module}"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("azpgauth.psycopg3", "psycopg"),
        ("azpgauth.psycopg2", "psycopg2"),
        ("azpgauth.sqlalchemy", "sqlalchemy"),
    ],
)
def test_a_missing_driver_is_told_with_the_command_that_installs_it(module, extra):
    program = (
        "import sys\n"
        f"sys.modules[{extra!r}] = None\n"
        "from azpgauth import MissingDriverError\n"
        f"try:\n    import {module}\nexcept MissingDriverError as exc:\n    print(exc)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert f"pip install 'azpgauth[{extra}]'" in run.stdout


def overloaded():
    """For each function with overloads, the drivers that they name."""
    found = {}
    for node in ast.parse(Path(connect.__file__).read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.decorator_list:
            literals = [each for each in ast.walk(node.args) if isinstance(each, ast.Constant)]
            names = [each.value for each in literals if isinstance(each.value, str)]
            found.setdefault(node.name, []).extend(names)
    return found


def test_each_driver_has_its_overload():
    sync = [name for name in DRIVERS if name not in ASYNC_DRIVERS]
    assert overloaded() == {
        "connect_from_env": list(DRIVERS),
        "connection_from_env": sync,
        "aconnect_from_env": list(ASYNC_DRIVERS),
        "aconnection_from_env": list(ASYNC_DRIVERS),
    }
