"""Runs the command line: `python -m azpgauth`."""

from azpgauth.cli import main

main()
