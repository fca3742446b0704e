"""The stage: the sandbox, the traffic and the real service, put together."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import msgspec

from watchdog import config
from watchdog.decide.record import Record
from watchdog.demo.prometheus import Prometheus
from watchdog.demo.scenarios import CANDIDATE, GOOD, NAMESPACE, NEW, RECORDS, STABLE, Scenario
from watchdog.engine.service import WatchdogService
from watchdog.records.form import read
from watchdog.running import running
from watchdog.sandbox.behaviour import Upstream
from watchdog.sandbox.cluster import Sandbox, start
from watchdog.sandbox.nodes import Kubelet
from watchdog.sandbox.store import Json
from watchdog.sandbox.traffic import Load, Service

RATE = 120.0
_KEEPS = "record.json"
_OLD_S = 22.0
"""More than a bake. A Prometheus knows the past, so the service would go on with the watch of the first version; but
of its first seconds, before its pods were found, there is nothing to judge by, and it would never pass."""


class Shown(msgspec.Struct, frozen=True):
    """A pod as the view shows it: requests per second and share failed, both of the last seconds."""

    name: str
    deployment: str
    version: str
    state: str
    rate: float
    errors: float


class Stage:
    """What a play works with.

    Args:
        scenario: what is played.
        sandbox: the cluster.
        load: its traffic.
        watchdog: the service.
        upstream: what all versions call.
    """

    def __init__(
        self, scenario: Scenario, *, sandbox: Sandbox, load: Load, watchdog: WatchdogService, upstream: Upstream
    ) -> None:
        self.scenario = scenario
        self.load = load
        self.watchdog = watchdog
        self.upstream = upstream
        self.store = sandbox.store

    @property
    def rolled(self) -> str:
        """The Deployment that gets the new version."""
        return CANDIDATE if self.scenario.canary else STABLE

    def deploy(self, name: str, image: str, *, replicas: int, told: dict[str, str]) -> None:
        """Create a Deployment."""
        labels = {"app": "web", "deployment": name}
        template = _template(image, labels, told | self._always())
        spec = {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": template,
            "progressDeadlineSeconds": self.scenario.deadline_s,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        }
        self.store.create("deployments", {"metadata": {"name": name}, "spec": spec}, namespace=NAMESPACE)

    def ship(self, name: str, image: str, *, told: dict[str, str]) -> None:
        """Begin a rollout."""

        def change(item: Json) -> None:
            labels = item["spec"]["template"]["metadata"]["labels"]
            item["spec"]["template"] = _template(image, labels, told | self._always())

        self.store.modify("deployments", NAMESPACE, name, change)

    def _always(self) -> dict[str, str]:
        return {"upstream": "true"} | ({"workers": "2"} if self.scenario.sawtooth else {})

    def image(self, name: str) -> str:
        """What a Deployment is to run."""
        spec = self.store.get("deployments", NAMESPACE, name)["spec"]
        return str(spec["template"]["spec"]["containers"][0]["image"])

    def complete(self, name: str) -> bool:
        """Whether a Deployment's rollout is complete."""
        item = self.store.get("deployments", NAMESPACE, name)
        status, wanted = item.get("status", {}), item["spec"]["replicas"]
        counts = {status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")}
        return status.get("observedGeneration", 0) >= item["metadata"]["generation"] and counts == {wanted}

    def record(self) -> Record | None:
        """The record of the new version, as the service has it now."""
        found = self.watchdog.context.records.values()
        # A record has the image as the template names it, and as the kubelet pulled it once that is known.
        return next((each for each in found if any(i.endswith(NEW) for i in each.images.values())), None)

    def stored(self, record: Record) -> Record:
        """The same record as the cluster keeps it."""
        return read(self.store.get("configmaps", RECORDS, f"rollback-watchdog-{record.id}")["data"][_KEEPS])

    def pods(self) -> list[Shown]:
        """Every pod, the new version's last."""
        now = time.time()
        recent = self.load.between(now - 2, now)
        found = []
        for pod in self.store.list("pods", NAMESPACE):
            name = pod["metadata"]["name"]
            failed = [each.failed for each in recent if each.pod == name]
            found.append(
                Shown(
                    name,
                    pod["metadata"]["labels"]["deployment"],
                    pod["spec"]["containers"][0]["image"],
                    _state(pod),
                    len(failed) / 2,
                    sum(failed) / len(failed) if failed else 0.0,
                )
            )
        return sorted(found, key=lambda each: (each.version, each.name))


def _template(image: str, labels: Json, told: dict[str, str]) -> Json:
    return {
        "metadata": {"labels": labels, "annotations": {f"sim/{key}": value for key, value in told.items()}},
        "spec": {"containers": [{"name": "app", "image": image, "ports": [{"containerPort": 8080}]}]},
    }


def _state(pod: Json) -> str:
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    status = pod.get("status", {})
    for container in status.get("containerStatuses", ()):
        if waiting := container["state"].get("waiting"):
            return str(waiting["reason"])
        return "Ready" if container["ready"] else "Starting"
    return "Pending"


@asynccontextmanager
async def staged(scenario: Scenario, *, fast: bool, prometheus: Prometheus | None) -> AsyncIterator[Stage]:
    """Set up the cluster with its first version, traffic and the service, and take all down afterwards.

    Raises:
        UsageError: Prometheus does not start.
    """
    upstream = Upstream()
    with tempfile.TemporaryDirectory(prefix="rollback-watchdog-") as directory:
        async with start(Kubelet(upstream), namespaces=(NAMESPACE, RECORDS)) as sandbox:
            kubeconfig = sandbox.write_kubeconfig(Path(directory, "kubeconfig"))
            service = {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}
            sandbox.store.create("services", service, namespace=NAMESPACE)
            load = Load(Service(sandbox.store, namespace=NAMESPACE, name="web"), rate=RATE)
            loaded = config.parse(scenario.config(fast=fast, prometheus=prometheus.url if prometheus else ""))
            async with (
                prometheus.scraping(sandbox.store) if prometheus else nullcontext(),
                running(loaded, kubeconfig=str(kubeconfig), context=None) as watchdog,
                asyncio.TaskGroup() as group,
            ):
                stage = Stage(scenario, sandbox=sandbox, load=load, watchdog=watchdog, upstream=upstream)
                stage.deploy(STABLE, GOOD, replicas=9 if scenario.canary else 6, told={})
                if scenario.canary:
                    stage.deploy(CANDIDATE, GOOD, replicas=1, told={})
                while not (stage.complete(STABLE) and stage.complete(stage.rolled)):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
                tasks = [group.create_task(load.run())]
                try:
                    if prometheus:
                        await asyncio.sleep(_OLD_S)
                    tasks.append(group.create_task(watchdog.run()))
                    yield stage
                finally:
                    for task in tasks:
                        task.cancel()
