"""Knows what was said: the models, what reads the world into them, where each value came from."""

from azpgauth.settings.explain import Explained, Explanation, explain
from azpgauth.settings.load import load_settings
from azpgauth.settings.models.sections import Settings

__all__ = ["Explained", "Explanation", "Settings", "explain", "load_settings"]
