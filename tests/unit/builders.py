"""Deployments and their ReplicaSets as the API server sends them, in the state that a test needs."""

import copy
import datetime as dt
import hashlib
import json
from typing import Any, TypeVar

import msgspec

from tests.unit import json_patch
from watchdog.decide import marks
from watchdog.model import Cause, IncidentId
from watchdog.objects import (
    CHANGE_CAUSE,
    HASH_LABEL,
    REVISION,
    Autoscaler,
    Deployment,
    ReplicaSet,
    Snapshot,
    TemplateHash,
)

Json = dict[str, Any]
T = TypeVar("T")

NOW = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)
UID = "5f2f7b9e-6f0c-4a0e-9d6e-000000000001"
CAUSE = Cause(by="jane@example.com", reason="checkout fails")


def decoded(document: Json, kind: type[T]) -> T:
    """Decode an object as it would arrive over the wire."""
    return msgspec.json.decode(json.dumps(document), type=kind)


def raw(document: Json) -> msgspec.Raw:
    """Give a pod template in the form in which the program keeps it."""
    return msgspec.Raw(json.dumps(document).encode())


def hash_of(version: str) -> TemplateHash:
    """Give a pod-template-hash that looks like one, the same for the same version."""
    return TemplateHash(hashlib.sha256(version.encode()).hexdigest()[:10])


def template(version: str, *, annotations: Json | None = None) -> Json:
    """Give the pod template of a version: one container, whose image carries it as its tag."""
    metadata: Json = {"labels": {"app": "web"}}
    if annotations:
        metadata["annotations"] = annotations
    container = {
        "name": "web",
        "image": f"registry.example/web:{version}",
        "env": [{"name": "PASSWORD", "value": f"secret-of-{version}"}],
        "resources": {"limits": {"cpu": "1"}},
    }
    return {"metadata": metadata, "spec": {"containers": [container], "restartPolicy": "Always"}}


class Scene:
    """A Deployment and its ReplicaSets: JSON to be changed at will, and what the program makes of it."""

    def __init__(self, deployment: Json, replicasets: list[Json]) -> None:
        self.deployment = deployment
        self.replicasets = replicasets

    @property
    def annotations(self) -> Json:
        """The Deployment's annotations."""
        found: Json = self.deployment["metadata"]["annotations"]
        return found

    @property
    def spec(self) -> Json:
        """The Deployment's spec."""
        found: Json = self.deployment["spec"]
        return found

    @property
    def snapshot(self) -> Snapshot:
        """What the program reads."""
        return Snapshot(
            decoded(self.deployment, Deployment), tuple(decoded(item, ReplicaSet) for item in self.replicasets)
        )

    def replicaset(self, version: str) -> Json:
        """Find the ReplicaSet of a version."""
        return next(item for item in self.replicasets if item["metadata"]["name"] == f"web-{hash_of(version)}")

    def annotate(self, version: str, key: str, value: str) -> None:
        """Put an annotation on the ReplicaSet of a version."""
        self.replicaset(version)["metadata"]["annotations"][key] = value

    def condemn(self, version: str, *, incident: str = "web-2-0badf00d") -> None:
        """Mark a version as found bad."""
        self.annotate(version, marks.CONDEMNED, marks.write_about(hash_of(version), incident))

    def deploy(self, version: str) -> None:
        """Let somebody change the template, before the controller has seen it."""
        self.spec["template"] = template(version)
        self.deployment["metadata"]["generation"] += 1

    def pause(self, *, incident: IncidentId | None = None, version: str | None = None) -> None:
        """Pause it: somebody did, or with an incident and a version we did."""
        self.spec["paused"] = True
        if incident and version:
            self.annotations[marks.PAUSED_BY] = marks.write_about(hash_of(version), incident)

    def copied(self) -> "Scene":
        """Give the same once more, to be changed on its own."""
        return Scene(copy.deepcopy(self.deployment), copy.deepcopy(self.replicasets))

    def after(self, patch: bytes) -> Json:
        """Give the Deployment after a patch, as the API server would have it."""
        return json_patch.apply(patch, self.deployment)

    def written(self, patch: bytes) -> Deployment:
        """Give the Deployment after a patch, as the program reads it."""
        return decoded(self.after(patch), Deployment)


def replicaset(version: str, revision: int | str | None, *, age: int = 0, replicas: int = 0, uid: str = UID) -> Json:
    """Give the ReplicaSet of a version; of two, the one with the greater `age` is the older one."""
    template_hash = hash_of(version)
    its_template = template(version)
    its_template["metadata"]["labels"][HASH_LABEL] = template_hash
    return {
        "metadata": {
            "name": f"web-{template_hash}",
            "namespace": "shop",
            "uid": f"uid-of-{version}",
            "creationTimestamp": (NOW - dt.timedelta(hours=1 + age)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "labels": {"app": "web", HASH_LABEL: template_hash},
            "annotations": {} if revision is None else {REVISION: str(revision)},
            "ownerReferences": [{"uid": uid, "controller": True, "kind": "Deployment", "name": "web"}],
        },
        "spec": {"replicas": replicas, "template": its_template},
    }


def history(*versions: str, replicas: int = 3, cause: str | None = None) -> Scene:
    """Give a Deployment on which these versions were rolled out one after the other; the last one is live.

    Revisions are numbered from 1, everything is observed, and the newest rollout is halfway through.
    """
    newest = len(versions)
    deployment: Json = {
        "metadata": {
            "name": "web",
            "namespace": "shop",
            "uid": UID,
            "resourceVersion": "1000",
            "generation": newest,
            "annotations": {REVISION: str(newest), **({CHANGE_CAUSE: cause} if cause else {})},
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate"},
            "template": template(versions[-1]),
        },
        "status": status(generation=newest, replicas=replicas + 1, updated=1, available=replicas),
    }
    sets = [replicaset(version, number, age=newest - number) for number, version in enumerate(versions, start=1)]
    return Scene(deployment, sets)


def status(*, generation: int, replicas: int, updated: int, available: int) -> Json:
    """Give what the controller says of a Deployment."""
    return {
        "observedGeneration": generation,
        "replicas": replicas,
        "updatedReplicas": updated,
        "availableReplicas": available,
    }


def managed(manager: str, *, fields: Json | None = None, time: str = "2026-03-01T11:00:00Z") -> Json:
    """Give one entry of managedFields."""
    return {"manager": manager, "operation": "Update", "time": time, "fieldsV1": fields or {"f:spec": {}}}


def autoscaler(target: str, *, labels: Json | None = None, kind: str = "Deployment") -> Autoscaler:
    """Give a HorizontalPodAutoscaler."""
    document = {
        "metadata": {"name": f"scaler-of-{target}", "namespace": "shop", "labels": labels or {}},
        "spec": {"scaleTargetRef": {"kind": kind, "name": target}},
    }
    return decoded(document, Autoscaler)
