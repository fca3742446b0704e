"""What is asked of Prometheus: bounded range queries, shared by the rollouts of an hour that have the same signals."""

import asyncio
import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from watchdog.backtest.replay import Known, Replayed, replay, steps_of
from watchdog.backtest.rollouts import PastRollout, gone, replicaset_of
from watchdog.backtest.scene import PastPods, scene
from watchdog.config import Prometheus, Signal
from watchdog.engine import baselines
from watchdog.engine.baselines import DAY_S, Baseline, BaselineQuery
from watchdog.engine.watch import group_of, query_of
from watchdog.judge import counters
from watchdog.judge.blocks import Blind, Reading
from watchdog.objects import WorkloadRef
from watchdog.ports import SignalQuery
from watchdog.prometheus import PrometheusClient, PrometheusSignals, Series
from watchdog.selectors import in_list, parse

QUERY_S = 30.0
"""Deadline of each question."""

_AT_ONCE = 4
_SLICE_S = 3600.0
_MOST_TOGETHER = 20


class Batch(msgspec.Struct, frozen=True):
    """Rollouts whose questions are the same but for names: of one set of signals, begun in the same hour."""

    rollouts: tuple[PastRollout, ...]

    @property
    def signals(self) -> Mapping[str, Signal]:
        """What all of them are judged by."""
        return self.rollouts[0].subject.policy.signals


def batches(rollouts: Sequence[PastRollout]) -> list[Batch]:
    """Group rollouts so that few questions are asked, and none for much more than an hour's rollouts."""
    groups: dict[object, list[PastRollout]] = {}
    for each in sorted(rollouts, key=lambda each: each.started):
        key = (tuple(each.subject.policy.signals.items()), each.started // _SLICE_S)
        groups.setdefault(key, []).append(each)
    return [
        Batch(tuple(group[at : at + _MOST_TOGETHER]))
        for group in groups.values()
        for at in range(0, len(group), _MOST_TOGETHER)
    ]


async def gone_replicasets(
    client: PrometheusClient, namespaces: Sequence[str], *, since: float, now: float
) -> dict[WorkloadRef, dict[str, float]] | Blind:
    """Ask kube-state-metrics' series for ReplicaSets, day by day; empty where it is not scraped."""
    scope = in_list("namespace", sorted(namespaces))
    created = parse("kube_replicaset_created").text(scope)
    owner = parse("kube_replicaset_owner").text(scope, ("owner_kind", "=", "Deployment"))
    limit = asyncio.Semaphore(_AT_ONCE)

    async def ask(expression: str, time: float) -> tuple[Series, ...] | Blind:
        async with limit:
            return await client.query(expression, time=time, timeout_s=QUERY_S)

    days = [now - index * DAY_S for index in range(math.ceil((now - since) / DAY_S))]
    questions = [
        ask(f"max by ({by}) (max_over_time({text}[1d]))", day)
        for by, text in (("namespace,replicaset", created), ("namespace,replicaset,owner_name", owner))
        for day in days
    ]
    answers = await asyncio.gather(*questions)
    if blind := next((each for each in answers if isinstance(each, Blind)), None):
        return blind
    times, owners = (
        [series for each in half if not isinstance(each, Blind) for series in each]
        for half in (answers[: len(days)], answers[len(days) :])
    )
    return gone(((each.labels, each.value) for each in times), (each.labels for each in owners))


async def replay_all(
    client: PrometheusClient,
    settings: Prometheus,
    found: Sequence[Batch],
    *,
    done: Callable[[Sequence[Replayed]], None],
) -> None:
    """Read and replay every batch, a few at the same time; `done` is given what comes of each."""
    limit = asyncio.Semaphore(_AT_ONCE)

    async def one(batch: Batch) -> None:
        async with limit:
            done(await _batch(client, settings, batch))

    async with asyncio.TaskGroup() as group:
        for batch in found:
            group.create_task(one(batch))


async def _batch(client: PrometheusClient, settings: Prometheus, batch: Batch) -> list[Replayed]:
    """Read what a batch needs, and replay its rollouts."""
    step_s = float(settings.step)
    signals = PrometheusSignals(client, step_s=step_s, delay_s=settings.delay)
    spans = [steps_of(each, step_s=step_s) for each in batch.rollouts]
    first, last = min(each[0] for each in spans), max(each[1] for each in spans)
    refs = {ref for each in batch.rollouts for ref in each.subject.refs}
    names = tuple(sorted({ref.name for ref in refs}))
    queries = {name: query_of(each, {ref.namespace for ref in refs}) for name, each in batch.signals.items()}
    every = {
        name: await signals.read_past(replace(query, workloads=names), first=first, last=last, timeout_s=QUERY_S)
        for name, query in queries.items()
    }
    mine = [
        {name: [_of(each, rollout) for each in found[begin - first : end - first + 1]] for name, found in every.items()}
        for rollout, (begin, end) in zip(batch.rollouts, spans, strict=True)
    ]
    scenes = [
        scene(rollout, next(iter(readings.values())), step_s=step_s)
        for rollout, readings in zip(batch.rollouts, mine, strict=True)
    ]
    known = await _known(signals, batch, scenes, queries, step_s=step_s)
    found = []
    for rollout, there, readings, its in zip(batch.rollouts, scenes, mine, known, strict=True):
        found.append(replay(rollout, there, readings, its, step_s=step_s))
        await asyncio.sleep(0)  # the answers to other batches wait for their turn
    return found


def _of(reading: Reading, rollout: PastRollout) -> Reading:
    """Keep the rows of one rollout's workload."""
    refs = rollout.subject.refs
    keep = (each for each in reading.samples if each.row.namespace == refs[0].namespace)
    return replace(reading, samples=tuple(each for each in keep if replicaset_of(each.row.pod, *refs)))


async def _known(
    signals: PrometheusSignals,
    batch: Batch,
    scenes: Sequence[PastPods],
    queries: Mapping[str, SignalQuery],
    *,
    step_s: float,
) -> list[dict[str, Known]]:
    """Ask what the service would have asked when each rollout began."""
    known: list[dict[str, Known]] = [{} for _ in batch.rollouts]
    for name, query in queries.items():
        asked = [
            BaselineQuery(
                query=group_of(batch.signals[name]),
                first=steps_of(rollout, step_s=step_s)[0],
                workloads=rollout.subject.refs,
                old=frozenset({there.stable}),
                condemned=rollout.condemned - {there.stable},
            )
            for rollout, there in zip(batch.rollouts, scenes, strict=True)
        ]
        pasts: list[Baseline] = []
        for _, together in itertools.groupby(asked, key=lambda each: each.first):  # one step's at a time: each is large
            pasts += await baselines.read(signals, list(together), step_s=step_s)
        for its, each, there, past in zip(known, asked, scenes, pasts, strict=True):
            here = replace(query, workloads=tuple(ref.name for ref in each.workloads))
            resets = await signals.resets(here, step=each.first, window_s=counters.RESETS_S, timeout_s=QUERY_S)
            its[name] = Known(
                past=past,
                bad_known=await signals.bad_seen(query, step=each.first, timeout_s=QUERY_S),
                sawtooth=counters.not_monotonic(resets, {pod.name: 0 for pod in there.pods}),
            )
    return known
