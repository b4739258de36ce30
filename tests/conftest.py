"""Every test starts in an empty folder, without the variables that azpgauth and its parts read."""

import os
import signal
import sys

import pytest
from hypothesis import settings

from azpgauth.sandbox import Sandbox

# pytest --hypothesis-profile thorough: many times the examples of a usual run.
# No deadlines: a busy machine is no failure.
settings.register_profile("thorough", max_examples=10_000, deadline=None)
settings.register_profile("usual", max_examples=200, derandomize=True, deadline=None)
settings.load_profile("usual")

_PREFIXES = ("AZPG_", "AZURE_", "PG", "IDENTITY_", "MSI_", "IMDS_", "REQUESTS_CA", "POSTGRES_")


def pytest_configure(config):
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Started in the background of a script; the programs that the tests start inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.version_info < (3, 11):
        # asyncio's TLS there does not mark a transport as closed when the peer hangs up.
        config.addinivalue_line(
            "filterwarnings", "ignore:unclosed transport <asyncio.sslproto:ResourceWarning"
        )


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path):
    for name in list(os.environ):
        if name.startswith(_PREFIXES):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def box(_clean_environment, azpgauth_sandbox: Sandbox) -> Sandbox:
    return azpgauth_sandbox
