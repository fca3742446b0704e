"""What a merge must know about lists: by which field the items of a list are told apart."""

from collections.abc import Mapping

MERGE_KEYS: Mapping[str, tuple[str, ...]] = {
    "conditions": ("type",),
    "containers": ("name",),
    "env": ("name",),
    "hostAliases": ("ip",),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "ownerReferences": ("uid",),
    "volumeDevices": ("devicePath",),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
"""The key of each list that is merged item by item; every other list is replaced whole, but for ports."""

SETS = frozenset({"finalizers"})
"""Lists of plain values that are merged as sets."""

ATOMIC = frozenset(
    {
        "configMapKeyRef",
        "fieldRef",
        "labelSelector",
        "namespaceSelector",
        "nodeSelector",
        "ownerReferences",
        "regarding",
        "resourceFieldRef",
        "secretKeyRef",
        "selector",
    }
)
"""Objects that are owned whole, and lists whose items are."""

MAPS = frozenset({"annotations", "binaryData", "data", "labels", "limits", "requests", "stringData"})
"""Objects whose keys are the users', so that whatever stands below one is its value."""


def merge_key(parent: str, field: str) -> tuple[str, ...]:
    """The fields that tell the items of a list apart; empty for a list that is replaced whole.

    Args:
        parent: the field that the object with the list stands in; the ports of a container and of a Service differ.
        field: the list's own.
    """
    if field == "ports":
        return ("port", "protocol") if parent == "spec" else ("containerPort", "protocol")
    return MERGE_KEYS.get(field, ())
