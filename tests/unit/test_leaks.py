"""The walk over a failure finds what is planted, in each place where a tracker would look."""

import sys
from dataclasses import dataclass, field
from types import MappingProxyType

import pytest
from leaks import leaked, walked

SECRET = "hunter2"


class Attribute:
    def __init__(self, held):
        self.held = held


class Slots:
    __slots__ = ("__held",)

    def __init__(self, held):
        self.__held = held


class Hiding(dict):
    def __repr__(self):
        return "hidden"


class HidingList(list):
    def __repr__(self):
        return "hidden"


class OwnRepr(Attribute):
    def __repr__(self):
        return "hidden"


@dataclass
class Shown:
    held: object


@dataclass
class Kept:
    held: object = field(repr=False)


@dataclass
class HidingItems:
    held: Hiding


def places():
    return {
        "a string": SECRET,
        "bytes": SECRET.encode(),
        "an item": {"a": SECRET},
        "a key": {SECRET: 1},
        "an item within": {"a": [{"b": (SECRET,)}]},
        "a tuple": (SECRET,),
        "a set": {SECRET},
        "a frozen set": frozenset({SECRET}),
        "an item of a dict that hides it": Hiding(a=SECRET),
        "an item of a list that hides it": HidingList([SECRET]),
        "an item of a mapping proxy": MappingProxyType({"a": SECRET}),
        "an attribute": Attribute(SECRET),
        "an attribute within": Attribute([Attribute(SECRET)]),
        "a slot": Slots(SECRET),
        "a field": Shown(SECRET),
        "a dict in a field": HidingItems(Hiding(a=SECRET)),
    }


@pytest.mark.parametrize("place", places())
def test_a_planted_secret_is_found(place):
    assert any(SECRET in text for _, text in walked("local", places()[place]))
    error = ValueError("no")
    error.held = places()[place]
    assert leaked(error, SECRET)


@pytest.mark.parametrize(
    "held", [OwnRepr(SECRET), Kept(SECRET), [OwnRepr(SECRET)], {"a": Kept(SECRET)}, lambda: SECRET]
)
def test_what_says_itself_how_it_is_shown_is_believed(held):
    assert not [text for _, text in walked("local", held) if SECRET in text]


def failing(held):
    """A failure with this in a local of a frame that is not a test's."""
    code = compile("def f(held):\n    raise ValueError('no')\n", "/elsewhere/module.py", "exec")
    names = {}
    exec(code, names)  # noqa: S102 - a frame from elsewhere
    try:
        names["f"](held)
    except ValueError as exc:
        return exc


@pytest.mark.parametrize("place", places())
def test_a_local_of_any_frame_is_looked_at(place):
    assert leaked(failing(places()[place]), SECRET)
    assert leaked(failing({}), SECRET) == []


def test_the_whole_chain_is_looked_at():
    for name in ("__cause__", "__context__"):
        error = ValueError("no")
        setattr(error, name, failing([SECRET]))
        assert leaked(error, SECRET)
        assert name in " ".join(leaked(error, SECRET))
    error.__cause__, error.__context__ = error, error  # a circle has an end
    assert leaked(error, SECRET) == []


@pytest.mark.parametrize(
    "error", [ValueError(SECRET), ValueError({"a": SECRET}), OSError(1, SECRET)]
)
def test_arguments_are_looked_at(error):
    assert leaked(error, SECRET)


def test_a_pickle_is_looked_at():
    assert any(where.startswith("pickle(") for where in leaked(ValueError(Kept(SECRET)), SECRET))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions have no notes")
def test_notes_are_looked_at():
    error = ValueError("no")
    error.add_note(SECRET)
    assert leaked(error, SECRET)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there are no groups")
def test_the_members_of_a_group_are_looked_at():
    group = ExceptionGroup("several", [failing([SECRET])])  # noqa: F821 - 3.11
    assert leaked(group, SECRET)
