"""Reads all sources by rank into one `Settings`, or one error with all mistakes."""

from __future__ import annotations

import os
import re
import warnings
from collections import ChainMap
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import ValidationError

from azpgauth.errors import Problem, SettingsError
from azpgauth.runtime.printable import one_line
from azpgauth.runtime.redacted import Redacted, masked
from azpgauth.settings.explain import remember
from azpgauth.settings.merge import Merged, merge
from azpgauth.settings.mistakes import in_terms, problems_of
from azpgauth.settings.models.secret import SECRETS
from azpgauth.settings.models.sections import SECTIONS, Settings
from azpgauth.settings.sources.conventions import read_families
from azpgauth.settings.sources.files import Asked, find_files
from azpgauth.settings.sources.layers import PREFIX, Layer, Origin, Value, variable
from azpgauth.settings.sources.readers import (
    keyword_layer,
    read_dotenv,
    read_secrets,
    toml_layer,
    variable_layer,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["load_settings"]

_KEYWORDS = ("env", "config", "env_file", "secrets_dir", "prefix")


def load_settings(
    *,
    env: str | None = None,
    config: str | os.PathLike[str] | None = None,
    env_file: str | os.PathLike[str] | None = None,
    secrets_dir: str | os.PathLike[str] | None = None,
    prefix: str = PREFIX,
    **sections: Any,
) -> Settings:
    """Read the settings from all the places where they may be.

    What comes first holds, setting by setting: keyword arguments, `AZPG_*` of the environment,
    `.env.<env>` and `.env`, the secrets directory, `azpgauth.<env>.toml` and `azpgauth.toml`, and
    what other tools set (Azure Service Connector, `DATABASE_URL`, `PG*`, `POSTGRES_SERVER` and
    `POSTGRES_DATABASE`). Files are looked for in the working directory.

    Args:
        env: The environment, such as `prod`, instead of `AZPG_ENV`; it must have a file.
        config: A TOML file to read instead of `azpgauth.toml` (or `AZPG_CONFIG`), with its
            neighbour for the environment; it must exist.
        env_file: A file to read instead of `.env`, likewise.
        secrets_dir: A directory with a file for each secret, named like its variable, instead of
            `AZPG_SECRETS_DIR`; it must exist.
        prefix: What the variables begin with, for a second database: `REPORTS_` reads
            `REPORTS_SERVER_HOST`, …; what other tools set and `azpgauth.toml` are not read then.
        **sections: `server`, `database`, `driver`, `pool` and `credential`, each a mapping;
            `driver` may be the driver's name alone.

    Returns:
        The settings, complete and checked; `explain` tells where each came from.

    Raises:
        SettingsError: With every mistake that was found, and what to edit for each.

    Example:
        >>> load_settings(server={"port": 6432})  # doctest: +SKIP
    """
    asked = Redacted(Asked(env, config, env_file, secrets_dir, alone=prefix != PREFIX))
    given = Redacted((prefix, sections))
    # A traceback shows locals, and a secret may have been typed anywhere.
    del env, config, env_file, secrets_dir, prefix, sections
    read = Redacted(_named(_read(asked.held, *given.held), given.held[0]))
    settings, problems = read.held[0], read.held[1].problems
    if settings is None or problems:
        raise SettingsError(problems)
    _warn_of_secrets(read.held[1], given.held[0])
    remember(settings, read.held[1])
    return settings


_Read: TypeAlias = "tuple[Settings | None, Merged]"


def _read(asked: Asked, prefix: str, sections: Mapping[str, Any]) -> _Read:
    """The settings, if they can be made; what they came from, and what is wrong with it."""
    problem = _of_prefix(prefix)
    if problem is not None:
        return None, Merged(problems=[problem])
    merged = _merged(asked, prefix, sections)
    data: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for (section, name), values in merged.values.items():
        data[section][name] = values[0].raw
    try:
        return Settings.model_validate(data), merged
    except ValidationError as exc:
        problems = problems_of(exc, data, merged, prefix)
        reported = {problem.setting for problem in merged.problems}
        merged.problems += [each for each in problems if each.setting not in reported]
        return None, merged


def _named(read: _Read, prefix: str) -> _Read:
    """The same, with settings in what is wrong named as the reader gives them."""
    merged = read[1]
    merged.problems = [in_terms(each, merged.values, prefix) for each in merged.problems]
    return read


def _merged(asked: Asked, prefix: str, sections: Mapping[str, Any]) -> Merged:
    """What all sources come to."""
    environ = {
        name: Value(raw, Origin("environment", f"environment variable {name}", name))
        for name, raw in os.environ.items()
    }
    files = find_files(asked, environ, lambda path: read_dotenv(path, prefix))
    layers = [keyword_layer(sections, _KEYWORDS), variable_layer(environ, prefix)]
    for found, read in files.dotenvs:
        layers += [read, variable_layer(found, prefix)]
    if files.secrets is not None:
        found, read = read_secrets(files.secrets, prefix)
        layers += [read, variable_layer(found, prefix)]
    layers += [toml_layer(path) for path in files.tomls]
    # An empty one is as if it were not there.
    sources = [
        {name: value for name, value in found.items() if str(value.raw)}
        for found in (environ, *(found for found, _ in files.dotenvs))
    ]
    return merge(
        [Layer(problems=files.problems, unreadable=bool(files.problems)), *layers],
        [] if asked.alone else read_families(sources),
        ChainMap(*sources),
    )


def _of_prefix(prefix: str) -> Problem | None:
    if prefix == PREFIX:
        return None
    if not isinstance(prefix, str):
        prefix = repr(prefix)
    where = "keyword argument prefix="
    if not re.fullmatch(r"[A-Za-z]\w*_", prefix):
        reason, action = "is not a prefix of variables", "write one such as REPORTS_, with its _"
        return Problem("prefix", where, reason, action, repr(masked(prefix)))
    if prefix.upper().startswith(PREFIX):
        reason = f"begins with {PREFIX}, whose variables are the first database's"
        return Problem("prefix", where, reason, "write one such as REPORTS_", repr(masked(prefix)))
    return None


def _warn_of_secrets(merged: Merged, prefix: str) -> None:
    for (section, name), values in merged.values.items():
        for value in values:
            if section == "credential" and name in SECRETS and value.origin.kind == "toml":
                place = one_line(str(value.origin))
                warnings.warn(
                    f"credential.{name} is in {place}: a secret in a file that may be under "
                    f"version control. Move it to {variable(section, name, prefix)} in the "
                    "environment, in .env or in a secrets directory",
                    stacklevel=3,
                )
