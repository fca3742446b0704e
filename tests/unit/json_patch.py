"""RFC 6902 as far as our patches use it, with the liberties that the API server takes (docs/design a4, a5).

As long as the parent is there, `test` with null passes on what is absent, and `replace` makes it.
"""

import copy
import json
from typing import Any

Json = dict[str, Any]


class PatchFailedError(Exception):
    """An operation did not hold, so nothing of the patch counts; the API server answers 422."""


def apply(patch: bytes, document: Json) -> Json:
    """Give the document with the patch applied; the one that was given stays as it is."""
    result = copy.deepcopy(document)
    for operation in json.loads(patch):
        *parents, key = [
            part.replace("~1", "/").replace("~0", "~") for part in operation["path"].removeprefix("/").split("/")
        ]
        node: Any = result
        for parent in parents:
            node = _child(node, parent, operation)
        match operation["op"]:
            case "test":
                if _get(node, key) != operation["value"]:
                    raise PatchFailedError(operation)
            case "remove":
                del node[_key(node, key, operation)]
            case "add" if isinstance(node, list):
                node.insert(int(key), copy.deepcopy(operation["value"]))
            case "add" | "replace":
                node[key] = copy.deepcopy(operation["value"])
    return result


def _get(node: Any, key: str) -> Any:
    return node[int(key)] if isinstance(node, list) else node.get(key)


def _key(node: Any, key: str, operation: Json) -> Any:
    found = int(key) if isinstance(node, list) else key
    if found not in (range(len(node)) if isinstance(node, list) else node):
        raise PatchFailedError(operation)
    return found


def _child(node: Any, key: str, operation: Json) -> Any:
    return node[_key(node, key, operation)]
