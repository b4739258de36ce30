"""What an error tracker or a log would store of a failure, to look for secrets in it."""

import traceback


def whole(error):
    """Messages, causes, attributes, and the locals of each frame, but for those of the tests."""
    seen, parts, todo = set(), [], [error]
    while todo:
        exc = todo.pop()
        if exc is None or id(exc) in seen:
            continue
        seen.add(id(exc))
        parts += [str(exc), repr(exc), repr(vars(exc))]
        for frame, _ in traceback.walk_tb(exc.__traceback__):
            if "/tests/" not in frame.f_code.co_filename:
                for name, value in frame.f_locals.items():
                    parts.append(f"{name}={value!r}")
        todo += [exc.__cause__, exc.__context__]
    return "\n".join(parts)
