"""Reads what settings come from: files, variables, arguments, and what other tools set."""
