"""Evaluations that are posted in batches, and what the rule makes of them."""

from collections.abc import Sequence

import pytest

from watchdog.judge.blocks import Counts, Status, Track, Verdict
from watchdog.judge.evaluations import Evaluation, EvaluationState, freeze_settings, step, verdict
from watchdog.judge.sequential import Control, SequentialSettings

C, S = Track.CANDIDATE, Track.STABLE


def settings(*, baseline: float = 0.01, signals: int = 1) -> SequentialSettings:
    return freeze_settings(step_s=15, baseline=baseline, alpha=0.01, alpha_alert=0.05, signals=signals, bake_s=900)


def batch(at: int, track: Track, bad: int, total: int) -> Evaluation:
    return Evaluation(id=f"{at}-{track}", step=at, track=track, total=total, bad=bad)


def judged(
    posted: Sequence[Evaluation], *, until: int = 40, held_to: SequentialSettings | None = None
) -> EvaluationState:
    state = EvaluationState()
    for at in range(1, until + 1):
        state = step(state, posted, held_to or settings(), at=at, alert=False)
    return state


def said(state: EvaluationState, *, alone: bool = False, baked: bool = False) -> Verdict | None:
    return verdict(state, settings(), alone=alone, baked=baked, least=20)


@pytest.mark.parametrize("order", [(5, 5), (5, 30), (30, 5)], ids=["at once", "stable last", "stable first"])
def test_a_version_that_fails_where_the_stable_one_does_not_is_a_breach_in_whichever_order_they_are_posted(
    order: tuple[int, int],
) -> None:
    found = said(judged([batch(order[0], C, 60, 100), batch(order[1], S, 3, 100)]))
    assert found
    assert (found.status, found.candidate, found.stable) == (Status.BREACH, Counts(100, 60), Counts(100, 3))
    assert "60 of 100 evaluations failed, of the stable version 3 of 100" in found.detail


def test_with_the_stable_version_beside_it_the_breach_is_acted_on_at_the_block_in_which_both_are_there() -> None:
    state = judged([batch(5, S, 3, 100), batch(9, C, 60, 100)])
    deciding = state.judged.deciding
    assert deciding
    assert (deciding.control, deciding.step, deciding.objections) == (Control.CONCURRENT, 9, ())


def test_two_versions_that_fail_equally_often_are_no_breach_however_long_it_goes_on() -> None:
    posted = [batch(at, track, 12, 100) for at in range(2, 400, 4) for track in (C, S)]
    assert said(judged(posted, until=400, held_to=settings(baseline=0.12))) is None


def test_without_evaluations_of_the_stable_version_a_person_is_asked() -> None:
    found = said(judged([batch(5, C, 60, 100)]))
    assert found
    assert [each.guard for each in found.objections] == ["no-history"]
    assert "post evaluations of the stable version" in found.objections[0].detail
    assert "none of the stable version were posted" in found.detail


def test_what_fails_as_often_as_the_configured_baseline_says_is_no_breach() -> None:
    posted = [batch(at, C, 10, 100) for at in range(2, 40, 3)]
    assert said(judged(posted, held_to=settings(baseline=0.1))) is None
    assert said(judged(posted, held_to=settings(baseline=0.01)))


def test_a_stable_version_that_fails_too_turns_acting_into_asking() -> None:
    found = said(judged([batch(5, S, 40, 100), batch(6, C, 95, 100)]))
    assert found
    assert found.objections[0].guard == "shared"
    assert "40 of 100 evaluations of the stable version failed, too" in found.objections[0].detail


def test_a_few_failures_of_few_cases_say_nothing() -> None:
    assert said(judged([batch(5, C, 2, 10), batch(5, S, 0, 30)])) is None


def test_the_more_signals_share_alpha_the_more_evidence_each_takes() -> None:
    assert settings(signals=2).bar > settings().bar


def test_nobody_evaluating_is_no_reason_for_anything_beside_other_signals() -> None:
    assert said(judged([])) is None
    assert said(judged([]), baked=True) is None


def test_as_the_only_signal_it_is_healthy_once_enough_were_good_and_not_before() -> None:
    words = [
        found.status if (found := said(judged(posted), alone=True, baked=baked)) else None
        for posted, baked in (([], True), ([batch(3, C, 0, 100)], False), ([batch(3, C, 0, 100)], True))
    ]
    assert words == [Status.INSUFFICIENT, Status.INSUFFICIENT, Status.HEALTHY]


@pytest.mark.parametrize(("batches", "bad"), [(1, 51), (10, 14)])
def test_it_takes_as_many_failures_as_the_documentation_says(batches: int, bad: int) -> None:
    for failing, expected in ((bad - 1, False), (bad, True)):
        ats = range(2, 2 + batches)
        posted = [each for at in ats for each in (batch(at, S, 3, 100), batch(at, C, failing, 100))]
        deciding = judged(posted).judged.deciding
        assert (deciding is not None and not deciding.objections) == expected


def test_with_an_alert_a_batch_that_is_in_is_judged_against_the_lower_bar_and_the_words_name_it() -> None:
    state = judged([batch(5, S, 3, 100), batch(9, C, 46, 100)], until=9)
    most = state.judged.evidence(Control.CONCURRENT).log_e
    assert settings().alert_bar <= most < settings().bar
    calm, urgent = (
        verdict(state, settings(), alone=True, baked=False, least=20, urgent=urgent) for urgent in (False, True)
    )
    assert calm
    assert urgent
    assert [each.guard for each in calm.objections] == ["no-history"], "only the baseline speaks, which never does more"
    assert (urgent.status, urgent.objections) == (Status.BREACH, ())
    assert urgent.detail.endswith("by those of the stable version, needed 40 : 1")


def test_with_an_alert_evaluations_that_are_as_good_as_the_stable_versions_are_no_breach() -> None:
    state = judged([batch(at, track, 3, 100) for at in range(2, 40, 4) for track in (C, S)])
    assert verdict(state, settings(), alone=False, baked=False, least=20, urgent=True) is None
