"""Scoring: what counts as a good answer."""

from pathlib import Path
from typing import Any, Literal
from unittest.mock import AsyncMock

import pytest

from tests.evaluation.scoring import Case, parse_score, read_cases, score

CASES = Path(__file__).parents[1] / "evaluation" / "cases.json"


@pytest.mark.parametrize(
    ("check", "expected", "answer", "points"),
    [
        ("exact", "I do not know.", " i do  not know.\n", 1),
        ("exact", "I do not know.", "I do not know. Sorry.", 0),
        ("contains", "nine days", "It is kept for Nine\ndays.", 1),
        ("contains", "nine days", "Ten days.", 0),
    ],
)
async def test_a_text_is_compared_without_case_and_spaces(
    check: Literal["exact", "contains"], expected: str, answer: str, points: float
) -> None:
    unused: Any = AsyncMock()
    case = Case(name="n", message="m", check=check, expected=expected)
    assert await score(case, answer, client=unused, model="m") == points
    assert not unused.mock_calls


@pytest.mark.parametrize(
    ("text", "points"),
    [('{"score": 1}', 1), ('Well: {"score": 0.25}', 0.25), ('{"score": 1.7}', 1), ("great!", 0), ('{"score": -1}', 0)],
)
def test_a_judge_that_leaves_its_form_gives_nothing(text: str, points: float) -> None:
    assert parse_score(text) == points


def test_the_cases_use_every_check_and_each_has_a_name_of_its_own() -> None:
    cases = read_cases(CASES)
    assert {case.check for case in cases} == {"exact", "contains", "judged"}
    assert len({case.name for case in cases}) == len(cases) >= 10
