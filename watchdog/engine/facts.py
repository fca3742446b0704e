"""What the API server showed of a rollout's pods, kept so that a replay knows what the live run knew."""

import datetime as dt
from collections.abc import Mapping, Sequence

import msgspec

from watchdog.judge.blocks import PodFact, Reading, Restart, Track
from watchdog.objects import Pod, TemplateHash

Owners = Mapping[str, tuple[Track, TemplateHash]]
"""The ReplicaSets of both tracks by UID: pods belong to a track by ownerReference, never by label."""


Named = Mapping[str, tuple[Track, TemplateHash]]
"""The same ReplicaSets by name."""

_SUFFIX = 5
_FRESH_STEPS = 2.5
"""A sample that is older was not scraped in this step or the one before."""


def by_name(
    known: Sequence[PodFact],
    readings: Sequence[Reading],
    named: Named,
    *,
    namespace: str,
    begun: float,
    step_s: float,
) -> tuple[PodFact, ...]:
    """The facts, and those of pods that went while nobody ran, as far as their samples tell.

    A pod is named after its ReplicaSet and five characters; it was live from its first sample to its last. A row stays
    visible for minutes after its pod has gone: what shows nothing new from the first reading on was gone before.

    Args:
        known: what is known.
        readings: of the time before now.
        named: whose pods count.
        namespace: where they are: the same template gives ReplicaSets the same name in every namespace.
        begun: when the rollout began: stable pods of before count from their first sample only.
        step_s: the grid.
    """
    facts = {fact.name: fact for fact in known}
    newest: dict[str, tuple[float, int]] = {}
    for reading in readings:
        for sample in reading.samples:
            owner, _, suffix = sample.row.pod.rpartition("-")
            if sample.row.namespace != namespace or owner not in named or len(suffix) != _SUFFIX:
                continue
            if sample.at is None or (sample.row.pod in facts and sample.row.pod not in newest):
                continue
            if sample.row.pod in facts:
                at, _ = newest[sample.row.pod]
                if sample.at > at:
                    newest[sample.row.pod] = sample.at, reading.step
                continue
            if sample.at < reading.step * step_s - _FRESH_STEPS * step_s:
                continue
            track, about = named[owner]
            created = sample.at if track is Track.CANDIDATE else min(sample.at, begun - 1)
            newest[sample.row.pod] = sample.at, reading.step
            facts[sample.row.pod] = PodFact(
                name=sample.row.pod,
                track=track,
                hash=about,
                created=created,
                step=reading.step,
                ready=sample.at,
                ready_step=reading.step,
            )
    for name, (at, step) in newest.items():
        if at < readings[-1].step * step_s - _FRESH_STEPS * step_s:
            facts[name] = msgspec.structs.replace(facts[name], gone=at, gone_step=step + 1)
    return tuple(facts.values())


def update(
    known: Sequence[PodFact], pods: Sequence[Pod], owners: Owners, *, step: int, now: float
) -> tuple[PodFact, ...]:
    """The facts, with what is new in this step.

    Args:
        known: what was known before.
        pods: every pod that the workloads' selectors find now.
        owners: whose pods count.
        step: the first step that may use what is new.
        now: the time, for what carries none of its own.
    """
    facts = {fact.name: fact for fact in known}
    there = set()
    for pod in pods:
        owner = next((item.uid for item in pod.metadata.owner_references if item.controller), "")
        if owner not in owners:
            continue
        there.add(pod.metadata.name)
        track, about = owners[owner]
        fact = facts.get(pod.metadata.name)
        if fact is None:
            created = _seconds(pod.metadata.creation_timestamp, now)
            fact = PodFact(name=pod.metadata.name, track=track, hash=about, created=created, step=step)
            restarts = sum(status.restart_count for status in pod.status.container_statuses)
            if restarts:
                fact = msgspec.structs.replace(fact, restarts=(Restart(restarts, _restarted(pod, created), step),))
        facts[fact.name] = _newer(fact, pod, step=step, now=now)
    for name, fact in facts.items():
        if name not in there and fact.gone is None:
            facts[name] = msgspec.structs.replace(fact, gone=now, gone_step=step)
    return tuple(facts.values())


def restarts_since(fact: PodFact, time: float) -> int:
    """How often containers of a pod began anew since a time."""
    before = [each.count for each in fact.restarts if each.at <= time]
    return fact.restarts[-1].count - (before[-1] if before else 0) if fact.restarts else 0


def _newer(fact: PodFact, pod: Pod, *, step: int, now: float) -> PodFact:
    replace = msgspec.structs.replace
    ready = next((item for item in pod.status.conditions if item.type == "Ready" and item.status == "True"), None)
    if ready and fact.ready is None:
        fact = replace(fact, ready=_seconds(ready.last_transition_time, now), ready_step=step)
    restarts = sum(status.restart_count for status in pod.status.container_statuses)
    if restarts > (fact.restarts[-1].count if fact.restarts else 0):
        fact = replace(fact, restarts=(*fact.restarts, Restart(restarts, _restarted(pod, now), step)))
    if pod.metadata.deletion_timestamp and fact.gone is None:
        fact = replace(fact, gone=now, gone_step=step)
    return fact


def _restarted(pod: Pod, otherwise: float) -> float:
    ends = [
        status.last_state.terminated.finished_at
        for status in pod.status.container_statuses
        if status.last_state.terminated and status.last_state.terminated.finished_at
    ]
    return max(ends).timestamp() if ends else otherwise


def _seconds(at: dt.datetime | None, otherwise: float) -> float:
    return at.timestamp() if at else otherwise
