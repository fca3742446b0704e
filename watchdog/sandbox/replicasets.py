"""The ReplicaSet controller: as many pods as wanted, and a status that counts them (pkg/controller/replicaset)."""

import copy
import datetime as dt
from collections.abc import Callable
from typing import Any

from watchdog.sandbox.deployments import owner_reference
from watchdog.sandbox.selecting import matches_labels
from watchdog.sandbox.store import Store, controller_uid

Json = dict[str, Any]

_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}


def sync_replicaset(store: Store, replicaset: Json, *, now: dt.datetime, look_again: Callable[[float], None]) -> None:
    """Create or delete what is missing or too much, then write the status.

    Args:
        store: the objects.
        replicaset: as it was read.
        now: the time.
        look_again: called with the seconds until a ready pod becomes an available one.
    """
    namespace, name = replicaset["metadata"]["namespace"], replicaset["metadata"]["name"]
    active, terminating = _pods(store, replicaset)
    excess = len(active) - replicaset["spec"]["replicas"]
    for _ in range(-excess):
        active.append(store.create("pods", _pod(replicaset), namespace=namespace))
    if excess > 0:
        ranked = sorted(active, key=_ranking(active))
        for pod in ranked[:excess]:
            store.delete("pods", namespace, pod["metadata"]["name"])
        active, terminating = _pods(store, replicaset)
    min_ready_s = replicaset["spec"].get("minReadySeconds", 0)
    ready = [since for pod in active if (since := ready_since(pod)) is not None]
    waits = [left for since in ready if (left := min_ready_s - (now - since).total_seconds()) > 0]
    if waits and min_ready_s:
        look_again(min(waits))
    available = len(ready) - (len(waits) if min_ready_s else 0)
    counts = {
        "fullyLabeledReplicas": len(active),
        "readyReplicas": len(ready),
        "availableReplicas": available,
    }
    status: Json = {"replicas": len(active), **{field: value for field, value in counts.items() if value}}
    status["terminatingReplicas"] = len(terminating)
    status["observedGeneration"] = replicaset["metadata"]["generation"]

    def write(item: Json) -> None:
        item["status"] = status

    store.modify("replicasets", namespace, name, write, subresource="status")


def _pods(store: Store, replicaset: Json) -> tuple[list[Json], list[Json]]:
    """Its pods, those that nobody owned included: the ones that count, and the ones that are going."""
    namespace = replicaset["metadata"]["namespace"]
    active, terminating = [], []
    for pod in store.list("pods", namespace):
        owner = controller_uid(pod)
        if owner is None and matches_labels(replicaset["spec"]["selector"], pod):
            pod = _adopt(store, replicaset, pod)
        elif owner != replicaset["metadata"]["uid"]:
            continue
        elif not matches_labels(replicaset["spec"]["selector"], pod):
            _release(store, pod)
            continue
        if "deletionTimestamp" in pod["metadata"]:
            terminating.append(pod)
        elif (pod.get("status") or {}).get("phase") not in ("Failed", "Succeeded"):
            active.append(pod)
    return active, terminating


def _adopt(store: Store, replicaset: Json, pod: Json) -> Json:
    def adopt(item: Json) -> None:
        item["metadata"].setdefault("ownerReferences", []).append(owner_reference(replicaset))

    return store.modify("pods", pod["metadata"]["namespace"], pod["metadata"]["name"], adopt)


def _release(store: Store, pod: Json) -> None:
    def release(item: Json) -> None:
        references = item["metadata"]["ownerReferences"]
        item["metadata"]["ownerReferences"] = [each for each in references if not each.get("controller")]

    store.modify("pods", pod["metadata"]["namespace"], pod["metadata"]["name"], release)


def _pod(replicaset: Json) -> Json:
    template = copy.deepcopy(replicaset["spec"]["template"])
    name = replicaset["metadata"]["name"]
    metadata = {"generateName": f"{name}-", "ownerReferences": [owner_reference(replicaset)]}
    for field in ("labels", "annotations"):
        if field in template["metadata"]:
            metadata[field] = template["metadata"][field]
    return {"metadata": metadata, "spec": template["spec"]}


def ready_since(pod: Json) -> dt.datetime | None:
    """When a pod became ready; None where it is not."""
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == "Ready" and condition["status"] == "True":
            return dt.datetime.fromisoformat(condition["lastTransitionTime"])
    return None


def _ranking(pods: list[Json]) -> Callable[[Json], tuple[Any, ...]]:
    """What goes first: unscheduled, pending, not ready, cheap, doubled up on a node, young, often restarted."""
    nodes: dict[str, int] = {}
    for pod in pods:
        if ready_since(pod) is not None:
            node = pod["spec"].get("nodeName", "")
            nodes[node] = nodes.get(node, 0) + 1

    def rank(pod: Json) -> tuple[Any, ...]:
        status, since = pod.get("status") or {}, ready_since(pod)
        cost = (pod["metadata"].get("annotations") or {}).get("controller.kubernetes.io/pod-deletion-cost", "0")
        restarts = max((entry.get("restartCount", 0) for entry in status.get("containerStatuses") or ()), default=0)
        age = dt.datetime.fromisoformat(pod["metadata"]["creationTimestamp"]).timestamp()
        return (
            bool(pod["spec"].get("nodeName")),
            _PHASES.get(status.get("phase", "Pending"), 0),
            since is not None,
            int(cost) if cost.lstrip("-").isdecimal() else 0,
            -nodes.get(pod["spec"].get("nodeName", ""), 0),
            -since.timestamp() if since else 0,
            -restarts,
            -age,
        )

    return rank
