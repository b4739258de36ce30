"""How Sphinx builds the manual: sphinx-build -n -W --keep-going docs FOLDER."""

from pygments.lexers.shell import BashLexer
from sphinx.application import Sphinx

from azpgauth import __version__

project = "azpgauth"
author = "The azpgauth developers"
copyright = f"2026 {author}"  # noqa: A001 - Sphinx's own name for it
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"azpgauth {release}"

default_role = "literal"  # single backticks in docstrings mark code
autodoc_typehints = "none"  # the docstrings say in words what the overloads say of each driver
autodoc_member_order = "bysource"
napoleon_attr_annotations = False
nitpick_ignore = [("py:exc", "psycopg.Error"), ("py:exc", "psycopg2.Error")]  # their own manuals


def setup(app: Sphinx) -> None:
    """Colour `.env` files as shells read them."""
    app.add_lexer("dotenv", BashLexer)
