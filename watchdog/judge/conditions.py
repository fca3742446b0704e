"""What Kubernetes itself says of a candidate: crash loop, image pull failure, progress deadline exceeded.

The cluster's own faults (no room, quota, eviction, a node or a registry that is down) are never a breach: where they
explain why pods do not run, the verdict is blind and names the cure.
"""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from watchdog.decoding import any_json
from watchdog.judge.blocks import Blind, BlindReason, Status, Verdict
from watchdog.objects import Condition, ContainerStatus, Deployment, Pod

PENDING_S = 60.0
"""How long no candidate pod may be Ready before that is worth a word."""

_PULL = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}


class ConditionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The rule's settings as the configuration explains them."""

    crash_restarts: int
    crash_share: float
    image_pull_s: float


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What the API server shows of a rollout.

    Args:
        deployment: the candidate's; its template is the candidate's.
        candidate: the candidate's pods.
        stable: the stable track's pods.
        stable_template: their pod template; None where there is none.
        begun: when the rollout began.
        pulls_fail_elsewhere: pods of another workload cannot pull their images either.
    """

    deployment: Deployment
    candidate: Sequence[Pod]
    stable: Sequence[Pod]
    stable_template: msgspec.Raw | None
    begun: dt.datetime
    pulls_fail_elsewhere: bool


def judge(seen: Observed, settings: ConditionSettings, *, now: dt.datetime) -> Verdict | None:
    """Give a breach or a blindness; None where there is nothing to say."""
    pods = [pod for pod in seen.candidate if pod.metadata.deletion_timestamp is None]
    faults = {pod.metadata.name: fault for pod in pods if (fault := _fault(pod, seen))}
    if breach := _crash_loop(pods, seen, settings) or _image_pull(pods, faults, settings, now):
        return breach
    conditions = _current(seen.deployment)
    unready = [pod for pod in pods if not _ready(pod)]
    reasons = [faults[pod.metadata.name] for pod in unready if pod.metadata.name in faults]
    unexplained = len(reasons) < len(unready)
    if _is(conditions, "ReplicaFailure", "FailedCreate"):
        reasons.append("pods cannot be created: raise the quota")
    if _is(conditions, "Progressing", "ProgressDeadlineExceeded", status="False"):
        what = f"the rollout exceeded its progress deadline, {len(unready)} of {len(pods)} pods are not ready"
        if unexplained:
            return Verdict(Status.BREACH, what, cause="progress-deadline")
        if reasons or not pods:
            return _pending(what, reasons)
    late = any(_unready_s(pod, now) > PENDING_S for pod in unready) or (reasons and not pods)
    if late and len(unready) == len(pods):
        return _pending(f"none of {len(pods)} candidate pods is ready", reasons)
    return None


def failing_pull(pod: Pod) -> str:
    """The container whose image cannot be pulled; empty where there is none."""
    waiting = ((each.name, each.state.waiting) for each in _statuses(pod))
    return next((name for name, state in waiting if state and state.reason in _PULL), "")


def _crash_loop(pods: Sequence[Pod], seen: Observed, settings: ConditionSettings) -> Verdict | None:
    live = [pod for pod in pods if pod.status.phase != "Failed"]
    crashes = Counter(name for pod in live for name in _crashed(pod, restarts=settings.crash_restarts))
    also_stable = {
        name
        for pod in seen.stable
        if pod.metadata.deletion_timestamp is None
        for name in _crashed(pod, restarts=1, since=seen.begun)
    }
    for name, count in sorted(crashes.items(), key=lambda each: (-each[1], each[0])):
        if count >= settings.crash_share * len(live) and name not in also_stable and _changed(name, seen):
            detail = f"container {name} crashes in {count} of {len(live)} candidate pods and in no stable one"
            return Verdict(Status.BREACH, detail, cause="crash-loop")
    return None


def _crashed(pod: Pod, *, restarts: int, since: dt.datetime | None = None) -> Iterator[str]:
    """Give the containers that restarted so often and ended with an error; since a time, where one is given."""
    for container in _statuses(pod):
        ends = [state.terminated for state in (container.state, container.last_state) if state.terminated]
        failed = any(
            end.exit_code != 0
            and end.reason != "ContainerStatusUnknown"  # the node lost it
            and (since is None or end.finished_at is None or end.finished_at >= since)
            for end in ends
        )
        if failed and container.restart_count >= restarts:
            yield container.name


def _changed(name: str, seen: Observed) -> bool:
    """Whether the rollout changed a container of its template, or what is around all of them, such as a volume."""
    containers, around = _split(seen.deployment.spec.template)
    if name not in containers or seen.stable_template is None:
        return name in containers
    before, around_before = _split(seen.stable_template)
    return (containers[name], around) != (before.get(name), around_before)


def _split(template: msgspec.Raw) -> tuple[dict[str, Any], dict[str, Any]]:
    spec = any_json(template).get("spec") or {}
    lists = [spec.pop(field, None) or () for field in ("initContainers", "containers")]
    return {each["name"]: each for containers in lists for each in containers}, spec


def _image_pull(
    pods: Sequence[Pod], faults: Mapping[str, str], settings: ConditionSettings, now: dt.datetime
) -> Verdict | None:
    failing = [pod for pod in pods if failing_pull(pod) and pod.metadata.name not in faults]
    longest = max((_unready_s(pod, now) for pod in failing), default=0.0)
    if not failing or longest < settings.image_pull_s:
        return None
    what = f"container {min(map(failing_pull, failing))} cannot pull its image"
    detail = f"{what} in {len(failing)} of {len(pods)} candidate pods, for {longest:.0f} s"
    return Verdict(Status.BREACH, detail, cause="image-pull")


def _fault(pod: Pod, seen: Observed) -> str:
    """Say what of the cluster keeps a pod from running, and the cure; empty where nothing does.

    A pod that restarts its containers is never Failed of its own accord. A node that is not ready shows in its pods as
    Ready turned to False by the node controller, which gives no reason and leaves ContainersReady as it was.
    """
    status, node = pod.status, pod.spec.node_name
    if status.phase == "Failed" or _is(status.conditions, "DisruptionTarget"):
        return f"evicted ({status.reason or 'disruption'}): look at node {node or 'and quota'}"
    if _is(status.conditions, "PodScheduled", "Unschedulable", status="False"):
        return "unschedulable: add room, or ask for less"
    if _is(status.conditions, "Ready", "", status="False") and _is(status.conditions, "ContainersReady"):
        return f"its node is not ready: look at node {node}"
    container = failing_pull(pod)
    pulled = any(each.name == container and each.image_id for other in seen.candidate for each in _statuses(other))
    if container and (pulled or seen.pulls_fail_elsewhere or any(failing_pull(other) for other in seen.stable)):
        return f"the image of {container} is not to blame for not being pulled: look at the registry and node {node}"
    return ""


def _pending(what: str, reasons: Iterable[str]) -> Verdict:
    causes = "; ".join(f"{count} × {reason}" for reason, count in sorted(Counter(reasons).items()))
    blind = Blind(BlindReason.PENDING, f"{what}: {causes}" if causes else what)
    return Verdict(Status.BLIND, blind.detail, blind=blind)


def _current(deployment: Deployment) -> tuple[Condition, ...]:
    """The conditions, once the controller has seen the live template: those before are the last version's."""
    seen = deployment.status.observed_generation >= deployment.metadata.generation
    return deployment.status.conditions if seen else ()


def _is(conditions: Iterable[Condition], kind: str, reason: str | None = None, *, status: str = "True") -> bool:
    return any(each.type == kind and each.status == status and reason in {None, each.reason} for each in conditions)


def _ready(pod: Pod) -> bool:
    return _is(pod.status.conditions, "Ready")


def _unready_s(pod: Pod, now: dt.datetime) -> float:
    """How long a pod has not been Ready."""
    turned = (each.last_transition_time for each in pod.status.conditions if each.type == "Ready")
    since = next(turned, None) or pod.status.start_time or pod.metadata.creation_timestamp or now
    return (now - since).total_seconds()


def _statuses(pod: Pod) -> tuple[ContainerStatus, ...]:
    return (*pod.status.init_container_statuses, *pod.status.container_statuses)
