"""What Kubernetes says of a candidate: when that is its own fault, and when it is the cluster's."""

import datetime as dt
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.builders import NOW, Json, decoded, history, raw, template
from watchdog.judge import conditions
from watchdog.judge.blocks import BlindReason, Status, Verdict
from watchdog.judge.conditions import ConditionSettings, Observed
from watchdog.objects import Pod

SETTINGS = ConditionSettings(crash_restarts=2, crash_share=0.2, image_pull_s=120)
EXCEEDED = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
NO_QUOTA = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}
UNSCHEDULABLE = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]


def ago(seconds: float) -> str:
    return (NOW - dt.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod(
    name: str = "new-1",
    *,
    age: float = 300,
    ready: bool = False,
    node: str = "node-7",
    deleted: bool = False,
    **status: Any,
) -> Pod:
    """Give a pod that became Ready or unready when it was created."""
    kubelet = {"type": "Ready", "status": str(ready), "lastTransitionTime": ago(age)}
    if not ready:
        kubelet["reason"] = "ContainersNotReady"
    metadata = {"name": name, "creationTimestamp": ago(age), "deletionTimestamp": ago(1) if deleted else None}
    return decoded(
        {
            "metadata": metadata,
            "spec": {"nodeName": node},
            "status": {"phase": "Running", "startTime": ago(age), "conditions": [kubelet], **status},
        },
        Pod,
    )


def container(name: str = "web", *, restarts: int = 0, pulled: bool = True, **more: Any) -> Json:
    return {"name": name, "imageID": f"sha256:{name}" if pulled else "", "restartCount": restarts, **more}


def ended(code: int, *, seconds: float = 10, reason: str = "Error") -> Json:
    return {"terminated": {"exitCode": code, "reason": reason, "finishedAt": ago(seconds)}}


def crashing(name: str = "new-1", *, what: str = "web", restarts: int = 2, code: int = 1, **more: Any) -> Pod:
    last = ended(code, reason=more.pop("reason", "Error"), seconds=more.pop("ended", 10))
    return pod(name, containerStatuses=[container(what, restarts=restarts, lastState=last)], **more)


def pulling(name: str = "new-1", *, reason: str = "ImagePullBackOff", **more: Any) -> Pod:
    waiting = container(pulled=False, state={"waiting": {"reason": reason}})
    return pod(name, phase="Pending", containerStatuses=[waiting], **more)


def well(name: str = "old-1", **more: Any) -> Pod:
    return pod(name, ready=True, containerStatuses=[container(pulled=more.pop("pulled", True))], **more)


def unschedulable(name: str = "new-1", *, age: float = 300) -> Pod:
    return pod(name, age=age, node="", phase="Pending", startTime=None, conditions=UNSCHEDULABLE)


def judge(
    *candidate: Pod,
    stable: tuple[Pod, ...] = (well(),),
    said: tuple[Json, ...] = (),
    before: Json | None = None,
    after: Json | None = None,
    elsewhere: bool = False,
    generation: int = 2,
) -> Verdict | None:
    scene = history("v1", "v2")
    scene.deployment["status"]["conditions"] = list(said)
    scene.deployment["metadata"]["generation"] = generation
    if after:
        scene.spec["template"] = after
    seen = Observed(
        deployment=scene.snapshot.deployment,
        candidate=candidate,
        stable=stable,
        stable_template=raw(before or template("v1")) if stable else None,
        begun=NOW - dt.timedelta(seconds=300),
        pulls_fail_elsewhere=elsewhere,
    )
    return conditions.judge(seen, SETTINGS, now=NOW)


def cause(found: Verdict | None) -> str:
    """The cause of a breach, the reason of a blindness, or nothing."""
    if found is None:
        return ""
    return f"blind: {found.blind.reason}" if found.blind else found.cause


PENDING = f"blind: {BlindReason.PENDING}"


def test_a_rollout_that_goes_well_is_nothing_to_talk_about() -> None:
    assert judge(well("new-1"), pod("new-2", age=30)) is None
    assert judge() is None


# Crash loop


def test_a_candidate_that_crashes_is_a_breach_with_the_numbers() -> None:
    found = judge(crashing(), crashing("new-2"), well("new-3"))
    assert found
    assert (found.status, found.cause) == (Status.BREACH, "crash-loop")
    assert found.detail == "container web crashes in 2 of 3 candidate pods and in no stable one"


@pytest.mark.parametrize(
    "harmless", [crashing(restarts=1), crashing(code=0), crashing(code=137, reason="ContainerStatusUnknown")]
)
def test_one_restart_an_exit_without_error_or_a_container_that_its_node_lost_is_no_crash_loop(harmless: Pod) -> None:
    assert cause(judge(harmless, well("new-2"))) == ""


def test_a_container_that_has_just_ended_counts_too() -> None:
    status = container(restarts=2, state=ended(1), lastState=ended(0))
    assert cause(judge(pod(containerStatuses=[status]))) == "crash-loop"


def test_crashes_count_from_a_share_of_the_candidate_pods_on() -> None:
    others = [well(f"new-{n}") for n in range(2, 7)]
    assert cause(judge(crashing(), *others[:4])) == "crash-loop"
    assert cause(judge(crashing(), *others)) == ""


def test_a_crash_that_the_stable_pods_share_is_not_the_candidates_fault() -> None:
    assert cause(judge(crashing(), well("new-2"), stable=(crashing("old-1", restarts=1),))) == ""


@pytest.mark.parametrize("elsewhere", [crashing("old-1", ended=900), crashing("old-1", deleted=True)])
def test_crashes_of_stable_pods_before_the_rollout_or_at_their_end_excuse_nothing(elsewhere: Pod) -> None:
    assert cause(judge(crashing(), well("new-2"), stable=(elsewhere,))) == "crash-loop"


def test_a_container_that_the_rollout_did_not_change_crashes_for_another_reason() -> None:
    before, after = template("v1"), template("v2")
    for each in (before, after):
        each["spec"]["containers"].append({"name": "proxy", "image": "proxy:1"})
    sidecar, injected = crashing(what="proxy"), crashing(what="injected")
    assert cause(judge(sidecar, well("new-2"), before=before, after=after)) == ""
    assert cause(judge(injected, well("new-2"), before=before, after=after)) == ""
    after["spec"]["containers"][1]["args"] = ["--new"]
    assert cause(judge(sidecar, well("new-2"), before=before, after=after)) == "crash-loop"


def test_a_new_volume_changes_every_container_and_an_annotation_none() -> None:
    after = template("v1", annotations={"restarted": "now"})
    assert cause(judge(crashing(), well("new-2"), after=after)) == ""
    after["spec"]["volumes"] = [{"name": "settings", "configMap": {"name": "settings-2"}}]
    assert cause(judge(crashing(), well("new-2"), after=after)) == "crash-loop"


def test_init_containers_crash_as_well_and_a_first_rollout_changes_everything() -> None:
    after = template("v2")
    after["spec"]["initContainers"] = [{"name": "migrate", "image": "web:v2"}]
    status = container("migrate", restarts=3, lastState=ended(1))
    assert cause(judge(pod(initContainerStatuses=[status]), after=after, stable=())) == "crash-loop"


# Image pull


def test_an_image_that_cannot_be_pulled_for_long_is_a_breach() -> None:
    found = judge(pulling(age=130), well("new-2", pulled=False))
    assert found
    assert (found.status, found.cause) == (Status.BREACH, "image-pull")
    assert found.detail == "container web cannot pull its image in 1 of 2 candidate pods, for 130 s"
    assert cause(judge(pulling(age=110), well("new-2", pulled=False))) == ""


def test_a_pod_that_has_no_ready_condition_yet_is_as_old_as_it_is() -> None:
    assert cause(judge(pulling(age=130, conditions=[]))) == "image-pull"
    assert cause(judge(pulling(age=130, conditions=[], startTime=None))) == "image-pull"


def test_an_image_that_others_cannot_pull_either_or_have_is_the_registrys_or_the_nodes_fault() -> None:
    assert cause(judge(pulling(), elsewhere=True)) == PENDING
    assert cause(judge(pulling(), stable=(pulling("old-1"),))) == PENDING
    assert cause(judge(pulling(), pod("new-2", containerStatuses=[container()]))) == PENDING


def test_the_container_that_cannot_pull_is_named() -> None:
    assert conditions.failing_pull(pulling(reason="ErrImagePull")) == "web"
    assert conditions.failing_pull(pulling(reason="ContainerCreating")) == ""


# Progress deadline


def test_an_exceeded_progress_deadline_is_a_breach() -> None:
    found = judge(pod(), well("new-2"), said=(EXCEEDED,))
    assert found
    assert (found.status, found.cause) == (Status.BREACH, "progress-deadline")
    assert found.detail.endswith("1 of 2 pods are not ready")


def test_the_deadline_of_the_version_before_does_not_count() -> None:
    assert judge(pod(), well("new-2"), said=(EXCEEDED,), generation=3) is None


def test_a_deadline_while_every_candidate_pod_is_ready_is_not_the_candidates_fault() -> None:
    assert judge(well("new-1"), said=(EXCEEDED,)) is None


FAULTS = {
    "unschedulable": unschedulable("new-9"),
    "evicted": pod("new-9", phase="Failed", reason="Evicted"),
    "disrupted": pod(
        "new-9", conditions=[{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]
    ),
    "node": pod(
        "new-9", conditions=[{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_the_cluster_did_explains_a_deadline(fault: str) -> None:
    found = judge(FAULTS[fault], well("new-2"), said=(EXCEEDED,))
    assert found
    assert cause(found) == PENDING
    assert found.detail == (found.blind and found.blind.detail)
    assert "1 × " in found.detail


@pytest.mark.parametrize("fault", FAULTS)
def test_what_the_cluster_did_to_one_pod_does_not_excuse_another(fault: str) -> None:
    assert cause(judge(FAULTS[fault], pod(), said=(EXCEEDED,))) == "progress-deadline"


def test_an_exhausted_quota_explains_a_deadline() -> None:
    assert cause(judge(well("new-1"), said=(EXCEEDED, NO_QUOTA))) == PENDING
    assert cause(judge(pod(), said=(EXCEEDED, NO_QUOTA))) == "progress-deadline"


def test_what_an_evicted_pod_left_behind_is_no_crash() -> None:
    assert cause(judge(crashing(phase="Failed", reason="Evicted"))) == PENDING


# Waiting


def test_pods_none_of_which_becomes_ready_are_blind_after_a_minute_and_the_cure_is_named() -> None:
    found = judge(unschedulable(), unschedulable("new-2", age=10))
    assert found
    assert found.detail == "none of 2 candidate pods is ready: 2 × unschedulable: add room, or ask for less"
    assert cause(judge(pod(age=70))) == PENDING
    assert judge(unschedulable(age=50)) is None
    assert judge(unschedulable(), well("new-2")) is None


def test_pods_that_cannot_be_created_at_all_are_blind_at_once() -> None:
    found = judge(said=(NO_QUOTA,))
    assert found
    assert found.detail == "none of 0 candidate pods is ready: 1 × pods cannot be created: raise the quota"


def test_pods_that_are_being_deleted_are_not_looked_at() -> None:
    assert judge(crashing(deleted=True), pulling(deleted=True)) is None


# Whatever happens

PODS = st.lists(
    st.sampled_from(
        [crashing("a"), pulling("b"), pulling("c", age=20), well("d"), pod("e"), pod("f", age=5), unschedulable("g")]
        + [
            msgspec.structs.replace(each, metadata=msgspec.structs.replace(each.metadata, name=name))
            for name, each in FAULTS.items()
        ]
    ),
    unique_by=lambda each: each.metadata.name,
)


@given(PODS, PODS, st.lists(st.sampled_from([EXCEEDED, NO_QUOTA]), unique_by=lambda each: each["type"]), st.booleans())
def test_a_cluster_at_fault_for_every_pod_is_never_a_breach(
    candidate: list[Pod], stable: list[Pod], said: list[Json], elsewhere: bool
) -> None:
    found = judge(*candidate, stable=tuple(stable), said=tuple(said), elsewhere=elsewhere)
    assert found is None or (found.status is Status.BREACH) == bool(found.cause) == (found.blind is None)
    if {each.metadata.name for each in candidate} <= FAULTS.keys() | {"d", "g"}:
        assert not found or found.status is Status.BLIND


@given(PODS, st.permutations(range(11)))
def test_the_order_of_pods_does_not_matter(candidate: list[Pod], order: list[int]) -> None:
    mixed = [candidate[n] for n in order if n < len(candidate)]
    assert judge(*mixed, said=(EXCEEDED,)) == judge(*candidate, said=(EXCEEDED,))
