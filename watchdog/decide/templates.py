"""Pod templates as JSON: equality as Kubernetes sees it, and their differences as people see them."""

import hashlib
import re
from decimal import Decimal
from typing import Any

import msgspec

from watchdog.decoding import any_json, from_json
from watchdog.objects import HASH_LABEL

Json = dict[str, Any]

_MAPS = frozenset({"annotations", "labels", "limits", "requests", "nodeSelector", "matchLabels", "overhead"})
"""Fields that are maps in Go, where empty and absent are the same. An empty object elsewhere (`emptyDir: {}`) means
something."""

_QUANTITIES = frozenset({"limits", "requests", "overhead"})
_QUANTITY_FIELDS = frozenset({("emptyDir", "sizeLimit"), ("resourceFieldRef", "divisor")})
_QUANTITY = re.compile(r"([+-]?[0-9.]+)(?:[eE]([+-]?[0-9]+)|(n|u|m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei)?)")
_SUFFIXES = {
    **{
        suffix: Decimal(1000) ** power
        for power, suffix in enumerate(("n", "u", "m", "", "k", "M", "G", "T", "P", "E"), -3)
    },
    **{suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
}
_MOST_KNOWN = 32_768
_known: dict[bytes, bytes] = {}
"""What templates mean, by what they are: both digests, so that an entry has 200 bytes whatever the template has."""

_IMAGE = re.compile(r"\.spec\.(initContainers|containers)\[[^\]]*\]\.image")


class _HeadMetadata(msgspec.Struct, frozen=True):
    labels: dict[str, Any] | None = None
    annotations: dict[str, Any] | None = None


class _TemplateHead(msgspec.Struct, frozen=True):
    """What is read of a template without decoding the rest."""

    metadata: _HeadMetadata | None = None


def parse(template: msgspec.Raw) -> Json:
    """Decode a pod template, without the label that only ReplicaSets carry and without what Go would leave out."""
    decoded: Json = _canonical(any_json(template))
    metadata = decoded.get("metadata", {})
    labels = metadata.get("labels", {})
    labels.pop(HASH_LABEL, None)
    if not labels:
        metadata.pop("labels", None)
    if not metadata:
        decoded.pop("metadata", None)
    return decoded


def carries_hash(template: msgspec.Raw) -> bool:
    """Whether the template has the label that only ReplicaSets carry."""
    labels = (any_json(template).get("metadata") or {}).get("labels") or {}
    return HASH_LABEL in labels


def same(one: msgspec.Raw, other: msgspec.Raw) -> bool:
    """Whether two templates are one revision: kubectl's and the controller's `equalIgnoreHash` [1].

    Like there, quantities are compared as numbers: the API server prints `1Gi` and `1073741824` as they were written,
    and the controller makes no new ReplicaSet for such a change.

    Each template is decoded once: every look at a rollout compares the live template with those of all its ReplicaSets,
    and one may have a MiB.

    [1] kubectl pkg/util/deployment/deployment.go
    """
    return _meaning(one) == _meaning(other)


def _meaning(template: msgspec.Raw) -> bytes:
    """Give a digest that templates share if and only if they are one revision."""
    key = hashlib.sha256(template).digest()
    found = _known.pop(key, None)
    if found is None:
        found = hashlib.sha256(msgspec.json.encode(parse(template), order="deterministic")).digest()
        while len(_known) >= _MOST_KNOWN:
            del _known[next(iter(_known))]
    _known[key] = found  # the newest last: those that nobody asks about go first
    return found


def descends(live: msgspec.Raw, written: msgspec.Raw) -> bool:
    """Whether a template may be what admission made of the one that was written: its containers, with their images.

    A mutating webhook adds labels, variables and sidecars. That somebody deployed something else instead is for the
    caller to rule out.
    """
    return images(written).items() <= images(live).items()


def differ_only_in_annotations(one: msgspec.Raw, other: msgspec.Raw) -> bool:
    """Whether going from one to the other would restart the pods and change nothing in them."""
    stripped = [parse(template) for template in (one, other)]
    for template in stripped:
        metadata = template.get("metadata", {})
        metadata.pop("annotations", None)
        if not metadata:
            template.pop("metadata", None)
    return stripped[0] == stripped[1]


def annotations(template: msgspec.Raw) -> dict[str, str]:
    """The annotations inside the template."""
    metadata = from_json(template, _TemplateHead).metadata
    found = (metadata and metadata.annotations) or {}
    return {key: value for key, value in found.items() if value is not None}


def labels(template: msgspec.Raw) -> dict[str, str]:
    """The labels inside the template, without the one that only ReplicaSets carry."""
    metadata = from_json(template, _TemplateHead).metadata
    found = (metadata and metadata.labels) or {}
    return {key: value for key, value in found.items() if value is not None and key != HASH_LABEL}


def images(template: msgspec.Raw) -> dict[str, str]:
    """Image by container name; init containers too, as `init:<name>`."""
    spec = parse(template).get("spec", {})
    found = {f"init:{item['name']}": item.get("image", "") for item in spec.get("initContainers", ())}
    found.update({item["name"]: item.get("image", "") for item in spec.get("containers", ())})
    return found


def changes(one: msgspec.Raw, other: msgspec.Raw) -> tuple[str, ...]:
    """The paths at which two templates differ, sorted.

    Images are shown with both values. Of everything else only the path is, since a value may be a secret.
    """
    return tuple(sorted(_changes("", parse(one), parse(other))))


def _changes(path: str, one: Any, other: Any) -> list[str]:
    if one == other:
        return []
    if isinstance(one, dict) and isinstance(other, dict):
        keys = one.keys() | other.keys()
        return [line for key in keys for line in _changes(f"{path}.{key}", one.get(key), other.get(key))]
    if _named(one) and _named(other):
        left, right = ({item["name"]: item for item in items} for items in (one, other))
        names = left.keys() | right.keys()
        found = [line for name in names for line in _changes(f"{path}[{name}]", left.get(name), right.get(name))]
        return found or [path[1:]]  # the same items in another order
    if _IMAGE.fullmatch(path) and one and other:
        return [f"{path[1:]}: {one} -> {other}"]
    return [path[1:]]


def _named(items: Any) -> bool:
    return isinstance(items, list) and all(
        isinstance(item, dict) and isinstance(item.get("name"), str) for item in items
    )


def _canonical(value: Any, key: str = "") -> Any:
    """Drop null, empty lists and empty maps, as Go's encoder does for optional fields, and make quantities numbers."""
    if isinstance(value, dict):
        found = {
            name: _quantity(item) if key in _QUANTITIES or (key, name) in _QUANTITY_FIELDS else _canonical(item, name)
            for name, item in value.items()
            if item is not None
        }
        return {name: item for name, item in found.items() if item != [] and not (item == {} and name in _MAPS)}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return value


def _quantity(value: Any) -> Any:
    """A quantity as a number; what is none stays as it is."""
    match = _QUANTITY.fullmatch(str(value)) if isinstance(value, str | int | float) else None
    if match is None:
        return value
    number, exponent, suffix = match.groups()
    try:
        found = Decimal(number).scaleb(int(exponent)) if exponent else Decimal(number) * _SUFFIXES[suffix or ""]
        return found.normalize() or Decimal(0)  # of equal ones, one way to write them
    except (ArithmeticError, ValueError):  # beyond what a Decimal holds, or Python reads
        return value
