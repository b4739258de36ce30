"""Make the README's pictures again, from real runs in the sandbox: python docs/pictures.py."""

import io
import os
from contextlib import suppress
from pathlib import Path
from unittest import mock

from rich.console import Console
from rich.text import Text

from azpgauth.cli.app import app
from azpgauth.identity.azure import forget
from azpgauth.sandbox import Sandbox

HERE = Path(__file__).parent
PICTURES = {
    # The file: variables that are different from the sandbox's.
    "check-good.svg": {},
    "check-bad.svg": {"AZPG_DATABASE_USER": "orders"},
}


def picture(command: str, environment: dict[str, str]) -> str:
    """What a command prints on a terminal, as SVG."""
    paper = Console(
        record=True, width=116, file=io.StringIO(), force_terminal=True, highlight=False
    )
    paper.print(Text(f"$ azpgauth {command}", "bold"))
    as_told = mock.patch.dict(os.environ, environment)
    to_paper = mock.patch("azpgauth.cli.check.command.console", return_value=paper)
    with as_told, to_paper, suppress(SystemExit):
        app.main(command.split())
    forget()
    return paper.export_svg(title="azpgauth", unique_id="azpgauth")


def main() -> None:
    """Write them."""
    with Sandbox() as box:
        for name, changed in PICTURES.items():
            svg = picture("check", {**box.environment, **changed})
            (HERE / name).write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
