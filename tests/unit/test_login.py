import asyncio

import pytest

from azpgauth.errors import RoleError, TokenError
from azpgauth.identity.login import StaticLogin, TokenLogin
from azpgauth.identity.token import Token
from azpgauth.identity.tokens import TokenSource
from azpgauth.runtime.waiting import BLOCKING, ON_LOOP, run
from azpgauth.testing import ManualClock, fake_token


def source(**claims):
    return TokenSource(lambda: Token(fake_token(**claims), 9e9, None, 0))


def test_a_token_asked_for_ahead_is_fresh_once():
    login = TokenLogin(source(upn="ada"))
    login.prefetch()
    login.source.get()  # it has arrived by now
    assert [run(login.grant(BLOCKING)).fresh, run(login.grant(BLOCKING)).fresh] == [True, False]
    login.prefetch()
    assert not run(login.grant(BLOCKING)).fresh


def test_what_failed_ahead_is_told_and_not_asked_for_again():
    clock = ManualClock()
    asked = []

    def refuse():
        asked.append(1)
        raise ValueError("no identity")

    login = TokenLogin(TokenSource(refuse, clock=clock, run=lambda work: work()))
    login.prefetch()
    with pytest.raises(TokenError, match="no identity"):
        run(login.grant(BLOCKING))
    assert len(asked) == 1
    clock.wait = lambda event, seconds: clock.advance(seconds) or event.is_set()
    with pytest.raises(TokenError, match="no identity"):
        run(login.grant(BLOCKING))
    assert len(asked) == 2
    clock.advance(10)
    login.prefetch()
    clock.advance(10)  # that was long ago
    with pytest.raises(TokenError, match="no identity"):
        asyncio.run(login.grant(ON_LOOP))
    assert len(asked) == 4


@pytest.mark.parametrize("awaited", [False, True])
def test_a_management_scope_that_is_refused_is_not_asked_for_each_connection(awaited):
    clock = ManualClock()
    asked = []

    def refuse():
        asked.append(clock.time())
        raise ValueError("no permission")

    fallback = TokenSource(refuse, clock=clock, run=lambda work: work())
    clock.wait = lambda event, seconds: clock.advance(seconds) or event.is_set()
    login = TokenLogin(source(appid="1234"), fallback=fallback)
    for _ in range(200):
        with pytest.raises(RoleError, match="1234"):
            asyncio.run(login.grant(ON_LOOP)) if awaited else run(login.grant(BLOCKING))
        clock.advance(0.05)
    assert 2 <= len(asked) <= 6


def test_only_a_refusal_of_a_cached_token_is_worth_another_one():
    count = iter(range(100))
    login = TokenLogin(TokenSource(lambda: Token(fake_token(upn="a", n=next(count)), 9e9, None, 0)))
    fresh, cached = run(login.grant(BLOCKING)), run(login.grant(BLOCKING))
    assert run(login.regrant(fresh, "The access token has expired", BLOCKING)) is None
    assert run(login.regrant(cached, "Connection refused", BLOCKING)) is None
    assert run(login.regrant(cached, 'database "x" does not exist', BLOCKING)) is None
    again = run(login.regrant(cached, 'password authentication failed for user "a"', BLOCKING))
    assert again is not None
    assert again.fresh
    assert again.password != cached.password


def test_the_explicit_role_wins_and_claims_are_not_read():
    login = TokenLogin(TokenSource(lambda: Token("no token at all", 9e9, None, 0)), role="team")
    assert run(login.grant(BLOCKING)).role == login.role == "team"


def test_the_management_scope_names_who_the_database_token_does_not():
    login = TokenLogin(source(), fallback=source(upn="ada"))
    assert login.role is None
    assert [run(login.grant(BLOCKING)).role, run(login.grant(BLOCKING)).role, login.role] == [
        "ada"
    ] * 3


def test_nobody_names_the_role():
    def refuse():
        raise ValueError("no permission")

    login = TokenLogin(source(appid="1234"), fallback=TokenSource(refuse))
    with pytest.raises(RoleError, match="does not name the PostgreSQL role") as caught:
        run(login.grant(BLOCKING))
    assert "application id 1234" in caught.value.cause
    assert "AZPG_DATABASE_USER" in caught.value.remedy
    assert caught.value.layer == "identity"


def test_a_source_that_fails_is_a_token_error():
    def refuse():
        raise ValueError("no identity")

    with pytest.raises(TokenError, match="no identity"):
        run(TokenLogin(TokenSource(refuse)).grant(BLOCKING))


def test_reprs_show_no_secret():
    login = TokenLogin(source(upn="ada"))
    grant = run(login.grant(BLOCKING))
    assert grant.password not in f"{login!r} {grant!r} {grant.token!r}"
    assert "hunter2" not in repr(StaticLogin("me", "hunter2"))
    assert run(StaticLogin("me", "hunter2").grant(BLOCKING)).password == "hunter2"
