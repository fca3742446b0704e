"""Who was there: the pods of a past rollout, as far as their series tell.

Pods of the past are known by name only, `<ReplicaSet>-<5 characters>`. Their first sample stands for Ready, their last
one for their end; a counter that falls now and then stands for a restart.
"""

import math
from collections import Counter
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from watchdog.backtest.rollouts import PastRollout, replicaset_of
from watchdog.engine.pod_timeline import by_name
from watchdog.judge.blocks import FRESH_STEPS, PodTimeline, Reading, Restart, ScrapeTarget, Track
from watchdog.objects import TemplateHash

_LOOKS = 3
"""So many readings from the first on say which version was live; a scrape may be missed."""

_SELDOM = 10
"""A counter that falls in one step of ten, or more often, is no restart: several workers answer in turn."""


class PastPods(msgspec.Struct, frozen=True, kw_only=True):
    """The pods, and the times that follow from them.

    Args:
        stable: ReplicaSet of the version that was live; empty where none was seen.
        ready: when the first candidate pod was.
        undone: when the workload went back to an older version.
        over: until when there is something to count: the undo, or the rollout's end.
        watched: until when the service would have judged: at the latest a bake after completion.
    """

    pods: tuple[PodTimeline, ...]
    stable: str
    ready: float | None
    undone: float | None
    over: float
    watched: float


def scene(rollout: PastRollout, readings: Sequence[Reading], *, step_s: float) -> PastPods:
    """Find the pods of a rollout.

    Args:
        readings: of one of its signals, from its first step to its last.
    """
    subject, began, mine = rollout.subject, rollout.started, rollout.version.name
    stable = _live(rollout, readings, step_s=step_s)
    named: dict[str, tuple[Track, TemplateHash]] = {}
    for pod in {sample.row.pod for reading in readings for sample in reading.samples}:
        if owner := replicaset_of(pod, *subject.refs):
            track = {mine: Track.CANDIDATE, stable: Track.STABLE}.get(owner, Track.OTHER)
            named[owner] = (track, TemplateHash(owner.rpartition("-")[2]))
    namespace = subject.workload.namespace
    found = by_name((), readings, named, namespace=namespace, begun=began, step_s=step_s)
    restarts = _restarts(readings)
    pods = tuple(replace(each, restarts=restarts.get(each.name, ())) for each in found)
    candidates = [each for each in pods if each.track is Track.CANDIDATE]
    ready = min((each.ready for each in candidates if each.ready is not None), default=None)
    undone = rollout.undone
    if undone is None and ready is not None:
        undone = _undone(rollout, candidates, pods, ready=ready, step_s=step_s)
    over = min(rollout.until, math.inf if undone is None else undone)
    before = [each for each in pods if each.track is Track.STABLE and ready and each.ready and each.ready < ready]
    completed = ready if subject.stable != subject.workload else None
    if before and all(each.gone is not None for each in before) and completed is None:
        completed = max(each.gone or 0.0 for each in before)
    bake = float(subject.policy.bake)
    watched = over if completed is None else min(over, completed + bake)
    return PastPods(pods=pods, stable=stable, ready=ready, undone=undone, over=over, watched=watched)


def _live(rollout: PastRollout, readings: Sequence[Reading], *, step_s: float) -> str:
    """Give the ReplicaSet that had most of the pods when the rollout began."""
    seen: dict[str, str] = {}
    for reading in readings[:_LOOKS]:
        for sample in reading.samples:
            owner = replicaset_of(sample.row.pod, rollout.subject.stable)
            fresh = sample.at is not None and sample.at > (reading.step - FRESH_STEPS) * step_s
            if fresh and owner and owner != rollout.version.name:
                seen[sample.row.pod] = owner
    return max(Counter(seen.values()).items(), key=lambda each: (each[1], each[0]), default=("", 0))[0]


def _undone(
    rollout: PastRollout, candidates: Sequence[PodTimeline], pods: Sequence[PodTimeline], *, ready: float, step_s: float
) -> float | None:
    """Give when the first pod of an older version came back, where the candidate's pods then all went.

    Where none had to come back, because the old ones were still there, the candidate's end is taken, if the revision
    numbers say that it was followed by an older version.
    """
    if any(each.gone is None for each in candidates):
        return None
    end = max(each.gone or 0.0 for each in candidates)
    back = [
        each.ready
        for each in pods
        if each.track is not Track.CANDIDATE
        and replicaset_of(each.name, rollout.subject.workload)
        and each.ready is not None
        and each.ready > ready + step_s
        and (each.gone is None or each.gone > end)
    ]
    return min(back, default=end if rollout.returned else None)


def _restarts(readings: Sequence[Reading]) -> dict[str, tuple[Restart, ...]]:
    """Give the falls of each pod's counters as restarts, unless they are too many."""
    found: dict[str, list[Restart]] = {}
    last: dict[ScrapeTarget, tuple[float, float]] = {}
    steps: Counter[str] = Counter()
    for reading in readings:
        for sample in reading.samples:
            if sample.total is None or sample.at is None:
                continue
            pod = sample.row.pod
            steps[pod] += 1
            total, at = last.get(sample.row, (0.0, 0.0))
            if sample.total < total:
                mine = found.setdefault(pod, [])
                mine.append(Restart(len(mine) + 1, at, reading.step))
            last[sample.row] = (sample.total, sample.at)
    return {pod: tuple(mine) for pod, mine in found.items() if len(mine) * _SELDOM < steps[pod]}
