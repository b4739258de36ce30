"""Finds the files to read: by the environment's name, by arguments, by variables."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from azpgauth.errors import Problem
from azpgauth.runtime.redacted import masked
from azpgauth.settings.sources.layers import Layer, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["CONTROLS", "Asked", "Files", "find_files"]

CONTROLS = frozenset({"AZPG_ENV", "AZPG_CONFIG", "AZPG_SECRETS_DIR"})
"""Variables that are no settings: they say where settings are."""

Read = tuple[dict[str, Value], Layer]
"""What a file of variables has, and what is wrong with it."""


@dataclass(frozen=True)
class Asked:
    """What a call asks for of the files; None where it says nothing.

    Its repr shows none of it: somebody may have typed a URL with a password.

    Attributes:
        env: The environment's name.
        config: A TOML file, instead of `azpgauth.toml`.
        env_file: A file, instead of `.env`.
        secrets_dir: A directory with one file for each secret.
        alone: A second database: no TOML file is read but one that the call names.
    """

    env: str | None = field(default=None, repr=False)
    config: str | os.PathLike[str] | None = field(default=None, repr=False)
    env_file: str | os.PathLike[str] | None = field(default=None, repr=False)
    secrets_dir: str | os.PathLike[str] | None = field(default=None, repr=False)
    alone: bool = False


@dataclass
class Files:
    """What there is to read, by rank.

    Attributes:
        dotenvs: The variables of each `.env` file.
        secrets: The secrets directory.
        tomls: The TOML files.
        problems: What was named and does not exist.
    """

    dotenvs: list[Read] = field(default_factory=list)
    secrets: Path | None = None
    tomls: list[Path] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def find_files(asked: Asked, environ: Mapping[str, Value], read: Callable[[Path], Read]) -> Files:
    """Look for the files. Relative paths begin in the working directory, never above it.

    Args:
        asked: What the call says.
        environ: The process environment.
        read: Reads a `.env` file.
    """
    files = Files()
    problems = files.problems
    said = _said(asked.env_file, "env_file", None, problems)
    base = _file(said, ".env", problems)
    # `python -m venv .env` makes a folder of that name, which is no concern of ours.
    variables = [read(base)] if _looks(base.is_file) else []
    controls = {**(_controls(variables[0][0]) if variables else {}), **_controls(environ)}

    env = _said(asked.env, "env", controls.get("AZPG_ENV"), problems)
    by_variable = None if asked.alone else controls.get("AZPG_CONFIG")
    said = _said(asked.config, "config", by_variable, problems)
    config = _file(said, "azpgauth.toml", problems)
    tomls = [config]
    if env is not None and _is_name(*env, problems):
        dotenv, toml = (_neighbour(path, env[0]) for path in (base, config))
        there = [_looks(dotenv.is_file), _is_file(toml, problems)]
        # A second database needs no file of its own for the first one's environment.
        if not any(there) and (not asked.alone or asked.env is not None):
            problems.append(_no_such_environment(*env, base, config))
        if there[0]:
            variables.insert(0, read(dotenv))
            problems += _too_late(variables[0][0])
        tomls.insert(0, toml)
    files.dotenvs = variables
    if not asked.alone or asked.config is not None:
        files.tomls = [path for path in tomls if _is_file(path, problems)]

    for found, _ in variables:
        controls = {**_controls(found), **controls}
    said = _said(asked.secrets_dir, "secrets_dir", controls.get("AZPG_SECRETS_DIR"), problems)
    if said is not None:
        files.secrets = Path(said[0])
        if not _looks(files.secrets.is_dir):
            problems.append(_missing("secrets_dir", "directory", *said))
            files.secrets = None
    return files


def _said(
    asked: str | os.PathLike[str] | None,
    keyword: str,
    control: Value | None,
    problems: list[Problem],
) -> tuple[str, str] | None:
    """What is said, and where; None if nothing is."""
    if asked is not None:
        origin = f"keyword argument {keyword}="
        if not isinstance(asked, (str, os.PathLike)):
            reason = f"is a {type(asked).__name__} where a name is needed"
            problems.append(Problem(keyword, origin, reason, "write it as a string"))
            return None
        text = os.fspath(asked)
    elif control is not None:
        text, origin = str(control.raw), str(control.origin)
    else:
        return None
    if not text.strip():
        problems.append(Problem(keyword, origin, "is empty", "give it a value, or remove it"))
        return None
    return text, origin


def _file(said: tuple[str, str] | None, usual: str, problems: list[Problem]) -> Path:
    """The file that is named, which must exist, or the usual one."""
    if said is None:
        return Path(usual)
    path = Path(said[0])
    if not _looks(path.is_file):
        keyword = "config" if usual.endswith(".toml") else "env_file"
        problems.append(_missing(keyword, "file", *said))
    return path


def _looks(look: Callable[[], bool]) -> bool:
    """Whether it is there; what may not be looked at, or has an impossible name, is not."""
    try:
        return look()
    except (OSError, ValueError):
        return False


def _is_file(path: Path, problems: list[Problem]) -> bool:
    """Whether there is such a file; a directory in its place is a mistake."""
    if _looks(path.is_dir):
        reason = "is a directory where a file is wanted"
        problem = Problem(str(path), str(path), reason, "remove it, or put a file in its place")
        if problem not in problems:
            problems.append(problem)
        return False
    return _looks(path.is_file)


def _controls(found: Mapping[str, Value]) -> dict[str, Value]:
    """Those of the variables that say where settings are, in any case."""
    return {
        name.upper(): found[name]
        for name in sorted(found, reverse=True)
        if name.upper() in CONTROLS
    }


def _too_late(found: Mapping[str, Value]) -> list[Problem]:
    """An environment's own file cannot say which one it is, nor which file led to it."""
    return [
        Problem(
            name,
            str(value.origin),
            "has no effect in an environment's own file",
            "put it into .env or into the process's environment",
        )
        for name, value in _controls(found).items()
        if name != "AZPG_SECRETS_DIR"
    ]


def _missing(keyword: str, what: str, path: str, origin: str) -> Problem:
    reason = f"there is no {what} {masked(path)}"
    return Problem(keyword, origin, reason, f"name a {what} that exists")


def _is_name(env: str, origin: str, problems: list[Problem]) -> bool:
    if re.fullmatch(r"[\w-]+", env):
        return True
    reason = "is not the name of an environment"
    action = "use letters, digits, - and _ alone: it is part of the names of files"
    problems.append(Problem("env", origin, reason, action, repr(masked(env))))
    return False


def _neighbour(path: Path, env: str) -> Path:
    """The file for an environment: `.env.prod` of `.env`, `azpgauth.prod.toml` of the TOML file."""
    if path.suffix == ".toml":
        return path.with_name(f"{path.stem}.{env}.toml")
    return path.with_name(f"{path.name}.{env}")


def _no_such_environment(env: str, origin: str, base: Path, config: Path) -> Problem:
    there = sorted(_environments(base) | _environments(config))
    action = (
        f"those that exist: {', '.join(there)}"
        if there
        else "make one of the files, or remove the name to have "
        f"{masked(str(config))} and {masked(str(base))} alone"
    )
    files = " nor ".join(masked(str(_neighbour(path, env))) for path in (config, base))
    return Problem(
        "env", origin, f"names an environment without a file: no {files}", action, repr(env)
    )


def _environments(path: Path) -> set[str]:
    """The environments that have a file beside this one."""
    names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    before, after = _neighbour(path, "\0").name.split("\0")
    pattern = re.escape(before) + r"([\w-]+)" + re.escape(after)
    found = {match[1] for name in names if (match := re.fullmatch(pattern, name))}
    return found - {"example"}  # .env.example is there to be copied
