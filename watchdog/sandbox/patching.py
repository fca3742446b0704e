"""The three patches of the API: JSON patch (RFC 6902), merge patch (RFC 7386) and the strategic one.

The JSON patch is not a library's, because the API server's is a particular one: ``replace`` sets a key that is not
there, and ``test`` of null holds where there is no key (docs/design a4, a5).
"""

import copy
from collections.abc import Callable
from typing import Any

import msgspec

from watchdog.sandbox.refusals import ApiError, bad_request, patch_failed
from watchdog.sandbox.schema import SETS, merge_key

Json = dict[str, Any]

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"


def patcher(content_type: str, body: bytes) -> Callable[[Json], Json]:
    """Read a patch and give what applies it to a copy of an object, which it may change.

    Raises:
        ApiError: 400 it cannot be read, 415 it is none of the three. Applying raises 422 where an operation fails.
    """
    try:
        patch = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise bad_request(f"error decoding patch: {error}") from error
    if content_type == JSON_PATCH:
        if not isinstance(patch, list):
            raise bad_request("error decoding patch: a JSON patch is a list")
        return lambda item: apply_operations(item, patch)
    if not isinstance(patch, dict):
        raise bad_request("error decoding patch: a merge patch is an object")
    if content_type == MERGE_PATCH:
        return lambda item: merge(item, patch)
    if content_type == STRATEGIC_PATCH:
        return lambda item: merge_strategically(item, patch)
    raise ApiError(415, "UnsupportedMediaType", f"the body of the request was in an unknown format: {content_type}")


def apply_operations(item: Json, operations: list[Json]) -> Json:
    """Apply a JSON patch in place. Raises `ApiError` 422 without causes where an operation fails."""
    root: Json = {"": item}
    for operation in operations:
        try:
            _apply(root, operation)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise patch_failed() from error
    result = root[""]
    if not isinstance(result, dict):
        raise patch_failed()
    return result


def _apply(root: Json, operation: Json) -> None:
    parent, key = _locate(root, operation["path"])
    match operation["op"]:
        case "test":
            found = parent.get(key) if isinstance(parent, dict) else parent[_index(key)]
            if not _same(found, operation.get("value")):
                raise ValueError(operation["path"])
        case "add":
            _add(parent, key, copy.deepcopy(operation["value"]))
        case "replace" if isinstance(parent, dict):
            parent[key] = copy.deepcopy(operation["value"])
        case "replace":
            parent[_index(key)] = copy.deepcopy(operation["value"])
        case "remove":
            _remove(parent, key)
        case "move" | "copy" as kind:
            source, source_key = _locate(root, operation["from"])
            value = source[source_key] if isinstance(source, dict) else source[_index(source_key)]
            if kind == "move":
                _remove(source, source_key)
            _add(parent, key, copy.deepcopy(value))
        case other:
            raise ValueError(other)


def _locate(root: Json, path: str) -> tuple[Any, str]:
    """The container that a path's last part is in, and that part."""
    if path and not path.startswith("/"):
        raise ValueError(path)
    *parts, last = (part.replace("~1", "/").replace("~0", "~") for part in path.split("/"))
    node: Any = root
    for part in parts:
        node = node[part] if isinstance(node, dict) else node[_index(part)]
    if not isinstance(node, dict | list):
        raise TypeError(path)
    return node, last


def _index(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(text)
    return int(text)


def _add(parent: Any, key: str, value: Any) -> None:
    if isinstance(parent, dict):
        parent[key] = value
        return
    index = len(parent) if key == "-" else _index(key)
    if index > len(parent):
        raise IndexError(key)
    parent.insert(index, value)


def _remove(parent: Any, key: str) -> None:
    if isinstance(parent, dict):
        del parent[key]
    else:
        del parent[_index(key)]


def _same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON; Python alone would take 1 for true."""
    return msgspec.json.encode(one, order="deterministic") == msgspec.json.encode(other, order="deterministic")


def merge(item: Json, patch: Json) -> Json:
    """Apply a merge patch in place: null takes away, an object goes deeper, anything else replaces."""
    for field, value in patch.items():
        if value is None:
            item.pop(field, None)
        elif isinstance(value, dict):
            below = item.get(field)
            item[field] = merge(below if isinstance(below, dict) else {}, value)
        else:
            item[field] = value
    return item


def merge_strategically(item: Json, patch: Json, *, parent: str = "") -> Json:
    """Apply a strategic merge patch in place: as `merge`, but lists with a key are merged item by item."""
    match patch.get("$patch"):
        case "replace":
            return {field: value for field, value in patch.items() if not field.startswith("$")}
        case "delete":
            return {}
    retained = patch.get("$retainKeys")
    if retained is not None:
        for field in [field for field in item if field not in retained]:
            del item[field]
    for field, value in patch.items():
        if field.startswith("$deleteFromPrimitiveList/"):
            name = field.partition("/")[2]
            item[name] = [entry for entry in item.get(name, ()) if entry not in value]
        elif not field.startswith("$"):
            _merge_field(item, field, value, parent)
    for field, order in patch.items():
        if field.startswith("$setElementOrder/"):
            _reorder(item, field.partition("/")[2], order, parent)
    return item


def _merge_field(item: Json, field: str, value: Any, parent: str) -> None:
    found = item.get(field)
    if value is None:
        item.pop(field, None)
    elif isinstance(value, dict):
        item[field] = merge_strategically(found if isinstance(found, dict) else {}, value, parent=field)
        if value.get("$patch") == "delete":
            del item[field]
    elif isinstance(value, list) and (keys := merge_key(parent, field)):
        item[field] = _merge_list(found or [], value, keys[0], field)
    elif isinstance(value, list) and field in SETS:
        item[field] = [*(found or ()), *(entry for entry in value if entry not in (found or ()))]
    else:
        item[field] = value


def _merge_list(found: list[Json], changes: list[Json], key: str, field: str) -> list[Json]:
    if any(change.get("$patch") == "replace" for change in changes):
        return [change for change in changes if "$patch" not in change]
    result = list(found)
    for change in changes:
        if key not in change:
            raise bad_request(f"map: {change} does not contain declared merge key: {key}")
        place = next((index for index, entry in enumerate(result) if entry.get(key) == change[key]), None)
        if change.get("$patch") == "delete":
            result = [entry for entry in result if entry.get(key) != change[key]]
        elif place is None:
            result.append(merge_strategically({}, change, parent=field))
        else:
            result[place] = merge_strategically(result[place], change, parent=field)
    return result


def _reorder(item: Json, field: str, order: list[Any], parent: str) -> None:
    """Put a list's items in the order asked for; others keep their place behind them."""
    keys = merge_key(parent, field)
    wanted = [entry.get(keys[0]) if keys and isinstance(entry, dict) else entry for entry in order]

    def rank(entry: Any) -> int:
        value = entry.get(keys[0]) if keys and isinstance(entry, dict) else entry
        return wanted.index(value) if value in wanted else len(wanted)

    if isinstance(item.get(field), list):
        item[field] = sorted(item[field], key=rank)
