"""Each example runs as it stands, warnings being errors."""

import subprocess
import sys
from pathlib import Path

import pytest
from dotenv import dotenv_values

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
SAYS = {
    "quickstart": ["sandbox-app", "TLSv1.3", "PostgreSQL 18", "10 at once", "1 token request\n"],
    "with_psycopg": ["{'role': 'sandbox-app'}"],
    "with_psycopg_async": ["[0, 1, 4, 9, 16, 25, 36, 49, 64, 81]"],
    "with_psycopg2": ["('sandbox-app', datetime"],
    "with_sqlalchemy": ["sandbox-app"],
    "with_sqlalchemy_async": ["sandbox-app"],
    "with_asyncpg": ["sandbox-app"],
    "listen": ["order 42"],
    "moved": ["('sandbox-app',)"],
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(box, path):
    run = subprocess.run(
        [sys.executable, "-W", "error", path],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert run.returncode == 0, run.stderr
    for words in SAYS[path.stem]:
        assert words in run.stdout
    assert run.stderr == ""
    assert len(box.authority.requests) == 1


def run_in(folder):
    return subprocess.run(
        [sys.executable, "-W", "error", "app.py"],
        cwd=ROOT / "examples" / folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


@pytest.mark.parametrize(
    ("env", "says"),
    [
        (None, ["max_size = 5 ", "azpgauth.toml, [pool] max_size", "overrides azure-cli from"]),
        ("staging", ["max_size = 5 ", "overrides managed-identity from azpgauth.staging.toml"]),
        ("prod", ["max_size = 40 ", "azpgauth.prod.toml, [pool] max_size", "overrides 5 from"]),
    ],
)
def test_files_by_environment(box, monkeypatch, env, says):
    if env:
        monkeypatch.setenv("AZPG_ENV", env)
    # The client id of production is not the sandbox's.
    monkeypatch.setenv("AZPG_CREDENTIAL_KIND", "default")
    monkeypatch.setenv("AZPG_CREDENTIAL_CLIENT_ID", box.identity.client_id)
    run = run_in("layered")
    assert run.returncode == 0, run.stderr
    for words in (*says, "('sandbox-app', 'orders')", "max_lifetime = 1800"):
        assert words in run.stdout
    assert run.stderr == ""


def test_environment_variables_alone(box, monkeypatch):
    given = box.environment
    for name in given:
        if name.startswith("AZPG_") and name != "AZPG_SERVER_SSLROOTCERT":
            monkeypatch.delenv(name)
    path = ROOT / "examples/twelve_factor/service-connector.env"
    for name, value in dotenv_values(path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AZURE_POSTGRESQL_HOST", "localhost")
    monkeypatch.setenv("AZURE_POSTGRESQL_PORT", given["AZPG_SERVER_PORT"])
    monkeypatch.setenv("AZURE_POSTGRESQL_DATABASE", "app")
    monkeypatch.setenv("AZURE_POSTGRESQL_USERNAME", "sandbox-app")
    monkeypatch.setenv("AZURE_POSTGRESQL_CLIENTID", box.identity.client_id)
    run = run_in("twelve_factor")
    assert (run.returncode, run.stdout, run.stderr) == (0, "('sandbox-app', 'app')\n", "")
