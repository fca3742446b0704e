"""What a gate's watch is fed: the pods of both tracks as they become known, and the counters of every step.

Those of steps that are over are read as one question per signal, so a gate that waited, or began late, catches up.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from msgspec.structs import replace

from watchdog.config import Signal
from watchdog.engine import pod_timeline
from watchdog.engine.watch import FEW_PODS, PAST_S, Watch, query_of
from watchdog.errors import ClusterError
from watchdog.gate import rules
from watchdog.gate.pinned import Look, Pinned, began
from watchdog.gate.request import GatePorts, GateRequest
from watchdog.gate.tally import GateTally
from watchdog.judge import counters
from watchdog.judge.blocks import PodTimeline, Reading, Status, Track, steps
from watchdog.objects import LabelSelector, Pod, WorkloadRef
from watchdog.ports import SignalQuery


class Feed:
    """Reads for one gate."""

    def __init__(self, task: GateRequest, ports: GatePorts, scene: Pinned) -> None:
        self._task = task
        self._ports = ports
        self._scene = scene
        self._pods: tuple[PodTimeline, ...] = ()
        self._others: Mapping[WorkloadRef, frozenset[str]] = {}

    async def begin(self, seen: Look, *, now: float) -> GateTally:
        """Make the watch, with what has to be known before its first step, which is that of the version's first pod."""
        task, signals, policy = self._task, self._ports.signals, self._task.policy
        step = math.floor(now / task.step_s)
        begun = began(self._scene, seen, now=now)
        earliest = math.ceil((now - float(policy.max_watch)) / task.step_s)
        first = min(max(math.ceil(begun / task.step_s), earliest), step)
        begun = max(begun, first * task.step_s - task.step_s)
        owners = self._scene.tracks(seen).owners
        self._pods = pod_timeline.update((), seen.pods, owners, since=first, step=step, step_s=task.step_s, now=now)
        restarts = {pod.name: pod_timeline.restarts_between(pod, now - counters.RESETS_S, now) for pod in self._pods}
        bad_known, sawtooth = {}, {}
        for name, signal in policy.signals.items():
            query = self._query(signal, seen)
            bad_known[name] = await signals.bad_seen(query, step=step, timeout_s=self._ports.read_s)
            resets = await signals.resets(query, step=step, window_s=counters.RESETS_S, timeout_s=self._ports.read_s)
            if blind := counters.not_monotonic(resets, restarts):
                sawtooth[name] = blind
        if not self._scene.canary:  # the stable pods of the same minutes need no further witness
            self._others = await self._beside()
        found, lowest = await rules.calibrate(
            task, self._ports.signals, self._scene, seen, self._pods, first=first, others=_quiet(self._others)
        )
        watch = Watch(
            task.workload,
            policy,
            step_s=task.step_s,
            first=first,
            begun=begun,
            bad_known=bad_known,
            sawtooth=sawtooth,
            test_settings=found,
            lowest=lowest,
            workloads=sorted({task.workload.name, self._scene.stable.name}),
        )
        return GateTally(watch, found, bake=steps(float(policy.bake), step_s=task.step_s), early=task.early)

    async def feed(self, tally: GateTally, seen: Look, step: int, *, now: float) -> bool:
        """Feed every step that the watch has not had, in order, until it is a breach; whether there was any."""
        first, signals = tally.watch.next_step, self._task.policy.signals
        if step < first:
            return False
        tracks = self._scene.tracks(seen)
        step_s = self._task.step_s
        self._pods = pod_timeline.update(
            self._pods, seen.pods, tracks.owners, since=first, step=step, step_s=step_s, now=now
        )
        names = sorted({pod.name for pod in self._pods})
        few = names if first == step and len(names) < FEW_PODS else ()
        beside = {ref.name for ref in tally.watch.bystanders}
        found: dict[str, Sequence[Reading]] = {}
        for name, signal in signals.items():
            query = self._query(signal, seen, () if signal.join else few, beside)
            if first == step:
                found[name] = (await self._ports.signals.read(query, step=step, timeout_s=self._ports.read_s),)
            else:
                found[name] = await self._ports.signals.read_past(query, first=first, last=step, timeout_s=PAST_S)
        pods = self._pods
        if first < step:
            self._pods = pods = self._with_past(pods, next(iter(found.values())), seen, tracks.named, step, now=now)
        there = await self._beside() if beside else {}
        gone = {ref for ref in tally.watch.bystanders if there.get(ref) != self._others[ref]}
        for index in range(step - first + 1):
            tally.watch.feed({name: readings[index] for name, readings in found.items()}, pods, gone=gone)
            tally.take()
            if tally.verdict().status is Status.BREACH:
                break
        return True

    async def _beside(self) -> dict[WorkloadRef, frozenset[str]]:
        """The other Deployments of the namespace, each with its ReplicaSets that want pods; none if they are not told.

        They are one witness more: no gate ends because they cannot be read.
        """
        namespace, found = self._task.workload.namespace, defaultdict(set)
        timeout_s = self._ports.request_s
        try:
            everything = await self._ports.cluster.replicasets(namespace, LabelSelector(), timeout_s=timeout_s)
        except ClusterError:
            return {}
        for item in everything:
            owner = next((each for each in item.metadata.owner_references if each.controller), None)
            if owner and owner.kind == "Deployment" and item.spec.replicas:
                found[WorkloadRef(namespace, owner.name)].add(item.metadata.name)
        mine = (self._task.workload, self._scene.stable)
        return {ref: frozenset(names) for ref, names in found.items() if ref not in mine}

    def _with_past(
        self,
        pods: tuple[PodTimeline, ...],
        past: Sequence[Reading],
        seen: Look,
        named: pod_timeline.Named,
        step: int,
        *,
        now: float,
    ) -> tuple[PodTimeline, ...]:
        """The pods, and those that only their samples tell of, which are gone since."""
        task = self._task
        begun, namespace = past[0].step * task.step_s, task.workload.namespace
        found = pod_timeline.by_name(pods, past, named, namespace=namespace, begun=begun, step_s=task.step_s)
        there = {pod.name for pod in pods} | {pod.metadata.name for pod in seen.pods}
        return tuple(
            pod if pod.name in there or pod.gone is not None else replace(pod, gone=now, gone_step=step)
            for pod in found
        )

    def _query(self, signal: Signal, seen: Look, pods: Sequence[str] = (), beside: Collection[str] = ()) -> SignalQuery:
        sides = (self._scene.pods(seen, track) for track in (Track.CANDIDATE, Track.STABLE))
        targets: tuple[Pod, ...] = tuple(pod for side in sides for pod in side)
        query = query_of(signal, {self._task.workload.namespace}, pods, targets=targets)
        return replace(query, workloads=tuple(sorted(beside))) if pods and beside else query


def _quiet(others: Mapping[WorkloadRef, Collection[str]]) -> tuple[WorkloadRef, ...]:
    """Those that are not rolling out."""
    return tuple(sorted(ref for ref, names in others.items() if len(names) == 1))
