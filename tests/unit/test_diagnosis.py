"""What a failure means, as data: in errors, in the server's words, in the authority's."""

import copy
import pickle

import pytest

from azpgauth.errors import ConnectError, RoleError, TokenError
from azpgauth.identity.diagnosis import ROWS as AUTHORITY
from azpgauth.identity.diagnosis import needs_loop, no_token
from azpgauth.server.diagnosis import diagnose, mends
from azpgauth.server.options import alter_role, as_words, parsed
from azpgauth.server.words import ROWS


@pytest.mark.parametrize(
    ("message", "layer", "mended_by"),
    [
        ("FATAL: The access token has expired", "identity", {"token"}),
        ('FATAL: password authentication failed for user "a"', "identity", {"token"}),
        ("FATAL: Some new words on an access token", "identity", {"token"}),
        ('FATAL: role "a" does not exist', "identity", set()),
        ('FATAL: database "a" does not exist', "database", set()),
        ("SSL error: certificate verify failed", "tls", {"roots"}),
        ("certificate verify failed: certificate has expired", "tls", {"roots"}),
        ("certificate verify failed: Hostname mismatch, not for 'a'", "tls", set()),
        ('root certificate file "/x" does not exist', "tls", {"roots"}),
        ("server does not support SSL, but SSL was required", "tls", set()),
        ("Connection refused", "network", {"waiting", "host"}),
        ("[Errno -2] Name or service not known", "network", {"host"}),
        ("FATAL: sorry, too many clients already", "database", {"waiting", "host"}),
        ("FATAL: the database system is starting up", "database", {"waiting", "host"}),
        ("server closed the connection unexpectedly", "network", {"waiting", "host"}),
        ("timeout expired", "network", {"waiting", "host"}),
        ("words that nobody knows", "database", set()),
    ],
)
def test_what_may_mend_it(message, layer, mended_by):
    found = diagnose(message)
    assert (found.layer, found.mended_by) == (layer, mended_by)
    for mend in mended_by:
        assert mends(mend, message)
    for mend in {"waiting", "host"} - mended_by:
        assert not mends(mend, message)


def test_of_several_addresses_each_may_have_said_something_else():
    both = "[::1]: Connection refused; 127.0.0.1: password authentication failed"
    assert mends("token", both)
    assert not mends("waiting", both)
    other = "a: password authentication failed; b: certificate verify failed"
    assert mends("roots", other)
    assert mends("token", other)
    assert not mends("token", "Connection refused")
    assert mends("waiting", "the system is starting up: access token: timed out")


def test_every_row_says_what_it_means_and_what_to_do():
    for _, meaning in ROWS:
        assert meaning.cause
        assert meaning.remedy
    for _, cause, remedy in AUTHORITY:
        assert cause
        assert remedy


def test_a_role_is_quoted_for_where_it_stands():
    failed = 'FATAL: password authentication failed for user "o"'
    assert "principal('o''brien\"', false" in diagnose(failed, "o'brien\"").remedy
    assert (
        'alter role "o\'brien""" login'
        in diagnose('role "o" is not permitted to log in', "o'brien\"").remedy
    )
    assert "pgaadauth" not in diagnose(failed, "o", token=False).remedy


def pickled(error):
    return pickle.loads(pickle.dumps(error))  # noqa: S301 - our own


@pytest.mark.parametrize("kind", [ConnectError, RoleError, TokenError])
def test_an_error_is_made_from_what_it_means(kind):
    error = kind("it failed", cause="the \x1b[31m clock", remedy="set it", layer="tls")
    error.__cause__ = OSError("theirs")
    assert str(error) == "it failed\n  cause: the \\x1b[31m clock\n  to do: set it"
    assert (error.said, error.layer) == ("it failed", "tls")
    for other in (pickled(error), copy.copy(error), error.again()):
        assert type(other) is kind
        assert str(other) == str(error)
        assert (other.cause, other.remedy, other.layer) == (error.cause, error.remedy, "tls")
    assert error.again("later").said == "later"
    assert error.again().__cause__ is error.__cause__
    assert str(kind("it failed")) == "it failed"


def test_a_token_that_did_not_come_has_cause_and_remedy():
    error = no_token("ClientAuthenticationError: AADSTS7000215: Invalid client secret provided")
    assert error.cause == "the client secret is wrong, or has expired"
    assert "AZPG_CREDENTIAL_CLIENT_SECRET" in error.remedy
    assert error.layer == "identity"
    assert no_token("words that nobody knows").remedy
    assert "azure.identity" in needs_loop("Odd").remedy


def test_what_a_session_begins_with_as_statements():
    options = {
        "app.user": "x",
        "Search_Path": '"a,b", "$user", p',
        "local_preload_libraries": "a, b",
    }
    assert alter_role(options, "r") == (
        """alter role "r" set "app"."user" = 'x'; """
        """alter role "r" set Search_Path = 'a,b', '$user', 'p'; """
        """alter role "r" set local_preload_libraries = 'a', 'b'"""
    )
    assert alter_role({"search_path": ""}, "r") == """alter role "r" set search_path = ''"""


def test_blanks_of_other_scripts_are_no_blanks_to_the_server():
    assert parsed("-c a.b=c\u00a0d\t-c e.f=g") == {"a.b": "c\u00a0d", "e.f": "g"}
    assert parsed(as_words({"a.b": "c d\u00a0e"})) == {"a.b": "c d\u00a0e"}
