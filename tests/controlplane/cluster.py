"""One test's namespace on the control plane, and the verbs that tests set their scenes with."""

import asyncio
import datetime as dt
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.controlplane.plane import ControlPlane, Json

T = TypeVar("T")

_APIS = {
    "api/v1": ["configmaps", "endpoints", "pods", "secrets", "serviceaccounts", "services"],
    "apis/apps/v1": ["deployments", "replicasets"],
    "apis/autoscaling/v2": ["horizontalpodautoscalers"],
    "apis/coordination.k8s.io/v1": ["leases"],
    "apis/discovery.k8s.io/v1": ["endpointslices"],
    "apis/events.k8s.io/v1": ["events"],
    "apis/rbac.authorization.k8s.io/v1": ["rolebindings", "roles"],
}
_API_OF = {kind: api for api, kinds in _APIS.items() for kind in kinds}


TIMEOUT_S = 90
"""How long tests wait for what must come about: a wait that comes true costs nothing, on however busy a machine."""
_SLOWEST_S = 0.25


class NotInTimeError(AssertionError):
    """What a test waited for did not come about."""


class Cluster:
    """A namespace, with the administrator's rights. Kinds are written as in URLs, such as `deployments`.

    `wait` asks again after `poll_s` at first, and after `_SLOWEST_S` at last: most comes about at once or takes long.
    """

    def __init__(self, plane: ControlPlane, namespace: str, *, poll_s: float = 0.02) -> None:
        self.plane = plane
        self.namespace = namespace
        self._poll_s = poll_s

    def path(self, kind: str, name: str = "") -> str:
        """Return the URL path of an object, or of all objects of a kind in this namespace."""
        return f"/{_API_OF[kind]}/namespaces/{self.namespace}/{kind}" + (f"/{name}" if name else "")

    def get(self, kind: str, name: str) -> Json:
        """Read one object."""
        answer: Json = self.plane.api("GET", self.path(kind, name))
        return answer

    def objects(self, kind: str) -> list[Json]:
        """Read all objects of a kind."""
        items: list[Json] = self.plane.api("GET", self.path(kind))["items"]
        return items

    def create(self, kind: str, body: Mapping[str, Any]) -> Json:
        """Create an object."""
        answer: Json = self.plane.api("POST", self.path(kind), body)
        return answer

    def patch(self, kind: str, name: str, body: Mapping[str, Any] | Sequence[Json], *, timeout_s: float = 10) -> Json:
        """Patch an object: a list is a JSON patch, a mapping a strategic merge patch."""
        flavour = "strategic-merge" if isinstance(body, Mapping) else "json"
        content_type = f"application/{flavour}-patch+json"
        answer: Json = self.plane.api(
            "PATCH", self.path(kind, name), body, content_type=content_type, timeout_s=timeout_s
        )
        return answer

    def delete(self, kind: str, name: str) -> None:
        """Delete an object; what it owns goes with it, in the background."""
        self.plane.api("DELETE", self.path(kind, name), {"propagationPolicy": "Background"})

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        """Run the real kubectl in this namespace as the administrator."""
        return self.plane.admin(f"--namespace={self.namespace}", *args, stdin=stdin)

    def create_deployment(
        self,
        name: str,
        *,
        image: str = "v1",
        replicas: int = 3,
        annotations: Mapping[str, str] | None = None,
        template_annotations: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        **spec: Any,
    ) -> Json:
        """Create a Deployment with one container, `app`, on node-0; the label `app=<name>` selects its pods.

        `labels` go on the Deployment and its pods, `spec` into the Deployment's spec as it is, such as
        `progressDeadlineSeconds=2`; `template_annotations` steer the fake kubelet (see stages.yaml).
        """
        labels = {"app": name, **(labels or {})}
        template = {
            "metadata": {"labels": labels, "annotations": template_annotations or {}},
            "spec": {"nodeName": "node-0", "containers": [{"name": "app", "image": image}]},
        }
        selector = {"matchLabels": {"app": name}}
        return self.create(
            "deployments",
            {
                "metadata": {"name": name, "labels": labels, "annotations": annotations or {}},
                "spec": {"replicas": replicas, "selector": selector, "template": template, **spec},
            },
        )

    def set_image(self, name: str, image: str, *, template_annotations: Mapping[str, str | None] | None = None) -> Json:
        """Begin a rollout of another image; annotations make it a bad one, and None takes one off."""
        container = {"name": "app", "image": image}
        template = {
            "metadata": {"annotations": template_annotations or {}},
            "spec": {"containers": [container]},
        }
        return self.patch("deployments", name, {"spec": {"template": template}})

    def mark_passed(self, name: str) -> None:
        """Say of the newest revision that it lived through its bake, so that the service may go back to it."""
        metadata = self.replicasets(name)[-1]["metadata"]
        mark = f"{metadata['labels']['pod-template-hash']}:{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"
        passed = {"metadata": {"annotations": {"rollback-watchdog.io/passed": mark}}}
        self.patch("replicasets", metadata["name"], passed)

    def replicasets(self, name: str) -> list[Json]:
        """Return the ReplicaSets that the Deployment owns, oldest revision first."""
        return sorted(self._owned("replicasets", self.get("deployments", name)), key=_revision)

    def pods(self, name: str) -> list[Json]:
        """Return the pods of the Deployment's ReplicaSets, terminating ones too."""
        return self._owned("pods", *self.replicasets(name))

    def condition(self, name: str, kind: str) -> Json:
        """Return the Deployment's condition of this type; empty when it has none."""
        conditions = self.get("deployments", name).get("status", {}).get("conditions", [])
        return next((condition for condition in conditions if condition["type"] == kind), {})

    def service_account(self, name: str, *rules: Json) -> Path:
        """Create a ServiceAccount that may do what these Role rules say here; return its kubeconfig."""
        self.create("serviceaccounts", {"metadata": {"name": name}})
        self.create("roles", {"metadata": {"name": name}, "rules": rules})
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
        subject = {"kind": "ServiceAccount", "name": name, "namespace": self.namespace}
        self.create("rolebindings", {"metadata": {"name": name}, "roleRef": role, "subjects": [subject]})
        return self.plane.kubeconfig_for(self.namespace, name)

    def wait(
        self, condition: Callable[[], T | None], timeout_s: float = TIMEOUT_S, *, what: str = "the condition"
    ) -> T:
        """Ask again and again until the answer is true, and return it. It blocks: see `eventually`.

        Raises:
            NotInTimeError: it was not after `timeout_s`; the message has the last answer.
        """
        deadline, pause_s = time.monotonic() + timeout_s, self._poll_s
        while not (answer := condition()):
            if time.monotonic() > deadline:
                raise NotInTimeError(f"{what} did not hold within {timeout_s} s; the last answer: {answer!r}")
            time.sleep(pause_s)
            pause_s = min(1.3 * pause_s, max(self._poll_s, _SLOWEST_S))
        return answer

    async def eventually(
        self, condition: Callable[[], T | None], timeout_s: float = TIMEOUT_S, *, what: str = "the condition"
    ) -> T:
        """As `wait`, but in a thread: for tests whose own event loop must go on meanwhile."""
        return await asyncio.to_thread(self.wait, condition, timeout_s, what=what)

    def wait_complete(self, name: str, timeout_s: float = TIMEOUT_S) -> Json:
        """Wait for the rollout to end, by the rules of `kubectl rollout status`; return the Deployment."""

        def complete() -> Json | None:
            deployment = self.get("deployments", name)
            wanted, status = deployment["spec"]["replicas"], deployment.get("status", {})
            counts = {status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")}
            observed = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
            return deployment if observed and counts == {wanted} else None

        return self.wait(complete, timeout_s, what=f"the rollout of {name}")

    def _owned(self, kind: str, *owners: Json) -> list[Json]:
        uids = {owner["metadata"]["uid"] for owner in owners}
        return [
            item
            for item in self.objects(kind)
            if any(owner["uid"] in uids for owner in item["metadata"].get("ownerReferences", []))
        ]


def _revision(replicaset: Json) -> int:
    return int(replicaset["metadata"].get("annotations", {}).get("deployment.kubernetes.io/revision", 0))
