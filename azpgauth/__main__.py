"""`python -m azpgauth`: the command line."""

from azpgauth.cli import main

main()
