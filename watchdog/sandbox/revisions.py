"""How a Deployment's revisions are numbered, and what is copied between it and its ReplicaSets (reference §1.1)."""

import copy
import hashlib
from typing import Any

import msgspec

from watchdog.objects import HASH_LABEL, REVISION

Json = dict[str, Any]

HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAX = "deployment.kubernetes.io/max-replicas"
_OWN = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        HISTORY,
        DESIRED,
        MAX,
        "deprecated.deployment.rollback.to",
    }
)
_LONGEST_HISTORY = 2000
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def template_hash(template: Json, collisions: int) -> str:
    """The value of ``pod-template-hash``: short, of the API's alphabet, and another one after a collision."""
    text = msgspec.json.encode((template, collisions), order="deterministic")
    digest = int.from_bytes(hashlib.sha256(text).digest()[:8])
    letters = ""
    for _ in range(10):
        digest, rest = divmod(digest, len(_ALPHABET))
        letters += _ALPHABET[rest]
    return letters


def same_template(one: Json, other: Json) -> bool:
    """Whether two templates are equal but for the hash that the controller puts into one of them."""
    return _bare(one) == _bare(other)


def _bare(template: Json) -> Json:
    bare = copy.deepcopy(template)
    labels = bare.get("metadata", {}).get("labels", {})
    labels.pop(HASH_LABEL, None)
    return bare


def created(item: Json) -> tuple[str, str]:
    """The order of age."""
    return item["metadata"]["creationTimestamp"], item["metadata"]["name"]


def count(item: Json, field: str) -> int:
    """A number in the status; 0 where it is not there."""
    return int((item.get("status") or {}).get(field, 0))


def number(item: Json, annotation: str) -> int | None:
    """An annotation as a number; None where it is none."""
    text = (item["metadata"].get("annotations") or {}).get(annotation, "")
    return int(text) if text.isdecimal() else None


def revision(item: Json) -> int | None:
    """The revision of a ReplicaSet: 0 without the annotation, None where it cannot be read."""
    if REVISION not in (item["metadata"].get("annotations") or {}):
        return 0
    return number(item, REVISION)


def annotate(deployment: Json, replicaset: Json, newest: int) -> bool:
    """Copy the Deployment's annotations to its new ReplicaSet, number it, and say whether that changed anything.

    A ReplicaSet that is returned to remembers the number that it had in its history.
    """
    annotations = replicaset["metadata"].setdefault("annotations", {})
    before = dict(annotations)
    theirs = deployment["metadata"].get("annotations") or {}
    annotations.update({key: value for key, value in theirs.items() if key not in _OWN})
    old = revision(replicaset)
    if old is not None and old < newest:
        annotations[REVISION] = str(newest)
        if REVISION in before:
            history = [*filter(None, annotations.get(HISTORY, "").split(",")), before[REVISION]]
            while len(",".join(history)) > _LONGEST_HISTORY:
                del history[0]
            annotations[HISTORY] = ",".join(history)
    return bool(annotations != before)


def annotate_sizes(replicaset: Json, desired: int, most: int) -> bool:
    """Note on a ReplicaSet what the Deployment wanted when it was scaled, and say whether that is news."""
    annotations = replicaset["metadata"].setdefault("annotations", {})
    news = {DESIRED: str(desired), MAX: str(most)}
    changed = any(annotations.get(key) != value for key, value in news.items())
    annotations.update(news)
    return changed
