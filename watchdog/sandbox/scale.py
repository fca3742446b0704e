"""The subresource ``scale`` of Deployments and ReplicaSets."""

from collections.abc import Callable
from typing import Any

Json = dict[str, Any]


def read_scale(item: Json) -> Json:
    """The Scale of an object. At no replicas its spec is empty, and a ``test`` of 0 fails (docs/design e2)."""
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    replicas, status = item["spec"].get("replicas", 1), item.get("status") or {}
    labels = item["spec"]["selector"].get("matchLabels") or {}
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: item["metadata"][key] for key in kept},
        "spec": {"replicas": replicas} if replicas else {},
        "status": {
            "replicas": status.get("replicas", 0),
            "selector": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        },
    }


def write_scale(change: Callable[[Json], Json]) -> Callable[[Json], Json]:
    """A change of a Scale, as a change of its object: only the number of replicas gets through."""

    def write(item: Json) -> Json:
        scale = change(read_scale(item))
        item["spec"]["replicas"] = (scale.get("spec") or {}).get("replicas", 0)
        for field in ("resourceVersion", "uid"):
            if field in scale.get("metadata", {}):
                item["metadata"][field] = scale["metadata"][field]
        return item

    return write
