"""The fields that a Deployment and a ReplicaSet have, down to their containers; what is below those is not checked."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from watchdog.sandbox.refusals import bad_request, unknown_in_patch
from watchdog.sandbox.resources import Resource

Json = dict[str, Any]
Unknown = tuple[str, Json, str]
"""The path of a field, the object it is in, and its name there."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TOP = _words("apiVersion kind metadata spec status")
_METADATA = _words(
    """annotations creationTimestamp deletionGracePeriodSeconds deletionTimestamp finalizers generateName generation
    labels managedFields name namespace ownerReferences resourceVersion selfLink uid"""
)
_REPLICASET = _words("minReadySeconds replicas selector template")
_DEPLOYMENT = _REPLICASET | _words("paused progressDeadlineSeconds revisionHistoryLimit strategy")
_TEMPLATE = _words("metadata spec")
_POD = _words(
    """activeDeadlineSeconds affinity automountServiceAccountToken containers dnsConfig dnsPolicy enableServiceLinks
    ephemeralContainers hostAliases hostIPC hostNetwork hostPID hostUsers hostname hostnameOverride imagePullSecrets
    initContainers nodeName nodeSelector os overhead preemptionPolicy priority priorityClassName readinessGates
    resourceClaims resources restartPolicy runtimeClassName schedulerName schedulingGates schedulingGroup
    securityContext serviceAccount serviceAccountName setHostnameAsFQDN shareProcessNamespace subdomain
    terminationGracePeriodSeconds tolerations topologySpreadConstraints volumes"""
)
_CONTAINER = _words(
    """args command env envFrom image imagePullPolicy lifecycle livenessProbe name ports readinessProbe resizePolicy
    resources restartPolicy restartPolicyRules securityContext startupProbe stdin stdinOnce terminationMessagePath
    terminationMessagePolicy tty volumeDevices volumeMounts workingDir"""
)


def checked(kind: Resource, change: Callable[[Json], Json], *, strict: bool) -> Callable[[Json], Json]:
    """Make a patch drop the fields that there are not; or refuse them by a message with all of the object (a6).

    Args:
        kind: of object.
        change: the patch.
        strict: refuse, as the query ``fieldValidation=Strict`` asks.
    """

    def apply(item: Json) -> Json:
        new = change(item)
        if problem := _drop(kind, new, strict=strict):
            raise unknown_in_patch(msgspec.json.encode(new).decode(), problem)
        return new

    return apply


def check(kind: Resource, body: Json, *, strict: bool) -> Json:
    """The same for a whole object. Raises `ApiError` 400."""
    if problem := _drop(kind, body, strict=strict):
        what = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}'
        raise bad_request(f"{what}: {problem}")
    return body


def _drop(kind: Resource, item: Json, *, strict: bool) -> str:
    """Drop unknown fields; or say what they are and leave them."""
    if kind.name not in ("deployments", "replicasets"):
        return ""
    found: list[Unknown] = sorted(_unknown(kind, item), key=_path)
    if strict and found:
        return "strict decoding error: " + ", ".join(f'unknown field "{path}"' for path, _, _ in found)
    for _, parent, field in found:
        del parent[field]
    return ""


def _unknown(kind: Resource, item: Json) -> Iterator[Unknown]:
    spec = item.get("spec")
    template = spec.get("template") if isinstance(spec, dict) else None
    pod = template.get("spec") if isinstance(template, dict) else None
    yield from _beyond(item, _TOP, "")
    yield from _beyond(item.get("metadata"), _METADATA, "metadata.")
    yield from _beyond(spec, _DEPLOYMENT if kind.name == "deployments" else _REPLICASET, "spec.")
    yield from _beyond(template, _TEMPLATE, "spec.template.")
    yield from _beyond(template.get("metadata") if template else None, _METADATA, "spec.template.metadata.")
    yield from _beyond(pod, _POD, "spec.template.spec.")
    for field in ("containers", "initContainers"):
        for index, container in enumerate((pod or {}).get(field) or ()):
            yield from _beyond(container, _CONTAINER, f"spec.template.spec.{field}[{index}].")


def _beyond(part: Any, known: frozenset[str], path: str) -> Iterator[Unknown]:
    for field in part if isinstance(part, dict) else ():
        if field not in known:
            yield f"{path}{field}", part, field


def _path(unknown: Unknown) -> str:
    return unknown[0]
