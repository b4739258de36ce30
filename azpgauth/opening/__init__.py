"""Leads from settings to what is open: the functions that users call, and what they use."""
