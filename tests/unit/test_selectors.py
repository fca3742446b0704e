"""Selectors: what is taken, what is refused with which cure, and that no value can leave its quotes."""

import re

import promql_parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog.selectors import LONGEST, Selector, in_list, narrows, parse

VALUES = st.text()
LABELS = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,9}", fullmatch=True).filter(lambda name: name != "__name__")
METRICS = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,9}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "selector"),
    [
        ("up", Selector("up")),
        ("job:errors:sum", Selector("job:errors:sum")),
        ('x{code=~"5..",path!="/health"}', Selector("x", (("code", "=~", "5.."), ("path", "!=", "/health")))),
        ("x{a='it\"s'}", Selector("x", (("a", "=", 'it"s'),))),
        ('{__name__="x",a="`"}', Selector("x", (("a", "=", "`"),))),
        ('{"On"}', Selector("On")),
        ('{"my.metric","my.label"="1"}', Selector("my.metric", (("my.label", "=", "1"),))),
    ],
)
def test_a_selector_is_read_and_written_again(text: str, selector: Selector) -> None:
    assert parse(text) == selector
    assert parse(selector.text()) == selector


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("rate(x[5m])", "is a calculation; write the bare counter: x; the service takes differences itself"),
        ('sum by (pod) (increase(x{a="1"}[5m] offset 1m))', 'write the bare counter: x{a="1"}; the'),
        ("histogram_quantile(0.9, x)", "write the bare counter: x;"),
        ("x / y", "write the bare counter: x;"),
        ("(x)", "write the bare counter: x;"),
        ("x[5m]", "is a range; write the bare counter: x;"),
        ("x[5m:1m]", "write the bare counter: x;"),
        ("x offset 5m", "has an offset or @; write x;"),
        ("x @ 3", "has an offset or @; write x;"),
        ('x{a="1" or a="2"}', 'joins matchers with "or"; write one matcher with alternatives'),
        ("x{a=`\\d`}", "has a string in backticks; write it in double quotes"),
        ('{a="1"}', "does not name one metric"),
        ('{__name__=~"x.*"}', "does not name one metric"),
        ('{__name__="",a="1"}', "does not name one metric"),
        ('{__name__="x",__name__!="y"}', "does not name one metric"),
        ("1", "selects nothing"),
        ("vector(1)", "selects nothing"),
        ("", "is not PromQL (no expression found in input); write a selector such as"),
        ("x{", "is not PromQL"),
        ('x{a="\ud800"}', "is not PromQL"),
        ("(" * LONGEST + "x", "has more than 2,000 characters"),
    ],
)
def test_what_is_no_selector_is_refused_with_its_cure(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        parse(text)


def test_the_deepest_expression_is_refused_in_time() -> None:
    with pytest.raises(ValueError, match="write the bare counter: x"):
        parse("-" * (LONGEST - 1) + "x")


@given(METRICS, st.dictionaries(LABELS, VALUES, max_size=3), st.sampled_from(["=", "!="]))
def test_every_value_survives_its_quotes(metric: str, labels: dict[str, str], operator: str) -> None:
    selector = Selector(metric, tuple((name, operator, value) for name, value in labels.items()))
    assert parse(selector.text()) == selector


@given(st.text(min_size=1), st.text(min_size=1))
def test_every_name_survives_its_quotes(metric: str, label: str) -> None:
    selector = Selector(metric, ((f"{label}!", "=", "1"),))
    assert parse(selector.text()) == selector


@given(st.lists(VALUES, min_size=1, max_size=4))
def test_a_list_is_one_matcher_whose_alternatives_match_themselves(values: list[str]) -> None:
    (matcher,) = parse(Selector("x").text(in_list("pod", values))).matchers
    assert matcher == in_list("pod", values)
    for value in values:
        assert re.fullmatch(matcher[2], value)


def test_a_list_matches_nothing_else() -> None:
    assert in_list("pod", ["web-1", "a.b|c"]) == ("pod", "=~", r"web-1|a\.b\|c")
    assert Selector("x").text(in_list("pod", ["a.b"])) == r'x{pod=~"a\\.b"}'


def test_a_lone_surrogate_is_written_as_what_prometheus_makes_of_it() -> None:
    assert Selector("x").text(("a", "=", "\ud800")) == r'x{a="\ufffd"}'
    assert parse(r'x{a="\ufffd"}').matchers == (("a", "=", "\ufffd"),)


def test_more_matchers_stand_behind_the_own_ones() -> None:
    text = parse('x{namespace="a"}').text(("namespace", "=~", "a|b"), ("b", "!~", "1"))
    assert text == 'x{namespace="a",namespace=~"a|b",b!~"1"}'
    assert isinstance(promql_parser.parse(text), promql_parser.VectorSelector)


@pytest.mark.parametrize(
    ("bad", "total", "narrower"),
    [
        ('x{code="500"}', "x", True),
        ('x{job="a",code="500"}', 'x{job="a"}', True),
        ("x", "x", True),
        ("errors", "x", False),
        ('x{code="500"}', 'x{job="a"}', False),
        ('x{job=~"a"}', 'x{job="a"}', False),
    ],
)
def test_bad_narrows_total_if_it_is_the_same_metric_with_more_matchers(bad: str, total: str, *, narrower: bool) -> None:
    assert narrows(parse(bad), parse(total)) is narrower
