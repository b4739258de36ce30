"""Each example runs as it stands, warnings being errors."""

import subprocess
import sys
from pathlib import Path

import pytest

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
