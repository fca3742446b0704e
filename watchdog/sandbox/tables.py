"""Objects and lists in the shape that was asked for: whole, metadata only, or a table for kubectl."""

import datetime as dt
from collections.abc import Callable
from typing import Any

from watchdog.sandbox.resources import Resource

Json = dict[str, Any]
Cells = Callable[[Json], list[Any]]


def shaped(item: Json, kind: Resource, accept: str, *, single: bool = False) -> Json:
    """One object; in a watch a table has one row."""
    match _form(accept):
        case "Table" if item.get("kind") == kind.kind:
            return _table([item], {"resourceVersion": item["metadata"].get("resourceVersion", "")}, kind)
        case "PartialObjectMetadata" | "PartialObjectMetadataList":
            return _partial(item)
    return item


def shaped_list(items: list[Json], metadata: Json, kind: Resource, accept: str) -> Json:
    """A page of a list."""
    match _form(accept):
        case "Table":
            return _table(items, metadata, kind)
        case "PartialObjectMetadataList":
            return {
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
                "items": [_partial(item) for item in items],
            }
    # Items of a list do not repeat what the list says.
    bare = [{key: value for key, value in item.items() if key not in ("kind", "apiVersion")} for item in items]
    return {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": metadata, "items": bare}


def _form(accept: str) -> str:
    """The first form asked for that the sandbox can give."""
    for media in accept.replace(" ", "").split(","):
        main, *parameters = media.split(";")
        options = dict(parameter.partition("=")[::2] for parameter in parameters)
        if main == "application/json" and options.get("v", "v1") == "v1":
            return options.get("as", "")
    return ""


def _partial(item: Json) -> Json:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"]}


def _table(items: list[Json], metadata: Json, kind: Resource) -> Json:
    columns, cells = _COLUMNS.get(kind.name, ([], lambda item: []))
    names = ["Name", *columns, "Age"]
    definitions = [
        {"name": name, "type": "string", "format": "name" if name == "Name" else "", "description": "", "priority": 0}
        for name in names
    ]
    rows = [
        {"cells": [item["metadata"].get("name", ""), *cells(item), _age(item)], "object": _partial(item)}
        for item in items
    ]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions,
        "rows": rows,
    }


def _deployment(item: Json) -> list[Any]:
    status = item.get("status") or {}
    ready = f"{status.get('readyReplicas', 0)}/{item['spec'].get('replicas', 1)}"
    return [ready, status.get("updatedReplicas", 0), status.get("availableReplicas", 0)]


def _replicaset(item: Json) -> list[Any]:
    status = item.get("status") or {}
    return [item["spec"].get("replicas", 1), status.get("replicas", 0), status.get("readyReplicas", 0)]


def _pod(item: Json) -> list[Any]:
    status = item.get("status") or {}
    containers = status.get("containerStatuses") or []
    waiting = [entry.get("state", {}).get("waiting", {}).get("reason") for entry in containers]
    word = next(filter(None, waiting), status.get("phase", "Pending"))
    if "deletionTimestamp" in item["metadata"]:
        word = "Terminating"
    ready = sum(bool(entry.get("ready")) for entry in containers)
    restarts = sum(entry.get("restartCount", 0) for entry in containers)
    return [f"{ready}/{len(item['spec'].get('containers', ()))}", word, restarts]


def _event(item: Json) -> list[Any]:
    about = item.get("regarding") or {}
    return [
        item.get("type"),
        item.get("reason"),
        f"{about.get('kind', '').lower()}/{about.get('name', '')}",
        item.get("note"),
    ]


_COLUMNS: dict[str, tuple[list[str], Cells]] = {
    "deployments": (["Ready", "Up-to-date", "Available"], _deployment),
    "replicasets": (["Desired", "Current", "Ready"], _replicaset),
    "pods": (["Ready", "Status", "Restarts"], _pod),
    "events": (["Type", "Reason", "Object", "Message"], _event),
}


def _age(item: Json) -> str:
    made = item["metadata"].get("creationTimestamp")
    if not made:
        return "<unknown>"
    seconds = int((dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(made)).total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{max(0, seconds)}s"
