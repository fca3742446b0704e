"""Which pods are the candidate's, and which the stable track's: by the ReplicaSets that own them."""

from collections.abc import Iterable, Mapping

import msgspec

from watchdog.decide.revisions import read_history
from watchdog.judge.blocks import Track
from watchdog.objects import Pod, Snapshot, TemplateHash, WorkloadRef

Side = tuple[WorkloadRef | None, TemplateHash]
"""A workload and a pod-template-hash; without a workload a ReplicaSet of any may have it."""


class Tracks(msgspec.Struct, frozen=True):
    """The ReplicaSets of both tracks.

    Args:
        owners: by UID.
        named: by name.
    """

    owners: Mapping[str, tuple[Track, TemplateHash]]
    named: Mapping[str, tuple[Track, TemplateHash]]

    def of(self, pod: Pod) -> Track:
        """The track of a pod."""
        owner = next((item.uid for item in pod.metadata.owner_references if item.controller), "")
        return self.owners.get(owner, (Track.OTHER, ""))[0]

    def pods(self, pods: Iterable[Pod], track: Track) -> tuple[Pod, ...]:
        """Those of a track."""
        return tuple(pod for pod in pods if self.of(pod) is track)


def tracks(found: Iterable[tuple[WorkloadRef, Snapshot]], *, candidate: Side, stable: Side | None) -> Tracks:
    """Find the ReplicaSets of both tracks; what is on both sides is the candidate's."""
    owners, named = {}, {}
    for ref, snapshot in found:
        for item in read_history(snapshot).all:
            if item.hash == candidate[1] and candidate[0] in (None, ref):
                side = (Track.CANDIDATE, item.hash)
            elif stable and (ref, item.hash) == stable:
                side = (Track.STABLE, item.hash)
            else:
                continue
            owners[item.metadata.uid] = named[item.metadata.name] = side
    return Tracks(owners, named)
