"""The step loop: pods and counters of everything under watch, once per step of the grid, in as few queries as it takes.

A watch that begins, or that a restart has interrupted, first reads the steps that it missed; it is fed every step in
order and exactly once, so live judging and replay are the same thing (DESIGN §4 Grid).
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

import msgspec

from watchdog.config import Policy
from watchdog.decide.history import read_history
from watchdog.decide.record import Record, State
from watchdog.engine import facts
from watchdog.engine.beginning import Beginnings, Key, Start, first_step, namespaces
from watchdog.engine.context import Context
from watchdog.engine.watch import Watch, group_of
from watchdog.errors import ClusterError
from watchdog.judge.blocks import Blind, BlindReason, PodFact, Reading, Track
from watchdog.model import IncidentId
from watchdog.objects import Pod, ReplicaSet, Snapshot, TemplateHash, WorkloadRef
from watchdog.ports import SignalQuery

_log = logging.getLogger(__name__)

_FEW_PODS = 50
_PAST_S = 30.0


class Seen(msgspec.Struct, frozen=True):
    """A rollout after a step: its record, its numbers, and the pods as the API server showed them.

    `key` is the incident, and the hash that is on the candidate's side.
    """

    key: Key
    record: Record
    watch: Watch
    candidates: tuple[Pod, ...]
    stables: tuple[Pod, ...]
    replicasets: tuple[ReplicaSet, ...]
    stable_template: msgspec.Raw | None
    step: int


class _Look(msgspec.Struct, frozen=True):
    """The same before there need be a watch, with the ReplicaSets of both sides."""

    key: Key
    snapshot: Snapshot
    candidates: tuple[Pod, ...]
    stables: tuple[Pod, ...]
    replicasets: tuple[ReplicaSet, ...]
    stable_template: msgspec.Raw | None


Judge = Callable[[Sequence[Seen]], Awaitable[None]]


class Poller:
    """Feeds watches.

    Args:
        context: what the loops share.
        judge: is given everything that was fed, after each step.
    """

    def __init__(self, context: Context, *, judge: Judge) -> None:
        self._context = context
        self._judge = judge
        self._watches: dict[Key, Watch] = {}
        self._named: dict[Key, facts.Named] = {}
        self._pods: dict[Key, tuple[PodFact, ...]] = {}
        self._last: dict[IncidentId, Seen] = {}
        self.step_s = context.config.step_s
        self._beginnings = Beginnings(context)
        self._round = asyncio.get_running_loop().time()

    def late_s(self) -> float:
        """Seconds since the loop last came round."""
        return asyncio.get_running_loop().time() - self._round

    async def run(self) -> None:
        """Poll at every step of the grid, for ever."""
        try:
            while True:
                now = self._context.now().timestamp()
                step = math.floor(now / self.step_s) + 1
                await asyncio.sleep(step * self.step_s - now)
                self._round = asyncio.get_running_loop().time()
                self._context.metrics.beat()
                with self._context.metrics.poll_seconds.time():
                    await self.tick(step)
        finally:
            await self._beginnings.close()

    def last(self, incident: IncidentId) -> Seen | None:
        """What the last step showed of a rollout."""
        return self._last.get(incident)

    def next_step(self, incident: IncidentId) -> int:
        """The first step of a rollout that has not been judged; 0 where nobody has looked at it yet."""
        seen = self._last.get(incident)
        return seen.watch.next_step if seen else 0

    async def tick(self, step: int) -> None:
        """One step: look at pods, read counters, feed, and have it judged."""
        context = self._context
        await context.save_rest()
        records = [each for each in context.records.values() if each.state is not State.ENDED]
        wanted = [(record, about) for record in records if (about := _about(record)) and self._policy(record)]
        keys = {(record.id, about) for record, about in wanted}
        for gone in self._watches.keys() - keys:
            del self._watches[gone]
            self._named.pop(gone, None)
            self._pods.pop(gone, None)
        for ended in self._last.keys() - {record.id for record in records}:
            del self._last[ended]
        looks = [look for look in await asyncio.gather(*(self._pods_of(*each, step) for each in wanted)) if look]
        await self._begin(looks, step, keys)
        seen = [self._seen(look, step) for look in looks if look.key in self._watches]
        await self._feed(seen, step)
        for item in seen:
            self._last[item.record.id] = item
        await self._judge(seen)

    async def _begin(self, looks: "Sequence[_Look]", step: int, wanted: Collection[Key]) -> None:
        """Make the watches that are not there yet, as far as what they need is read."""
        starts = []
        for look in looks:
            record = self._context.records[look.key[0]]
            policy = self._policy(record)
            if look.key not in self._watches and policy:
                pods, strategy = (*look.candidates, *look.stables), look.snapshot.deployment.spec.strategy.type
                named = self._named[look.key]
                starts.append(Start(look.key, record, policy, strategy, step, pods, look.replicasets, named))
        self._watches |= await self._beginnings.watches(starts, wanted=wanted)

    def _seen(self, look: "_Look", step: int) -> Seen:
        record, watch = self._context.records[look.key[0]], self._watches[look.key]
        sets = look.snapshot.replicasets
        return Seen(look.key, record, watch, look.candidates, look.stables, sets, look.stable_template, step)

    def _policy(self, record: Record) -> Policy | None:
        match = self._context.fleet.match(record.workload)
        return match.policy if match else None

    # -- pods ----------------------------------------------------------------------------------------------------------

    async def _pods_of(self, record: Record, about: TemplateHash, step: int) -> "_Look | None":
        """Look at the pods of both tracks, and keep what is new of them before it is used."""
        try:
            return await self._look(record, about, step)
        except ClusterError as error:
            fields = {"event": "pods-not-read", "workload": str(record.workload), "incident": record.id}
            _log.warning("pods not read, this step waits: %s", error, extra=fields)
            return None

    async def _look(self, record: Record, about: TemplateHash, step: int) -> "_Look | None":
        context, key = self._context, (record.id, about)
        refs = [ref for ref in {record.workload, record.stable} if ref]
        found: dict[WorkloadRef, tuple[Snapshot, tuple[Pod, ...]]] = {}
        for ref in refs:
            deployment = context.deployment(ref)
            if deployment is None:
                continue
            selector, timeout_s = deployment.spec.selector, context.request_s
            cluster = context.ports.cluster
            sets = await cluster.replicasets(ref.namespace, selector, timeout_s=timeout_s)
            pods = await cluster.pods(ref.namespace, selector, timeout_s=timeout_s)
            found[ref] = (Snapshot(deployment, sets), pods)
        if record.workload not in found:
            return None
        owners, self._named[key] = _owners(record, about, found)
        pods = tuple(pod for _, each in found.values() for pod in each if _serves(record, pod))
        now = context.now().timestamp()
        watching = about == record.rollout.hash
        known = record.pods if watching else self._pods.get(key, ())
        watch = self._watches.get(key)
        since = watch.next_step if watch else first_step(record, about, step=step, step_s=self.step_s)
        updated = facts.update(known, pods, owners, since=since, step=step, step_s=self.step_s, now=now)
        if updated != known:
            if watching:
                latest = context.records[record.id]
                images = _image_ids(latest, pods, owners)
                record = await context.put(msgspec.structs.replace(latest, pods=updated, images=images))
            else:
                self._pods[key] = updated
        sides = {track: tuple(pod for pod in pods if _track(pod, owners) is track) for track in Track}
        snapshot = found[record.workload][0]
        return _Look(
            key,
            snapshot,
            sides[Track.CANDIDATE],
            sides[Track.STABLE],
            tuple(item for each, _ in found.values() for item in each.replicasets),
            _stable_template(record, found),
        )

    # -- counters ------------------------------------------------------------------------------------------------------

    async def _feed(self, seen: Sequence[Seen], step: int) -> None:
        """Read what every watch has to be fed up to this step: one question per selector set and time slice."""
        slices: dict[tuple[SignalQuery, int], set[str]] = {}
        others: dict[tuple[SignalQuery, int], set[WorkloadRef]] = {}
        targets: dict[tuple[SignalQuery, int], dict[str, Pod]] = {}
        asked: dict[tuple[int, str], tuple[SignalQuery, int]] = {}
        few = _few_pods(seen)
        for index, item in enumerate(seen):
            for name, signal in item.watch.policy.signals.items():
                group = group_of(signal)
                key = (group, item.watch.next_step)
                slices.setdefault(key, set()).update(namespaces(item.record))
                others.setdefault(key, set()).update(() if key[0].join else _beside(item, step))
                pods_of = {pod.metadata.uid: pod for pod in (*item.candidates, *item.stables)}
                targets.setdefault(key, {}).update(pods_of)
                asked[index, name] = key
        queries = {
            key: msgspec.structs.replace(
                key[0],
                namespaces=tuple(sorted(names | {ref.namespace for ref in others[key]})),
                pods=() if key[0].join else few,
                workloads=tuple(sorted({ref.name for ref in others[key]})) if few else (),
                targets=tuple(targets[key].values()),
            )
            for key, names in slices.items()
        }
        found = await asyncio.gather(*(self._ask(query, key[1], step) for key, query in queries.items()))
        answers = dict(zip(queries, found, strict=True))
        for index, item in enumerate(seen):
            first, pods = item.watch.next_step, self._known_pods(item)
            names = list(item.watch.policy.signals)
            if first < step and names:
                past = [answers[asked[index, names[0]]].get(at, _missing(at)) for at in range(first, step)]
                named, namespace = self._named[item.key], item.record.workload.namespace
                pods = facts.by_name(
                    pods, past, named, namespace=namespace, begun=first * self.step_s, step_s=self.step_s
                )
                self._keep(item, pods)
            rolling = self._rolling(item)
            for at in range(first, step + 1):
                time = at * self.step_s
                readings = {name: answers[asked[index, name]].get(at, _missing(at)) for name in names}
                gone = {ref for ref, began in rolling.items() if began <= time}
                posted, alert = self._context.records[item.record.id].evaluations, self._alerted(item.record.id, time)
                item.watch.feed(readings, pods, posted=posted, alert=alert, gone=gone)

    def _rolling(self, item: Seen) -> dict[WorkloadRef, float]:
        """When bystanders began to roll out, those that did since this rollout's start."""
        return {
            record.workload: record.started.timestamp()
            for record in self._context.records.values()
            if record.workload in item.watch.bystanders and record.started >= item.record.started
        }

    def _alerted(self, incident: IncidentId, time: float) -> bool:
        """Whether an attributable alert that is known by now was firing at a time."""
        alerts = self._context.records[incident].alerts
        return any(each.what == "attributed" and (each.onset or each.starts_at).timestamp() <= time for each in alerts)

    def _known_pods(self, item: Seen) -> tuple[PodFact, ...]:
        record = self._context.records[item.record.id]
        return record.pods if item.key[1] == record.rollout.hash else self._pods.get(item.key, ())

    def _keep(self, item: Seen, pods: tuple[PodFact, ...]) -> None:
        """Keep what the past has told of pods."""
        record = self._context.records[item.record.id]
        if item.key[1] != record.rollout.hash:
            self._pods[item.key] = pods
        elif pods != record.pods:
            self._context.keep(msgspec.structs.replace(record, pods=pods))

    async def _ask(self, query: SignalQuery, first: int, last: int) -> Mapping[int, Reading]:
        signals, timeout_s = self._context.ports.signals, self._context.config.read_s
        if signals is None or first > last:
            return {}
        if first == last:
            return {last: await signals.read(query, step=last, timeout_s=timeout_s)}
        past = await signals.read_past(query, first=first, last=last, timeout_s=_PAST_S)
        return {reading.step: reading for reading in past}


def _about(record: Record) -> TemplateHash:
    """The hash that is on the candidate's side now: the rollout's, and after an action what it went back to."""
    if record.state is State.VERIFYING and record.plan and record.write_at:
        return record.plan.to_hash if record.plan.to_hash != record.plan.from_hash else record.stable_hash
    return record.rollout.hash


def _owners(
    record: Record, about: TemplateHash, found: Mapping[WorkloadRef, tuple[Snapshot, tuple[Pod, ...]]]
) -> tuple[facts.Owners, facts.Named]:
    """The ReplicaSets of both tracks, by UID and by name."""
    sides: dict[tuple[str, str], tuple[Track, TemplateHash]] = {}
    recovering = about != record.rollout.hash
    for ref, (snapshot, _) in found.items():
        for item in read_history(snapshot).all:
            key = (item.metadata.uid, item.metadata.name)
            if item.hash == about and (recovering or ref == record.workload):
                sides[key] = (Track.CANDIDATE, item.hash)
            elif item.hash == record.stable_hash and ref == record.stable and not recovering:
                sides[key] = (Track.STABLE, item.hash)
    return {uid: side for (uid, _), side in sides.items()}, {name: side for (_, name), side in sides.items()}


def _stable_template(
    record: Record, found: Mapping[WorkloadRef, tuple[Snapshot, tuple[Pod, ...]]]
) -> msgspec.Raw | None:
    sets = [item for snapshot, _ in found.values() for item in snapshot.replicasets]
    return next((item.spec.template for item in sets if item.hash == record.stable_hash), None)


def _serves(record: Record, pod: Pod) -> bool:
    """Whether a pod counts: of a colour only what its Service would select, before the switch or after it."""
    switched, labels = record.switched, pod.metadata.labels
    return switched is None or any(each.items() <= labels.items() for each in (switched.after, switched.before))


def _track(pod: Pod, owners: facts.Owners) -> Track:
    owner = next((item.uid for item in pod.metadata.owner_references if item.controller), "")
    return owners.get(owner, (Track.OTHER, TemplateHash("")))[0]


def _image_ids(record: Record, pods: Iterable[Pod], owners: facts.Owners) -> Mapping[str, str]:
    """The candidate's images by what the kubelet pulled, where it has said so, since a tag may move."""
    images = dict(record.images)
    for pod in pods:
        if _track(pod, owners) is Track.CANDIDATE:
            images |= {item.name: item.image_id for item in pod.status.container_statuses if item.image_id}
    return images


def _beside(item: Seen, step: int) -> set[WorkloadRef]:
    """Workloads that are read as a whole: bystanders, and of the past its own, since not every pod of it is known."""
    record, refs = item.record, set(item.watch.bystanders)
    if item.watch.next_step < step:
        refs |= {record.workload, record.stable or record.workload}
    return refs


def _few_pods(seen: Sequence[Seen]) -> tuple[str, ...]:
    names = {pod.metadata.name for item in seen for pod in (*item.candidates, *item.stables)}
    names |= {pod.name for item in seen for pod in item.record.pods}
    return tuple(sorted(names)) if len(names) < _FEW_PODS else ()


def _missing(step: int) -> Reading:
    return Reading(step, blind=Blind(BlindReason.UNREACHABLE, "no Prometheus is configured: set prometheus.url"))
