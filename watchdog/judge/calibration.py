"""The reference share of failures and the size of error clusters, from the workload's past; frozen at the start.

Source: docs/design/statistics.md §1 ("Reference b, φ"). Windows are of the earlier live revisions, without rollouts
that were undone; an empty block counts nothing, but keeps its place.
"""

import math
from collections.abc import Iterable, Sequence
from statistics import median

import msgspec

from watchdog.judge.blocks import Counts

PHI_UNKNOWN = 3.0
M_CAP_UNKNOWN = 20.0
BASE_UNKNOWN = 0.01

_LEAST_PHI = 1.5
_MARGIN = 1.2
_SURE = 2.0
_EPISODES_FROM = 144
_LONGEST_EPISODE = 24
_NEWEST = 3
_RECENT = 12
_GROUPS = (1, 4)
_POD_GROUPS = (1, 4, 16)
_PER_WINDOW = 20
_LEAST_GROUPS = 3
_HOUR_WINDOWS = 12
_LEAST_WINDOWS = 2
_LEAST_REQUESTS = 200
_MOST_LEFT_OUT = 0.2


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """What is frozen of the past.

    Args:
        base: reference share of failures.
        phi_concurrent: size of error clusters between pods.
        phi_historical: the same between blocks.
        m_cap: requests of a block that count in full, where the history is too short for these sizes.
        known: the historical control may act.
    """

    base: float
    phi_concurrent: float
    phi_historical: float
    m_cap: float | None
    known: bool


def reference(
    windows: Sequence[Counts], sizes: tuple[float, float], *, left_out: int = 0, newest_out: int = 0
) -> Reference:
    """Give the reference of a workload.

    Args:
        windows: of 5 minutes, over all pods, of the last 24 h, oldest first.
        sizes: of error clusters, by `phis`.
        left_out: windows that showed an unexplained decrease and are not among `windows`.
        newest_out: newest windows to pass over: three give the reference of `incident-first`.
    """
    kept = [each for each in windows[: len(windows) - newest_out] if each.total > 0]
    torn = left_out > _MOST_LEFT_OUT * (len(windows) + left_out)
    long = len(kept) + newest_out >= _HOUR_WINDOWS and not torn
    phi_concurrent, phi_historical = sizes if long else (PHI_UNKNOWN, PHI_UNKNOWN)
    known = len(kept) >= _LEAST_WINDOWS and sum(each.total for each in kept) >= _LEAST_REQUESTS
    return Reference(
        base=base(kept, phi=phi_historical) if known else BASE_UNKNOWN,
        phi_concurrent=phi_concurrent,
        phi_historical=phi_historical,
        m_cap=None if long else M_CAP_UNKNOWN,
        known=known,
    )


def unknown() -> Reference:
    """Give the default where the past could not be read."""
    return reference((), phis(()))


def base(windows: Sequence[Counts], *, phi: float) -> float:
    """Give the reference share of failures: the worst window beyond its noise, without the one worst episode.

    Args:
        windows: of 5 minutes, oldest first, each with requests; at least one.
        phi: size of error clusters between blocks.
    """
    lows = [max(0.0, wilson_lower(each.total / phi, each.bad / phi, z=_SURE)) for each in windows]
    gone = _episode(windows, lows)
    kept = [index for index in range(len(windows)) if index not in gone]
    recent = [windows[index] for index in kept if index >= len(windows) - _RECENT]
    return max(
        max(lows[index] for index in kept),
        sum((windows[index] for index in kept), Counts()).ratio,
        sum(recent, Counts()).ratio,
    )


def wilson_lower(total: float, bad: float, *, z: float) -> float:
    """Give the lower end of Wilson's interval for a share."""
    share = bad / total
    root = z * math.sqrt(max(0.0, share * (1 - share) / total + z * z / (4 * total * total)))
    return (share + z * z / (2 * total) - root) / (1 + z * z / total)


def phis(pods: Sequence[Sequence[Counts]]) -> tuple[float, float]:
    """Give the size of error clusters of the concurrent and of the historical control.

    Args:
        pods: for each pod its blocks of 15 s of the last 6 h, oldest first, all on the same grid.
    """
    length = max(map(len, pods), default=0)
    padded = [[*each, *[Counts()] * (length - len(each))] for each in pods]
    everyone = [sum(column, Counts()) for column in zip(*padded, strict=True)]
    over_time = max(1.0, *(_over_time(_grouped(everyone, q), _PER_WINDOW // q) for q in _GROUPS))
    between = [_between([_grouped(each, q) for each in padded]) for q in _POD_GROUPS]
    found = [each for each in between if each is not None]
    concurrent = max(_LEAST_PHI, _MARGIN * (max(found) if found else over_time))
    return concurrent, max(concurrent, _LEAST_PHI, _MARGIN * over_time)


def _episode(windows: Sequence[Counts], lows: Sequence[float]) -> range:
    """Give the windows of the worst episode, where there is one that is short and over."""
    end = len(windows) - _NEWEST
    if len(windows) < _EPISODES_FROM:
        return range(0)
    usual = median(each.ratio for each in windows) or sum(windows, Counts()).ratio
    limit = 0.005 + _MARGIN * usual
    worst = max(range(end), key=lambda index: lows[index])
    if lows[worst] <= limit:
        return range(0)
    left = right = worst
    while left > 0 and lows[left - 1] > limit:
        left -= 1
    while right + 1 < end and lows[right + 1] > limit:
        right += 1
    return range(left, right + 1) if right + 1 - left <= _LONGEST_EPISODE else range(0)


def _grouped(blocks: Sequence[Counts], size: int) -> list[Counts]:
    return [sum(blocks[at : at + size], Counts()) for at in range(0, len(blocks), size)]


def _spread(counts: Iterable[Counts], share: float) -> tuple[float, int]:
    """Give Pearson's X squared of counts against a share, and of how many."""
    seen = [each for each in counts if each.total > 0]
    scale = share * (1 - share)
    return math.fsum((each.bad - each.total * share) ** 2 / (each.total * scale) for each in seen), len(seen)


def _mixed(counts: Iterable[Counts]) -> float | None:
    """Give the pooled share; None where all failed or none."""
    pooled = sum(counts, Counts())
    return pooled.ratio if 0 < pooled.bad < pooled.total else None


def _over_time(blocks: Sequence[Counts], per_window: int) -> float:
    """Give the dispersion between the blocks of a window: the mean over windows without the largest twentieth."""
    found = []
    for at in range(0, len(blocks), per_window):
        window = blocks[at : at + per_window]
        if (share := _mixed(window)) is not None:
            square, count = _spread(window, share)
            found.append(square / max(count - 1, 1))
    if len(found) < _LEAST_GROUPS:
        return 1.0
    kept = sorted(found)[: len(found) - len(found) // 20]
    return math.fsum(kept) / len(kept)


def _between(pods: Sequence[Sequence[Counts]]) -> float | None:
    """Give the dispersion between the pods of a block; None with fewer than two pods or three groups."""
    if len(pods) < 2:
        return None
    squares, freedom, groups = 0.0, 0, 0
    for column in zip(*pods, strict=True):
        if (share := _mixed(column)) is not None:
            square, count = _spread(column, share)
            squares, freedom, groups = squares + square, freedom + count - 1, groups + 1
    return squares / max(1, freedom) if groups >= _LEAST_GROUPS else None
