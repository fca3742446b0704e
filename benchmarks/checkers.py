"""Threshold checkers over many drawn runs at once; what they are is in `watchdog.backtest.competitors`.

They see the same scrapes. `rate()` takes the samples in (t - window, t], and counters of the canary are there from 0.
"""

import itertools

import numpy as np

from benchmarks.worlds import STEP_S, Numbers, Seen
from watchdog.backtest.competitors import Checker

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
