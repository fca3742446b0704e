"""How far a rollout is: the questions of `kubectl rollout status`, in its order."""

import pytest

from tests.unit.builders import history, status
from watchdog.decide.status import Progress, RolloutStatus, rollout_status

EXCEEDED = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}


def of(*, wanted: int, updated: int, replicas: int, available: int, observed: int = 2) -> RolloutStatus:
    scene = history("v1", "v2", replicas=wanted)
    scene.deployment["status"] = status(generation=observed, replicas=replicas, updated=updated, available=available)
    return rollout_status(scene.snapshot.deployment)


def test_nothing_counts_before_the_controller_has_seen_the_change() -> None:
    seen = of(wanted=3, updated=3, replicas=3, available=3, observed=1)
    assert seen.progress is Progress.WAITING
    assert "not seen" in seen.detail


@pytest.mark.parametrize(
    ("updated", "replicas", "available", "detail"),
    [
        (1, 4, 3, "1 of 3 pods run the target's template"),
        (3, 5, 3, "2 old pods have yet to go"),
        (3, 3, 2, "2 of 3 pods are available"),
    ],
)
def test_a_rollout_waits_for_new_pods_then_for_old_ones_then_for_readiness(
    updated: int, replicas: int, available: int, detail: str
) -> None:
    seen = of(wanted=3, updated=updated, replicas=replicas, available=available)
    assert seen == RolloutStatus(Progress.WAITING, detail)


def test_a_rollout_is_complete_when_all_pods_are_new_and_available() -> None:
    assert of(wanted=3, updated=3, replicas=3, available=3) == RolloutStatus(Progress.COMPLETE, "3 of 3 pods available")


def test_a_workload_of_no_replicas_is_complete_once_its_pods_are_gone() -> None:
    assert of(wanted=0, updated=0, replicas=2, available=0).progress is Progress.WAITING
    assert of(wanted=0, updated=0, replicas=0, available=0).progress is Progress.COMPLETE


def test_an_exceeded_deadline_ends_the_waiting() -> None:
    scene = history("v1", "v2")
    scene.deployment["status"]["conditions"] = [EXCEEDED]
    assert rollout_status(scene.snapshot.deployment).progress is Progress.DEADLINE_EXCEEDED


def test_the_exceeded_deadline_of_the_version_that_was_left_does_not() -> None:
    scene = history("v1", "v2")
    scene.deployment["status"]["conditions"] = [EXCEEDED]
    scene.deployment["metadata"]["generation"] += 1
    assert rollout_status(scene.snapshot.deployment).progress is Progress.WAITING


def test_another_condition_with_that_reason_does_not() -> None:
    scene = history("v1", "v2")
    scene.deployment["status"]["conditions"] = [{**EXCEEDED, "type": "Available"}]
    assert rollout_status(scene.snapshot.deployment).progress is Progress.WAITING
