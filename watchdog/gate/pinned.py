"""What a gate is about: the version that is pinned, what it is compared with, and the pods of both as they are."""

from collections.abc import Mapping

import msgspec

from watchdog.decide import templates
from watchdog.decide.revisions import History, live_rollout, read_history
from watchdog.engine.observation import Observation, observe
from watchdog.engine.tracks import Tracks, tracks
from watchdog.judge.blocks import Track
from watchdog.model import Guard, Objection, Rollout
from watchdog.objects import Deployment, Pod, ReplicaSet, TemplateHash, WorkloadRef
from watchdog.ports import Cluster


class Look(msgspec.Struct, frozen=True):
    """The workload, and the stable one beside it, as they were at one moment: with all that their selectors find."""

    found: Mapping[WorkloadRef, Observation]
    ref: WorkloadRef

    @property
    def deployment(self) -> Deployment:
        """The workload itself."""
        return self.found[self.ref].snapshot.deployment

    @property
    def history(self) -> History:
        """Its revisions."""
        return read_history(self.found[self.ref].snapshot)

    @property
    def live(self) -> Rollout | Objection:
        """What is live."""
        found = live_rollout(self.deployment, self.history)
        return found if isinstance(found, Objection) else found[0]

    @property
    def pods(self) -> tuple[Pod, ...]:
        """Every pod that a selector found, once."""
        return tuple({pod.metadata.uid: pod for each in self.found.values() for pod in each.pods}.values())


class Pinned(msgspec.Struct, frozen=True):
    """What is judged, frozen at the gate's start.

    Args:
        rollout: the version that was live then.
        stable: the workload on the other side; the same one where there is no canary.
        stable_hash: what is live there, or was before; empty where there was nothing.
        images: of the version, by container.
        stable_images: of the other side, by container; empty where there is none.
    """

    rollout: Rollout
    stable: WorkloadRef
    stable_hash: TemplateHash
    images: Mapping[str, str]
    stable_images: Mapping[str, str] = {}

    @property
    def canary(self) -> bool:
        """Whether the stable pods are another Deployment's, and stay."""
        return self.stable != self.rollout.workload

    def tracks(self, look: Look) -> Tracks:
        """The ReplicaSets of both tracks."""
        return tracks(
            ((ref, each.snapshot) for ref, each in look.found.items()),
            candidate=(self.rollout.workload, self.rollout.hash),
            stable=(self.stable, self.stable_hash),
        )

    def pods(self, look: Look, track: Track) -> tuple[Pod, ...]:
        """The pods of a track."""
        return self.tracks(look).pods(look.pods, track)

    def replicaset(self, look: Look) -> ReplicaSet | None:
        """The ReplicaSet of the version, where it is still kept."""
        return next((item for item in look.history.all if item.hash == self.rollout.hash), None)

    def stable_template(self, look: Look) -> msgspec.Raw | None:
        """The pod template of the stable track."""
        if self.stable not in look.found:
            return None
        sets = read_history(look.found[self.stable].snapshot).all
        return next((item.spec.template for item in sets if item.hash == self.stable_hash), None)

    def running_images(self, look: Look) -> Mapping[str, str]:
        """Images of the version by container: their ids, as far as the kubelets have told them."""
        told = (each for pod in self.pods(look, Track.CANDIDATE) for each in pod.status.container_statuses)
        return {**self.images, **{each.name: each.image_id for each in told if each.image_id}}


async def look(cluster: Cluster, ref: WorkloadRef, stable: WorkloadRef, *, timeout_s: float) -> Look:
    """Read both sides. Raises `ClusterError`."""
    found = {each: await observe(cluster, each, timeout_s=timeout_s) for each in dict.fromkeys((ref, stable))}
    return Look(found, ref)


def pin(seen: Look, stable: WorkloadRef) -> Pinned | Objection:
    """Freeze what is live, and what it is compared with: what is live beside it, or was before it."""
    live = seen.live
    if isinstance(live, Objection):
        return live
    template = seen.deployment.spec.template
    if stable != seen.ref:
        snapshot = seen.found[stable].snapshot
        beside = live_rollout(snapshot.deployment, read_history(snapshot))
        if isinstance(beside, Objection):
            return Objection(Guard.NOT_OBSERVED, f"{stable}: {beside.detail}")
        beside_images = templates.images(snapshot.deployment.spec.template)
        return Pinned(live, stable, beside[0].hash, templates.images(template), beside_images)
    others = [item for item in seen.history.others if item.revision is not None]
    before = max(others, key=lambda item: item.revision or 0, default=None)
    return Pinned(live, stable, before.hash if before else TemplateHash(""), templates.images(template))


def began(scene: Pinned, seen: Look, *, now: float) -> float:
    """When the version's first pod of those that are there was created, in seconds; now where there is none."""
    times = [pod.metadata.creation_timestamp for pod in scene.pods(seen, Track.CANDIDATE)]
    return min((at.timestamp() for at in times if at), default=now)
