"""Every test starts in an empty folder, without the variables that azpgauth and its parts read."""

import os

import pytest

from azpgauth.sandbox import Sandbox

_PREFIXES = ("AZPG_", "AZURE_", "PG", "IDENTITY_", "MSI_", "IMDS_", "REQUESTS_CA", "POSTGRES_")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path):
    for name in list(os.environ):
        if name.startswith(_PREFIXES):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def box(_clean_environment, azpgauth_sandbox: Sandbox) -> Sandbox:
    return azpgauth_sandbox
