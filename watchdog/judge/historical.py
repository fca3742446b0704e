"""The control from the past: the candidate against a reference that is frozen before the rollout.

Null hypothesis: in each block the candidate's share of failures is at most `limit(base)`, half a point above twice the
worst five minutes of the day before. It goes on when the old pods are gone, and cannot tell the candidate from an
outage that begins with it: `objections` turns acting into asking there.

Source: docs/design/statistics.md §1, process A.
"""

import msgspec

from watchdog.judge.blocks import Counts
from watchdog.judge.eprocess import BETS, Design, Evidence, advance, bets, growth

TOLERANCE = 0.005
RATIO = 2.0
HIGHEST = 0.30
"""A limit above this says nothing: the control is off."""


class HistoricalSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is fixed before the first block.

    Args:
        base: the reference share of failures.
    """

    design: Design
    base: float

    @property
    def off(self) -> bool:
        """Whether the reference is too high to judge by."""
        return limit(self.base) > HIGHEST


def limit(base: float) -> float:
    """Give the share of failures that the null hypothesis allows."""
    return TOLERANCE + RATIO * base


def step(evidence: Evidence, candidate: Counts, settings: HistoricalSettings, *, index: int, started: bool) -> Evidence:
    """Take one block further.

    Args:
        evidence: after the block before.
        candidate: of judged candidate pods.
        index: the block's number, for the onset.
        started: a judged candidate request has been seen, in this block or before.
    """
    if not started:
        return evidence
    increments: tuple[float, ...] = (0.0,) * BETS
    if candidate.total > 0 and not settings.off:
        tempering = settings.design.tempering(candidate.total)
        found = growth(bets(limit(settings.base)), total=candidate.total, bad=candidate.bad)
        increments = tuple(tempering * each for each in found)
    return advance(evidence, increments, settings.design, index=index)
