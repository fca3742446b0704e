"""Instant-vector selectors of PromQL: read from a configuration, narrowed, and written again.

A value becomes part of a query here and nowhere else, so that no label of an alert and no name of a pod can be read as
PromQL.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping

import msgspec
import promql_parser

from watchdog.expressions import BadExpression, matcher

Matcher = tuple[str, str, str]
"""A label, an operator (``=``, ``!=``, ``=~``, ``!~``) and a value."""

NAME = "__name__"
LONGEST = 2000

_OPERATORS = {"MatchOp.Equal": "=", "MatchOp.NotEqual": "!=", "MatchOp.Re": "=~", "MatchOp.NotRe": "!~"}
_METRIC = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)?")
_RESERVED = frozenset(
    {"anchored", "atan2", "bool", "group_left", "group_right", "ignoring", "inf", "nan", "on", "smoothed"}
)
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_UNSAFE = re.compile("[\ud800-\udfff\ufffd]")
_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$]")
_EXAMPLE = 'write a selector such as http_requests_total{code="500"}'
_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"' + r"|'(?:\\.|[^'\\])*'")


def is_label(name: str) -> bool:
    """Whether every Prometheus takes this as a label's name, without quotes."""
    return _LABEL.fullmatch(name) is not None


class Selector(msgspec.Struct, frozen=True):
    """One metric, and the matchers its series fulfil.

    Args:
        metric: its name; empty for any.
        matchers: in the order written; none of them on the name.
    """

    metric: str
    matchers: tuple[Matcher, ...] = ()

    def text(self, *extra: Matcher) -> str:
        """Write it in PromQL, with more matchers."""
        plain = _METRIC.fullmatch(self.metric) is not None and self.metric.lower() not in _RESERVED
        parts = [*(() if plain else ((NAME, "=", self.metric),)), *self.matchers, *extra]
        inside = ",".join(f"{_label(label)}{operator}{quoted(value)}" for label, operator, value in parts)
        return (self.metric if plain else "") + (f"{{{inside}}}" if inside else "")


def quoted(value: str) -> str:
    """Write a string in PromQL."""
    # Not in ASCII: Prometheus takes no pairs of surrogates. A lone one is U+FFFD to it, which it takes only escaped.
    return _UNSAFE.sub(r"\\ufffd", json.dumps(value, ensure_ascii=False))


def _label(name: str) -> str:
    return name if is_label(name) else quoted(name)


def in_list(label: str, values: Iterable[str], *, then: str = "") -> Matcher:
    """Match a label that has one of these values, whatever characters they hold, and `then` that expression."""
    # Prometheus anchors every expression at both ends.
    return label, "=~", "|".join(_SPECIAL.sub(r"\\\g<0>", value) + then for value in values)


def narrows(bad: Selector, total: Selector) -> bool:
    """Whether `bad` is `total` plus matchers: then it has a series only where `total` has one."""
    return bad.metric == total.metric and set(bad.matchers) >= set(total.matchers)


def tester(selector: Selector) -> Callable[[Mapping[str, str]], bool]:
    """Give the question whether a series of that metric has these labels, as Prometheus answers it.

    An absent label is an empty one, and an expression must match the whole value.

    Raises:
        ValueError: an expression cannot be read; says which.
    """
    tests = [(label, _test(operator, value)) for label, operator, value in selector.matchers]
    return lambda labels: all(test(labels.get(label, "")) for label, test in tests)


def _test(operator: str, value: str) -> Callable[[str], bool]:
    if operator in ("=", "!="):
        return lambda found: (found == value) is (operator == "=")
    try:
        fits = matcher(value)
    except BadExpression as error:
        raise ValueError(f"has the expression {value!r}, which is not RE2's ({error}); write it more simply") from None
    return lambda found: fits(found) is (operator == "=~")


def parse(text: str) -> Selector:
    """Read an instant-vector selector.

    Raises:
        ValueError: it is something else; says what is wrong with it and what to write instead.
    """
    if len(text) > LONGEST:  # the parser ends the process where too much is nested
        raise ValueError(f"has more than {LONGEST:,} characters; {_EXAMPLE}")
    if "`" in _QUOTED.sub("", text):  # the parser reads escapes in it, which Prometheus does not
        raise ValueError('has a string in backticks; write it in double quotes, and each \\ in it as "\\\\"')
    try:
        expression = promql_parser.parse(text)
    except ValueError as error:
        problem = str(error).partition("\n")[0][:200]
        raise ValueError(f"is not PromQL ({problem}); {_EXAMPLE}") from None
    found = _first(expression)
    if found is None:
        raise ValueError(f"selects nothing; {_EXAMPLE}")
    selector = _selector(found)
    if type(expression) is not promql_parser.VectorSelector:
        kind = "a range" if isinstance(expression, promql_parser.MatrixSelector) else "a calculation"
        raise ValueError(f"is {kind}; write the bare counter: {selector.text()}; the service takes differences itself")
    if found.offset is not None or found.at is not None:
        raise ValueError(f"has an offset or @; write {selector.text()}; the service sets the time itself")
    return selector


def _first(expression: promql_parser.Expr) -> promql_parser.VectorSelector | None:
    """The first selector in an expression; the library's own walk takes cubic time."""
    pending: list[object] = [expression]
    while pending:
        node = pending.pop()
        if isinstance(node, promql_parser.VectorSelector):
            return node
        pending += [getattr(node, part) for part in ("rhs", "lhs", "expr", "vector_selector") if hasattr(node, part)]
        pending += reversed(getattr(node, "args", ()))
    return None


def _selector(found: promql_parser.VectorSelector) -> Selector:
    if found.matchers.or_matchers:
        raise ValueError('joins matchers with "or"; write one matcher with alternatives: label=~"a|b"')
    matchers = [(matcher.name, _OPERATORS[str(matcher.op)], matcher.value) for matcher in found.matchers.matchers]
    if found.name:
        matchers.insert(0, (NAME, "=", found.name))
    names = [matcher for matcher in matchers if matcher[0] == NAME]
    if len(names) != 1 or names[0][1] != "=" or not names[0][2]:
        raise ValueError(f"does not name one metric; {_EXAMPLE}")
    return Selector(names[0][2], tuple(matcher for matcher in matchers if matcher[0] != NAME))
