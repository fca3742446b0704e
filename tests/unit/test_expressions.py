"""Expressions of others: what they match, what cannot be read, and that none of them takes long."""

import time

import pytest

from watchdog.expressions import LONGEST, BadExpression, matches


@pytest.mark.parametrize(
    ("expression", "text", "fits"),
    [
        ("web|cart", "cart", True),
        ("web", "web-2", False),
        ("web.*", "web\nb", True),
        ("", "", True),
        ("^web$", "web", True),
        ("(?i)WEB", "web", True),
        ("[[:alpha:]]+", "web", True),
        ("\\pL+", "straße", True),
    ],
)
def test_an_expression_must_match_the_whole_text_as_prometheus_reads_it(expression: str, text: str, fits: bool) -> None:
    assert matches(expression, text) is fits


@pytest.mark.parametrize("expression", ["(", "a**", "(?=a)", "(a)\\1", "x{2000}", "a" * (LONGEST + 1), "\\PL" * 500])
def test_what_re2_cannot_read_is_an_error_of_one_line(expression: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadExpression) as caught:
        matches(expression, "web")
    assert 0 < len(str(caught.value)) <= 200
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("expression", ["((([a-zA-Z]+)+)+)+!", "(([a-zA-Z]+)+)+!", "(.*)*(.*)*(.*)*!", "(a|a)*b"])
def test_a_hostile_expression_takes_no_time(expression: str) -> None:
    began = time.process_time()
    assert not matches(expression, "aRollbackWatchdog" * 1000)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "expression", ["(.{1,1000})" * 300, "((a{1,31}){1,31})" * 100, "\\PL" * 1360, "(?i)[^k]" * 500]
)
def test_what_is_costly_to_read_is_read_once_and_its_refusal_is_remembered(expression: str) -> None:
    began = time.process_time()
    for _ in range(1000):
        try:
            matches(expression, "RollbackWatchdog")
        except BadExpression:
            continue
    assert time.process_time() - began < 1
