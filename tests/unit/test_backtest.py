"""The pure parts of `backtest`: which rollouts there were, what they were, what the rules did, and how fast."""

import datetime as dt
import time
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from benchmarks.checkers import GRID, rollbacks_s
from benchmarks.worlds import STEP_S, Seen
from tests.unit.builders import NOW, Scene, hash_of, history
from watchdog import config
from watchdog.backtest.competitors import PEERS, rollback_s
from watchdog.backtest.labels import Label, labelled
from watchdog.backtest.reading import batches
from watchdog.backtest.replay import Known, Replayed, replay
from watchdog.backtest.rollouts import PastRollout, Subject, Version, gone, replicaset_of, rollouts, versions
from watchdog.backtest.scene import PastPods, scene
from watchdog.backtest.summary import FindingOutcome, outcome, tallies
from watchdog.config import RuleName
from watchdog.decide import marks
from watchdog.engine.baselines import Baseline
from watchdog.judge.blocks import BlindReason, Counts, Reading, Sample, ScrapeTarget
from watchdog.judge.calibration import Reference
from watchdog.model import Guard, IncidentId, Objection, Topology
from watchdog.objects import REVISION, WorkloadRef

WEB = WorkloadRef("shop", "web")
STEP = 15.0
BEGAN = 1_800_000_000.0
MINUTE = 60.0
DAY = 86400.0
PAST = Baseline(
    reference=Reference(base=0.004, phi_concurrent=1.5, phi_historical=1.5, m_cap=None, known=True), told="a quiet day"
)

(POLICY,) = config.parse(
    """
    prometheus.url = "http://prometheus"
    [[policies]]
    name = "web"
    namespaces = ["shop"]
    rule = "sequential"
    [policies.signals.errors]
    bad = 'requests_total{code="500"}'
    total = "requests_total"
    """
).policies
SUBJECT = Subject(workload=WEB, policy=POLICY, topology=Topology.ROLLING, stable=WEB)


# -- which rollouts there were -----------------------------------------------------------------------------------------


def found(scene: Scene, *, lost: dict[str, float] | None = None, since_days: float = 30) -> dict[str, PastRollout]:
    """The rollouts of a workload, by the name of the ReplicaSet."""
    now = NOW.timestamp()
    known = versions(scene.snapshot, lost or {})
    return {
        each.version.name: each
        for each in rollouts(SUBJECT, scene.snapshot, known, since=now - since_days * DAY, now=now)
    }


def three(*, ages_days: Sequence[float] = (9, 6, 3)) -> Scene:
    """A Deployment of ten days with three versions of these ages."""
    scene = history("v1", "v2", "v3")
    scene.deployment["metadata"]["creationTimestamp"] = stamp(10)
    for version, age in zip(("v1", "v2", "v3"), ages_days, strict=True):
        scene.replicaset(version)["metadata"]["creationTimestamp"] = stamp(age)
    return scene


def stamp(days_ago: float) -> str:
    return f"{NOW - dt.timedelta(days=days_ago):%Y-%m-%dT%H:%M:%SZ}"


def name(version: str) -> str:
    return f"web-{hash_of(version)}"


def test_every_replicaset_is_a_rollout_until_its_longest_watch() -> None:
    rolled = found(three())
    assert list(rolled) == [name("v1"), name("v2"), name("v3")]
    assert [each.until - each.started for each in rolled.values()] == [float(POLICY.max_watch)] * 3
    assert [each.version.revisions for each in rolled.values()] == [(1,), (2,), (3,)]
    assert not any(each.returned for each in rolled.values())


def test_the_next_rollout_ends_the_one_before() -> None:
    rolled = found(three(ages_days=(9, 3.01, 3)))
    assert rolled[name("v2")].until == rolled[name("v3")].started


def test_the_first_version_of_a_deployment_is_no_rollout() -> None:
    assert list(found(three(ages_days=(10, 6, 3)))) == [name("v2"), name("v3")]


def test_what_is_older_than_asked_for_is_left_out() -> None:
    assert list(found(three(), since_days=7)) == [name("v2"), name("v3")]


def test_a_version_whose_successor_is_an_older_one_was_undone() -> None:
    scene = three()
    annotations = scene.replicaset("v1")["metadata"]["annotations"]
    annotations |= {REVISION: "3", "deployment.kubernetes.io/revision-history": "1"}
    scene.replicaset("v3")["metadata"]["annotations"][REVISION] = "4"
    rolled = found(scene)
    assert {key for key, each in rolled.items() if each.returned} == {name("v2")}
    assert rolled[name("v1")].version.revisions == (1, 3)
    assert rolled[name("v3")].condemned == {name("v2")}


def test_a_mark_of_the_watchdog_says_when_it_was_undone() -> None:
    scene = three()
    at = NOW - dt.timedelta(days=6) + dt.timedelta(minutes=3)
    mark = marks.LastRollback(IncidentId("web-2-0"), hash_of("v2"), hash_of("v1"), 2, 1, "us", "errors", at)
    scene.annotations[marks.LAST_ROLLBACK] = marks.write_last_rollback(mark)
    rolled = found(scene)
    assert {key: each.undone for key, each in rolled.items() if each.undone} == {name("v2"): at.timestamp()}


def test_replicasets_that_are_gone_come_from_kube_state_metrics() -> None:
    created = [({"namespace": "shop", "replicaset": each}, at) for each, at in (("web-0c0", 5.0), ("api-0c0", 6.0))]
    owners = [{"namespace": "shop", "replicaset": "web-0c0", "owner_name": "web"}]
    assert gone(created, owners) == {WEB: {"web-0c0": 5.0}}
    at = (NOW - dt.timedelta(days=8)).timestamp()
    rolled = found(three(), lost={"web-0c0": at, name("v2"): 0.0})
    assert list(rolled) == [name("v1"), "web-0c0", name("v2"), name("v3")]
    assert rolled["web-0c0"].version == Version(name="web-0c0", created=at)


@pytest.mark.parametrize(
    ("pod", "owner"),
    [
        ("web-5d8f7c9b4-x2x2x", "web-5d8f7c9b4"),
        ("web-canary-5d8f7c9b4-x2x2x", ""),
        ("web-5d8f7c9b4-x2x2xx", ""),
        ("web-0", ""),
        ("web-x2x2x", ""),
        ("", ""),
    ],
)
def test_a_pod_belongs_to_a_deployment_by_the_whole_of_its_name(pod: str, owner: str) -> None:
    assert replicaset_of(pod, WEB) == owner


def test_rollouts_of_an_hour_are_read_together_but_not_too_many() -> None:
    hour = BEGAN // 3600 * 3600
    some = [
        PastRollout(subject=SUBJECT, version=Version(name=f"web-{n}", created=hour + n), until=hour + 7200)
        for n in range(45)
    ]
    later = PastRollout(subject=SUBJECT, version=Version(name="web-z", created=hour + 3600), until=hour + 7200)
    assert [len(each.rollouts) for each in batches([later, *some])] == [20, 20, 5, 1]


# -- who was there -----------------------------------------------------------------------------------------------------


def rollout(*, minutes: float = 60, returned: bool = False) -> PastRollout:
    version = Version(name="web-2", created=BEGAN)
    return PastRollout(subject=SUBJECT, version=version, until=BEGAN + MINUTE * minutes, returned=returned)


def readings(
    *,
    share: float = 0.004,
    minutes: float = 60,
    leaves: float = 2,
    ends: float = 1e9,
    back: float = 1e9,
    falls: Sequence[int] = (),
    new: str = "web-2",
    hangs: float = 1e9,
) -> list[Reading]:
    """What Prometheus shows of five pods of v1, which five of v2 replace; each has 5 requests a second.

    Args:
        share: of v2's failures.
        minutes: of the whole.
        leaves: when v1 goes, in minutes.
        ends: when v2 does.
        back: when other pods of v1 come.
        falls: steps at which the counters of v2 begin anew.
        new: ReplicaSet of v2.
        hangs: when v2 finishes no request any more.
    """
    groups = (
        ("web-1", "o", -5760, leaves, 0.004),
        (new, "n", 2, ends, share),
        ("web-1", "b", back * 4, 1e9, 0.004),
    )
    result = []
    for index in range(round(minutes * 4) + 1):
        samples = []
        for owner, letter, first, end, bad in groups:
            last = min(index, end * 4)
            if first <= index <= end * 4 + 20:  # Prometheus shows a series for five minutes after its last sample
                since = max((fall for fall in (*falls, first) if fall <= last and owner == new), default=first)
                total = 75.0 * (min(last, hangs * 4) - since)
                for pod in range(5):
                    row = ScrapeTarget("shop", f"{owner}-{letter}pod{pod}", "app", f"10.0.0.{pod}:80", "web")
                    samples.append(Sample(row, total, float(int(total * bad)), BEGAN + last * STEP - 4))
        result.append(Reading(round(BEGAN / STEP) + index, tuple(samples)))
    return result


def look(read: Sequence[Reading], *, returned: bool = False) -> PastPods:
    return scene(rollout(returned=returned), read, step_s=STEP)


def test_the_version_with_most_pods_at_the_beginning_is_the_stable_one() -> None:
    there = look(readings())
    assert there.stable == "web-1"
    assert there.ready == BEGAN + 2 * STEP - 4
    assert len(there.pods) == 10


def test_the_watch_ends_a_bake_after_the_last_old_pod() -> None:
    there = look(readings(leaves=2))
    assert there.watched == BEGAN + 2 * MINUTE - 4 + float(POLICY.bake)
    assert (there.undone, there.over) == (None, BEGAN + 60 * MINUTE)


def test_an_undo_is_when_the_first_pod_of_an_older_version_comes_back() -> None:
    there = look(readings(ends=12, back=11.75))
    assert there.undone == there.over == there.watched == BEGAN + 11.75 * MINUTE - 4


def test_old_pods_that_come_while_the_new_version_stays_are_no_undo() -> None:
    assert look(readings(leaves=30, back=10)).undone is None


def test_a_version_that_ends_before_the_old_one_was_undone_if_the_numbers_say_so() -> None:
    read = readings(leaves=60, ends=8)
    assert look(read).undone is None
    assert look(read, returned=True).undone == BEGAN + 8 * MINUTE - 4


def test_a_counter_that_falls_now_and_then_has_restarted() -> None:
    there = look(readings(falls=(60, 100)))
    restarts = {pod.name: [each.step for each in pod.restarts] for pod in there.pods if pod.restarts}
    first = round(BEGAN / STEP)
    assert restarts == {f"web-2-npod{n}": [first + 60, first + 100] for n in range(5)}
    replayed = judged(readings(falls=(60, 100)))
    assert replayed.was.label is Label.GOOD
    assert replayed.lived.total == 75 * 5 * (238 - 2)  # what came after the last sample before a restart is lost


def test_a_counter_that_falls_again_and_again_is_not_believed() -> None:
    read = readings(falls=range(10, 240, 3))
    assert [pod for pod in look(read).pods if pod.restarts] == []
    was = judged(read).was
    assert was.label is Label.UNKNOWN
    assert f"blind in 231 of 241 steps: {BlindReason.NOT_MONOTONIC}: counters of pod web-2-npod0 went down" in was.why


# -- what it was -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lived", "beside", "undone", "expected"),
    [
        (Counts(1000, 4), Counts(), None, Label.GOOD),
        (Counts(1000, 50), Counts(), None, Label.BAD),
        (Counts(1000, 4), Counts(), 720, Label.BAD),
        (Counts(1000, 50), Counts(1000, 40), None, Label.GOOD),
        (Counts(1000, 50), Counts(10, 5), None, Label.BAD),
        (Counts(19, 19), Counts(), None, Label.UNKNOWN),
        (Counts(19, 19), Counts(), 720, Label.UNKNOWN),
        (Counts(1000, 15), Counts(), None, Label.GOOD),
        (Counts(20, 4), Counts(), None, Label.GOOD),
    ],
    ids=[
        "as usual",
        "clearly more failures",
        "undone, whatever it counted",
        "an outage of all",
        "too few stable requests to excuse it",
        "too few requests",
        "undone with too few requests",
        "more, but not beyond doubt",
        "too few failures",
    ],
)
def test_a_rollout_is_labelled(lived: Counts, beside: Counts, undone: float | None, expected: Label) -> None:
    found = labelled(undone_after_s=undone, lived=lived, beside=beside, past=PAST.reference)
    assert found.label is expected


# -- what the rules did ------------------------------------------------------------------------------------------------


def judged(read: Sequence[Reading], *, past: Baseline = PAST, returned: bool = False) -> Replayed:
    there = look(read, returned=returned)
    known = {"errors": Known(past=past, bad_known=True)}
    return replay(rollout(returned=returned), there, {"errors": read}, known, step_s=STEP)


def test_a_bad_version_is_caught_and_a_good_one_passes() -> None:
    bad, good = judged(readings(share=0.2, ends=12, back=12)), judged(readings())
    assert (outcome(bad, RuleName.SEQUENTIAL), outcome(bad, RuleName.THRESHOLD)) == (
        FindingOutcome.CAUGHT,
        FindingOutcome.CAUGHT,
    )
    assert {outcome(good, rule) for rule in (*RuleName, *(each.name for each in PEERS))} == {FindingOutcome.PASSED}
    ours = tallies([bad, good])[0]
    assert (ours.caught, ours.missed, ours.false, ours.open) == (1, 0, 0, 0)


def test_a_canary_is_judged_beside_the_pods_of_the_other_deployment() -> None:
    canary = WorkloadRef("shop", "web-canary")
    subject = msgspec.structs.replace(SUBJECT, workload=canary, topology=Topology.CANARY)
    version = Version(name="web-canary-2", created=BEGAN)
    rolled = PastRollout(subject=subject, version=version, until=BEGAN + 60 * MINUTE)
    read = readings(share=0.083, leaves=60, new="web-canary-2")
    there = scene(rolled, read, step_s=STEP)
    assert (there.stable, there.watched) == ("web-1", (there.ready or 0) + float(POLICY.bake))
    replayed = replay(rolled, there, {"errors": read}, {"errors": Known(past=PAST, bad_known=True)}, step_s=STEP)
    assert replayed.controls == ("concurrent",)
    assert outcome(replayed, RuleName.SEQUENTIAL) is FindingOutcome.CAUGHT
    assert replayed.points[-1].stable.total == 375


def test_an_incident_that_began_before_only_asks() -> None:
    first = Objection(Guard.INCIDENT_FIRST, "40 of 900 failed before")
    replayed = judged(readings(share=0.2), past=Baseline(reference=PAST.reference, told="", incident_first=first))
    assert {outcome(replayed, rule) for rule in RuleName} == {FindingOutcome.ASKED}
    assert all(each.why.startswith("incident-first") for each in replayed.ours)


def test_a_version_that_callers_stay_away_from_is_asked_about() -> None:
    read = readings(hangs=6)
    quiet = judged(read, past=msgspec.structs.replace(PAST, lowest=3000.0))
    (ours,) = (each for each in quiet.ours if each.rule == RuleName.SEQUENTIAL)
    assert (ours.acted, outcome(quiet, RuleName.SEQUENTIAL)) == (None, FindingOutcome.FALSE_ASKED)
    assert ours.why.startswith("unconfirmed: 0 requests in the last 2 min")
    assert outcome(judged(read), RuleName.SEQUENTIAL) is FindingOutcome.PASSED


def test_what_comes_after_the_undo_saves_nothing() -> None:
    replayed = judged(readings(share=0.2, ends=12, back=12))
    for finding in (*replayed.ours, *replayed.peers):
        assert finding.acted is None or finding.acted <= replayed.over
        assert finding.saved_s == (replayed.over - finding.acted if finding.acted else 0)


def test_a_blind_rollout_is_unknown_and_says_why() -> None:
    nobody = [Reading(each.step, tuple(s for s in each.samples if "web-1" in s.row.pod)) for each in readings()]
    replayed = judged(nobody)
    assert (replayed.was.label, replayed.was.why) == (Label.UNKNOWN, "no pod of it has a series")
    assert outcome(replayed, RuleName.SEQUENTIAL) is FindingOutcome.UNKNOWN


# -- the rules of others -----------------------------------------------------------------------------------------------


def peer(start: str) -> float | None:
    checker = next(each for each in PEERS if each.name.startswith(start))
    return rollback_s(checker, BLOCKS, step_s=STEP)


BLOCKS = [*[Counts(100, 0)] * 8, *[Counts(100, 8)] * 72]
"""Good for two minutes, then 8 % fail for eighteen."""


def test_the_usual_pipeline_step_looks_once() -> None:
    assert peer("sleep 300") is None  # 4.8 % of the five minutes
    checker = PEERS[0]
    assert rollback_s(checker, BLOCKS[4:], step_s=STEP) == 300
    assert rollback_s(checker, [Counts(100, 0)] * 20 + [Counts(100, 100)] * 60, step_s=STEP) is None


def test_flagger_counts_failed_looks_for_good_and_acts_one_look_later() -> None:
    assert peer("Flagger 60 s/5, over 5%") == 120 + 5 * 60 + 60
    assert peer("Flagger 30 s/2, over 5%") == 120 + 2 * 30 + 30
    quiet = next(each for each in PEERS if each.name == "Flagger 30 s/2, over 1%")
    assert rollback_s(quiet, [Counts()] * 20, step_s=STEP) == 90  # no traffic is a failed look
    now_and_then = [Counts(100, 9), Counts(100, 9), *[Counts(100, 0)] * 8] * 4
    assert rollback_s(quiet, now_and_then, step_s=STEP) == 180 + 30


def test_argo_allows_three_failed_looks_and_takes_no_traffic_for_good() -> None:
    assert peer("Argo 30 s") == 120 + 4 * 30
    argo = next(each for each in PEERS if each.name.startswith("Argo 30 s"))
    assert rollback_s(argo, [Counts()] * 80, step_s=STEP) is None


def test_what_would_come_after_the_end_does_not_come() -> None:
    checker = next(each for each in PEERS if each.name == "Flagger 60 s/5, over 5%")
    assert rollback_s(checker, [Counts(10, 10)] * 24, step_s=STEP) == 360
    assert rollback_s(checker, [Counts(10, 10)] * 23, step_s=STEP) is None


def test_one_run_and_many_drawn_runs_are_checked_alike() -> None:
    rng = np.random.default_rng(7)
    total = rng.poisson(rng.choice([0.5, 20], size=(40, 1)), size=(40, 60))
    bad = rng.binomial(total, rng.choice([0.01, 0.05, 0.1, 0.5], size=(40, 1)))
    seen = Seen(total, bad, total, bad)
    for checker in (*PEERS, *GRID[::37]):
        for run, expected in enumerate(rollbacks_s(checker, seen).tolist()):
            blocks = [Counts(float(n), float(e)) for n, e in zip(total[run], bad[run], strict=True)]
            assert (rollback_s(checker, blocks, step_s=STEP_S) or 0) == expected


# -- how fast ----------------------------------------------------------------------------------------------------------


def test_a_hundred_rollouts_of_an_hour_take_seconds() -> None:
    read = readings(share=0.004)
    began = time.process_time()
    for _ in range(100):
        judged(read)
    assert time.process_time() - began < 12  # 3.2 s on one core of 2026
