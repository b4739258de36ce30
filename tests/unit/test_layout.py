"""The arrows between the modules, what an import loads, and which names are public."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import azpgauth

PACKAGE = Path(azpgauth.__file__).parent

# What was said, where, who, how, all of it together; at the top is what users import or run.
BY_ALL = {"errors", "runtime"}
ALLOWED = {
    "runtime": set(),
    "errors": set(),
    "testing": set(),
    "server": set(),
    "settings": {"server"},
    "identity": {"settings", "server"},
    "drivers": {"identity", "server"},
    "opening": {"drivers", "identity", "settings", "server"},
    "sandbox": {"identity", "settings"},
    "cli": {"opening", "sandbox", "drivers", "identity", "settings", "server"},
    **{dropin: {"drivers", "identity"} for dropin in ("psycopg2", "psycopg3", "sqlalchemy")},
    "__init__": {"opening", "settings"},
    "__main__": {"cli"},
}
THIRD_PARTY = {
    "azure": {"identity", "opening"},  # opening: for types only, as below
    "psycopg": {"drivers", "opening", "psycopg3", "sqlalchemy"},
    "psycopg_pool": {"drivers", "opening"},
    "psycopg2": {"drivers", "opening", "psycopg2", "sqlalchemy"},
    "sqlalchemy": {"drivers", "opening", "sqlalchemy"},
    "asyncpg": {"drivers", "opening"},
    "pydantic": {"settings"},
    "click": {"cli"},
    "rich": {"cli"},
    "cryptography": {"sandbox"},
    "jwt": {"sandbox"},
}


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{name.name}" for name in node.names}
            yield from names & set(MODULES)
            yield node.module


@pytest.mark.parametrize("path", MODULES.values(), ids=MODULES)
def test_arrows_point_down(path):
    part = part_of(path)
    for module in imports(path):
        root, _, rest = module.partition(".")
        if root == "azpgauth" and rest:
            other = rest.split(".")[0]
            assert other in ALLOWED[part] | {part, *BY_ALL}, f"{part} imports {other}"
        elif root in THIRD_PARTY:
            assert part in THIRD_PARTY[root], f"{part} imports {root}"


def test_every_module_has_its_place():
    assert {part_of(path) for path in MODULES.values()} == set(ALLOWED)


def test_there_is_no_circle():
    """Imports for types alone count as well. A package itself stands for its parts' names only."""
    graph = {
        name: {other for other in imports(path) if other in MODULES and other != name}
        for name, path in MODULES.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


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
        p.name: n for p in PACKAGE.rglob("*.py") if (n := len(p.read_text().splitlines())) > 400
    }
    assert not long
