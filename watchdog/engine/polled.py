"""What a step showed of a rollout."""

import msgspec

from watchdog.decide.record import Record
from watchdog.engine.pod_timeline import Named
from watchdog.engine.watch import Key, Watch
from watchdog.objects import Pod, ReplicaSet, Snapshot


class PodsSeen(msgspec.Struct, frozen=True, kw_only=True):
    """The pods of a rollout as the API server showed them.

    Args:
        key: the incident, and the hash that is on the candidate's side.
        candidates: pods of the candidate.
        stables: pods of the stable track.
        both: the ReplicaSets of both sides.
        stable_template: the pod template of the stable track.
        named: the ReplicaSets of both tracks, by name.
    """

    key: Key
    snapshot: Snapshot
    candidates: tuple[Pod, ...]
    stables: tuple[Pod, ...]
    both: tuple[ReplicaSet, ...]
    stable_template: msgspec.Raw | None
    named: Named


class Polled(PodsSeen, frozen=True, kw_only=True):
    """A rollout after a step: the pods, its record and its numbers."""

    record: Record
    watch: Watch
    step: int
