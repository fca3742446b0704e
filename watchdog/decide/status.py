"""Is a rollout complete? The questions of `kubectl rollout status`, in its order.

Source: kubectl pkg/polymorphichelpers/rollout_status.go.
"""

import datetime as dt
from enum import StrEnum

import msgspec

from watchdog.objects import Deployment

_NO_DEADLINE = 2**31 - 1  # HasProgressDeadline in the controller's deployment_util.go
_GRACE_S = 60.0


class Progress(StrEnum):
    """How far a rollout is."""

    WAITING = "waiting"
    COMPLETE = "complete"
    DEADLINE_EXCEEDED = "progress deadline exceeded"


class RolloutStatus(msgspec.Struct, frozen=True):
    """How far a rollout is, in one sentence."""

    progress: Progress
    detail: str


def progressed_at(deployment: Deployment) -> dt.datetime | None:
    """When the controller last wrote the condition Progressing."""
    return next((c.last_update_time for c in deployment.status.conditions if c.type == "Progressing"), None)


def gives_up_after(deployment: Deployment, *, least_s: float) -> float:
    """Seconds without any progress after which a rollout is not waited for any longer.

    It is the controller that gives up, at its progress deadline, which begins anew with each step forward. This holds
    where it has none, or has stopped working: a little more than what the controller takes by its own arithmetic.

    Args:
        least_s: never less than this.
    """
    deadline_s, ready_s = deployment.spec.progress_deadline_seconds, deployment.spec.min_ready_seconds
    bounded = deadline_s is not None and deadline_s < _NO_DEADLINE
    return max(least_s, (deadline_s or 0) + _GRACE_S if bounded else ready_s + least_s)


def steps(deployment: Deployment) -> tuple[object, ...]:
    """What changes with each step of a rollout."""
    status = deployment.status
    counts = (status.observed_generation, status.replicas, status.updated_replicas, status.available_replicas)
    return (*counts, progressed_at(deployment))


def scale_down_status(deployment: Deployment) -> RolloutStatus:
    """Say how far a scale to zero is.

    Conditions do not count: the progress deadline is the version's that was taken away.
    """
    status = deployment.status
    if deployment.metadata.generation > status.observed_generation:
        return RolloutStatus(Progress.WAITING, "the controller has not seen the change yet")
    if status.replicas > 0:
        return RolloutStatus(Progress.WAITING, f"{status.replicas} pods have yet to go")
    return RolloutStatus(Progress.COMPLETE, "no pods are left")


def rollout_status(deployment: Deployment) -> RolloutStatus:
    """Say how far the live template's rollout is.

    Nothing that the status says counts before the controller has observed the current generation: a stale
    ProgressDeadlineExceeded of the version that was left would look like a failure of the undo.
    """
    spec, status = deployment.spec, deployment.status
    if deployment.metadata.generation > status.observed_generation:
        return RolloutStatus(Progress.WAITING, "the controller has not seen the change yet")
    if any(c.type == "Progressing" and c.reason == "ProgressDeadlineExceeded" for c in status.conditions):
        return RolloutStatus(Progress.DEADLINE_EXCEEDED, "the rollout exceeded its progress deadline")
    if status.updated_replicas < spec.replicas:
        detail = f"{status.updated_replicas} of {spec.replicas} pods run the target's template"
        return RolloutStatus(Progress.WAITING, detail)
    if status.replicas > status.updated_replicas:
        detail = f"{status.replicas - status.updated_replicas} old pods have yet to go"
        return RolloutStatus(Progress.WAITING, detail)
    if status.available_replicas < status.updated_replicas:
        detail = f"{status.available_replicas} of {status.updated_replicas} pods are available"
        return RolloutStatus(Progress.WAITING, detail)
    return RolloutStatus(Progress.COMPLETE, f"{status.available_replicas} of {spec.replicas} pods available")
