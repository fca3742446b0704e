"""Where an undo of ours differs from kubectl's on purpose, told from a history's own facts.

Nothing here asks the program under test: kubectl's way through a history is written down a second time, after its Go
source (kubectl pkg/polymorphichelpers/rollback.go, pkg/util/deployment/deployment.go), and held to the real one where
`test_kubectl_oracle` uses it.
"""

import copy
import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from fractions import Fraction
from typing import Any

from tests.oracle.histories import (
    CONDEMNED,
    HASH,
    HOLD,
    NOW,
    PAUSED_BY,
    REVISION,
    UNKNOWN_FIELD,
    History,
    Json,
)
from tests.oracle.kubectl import Did

_POINTERS = frozenset({"emptyDir", "securityContext"})
"""Fields behind a pointer in Go: empty and absent are two things. Everywhere else they are one."""

_QUANTITIES = frozenset({"limits", "requests"})
"""Maps of quantities, which Go compares as numbers."""

_BINARY = "KMGTPE"
_DECIMAL = {None: 0, "n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


class Difference(StrEnum):
    """The deliberate differences; those that are guards have the guard's word."""

    NOT_OBSERVED = "not-observed"
    UNNUMBERED = "unnumbered"
    CONDEMNED = "condemned"
    NOTHING_TO_UNDO = "nothing-to-undo"
    PAUSED = "paused"
    RECREATE = "recreate"
    GITOPS = "gitops"
    HOLD = "hold"


def same_refusal(guard: str, did: Did) -> bool:
    """Whether a guard's no is kubectl's."""
    return did in {
        "no-target": {Did.NO_HISTORY, Did.NO_REVISION},
        "nothing-to-undo": {Did.SKIPPED},
        "paused": {Did.PAUSED},
    }.get(guard, set())


def named_difference(history: History) -> Difference | None:
    """The one reason why our answer differs from kubectl's, if it does; None where both must do the same.

    Where several apply it is the one that our undo meets first.
    """
    theirs, ours = kubectl_choice(history), kubectl_choice(as_we_see(history))
    spec = history.deployment["spec"]
    if not is_observed(history):
        # Of a paused Deployment both say so, if kubectl finds anything to go to.
        return None if spec.get("paused") and theirs else Difference.NOT_OBSERVED
    if theirs is None:
        return None
    if history.to_revision is None and ours is not None and ours is live(history):
        return Difference.NOT_OBSERVED
    passed_over = None if theirs is ours else Difference.CONDEMNED if number(theirs) else Difference.UNNUMBERED
    if ours is None:
        return passed_over
    kubectl_skips = same_template(theirs, history.deployment) and not spec.get("paused")
    if same_template(ours, history.deployment, annotations=False):
        ours_is_same = same_template(ours, history.deployment)
        if ours_is_same and kubectl_skips:
            return None
        return passed_over if passed_over and ours_is_same else Difference.NOTHING_TO_UNDO
    if spec.get("paused") and not is_paused_by_us(history):
        return None
    return policy(history, ours) or (Difference.PAUSED if spec.get("paused") else passed_over)


def policy(history: History, target: Json) -> Difference | None:
    """The first guard, in our order, that a person would have to force; a pause aside."""
    metadata = history.deployment["metadata"]
    annotations, labels = metadata.get("annotations", {}), metadata.get("labels", {})
    if history.deployment["spec"]["strategy"]["type"] == "Recreate":
        return Difference.RECREATE
    if is_condemned(target):
        return Difference.CONDEMNED
    if "argocd.argoproj.io/tracking-id" in annotations or "kustomize.toolkit.fluxcd.io/name" in labels:
        return Difference.GITOPS
    return Difference.HOLD if _is_held(annotations.get(HOLD)) else None


def _is_held(text: str | None) -> bool:
    if text is None:
        return False
    until = re.match(r"until=([^;]+);", text)
    return until is None or dt.datetime.fromisoformat(until[1]) > NOW


def as_we_see(history: History) -> History:
    """The history without what we pass over and kubectl does not, and without a pause.

    kubectl passes over a revision that is no number: so that is what unnumbered and condemned revisions get here. A
    condemned one stays where it is named, or is the newest, or where there is no other to go to.
    """
    deployment = copy.deepcopy(history.deployment)
    deployment["spec"].pop("paused", None)
    numbered = [item for item in owned(history) if number(item)]
    newest = max(numbered, key=number, default=None)
    older = [item for item in numbered if item is not newest]
    passing = history.to_revision is None and not all(map(is_condemned, older))
    replicasets = []
    for item in history.replicasets:
        condemned = passing and is_condemned(item) and any(item is one for one in older)
        if condemned or not number(item):
            item = copy.deepcopy(item)
            item["metadata"].setdefault("annotations", {})[REVISION] = "passed over"
        replicasets.append(item)
    return replace(history, deployment=deployment, replicasets=tuple(replicasets))


def without_unknown_fields(history: History) -> History:
    """The history as a kubectl sees it that is older than some of its fields."""
    return replace(
        history,
        deployment=_known(history.deployment),
        replicasets=tuple(_known(item) for item in history.replicasets),
    )


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _known(item) for key, item in value.items() if key != UNKNOWN_FIELD}
    return [_known(item) for item in value] if isinstance(value, list) else value


# -- kubectl's way -----------------------------------------------------------------------------------------------------


def kubectl_choice(history: History) -> Json | None:
    """The ReplicaSet that kubectl would go to; None where it finds none."""
    latest: tuple[int, Json | None] = (-1, None)
    previous = latest
    for item in _in_order(history):
        value = parse_int(item["metadata"].get("annotations", {}).get(REVISION, "0"))
        if value is None:
            continue
        if history.to_revision is not None:
            if value == history.to_revision:
                return item
        elif latest[0] < value:
            latest, previous = (value, item), latest
        elif previous[0] < value:
            previous = (value, item)
    return previous[1]


def live(history: History) -> Json | None:
    """The oldest of the Deployment's own ReplicaSets that has its template."""
    return next((item for item in owned(history) if same_template(item, history.deployment)), None)


def owned(history: History) -> Sequence[Json]:
    """The ReplicaSets that the selector finds and the Deployment controls, oldest first."""
    selector, uid = history.deployment["spec"]["selector"], history.deployment["metadata"]["uid"]

    def is_owned(item: Json) -> bool:
        owners = item["metadata"].get("ownerReferences", [])
        controllers = [owner["uid"] for owner in owners if owner.get("controller")]
        return _selects(selector, item["metadata"].get("labels", {})) and controllers[:1] == [uid]

    def by_age(item: Json) -> tuple[str, str]:
        return item["metadata"]["creationTimestamp"], item["metadata"]["name"]

    return sorted(filter(is_owned, history.replicasets), key=by_age)


def _in_order(history: History) -> Sequence[Json]:
    found = live(history)
    return [item for item in owned(history) if item is not found] + ([found] if found else [])


def _selects(selector: Json, labels: dict[str, str]) -> bool:
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for term in selector.get("matchExpressions", []):
        value, values = labels.get(term["key"]), term.get("values", [])
        holds = {"In": value in values, "NotIn": value not in values, "Exists": value, "DoesNotExist": not value}
        if not holds[term["operator"]]:
            return False
    return True


def parse_int(text: str) -> int | None:
    """Go's strconv.ParseInt(text, 10, 64)."""
    found = int(text) if re.fullmatch(r"[+-]?[0-9]{1,4000}", text) else 2**63
    return found if -(2**63) <= found < 2**63 else None


# -- Facts -------------------------------------------------------------------------------------------------------------


def number(replicaset: Json) -> int:
    """Its revision; 0 where it has none above that."""
    return max(0, parse_int(replicaset["metadata"].get("annotations", {}).get(REVISION, "0")) or 0)


def is_condemned(replicaset: Json) -> bool:
    """Whether it is marked as found bad, by a mark about itself."""
    identity = replicaset["metadata"].get("labels", {}).get(HASH)
    about, _, incident = replicaset["metadata"].get("annotations", {}).get(CONDEMNED, "").partition(":")
    return bool(identity and about == identity and incident)


def is_observed(history: History) -> bool:
    """Whether the controller has seen the live template and numbered its ReplicaSet."""
    metadata, found = history.deployment["metadata"], live(history)
    seen = metadata["generation"] <= history.deployment["status"]["observedGeneration"]
    return seen and found is not None and number(found) > 0 and REVISION in metadata.get("annotations", {})


def is_paused_by_us(history: History) -> bool:
    """Whether the pause carries our mark, about what is live."""
    found = live(history) or {"metadata": {}}
    identity = found["metadata"].get("labels", {}).get(HASH)
    mark = history.deployment["metadata"].get("annotations", {}).get(PAUSED_BY, "")
    return bool(identity) and mark.startswith(f"{identity}:")


def same_template(one: Json, other: Json, *, annotations: bool = True) -> bool:
    """Go's equalIgnoreHash; optionally without the annotations, too."""
    left, right = (item["spec"]["template"] for item in (one, other))
    return as_go_reads(left, annotations=annotations) == as_go_reads(right, annotations=annotations)


def as_go_reads(template: Json, *, annotations: bool = True) -> Json:
    """A template without what Go's types do not tell apart, and without the hash label."""
    metadata = dict(template["metadata"])
    metadata["labels"] = {key: value for key, value in (metadata.get("labels") or {}).items() if key != HASH}
    if not annotations:
        metadata["annotations"] = None
    found: Json = _pruned({**template, "metadata": metadata})
    return found


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        items = {key: _amounts(item) if key in _QUANTITIES else _pruned(item) for key, item in value.items()}
        return {k: v for k, v in items.items() if v is not None and v != [] and (v != {} or k in _POINTERS)}
    return [_pruned(item) for item in value] if isinstance(value, list) else value


def _amounts(quantities: dict[str, str] | None) -> dict[str, Fraction]:
    return {key: amount(text) for key, text in (quantities or {}).items()}


def amount(quantity: str) -> Fraction:
    """The number that a Kubernetes quantity is."""
    found = re.fullmatch(r"([0-9.]+)(?:([KMGTPE])i|([numkMGTPE])|[eE]([+-]?[0-9]+))?", quantity)
    assert found, quantity
    digits, binary, decimal, exponent = found.groups()
    if binary:
        return Fraction(digits) * Fraction(1024 ** (_BINARY.index(binary) + 1))
    power = int(exponent or _DECIMAL[decimal])
    return Fraction(digits) * Fraction(10**power if power >= 0 else Fraction(1, 10**-power))
