"""The command line, `azpgauth`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    try:
        import click  # noqa: F401 - an extra
    except ImportError:
        sys.exit("azpgauth's command line needs click; run: pip install 'azpgauth[cli]'")
    from azpgauth.cli.app import app

    app(prog_name="azpgauth")
