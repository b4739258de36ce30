"""Which files are read: by the environment's name, by arguments, by variables."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from azpgauth.errors import Problem
from azpgauth.settings.layers import Layer, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["CONTROLS", "Places", "Wish", "find_places"]

CONTROLS = frozenset({"AZPG_ENV", "AZPG_CONFIG", "AZPG_SECRETS_DIR"})
"""Variables that are no settings: they say where settings are."""

Read = tuple[dict[str, Value], Layer]
"""What a file of variables has, and what is wrong with it."""


@dataclass(frozen=True)
class Wish:
    """What a call says of the places; None where it says nothing.

    Attributes:
        env: The environment's name.
        config: A TOML file, instead of `azpgauth.toml`.
        env_file: A file, instead of `.env`.
        secrets_dir: A directory with one file for each secret.
        alone: A second database: no TOML file is read but one that the call names.
    """

    env: str | None = None
    config: str | os.PathLike[str] | None = None
    env_file: str | os.PathLike[str] | None = None
    secrets_dir: str | os.PathLike[str] | None = None
    alone: bool = False


@dataclass
class Places:
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


def find_places(wish: Wish, environ: Mapping[str, Value], read: Callable[[Path], Read]) -> Places:
    """Look for the files. Relative paths begin in the working directory, never above it.

    Args:
        wish: What the call says.
        environ: The process environment.
        read: Reads a `.env` file.
    """
    places = Places()
    problems = places.problems
    said = _said(wish.env_file, "env_file", None, problems)
    base = _file(said, ".env", problems)
    variables = [read(base)] if base.is_file() else []
    controls = {**(variables[0][0] if variables else {}), **environ}

    env = _said(wish.env, "env", controls.get("AZPG_ENV"), problems)
    by_variable = None if wish.alone else controls.get("AZPG_CONFIG")
    said = _said(wish.config, "config", by_variable, problems)
    config = _file(said, "azpgauth.toml", problems)
    tomls = [config]
    if env is not None and _is_name(*env, problems):
        dotenv, toml = (_neighbour(path, env[0]) for path in (base, config))
        if not dotenv.is_file() and not toml.is_file():
            problems.append(_no_such_environment(*env, base, config))
        if dotenv.is_file():
            variables.insert(0, read(dotenv))
        tomls.insert(0, toml)
    places.dotenvs = variables
    if not wish.alone or wish.config is not None:
        places.tomls = [path for path in tomls if path.is_file()]

    for found, _ in variables:
        controls = {**found, **controls}
    said = _said(wish.secrets_dir, "secrets_dir", controls.get("AZPG_SECRETS_DIR"), problems)
    if said is not None:
        places.secrets = Path(said[0])
        if not places.secrets.is_dir():
            problems.append(_missing("secrets_dir", "directory", *said))
            places.secrets = None
    return places


def _said(
    wished: str | os.PathLike[str] | None,
    keyword: str,
    control: Value | None,
    problems: list[Problem],
) -> tuple[str, str] | None:
    """What is said, and where; None if nothing is."""
    if wished is not None:
        text, origin = os.fspath(wished), f"keyword argument {keyword}="
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
    if not path.is_file():
        keyword = "config" if usual.endswith(".toml") else "env_file"
        problems.append(_missing(keyword, "file", *said))
    return path


def _missing(keyword: str, what: str, path: str, origin: str) -> Problem:
    return Problem(keyword, origin, f"there is no {what} {path}", f"name a {what} that exists")


def _is_name(env: str, origin: str, problems: list[Problem]) -> bool:
    if re.fullmatch(r"[\w-]+", env):
        return True
    reason = "is no name of an environment"
    action = "use letters, digits, - and _ alone: it stands in the names of files"
    problems.append(Problem("env", origin, reason, action, repr(env)))
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
        else f"make one of the files, or remove the name to have {config} and {base} alone"
    )
    files = f"{_neighbour(config, env)} nor {_neighbour(base, env)}"
    return Problem(
        "env", origin, f"names an environment without a file: no {files}", action, repr(env)
    )


def _environments(path: Path) -> set[str]:
    """The environments that have a file beside this one."""
    names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    pattern = re.escape(_neighbour(path, "ENV").name).replace("ENV", r"([\w-]+)")
    found = {match[1] for name in names if (match := re.fullmatch(pattern, name))}
    return found - {"example"}  # .env.example is there to be copied
