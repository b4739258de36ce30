"""What the contract tests share."""

import logging

import pytest
from kits import KITS, Loop


@pytest.fixture(params=KITS, ids=str)
def kit(request):
    """Each combination of driver and dialect; modules that need it otherwise have their own."""
    kit = request.param
    if not kit.is_async:
        yield kit
        return
    with Loop() as kit.loop:
        yield kit
    kit.loop = None


@pytest.fixture
def nothing_leaks(box, caplog):
    """Fails if a token or a secret is in a log, of any logger and level."""
    caplog.set_level(logging.DEBUG)
    yield
    logged = "\n".join(f"{record.getMessage()} {record.args!r}" for record in caplog.records)
    for token in box.authority.issued:
        assert token not in logged
        assert token.rsplit(".", 1)[-1] not in logged
    secret = box.environment_for("client-secret")["AZPG_CREDENTIAL_CLIENT_SECRET"]
    assert secret not in logged
