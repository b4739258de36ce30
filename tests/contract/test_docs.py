"""The README's programs run as they stand there."""

import re
from pathlib import Path

import pytest

from azpgauth import SettingsError, load_settings

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
    if "settings" in names:
        assert "server.host = localhost" in capsys.readouterr().out
    else:
        assert box.gateway.passwords >= 1


def test_the_report_in_the_readme_is_a_real_one(tmp_path, monkeypatch):
    (tmp_path / "azpgauth.prod.toml").write_text('[pool]\nmax_size = "lots"\n')
    for name, value in {
        "AZPG_ENV": "prod",
        "AZPG_SERVER_HOST": "h",
        "AZPG_DATABASE_NAME": "d",
        "AZPG_POOL_MAXLIFETIME": "1",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    shown = re.search(r"```text\n(.*?)```", TEXT, re.DOTALL).group(1)
    assert sorted(shown.splitlines()) == sorted(str(caught.value).splitlines())
