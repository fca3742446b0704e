"""The step loop: pods and counters of everything under watch, once per step of the grid, in as few queries as it takes.

A watch that begins, or that a restart has interrupted, first reads the steps that it missed; it is fed every step in
order and exactly once, so live judging and replay are the same thing.

    pods ──► begin, where there is no watch ──► counters ──► feed ──► judge

What of a step is read in time is judged together. A rollout whose pods or counters are late goes on beside, at its own
pace, and takes part again in the first step after that: it holds up nobody, and catches up from the past.
"""

import asyncio
import itertools
import logging
import math
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from watchdog.config import Policy
from watchdog.decide.record import Record, State
from watchdog.engine import pod_timeline, questions
from watchdog.engine.context import Context
from watchdog.engine.polled import PodsSeen, Polled
from watchdog.engine.tracks import tracks
from watchdog.engine.watch import PAST_S, Key, group_of
from watchdog.engine.watch_start import WatchStart, WatchStarts, first_step
from watchdog.errors import ClusterError
from watchdog.judge.blocks import Blind, BlindReason, PodTimeline, Reading, Track
from watchdog.metrics import Part
from watchdog.model import IncidentId
from watchdog.objects import Pod, TemplateHash, WorkloadRef
from watchdog.ports import SignalQuery

_log = logging.getLogger(__name__)

_IN_TIME_S = 1.0
_IN_TIME_STEPS = 0.2
"""How long pods, and then counters, are waited for before the others are judged without the late ones."""


_Answers = dict[str, "asyncio.Future[Mapping[int, Reading]]"]

Judge = Callable[[Sequence[Polled]], None]


class Poller:
    """Feeds watches.

    Args:
        judge: is given what was fed, after each step.
    """

    def __init__(self, context: Context, *, judge: Judge) -> None:
        self._context = context
        self._judge = judge
        self._watches = context.watches
        self._pods: dict[Key, tuple[PodTimeline, ...]] = {}
        self._last: dict[IncidentId, Polled] = {}
        self._beside: set[Key] = set()
        self._resting: dict[Key, float] = {}
        self.step_s = context.config.step_s
        self._in_time_s = min(_IN_TIME_S, _IN_TIME_STEPS * self.step_s)
        self._beginnings = WatchStarts(context)
        self._round = asyncio.get_running_loop().time()

    def late_s(self) -> float:
        """Seconds since the loop last came round."""
        return asyncio.get_running_loop().time() - self._round

    def beat(self) -> None:
        """Say that whoever waits to begin polling is there."""
        self._round = asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Poll at every step of the grid, for ever."""
        while True:
            now = self._context.now().timestamp()
            step = math.floor(now / self.step_s) + 1
            await asyncio.sleep(step * self.step_s - now)
            self._round = asyncio.get_running_loop().time()
            self._context.metrics.beat()
            with self._context.metrics.poll_seconds.time():
                await self.tick(step)

    def last(self, incident: IncidentId) -> Polled | None:
        """What the last step showed of a rollout."""
        return self._last.get(incident)

    def next_step(self, incident: IncidentId) -> int:
        """The first step of a rollout that has not been judged; 0 where nobody has looked at it yet."""
        seen = self._last.get(incident)
        return seen.watch.next_step if seen else 0

    async def tick(self, step: int) -> None:
        """One step: look at pods, read counters, feed, and have it judged."""
        records, now = self._context.open(), asyncio.get_running_loop().time()
        wanted = {
            (record.id, about): record for record in records if (about := _about(record)) and self._policy(record)
        }
        self._forget(wanted.keys(), {record.id for record in records})
        due = [key for key in wanted if key not in self._beside and self._resting.get(key, 0.0) <= now]
        looking = {key: self._context.ask(self._pods_of(wanted[key], key, step)) for key in due}
        await self._in_time(looking.values())
        for key, task in looking.items():
            if not task.done():
                self._go_beside((key,), self._late(task, step))
        looks = [look for task in looking.values() if task.done() and (look := task.result())]
        begun = [look for look in looks if look.key in self._watches]
        if new := [look for look in looks if look.key not in self._watches]:
            for batch in self._batches(new):
                self._go_beside(tuple(look.key for look in batch), self._begin(batch, step))
        await self._count(begun, step)

    def _batches(self, looks: Sequence[PodsSeen]) -> list[list[PodsSeen]]:
        """What begins together: rollouts that ask the same, so that no slow question holds up others'; one that failed
        before is alone."""
        batches: dict[object, list[PodsSeen]] = {}
        for look in looks:
            record = self._context.records[look.key[0]]
            policy = self._policy(record)
            asked = frozenset(map(group_of, policy.signals.values())) if policy else frozenset()
            batches.setdefault(look.key if look.key in self._resting else asked, []).append(look)
        return list(batches.values())

    def _forget(self, keys: Iterable[Key], incidents: Iterable[IncidentId]) -> None:
        for memory in (self._watches, self._pods, self._resting):
            for gone in memory.keys() - set(keys):
                memory.pop(gone, None)
        for ended in self._last.keys() - set(incidents):
            del self._last[ended]

    async def _in_time(self, tasks: Iterable[asyncio.Future[Any]]) -> None:
        """Wait for what comes in time."""
        if waiting := set(tasks):
            await asyncio.wait(waiting, timeout=self._in_time_s)

    # -- beside the step -----------------------------------------------------------------------------------------------

    def _go_beside(self, keys: tuple[Key, ...], work: Coroutine[Any, Any, None]) -> None:
        """Have rollouts go on at their own pace; until then no step takes them up again."""
        self._beside.update(keys)
        self._context.spawn(Part.POLL, self._beside_step(keys, work))

    async def _beside_step(self, keys: tuple[Key, ...], work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            for key in keys:
                self._fault(key, error)
        finally:
            self._beside.difference_update(keys)

    async def _late(self, looking: "asyncio.Future[PodsSeen | None]", step: int) -> None:
        if look := await looking:
            if look.key in self._watches:
                await self._count([look], step, beside=True)
            else:
                await self._begin([look], step)

    async def _begin(self, looks: Sequence[PodsSeen], step: int) -> None:
        """Make watches that are not there yet, and feed them what they missed."""
        starts = []
        for look in looks:
            record = self._context.records.get(look.key[0])
            if record and (policy := self._policy(record)):
                pods, strategy = (*look.candidates, *look.stables), look.snapshot.deployment.spec.strategy.type
                starts.append(WatchStart(look.key, record, policy, strategy, step, pods, look.both, look.named))
        self._watches.update(await self._beginnings.begin(starts))
        for start in starts:
            self._resting.pop(start.key, None)
        there = {start.key for start in starts}
        await self._count([look for look in looks if look.key in there], step, beside=True)

    def _fault(self, key: Key, error: Exception) -> None:
        """A rollout whose step failed rests for a while, and then begins anew."""
        pause_s = self._context.faults.note(Part.POLL, error, about=key[0])
        self._watches.pop(key, None)
        self._resting[key] = asyncio.get_running_loop().time() + pause_s

    def _seen(self, look: PodsSeen, step: int) -> Polled:
        record, watch = self._context.records[look.key[0]], self._watches[look.key]
        return Polled(**msgspec.structs.asdict(look), record=record, watch=watch, step=step)

    def _policy(self, record: Record) -> Policy | None:
        match = self._context.fleet.match(record.workload)
        return match.policy if match else None

    # -- pods ----------------------------------------------------------------------------------------------------------

    async def _pods_of(self, record: Record, key: Key, step: int) -> PodsSeen | None:
        """Look at the pods of both tracks, and keep what is new of them before it is used."""
        try:
            return await self._look(record, key, step)
        except ClusterError as error:
            fields = {"event": "pods-not-read", "workload": str(record.workload), "incident": record.id}
            _log.warning("pods not read, this step waits: %s", error, extra=fields)
        except Exception as error:
            self._fault(key, error)
        return None

    async def _look(self, record: Record, key: Key, step: int) -> PodsSeen | None:
        context, about = self._context, key[1]
        refs = {ref for ref in (record.workload, record.stable) if ref}
        there = [deployment for ref in sorted(refs) if (deployment := context.deployment(ref))]
        observed = await asyncio.gather(*map(context.observer.observe, there))
        found = {deployment.ref: each for deployment, each in zip(there, observed, strict=True)}
        if record.workload not in found or record.id not in context.records:
            return None
        recovering = about != record.rollout.hash
        mine = tracks(
            ((ref, each.snapshot) for ref, each in found.items()),
            candidate=(None if recovering else record.workload, about),
            stable=None if recovering else (record.stable, record.stable_hash),
        )
        pods = tuple(pod for each in found.values() for pod in each.pods if _serves(record, pod))
        now, record = context.now().timestamp(), context.records[record.id]
        known = self._pods.get(key, ()) if recovering else record.pods
        watch = self._watches.get(key)
        since = watch.next_step if watch else first_step(record, about, step=step, step_s=self.step_s)
        updated = pod_timeline.update(known, pods, mine.owners, since=since, step=step, step_s=self.step_s, now=now)
        candidates, sets = mine.pods(pods, Track.CANDIDATE), [each.snapshot.replicasets for each in found.values()]
        if recovering:
            self._pods[key] = updated
        elif updated != known:
            images = {**record.images, **_image_ids(candidates)}
            context.put(msgspec.structs.replace(record, pods=updated, images=images), notify=False)
        both = tuple(itertools.chain.from_iterable(sets))
        return PodsSeen(
            key=key,
            snapshot=found[record.workload].snapshot,
            candidates=candidates,
            stables=mine.pods(pods, Track.STABLE),
            both=both,
            stable_template=next((item.spec.template for item in both if item.hash == record.stable_hash), None),
            named=mine.named,
        )

    # -- counters ------------------------------------------------------------------------------------------------------

    async def _count(self, looks: Sequence[PodsSeen], step: int, *, beside: bool = False) -> None:
        """Read what every watch has to be fed up to this step: one question per selector set and time slice.

        Whatever is answered in time is judged together; the rest as its answers come.
        """
        seen = [self._seen(look, step) for look in looks if look.key[0] in self._context.records]
        queries, asked = questions.ask_for(seen, step)
        answers = {key: self._context.ask(self._ask(query, key[1], step)) for key, query in queries.items()}
        if beside:
            await asyncio.gather(*answers.values(), return_exceptions=True)
        else:
            await self._in_time(answers.values())
        in_time = []
        for item in seen:
            mine = {name: answers[key] for name, key in asked[item.key].items()}
            if all(task.done() for task in mine.values()):
                in_time.append((item, mine))
            else:
                self._go_beside((item.key,), self._count_late(item, mine, step))
        self._take(in_time, step)

    async def _count_late(self, item: Polled, answers: "_Answers", step: int) -> None:
        await asyncio.gather(*answers.values())
        self._take([(item, answers)], step)

    def _take(self, items: "Sequence[tuple[Polled, _Answers]]", step: int) -> None:
        """Feed watches, and have judged what they say now."""
        fed = []
        for item, answers in items:
            record = self._context.records.get(item.key[0])
            if record is None or self._watches.get(item.key) is not item.watch or _about(record) != item.key[1]:
                continue  # it ended, or was acted on, meanwhile
            try:
                self._feed(item, {name: task.result() for name, task in answers.items()}, step)
            except Exception as error:
                self._fault(item.key, error)
                continue
            self._context.faults.over(Part.POLL, item.key[0])
            self._last[record.id] = msgspec.structs.replace(item, record=self._context.records[record.id])
            fed.append(self._last[record.id])
        self._judge(fed)

    def _feed(self, item: Polled, answers: Mapping[str, Mapping[int, Reading]], step: int) -> None:
        """Give one watch every step that it has not seen."""
        first, pods, names = item.watch.next_step, self._known_pods(item), list(answers)
        if first < step and names:
            past = [answers[names[0]].get(at, _missing(at)) for at in range(first, step)]
            namespace, step_s = item.record.workload.namespace, self.step_s
            pods = pod_timeline.by_name(
                pods, past, item.named, namespace=namespace, begun=first * step_s, step_s=step_s
            )
            self._keep(item, pods)
        rolling = self._rolling(item)
        for at in range(first, step + 1):
            time = at * self.step_s
            readings = {name: answers[name].get(at, _missing(at)) for name in names}
            gone = {ref for ref, began in rolling.items() if began <= time}
            newest = self._context.records[item.record.id]
            alert = any(each.speaks(at) for each in newest.alerts)
            item.watch.feed(readings, pods, posted=newest.evaluations, alert=alert, gone=gone)

    def _rolling(self, item: Polled) -> dict[WorkloadRef, float]:
        """When bystanders began to roll out, those that did since this rollout's start."""
        rolling = (each for ref in item.watch.bystanders for each in self._context.about(ref))
        return {each.workload: each.started.timestamp() for each in rolling if each.started >= item.record.started}

    def _known_pods(self, item: Polled) -> tuple[PodTimeline, ...]:
        record = self._context.records[item.record.id]
        return record.pods if item.key[1] == record.rollout.hash else self._pods.get(item.key, ())

    def _keep(self, item: Polled, pods: tuple[PodTimeline, ...]) -> None:
        """Keep what the past has told of pods."""
        record = self._context.records[item.record.id]
        if item.key[1] != record.rollout.hash:
            self._pods[item.key] = pods
        elif pods != record.pods:
            self._context.put(msgspec.structs.replace(record, pods=pods), notify=False)

    async def _ask(self, query: SignalQuery, first: int, last: int) -> Mapping[int, Reading]:
        signals, timeout_s = self._context.ports.signals, self._context.config.read_s
        if signals is None or first > last:
            return {}
        if first == last:
            return {last: await signals.read(query, step=last, timeout_s=timeout_s)}
        past = await signals.read_past(query, first=first, last=last, timeout_s=PAST_S)
        return {reading.step: reading for reading in past}


def _about(record: Record) -> TemplateHash:
    """The hash that is on the candidate's side now: the rollout's, and after an action what it went back to."""
    if record.state is State.VERIFYING and record.plan and record.write_at:
        return record.plan.to_hash if record.plan.to_hash != record.plan.from_hash else record.stable_hash
    return record.rollout.hash


def _serves(record: Record, pod: Pod) -> bool:
    """Whether a pod counts: of a colour only what its Service would select, before the switch or after it."""
    switched, labels = record.switched, pod.metadata.labels
    return switched is None or any(each.items() <= labels.items() for each in (switched.after, switched.before))


def _image_ids(pods: Iterable[Pod]) -> Mapping[str, str]:
    """Images by container, by what the kubelet pulled, where it has said so, since a tag may move."""
    return {item.name: item.image_id for pod in pods for item in pod.status.container_statuses if item.image_id}


def _missing(step: int) -> Reading:
    return Reading(step, blind=Blind(BlindReason.UNREACHABLE, "no Prometheus is configured: set prometheus.url"))
