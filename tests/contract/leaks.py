"""What an error tracker would store of a failure, to look for secrets in it.

Such a tool does not call the `__repr__` of a mapping or a list, whatever its class: it walks them
item by item. Objects it shows as their own `__repr__` does; one that has none it walks by its
attributes, as it walks a dataclass by the fields that its repr shows.
"""

import dataclasses
import pickle
import traceback
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path

TESTS = str(Path(__file__).parent.parent)
PLAIN = (str, bytes, bytearray, int, float, complex, bool, type(None), type)


def leaked(error, *secrets):
    """Where in a failure secrets show; an empty list if nowhere.

    Args:
        error: The exception, with all that led to it.
        *secrets: What must not show.
    """
    forms = [form for secret in map(str, secrets) for form in {secret, repr(secret)[1:-1]}]
    return [where for where, text in stored(error) if any(form in text for form in forms)]


def whole(error):
    """All that a tracker would store of a failure, as one text."""
    return "\n".join(f"{where}={text}" for where, text in stored(error))


def stored(error):
    """Texts with their places: of each exception of the chain, and the locals of its frames."""
    seen, todo = set(), [(type(error).__name__, error)]
    while todo:
        name, exc = todo.pop()
        if exc is None or id(exc) in seen:
            continue
        seen.add(id(exc))
        yield from _exception(name, exc)
        for frame, line in traceback.walk_tb(exc.__traceback__):
            code = frame.f_code
            if not code.co_filename.startswith(TESTS):
                place = f"{name}: {code.co_filename}:{line} {code.co_name}"
                for local, value in frame.f_locals.items():
                    yield from walked(f"{place}: {local}", value)
        todo += [(f"{name}.__cause__", exc.__cause__), (f"{name}.__context__", exc.__context__)]
        todo += [
            (f"{name}.exceptions[{at}]", each)
            for at, each in enumerate(getattr(exc, "exceptions", ()))
        ]


def _exception(name, exc):
    yield f"str({name})", str(exc)
    yield f"repr({name})", repr(exc)
    yield from walked(f"{name}.args", exc.args)
    yield from walked(f"vars({name})", vars(exc))
    yield f"report({name})", "".join(traceback.format_exception_only(type(exc), exc))
    for attribute in ("errors", "json"):  # pydantic's
        method = getattr(exc, attribute, None)
        if callable(method):
            yield from walked(f"{name}.{attribute}()", method())
    try:
        yield f"pickle({name})", pickle.dumps(exc).decode("latin-1")
    except Exception:  # noqa: BLE001 - what cannot be pickled is stored by nobody
        return


def walked(where, value, seen=None, depth=0):
    """The texts that are stored of one value, with their places.

    Args:
        where: What it is called.
        value: The value.
        seen: What was walked already, by its id.
        depth: How deep this is.
    """
    seen = {} if seen is None else seen
    if isinstance(value, PLAIN) or depth > 20:
        yield where, repr(value)
        return
    if id(value) in seen or len(seen) > 20_000:
        return
    seen[id(value)] = value  # kept, so that no other object gets its id
    whole_repr, parts = _parts(value)
    if whole_repr:
        yield where, repr(value)
    for name, part in parts:
        yield from walked(f"{where}{name}", part, seen, depth + 1)


def _parts(value):
    """Whether an object's own repr is stored, and the parts that are walked, with their names."""
    if isinstance(value, Mapping):
        items = list(value.items())
        return False, [
            *((f": key {at}", key) for at, (key, _) in enumerate(items)),
            *((f"[{key!r}]", item) for key, item in items),
        ]
    if isinstance(value, (list, tuple, AbstractSet)):
        parts = [(f"[{at}]", item) for at, item in enumerate(value)]
        return False, [*parts, *_attributes(value)]
    if dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value) if field.repr]
        return True, [(f".{name}", getattr(value, name, None)) for name in fields]
    if isinstance(value, BaseException) or has_own_repr(value):
        return True, []
    return False, list(_attributes(value))


def has_own_repr(value):
    """Whether an object says itself how it is shown."""
    return type(value).__repr__ is not object.__repr__


def _attributes(value):
    yield from [(f".{name}", part) for name, part in getattr(value, "__dict__", {}).items()]
    for base in type(value).__mro__:
        slots = base.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            private = slot.startswith("__") and not slot.endswith("__")
            name = f"_{base.__name__.lstrip('_')}{slot}" if private else slot
            if slot not in {"__dict__", "__weakref__"}:
                with suppress(Exception):  # a slot may be empty, or a property lie over it
                    yield f".{name}", getattr(value, name)
