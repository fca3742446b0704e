"""Why pods do not run, in one line each."""

import datetime as dt
from collections import Counter
from collections.abc import Iterable

from watchdog.objects import Pod


def explain(pods: Iterable[Pod]) -> tuple[str, ...]:
    """Name what keeps pods from being ready, the most common reason first: ``2 pods: web: ImagePullBackOff``."""
    reasons = Counter(reason for pod in pods if (reason := _reason(pod)))
    return tuple(f"{count} pod{'s' if count > 1 else ''}: {reason}" for reason, count in reasons.most_common())


def stuck(pods: Iterable[Pod], *, since: dt.datetime) -> list[Pod]:
    """Those that are to run and have not been ready for longer than since then."""
    return [
        pod
        for pod in pods
        if pod.metadata.deletion_timestamp is None and (at := _not_ready_since(pod)) is not None and at <= since
    ]


def _not_ready_since(pod: Pod) -> dt.datetime | None:
    ready = next((each for each in pod.status.conditions if each.type == "Ready"), None)
    if ready is not None and ready.status == "True":
        return None
    return (ready.last_transition_time if ready else None) or pod.metadata.creation_timestamp


def _reason(pod: Pod) -> str:
    if any(condition.type == "Ready" and condition.status == "True" for condition in pod.status.conditions):
        return ""
    for container in (*pod.status.init_container_statuses, *pod.status.container_statuses):
        if container.state.waiting and container.state.waiting.reason:
            return f"{container.name}: {container.state.waiting.reason}"
        if container.state.terminated and container.state.terminated.exit_code:
            return f"{container.name}: exited with {container.state.terminated.exit_code}"
    for condition in pod.status.conditions:
        if condition.status == "False" and condition.reason and condition.type == "PodScheduled":
            return condition.reason
    return "running, not ready" if pod.status.phase == "Running" else pod.status.phase or "no status yet"
