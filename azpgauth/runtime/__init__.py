"""Carries all other rooms: how to wait, what a fork undoes, what must not show."""
