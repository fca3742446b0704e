"""JSON patches (RFC 6902): their operations, and the patches that follow an action."""

from collections.abc import Iterable
from typing import Any

import msgspec

from watchdog.decide import marks
from watchdog.model import MANAGER, Restore, Rollout
from watchdog.objects import HASH_LABEL, Metadata, ReplicaSet

Operation = dict[str, Any]


def release_ownership(metadata: Metadata) -> bytes | None:
    """The patch that gives our field ownership up, or None where we own nothing.

    While we own the image, the next `kubectl apply --server-side` of the fix fails with a conflict (docs/design l2).
    """
    operations: list[Operation] = []
    for index, entry in reversed(list(enumerate(metadata.managed_fields))):
        if entry.manager == MANAGER:
            path = f"/metadata/managedFields/{index}"
            operations += (test(f"{path}/manager", MANAGER), test(f"{path}/operation", entry.operation))
            operations.append(remove(path))
    return encode(operations) if operations else None


def condemn(rollout: Rollout) -> bytes:
    """The patch that marks the ReplicaSet of a rollout as found bad."""
    value = marks.write_about(rollout.hash, rollout.incident)
    return encode((test(f"/metadata/labels/{HASH_LABEL}", rollout.hash), add(annotation(marks.CONDEMNED), value)))


def forget_replicas(plan: Restore) -> bytes:
    """The patch that takes the copy of a used `replicas-before` off the live ReplicaSet.

    Otherwise `kubectl rollout undo` would bring it back one day, and a person's scale to zero would be undone by it.
    """
    path = annotation(marks.REPLICAS_BEFORE)
    return encode((test(path, plan.mark), remove(path)))


def absolve(replicaset: ReplicaSet) -> bytes:
    """The patch that lifts the condemnation of a ReplicaSet, as it was read."""
    path = annotation(marks.CONDEMNED)
    value = replicaset.metadata.annotations[marks.CONDEMNED]
    return encode((test("/metadata/uid", replicaset.metadata.uid), test(path, value), remove(path)))


def annotation(key: str) -> str:
    """The path of an annotation."""
    return "/metadata/annotations/" + key.replace("~", "~0").replace("/", "~1")


def test(path: str, value: object) -> Operation:
    """Succeeds where the value is there; None succeeds where nothing is (docs/design a5)."""
    return {"op": "test", "path": path, "value": value}


def add(path: str, value: object) -> Operation:
    """Sets a value, whether there was one or not."""
    return {"op": "add", "path": path, "value": value}


def replace(path: str, value: object) -> Operation:
    """Sets a value."""
    return {"op": "replace", "path": path, "value": value}


def remove(path: str) -> Operation:
    """Takes a value away; fails where there is none."""
    return {"op": "remove", "path": path}


def encode(operations: Iterable[Operation]) -> bytes:
    """A patch as it is sent; raw JSON among the values goes through as it is."""
    return msgspec.json.encode(list(operations))
