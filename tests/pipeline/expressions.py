"""The part of GitHub's expression language that the workflows use; what is not known is refused and never empty.

    github.event_name == 'push' && 'main' || github.ref

Contexts are nested mappings. A context that is `Open` has, as in life, an empty text for a name that nobody gave it; of
any other a missing name is an error, as it is a typing mistake of the workflow's author.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_TOKEN = re.compile(r"\s*(?:('(?:[^']|'')*')|(&&|\|\||==|!=|!|[().])|([A-Za-z_][\w-]*)|$)")
_WHOLE = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
_STATUS = re.compile(r"\b(success|failure|always|cancelled)\(\)")


class ExpressionError(Exception):
    """An expression says something that is not known here."""


class Open(dict[str, Any]):
    """A context in which a missing name is empty: `vars`, `secrets`, and the outputs of steps and jobs."""


Functions = Mapping[str, Callable[[], bool]]


def evaluate(text: str, contexts: Mapping[str, Any], functions: Functions | None = None) -> Any:
    """Return the value of an expression without its braces.

    Raises:
        ExpressionError: it has a name, a function or a form that is not known.
    """
    return _Parser(text, contexts, functions or {}).whole()


def fill(text: object, contexts: Mapping[str, Any], functions: Functions | None = None) -> str:
    """Return a text with the values of the expressions in it. Raises `ExpressionError`."""
    return _WHOLE.sub(lambda found: _text(evaluate(found[1], contexts, functions)), _text(text))


def condition(text: str | None, contexts: Mapping[str, Any], functions: Functions) -> bool:
    """Say whether an `if:` holds; without a function about the status it also asks for success(), as in life."""
    if text is None:
        return functions["success"]()
    stripped = str(text).strip()
    whole = _WHOLE.fullmatch(stripped)
    inner = whole[1] if whole else stripped
    if not _STATUS.search(inner) and not functions["success"]():
        return False
    return bool(evaluate(inner, contexts, functions))


class _Parser:
    """Precedence by recursion: or, and, equality, not, then a value."""

    def __init__(self, text: str, contexts: Mapping[str, Any], functions: Functions) -> None:
        self._text = text
        self._contexts = contexts
        self._functions = functions
        self._tokens = list(self._split(text))

    def whole(self) -> Any:
        value = self._or()
        if self._tokens:
            raise self._error(f"{self._tokens[0]!r} is not expected")
        return value

    def _split(self, text: str) -> Iterable[str]:
        at = 0
        while at < len(text.rstrip()):
            found = _TOKEN.match(text, at)
            if not found or not found[0].strip():
                raise self._error(f"{text[at:]!r} is not known")
            yield found[0].strip()
            at = found.end()

    def _or(self) -> Any:
        value = self._and()
        while self._taken("||"):
            other = self._and()
            value = value or other
        return value

    def _and(self) -> Any:
        value = self._equal()
        while self._taken("&&"):
            other = self._equal()
            value = other if value else value
        return value

    def _equal(self) -> Any:
        value = self._not()
        for sign in ("==", "!="):
            if self._taken(sign):
                same = _text(value).casefold() == _text(self._not()).casefold()
                return same if sign == "==" else not same
        return value

    def _not(self) -> Any:
        if self._taken("!"):
            return not self._not()
        if self._taken("("):
            value = self._or()
            self._expect(")")
            return value
        return self._value()

    def _value(self) -> Any:
        if not self._tokens:
            raise self._error("it ends too early")
        token = self._tokens.pop(0)
        if token.startswith("'"):
            return token[1:-1].replace("''", "'")
        if token in ("true", "false"):
            return token == "true"
        if self._taken("("):
            self._expect(")")
            if token not in self._functions:
                raise self._error(f"there is no function {token}()")
            return self._functions[token]()
        return self._path(token)

    def _path(self, name: str) -> Any:
        value: Any = self._contexts
        names = [name]
        while self._taken("."):
            names.append(self._tokens.pop(0))
        for each in names:
            if not isinstance(value, Mapping) or (each not in value and not isinstance(value, Open)):
                raise self._error(f"there is no {'.'.join(names)}")
            value = value.get(each, "")
        if isinstance(value, Mapping):
            raise self._error(f"{'.'.join(names)} is no value")
        return value

    def _taken(self, sign: str) -> bool:
        if self._tokens[:1] == [sign]:
            del self._tokens[0]
            return True
        return False

    def _expect(self, sign: str) -> None:
        if not self._taken(sign):
            raise self._error(f"{sign} is missing")

    def _error(self, why: str) -> ExpressionError:
        return ExpressionError(f"{self._text.strip()!r}: {why}")


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
