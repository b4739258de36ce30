"""Holds `azpgauth check`: the command, its steps, and what looks at the network below drivers."""
