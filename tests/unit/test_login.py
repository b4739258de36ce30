import pytest

from azpgauth.errors import RoleError, TokenError
from azpgauth.login import StaticLogin, TokenLogin
from azpgauth.testing import fake_token
from azpgauth.tokens import Token, TokenSource


def source(**claims):
    return TokenSource(lambda: Token(fake_token(**claims), 9e9, None, 0))


def test_a_token_asked_for_ahead_is_fresh_once():
    login = TokenLogin(source(upn="ada"))
    login.prefetch()
    login.source.get()  # it has arrived by now
    assert [login.grant().fresh, login.grant().fresh] == [True, False]
    login.prefetch()
    assert not login.grant().fresh


def test_only_a_refusal_of_a_cached_token_is_worth_another_one():
    count = iter(range(100))
    login = TokenLogin(TokenSource(lambda: Token(fake_token(upn="a", n=next(count)), 9e9, None, 0)))
    fresh, cached = login.grant(), login.grant()
    assert login.regrant(fresh, "The access token has expired") is None
    assert login.regrant(cached, "Connection refused") is None
    assert login.regrant(cached, 'database "x" does not exist') is None
    again = login.regrant(cached, 'password authentication failed for user "a"')
    assert again is not None
    assert again.fresh
    assert again.password != cached.password


def test_the_explicit_role_wins_and_claims_are_not_read():
    login = TokenLogin(TokenSource(lambda: Token("no token at all", 9e9, None, 0)), role="team")
    assert login.grant().role == login.role == "team"


def test_the_management_scope_names_who_the_database_token_does_not():
    login = TokenLogin(source(), fallback=source(upn="ada"))
    assert login.role is None
    assert [login.grant().role, login.grant().role, login.role] == ["ada"] * 3


def test_nobody_names_the_role():
    def refuse():
        raise ValueError("no permission")

    login = TokenLogin(source(appid="1234"), fallback=TokenSource(refuse))
    with pytest.raises(RoleError, match=r"application id 1234.*AZPG_DATABASE_USER"):
        login.grant()


def test_a_source_that_fails_is_a_token_error():
    def refuse():
        raise ValueError("no identity")

    with pytest.raises(TokenError, match="no identity"):
        TokenLogin(TokenSource(refuse)).grant()


def test_reprs_show_no_secret():
    login = TokenLogin(source(upn="ada"))
    grant = login.grant()
    assert grant.password not in f"{login!r} {grant!r} {grant.token!r}"
    assert "hunter2" not in repr(StaticLogin("me", "hunter2"))
    assert StaticLogin("me", "hunter2").grant().password == "hunter2"
