"""Recognises what somebody or something should have filled in, and did not. Pure."""

from __future__ import annotations

import re

__all__ = ["placeholder"]

_VAULT = re.compile(r"@Microsoft\.KeyVault\(", re.IGNORECASE)
_NAME = r"[A-Za-z_][\w .:/|-]*"
_BY_HAND = "write what it stands for in its place"
_GRANT = (
    "let the app's identity read the vault's secrets (role Key Vault Secrets User), and look at "
    "the reference's status among the app's settings"
)
_BY_SHELL = "write the value in its place, or set it where a shell or .env replaces variables"
_BY_CLUSTER = (
    "write the value in its place, or let Kubernetes replace it (the variable it names has to "
    "stand above it), or the pipeline"
)
_FORMS = (
    (r"\$\{\{.*?\}\}", "${{...}}", "let the pipeline replace it, or write the value in its place"),
    (r"\$\{[^}]*\}", "${...}", _BY_SHELL),
    (r"\$\([^)]*\)", "$(...)", _BY_CLUSTER),
    (rf"<{_NAME}>", "<...>", _BY_HAND),
    (rf"\{{{_NAME}\}}", "{...}", _BY_HAND),
)


def placeholder(text: str, *, whole: bool = False) -> tuple[str, str] | None:
    """What is wrong with a value that was left as a template has it, and who mends it.

    App Service leaves a reference to a key vault as it is where it could not read the secret:
    https://learn.microsoft.com/azure/app-service/app-service-key-vault-references

    Args:
        text: The value. Nothing of it is in what is returned.
        whole: Whether only a value that is nothing else counts, as of a secret.

    Example:
        >>> placeholder("<server>.postgres.database.azure.com")
        ('has a placeholder in it, <...>', 'write what it stands for in its place')
        >>> placeholder("p<x>", whole=True) is None
        True
    """
    if _VAULT.match(text):
        return "is a reference to a key vault that App Service did not resolve", _GRANT
    for pattern, shape, action in _FORMS:
        if whole and re.fullmatch(pattern, text):
            return f"is a placeholder, {shape}", action
        if not whole and re.search(pattern, text):
            return f"has a placeholder in it, {shape}", action
    return None
