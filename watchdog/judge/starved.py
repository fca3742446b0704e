"""Callers that stay away: a version that finishes next to nothing of what its workload always finished.

A version may hang, or be shut out, and then nothing fails that could be counted. It is looked for only where no old pod
takes traffic any more: beside old ones long-lived connections make it common in healthy rollouts. And it is never more
than a reason to ask, since missing requests prove no failure.

Source: docs/design/statistics.md §3 (i): less than 5 % of the lowest count of two minutes of the day
before, that at least 50. Only six hours are known in blocks that fine; of the rest the lowest five minutes count, by
their share, which is at least as high as the lowest two minutes in them.
"""

from collections.abc import Iterable, Sequence

from watchdog.judge.blocks import Block, Counts, Status, Verdict, steps
from watchdog.model import Guard, Objection

WINDOW_S = 120.0
COARSE_S = 300.0
BESIDE_S = 60.0

_SHARE = 0.05
_LEAST = 50.0
_SHORTEST_S = 3600.0


def lowest(blocks: Sequence[float | None], windows: Iterable[float | None], *, block_s: float) -> float | None:
    """Give the lowest count of requests of two minutes; None where less than an hour is known.

    Args:
        blocks: requests of each block of the last hours, oldest first; None where they are not known.
        windows: those of each 5 minutes of the day.
        block_s: length of a block.
    """
    size = steps(WINDOW_S, step_s=block_s)
    ends = range(size, len(blocks) + 1)
    runs = ([each for each in blocks[end - size : end] if each is not None] for end in ends)
    fine = [sum(each) for each in runs if len(each) == size]
    coarse = [each for each in windows if each is not None]
    if len(coarse) * COARSE_S < _SHORTEST_S:
        return None
    return min([*fine, *(each * WINDOW_S / COARSE_S for each in coarse)])


def beside(blocks: Sequence[Block], *, candidates: int, stables: int, step_s: float) -> str:
    """Say that new pods get far less than their share of the traffic beside old ones; empty where they do not.

    A note and never a verdict: connections that live for minutes stay where they are in most healthy rollouts (ii).

    Args:
        blocks: of the rollout, oldest first.
        candidates: pods of the new version that have been Ready for a minute.
        stables: pods of the old one.
    """
    size = steps(BESIDE_S, step_s=step_s)
    recent = blocks[-size:]
    if not candidates or not stables or len(recent) < size or any(each.blind for each in recent):
        return ""
    mine = sum((each.candidate + each.grace for each in recent), Counts()).total
    expected = (mine + sum(each.stable.total for each in recent)) * candidates / (candidates + stables)
    if expected < _LEAST or mine >= _SHARE * expected:
        return ""
    return f"the new pods get little traffic: {mine:.0f} requests in a minute, where their share were {expected:.0f}"


def judge(blocks: Sequence[Block], usual: float, *, step_s: float, alone: bool, signal: str) -> Verdict | None:
    """Give a breach that asks, where the last two minutes were starved; None where there is nothing to say.

    Args:
        blocks: of the rollout, oldest first.
        usual: the lowest count of two minutes of the time before.
        alone: stable pods take no traffic at the same time, even while they live.
        signal: whose requests they are.
    """
    size = steps(WINDOW_S, step_s=step_s)
    recent = blocks[-size:]
    if usual < _LEAST or len(recent) < size:
        return None
    if any(each.blind or not each.ready or (each.old_live and not alone) for each in recent):
        return None
    seen = sum((each.candidate + each.grace for each in recent), Counts())
    if seen.total >= _SHARE * usual:
        return None
    what = f"{seen.total:.0f} requests in the last 2 min, where the day before had {usual:.0f} and more"
    objection = Objection(
        Guard.UNCONFIRMED, "missing requests prove no failure; look whether callers stay away", asks=True
    )
    return Verdict(Status.BREACH, what, cause="starved", candidate=seen, signal=signal, objections=(objection,))
