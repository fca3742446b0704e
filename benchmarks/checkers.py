"""What others do: a ratio over a window against a fixed limit, looked at now and then, failures counted.

They see the same scrapes. `rate()` takes the samples in (t - window, t], and counters of the canary are there from 0.

Source: reference/statistics.md §1.2, read from Flagger 15bd6ad and Argo Rollouts 9f8d111.
"""

import itertools

import msgspec
import numpy as np

from benchmarks.worlds import STEP_S, Numbers, Seen


class Checker(msgspec.Struct, frozen=True, kw_only=True):
    """A threshold checker.

    Args:
        name: as in the table.
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

GRID = tuple(
    Checker(
        name=f"every {every} s, {window} s, {failures} failures, over {over:.0%}",
        every_s=every,
        window_s=window,
        failures=failures,
        over=over,
    )
    for every, window, failures, over in itertools.product(
        (15, 30, 60, 120), (60, 120, 300, 600), (1, 2, 3, 5, 8, 12), (0.02, 0.05, 0.08, 0.1, 0.2)
    )
)


def rollbacks_s(checker: Checker, seen: Seen) -> Numbers:
    """Give the second in which each run is rolled back; 0 is never."""
    runs, blocks = seen.candidate.shape
    nothing = np.zeros((runs, 1), np.int64)
    total = np.hstack([nothing, seen.candidate.cumsum(axis=1)])
    bad = np.hstack([nothing, seen.bad.cumsum(axis=1)])
    at = np.arange(checker.every_s // STEP_S, blocks + 1, checker.every_s // STEP_S)
    at = at[: checker.looks] if checker.looks else at
    since = np.maximum(at - checker.window_s // STEP_S, 0)
    requests, failed = total[:, at] - total[:, since], bad[:, at] - bad[:, since]
    fails = failed > checker.over * requests
    if checker.empty_fails:
        fails |= requests == 0
    reached = fails.cumsum(axis=1) >= checker.failures
    found = at[reached.argmax(axis=1)] * STEP_S + checker.lag_s
    result: Numbers = np.where(reached.any(axis=1) & (found <= blocks * STEP_S), found, 0)
    return result
