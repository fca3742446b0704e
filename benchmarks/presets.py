"""The presets `quick`, `balanced` and `patient` beside each other: `python -m benchmarks.decisions --presets`.

False rollbacks and detection are drawn rolling updates (`rolling`). What blip each forgives is found without chance:
every request of a new version that has all the traffic fails for n seconds, the rest of the time its usual share does,
and each second of a block is tried as the blip's beginning.
"""

from collections.abc import Iterable

import numpy as np

from benchmarks import rolling
from benchmarks.worlds import STEP_S
from watchdog.config import Sensitivity
from watchdog.judge import sequential
from watchdog.judge.blocks import Block, Counts
from watchdog.judge.sequential import Controls, SequentialSettings, SequentialState

AFTER_S = (0, 60, 300, 1800)
"""When blips begin, in seconds from Ready."""

DETECTED = tuple((rps, bad) for rps in (1, 10, 100) for bad in (0.083, 0.3, 1.0))

_RPS = 100.0
_USUAL = 0.005
_LONGEST_S = 600
_WATCHED_S = 1500
_IDLE_BLOCKS = 480


def false(family: str, sensitivity: Sensitivity, *, runs: int, seed: int) -> tuple[int, int]:
    """Give how many healthy rolling updates of a family are undone, and of how many."""
    worlds = rolling.HEALTHY[family]
    acted = [
        rolling.run(world, runs=runs, seed=seed, seconds=_WATCHED_S, sensitivity=sensitivity).acted_s
        for world in worlds
    ]
    return sum(int((each > 0).sum()) for each in acted), runs * len(worlds)


def median_s(rps: int, bad: float, sensitivity: Sensitivity, *, runs: int, seed: int) -> float:
    """Give the median time from the first new pod's being Ready to the undo; infinite where most are not undone."""
    world = rolling.World(name=f"{rps} rps, {bad:.1%}", rps=rps, topology=rolling.FOUR, bad=bad)
    found = rolling.run(world, runs=runs, seed=seed, seconds=_WATCHED_S, sensitivity=sensitivity)
    return float(np.median(np.where(found.acted_s > 0, found.acted_s - world.first_ready_s, np.inf)))


def forgiven_s(sensitivity: Sensitivity, *, after_s: int, step_s: int = STEP_S) -> int:
    """Give the longest blip in whole seconds that no breach comes of, wherever in a block it begins.

    Args:
        sensitivity: the preset.
        after_s: when it begins, in seconds from Ready.
        step_s: the grid.
    """
    low, high = 0, _LONGEST_S
    while low < high:
        middle = (low + high + 1) // 2
        if any(_breach(sensitivity, after_s + offset, middle, step_s) for offset in range(step_s)):
            high = middle - 1
        else:
            low = middle
    return low


def alone_from(sensitivity: Sensitivity, controls: Controls, *, step_s: int = STEP_S) -> int | None:
    """Give the first block that decides by itself after idle ones, where all that it counts fails; None for none.

    The cap of a block grows with the logarithm of its number, and idle blocks cost the bets nothing. The first block
    has a single request that is good.
    """
    settings = _settings(sensitivity, step_s, controls)
    state = sequential.step(SequentialState(), Block(1, Counts(1, 0), ready=True), settings)
    full = Counts(_RPS * step_s, _RPS * step_s)
    for index in range(2, _IDLE_BLOCKS):
        if sequential.step(state, Block(index, full, ready=True), settings).crossed:
            return index
        state = sequential.step(state, Block(index, ready=True), settings)
    return None


def _settings(sensitivity: Sensitivity, step_s: int, controls: Controls) -> SequentialSettings:
    return SequentialSettings(
        step_s=step_s,
        controls=controls,
        blocks=float(rolling.preset(sensitivity).blocks(step_s)),
        base=_USUAL,
        phi_concurrent=1.5,
        phi_historical=1.5,
    )


def _breach(sensitivity: Sensitivity, begin_s: int, seconds: int, step_s: int) -> bool:
    settings, state = _settings(sensitivity, step_s, Controls.BOTH), SequentialState()
    for block in _blocks(sensitivity, begin_s, seconds, step_s):
        state = sequential.step(state, block, settings)
        if state.crossed:
            return True
    return False


def _blocks(sensitivity: Sensitivity, begin_s: int, seconds: int, step_s: int) -> Iterable[Block]:
    """Give expected counts of a version without old pods, until some blocks after the blip."""
    ready_s = begin_s % step_s if begin_s < step_s else 0  # a blip at the start begins with being Ready
    for index in range(1, (begin_s + seconds) // step_s + 12):
        begins, ends = (index - 1) * step_s, index * step_s
        served = max(0, ends - max(begins, ready_s))
        out = max(0, min(ends, begin_s + seconds) - max(begins, begin_s))
        judged = begins >= ready_s + rolling.preset(sensitivity).grace_s
        counts = Counts(_RPS * served, _RPS * (out + (served - out) * _USUAL)) if judged else Counts()
        yield Block(index, counts, ready=ends > ready_s)
