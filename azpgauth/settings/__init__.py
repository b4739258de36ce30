"""Settings: the models, and what reads the world into them."""

from azpgauth.settings.load import load_settings
from azpgauth.settings.models import Settings

__all__ = ["Settings", "load_settings"]
