"""Canaries of `worlds` through the shipped judge: how often it rolls back a healthy one, how soon a bad one.

Source: docs/design/statistics.md §2.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np
from msgspec.structs import replace

from benchmarks.checkers import rollbacks_s
from benchmarks.worlds import HISTORY_S, PODS, STEP_S, TICK_S, Chance, Numbers, Seen, World, history, play, shares
from watchdog.backtest.competitors import Checker
from watchdog.judge import calibration, sequential
from watchdog.judge.blocks import Block, Counts
from watchdog.judge.calibration import Reference
from watchdog.judge.sequential import Controls, Decision, SequentialSettings, SequentialState

TRAFFIC = (1, 10, 100, 1000)
SIZES = (0.02, 0.05, 0.083, 0.1, 0.3, 1.0)
HISTORIES = 5
"""Histories of each cell; its runs share them in turn, because reading one costs more than judging an hour."""


def _cells(
    chance: Chance | None = None,
    *,
    blip: tuple[float, int] = (0.0, 0),
    outage: tuple[float, int, int] = (0.0, 0, 0),
) -> list[World]:
    """Give a family's eight cells: four levels of traffic, and two healthy shares of failures."""
    return [
        World(
            name=f"{rps} rps, {share:.1%}",
            rps=rps,
            chance=replace(chance or Chance(), share=share),
            blip=blip,
            outage=outage,
            together=blip[1] > 0,
        )
        for rps in TRAFFIC
        for share in (0.005, 0.01)
    ]


HEALTHY: Mapping[str, list[World]] = {
    "independent failures": _cells(),
    "clusters of 10": _cells(Chance(cluster=10)),
    "upstream outage 30 % × 300 s": _cells(outage=(0.3, 600, 300)),
    "start-up blip 20 % × 15 s": _cells(blip=(0.2, 15)),
    "start-up blip 100 % × 10 s": _cells(blip=(1.0, 10)),
    "bursts 10 % × 20 s": _cells(Chance(burst=(0.1, 20))),
    "bursts 30 % × 10 s": _cells(Chance(burst=(0.3, 10))),
}

BAD = [
    World(name=f"{rps} rps, {size:.1%}", rps=rps, bad=size, seconds=7200 if rps == 1 else 3600)
    for rps in TRAFFIC
    for size in SIZES
]

LATE = World(name="100 rps, 10.0% after 10 h", rps=100, bad=0.1, onset_s=36000, seconds=37800)

APART = World(name="upstream outage, scrapes apart", rps=1000, outage=(0.3, 600, 300), apart=True)


class Found(msgspec.Struct, frozen=True):
    """What became of the runs of a cell: the second of the rollback or of the question, 0 is never."""

    acted_s: Numbers
    asked_s: Numbers


def seeded(seed: int, world: str) -> np.random.Generator:
    """Give the chance of one cell: the same whichever cells are played with it."""
    return np.random.default_rng([seed, zlib.crc32(world.encode())])


def settings(found: Reference, controls: Controls) -> SequentialSettings:
    """Give what is frozen at a rollout's start."""
    return SequentialSettings(
        step_s=STEP_S,
        controls=controls,
        base=found.base,
        phi_concurrent=found.phi_concurrent,
        phi_historical=found.phi_historical,
        m_cap=found.m_cap,
        known=found.known,
    )


def judged(world: World, seen: Seen, rng: np.random.Generator) -> Found:
    """Judge the runs of a cell, each until it is decided."""
    frozen = [settings(_reference(world, rng), Controls.CONCURRENT) for _ in range(HISTORIES)]
    decided = [decision(_blocks(seen, run), frozen[run % HISTORIES]) for run in range(len(seen.candidate))]
    return found(decided)


def found(decided: Sequence[tuple[Decision, int]]) -> Found:
    """Sort decisions by what they ask for."""
    times = (
        np.array([STEP_S * step if decision is wanted else 0 for decision, step in decided])
        for wanted in (Decision.ACT, Decision.APPROVE)
    )
    return Found(*times)


def decision(blocks: Iterable[Block], frozen: SequentialSettings, *, alert: bool = False) -> tuple[Decision, int]:
    """Take a rollout's blocks until it is acted upon, and give the decision with the block that brought it.

    Args:
        blocks: of the rollout.
        frozen: at its start.
        alert: one fires all the time, which finds whatever an alert that comes at any time would find.
    """
    state, first = SequentialState(), 0
    for block in blocks:
        state = sequential.step(state, block, frozen, alert=alert)
        first = first or (block.step if state.crossed else 0)
        if state.decision is Decision.ACT or len(state.crossed) == len(frozen.controls.each):
            return state.decision, block.step if state.decision is Decision.ACT else first
    return state.decision, first


def errors(world: World, seen: Seen, at_s: Numbers) -> float:
    """Give the mean of the candidate's failures served until the rollback, or until the end."""
    served = seen.bad.cumsum(axis=1)
    upto = np.where(at_s > 0, at_s // STEP_S, served.shape[1]) - 1
    before = served[:, world.onset_s // STEP_S - 1] if world.onset_s else 0
    return float((served[np.arange(len(upto)), upto] - before).mean())


def median_s(world: World, at_s: Numbers) -> float:
    """Give the median time from the onset to the rollback; never is infinite."""
    return float(np.median(np.where(at_s > 0, at_s - world.onset_s, np.inf)))


def checked(checkers: Sequence[Checker], seen: Seen) -> list[Numbers]:
    """Give when each checker rolls back."""
    return [rollbacks_s(each, seen) for each in checkers]


def geometric(values: Sequence[float]) -> float:
    """Give the geometric mean; a cell without any failure counts as half of one."""
    return float(np.exp(np.mean(np.log(np.maximum(values, 0.5)))))


def run(world: World, *, runs: int, seed: int) -> tuple[Seen, Found]:
    """Play and judge a cell."""
    rng = seeded(seed, repr(world))
    seen = play(world, rng, runs=runs)
    return seen, judged(world, seen, rng)


def _reference(world: World, rng: np.random.Generator) -> Reference:
    """Read a history of the nine stable pods."""
    expected = shares(world.chance, rng, runs=PODS - 1, ticks=HISTORY_S // TICK_S)
    windows, pods = history(world.rps * TICK_S / PODS, expected, world.chance, rng)
    return calibration.reference(windows, calibration.phis(pods))


def _blocks(seen: Seen, run: int) -> Iterable[Block]:
    rows = (each[run].tolist() for each in (seen.candidate, seen.bad, seen.stable, seen.stable_bad))
    for index, (total, bad, stable, stable_bad) in enumerate(zip(*rows, strict=True), start=1):
        yield Block(index, Counts(total, bad), Counts(stable, stable_bad), ready=True, old_live=True)
