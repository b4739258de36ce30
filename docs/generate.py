"""Write the tables of the manual that come from the code: python docs/generate.py.

Each stands in its page between two comments, so that the page reads well without Sphinx, too; a
test compares them.
"""

from __future__ import annotations

import inspect
import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from azpgauth.cli.app import app
from azpgauth.identity import diagnosis as identity
from azpgauth.server import words as server

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

try:
    from re import _constants as codes  # type: ignore[attr-defined]
    from re import _parser as patterns  # type: ignore[attr-defined]
except ImportError:  # before Python 3.11
    import sre_constants as codes
    import sre_parse as patterns

HERE = Path(__file__).parent

LAYERS = {
    "network": "The network",
    "tls": "TLS",
    "identity": "Identity and role",
    "database": "The database",
}


# -- messages ------------------------------------------------------------------------------------


def server_messages() -> str:
    """What servers and drivers say, a table for each layer."""
    found: dict[str, list[str]] = {layer: [] for layer in LAYERS}
    for pattern, meaning in server.ROWS:
        remedy = meaning.remedy.replace("{role}", "ROLE").replace("{name}", "ROLE")
        retried = "yes" * ("waiting" in meaning.mended_by)
        found[meaning.layer].append(_message(pattern, meaning.cause, remedy, retried))
    return "\n\n".join(
        f"### {title}\n\n{_messages(found[layer])}" for layer, title in LAYERS.items()
    )


def authority_messages() -> str:
    """What azure-identity and Microsoft Entra ID say."""
    return _messages(_message(*each) for each in identity.ROWS)


def _messages(rows: Iterable[str]) -> str:
    return table(("the message has", "what it means", "what to do", "tried again"), rows)


def _message(pattern: re.Pattern[str], cause: str, remedy: str, retried: str = "") -> str:
    words = "<br>".join(f"`{each}`" for each in readable(pattern.pattern))
    return row(words, cause, _SETTING.sub(r"`\g<0>`", remedy), retried)


_SETTING = re.compile(r"\bAZPG_\w+|(?<![.\w])(server|database|driver|pool|credential)\.[a-z_]+\b")


def readable(pattern: str) -> list[str]:
    """The texts that a pattern is looking for, with `…` for what may be anything.

    Example:
        >>> readable('role "[^"]*" does not exist|oid mismatch')
        ['role "…" does not exist', 'oid mismatch']
    """
    texts = (re.sub("…+", "…", text) for text in _texts(patterns.parse(pattern)))
    return list(dict.fromkeys(texts))


def _texts(parsed: Iterable[tuple[Any, Any]]) -> Iterator[str]:
    parts = [list(_part(code, value)) for code, value in parsed]
    return ("".join(chosen) for chosen in itertools.product(*parts))


def _part(code: Any, value: Any) -> Iterator[str]:
    """The texts for one part of a pattern."""
    if code is codes.LITERAL:
        yield chr(value)
    elif code is codes.BRANCH:
        for each in value[1]:
            yield from _texts(each)
    elif code is codes.SUBPATTERN:
        yield from _texts(value[-1])
    elif code is codes.IN and all(each is codes.LITERAL for each, _ in value):
        yield from (chr(each) for _, each in value)
    elif code in {codes.AT, codes.ASSERT, codes.ASSERT_NOT}:
        yield ""
    elif code in {codes.MAX_REPEAT, codes.MIN_REPEAT} and value[:2] == (0, 1):
        yield ""  # what may be left out is left out
    else:
        yield "." if code is codes.ANY else "…"  # the name of a file, with its dot as it is


# -- commands ------------------------------------------------------------------------------------


def command_options(name: str) -> str:
    """How a command is called, its example, and its options."""
    command = app.commands[name]
    example = inspect.getdoc(command.callback).partition("Example: ")[2]
    rows = [
        row(f"`{_option(each)}`", each.help or "")
        for each in command.params
        if isinstance(each, click.Option)
    ]
    parts = [f"Call it as `{_usage(name, command)}`, for example:", f"```sh\n{example}\n```"]
    return "\n\n".join([*parts, table(("option", "meaning"), rows)])


def _usage(name: str, command: click.Command) -> str:
    # click's own text of this is not the same in all its versions.
    words = ["azpgauth", name, "[OPTIONS]"]
    if isinstance(command, click.Group):
        words.append(f"[{'|'.join(sorted(command.commands))}]")
    for each in command.params:
        if isinstance(each, click.Argument):
            word = each.name.upper() + "..." * (each.nargs == -1)
            words.append(word if each.required else f"[{word}]")
    return " ".join(words)


def _option(option: click.Option) -> str:
    if option.is_flag:
        return option.opts[0]
    choices = getattr(option.type, "choices", None)
    return f"{option.opts[0]} {'|'.join(choices) if choices else option.name.upper()}"


# -- pages ---------------------------------------------------------------------------------------


def row(*cells: str) -> str:
    """One line of a table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table(head: Sequence[str], rows: Iterable[str]) -> str:
    """A table in Markdown."""
    return "\n".join([row(*head), "|" + "---|" * len(head), *rows])


PARTS = {
    "troubleshooting.md": {"server": server_messages, "authority": authority_messages},
    "command-line.md": {
        name: (lambda name=name: command_options(name)) for name in sorted(app.commands)
    },
}
"""The pages, and what makes each of their parts."""


def generated(page: str, text: str) -> str:
    """The text of a page with its parts as the code has them now.

    Raises:
        ValueError: The page has no place for one of them.
    """
    for name, make in PARTS[page].items():
        begin, end = f"<!-- made by docs/generate.py: {name} -->\n", "\n<!-- end -->"
        before, found, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not (found and ended):
            raise ValueError(f"{page} has no place for {name}: {begin}…{end}")
        text = f"{before}{begin}\n{make()}\n{end}{after}"
    return text


def main() -> None:
    """Write them."""
    for page in PARTS:
        path = HERE / page
        path.write_text(generated(page, path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
