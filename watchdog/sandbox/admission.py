"""What happens to an object before it is stored: defaults are filled in, and what is not valid is refused."""

import re
from collections.abc import Iterator
from typing import Any

from watchdog.sandbox.refusals import invalid
from watchdog.sandbox.resources import Resource

Json = dict[str, Any]
Cause = tuple[str, str]

_POD = {
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "dnsPolicy": "ClusterFirst",
    "securityContext": {},
    "schedulerName": "default-scheduler",
}
_CONTAINER = {
    "resources": {},
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
}
_DEPLOYMENT = {"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600}
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")
_LONGEST_NOTE_BYTES = 1024
_LONGEST_REASON = 128


def admit(kind: Resource, new: Json, old: Json | None) -> None:
    """Fill in the API's defaults, in place, and refuse what its validation refuses.

    Args:
        kind: of object.
        new: to be stored.
        old: what it replaces; None at its creation.

    Raises:
        ApiError: 422 with a cause for each field that is wrong.
    """
    _default(kind, new, old)
    causes = list(_problems(kind, new, old))
    if causes:
        raise invalid(kind.kind, kind.group, new["metadata"].get("name", ""), *causes)


def _default(kind: Resource, item: Json, old: Json | None) -> None:
    spec = item.get("spec")
    match kind.name:
        case "deployments" if isinstance(spec, dict):
            _fill(spec, _DEPLOYMENT)
            strategy = spec.setdefault("strategy", {})
            if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
                _fill(strategy.setdefault("rollingUpdate", {}), {"maxUnavailable": "25%", "maxSurge": "25%"})
            _default_template(spec)
        case "replicasets" if isinstance(spec, dict):
            _fill(spec, {"replicas": 1})
            _default_template(spec)
        case "pods" if isinstance(spec, dict):
            _default_pod(spec)
            if old is None:
                item["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
        case "services" if isinstance(spec, dict):
            _fill(spec, {"type": "ClusterIP", "sessionAffinity": "None"})
            for port in spec.get("ports") or ():
                _fill(port, {"protocol": "TCP", "targetPort": port.get("port")})
        case "namespaces":
            if old is None:
                item["spec"], item["status"] = {"finalizers": ["kubernetes"]}, {"phase": "Active"}
            item["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = item["metadata"].get("name")
        case "secrets":
            item.setdefault("type", "Opaque")
    if old is None and kind.name in ("deployments", "replicasets"):
        item["status"] = {"replicas": 0} if kind.name == "replicasets" else {}


def _default_template(spec: Json) -> None:
    template = spec.get("template")
    if isinstance(template, dict):
        metadata = template.setdefault("metadata", {})
        for field in ("labels", "annotations"):
            if not metadata.get(field, True):
                del metadata[field]
        if isinstance(template.get("spec"), dict):
            _default_pod(template["spec"])


def _default_pod(spec: Json) -> None:
    _fill(spec, _POD)
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        _fill(container, _CONTAINER)
        tag = str(container.get("image", "")).rpartition("/")[2].partition(":")[2]
        _fill(container, {"imagePullPolicy": "Always" if tag in ("", "latest") else "IfNotPresent"})
        for port in container.get("ports") or ():
            _fill(port, {"protocol": "TCP"})


def _fill(item: Json, defaults: Json) -> None:
    for field, value in defaults.items():
        if item.get(field) is None:
            item[field] = dict(value) if isinstance(value, dict) else value


def _problems(kind: Resource, new: Json, old: Json | None) -> Iterator[Cause]:
    if not _NAME.fullmatch(str(new["metadata"].get("name", ""))) and old is None:
        yield "metadata.name", f"Invalid value: {new['metadata'].get('name')!r}: a lowercase RFC 1123 subdomain"
    match kind.name:
        case "deployments" | "replicasets":
            yield from _workload_problems(new, old)
        case "events":
            yield from _event_problems(new)
        case "leases":
            yield from _lease_problems(new.get("spec") or {})


def _workload_problems(new: Json, old: Json | None) -> Iterator[Cause]:
    spec = new.get("spec") or {}
    replicas = spec.get("replicas", 0)
    if not isinstance(replicas, int) or replicas < 0:
        yield "spec.replicas", f"Invalid value: {replicas}: must be greater than or equal to 0"
    selector = (spec.get("selector") or {}).get("matchLabels") or {}
    template = spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    if not selector and not (spec.get("selector") or {}).get("matchExpressions"):
        yield "spec.selector", "Required value"
    elif any(labels.get(key) != value for key, value in selector.items()):
        yield "spec.template.metadata.labels", f"Invalid value: {labels}: `selector` does not match template `labels`"
    if old is not None and spec.get("selector") != old["spec"].get("selector"):
        yield "spec.selector", f"Invalid value: {spec.get('selector')}: field is immutable"
    containers = (template.get("spec") or {}).get("containers") or []
    if not containers:
        yield "spec.template.spec.containers", "Required value"
    for index, container in enumerate(containers):
        for field in ("name", "image"):
            if not container.get(field):
                yield f"spec.template.spec.containers[{index}].{field}", "Required value"
    strategy = spec.get("strategy") or {}
    rolling = strategy.get("rollingUpdate") or {}
    if strategy.get("type") == "Recreate" and rolling:
        problem = "Forbidden: may not be specified when strategy `type` is 'Recreate'"
        yield "spec.strategy.rollingUpdate", problem
    if rolling and all(str(rolling.get(field)) in ("0", "0%") for field in ("maxSurge", "maxUnavailable")):
        problem = "Invalid value: 0: may not be 0 when `maxSurge` is 0"
        yield "spec.strategy.rollingUpdate.maxUnavailable", problem
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None and deadline <= spec.get("minReadySeconds", 0):
        problem = f"Invalid value: {deadline}: must be greater than minReadySeconds"
        yield "spec.progressDeadlineSeconds", problem


def _event_problems(new: Json) -> Iterator[Cause]:
    if not new.get("eventTime"):
        yield "eventTime", "Required value"
    elif not _MICRO_TIME.fullmatch(str(new["eventTime"])):
        yield "eventTime", f"Invalid value: {new['eventTime']!r}: not a time with microseconds"
    for field in ("reportingController", "reportingInstance", "action", "reason"):
        if not new.get(field):
            yield field, "Required value"
    if new.get("type") not in ("Normal", "Warning"):
        yield "type", f"Invalid value: {new.get('type', '')!r}: has invalid value"
    if len(str(new.get("note") or "").encode()) > _LONGEST_NOTE_BYTES:
        yield "note", f"Invalid value: can have at most {_LONGEST_NOTE_BYTES} characters"
    if len(str(new.get("reason") or "")) > _LONGEST_REASON:
        yield "reason", f"Invalid value: can have at most {_LONGEST_REASON} characters"


def _lease_problems(spec: Json) -> Iterator[Cause]:
    seconds = spec.get("leaseDurationSeconds")
    if seconds is not None and seconds <= 0:
        yield "spec.leaseDurationSeconds", f"Invalid value: {seconds}: must be greater than 0"
    for field in ("acquireTime", "renewTime"):
        if spec.get(field) is not None and not _MICRO_TIME.fullmatch(str(spec[field])):
            yield f"spec.{field}", f"Invalid value: {spec[field]!r}: not a time with microseconds"
