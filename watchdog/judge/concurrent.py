"""The control that runs at the same time: the candidate against the stable pods of the same block.

Null hypothesis: in each block the candidate's share of failures is at most `tolerance` plus `ratio` times that of the
stable pods, whatever theirs does over time; so an outage of both is no evidence. Without stable requests there are no
bets. Polls are merged until the stable side has `least` requests: a rule on volumes alone, so it costs no validity.

Source: docs/design/statistics.md §1, process C.
"""

import msgspec

from watchdog.judge.blocks import Counts
from watchdog.judge.eprocess import Bets, Design, Evidence, advance, bets, growth_beside, mirrored_bets

TOLERANCE = 0.005
RATIO = 1.2
LEAST = 20


class ConcurrentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is fixed before the first block.

    Args:
        tolerance: share of failures that is never held against the candidate.
        ratio: how many times the stable share it may have beside that; 0 judges against the tolerance alone.
        least: stable requests that a merged block has at least.
        mirrored: bet that the candidate is *not* worse by the margin: evidence for an early promotion.
    """

    design: Design
    tolerance: float = TOLERANCE
    ratio: float = RATIO
    least: float = LEAST
    mirrored: bool = False

    @property
    def bets(self) -> Bets:
        """The stakes."""
        return (mirrored_bets if self.mirrored else bets)(self.tolerance)


class ConcurrentState(msgspec.Struct, frozen=True):
    """Evidence so far, and the counts that wait for enough stable requests."""

    evidence: Evidence = Evidence()
    candidate: Counts = Counts()
    stable: Counts = Counts()


def step(
    state: ConcurrentState,
    candidate: Counts,
    stable: Counts,
    settings: ConcurrentSettings,
    *,
    index: int,
    old_live: bool,
    started: bool,
) -> ConcurrentState:
    """Take one block further.

    Args:
        state: after the block before.
        candidate: of judged candidate pods.
        stable: of the pods that were live when the rollout began.
        index: the block's number, for the onset.
        old_live: one of those pods was Ready at some time in the block.
        started: a judged candidate request has been seen, in this block or before.
    """
    nothing = Counts()
    if settings.ratio == 0:
        merged, beside, waits, waits_beside = candidate, stable, nothing, nothing
    else:
        waits, waits_beside = state.candidate + candidate, state.stable + stable
        merged, beside = nothing, nothing
        if waits_beside.total >= settings.least:
            merged, beside, waits, waits_beside = waits, waits_beside, nothing, nothing
        if not old_live:
            waits, waits_beside = nothing, nothing
    if not started:
        return ConcurrentState(state.evidence, waits, waits_beside)
    increments = growth_beside(
        settings.bets,
        total=merged.total,
        bad=merged.bad,
        stable_total=beside.total,
        stable_bad=beside.bad,
        ratio=settings.ratio,
    )
    if merged.total > 0:
        tempering = settings.design.tempering(merged.total)
        increments = tuple(tempering * each for each in increments)
    return ConcurrentState(advance(state.evidence, increments, settings.design, index=index), waits, waits_beside)
