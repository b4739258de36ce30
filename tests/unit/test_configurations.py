"""Configurations as people have them, each from a public place that is named beside it.

What must come out was written down, from the contract, before any of them was run.
"""

import json
from pathlib import Path

import pytest

from azpgauth import SettingsError
from azpgauth.settings import explain, load_settings
from azpgauth.settings.models.secret import SECRETS

ALL = json.loads(Path(__file__).with_name("configurations.json").read_text(encoding="utf-8"))


def name_of(case):
    return f"{ALL.index(case)} {case['source'][:60]}"


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load(case):
        for name, value in case.get("variables", {}).items():
            monkeypatch.setenv(name, value)
        for name, text in ((".env", case.get("dotenv")), ("azpgauth.toml", case.get("toml"))):
            if text is not None:
                (tmp_path / name).write_text(text, encoding="utf-8", newline="")
        return load_settings(**case.get("keywords", {}))

    return load


def plain(settings, name):
    section, _, field = name.partition(".")
    value = getattr(getattr(settings, section), field, None)
    if field in SECRETS and value is not None:
        return value.get_secret_value()
    return list(value) if isinstance(value, tuple) else value


def came_out(case, load):
    """The settings, or the mistakes by setting."""
    try:
        return load(case), {}
    except SettingsError as exc:
        return None, {problem.setting: str(problem) for problem in exc.problems}


@pytest.mark.parametrize("case", ALL, ids=name_of)
def test_what_comes_out_is_what_was_meant(case, loaded):
    settings, mistakes = came_out(case, loaded)
    wanted = case.get("mistakes", [])
    assert sorted(mistakes) == sorted(setting for setting, _ in wanted), mistakes
    for setting, words in wanted:
        assert words in mistakes[setting]
    if settings is None:
        return
    expected = case.get("expect", {})
    assert {name: plain(settings, name) for name in expected} == expected
    aside = "\n".join(each.origin.where for each in explain(settings).dropped)
    for name in case.get("aside", ()):
        assert name in aside
