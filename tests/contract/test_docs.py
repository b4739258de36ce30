"""The README's programs run as they stand there."""

import re
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_readme(box, number, capsys, monkeypatch):
    names = {}
    # What the example of the drop-in classes needs besides its credential.
    monkeypatch.setenv("PGHOST", "localhost")
    monkeypatch.setenv("PGPORT", str(box.gateway.port))
    monkeypatch.setenv("PGDATABASE", "app")
    monkeypatch.setenv("PGSSLROOTCERT", box.environment["AZPG_SERVER_SSLROOTCERT"])
    exec(compile(BLOCKS[number], f"README block {number}", "exec"), names)  # noqa: S102 - our own
    if "test_orders" in names:
        names["test_orders"](box)
    if "pool" in names:
        names["pool"].close()
    assert box.gateway.passwords >= 1
