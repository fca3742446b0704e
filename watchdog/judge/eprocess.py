"""The shared sequential test: a betting e-process over blocks of counts.

Each block multiplies the wealth of ten bets by what their stake wins or loses; a tenth of each, averaged over the time
at which a failure may have begun, is an e-process: under the null hypothesis its mean never exceeds 1, so that it ever
reaches 1/alpha has a probability of at most alpha (Ville), however often one looks. Three things only ever shrink
the bets: tempering by the size of error clusters, a cap on what one block can say, merging of polls (`concurrent`).

Source: docs/design/statistics.md §1 and §2. Everything is a natural logarithm.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import msgspec

BETS = 10
HORIZON = 5760
"""Blocks for which the onset of a failure is expected: a day of 15 s."""

_HIGHEST = 0.95
_CLIP = 0.98
_RELATIVE = (0.25, 30.0)
_MIRRORED = (0.1, 0.95)


class Bets(msgspec.Struct, frozen=True):
    """Stakes per request of the ten bets, and what a failure wins and a success loses with each.

    Args:
        tolerance: the share of failures that is not held against the candidate.
        stakes: lambda of each bet; negative where the bet is on *fewer* failures.
        bad: log growth of one failure.
        good: log growth of one success.
    """

    tolerance: float
    stakes: tuple[float, ...]
    bad: tuple[float, ...]
    good: tuple[float, ...]


class Design(msgspec.Struct, frozen=True, kw_only=True):
    """What is fixed before the first block.

    Args:
        bar: natural logarithm of 1/alpha; evidence at or above it speaks.
        blocks: B, into how many blocks of full evidence the bar is divided.
        phi: effective size of error clusters.
        m_cap: requests of a block that count in full, where no history gave `phi`.
        horizon: blocks in which an onset has weight.
    """

    bar: float
    blocks: float = 4.0
    phi: float = 1.0
    m_cap: float | None = None
    horizon: int = HORIZON

    def tempering(self, requests: float) -> float:
        """By what the log growth of a block of so many requests is multiplied."""
        return 1 / self.phi if self.m_cap is None else min(1 / self.phi, self.m_cap / requests)


class Evidence(msgspec.Struct, frozen=True):
    """Where one process stands.

    Args:
        log_e: its evidence; 0 before the first block.
        wealth: log wealth of each bet.
        gain: log growth of each bet since its onset.
        onsets: the block where each bet last began to grow; 0 before the first block.
        count: blocks taken.
        rest: weight of onsets that are still to come.
    """

    log_e: float = 0.0
    wealth: tuple[float, ...] = (-math.inf,) * BETS
    gain: tuple[float, ...] = (0.0,) * BETS
    onsets: tuple[int, ...] = (0,) * BETS
    count: int = 0
    rest: float = 1.0

    @property
    def onset(self) -> int | None:
        """The block in which the failure seems to have begun: that of the bet that grew most; None before any."""
        return self.onsets[self.gain.index(max(self.gain))] if self.count else None

    @property
    def earliest(self) -> int | None:
        """The earliest block that any bet still builds on; None where none does."""
        return min((onset for onset, gain in zip(self.onsets, self.gain, strict=True) if gain > 0), default=None)


@lru_cache(maxsize=1024)
def bets(tolerance: float) -> Bets:
    """Give the bets against "at most `tolerance` fail": alternatives logit-spaced from 1.5 times that to 95 %.

    Without a tolerance they are log-spaced stakes on a ratio of rates.

    Raises:
        ValueError: no alternative is left above the tolerance.
    """
    if tolerance == 0:
        low, high = map(math.log, _RELATIVE)
        return _bets(0.0, [math.exp(low + (high - low) * j / (BETS - 1)) for j in range(BETS)])
    if not 0 < 1.5 * tolerance < _HIGHEST:
        raise ValueError(
            f"a tolerance of {tolerance:g} leaves nothing to bet on: it must be below {_HIGHEST / 1.5:.3f}"
        )
    low, high = _logit(1.5 * tolerance), _logit(_HIGHEST)
    shares = [1 / (1 + math.exp(-(low + (high - low) * j / (BETS - 1)))) for j in range(BETS)]
    return _bets(tolerance, [(share - tolerance) / (tolerance * (1 - tolerance)) for share in shares])


@lru_cache(maxsize=64)
def mirrored_bets(tolerance: float) -> Bets:
    """Give the bets against "at least `tolerance` fail, and more by what the control does": on not being worse.

    The same proof holds with the sign turned. Stakes are spread evenly up to where one failure
    would lose all.
    """
    low, high = _MIRRORED
    return _bets(tolerance, [-(low + (high - low) * j / (BETS - 1)) / (1 - tolerance) for j in range(BETS)])


def growth(found: Bets, *, total: float, bad: float) -> tuple[float, ...]:
    """Give the log growth of each bet from one block, against the tolerance alone."""
    good = total - bad
    return tuple(bad * win + good * lose for win, lose in zip(found.bad, found.good, strict=True))


def growth_beside(
    found: Bets, *, total: float, bad: float, stable_total: float, stable_bad: float, ratio: float
) -> tuple[float, ...]:
    """Give the log growth of each bet from one block, against the tolerance plus `ratio` times the control's share.

    Nothing without requests on either side. Stakes are clipped by the volumes so that one failure of the control
    cannot lose all.
    """
    if total <= 0 or (ratio > 0 and stable_total <= 0):
        return (0.0,) * BETS
    if ratio == 0:
        return growth(found, total=total, bad=bad)
    good, weight = total - bad, ratio * total / stable_total
    most = _CLIP / weight
    result = []
    for stake, win, lose in zip(found.stakes, found.bad, found.good, strict=True):
        if stake > most:
            stake, win, lose = most, math.log1p(most * (1 - found.tolerance)), math.log1p(-most * found.tolerance)
        result.append(bad * win + good * lose + (stable_bad * math.log1p(-stake * weight) if stable_bad else 0.0))
    return tuple(result)


def advance(evidence: Evidence, increments: Sequence[float], design: Design, *, index: int) -> Evidence:
    """Take one block further.

    Args:
        evidence: after the block before.
        increments: tempered log growth of each bet in this block.
        index: the block's own number, for onsets.
    """
    count = evidence.count + 1
    log_weight, capped = _log_weights(count, design.horizon)
    cap = (design.bar - capped) / design.blocks
    wealth, gains, onsets = [], [], []
    for before, gain, onset, increment in zip(evidence.wealth, evidence.gain, evidence.onsets, increments, strict=True):
        step = increment if increment < cap else cap
        wealth.append(_log_sum(before, log_weight) + step)
        begins = gain <= 0
        onsets.append(index if begins else onset)
        gains.append(step if begins else gain + step)
    rest = max(0.0, evidence.rest - math.exp(log_weight)) if count < design.horizon else 0.0
    top = max(wealth)
    mixed = top + math.log(math.fsum(math.exp(each - top) for each in wealth) / BETS)
    log_e = _log_sum(mixed, math.log(rest)) if rest > 0 else mixed
    return Evidence(log_e, tuple(wealth), tuple(gains), tuple(onsets), count, rest)


def bar(alpha: float, *, share: float = 1.0) -> float:
    """Give the bar of a process that owns a share of alpha."""
    return -math.log(alpha * share)


def _bets(tolerance: float, stakes: Sequence[float]) -> Bets:
    bad = tuple(math.log1p(stake * (1 - tolerance)) for stake in stakes)
    return Bets(tolerance, tuple(stakes), bad, tuple(math.log1p(-stake * tolerance) for stake in stakes))


def _logit(share: float) -> float:
    return math.log(share / (1 - share))


def _log_sum(a: float, b: float) -> float:
    """Give ln(e^a + e^b); at most one of them is minus infinity."""
    return a + math.log1p(math.exp(b - a)) if a > b else b + math.log1p(math.exp(a - b))


@lru_cache(maxsize=16384)
def _log_weights(count: int, horizon: int) -> tuple[float, float]:
    """Give the log weight of an onset in this block, and the one that its cap uses."""
    last = min(count, horizon)
    weight = math.log(0.5) if last == 1 else math.log(0.5) - math.log(last * _harmonic(horizon))
    return (weight if count <= horizon else -math.inf), weight


@lru_cache(maxsize=16)
def _harmonic(horizon: int) -> float:
    return math.fsum(1 / k for k in range(2, horizon + 1))
