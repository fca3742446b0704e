"""Readings of counters to blocks of deltas: an immutable fold, one step of the grid at a time.

Every step is fed exactly once and in order; those that were missed are read from the past first. Of the pod facts a
step uses only what it knew. So a run that is cut anywhere and fed again with the facts of its record gives the same
blocks.

No request is lost or counted twice: a blind block counts nothing, and the next one that sees spans the gap. Of a pod
that is not known yet the first value is kept until it is: it then counts from zero if it was born in the rollout, else
from that value.
"""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from watchdog.judge.blocks import (
    FRESH_STEPS,
    Blind,
    BlindReason,
    Block,
    Counts,
    PodCounts,
    PodTimeline,
    Reading,
    Sample,
    ScrapeTarget,
    Track,
)

RESETS_S = 3600.0
"""How long before a rollout counters are looked at for `not_monotonic`."""

PATIENCE = 2
"""Steps that the API server has to tell of a restart that a falling counter has shown."""

_SETTLED_STEPS = 3
_CLOCK_S = 1.0
"""The API server gives the time of a restart in whole seconds."""

_WORKERS = "several workers behind one /metrics need PROMETHEUS_MULTIPROC_DIR"

Key = tuple[str, str]
"""A scrape target, however it was scraped: pod and container; or the joined label's value and the instance."""


class CounterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for a whole rollout.

    Args:
        namespace: of the workload; rows of others are passed over.
        workloads: names of the Deployments whose pods count; rows of others are passed over. Empty where that is not
            known, or where series carry no pod label.
        grace_s: from Ready, for which a candidate pod is counted, not judged.
        begun: when the rollout began; pods created since count from zero.
        join: the joined label's values on candidate and stable, where series carry no pod label.
        bad_known: absent failures are none.
        base_blind: why the rollout is blind from the start.
    """

    namespace: str
    workloads: tuple[str, ...] = ()
    step_s: float
    grace_s: float
    begun: float
    join: tuple[str, str] | None = None
    bad_known: bool = False
    base_blind: Blind | None = None


class Last(msgspec.Struct, frozen=True):
    """What a target showed last, or first while its pod is not known.

    Args:
        bad: failures; 0 where there was no such series beside the total.
        at: time of the sample.
        since: the step at which its next delta begins.
        known: whether its pod was.
        owed: what blind blocks did not count.
        fell: the step that first saw less than this, without a restart that explains it.
    """

    total: float
    bad: float
    at: float
    since: int
    known: bool = False
    owed: Counts = Counts()
    fell: int | None = None


class CounterState(msgspec.Struct, frozen=True):
    """Where the fold stands.

    Args:
        step: the last one taken.
        counted: the last one whose block was not blind.
        targets: what each showed.
        seen: sample time of each row in the last usable reading.
        bad_seen: whether failures were ever seen here.
        blind: why the rollout is blind for good.
    """

    settings: CounterSettings
    step: int | None = None
    counted: int = 0
    targets: Mapping[Key, Last] = {}
    seen: Mapping[ScrapeTarget, float] = {}
    bad_seen: bool = False
    blind: Blind | None = None


class _Owner(msgspec.Struct, frozen=True):
    """What is known of the pod, or of the joined track, behind a target."""

    name: str
    track: Track
    ready: float | None
    born: bool
    restarts: tuple[float, ...]


class _TargetStep(msgspec.Struct, frozen=True):
    """One target at one step.

    Args:
        if_blind: what is kept of it if the block is blind.
        if_counted: what is kept if it is not.
        delta: what it counts then.
        side: and where: `candidate`, `stable`, `grace`.
        at: time of its sample, where it belongs to a track.
        problem: why the block is blind.
        lasting: whether the rollout is, for good.
    """

    if_blind: Last | None
    if_counted: Last | None
    delta: Counts = Counts()
    side: str = ""
    at: float | None = None
    problem: Blind | None = None
    lasting: bool = False


def initial(settings: CounterSettings) -> CounterState:
    """Give the state before the first step."""
    return CounterState(settings, blind=settings.base_blind)


def blocks(settings: CounterSettings, readings: Iterable[Reading], pods: Sequence[PodTimeline]) -> tuple[Block, ...]:
    """Give the blocks of readings that follow each other."""
    state, found = initial(settings), []
    for reading in readings:
        state, block = step(state, reading, pods)
        found.append(block)
    return tuple(found)


def step(state: CounterState, reading: Reading, pods: Sequence[PodTimeline]) -> tuple[CounterState, Block]:
    """Take one reading further.

    A counter that goes down makes the block blind, and the rollout for good if no restart that explains it becomes
    known within `PATIENCE` steps. Every other blindness lasts as long as its reason.

    Args:
        state: after the step before.
        reading: of the next step.
        pods: facts; what this step does not know yet is passed over.

    Raises:
        ValueError: the reading is not of the next step.
    """
    now, settings = reading.step, state.settings
    before = now - 1 if state.step is None else state.step
    if now != before + 1:
        raise ValueError(f"step {now} cannot follow step {before}")
    state = replace(state, step=now, counted=before if state.step is None else state.counted)
    known = _known(pods, now)
    live = {pod.track for pod in known if _was_ready(pod, now * settings.step_s, settings.step_s)}
    shell = Block(now, ready=Track.CANDIDATE in live, old_live=Track.STABLE in live)
    if blind := state.blind or reading.blind:
        return state, replace(shell, blind=blind)

    owners, groups = _owners(settings, known), _groups(settings, reading)
    looks = {key: _look(state, key, group, owners.get(key[0])) for key, group in groups.items()}
    state = replace(
        state,
        seen={sample.row: at for group in groups.values() for at, sample in group},
        bad_seen=state.bad_seen
        or any(key[0] in owners and sample.bad is not None for key, group in groups.items() for _, sample in group),
        blind=next((look.problem for look in looks.values() if look.lasting), None),
    )
    problems = [look.problem for look in looks.values() if look.problem]
    if problems := problems or _missing(state, known, {key: look.at for key, look in looks.items() if look.at}):
        kept = {key: look.if_blind for key, look in looks.items() if look.if_blind}
        blind = state.blind or min(problems, key=lambda each: list(BlindReason).index(each.reason))
        return replace(state, targets={**state.targets, **kept}), replace(shell, blind=blind)

    def counts(side: str) -> Counts:
        return sum((look.delta for look in looks.values() if look.side == side), Counts())

    moved = {key: look.if_counted for key, look in looks.items() if look.if_counted}
    state = replace(state, counted=now, targets={**state.targets, **moved})
    return state, replace(
        shell,
        candidate=counts("candidate"),
        stable=counts("stable"),
        grace=counts("grace"),
        pods=_by_pod(looks, joined=settings.join is not None),
    )


def _by_pod(looks: Mapping[Key, _TargetStep], *, joined: bool) -> tuple[PodCounts, ...]:
    """Give what judged candidate pods counted, one by one; where series carry no pod, their instances are the pods."""
    found: dict[str, Counts] = {}
    for key, look in looks.items():
        if look.side == "candidate" and look.delta != Counts():
            name = sys.intern(key[1] if joined else key[0])  # one text for all blocks, not one from each answer
            found[name] = found.get(name, Counts()) + look.delta
    return tuple(PodCounts(name, found[name]) for name in sorted(found))


def _was_ready(pod: PodTimeline, end: float, step_s: float) -> bool:
    """Whether a pod was Ready at some time in the block that ends there."""
    return pod.ready is not None and pod.ready < end and (pod.gone is None or pod.gone > end - step_s)


def not_monotonic(resets: Mapping[ScrapeTarget, float], restarts: Mapping[str, int]) -> Blind | None:
    """Say whether a counter went down at least twice more often than its pod restarted, before a rollout.

    Args:
        resets: decreases by row.
        restarts: container restarts in the same time, by pod: of every pod that counts.
    """
    for row, count in sorted(resets.items()):
        if row.pod in restarts and count - restarts[row.pod] >= 2:
            detail = f"counters of pod {row.pod} went down {count:.0f} times before the rollout: {_WORKERS}"
            return Blind(BlindReason.NOT_MONOTONIC, detail)
    return None


def _known(pods: Iterable[PodTimeline], now: int) -> tuple[PodTimeline, ...]:
    """Give the facts as this step knows them."""

    def yet(since: int | None) -> bool:
        return since is not None and since <= now

    return tuple(
        replace(
            pod,
            ready=pod.ready if yet(pod.ready_step) else None,
            gone=pod.gone if yet(pod.gone_step) else None,
            restarts=tuple(restart for restart in pod.restarts if yet(restart.step)),
        )
        for pod in pods
        if yet(pod.step)
    )


def _owners(settings: CounterSettings, pods: Iterable[PodTimeline]) -> dict[str, _Owner]:
    """Give the pods of both tracks by name; or the tracks by the joined label's value."""
    if settings.join is None:
        return {
            pod.name: _Owner(
                f"pod {pod.name}",
                pod.track,
                pod.ready,
                born=pod.created >= settings.begun,
                restarts=tuple(restart.at for restart in pod.restarts),
            )
            for pod in pods
            if pod.track is not Track.OTHER
        }
    found = {}
    for label, track in zip(settings.join, (Track.CANDIDATE, Track.STABLE), strict=True):
        mine = [pod for pod in pods if pod.track is track]
        ready = min((pod.ready for pod in mine if pod.ready is not None), default=None)
        restarts = tuple(restart.at for pod in mine for restart in pod.restarts)
        found[label] = _Owner(f"the {track}", track, ready, born=False, restarts=restarts)
    return found


def _groups(settings: CounterSettings, reading: Reading) -> dict[Key, list[tuple[float, Sample]]]:
    """Give the rows of each target, each with the time of its sample, in an order that depends on nothing else."""
    found: dict[Key, list[tuple[float, Sample]]] = {}
    for sample in reading.of(settings.namespace, () if settings.join else settings.workloads):
        row = sample.row
        if not (sample.total is None and sample.bad is None):
            key = (row.label, row.instance) if settings.join else (row.pod, row.container)
            at = reading.step * settings.step_s if sample.at is None else sample.at
            found.setdefault(key, []).append((at, sample))
    return found


def _look(state: CounterState, key: Key, group: Sequence[tuple[float, Sample]], owner: _Owner | None) -> _TargetStep:
    """Look at one target.

    Only rows whose sample is newer than before count as scraped twice: where a target is scraped under another
    instance, its old row stays visible for 5 minutes.
    """
    last = state.targets.get(key)
    at, sample = max(group, key=lambda each: (each[0], each[1].row))
    first = None if sample.total is None else Last(sample.total, sample.bad or 0.0, at, state.counted)
    if owner is None:
        return _TargetStep(last or first, last or first)
    fresh = [each.row for time, each in group if time > state.seen.get(each.row, -math.inf)]
    if len(fresh) > 1:
        seen = " and ".join(f'(instance="{row.instance}", job="{row.job}")' for row in fresh[:2])
        detail = f'{owner.name} is scraped twice, as {seen}: name one with a matcher such as job="{fresh[0].job}"'
        return _TargetStep(last, last, at=at, problem=Blind(BlindReason.SCRAPED_TWICE, detail))
    if first is None:
        detail = f"{owner.name} shows failures without a total, or no finite number: correct the selectors"
        return _TargetStep(last, last, problem=Blind(BlindReason.PARTIAL, detail))
    if state.settings.join and owner.track is Track.CANDIDATE and owner.ready is None:
        return _TargetStep(first, first, at=at)
    return _counted(state, sample, first, last, owner)


def _counted(state: CounterState, sample: Sample, first: Last, last: Last | None, owner: _Owner) -> _TargetStep:
    """Look at a target that counts."""
    now, base = state.step or 0, last or first
    if owner.born and not base.known:
        base = replace(base, total=0.0, bad=0.0)
    restarted = any(at + _CLOCK_S > base.at for at in owner.restarts)
    absent = 0.0 if restarted else base.bad
    bad = absent if sample.bad is None else sample.bad
    fell = now if base.fell is None and (first.total < base.total or bad < base.bad) else base.fell
    if fell is not None:
        if not restarted:
            detail = f"counters of {owner.name} went down without a restart: {_WORKERS}"
            problem = Blind(BlindReason.NOT_MONOTONIC, detail)
            kept = replace(base, fell=fell)
            return _TargetStep(kept, kept, at=first.at, problem=problem, lasting=now - fell >= PATIENCE)
        base = replace(base, total=0.0, bad=0.0)
    delta = base.owed + Counts(first.total - base.total, bad - base.bad)
    moved = Last(first.total, bad, first.at, now, known=True)
    owing = replace(moved, since=base.since, owed=delta)
    return _TargetStep(owing, moved, delta, _side(state.settings, owner, base.since), first.at)


def _missing(state: CounterState, pods: Sequence[PodTimeline], found: Mapping[Key, float]) -> list[Blind]:
    """Say what is not there: failures that were never seen, or fresh rows."""
    settings, time = state.settings, (state.step or 0) * state.settings.step_s
    settled = [
        pod
        for pod in pods
        if pod.gone is None and pod.ready is not None and time - pod.ready > _SETTLED_STEPS * settings.step_s
    ]
    if not found:
        detail = "no pod has a series: correct the selector of `total`, or have it scraped"
        return [Blind(BlindReason.STALE, detail)] if settled else []
    problems = []
    if not (state.bad_seen or settings.bad_known):
        detail = "no failure was ever counted: correct the selector of `bad`, or begin at 0"
        problems.append(Blind(BlindReason.BAD_NEVER_SEEN, detail))
    fresh = {key[0] for key, at in found.items() if at > time - FRESH_STEPS * settings.step_s}
    candidates = [pod.name for pod in settled if pod.track is Track.CANDIDATE]
    silent = sorted(name for name in candidates if (settings.join[0] if settings.join else name) not in fresh)
    if 2 * len(silent) > len(candidates):
        detail = (
            f"{len(silent)} of {len(candidates)} candidate pods show nothing new ({', '.join(silent[:3])}): are they"
        )
        problems.append(Blind(BlindReason.STALE, f"{detail} scraped, and at least every {settings.step_s:g} s?"))
    return problems


def _side(settings: CounterSettings, owner: _Owner, since: int) -> str:
    """Say where a delta counts: of a candidate pod, judged only where it begins after the grace."""
    if owner.track is Track.STABLE:
        return "stable"
    over = owner.ready is not None and since * settings.step_s >= owner.ready + settings.grace_s
    return "candidate" if over else "grace"
