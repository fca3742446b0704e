"""The arithmetic of a rollout, pure: how many replicas each ReplicaSet of a Deployment should have.

Each function is the one of the same purpose in Kubernetes' pkg/controller/deployment and its util package (v1.36).
"""

import math
from collections.abc import Sequence
from typing import Any

from watchdog.sandbox.revisions import DESIRED, MAX, count, created, number, revision

Json = dict[str, Any]

NO_DEADLINE = 2**31 - 1


def scaled(value: int | str, total: int, *, up: bool) -> int:
    """A number, or a percentage of `total`."""
    if isinstance(value, int):
        return value
    share = int(value.rstrip("%")) * total / 100
    return math.ceil(share) if up else math.floor(share)


def is_rolling(deployment: Json) -> bool:
    """Whether pods are exchanged a few at a time."""
    return bool(deployment["spec"]["strategy"]["type"] == "RollingUpdate")


def fenceposts(deployment: Json) -> tuple[int, int]:
    """How many pods may be too many and too few; never both 0, or nothing would ever move."""
    if not is_rolling(deployment):
        return 0, 0
    rolling, wanted = deployment["spec"]["strategy"]["rollingUpdate"], deployment["spec"]["replicas"]
    surge = scaled(rolling.get("maxSurge", 0), wanted, up=True)
    unavailable = scaled(rolling.get("maxUnavailable", 0), wanted, up=False)
    return surge, unavailable or int(surge == 0)


def max_surge(deployment: Json) -> int:
    """How many pods there may be beyond the wanted ones."""
    return fenceposts(deployment)[0]


def max_unavailable(deployment: Json) -> int:
    """How many of the wanted pods may be unavailable."""
    return min(fenceposts(deployment)[1], int(deployment["spec"]["replicas"]))


def new_size(deployment: Json, every: Sequence[Json], new: Json) -> int:
    """How many replicas the new ReplicaSet may have now."""
    wanted, now = deployment["spec"]["replicas"], new["spec"]["replicas"]
    if not is_rolling(deployment):
        return int(wanted)
    most = wanted + scaled(deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"], wanted, up=True)
    present = sum(item["spec"]["replicas"] for item in every)
    return int(now if present >= most else now + min(most - present, wanted - now))


def old_sizes(deployment: Json, old: Sequence[Json], new: Json) -> dict[str, int]:
    """By name, the sizes of the old ReplicaSets that may shrink now: first what is unhealthy, then what is spare."""
    wanted = deployment["spec"]["replicas"]
    least = wanted - max_unavailable(deployment)
    sizes = {item["metadata"]["name"]: item["spec"]["replicas"] for item in sorted(old, key=created)}
    present = sum(sizes.values()) + new["spec"]["replicas"]
    spare = present - least - (new["spec"]["replicas"] - count(new, "availableReplicas"))
    if not any(sizes.values()) or spare <= 0:
        return {}
    available = {item["metadata"]["name"]: count(item, "availableReplicas") for item in old}
    result, cleaned = dict(sizes), 0
    for name, size in sizes.items():
        unhealthy = max(0, min(spare - cleaned, size - available[name]))
        result[name] -= unhealthy
        cleaned += unhealthy
    left = sum(available.values()) + count(new, "availableReplicas") - least
    for name, size in result.items():
        gone = max(0, min(size, left))
        result[name] -= gone
        left -= gone
    return {name: size for name, size in result.items() if size != sizes[name]}


def proportional(deployment: Json, active: Sequence[Json]) -> dict[str, int]:
    """By name, the sizes of all active ReplicaSets when a Deployment is scaled in the middle of a rollout."""
    wanted = deployment["spec"]["replicas"]
    allowed = wanted + max_surge(deployment) if wanted else 0
    change = allowed - sum(item["spec"]["replicas"] for item in active)
    ordered = sorted(active, key=created, reverse=change > 0)
    ordered.sort(key=lambda item: -int(item["spec"]["replicas"]))
    sizes, added = {}, 0
    for item in ordered:
        share = _share(deployment, item, change, added) if change else 0
        sizes[item["metadata"]["name"]] = item["spec"]["replicas"] + share
        added += share
    if ordered and change:
        largest = ordered[0]["metadata"]["name"]
        sizes[largest] = max(0, sizes[largest] + change - added)
    return sizes


def _share(deployment: Json, item: Json, change: int, added: int) -> int:
    size, wanted = item["spec"]["replicas"], deployment["spec"]["replicas"]
    if size == 0 or change == added:
        return 0
    if wanted == 0:
        fraction = -size
    else:
        before = number(item, MAX) or count(deployment, "replicas")
        if not before:
            return 0
        # Half away from zero, as Go rounds; sizes are never negative.
        fraction = math.floor(size * (wanted + max_surge(deployment)) / before + 0.5) - size
    left = change - added
    return int(min(fraction, left) if change > 0 else max(fraction, left))


def is_saturated(deployment: Json, new: Json | None) -> bool:
    """Whether the new ReplicaSet alone is all that is wanted."""
    wanted = deployment["spec"]["replicas"]
    return bool(
        new is not None
        and new["spec"]["replicas"] == wanted
        and number(new, DESIRED) == wanted
        and count(new, "availableReplicas") == wanted
    )


def is_complete(deployment: Json, status: Json) -> bool:
    """Whether all that is wanted is updated and available, and nothing else runs."""
    counts = {status.get(field, 0) for field in ("replicas", "updatedReplicas", "availableReplicas")}
    observed = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    return bool(observed and counts == {deployment["spec"]["replicas"]})


def is_progressing(old: Json, new: Json) -> bool:
    """Whether the second status is further than the first."""

    def at(status: Json, field: str) -> int:
        return int(status.get(field, 0))

    left = [at(status, "replicas") - at(status, "updatedReplicas") for status in (old, new)]
    more = ("updatedReplicas", "readyReplicas", "availableReplicas")
    return left[1] < left[0] or any(at(new, field) > at(old, field) for field in more)


def has_deadline(deployment: Json) -> bool:
    """Whether slow progress is ever called a failure."""
    return bool(deployment["spec"].get("progressDeadlineSeconds", NO_DEADLINE) != NO_DEADLINE)


def surplus(deployment: Json, old: Sequence[Json]) -> list[Json]:
    """The old ReplicaSets that revisionHistoryLimit leaves no place for, as far as they have no pods."""
    limit = deployment["spec"].get("revisionHistoryLimit", NO_DEADLINE)
    over = max(0, len(old) - limit)
    ordered = sorted(old, key=lambda item: (revision(item) or 0, created(item)))
    return [
        item
        for item in ordered[:over]
        if item["spec"]["replicas"] == count(item, "replicas") == 0
        and item["metadata"]["generation"] <= count(item, "observedGeneration")
    ]
