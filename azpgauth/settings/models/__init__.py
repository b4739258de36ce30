"""The settings themselves: sections, their fields, and what no field sees alone."""
