"""Which revision an undo goes to, held to every real kubectl that can be found.

Sixteen hundred random histories go through `kubectl rollout undo` and through `plan_undo`. They must do the same,
but for the deliberate differences, each of which is told from the history alone (tests/oracle/differences.py).
"""

import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec
import pytest

from tests.oracle import kubectl
from tests.oracle.differences import (
    Difference,
    as_go_reads,
    as_we_see,
    is_condemned,
    kubectl_choice,
    named_difference,
    owned,
    same_refusal,
    same_template,
    without_unknown_fields,
)
from tests.oracle.histories import (
    CHANGE_CAUSE,
    LAST_APPLIED,
    NOW,
    PAUSED_BY,
    REVISION,
    UNKNOWN_FIELD,
    History,
    Json,
    random_history,
)
from tests.oracle.kubectl import Answer, Did, Kubectl
from tests.unit import json_patch
from watchdog.decide.plan import Request, plan_undo
from watchdog.model import Cause, Guard, Objection, Undo
from watchdog.objects import Deployment, ReplicaSet, Snapshot

HISTORIES = 1600
BATCHES = 8
AT_LEAST = 5
"""How often each deliberate difference must have shown itself, for its absence elsewhere to mean something."""

LAST_ROLLBACK = "rollback-watchdog.io/last-rollback"


@dataclass(frozen=True)
class Case:
    """A history, and what one kubectl does with it: as it is, and as we see it."""

    seed: int
    version: str
    history: History
    theirs: Answer
    theirs_as_we_see: Answer

    def __str__(self) -> str:
        return f"random_history({self.seed}) {self.history.twists}, kubectl {self.version}: {self.theirs.said}"


@pytest.fixture(scope="module")
def cases() -> Sequence[Case]:
    """Every history with its answers."""
    kubectls = kubectl.find()
    if not kubectls:
        reason = "NO KUBECTL ORACLE: put a kubectl on PATH, or name some in KUBECTL_ORACLES, separated by colons"
        if os.environ.get("WATCHDOG_TESTS_REQUIRE_ALL") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    count = max(BATCHES, len(kubectls))
    batches = [range(first, HISTORIES, count) for first in range(count)]
    with kubectl.oracle() as oracle, ThreadPoolExecutor(max_workers=3) as pool:
        judges = itertools.cycle(kubectls)
        answered = pool.map(lambda judge, seeds: list(_answered(oracle, judge, seeds)), judges, batches)
        return [case for batch in answered for case in batch]


def _answered(oracle: kubectl.Oracle, judge: Kubectl, seeds: range) -> Iterator[Case]:
    histories = [random_history(seed) for seed in seeds]
    as_seen = {seed: as_we_see(history) for seed, history in zip(seeds, histories, strict=True)}
    differing = [seed for seed, history in zip(seeds, histories, strict=True) if as_seen[seed] != history]
    answers = oracle.ask(judge, [*histories, *(as_seen[seed] for seed in differing)])
    again = dict(zip(differing, answers[len(histories) :], strict=True))
    for seed, history, answer in zip(seeds, histories, answers, strict=False):
        yield Case(seed, judge.version, history, answer, again.get(seed, answer))


def test_an_undo_goes_where_kubectl_goes_or_differs_for_a_reason_with_a_name(
    cases: Sequence[Case], record_testsuite_property: Callable[[str, object], None]
) -> None:
    unexplained, outcomes, versions = list[str](), Counter[str](), Counter[str]()
    for case in cases:
        versions[case.version] += 1
        # A kubectl never sees what it does not know, and so judges the history without it.
        history = without_unknown_fields(case.history)
        ours, name = undo(history), named_difference(history)
        agree = agrees(ours, case.theirs, history)
        outcomes[f"agree: {case.theirs.did}" if agree else f"differ: {name}"] += 1
        if not agree and not is_what_the_name_says(name, ours, case, history):
            unexplained.append(f"{case}; ours: {said(ours)}; difference: {name}")
    record_testsuite_property("histories by version of kubectl", json.dumps(versions))
    record_testsuite_property("histories by outcome", json.dumps(outcomes))
    assert not unexplained, "\n".join([f"{len(unexplained)} unexplained", *unexplained, str(outcomes)])
    rare = [name for name in Difference if outcomes[f"differ: {name}"] < AT_LEAST]
    assert not rare, f"{rare} in {outcomes} on {versions}"


def test_a_forced_undo_goes_where_kubectl_goes_without_what_we_pass_over_and_without_the_pause(
    cases: Sequence[Case],
) -> None:
    compared = 0
    for case in cases:
        history = without_unknown_fields(case.history)
        ours = undo(history, force=True)
        refused = ours.guard if isinstance(ours, Objection) else None
        choice = kubectl_choice(as_we_see(history))
        only_annotations = choice is not None and same_template(choice, history.deployment, annotations=False)
        if refused is Guard.NOT_OBSERVED or (refused is Guard.NOTHING_TO_UNDO and only_annotations):
            continue
        assert agrees(ours, case.theirs_as_we_see, history), f"{case}; {case.theirs_as_we_see.said}; ours: {said(ours)}"
        compared += 1
    assert compared > len(cases) / 2


def test_a_field_that_kubectl_does_not_know_is_lost_by_its_undo_and_told_apart_and_kept_by_ours(
    cases: Sequence[Case], record_testsuite_property: Callable[[str, object], None]
) -> None:
    kept = told_apart = 0
    for case in cases:
        if not knows_more_than_kubectl(case.history):
            continue
        ours = undo(case.history)
        if isinstance(ours, Undo):
            by_name = {item["metadata"]["name"]: item for item in case.history.replicasets}
            target = by_name[ours.target.replicaset]["spec"]["template"]
            assert after(ours, case.history)["spec"]["template"]["spec"] == target["spec"], case
            kept += 1
            told_apart += case.theirs.did is Did.SKIPPED
        if case.theirs.deployment:
            assert UNKNOWN_FIELD not in json.dumps(case.theirs.deployment["spec"]["template"]), case
    record_testsuite_property(
        "histories with fields unknown to kubectl", json.dumps({"kept": kept, "told apart": told_apart})
    )
    assert min(kept, told_apart) >= AT_LEAST


def test_an_undo_keeps_the_annotations_that_kubectl_wipes_and_leaves_those_that_it_copies(
    cases: Sequence[Case], record_testsuite_property: Callable[[str, object], None]
) -> None:
    wiped = copied = 0
    for case in cases:
        ours = undo(case.history)
        before = case.history.deployment["metadata"].get("annotations", {})
        if isinstance(ours, Undo):
            single = {CHANGE_CAUSE, PAUSED_BY, LAST_ROLLBACK}
            mine = after(ours, case.history)["metadata"]["annotations"]
            assert without(mine, *single) == without(before, *single), case
            if case.theirs.deployment:
                theirs = case.theirs.deployment["metadata"]["annotations"]
                assert theirs.get(REVISION) == mine[REVISION]
                assert theirs.get(LAST_APPLIED) == mine.get(LAST_APPLIED)
                wiped += bool(mine.keys() - theirs.keys() - single)
                copied += bool(theirs.keys() - mine.keys() - single)
    record_testsuite_property(
        "histories by what kubectl does to annotations", json.dumps({"wiped": wiped, "copied": copied})
    )
    assert min(wiped, copied) >= AT_LEAST


# -- Our side ----------------------------------------------------------------------------------------------------------


def undo(history: History, *, force: bool = False) -> Undo | Objection:
    """What we do, seen through the same list of ReplicaSets that kubectl gets from the server."""
    deployment = msgspec.json.decode(json.dumps(history.deployment), type=Deployment)
    listed = json.dumps(kubectl.select(history, str(deployment.spec.selector)))
    snapshot = Snapshot(deployment, msgspec.json.decode(listed, type=tuple[ReplicaSet, ...]))
    cause = Cause(by="an-oracle", reason="held to kubectl")
    return plan_undo(snapshot, Request(cause=cause, to_revision=history.to_revision, force=force), now=NOW)


def after(ours: Undo, history: History) -> Json:
    """The Deployment after our patch."""
    return json_patch.apply(ours.patch, history.deployment)


def knows_more_than_kubectl(history: History) -> bool:
    return UNKNOWN_FIELD in json.dumps([item["spec"]["template"] for item in history.replicasets])


def said(ours: Undo | Objection) -> str:
    return str(ours) if isinstance(ours, Objection) else f"to {ours.target.replicaset}: {ours.patch.decode()}"


# -- Comparison --------------------------------------------------------------------------------------------------------


def agrees(ours: Undo | Objection, theirs: Answer, history: History) -> bool:
    """Whether both did the same: left the same template and cause, or nothing for the same reason."""
    if isinstance(ours, Objection):
        return same_refusal(ours.guard, theirs.did)
    if theirs.deployment is None:
        return False
    try:
        mine = after(ours, history)
    except json_patch.PatchFailedError:
        return False
    same = as_go_reads(mine["spec"]["template"]) == as_go_reads(theirs.deployment["spec"]["template"])
    causes = [item["metadata"]["annotations"].get(CHANGE_CAUSE) for item in (mine, theirs.deployment)]
    return same and causes[0] == causes[1] and "pod-template-hash" not in json.dumps(mine["spec"]["template"])


def is_what_the_name_says(name: Difference | None, ours: Undo | Objection, case: Case, history: History) -> bool:
    """Whether our answer is the one that this difference stands for."""
    guard = ours.guard if isinstance(ours, Objection) else None
    match name:
        case None:
            return False
        case Difference.NOT_OBSERVED:
            return guard is Guard.NOT_OBSERVED or (guard is Guard.PAUSED and history.deployment["spec"]["paused"])
        case Difference.CONDEMNED if guard is Guard.CONDEMNED:
            return any(map(is_condemned, owned(history)))
        case Difference.UNNUMBERED | Difference.CONDEMNED | Difference.PAUSED:
            return agrees(ours, case.theirs_as_we_see, history)
        case _:
            return str(guard) == name


def without(annotations: Json, *keys: str) -> Json:
    return {key: value for key, value in annotations.items() if key not in keys}
