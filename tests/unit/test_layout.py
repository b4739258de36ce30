"""The arrows between the modules, what an import loads, and which names are public."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import azpgauth

PACKAGE = Path(azpgauth.__file__).parent

DRIVERS = {"psycopg3", "psycopg2", "sqlalchemy", "asyncpg"}
BY_ALL = {"errors", "importing", "printable", "redacted"}
ALLOWED = {
    "__init__": {"errors", "factory", "info", "opening", "settings"},
    "__main__": {"cli"},
    "printable": set(),
    "errors": {"printable"},
    "importing": set(),
    "redacted": set(),
    "clouds": set(),
    "token": set(),
    "schedule": {"token"},
    "role": set(),
    "native": set(),
    "diagnosis": set(),
    "testing": set(),
    "tls": {"clouds"},
    "clock": set(),
    "refresher": {"clock"},
    "waiting": set(),
    "flight": {"schedule", "token", "waiting"},
    "fetching": {"clock", "flight", "role", "schedule", "token"},
    "tokens": {"clock", "fetching", "flight", "refresher", "schedule", "token", "waiting"},
    "passed": {"role", "token", "tokens"},
    "plan": {"tls"},
    "login": {"flight", "token", "tokens", "role"},
    "signin": {"login", "tls"},
    "dropin": {"clouds", "login", "passed", "tls"},
    "settings": {"clouds", "redacted", "tls"},
    "credentials": {"clouds", "fetching", "passed", "token", "tokens", "settings"},
    "opening": {"plan", "login", "diagnosis", *DRIVERS},
    "info": {"login", "opening"},
    "prepare": {
        *("opening", "plan", "login", "redacted", "tls", "clouds", "credentials", "passed"),
        "settings",
    },
    "factory": {
        "info",
        "opening",
        "prepare",
        "redacted",
        "settings",
        "psycopg2",
    },  # psycopg2: types
    "sandbox": {"credentials"},
    "cli": {
        *("__init__", "clouds", "diagnosis", "login", "opening", "plan", "prepare", "role"),
        *("sandbox", "settings", "tls"),
    },
    **{
        driver: {"psycopg2_pool", "plan", "login", "signin", "native", "dropin", "tls"}
        for driver in DRIVERS
    },
    "psycopg2_pool": {"plan", "signin"},
}
THIRD_PARTY = {
    "azure": {"credentials", "prepare"},  # prepare: for types only
    "psycopg": {"psycopg3", "sqlalchemy", "factory"},  # factory: for types only, as below
    "psycopg_pool": {"psycopg3", "factory"},
    "psycopg2": {"psycopg2", "psycopg2_pool", "sqlalchemy", "factory"},
    "sqlalchemy": {"sqlalchemy", "factory"},
    "asyncpg": {"asyncpg", "sqlalchemy", "factory"},
    "pydantic": {"settings"},
    "click": {"cli"},
    "rich": {"cli"},
    "cryptography": {"sandbox"},
    "jwt": {"sandbox"},
}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module == "azpgauth":
                yield from (f"azpgauth.{name.name}" for name in node.names)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.name))
def test_arrows_point_down(path):
    part = part_of(path)
    for module in imports(path):
        root, _, rest = module.partition(".")
        if root == "azpgauth" and rest:
            other = rest.split(".")[0]
            if (PACKAGE / f"{other}.py").exists() or (PACKAGE / other).is_dir():
                assert other in ALLOWED[part] | {part, *BY_ALL}, f"{part} imports {other}"
        elif root in THIRD_PARTY:
            assert part in THIRD_PARTY[root], f"{part} imports {root}"


def test_every_module_has_its_place():
    parts = {part_of(path) for path in PACKAGE.rglob("*.py")}
    assert parts == set(ALLOWED)


def test_importing_loads_nothing_heavy():
    program = "import sys, azpgauth; print(*sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    loaded = {name.split(".")[0] for name in out.stdout.split()}
    assert "azpgauth" in loaded
    heavy = {"psycopg", "psycopg2", "sqlalchemy", "asyncpg", "azure", "msal", "pydantic", "asyncio"}
    assert not loaded & heavy


def test_settings_load_without_azure():
    program = (
        "import sys; from azpgauth import load_settings, Settings;"
        "load_settings(server={'host': 'h'}, database={'name': 'd'}); print(*sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    assert not {"azure", "psycopg"} & {name.split(".")[0] for name in out.stdout.split()}


def test_exported_names():
    assert set(azpgauth.__all__) == {
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
    }
    for name in azpgauth.__all__:
        assert getattr(azpgauth, name) is not None
    assert set(azpgauth.__all__) <= set(dir(azpgauth))
    with pytest.raises(AttributeError, match="no attribute 'connnect'"):
        azpgauth.connnect  # noqa: B018


def test_modules_stay_one_idea():
    long = {
        p.name: n for p in PACKAGE.rglob("*.py") if (n := len(p.read_text().splitlines())) > 480
    }
    assert not long
