"""The rule `sequential`: its controls, vetoes and decision, and the calibration that it is frozen with."""

import pytest
from msgspec.structs import replace

from tests.unit.test_eprocess import S1, S2, S4
from watchdog.judge import calibration, objections, sequential
from watchdog.judge.blocks import Block, Counts, PodCounts
from watchdog.judge.objections import Bystander
from watchdog.judge.sequential import Control, Controls, Decision, SequentialSettings, SequentialState
from watchdog.model import Guard, Objection

SETTINGS = SequentialSettings(step_s=15, base=0.0056, phi_concurrent=1.5, phi_historical=1.5)


def play(
    rows: list[tuple[int, int, int, int, int]], settings: SequentialSettings = SETTINGS, *, others: Counts | None = None
) -> list[SequentialState]:
    state, found = SequentialState(), []
    for index, (n, e, ns, es, live) in enumerate(rows, start=1):
        block = Block(index, Counts(n, e), Counts(ns, es), ready=True, old_live=bool(live))
        seen = {each.name: others or Counts() for each in settings.bystanders}
        state = sequential.step(state, block, settings, bystanders=seen)
        found.append(state)
    return found


def first(states: list[SequentialState]) -> int | None:
    return next((index for index, state in enumerate(states, start=1) if state.crossed), None)


def reasons(state: SequentialState) -> set[Guard]:
    return {each.guard for each in state.deciding.objections} if state.deciding else set()


@pytest.mark.parametrize(("rows", "base", "at", "onset"), [(S1, 0.0056, 5, 2), (S2, 0.0056, 9, 6), (S4, 0.0073, 4, 2)])
def test_published_streams_are_acted_upon_in_the_published_block(
    rows: list[tuple[int, int, int, int, int]], base: float, at: int, onset: int
) -> None:
    states = play(rows, replace(SETTINGS, base=base))
    assert first(states) == at
    assert states[-1].decision is Decision.ACT
    assert states[-1].deciding
    assert (states[-1].deciding.control, states[-1].deciding.onset_s) == (Control.HISTORICAL, 15 * (onset - 1))


def test_a_canary_has_all_of_alpha_and_a_signal_its_share() -> None:
    alone = replace(SETTINGS, controls=Controls.CONCURRENT)
    assert alone.bar == pytest.approx(4.605170, abs=1e-6)
    assert SETTINGS.bar == pytest.approx(5.298317, abs=1e-6)
    assert replace(alone, signals=2).bar == SETTINGS.bar
    assert play([(50, 20, 450, 2, 1)] * 6, alone)[-1].decision is Decision.ACT


def test_old_pods_that_fail_too_turn_acting_into_asking_for_good() -> None:
    states = play([(40, 0, 60, 40, 1), *S4[1:], *[(15, 15, 0, 0, 0)] * 4])
    assert states[-1].decision is Decision.APPROVE
    assert reasons(states[-1]) == {Guard.SHARED}


def test_too_little_history_asks_and_the_concurrent_control_may_still_act() -> None:
    rows = [(150, 45, 0, 0, 0)] * 6 + [(50, 25, 450, 2, 1)] * 8
    states = play(rows, replace(SETTINGS, known=False))
    assert (states[5].decision, reasons(states[5])) == (Decision.APPROVE, {Guard.NO_HISTORY})
    assert states[-1].decision is Decision.ACT
    assert states[-1].deciding
    assert states[-1].deciding.control is Control.CONCURRENT


@pytest.mark.parametrize(("minutes", "decision"), [(5, Decision.ACT), (20, Decision.APPROVE)])
def test_a_failure_long_after_completion_is_asked_about(minutes: int, decision: Decision) -> None:
    states = play([(150, 0, 0, 0, 0)] * (4 * minutes) + [(150, 45, 0, 0, 0)] * 8)
    assert states[-1].decision is decision
    assert reasons(states[-1]) == (set() if decision is Decision.ACT else {Guard.LATE})


@pytest.mark.parametrize(("bad", "decision"), [(0, Decision.ACT), (30, Decision.APPROVE)])
def test_other_workloads_that_fail_too_turn_acting_into_asking(bad: int, decision: Decision) -> None:
    watched = tuple(Bystander(f"other-{index}", 0.005, 1.5) for index in range(3))
    states = play([(150, 45, 0, 0, 0)] * 8, replace(SETTINGS, bystanders=watched), others=Counts(300, bad))
    assert states[-1].decision is decision


def test_an_incident_before_the_rollout_is_found_at_the_published_number() -> None:
    found = [objections.incident_first(Counts(2400, bad), limit=0.015, phi=1.5) for bad in (61.0454, 61.04541)]
    assert [each is not None for each in found] == [False, True]


@pytest.mark.parametrize(
    ("pods", "chance", "trips"),
    [
        ([(100, 20), (110, 1), (90, 0)], 1.818954e-05, True),
        ([(100, 9), (110, 1), (90, 0)], 4.115226e-03, False),
        ([(50, 12)] + [(50, 0)] * 9, 1.0e-07, True),
    ],
)
def test_one_bad_pod_is_told_at_the_published_chance(pods: list[tuple[int, int]], chance: float, trips: bool) -> None:
    counts = [Counts(*each) for each in pods]
    assert objections.one_pod_chance(counts, counts[0], phi=1.5) == pytest.approx(chance, rel=1e-6)
    block = [PodCounts(f"web-{index}", each) for index, each in enumerate(counts)]
    assert (objections.one_pod([block], limit=0.0162, phi=1.5) is not None) is trips


def test_the_reference_is_the_published_one() -> None:
    bad = [15] * 140 + [600, 900, 30, 15] + [18] * 8 + [21] * 4
    windows = [Counts(3000, each) for each in bad]
    assert calibration.wilson_lower(2000, 14, z=2) == pytest.approx(0.004131426, abs=1e-9)
    assert calibration.base(windows, phi=1.5) == pytest.approx(0.006426445, abs=1e-9)
    assert calibration.base(windows[-40:], phi=1.5) == pytest.approx(0.279921872, abs=1e-9)


def test_the_sizes_of_clusters_are_the_published_ones() -> None:
    one = [Counts(150, 7 * i % 3 + (12 if i % 33 == 5 else 0)) for i in range(240)]
    three = [
        [Counts(50 + 10 * k, (5 * i + 3 * k) % 4 + (6 if (i + 7 * k) % 31 == 5 else 0)) for i in range(240)]
        for k in range(3)
    ]
    assert calibration.phis([one])[1] == pytest.approx(4.918671292, abs=1e-9)
    assert calibration.phis(three)[0] == pytest.approx(1.860447073, abs=1e-9)


def test_without_a_past_the_historical_control_only_asks() -> None:
    found = calibration.unknown()
    assert (found.base, found.phi_historical, found.m_cap, found.known) == (0.01, 3, 20, False)


BREWING = [(150, 0, 400, 2, 1)] * 2 + [(150, 13, 400, 2, 1)] * 3 + [(150, 0, 400, 2, 1)] * 8
"""Evidence that goes beyond the bar of an alert, never reaches the other, and falls again."""


def test_an_alert_has_the_evidence_that_is_in_judged_at_once_against_the_lower_bar() -> None:
    before = play(BREWING)[4]
    assert not before.crossed
    most = max(before.evidence(control).log_e for control in Control)
    assert SETTINGS.alert_bar <= most < SETTINGS.bar
    after = sequential.with_alert(before, SETTINGS)
    assert after.decision is Decision.ACT
    assert after.deciding
    assert (after.deciding.step, after.deciding.bar, after.deciding.log_e) == (5, SETTINGS.alert_bar, most)
    assert after.deciding.onset_s == 30, "with the third block"
    assert before.decision is Decision.NONE, "what follows from an alert is no part of the state"


def test_an_alert_that_speaks_for_nothing_in_the_counters_changes_nothing() -> None:
    for state in play([(150, 1, 400, 2, 1)] * 60):
        assert sequential.with_alert(state, SETTINGS) == state
    assert sequential.with_alert(SequentialState(), SETTINGS) == SequentialState()


def test_what_speaks_against_acting_speaks_against_it_at_the_lower_bar_too() -> None:
    first = Objection(Guard.INCIDENT_FIRST, "the old pods were failing")
    settings = replace(SETTINGS, incident_first=first)
    found = sequential.with_alert(play(BREWING, settings)[4], settings)
    assert (found.decision, reasons(found)) == (Decision.APPROVE, {Guard.INCIDENT_FIRST})


@pytest.mark.parametrize("heard", range(len(BREWING) + 1))
def test_whoever_replays_an_alert_that_came_between_two_blocks_decides_as_the_one_who_heard_it(heard: int) -> None:
    """Before the blocks after it are taken the alert is judged by those that were in."""
    live, replayed = SequentialState(), SequentialState()
    for index, (n, e, ns, es, up) in enumerate(BREWING, start=1):
        block = Block(index, Counts(n, e), Counts(ns, es), ready=True, old_live=bool(up))
        firing = index > heard
        live = sequential.with_alert(live, SETTINGS) if firing else live
        live = sequential.step(live, block, SETTINGS, alert=firing)
        replayed = sequential.step(replayed, block, SETTINGS, alert=firing)
        assert sequential.with_alert(live, SETTINGS) == sequential.with_alert(replayed, SETTINGS)
    assert live == replayed
    assert bool(live.crossed) == (heard <= 5)


def test_an_alert_never_raises_the_bar() -> None:
    assert SETTINGS.alert_bar == pytest.approx(3.688879, abs=1e-6)
    assert replace(SETTINGS, alpha_alert=0.001).alert_bar == SETTINGS.bar
