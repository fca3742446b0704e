"""Regular expressions of others, read by RE2 as Prometheus and Alertmanager read them.

Python's own engine goes back and tries again: one expression of twenty characters can hold the event loop for hours.
RE2 takes time in proportion to the text, whatever the expression.
"""

from collections.abc import Callable
from functools import lru_cache

import re2

LONGEST = 4096
_MOST_BYTES = 1 << 18
_MOST_CLASSES = 8


class BadExpression(ValueError):
    """Raised for what RE2 cannot read, and for more than it may have to remember; its text is one line."""


def matches(expression: str, text: str) -> bool:
    """Whether an expression matches the whole of a text.

    Raises:
        BadExpression: it is none, or it is too long.
    """
    return matcher(expression)(text)


def matcher(expression: str) -> Callable[[str], bool]:
    """Give the question whether a text is matched from its beginning to its end; a dot matches a line's end, too.

    Raises:
        BadExpression: as `matches` does.
    """
    found = _compiled(expression)
    if isinstance(found, str):
        raise BadExpression(found)
    return found


@lru_cache(maxsize=4096)
def _compiled(expression: str) -> Callable[[str], bool] | str:
    """The same, or why not; either is remembered, since others may send it again and again."""
    if len(expression) > LONGEST:
        return f"it has more than {LONGEST:,} characters"
    if expression.count("\\p") + expression.count("\\P") > _MOST_CLASSES:  # each has hundreds of ranges
        return f"it has more than {_MOST_CLASSES} Unicode classes"
    options = re2.Options()
    options.log_errors = False  # it would write to standard error, past the log
    options.max_mem = _MOST_BYTES
    options.dot_nl = True
    options.never_capture = True
    try:
        compiled = re2.compile(expression.encode(errors="surrogatepass"), options)
    except re2.error as error:
        return _line(error)
    return lambda text: compiled.fullmatch(text.encode(errors="surrogatepass")) is not None


def _line(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
    return " ".join(text.split())[:200] or "RE2 cannot read it"
