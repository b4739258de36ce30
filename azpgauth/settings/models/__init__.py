"""Declares the settings: sections, their fields, and what no field sees alone."""
