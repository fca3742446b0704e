"""Which workload is an alert about, and can its rollout be the cause?"""

from collections.abc import Iterable, Mapping

import msgspec

from watchdog.model import Alert
from watchdog.objects import WorkloadRef


class Nameable(msgspec.Struct, frozen=True):
    """A workload as far as alerts can name it.

    Args:
        replicasets: names of its ReplicaSets, by which its pods are named.
        match: the policy's labels that stand for it; empty where it has none.
    """

    ref: WorkloadRef
    replicasets: frozenset[str]
    match: Mapping[str, str]


def workloads_of(alert: Alert, candidates: Iterable[Nameable]) -> tuple[WorkloadRef, ...]:
    """The workloads that an alert may mean: none is ignored, more than one is ambiguous.

    Its labels `namespace` and `deployment` decide; else `pod` by its owner's name; else the policy's `match`.
    """
    labels = alert.labels
    namespace, name = labels.get("namespace", ""), labels.get("deployment", "")
    known = list(candidates)
    if namespace and name:
        return tuple(each.ref for each in known if each.ref == WorkloadRef(namespace, name))
    if namespace and (pod := labels.get("pod", "")):
        owner = pod.rpartition("-")[0]
        found = tuple(each.ref for each in known if each.ref.namespace == namespace and owner in each.replicasets)
        if found:
            return found
    return tuple(
        each.ref
        for each in known
        if each.match and each.match.items() <= labels.items() and namespace in ("", each.ref.namespace)
    )


def attributable(onset: float | None, *, traffic_from: float | None) -> bool:
    """Whether a rollout can have caused an alert: it began to hold after the candidate took traffic.

    Args:
        onset: when the alert's expression began to hold, in seconds; None where that is not known.
        traffic_from: when the first candidate pod was Ready; None where none is yet.
    """
    return onset is not None and traffic_from is not None and onset > traffic_from
