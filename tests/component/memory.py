"""A cluster of one Deployment in memory, for faults that no real API server can be brought to on demand.

Only the port is played: what a patch does, and which of them fail, is decided as the API server would; the controller
does what a test tells it to. How a real one behaves is for tests/cluster.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import NamedTuple

from tests.unit.builders import Json, Scene, decoded, managed, replicaset, status
from tests.unit.json_patch import PatchFailedError, apply
from watchdog.decide import templates
from watchdog.errors import PreconditionFailed, Unanswered
from watchdog.model import MANAGER, Event
from watchdog.objects import (
    REVISION,
    Autoscaler,
    Deployment,
    LabelSelector,
    Pod,
    ReplicaSet,
    WorkloadRef,
)

Edit = Callable[[Scene], object]


class Call(NamedTuple):
    """One call of the port, and the loop's time."""

    method: str
    at: float


class MemoryCluster:
    """Implements `watchdog.ports.Cluster`.

    Attributes:
        scene: the Deployment and its ReplicaSets as they are.
        calls: what was asked, in order.
        events: the Events that were accepted.
        pods_found: what `pods` gives.
        scalers: what `autoscalers` gives.
        admit: what a mutating webhook does to the Deployment on its way in.
    """

    admit: Edit = staticmethod(lambda _: None)

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.calls: list[Call] = []
        self.events: list[Event] = []
        self.pods_found: tuple[Pod, ...] = ()
        self.scalers: tuple[Autoscaler, ...] = ()
        self._faults: dict[str, list[Exception | Edit]] = {}
        self._lost: list[bool] = []
        self._states: list[tuple[float, Edit]] = []

    # -- what a test says ----------------------------------------------------------------------------------------------

    def fail(self, method: str, *faults: Exception | Edit) -> None:
        """Let the next calls of a method fail one after the other; an edit happens instead just before its call."""
        self._faults[method] = list(faults)

    def lose_answers(self, *landed: bool) -> None:
        """Let the next patches of the Deployment get no answer; each says whether it happened all the same."""
        self._lost = list(landed)

    def then(self, after_s: float, edit: Edit) -> None:
        """Let something happen to the Deployment so many seconds after what was to happen before it."""
        self._states.append((after_s, edit))

    def count(self, method: str) -> int:
        """How often a method was called."""
        return sum(call.method == method for call in self.calls)

    def happened(self) -> list[str]:
        """The reasons of the Events, in order."""
        return [str(event.reason) for event in self.events]

    # -- the port ------------------------------------------------------------------------------------------------------

    async def deployment(self, ref: WorkloadRef, *, timeout_s: float) -> Deployment:
        await self._called("deployment")
        return decoded(self.scene.deployment, Deployment)

    async def replicasets(self, namespace: str, selector: LabelSelector, *, timeout_s: float) -> tuple[ReplicaSet, ...]:
        await self._called("replicasets")
        return self.scene.snapshot.replicasets

    async def pods(self, namespace: str, selector: LabelSelector, *, timeout_s: float) -> tuple[Pod, ...]:
        await self._called(f"pods {selector}")
        return self.pods_found

    async def autoscalers(self, namespace: str, *, timeout_s: float) -> tuple[Autoscaler, ...]:
        await self._called("autoscalers")
        return self.scalers

    async def patch_deployment(self, ref: WorkloadRef, patch: bytes, *, dry_run: bool, timeout_s: float) -> Deployment:
        releasing = b"/metadata/managedFields/" in patch
        await self._called("release" if releasing else "dry run" if dry_run else "patch")
        lost = None if releasing or not self._lost else self._lost.pop(0)
        if lost is not False:
            try:
                after = self.scene.after(patch)
            except PatchFailedError as error:
                raise PreconditionFailed("patch deployments shop/web", "Invalid") from error
            if dry_run:
                return decoded(after, Deployment)
            self.scene.deployment = after
            if not releasing:
                self.admit(self.scene)
                after["metadata"]["generation"] += 1
                after["metadata"].setdefault("managedFields", [managed("kubectl")]).append(managed(MANAGER))
        if lost is not None:
            raise Unanswered("patch deployments shop/web", f"no answer within {timeout_s:g} s")
        return decoded(self.scene.deployment, Deployment)

    async def patch_replicaset(self, namespace: str, name: str, patch: bytes, *, timeout_s: float) -> None:
        await self._called("patch_replicaset")
        sets = self.scene.replicasets
        index = next(index for index, item in enumerate(sets) if item["metadata"]["name"] == name)
        try:
            sets[index] = apply(patch, sets[index])
        except PatchFailedError as error:
            raise PreconditionFailed(f"patch replicasets {namespace}/{name}", "Invalid") from error

    async def post_event(self, event: Event, *, timeout_s: float) -> None:
        await self._called("post_event")
        self.events.append(event)

    async def follow(self, ref: WorkloadRef) -> AsyncGenerator[Deployment | None, None]:
        yield decoded(self.scene.deployment, Deployment)
        for after_s, edit in self._states:
            await asyncio.sleep(after_s)
            edit(self.scene)
            yield decoded(self.scene.deployment, Deployment) if self.scene.deployment else None
        await asyncio.Event().wait()

    async def _called(self, method: str) -> None:
        self.calls.append(Call(method, asyncio.get_running_loop().time()))
        await asyncio.sleep(0)
        faults = self._faults.get(method)
        fault = faults.pop(0) if faults else None
        if isinstance(fault, Exception):
            raise fault
        if fault:
            fault(self.scene)


# -- what the controller, or somebody, does ----------------------------------------------------------------------------


def observe(scene: Scene, *, revision: int = 4) -> None:
    """Let the controller see the newest change and number it, on the ReplicaSet of that template too."""
    scene.annotations[REVISION] = str(revision)
    snapshot = scene.snapshot
    for item, document in zip(snapshot.replicasets, scene.replicasets, strict=True):
        if templates.same(item.spec.template, snapshot.deployment.spec.template):
            document["metadata"]["annotations"][REVISION] = str(revision)
    scene.deployment["status"]["observedGeneration"] = scene.deployment["metadata"]["generation"]


def complete(scene: Scene, *, revision: int = 4) -> None:
    """Let the controller finish the rollout."""
    observe(scene, revision=revision)
    replicas = scene.spec["replicas"]
    generation = scene.deployment["metadata"]["generation"]
    scene.deployment["status"] = status(generation=generation, replicas=replicas, updated=replicas, available=replicas)


def exceed_deadline(scene: Scene) -> None:
    """Let the controller give up."""
    observe(scene)
    condition: Json = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    scene.deployment["status"]["conditions"] = [condition]


def roll_out(scene: Scene, version: str = "hotfix", *, revision: int = 4) -> None:
    """Let somebody deploy another version, and the controller see it."""
    scene.deploy(version)
    scene.replicasets.append(replicaset(version, revision, age=-1))
    observe(scene, revision=revision)
