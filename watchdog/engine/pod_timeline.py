"""What the API server showed of a rollout's pods, kept so that a replay knows what the live run knew."""

import datetime as dt
import math
from collections.abc import Mapping, Sequence

import msgspec

from watchdog.judge.blocks import FRESH_STEPS, PodTimeline, Reading, Restart, Track
from watchdog.objects import Pod, TemplateHash

Owners = Mapping[str, tuple[Track, TemplateHash]]
"""The ReplicaSets of both tracks by UID: pods belong to a track by ownerReference, never by label."""


Named = Mapping[str, tuple[Track, TemplateHash]]
"""The same ReplicaSets by name."""

_SUFFIX = 5
"""A sample that is older was not scraped in this step or the one before."""


def by_name(
    known: Sequence[PodTimeline],
    readings: Sequence[Reading],
    named: Named,
    *,
    namespace: str,
    begun: float,
    step_s: float,
) -> tuple[PodTimeline, ...]:
    """The facts, and those of pods that went while nobody ran, as far as their samples tell.

    A pod is named after its ReplicaSet and five characters; it was live from its first sample to its last. A row stays
    visible for minutes after its pod has gone: what shows nothing new from the first reading on was gone before. A pod
    that is known, and was missed only now, went after its last sample, too.

    Args:
        readings: of the time before now.
        named: whose pods count.
        namespace: where they are: the same template gives ReplicaSets the same name in every namespace.
        begun: when the rollout began: stable pods of before count from their first sample only.
    """
    facts = {fact.name: fact for fact in known}
    missed = {fact.name for fact in known if fact.gone_step is not None and fact.gone_step >= readings[-1].step}
    newest: dict[str, tuple[float, int]] = {}
    for reading in readings:
        for sample in reading.samples:
            name = sample.row.pod
            owner, _, suffix = name.rpartition("-")
            if sample.row.namespace != namespace or owner not in named or len(suffix) != _SUFFIX or sample.at is None:
                continue
            if name in newest or name in missed:
                if sample.at > newest.get(name, (-math.inf, 0))[0]:
                    newest[name] = sample.at, reading.step
                continue
            if name in facts or sample.at < reading.step * step_s - FRESH_STEPS * step_s:
                continue
            track, about = named[owner]
            created = sample.at if track is Track.CANDIDATE else min(sample.at, begun - 1)
            newest[name] = sample.at, reading.step
            facts[name] = PodTimeline(
                name=name,
                track=track,
                hash=about,
                created=created,
                step=reading.step,
                ready=sample.at,
                ready_step=reading.step,
            )
    for name, (at, step) in newest.items():
        if at < readings[-1].step * step_s - FRESH_STEPS * step_s:
            facts[name] = msgspec.structs.replace(facts[name], gone=at, gone_step=step + 1)
    return tuple(facts.values())


class _Steps(msgspec.Struct, frozen=True):
    """When pods were looked at: `since` is the first step that has not been taken yet, `step` the one of now."""

    since: int
    step: int
    step_s: float
    now: float

    def known_from(self, time: float) -> int:
        """The step that would have known of a time, had somebody looked then; never one that was taken without it."""
        return min(self.step, max(self.since, math.ceil(time / self.step_s)))


def update(
    known: Sequence[PodTimeline],
    pods: Sequence[Pod],
    owners: Owners,
    *,
    since: int,
    step: int,
    step_s: float,
    now: float,
) -> tuple[PodTimeline, ...]:
    """The facts, with what is new since the last look.

    What happened while nobody looked is known from the step on that would have seen it: the steps between are fed yet.

    Args:
        known: what was known before.
        pods: every pod that the workloads' selectors find now.
        owners: whose pods count.
        since: the first step that has not been taken yet.
        now: the time, for what carries none of its own.
    """
    look = _Steps(since, step, step_s, now)
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
            fact = PodTimeline(
                name=pod.metadata.name, track=track, hash=about, created=created, step=look.known_from(created)
            )
        facts[fact.name] = _newer(fact, pod, look)
    for name, fact in facts.items():
        if name not in there and fact.gone is None:
            facts[name] = msgspec.structs.replace(fact, gone=now, gone_step=step)
    return tuple(facts.values())


def restarts_between(fact: PodTimeline, begin: float, end: float) -> int:
    """How often containers of a pod began anew after a time, up to another.

    Of several that were learned of at once only the last has a time: the others may all have been before it.
    """
    before = [each.count for each in fact.restarts if each.at <= begin]
    inside = [each.count for each in fact.restarts if each.at <= end]
    after = [each.count - 1 for each in fact.restarts if each.at > end]
    return max([0, *inside[-1:], *after[:1]]) - (before[-1] if before else 0)


def _newer(fact: PodTimeline, pod: Pod, look: _Steps) -> PodTimeline:
    replace = msgspec.structs.replace
    ready = next((item for item in pod.status.conditions if item.type == "Ready" and item.status == "True"), None)
    if ready and fact.ready is None:
        at = _seconds(ready.last_transition_time, look.now)
        fact = replace(fact, ready=at, ready_step=look.known_from(at))
    restarts = sum(status.restart_count for status in pod.status.container_statuses)
    before = fact.restarts[-1].count if fact.restarts else 0
    if restarts > before:
        at = _restarted(pod, look.now)
        # Of several only the last has a time; the first of them may have been right after the last look.
        step = look.known_from(at if restarts == before + 1 else fact.created)
        fact = replace(fact, restarts=(*fact.restarts, Restart(restarts, at, step)))
    if pod.metadata.deletion_timestamp and fact.gone is None:
        at = _deleted(pod, look.now)
        fact = replace(fact, gone=at, gone_step=look.known_from(at))
    return fact


def _restarted(pod: Pod, otherwise: float) -> float:
    ends = [
        status.last_state.terminated.finished_at
        for status in pod.status.container_statuses
        if status.last_state.terminated and status.last_state.terminated.finished_at
    ]
    return max(ends).timestamp() if ends else otherwise


def _deleted(pod: Pod, now: float) -> float:
    """When a pod was told to end: its deletion timestamp is the end of the time that it is given for that."""
    until, given_s = pod.metadata.deletion_timestamp, pod.metadata.deletion_grace_period_seconds
    return now if until is None or given_s is None else min(now, until.timestamp() - given_s)


def _seconds(at: dt.datetime | None, otherwise: float) -> float:
    return at.timestamp() if at else otherwise
