"""What pyproject.toml asks of other packages: a lower bound each, which `.ci/lowest` proves."""

import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCUMENT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = DOCUMENT["project"]
LINES = [
    *DOCUMENT["build-system"]["requires"],
    *PROJECT["dependencies"],
    *(line for some in PROJECT["optional-dependencies"].values() for line in some),
]
OTHERS = [line for line in LINES if Requirement(line).name != PROJECT["name"]]


@pytest.mark.parametrize("line", OTHERS)
def test_each_has_a_lower_bound_and_nothing_else(line):
    wanted = Requirement(line)
    assert [each.operator for each in wanted.specifier] == [">="]
    assert wanted.url is None


def test_python_too_has_no_upper_bound():
    assert PROJECT["requires-python"].startswith(">=")
    assert "," not in PROJECT["requires-python"]
