"""Prints the lower bounds of pyproject.toml as pip's constraints; `--installed` compares with them.

Needs packaging, and tomli before Python 3.11.
"""

import sys
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

WITHOUT = {"dev", "docs"}  # linters, stubs, the manual: nothing runs on them


def bounds() -> dict[str, str]:
    """The lower bound of each package that this Python needs, the build's included."""
    document = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    project = document["project"]
    extras = project["optional-dependencies"]
    lines = [*document["build-system"]["requires"], *project["dependencies"]]
    lines += [line for extra, some in extras.items() if extra not in WITHOUT for line in some]
    wanted = [Requirement(line) for line in lines]
    return {
        each.name: str(each.specifier).removeprefix(">=")
        for each in wanted
        if each.name != project["name"] and (each.marker is None or each.marker.evaluate())
    }


def compare() -> str | None:
    """Prints what is installed; gives what differs from its bound."""
    found = {name: (bound, version(name)) for name, bound in bounds().items()}
    for name, (_, installed) in found.items():
        print(f"{name} {installed}")
    wrong = [
        f"{name} {installed} is installed, and the bound is {bound}"
        for name, (bound, installed) in found.items()
        if Version(installed) != Version(bound)
    ]
    return "\n".join(wrong) or None


if __name__ == "__main__":
    if sys.argv[1:] == ["--installed"]:
        sys.exit(compare())
    for name, bound in bounds().items():
        print(f"{name}=={bound}")
