"""Label and field selectors, as they stand in a query."""

import re
from collections.abc import Callable
from typing import Any

from watchdog.sandbox.refusals import bad_request

Json = dict[str, Any]
Matches = Callable[[Json], bool]

_TERM = re.compile(
    r"\s*(?:(?P<absent>!)\s*(?P<gone>[\w./-]+)"
    r"|(?P<key>[\w./-]+)(?:\s*(?P<operator>==|=|!=)\s*(?P<value>[\w.-]*)"
    r"|\s+(?P<set>in|notin)\s*\((?P<values>[^)]*)\))?)\s*(?:,|$)"
)
_FIELDS = frozenset(
    {
        "metadata.name",
        "metadata.namespace",
        "spec.nodeName",
        "status.phase",
        "type",
        *(f"regarding.{field}" for field in ("kind", "name", "namespace", "uid", "apiVersion")),
        "reason",
    }
)


def selector(labels: str, fields: str) -> Matches:
    """What both selectors of a query find together.

    Raises:
        ApiError: 400 one of them cannot be read.
    """
    conditions = [*_labels(labels), *_fields(fields)]
    return lambda item: all(condition(item) for condition in conditions)


def matches_labels(wanted: Json, item: Json) -> bool:
    """Whether an object's labels fulfil a LabelSelector, as it stands in a spec."""
    labels = item["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in (wanted.get("matchLabels") or {}).items()):
        return False
    for term in wanted.get("matchExpressions") or ():
        value, values = labels.get(term["key"]), term.get("values") or ()
        fulfilled = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not fulfilled[term["operator"]]:
            return False
    return True


def _labels(text: str) -> list[Matches]:
    conditions, position = [], 0
    while position < len(text):
        found = _TERM.match(text, position)
        if found is None:
            raise bad_request(f"unable to parse requirement: {text[position:]!r}")
        conditions.append(_term(found))
        position = found.end()
    return conditions


def _term(found: "re.Match[str]") -> Matches:
    parts = found.groupdict()
    key = parts["gone"] or parts["key"]

    def value(item: Json) -> str | None:
        label: str | None = (item["metadata"].get("labels") or {}).get(key)
        return label

    if parts["absent"]:
        return lambda item: value(item) is None
    if parts["operator"] == "!=":
        return lambda item: value(item) != parts["value"]
    if parts["operator"]:
        return lambda item: value(item) == parts["value"]
    if parts["set"]:
        listed = {entry.strip() for entry in parts["values"].split(",")}
        if parts["set"] == "in":
            return lambda item: value(item) in listed
        return lambda item: value(item) not in listed
    return lambda item: value(item) is not None


def _fields(text: str) -> list[Matches]:
    conditions: list[Matches] = []
    for term in filter(None, text.split(",")):
        path, operator, value = re.split(r"(!=|==?)", term, maxsplit=1) if "=" in term else (term, "", "")
        path = path.replace("involvedObject.", "regarding.")
        if not operator or path not in _FIELDS:
            raise bad_request(f'field label not supported: "{path}"')
        conditions.append(_field(path, value, equal=operator != "!="))
    return conditions


def _field(path: str, value: str, *, equal: bool) -> Matches:
    def matches(item: Json) -> bool:
        node: Any = item
        for part in path.split("."):
            node = (node or {}).get(part)
        return ((node or "") == value) is equal

    return matches
