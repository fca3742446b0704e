"""Who last wrote which field: ``metadata.managedFields``, as the API server keeps it for everything but apply.

A write takes the fields that it changes away from whoever had them, and gives its own manager an entry per operation
and subresource; what it removes belongs to nobody. Entries that a client takes out stay out
(https://kubernetes.io/docs/reference/using-api/server-side-apply/#managers).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from watchdog.sandbox.schema import ATOMIC, MAPS, SETS, merge_key

Json = dict[str, Any]
Path = tuple[str, ...]
"""Steps as managedFields spell them: ``f:spec``, ``k:{"name":"app"}``, ``v:"x"``."""

_UNOWNED = frozenset(
    {
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "generation",
        "managedFields",
        "name",
        "namespace",
        "resourceVersion",
        "uid",
    }
)
"""What the API server writes itself, below ``metadata``."""

_ALWAYS_THERE = frozenset({"containers", "metadata", "spec", "status", "strategy", "template"})
"""Parts that exist even where they are empty, so that nobody adds them."""


def track(new: Json, old: Json | None, *, manager: str, subresource: str, at: str) -> None:
    """Set an object's managedFields to what they are after a write.

    Args:
        new: what is about to be stored. The managedFields in it count as the client's wish: none is no wish.
        old: what it replaces; None for a new object.
        manager: who writes.
        subresource: through which they do, or empty.
        at: the time, as the API writes it.
    """
    before = old["metadata"].get("managedFields", []) if old else []
    wished = new["metadata"].pop("managedFields", None)
    entries = [entry for entry in (wished if old and wished else before) if entry]
    if entries or old is None:  # whoever sends one empty entry wants none kept from now on
        had, has = dict(_leaves(old or {})), dict(_leaves(new))
        written = {path for path, value in has.items() if path not in had or had[path] != value}
        entries = _after(entries, written, set(had) - set(has), (manager, new["apiVersion"], subresource), at)
    if entries:
        new["metadata"]["managedFields"] = entries


def _after(entries: list[Json], written: set[Path], removed: set[Path], by: Path, at: str) -> list[Json]:
    if not written and not removed:
        return entries
    result, ours = [], set(written)
    for entry in entries:
        owned = set(_paths(entry.get("fieldsV1") or {}))
        if written and _writer(entry) == by and entry["operation"] == "Update":
            ours |= owned - removed
        elif left := owned - written - removed:
            result.append(entry if left == owned else {**entry, "fieldsV1": _tree(left)})
    if ours:
        manager, version, subresource = by
        about = {"manager": manager, "operation": "Update", "apiVersion": version, "time": at}
        entry = {**about, "fieldsType": "FieldsV1", "fieldsV1": _tree(ours)}
        result.append({**entry, "subresource": subresource} if subresource else entry)
    return sorted(result, key=lambda entry: (entry["operation"], entry.get("time", ""), *_writer(entry)))


def _writer(entry: Json) -> Path:
    return entry["manager"], entry.get("apiVersion", ""), entry.get("subresource", "")


def _leaves(item: Json) -> Iterator[tuple[Path, Any]]:
    """All that can be owned in an object, with its value; of a container only that it is there."""
    for field, value in item.items():
        if field == "metadata":
            kept = {key: entry for key, entry in value.items() if key not in _UNOWNED}
            yield from _below(kept, ("f:metadata",), field)
        elif field not in ("kind", "apiVersion"):
            yield from _node(value, (f"f:{field}",), field, "")


def _node(value: Any, path: Path, field: str, parent: str) -> Iterator[tuple[Path, Any]]:
    if field in MAPS and not value:
        return
    if isinstance(value, dict) and value and field not in ATOMIC:
        if field not in _ALWAYS_THERE:
            yield path, True
        yield from _below(value, path, field)
    elif isinstance(value, list) and (keys := merge_key(parent, field)):
        if field not in _ALWAYS_THERE:
            yield path, True
        for entry in value:
            named = {key: entry[key] for key in keys if key in entry}
            place = (*path, f"k:{msgspec.json.encode(named, order='sorted').decode()}")
            yield place, entry if field in ATOMIC else True
            if field not in ATOMIC:
                yield from _below(entry, place, field)
    elif isinstance(value, list) and field in SETS:
        yield path, True
        for entry in value:
            yield (*path, f"v:{msgspec.json.encode(entry).decode()}"), True
    else:
        yield path, value


def _below(value: Mapping[str, Any], path: Path, field: str) -> Iterator[tuple[Path, Any]]:
    for key, entry in value.items():
        if field in MAPS:
            yield (*path, f"f:{key}"), entry
        else:
            yield from _node(entry, (*path, f"f:{key}"), key, field)


def _paths(tree: Json, above: Path = ()) -> Iterator[Path]:
    for step, below in tree.items():
        if step == ".":
            yield above
        elif below:
            yield from _paths(below, (*above, step))
        else:
            yield (*above, step)


def _tree(paths: set[Path]) -> Json:
    tree: Json = {}
    for path in sorted(paths):
        node = tree
        for step in path:
            node = node.setdefault(step, {})
    for path in paths:
        node = tree
        for step in path:
            node = node[step]
        if node:
            node["."] = {}
    return tree
