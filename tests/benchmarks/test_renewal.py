"""Nobody waits for a renewal: a small edition of renewal.py."""

import pytest

from azpgauth.sandbox import Sandbox

from renewal import measured  # isort: skip

pytestmark = pytest.mark.thorough  # by itself: what it measures is a time


def test_connections_do_not_wait_while_the_token_is_renewed(box: Sandbox, record_property):
    takes = 0.5
    found = measured(box, every=1.5, takes=takes, seconds=4)
    for name, value in found.items():
        record_property(name, round(value, 4))
    assert 2 <= found["requests"] <= 6
    assert found["requests_while_idle"] >= 1, "an idle pool is kept warm"
    assert found["failures"] == found["refusals"] == 0
    # Not against the median, which a busy machine could break: whoever waits, waits this long.
    assert found["slowest"] < takes / 2
    assert found["after_idle"] < takes / 2
