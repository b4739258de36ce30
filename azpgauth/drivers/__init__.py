"""Says how each driver connects: a module for each, and what they share."""
