"""Gives pytest its fixtures as soon as azpgauth is installed: `azpgauth_sandbox`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from azpgauth.sandbox.box import Sandbox

__all__ = ["azpgauth_sandbox"]


@pytest.fixture(scope="session")
def _azpgauth_running_sandbox() -> Iterator[Sandbox]:
    from azpgauth.sandbox.box import Sandbox

    with Sandbox() as box:
        yield box


@pytest.fixture
def azpgauth_sandbox(
    _azpgauth_running_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Sandbox]:
    """A running sandbox, with the environment of this test pointing at it.

    It is started once for the session; each test finds it without faults and with counts at zero,
    and no token is left from the test before.
    """
    from azpgauth.identity.azure import forget

    box = _azpgauth_running_sandbox
    for name, value in box.environment.items():
        monkeypatch.setenv(name, value)
    box.reset()
    forget()
    yield box
    box.reset()
    forget()
