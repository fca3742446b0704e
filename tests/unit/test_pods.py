"""Why pods do not run, as a failed undo says it."""

from tests.unit.builders import Json, decoded
from watchdog.decide.pods import explain
from watchdog.objects import Pod


def pod(**status: object) -> Pod:
    return decoded({"metadata": {"name": "web-1"}, "status": status}, Pod)


def waiting(reason: str, *, name: str = "web") -> Pod:
    return pod(phase="Pending", containerStatuses=[{"name": name, "state": {"waiting": {"reason": reason}}}])


def condition(kind: str, status: str, reason: str = "") -> list[Json]:
    return [{"type": kind, "status": status, "reason": reason}]


def test_a_ready_pod_needs_no_explanation() -> None:
    assert explain([pod(phase="Running", conditions=condition("Ready", "True"))]) == ()


def test_a_container_that_waits_says_for_what() -> None:
    assert explain([waiting("ImagePullBackOff")]) == ("1 pod: web: ImagePullBackOff",)


def test_a_container_that_ended_says_how() -> None:
    ended = {"name": "web", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}
    assert explain([pod(phase="Running", containerStatuses=[ended])]) == ("1 pod: web: exited with 137",)


def test_a_pod_that_found_no_node_says_so() -> None:
    unscheduled = pod(phase="Pending", conditions=condition("PodScheduled", "False", "Unschedulable"))
    assert explain([unscheduled]) == ("1 pod: Unschedulable",)


def test_a_pod_whose_probe_fails_is_running_and_not_ready() -> None:
    unready = pod(
        phase="Running",
        conditions=condition("Ready", "False", "ContainersNotReady"),
        containerStatuses=[{"name": "web", "ready": False, "state": {"running": {}}}],
    )
    assert explain([unready]) == ("1 pod: running, not ready",)


def test_a_pod_that_the_kubelet_has_not_seen_says_its_phase_or_that_it_has_none() -> None:
    assert explain([pod(phase="Pending"), pod()]) == ("1 pod: Pending", "1 pod: no status yet")


def test_the_most_common_reason_comes_first_and_equal_ones_are_counted() -> None:
    found = explain([waiting("CrashLoopBackOff"), waiting("ImagePullBackOff"), waiting("ImagePullBackOff")])
    assert found == ("2 pods: web: ImagePullBackOff", "1 pod: web: CrashLoopBackOff")
