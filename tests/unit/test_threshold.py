"""The rule `threshold`: when a share of failures is a breach, and what is said of it."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from watchdog.judge import threshold
from watchdog.judge.blocks import Blind, BlindReason, Block, Counts, Status, Verdict
from watchdog.judge.threshold import ThresholdSettings

SETTINGS = ThresholdSettings(
    step_s=15, max_ratio=0.05, max_times_stable=2, window_s=60, consecutive=2, min_requests=20, min_bad=5
)
AWAY = Blind(BlindReason.UNREACHABLE, "Prometheus does not answer")
BAD, GOOD = (100, 20), (100, 0)

Pair = tuple[float, float]

MIXED: list[Pair | Blind] = [GOOD, GOOD, GOOD, GOOD, AWAY]


def rollout(*candidate: Pair | Blind, stable: Pair | Sequence[Pair] = (1000, 1)) -> list[Block]:
    """Give one block per step; `stable` is the same in each, or one per step."""
    beside = [stable] * len(candidate) if isinstance(stable, tuple) else list(stable)
    return [
        Block(step, blind=given) if isinstance(given, Blind) else Block(step, Counts(*given), Counts(*beside[step]))
        for step, given in enumerate(candidate)
    ]


def judge(
    blocks: Sequence[Block],
    *,
    urgent: bool = False,
    baked_s: float | None = None,
    settings: ThresholdSettings = SETTINGS,
) -> Verdict:
    return threshold.judge(blocks, settings, signal="errors", urgent=urgent, baked_s=baked_s)


def test_two_steps_in_a_row_over_the_limit_are_a_breach() -> None:
    assert judge(rollout(BAD)).status is Status.INSUFFICIENT
    found = judge(rollout(GOOD, BAD, BAD))
    assert (found.status, found.cause, found.signal) == (Status.BREACH, "threshold", "errors")
    assert (found.candidate, found.stable) == (Counts(300, 40), Counts(3000, 3))


def test_the_numbers_are_in_the_sentence() -> None:
    found = judge(rollout(*[(183.75, 15.25)] * 4, stable=(1652.5, 6.6)))
    assert found.detail == "8.3 % of 735, limit 5.0 %; stable 0.4 % of 6610"


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((12, 6), "50.0 % of 12, limit 5.0 % from 20 requests on; no stable requests"),
        ((40, 4), "10.0 % of 40, limit 5.0 % from 5 failures on; no stable requests"),
        ((40, 1), "2.5 % of 40, limit 5.0 %; no stable requests"),
        ((0, 0), "0.0 % of 0, limit 5.0 % from 20 requests on; no stable requests"),
    ],
)
def test_what_is_lacking_is_said(counts: Pair, said: str) -> None:
    found = judge(rollout(GOOD, GOOD, GOOD, GOOD, *[counts, (0, 0), (0, 0), (0, 0)], stable=(0, 0)))
    assert (found.status, found.detail) == (Status.INSUFFICIENT, said)


@pytest.mark.parametrize(
    ("counts", "breach"), [((100, 5), False), ((100, 6), True), ((19, 19), False), ((80, 4), False)]
)
def test_limits_are_exceeded_not_met(counts: Pair, *, breach: bool) -> None:
    found = judge(rollout(counts, (0, 0), stable=(0, 0)))
    assert (found.status is Status.BREACH) is breach


def test_a_burst_that_left_the_window_is_forgotten() -> None:
    assert judge(rollout(BAD, *[(0, 0)] * 3)).status is Status.BREACH
    assert judge(rollout(BAD, *[(0, 0)] * 4)).status is Status.INSUFFICIENT


def test_a_window_is_rounded_up_to_steps() -> None:
    assert [SETTINGS.steps(seconds) for seconds in (1, 15, 15.1, 60, 61)] == [1, 1, 2, 4, 5]
    assert replace(SETTINGS, step_s=0.1).steps(0.3) == 3


def test_a_candidate_no_worse_than_twice_the_stable_pods_is_no_breach() -> None:
    assert judge(rollout(BAD, BAD, stable=(100, 10))).status is Status.INSUFFICIENT
    assert judge(rollout(BAD, BAD, stable=(100, 9))).status is Status.BREACH


def test_stable_pods_that_fail_the_same_limit_share_the_fault() -> None:
    assert judge(rollout(BAD, BAD, stable=(100, 9))).shared
    assert not judge(rollout(BAD, BAD, stable=(100, 2))).shared
    assert not judge(rollout(BAD, BAD, stable=(4, 4))).shared


def test_one_step_suffices_while_an_alert_fires() -> None:
    assert judge(rollout(BAD), urgent=True).status is Status.BREACH
    assert judge(rollout(GOOD), urgent=True).status is Status.INSUFFICIENT


def test_a_blind_block_is_never_a_breach_and_says_why() -> None:
    found = judge(rollout(BAD, BAD, AWAY), urgent=True)
    assert (found.status, found.blind, found.detail) == (Status.BLIND, AWAY, AWAY.detail)


def test_after_a_blind_block_it_takes_all_the_steps_again() -> None:
    assert judge(rollout(BAD, AWAY, BAD)).status is Status.INSUFFICIENT
    assert judge(rollout(BAD, AWAY, BAD, BAD)).status is Status.BREACH


def test_no_blocks_say_nothing() -> None:
    assert judge([]).status is Status.INSUFFICIENT
    assert judge([], urgent=True).status is Status.INSUFFICIENT


# The bake


def test_a_bake_without_a_breach_is_healthy() -> None:
    assert judge(rollout(*[GOOD] * 60), baked_s=900).status is Status.HEALTHY
    assert judge(rollout(*[GOOD] * 60)).status is Status.INSUFFICIENT


def test_a_bake_with_a_blind_block_here_and_there_is_healthy_even_at_its_end() -> None:
    assert judge(rollout(*[GOOD, *MIXED] * 10), baked_s=900).status is Status.HEALTHY


@pytest.mark.parametrize(
    ("blocks", "doubt"),
    [
        (rollout(*MIXED * 12, GOOD), "blind in 12 of the bake's 60 steps"),
        (rollout(*[GOOD] * 30), "blind in 30 of the bake's 60 steps"),
        (rollout(*[(0, 0)] * 50, *[(1, 0)] * 10), "10 requests in the bake, 20 are needed"),
        (rollout(BAD, BAD, *[GOOD] * 60), "it was in breach earlier"),
        (rollout(*[GOOD] * 59, (100, 30)), "this may be the beginning of a breach"),
        (rollout(*[(100, 30)] * 60, stable=(1000, 300)), "it fails the limit, and so do the stable pods"),
    ],
)
def test_a_bake_that_leaves_a_doubt_is_not_healthy(blocks: list[Block], doubt: str) -> None:
    found = judge(blocks, baked_s=900)
    assert found.status is Status.INSUFFICIENT
    assert found.detail.endswith(doubt)


def test_a_bake_that_ends_in_a_breach_is_a_breach_and_one_that_was_blind_is_blind() -> None:
    assert judge(rollout(*[GOOD] * 60, BAD, BAD, BAD), baked_s=900).status is Status.BREACH
    assert judge(rollout(*[AWAY] * 60), baked_s=900).status is Status.BLIND


# The time before


def test_a_workload_that_failed_before_the_rollout_says_so() -> None:
    calm, burst = (500, 1), (500, 120)
    said = threshold.failed_before(rollout(*[(0, 0)] * 9, stable=[calm, calm, burst, *[calm] * 6]), SETTINGS)
    assert said == "6.2 % of 2000 failed before the rollout began, limit 5.0 %"
    assert threshold.failed_before(rollout(*[(0, 0)] * 9, stable=calm), SETTINGS) == ""
    assert threshold.failed_before([], SETTINGS) == ""


# Whatever happens

COUNTS = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda each: (float(max(each)), float(min(each))))
BLOCKS = st.lists(st.tuples(COUNTS | st.just(AWAY), COUNTS), max_size=14).map(
    lambda pairs: rollout(*(pair[0] for pair in pairs), stable=[pair[1] for pair in pairs])
)


@given(BLOCKS)
def test_an_alert_only_makes_a_breach_come_earlier(blocks: list[Block]) -> None:
    if judge(blocks).status is Status.BREACH:
        assert judge(blocks, urgent=True).status is Status.BREACH


@given(BLOCKS)
def test_a_breach_always_has_the_numbers_for_it(blocks: list[Block]) -> None:
    found = judge(blocks)
    if found.status is Status.BREACH:
        assert found.candidate.total >= SETTINGS.min_requests
        assert found.candidate.bad >= SETTINGS.min_bad
        assert found.candidate.ratio > max(SETTINGS.max_ratio, 2 * found.stable.ratio)
        assert not any(block.blind for block in blocks[-SETTINGS.consecutive :])


@given(BLOCKS)
def test_nothing_older_than_window_and_steps_matters_to_a_breach(blocks: list[Block]) -> None:
    reach = SETTINGS.steps(SETTINGS.window_s) + SETTINGS.consecutive - 1
    assert (judge(blocks).status is Status.BREACH) == (judge(blocks[-reach:]).status is Status.BREACH)


@given(BLOCKS, st.integers(1, 300))
def test_a_healthy_bake_was_never_in_breach_and_mostly_seen(blocks: list[Block], baked_s: int) -> None:
    if judge(blocks, baked_s=baked_s).status is Status.HEALTHY:
        steps = math.ceil(baked_s / 15)
        assert sum(not block.blind for block in blocks[-steps:]) > 0.8 * steps
        assert all(judge(blocks[:end]).status is not Status.BREACH for end in range(len(blocks) + 1))


@given(BLOCKS)
def test_failures_of_the_candidate_never_count_as_failures_before(blocks: list[Block]) -> None:
    calm = [replace(block, stable=Counts()) for block in blocks]
    assert threshold.failed_before(calm, SETTINGS) == ""
