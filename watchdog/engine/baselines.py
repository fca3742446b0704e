"""What is read of the past when rollouts begin: one question per selector set and time slice, however many begin.

Source: docs/design/statistics.md §1 ("Reference b, φ", bystanders).
"""

import asyncio
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec

from watchdog.judge import calibration, historical, objections, starved
from watchdog.judge.blocks import Counts, Reading, ScrapeTarget, steps
from watchdog.judge.calibration import Reference, phis
from watchdog.judge.objections import Bystander
from watchdog.judge.past import Span, by_pod, spans
from watchdog.model import Objection
from watchdog.objects import WorkloadRef
from watchdog.ports import SignalQuery, Signals

DAY_S = 86_400.0
WINDOW_S = 300.0
FINE_S = 6 * 3600.0
BLOCK_S = 15.0
BEFORE_S = 600.0
"""How long before the rollout the old pods are looked at for `incident-first`."""

MOST_BYSTANDERS = 20
MOST_OTHERS = 60
"""Among so many other workloads the bystanders are looked for."""

MOST_SAMPLES = 200_000
"""So many samples are read at most in fine steps; with more rows fewer hours are."""

_MOST_NAMED = 100
_AT_ONCE = 20_000
"""With more samples than these the loop does not wait for the arithmetic."""

_DEADLINE_S = 30.0
_NEWEST_OUT = 3

Place = tuple[str, str]
"""A namespace, and a Deployment's name in it or the joined label's value."""


class BaselineQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted to know of one signal of one rollout.

    Args:
        query: what is asked, without a place.
        first: the rollout's first step.
        workloads: whose past it is.
        label: the joined label's value on the stable track.
        others: workloads with the same signal that are not rolling out, those to be preferred first.
        old: names of the ReplicaSets that are live at the start.
        condemned: names of those that were found bad.
        restarts: when containers are known to have begun anew, by pod.
    """

    query: SignalQuery
    first: int
    workloads: tuple[WorkloadRef, ...]
    label: str = ""
    others: tuple[WorkloadRef, ...] = ()
    old: frozenset[str] = frozenset()
    condemned: frozenset[str] = frozenset()
    restarts: Mapping[str, tuple[float, ...]] = {}

    @property
    def places(self) -> tuple[Place, ...]:
        """Where its own counts are."""
        return tuple((ref.namespace, self.label or ref.name) for ref in self.workloads)

    def pod_of(self, row: ScrapeTarget) -> str:
        """Whose a row of its places is; empty where that is a version that was found bad."""
        if self.label:
            return row.instance
        return "" if row.pod.rpartition("-")[0] in self.condemned else row.pod

    def old_pod_of(self, row: ScrapeTarget) -> str:
        """The same of the pods that are live at the start only."""
        return self.pod_of(row) if self.label or row.pod.rpartition("-")[0] in self.old else ""


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """What is frozen of the past.

    Args:
        told: where it comes from, or why there is none.
        incident_first: why the old pods were failing before, where they were.
        bystanders: other workloads, by which an outage shows.
        lowest: requests of the quietest two minutes; None where that is not known.
        rps: requests per second of the newest five minutes.
    """

    reference: Reference
    told: str
    incident_first: Objection | None = None
    bystanders: tuple[Bystander, ...] = ()
    lowest: float | None = None
    rps: float = 0.0


def none(why: str) -> Baseline:
    """Give the default for an unknown past, and the reason."""
    return Baseline(reference=calibration.unknown(), told=f"no history: {why}")


async def read(signals: Signals, asked: Sequence[BaselineQuery], *, step_s: float) -> tuple[Baseline, ...]:
    """Read the past of everything that begins, within 30 s; nothing is raised for what cannot be read."""
    groups: dict[tuple[SignalQuery, int], list[BaselineQuery]] = defaultdict(list)
    for each in asked:
        groups[each.query, each.first].append(each)
    found = await asyncio.gather(*(_read(signals, *key, group, step_s) for key, group in groups.items()))
    answers = {key: iter(pasts) for key, pasts in zip(groups, found, strict=True)}
    return tuple(next(answers[each.query, each.first]) for each in asked)


async def _read(
    signals: Signals, query: SignalQuery, first: int, asked: Sequence[BaselineQuery], step_s: float
) -> Sequence[Baseline]:
    deadline = asyncio.get_running_loop().time() + _DEADLINE_S
    refs = {ref for each in asked for ref in (*each.workloads, *each.others)}
    names = sorted({ref.name for ref in refs}) if len(refs) <= _MOST_NAMED and not query.join else ()
    query = msgspec.structs.replace(
        query, namespaces=tuple(sorted({ref.namespace for ref in refs})), workloads=tuple(names)
    )

    async def past(every_s: float, count: int) -> tuple[Reading, ...]:
        every = steps(every_s, step_s=step_s)
        last = first // every * every
        left_s = max(1.0, deadline - asyncio.get_running_loop().time())
        return await signals.read_past(query, first=last - count * every, last=last, every=every, timeout_s=left_s)

    far = await past(WINDOW_S, round(DAY_S / WINDOW_S))
    rows = max(1, *(len(each.samples) for each in far))
    blocks = min(round(FINE_S / _block_s(step_s)), max(1, MOST_SAMPLES // rows))
    near = () if any(each.blind for each in far) else await past(BLOCK_S, blocks)
    # With a part of it a workload that fails would look like one that is well.
    if blind := next((each.blind for each in (*far, *near) if each.blind), None):
        return [none(blind.detail)] * len(asked)
    if sum(len(each.samples) for each in (*far, *near)) <= _AT_ONCE:
        return _pasts(asked, far, near, step_s)
    return await asyncio.to_thread(_pasts, asked, far, near, step_s)


def _pasts(
    asked: Sequence[BaselineQuery], far: Sequence[Reading], near: Sequence[Reading], step_s: float
) -> list[Baseline]:
    """Work it out; it takes seconds for hundreds of pods."""
    joined = bool(asked[0].query.join)
    coarse, fine = (_by_place(each, joined=joined) for each in (far, near))
    others: dict[WorkloadRef, tuple[float, Bystander] | None] = {}
    block_s = _block_s(step_s)

    def counted(
        places: Mapping[Place, Sequence[Reading]], each: BaselineQuery, *, old: bool = False
    ) -> tuple[Span, ...]:
        merged = _merged([places[place] for place in each.places if place in places])
        return spans(merged, each.old_pod_of if old else each.pod_of, step_s=step_s, restarts=each.restarts)

    def other(ref: WorkloadRef, like: BaselineQuery) -> tuple[float, Bystander] | None:
        if ref not in others:
            its = BaselineQuery(query=like.query, first=like.first, workloads=(ref,))
            windows = counted(coarse, its)
            requests = windows[-1].counts.total if windows else 0.0
            found = _reference(windows, phis(by_pod(counted(fine, its)))) if requests else None
            others[ref] = (requests, Bystander(str(ref), found.base, found.phi_historical)) if found else None
        return others[ref]

    pasts = []
    for each in asked:
        windows, blocks = counted(coarse, each), counted(fine, each)
        sizes = phis(by_pod(blocks))
        reference = _reference(windows, sizes)
        earlier = _reference(windows, sizes, newest_out=_NEWEST_OUT)
        old = counted(fine, each, old=True)[-math.ceil(BEFORE_S / block_s) :]
        before = sum((span.counts for span in old if not span.torn), Counts())
        seen = [found for ref in each.others if (found := other(ref, each))]
        # Those of the same namespace stand first; among equals the busier ones.
        seen.sort(key=lambda item: (not item[1].name.startswith(f"{each.workloads[0].namespace}/"), -item[0]))
        pasts.append(
            Baseline(
                reference=reference,
                told=_told(windows),
                incident_first=objections.incident_first(
                    before, limit=historical.limit(earlier.base), phi=earlier.phi_historical
                ),
                bystanders=tuple(item for _, item in seen[:MOST_BYSTANDERS]),
                lowest=starved.lowest(_requests(blocks), _requests(windows), block_s=block_s),
                rps=_rps(blocks, block_s=block_s),
            )
        )
    return pasts


def _block_s(step_s: float) -> float:
    return steps(BLOCK_S, step_s=step_s) * step_s


def _requests(found: Sequence[Span]) -> list[float | None]:
    """What was counted in each; None where nothing was there to count it, or a counter went down."""
    return [span.counts.total if span.pods and not span.torn else None for span in found]


def _rps(blocks: Sequence[Span], *, block_s: float) -> float:
    """Give the requests per second of the newest five minutes, as far as they are known."""
    known = [each for each in _requests(blocks[-math.ceil(WINDOW_S / block_s) :]) if each is not None]
    return sum(known) / (len(known) * block_s) if known else 0.0


def _reference(windows: Sequence[Span], sizes: tuple[float, float], *, newest_out: int = 0) -> Reference:
    whole = [span.counts for span in windows if not span.torn]
    return calibration.reference(whole, sizes, left_out=len(windows) - len(whole), newest_out=newest_out)


def _told(windows: Sequence[Span]) -> str:
    seen = [span.counts for span in windows if not span.torn and span.counts.total]
    torn = sum(1 for span in windows if span.torn)
    out = f", {torn} left out because a counter went down without a known restart" if torn else ""
    return f"{sum(seen, Counts()).total:.0f} requests in {len(seen)} windows of 5 min of the day before{out}"


def place_of(row: ScrapeTarget, *, joined: bool) -> Place:
    """Give whose a row is: pods are named `<Deployment>-<hash>-<5 characters>`."""
    return row.namespace, row.label if joined else deployment_of(row.pod)


def deployment_of(pod: str) -> str:
    """Give the name of the Deployment that a pod is of, by its own."""
    return pod.rpartition("-")[0].rpartition("-")[0]


def _by_place(readings: Sequence[Reading], *, joined: bool) -> dict[Place, list[Reading]]:
    """Give each workload its own part of every reading."""
    nothing = [Reading(each.step) for each in readings]
    found: dict[Place, list[Reading]] = {}
    for index, reading in enumerate(readings):
        mine = defaultdict(list)
        for sample in reading.samples:
            mine[place_of(sample.row, joined=joined)].append(sample)
        for place, samples in mine.items():
            if place not in found:
                found[place] = list(nothing)
            found[place][index] = Reading(reading.step, tuple(samples))
    return found


def _merged(parts: Sequence[Sequence[Reading]]) -> Sequence[Reading]:
    if len(parts) < 2:
        return parts[0] if parts else ()
    return [
        Reading(same[0].step, tuple(sample for each in same for sample in each.samples))
        for same in zip(*parts, strict=True)
    ]
