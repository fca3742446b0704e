"""Callers that stay away, and what only looks like it."""

import pytest
from msgspec.structs import replace

from watchdog.judge.blocks import Blind, BlindReason, Block, Counts, Status, Verdict
from watchdog.judge.starved import beside, judge, lowest

USUAL = 1000.0
QUIET = Block(1, Counts(4, 0), grace=Counts(1, 0), ready=True)


def said(blocks: list[Block], *, usual: float = USUAL, alone: bool = False) -> Verdict | None:
    return judge(blocks, usual, step_s=15, alone=alone, signal="errors")


def test_less_than_a_twentieth_of_the_quietest_two_minutes_is_a_breach_that_asks() -> None:
    found = said([QUIET] * 8)
    assert found
    assert (found.status, found.cause, found.candidate) == (Status.BREACH, "starved", Counts(40, 0))
    assert [each.guard for each in found.objections] == ["unconfirmed"]
    assert found.detail == "40 requests in the last 2 min, where the day before had 1000 and more"


@pytest.mark.parametrize(
    "block",
    [
        replace(QUIET, candidate=Counts(14, 0)),
        replace(QUIET, ready=False),
        replace(QUIET, old_live=True),
        replace(QUIET, blind=Blind(BlindReason.STALE, "no sample")),
    ],
    ids=["busy", "nothing ready", "old pods", "blind"],
)
@pytest.mark.parametrize("at", [0, 7])
def test_nothing_is_said_while_one_of_the_last_blocks_explains_it(block: Block, at: int) -> None:
    assert said([QUIET] * at + [block] + [QUIET] * (7 - at)) is None
    assert said([block, *[QUIET] * 8])


def test_two_minutes_have_to_be_over_and_the_workload_busy_enough() -> None:
    assert said([QUIET] * 7) is None
    assert said([replace(QUIET, candidate=Counts())] * 8, usual=49) is None
    assert said([replace(QUIET, candidate=Counts(), grace=Counts())] * 8, usual=50)


def test_old_pods_that_live_without_traffic_explain_nothing() -> None:
    assert said([replace(QUIET, old_live=True)] * 8, alone=True)


# -- beside old pods ---------------------------------------------------------------------------------------------------


def noted(mine: float, theirs: float, *, candidates: int = 1, stables: int = 3, blocks: int = 4) -> str:
    block = Block(1, Counts(mine, 0), Counts(theirs, 0), ready=True, old_live=True)
    return beside([block] * blocks, candidates=candidates, stables=stables, step_s=15)


def test_new_pods_that_get_less_than_a_twentieth_of_their_share_are_worth_a_note() -> None:
    assert noted(2, 200) == "the new pods get little traffic: 8 requests in a minute, where their share were 202"
    assert noted(3, 200) == ""


def test_nothing_is_noted_before_a_minute_or_with_few_requests_or_without_both_sides() -> None:
    assert noted(2, 200, blocks=3) == ""
    assert noted(0, 49) == ""
    assert noted(0, 200, candidates=0) == ""
    assert noted(0, 200, stables=0) == ""


# -- what is usual -----------------------------------------------------------------------------------------------------


def test_the_quietest_two_minutes_may_begin_at_any_block() -> None:
    blocks: list[float | None] = [100.0] * 30
    blocks[5:13] = [10.0] * 8
    assert lowest(blocks, [2000.0] * 12, block_s=15) == 80


def test_what_is_not_known_is_not_quiet() -> None:
    assert lowest([100.0] * 10 + [None] * 20 + [100.0] * 10, [None, *[2000.0] * 12], block_s=15) == 800


def test_of_the_time_before_the_quietest_five_minutes_count_by_their_share() -> None:
    assert lowest([100.0] * 20, [2000.0] * 11 + [500.0], block_s=15) == 200


def test_less_than_an_hour_is_too_little_to_know() -> None:
    assert lowest([100.0] * 200, [2000.0] * 11, block_s=15) is None
    assert lowest([], [2000.0] * 12, block_s=60) == 800
