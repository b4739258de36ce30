"""Holds the command line, `azpgauth`: a module for each command."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    try:
        import click  # noqa: F401 - an extra
        import rich  # noqa: F401 - likewise
    except ImportError as exc:
        sys.exit(f"azpgauth's command line needs {exc.name}; run: pip install 'azpgauth[cli]'")
    for stream in (sys.stdout, sys.stderr):
        # What a server says may be more than the terminal's encoding has.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    from azpgauth.cli.app import app

    app(prog_name="azpgauth")
