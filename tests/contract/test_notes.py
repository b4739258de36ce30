"""What is said with an error of a pool that was open: whoever meets it in a traceback is helped."""

import asyncio
import sys
import time

import psycopg_pool
import pytest

from azpgauth import aconnect_from_env, connect_from_env

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions have no notes")


def caught(kit, pool):
    with pytest.raises(Exception) as found:  # noqa: PT011 - of each driver's own kind
        kit.row(pool, "select 1")
    return found.value


def test_a_dropped_role_and_a_server_that_is_gone(box, kit, monkeypatch, record_property):
    monkeypatch.setattr("azpgauth.drivers.checks.FRESH", 0)
    with kit.pool(pool={"min_size": 1, "timeout": 2}, server={"connect_timeout": 2}) as pool:
        kit.row(pool, "select 1")
        box.gateway.answer = 'password authentication failed for user "sandbox-app"'
        box.gateway.drop()
        role = caught(kit, pool)
        box.gateway.answer = None
        box.gateway.refuse()
        gone = caught(kit, pool)
    notes = "\n".join(role.__notes__)
    record_property("role", [type(role).__name__, notes])
    assert "cause: the role does not exist on the server, or is not the token's" in notes
    assert "pgaadauth_create_principal('sandbox-app'" in notes
    notes = "\n".join(gone.__notes__)
    record_property("gone", [type(gone).__name__, notes])
    assert "cause: nothing answers there" in notes
    assert "to do: check server.port" in notes
    assert len(gone.__notes__) == len(set(gone.__notes__))


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_connect_that_nobody_waits_for_any_more(box, driver):
    """The pool's limit is shorter than the connect's: it has not failed yet."""
    limits = {"min_size": 1, "max_size": 1, "timeout": 1}

    def lose():
        box.gateway.mode = "deaf"
        box.gateway.drop()

    if driver == "psycopg":
        with connect_from_env(pool=limits) as pool:
            lose()
            time.sleep(0.6)
            with pytest.raises(psycopg_pool.PoolTimeout) as found, pool.connection():
                pass
    else:

        async def use():
            async with aconnect_from_env(driver="asyncpg", pool=limits) as pool:
                lose()
                await asyncio.sleep(0.6)
                with pytest.raises(asyncio.TimeoutError) as found:
                    await pool.acquire()
            return found

        found = asyncio.run(use())
    notes = "\n".join(found.value.__notes__)
    assert "had no answer for" in notes
    assert "cause: no answer in time" in notes


def test_at_start_up_it_is_said_once(box, kit):
    box.gateway.refuse()
    with pytest.raises(Exception, match="cause: nothing answers there") as found:  # noqa: SIM117
        with kit.pool(server={"connect_timeout": 1}):
            pass
    assert not getattr(found.value, "__notes__", ())
    assert not getattr(found.value.__cause__, "__notes__", ())
