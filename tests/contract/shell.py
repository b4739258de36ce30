"""What a shell command in the manual says, checked against the project; run only where it can be.

Each command word has a function here that knows what may follow it. A word that has none fails, so
that nothing is passed over in silence.
"""

import re
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

import click
from pages import ROOT

from azpgauth.cli.app import app
from azpgauth.settings.reference import entries
from azpgauth.settings.sources.conventions import FAMILIES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

VARIABLES = {
    *(entry.variable for entry in entries()),
    *(name for names in FAMILIES.values() for name in names),
    *("AZPG_ENV", "AZPG_CONFIG", "AZPG_SECRETS_DIR"),
    "_AZPGAUTH_COMPLETE",  # click's own, made of the program's name
}
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
FOREIGN = {"psql", "sh"}
"""Commands of others, with options of their own."""

_ASSIGNMENT = re.compile(r"(\w+)=(.*)", re.DOTALL)


def check(script):
    """Check every command of a script.

    Raises:
        AssertionError: It is not true to the project.
        click.UsageError: An option or argument of `azpgauth` does not exist.
    """
    for line in script.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        command = []
        for word in [*words, ";"]:
            if word in {"&&", "||", "|", ";"}:
                if command:
                    check_command(command)
                command = []
            else:
                command.append(word)


def check_command(words):
    """Check one command."""
    for word in words:
        if inner := re.fullmatch(r"(?s).*\$\((.*)\).*", word):
            check(inner[1])
    while words and (found := _ASSIGNMENT.fullmatch(words[0])):
        _variable(found[1])
        words = words[1:]
    if words:
        program = Path(words[0]).name
        assert program in {*_CHECKS, *FOREIGN}, f"nothing is known of the command {program!r}"
        if program in _CHECKS:
            _CHECKS[program](words[1:])


def _variable(name):
    assert name in VARIABLES, f"there is no variable {name}"


def _export(words):
    for word in words:
        _variable(_ASSIGNMENT.fullmatch(word)[1])


def azpgauth(words):
    """Parse a command of ours as the program does."""
    with app.make_context("azpgauth", list(words), resilient_parsing=True):
        pass
    while words and words[0].startswith("-"):
        assert words[0] in {"--debug", "--version", "--help"}
        words = words[1:]
    if not words:
        return
    assert words[0] in app.commands, f"there is no command {words[0]!r}"
    command, rest = app.commands[words[0]], list(words[1:])
    if isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"there is no command {' '.join(words)!r}"
        command, rest = command.commands[rest[0]], rest[1:]
    parsed = command.make_context(words[0], list(rest)).params.get("command")
    if parsed:
        assert "--" in rest, "a program to run comes after --, so that its options are its own"
        check_command(list(parsed))


def _pip(words):
    assert words.pop(0) == "install"
    targets = [word for word in words if not word.startswith("-")]
    assert targets
    for target in targets:
        name, extras = re.fullmatch(r"(\.|azpgauth)\[([\w,-]+)\]", target).groups()
        assert name
        assert set(extras.split(",")) <= EXTRAS.keys(), target


def _python(words):
    if words[:1] == ["-m"]:
        module = words[1]
        assert find_spec(module), f"there is no module {module}"
        if module == "azpgauth":
            azpgauth(words[2:])
        elif module == "pytest":
            _pytest(words[2:])
        return
    _file(words[0])


def _pytest(words):
    for word in words:
        if word.startswith("tests/"):
            _file(word)


def _file(word):
    # A name alone is a file of the reader's own.
    assert "/" not in word or (ROOT / word).exists(), f"there is no file {word}"


def _bash(words):
    _file(words[0])


def _eval(words):
    assert all(word.startswith("$(") for word in words)  # what is inside was checked


_CHECKS = {
    "azpgauth": azpgauth,
    "bash": _bash,
    "eval": _eval,
    "export": _export,
    "pip": _pip,
    "pytest": _pytest,
    "python": _python,
    "python3": _python,
}
