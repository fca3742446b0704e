"""What others do: a ratio over a window against a fixed limit, looked at now and then, failures counted.

Source: the code of Flagger 15bd6ad and of Argo Rollouts 9f8d111.
"""

import itertools
from collections.abc import Sequence

import msgspec

from watchdog.judge.blocks import Counts


class Checker(msgspec.Struct, frozen=True, kw_only=True):
    """A threshold checker.

    Args:
        every_s: seconds between looks.
        window_s: over which the ratio is taken.
        failures: looks that fail, all in all, until it rolls back.
        over: a look fails above this share.
        empty_fails: so does one without requests.
        lag_s: from the last failure to the rollback.
        looks: how many there are; 0 is without end.
    """

    name: str
    every_s: int
    window_s: int
    failures: int
    over: float
    empty_fails: bool = False
    lag_s: int = 0
    looks: int = 0


PEERS = (
    Checker(name="sleep 300, one look, over 5 %", every_s=300, window_s=300, failures=1, over=0.05, looks=1),
    *(
        Checker(
            name=f"Flagger {every} s/{failures}, over {over:.0%}",
            every_s=every,
            window_s=every,
            failures=failures,
            over=over,
            empty_fails=True,
            lag_s=every,
        )
        for every, failures in ((60, 5), (30, 2))
        for over in (0.01, 0.05)
    ),
    Checker(name="Argo 30 s, limit 3, over 5 %", every_s=30, window_s=30, failures=4, over=0.05),
    Checker(name="Argo docs 5 min, limit 3, over 5 %", every_s=300, window_s=300, failures=4, over=0.05),
)


def rollback_s(checker: Checker, blocks: Sequence[Counts], *, step_s: float) -> float | None:
    """Give the second, from the first block's beginning, at which it rolls back; None where it never does.

    Args:
        blocks: what the candidate counted, from its first traffic on; the end is the end of its watch.
        step_s: seconds of a block; looks and windows are whole blocks, at least one.
    """
    every, window = (max(1, round(seconds / step_s)) for seconds in (checker.every_s, checker.window_s))
    sums = list(itertools.accumulate(blocks, initial=Counts()))
    ends = range(every, len(blocks) + 1, every)
    failures = 0
    for end in ends[: checker.looks] if checker.looks else ends:
        before, after = sums[max(0, end - window)], sums[end]
        total, bad = after.total - before.total, after.bad - before.bad
        failures += bad > checker.over * total or (checker.empty_fails and total == 0)
        if failures >= checker.failures:
            found = end * step_s + checker.lag_s
            return found if found <= len(blocks) * step_s else None
    return None
