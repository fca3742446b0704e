"""What is asked of Prometheus: bounded range queries, shared by the rollouts of an hour that have the same signals."""

import asyncio
import math
import re
from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from watchdog.backtest.past import BLOCKS_S, DAY_S, WINDOW_S, Past, Target, past, targets
from watchdog.backtest.replay import Replayed, replay, steps_of
from watchdog.backtest.rollouts import Rollout, gone, replicaset_of
from watchdog.config import Prometheus, Signal
from watchdog.engine.watch import query_of
from watchdog.judge.blocks import Blind, Reading, Row
from watchdog.objects import WorkloadRef
from watchdog.ports import SignalQuery
from watchdog.prometheus import PrometheusClient, PrometheusSignals, Series
from watchdog.selectors import in_list, parse

QUERY_S = 30.0
"""Deadline of each question."""

_AT_ONCE = 4
_SLICE_S = 3600.0
_MOST_TOGETHER = 20
_FINE_S = 15.0


class Batch(msgspec.Struct, frozen=True):
    """Rollouts whose questions are the same but for names: of one set of signals, begun in the same hour."""

    rollouts: tuple[Rollout, ...]

    @property
    def signals(self) -> Mapping[str, Signal]:
        """What all of them are judged by."""
        return self.rollouts[0].subject.policy.signals


def batches(rollouts: Sequence[Rollout]) -> list[Batch]:
    """Group rollouts so that few questions are asked, and none for much more than an hour's rollouts."""
    groups: dict[object, list[Rollout]] = {}
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


class _Points(msgspec.Struct, frozen=True):
    """The past of a signal, of every pod of a batch: points every five minutes, and every `fine_s`."""

    coarse: Mapping[Row, Target]
    fine: Mapping[Row, Target]
    fine_s: float

    def of(self, rollout: Rollout) -> Past:
        """Give what the past of one rollout says: of its workload's earlier versions that were not undone."""
        subject = rollout.subject

        def mine(row: Row) -> bool:
            owner = replicaset_of(row.pod, subject.workload) or replicaset_of(row.pod, subject.stable)
            usual = owner and owner != rollout.version.name and owner not in rollout.condemned
            return bool(usual) and row.namespace == subject.workload.namespace

        coarse, fine = ({row: each for row, each in all_.items() if mine(row)} for all_ in (self.coarse, self.fine))
        return past(coarse, fine, began=rollout.started, fine_s=self.fine_s)


async def _batch(client: PrometheusClient, settings: Prometheus, batch: Batch) -> list[Replayed]:
    """Read what a batch needs, and replay its rollouts."""
    step_s = float(settings.step)
    signals = PrometheusSignals(client, step_s=step_s, delay_s=settings.delay)
    spans = [steps_of(each, step_s=step_s) for each in batch.rollouts]
    first, last = min(each[0] for each in spans), max(each[1] for each in spans)
    readings: dict[str, list[Reading]] = {}
    history: dict[str, _Points | None] = {}
    bad_known: dict[str, bool] = {}
    for name, signal in batch.signals.items():
        query = _narrowed(signal, batch)
        whole = query_of(signal, query.namespaces)
        bad_known[name] = await signals.bad_seen(whole, step=first, timeout_s=QUERY_S)
        readings[name] = list(await signals.read_past(query, first=first, last=last, timeout_s=QUERY_S))
        history[name] = await _history(client, query, batch, fine_s=max(step_s, _FINE_S))
    found = []
    for rollout, (begin, end) in zip(batch.rollouts, spans, strict=True):
        mine = {
            name: [_of(each, rollout) for each in every[begin - first : end - first + 1]]
            for name, every in readings.items()
        }
        pasts = {name: points.of(rollout) for name, points in history.items() if points}
        found.append(replay(rollout, mine, pasts, bad_known, step_s=step_s))
        await asyncio.sleep(0)  # the other batches' answers wait for their turn
    return found


def _narrowed(signal: Signal, batch: Batch) -> SignalQuery:
    """Give the question for a signal, narrowed to the pods of these workloads by their names."""
    refs = {ref for each in batch.rollouts for ref in (each.subject.workload, each.subject.stable)}
    names = "|".join(sorted({re.escape(ref.name) for ref in refs}))
    pods = ("pod", "=~", f"(?:{names})-[0-9a-z]+-[0-9a-z]{{5}}")
    query = query_of(signal, {ref.namespace for ref in refs})
    return replace(query, bad=parse(query.bad).text(pods), total=parse(query.total).text(pods))


def _of(reading: Reading, rollout: Rollout) -> Reading:
    """Keep the rows of one rollout's workload."""
    subject = rollout.subject
    samples = tuple(
        each
        for each in reading.samples
        if each.row.namespace == subject.workload.namespace
        and (replicaset_of(each.row.pod, subject.workload) or replicaset_of(each.row.pod, subject.stable))
    )
    return replace(reading, samples=samples)


async def _history(client: PrometheusClient, query: SignalQuery, batch: Batch, *, fine_s: float) -> _Points | None:
    """Read the day before, with two grids; None where an answer cannot be used."""
    starts = [each.started for each in batch.rollouts]
    scope = in_list("namespace", query.namespaces)
    texts = [f"sum by (namespace,pod) ({parse(text).text(scope)})" for text in (query.total, query.bad)]
    found: list[Mapping[Row, Target]] = []
    for grid_s, length_s in ((WINDOW_S, DAY_S), (fine_s, BLOCKS_S)):
        start, end = (at // grid_s * grid_s for at in (min(starts), max(starts)))
        rows = []
        for text in texts:
            answer = await client.query_range(text, start=start - length_s, end=end, step_s=grid_s, timeout_s=QUERY_S)
            if isinstance(answer, Blind):
                return None
            rows.append([(_row(each), each.points) for each in answer])
        found.append(targets(*rows, good=query.good))
    return _Points(found[0], found[1], fine_s)


def _row(series: Series) -> Row:
    return Row(namespace=series.labels.get("namespace", ""), pod=series.labels.get("pod", ""))
