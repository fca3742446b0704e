"""What turns acting into asking: signs that the failures are not the new version's fault.

Source: docs/design/statistics.md §1 and §4 (`one-pod`). Times are seconds; nothing here is evidence.
"""

import math
from collections.abc import Iterable, Sequence

import msgspec

from watchdog.judge.blocks import Counts, PodCounts
from watchdog.model import Guard, Objection

WINDOW_S = 120.0
"""The longer of the two windows in which something may be noisy: 8 blocks of 15 s."""

ATTRIBUTION_S = 600.0
"""How long after completion a failure may begin and still be held against the version."""

_LONGEST_ATTRIBUTION_S = 3600.0
_SURE = 3.0
_BYSTANDER_SURE = 2.0
_MOST_NOISY = 0.2
_FEWEST_NOISY = 2
_FEWEST_QUIET = 3
_BYSTANDER_REQUESTS = 100
_ONE_PODS = 3
_ONE_SHARE = 0.8
_ONE_CHANCE = 0.001


class Bystander(msgspec.Struct, frozen=True):
    """Another watched workload that is not rolling out, with its own reference and cluster size."""

    name: str
    base: float
    phi: float

    @property
    def limit(self) -> float:
        """The share of failures above which it is suspected."""
        return max(0.002, 1.2 * self.base)


def noisy(counts: Counts, *, limit: float, phi: float, sure: float = _SURE) -> bool:
    """Whether so many failures are too many for a share of `limit`, `sure` standard deviations and as many failures."""
    expected = counts.total * limit
    return counts.bad >= expected + sure * math.sqrt(phi * expected) + sure


def incident_first(before: Counts, *, limit: float, phi: float) -> Objection | None:
    """Whether the old pods failed before the rollout began.

    Args:
        before: of the old pods, in the ten minutes before.
        limit: of the historical control, by a reference without the last 15 minutes.
        phi: of that control.
    """
    if not noisy(before, limit=limit, phi=phi):
        return None
    return Objection(
        Guard.INCIDENT_FIRST, f"{_of(before)} failed in the 10 min before the rollout, limit {limit:.2%}", asks=True
    )


def shared(recent: Sequence[Counts], *, limit: float, phi: float) -> Objection | None:
    """Whether the old pods fail too, in the newest block or in all of the window."""
    for counts in (recent[-1], sum(recent, Counts())) if recent else ():
        if noisy(counts, limit=limit, phi=phi):
            return Objection(Guard.SHARED, f"{_of(counts)} of the old pods failed too, limit {limit:.2%}", asks=True)
    return None


def bystanders(watched: Iterable[tuple[Bystander, Sequence[Counts]]]) -> Objection | None:
    """Whether other workloads fail at the same time: at least two, and a fifth of them."""
    seen = list(watched)
    loud = [each.name for each, recent in seen if _loud(each, recent)]
    if len(loud) < max(_FEWEST_NOISY, _MOST_NOISY * len(seen)):
        return None
    return Objection(
        Guard.BYSTANDERS, f"{len(loud)} of {len(seen)} other workloads fail too: {', '.join(loud[:3])}", asks=True
    )


def attribution_s(watched: Iterable[tuple[Bystander, Sequence[Counts]]], *, bake_s: float) -> float:
    """Give how long after completion a failure is still held against the version.

    Longer where enough other workloads with enough requests show that nothing else is wrong.
    """
    quiet = [
        each
        for each, recent in watched
        if sum(recent, Counts()).total >= _BYSTANDER_REQUESTS and not _loud(each, recent)
    ]
    longest = min(bake_s, _LONGEST_ATTRIBUTION_S)
    return max(ATTRIBUTION_S, longest) if len(quiet) >= _FEWEST_QUIET else ATTRIBUTION_S


def late(onset_s: float, *, completed_s: float | None, allowed_s: float) -> Objection | None:
    """Whether the failure began too long after the rollout was complete."""
    if completed_s is None or onset_s <= completed_s + allowed_s:
        return None
    after = (onset_s - completed_s) / 60
    return Objection(
        Guard.LATE, f"it began {after:.0f} min after completion; {allowed_s / 60:.0f} min are attributed", asks=True
    )


def one_pod(blocks: Iterable[Sequence[PodCounts]], *, limit: float, phi: float) -> Objection | None:
    """Whether one pod has nearly all the excess, more of it than chance would give a version that is bad everywhere.

    Args:
        blocks: what judged pods counted in each block since the onset.
        limit: share of failures that is no excess.
        phi: effective size of error clusters, of the concurrent control.
    """
    pods = {each.pod: each.counts for each in together(blocks)}
    excess = {name: counts.bad - counts.total * limit for name, counts in pods.items()}
    above = math.fsum(max(0.0, each) for each in excess.values())
    if len(pods) < _ONE_PODS or above <= 0:
        return None
    worst = max(excess, key=lambda name: excess[name])
    mine, everyone = pods[worst], sum(pods.values(), Counts())
    expected = (everyone.total - mine.total) * limit
    healthy = everyone.bad - mine.bad <= expected + math.sqrt(phi * expected) + 1
    if excess[worst] < _ONE_SHARE * above or not healthy or one_pod_chance(pods.values(), mine, phi=phi) > _ONE_CHANCE:
        return None
    return Objection(
        Guard.ONE_POD, f"{mine.bad:.0f} of {everyone.bad:.0f} failures are of pod {worst}", asks=True, pod=worst
    )


def together(blocks: Iterable[Sequence[PodCounts]]) -> tuple[PodCounts, ...]:
    """Add up what pods counted."""
    pods: dict[str, Counts] = {}
    for block in blocks:
        for each in block:
            pods[each.pod] = pods.get(each.pod, Counts()) + each.counts
    return tuple(PodCounts(name, counts) for name, counts in pods.items())


def one_pod_chance(pods: Iterable[Counts], mine: Counts, *, phi: float) -> float:
    """Give the chance that any of the pods gets so many of the clusters of failures by its share of the requests."""
    counts = list(pods)
    everyone = sum(counts, Counts())
    trials, hits = math.floor(everyone.bad / phi), math.floor(mine.bad / phi)
    return min(1.0, len(counts) * _tail(trials, mine.total / everyone.total, hits))


def _tail(trials: int, share: float, hits: int) -> float:
    """Give P[Bin(trials, share) >= hits], term by term from the largest logarithm."""
    if hits <= 0 or share >= 1:
        return 1.0
    logs = [
        math.lgamma(trials + 1)
        - math.lgamma(k + 1)
        - math.lgamma(trials - k + 1)
        + k * math.log(share)
        + (trials - k) * math.log1p(-share)
        for k in range(hits, trials + 1)
    ]
    return math.fsum(map(math.exp, logs))


def _loud(bystander: Bystander, recent: Sequence[Counts]) -> bool:
    return any(
        noisy(counts, limit=bystander.limit, phi=bystander.phi, sure=_BYSTANDER_SURE)
        for counts in ((recent[-1], sum(recent, Counts())) if recent else ())
    )


def _of(counts: Counts) -> str:
    return f"{counts.bad:.0f} of {counts.total:.0f}"
