"""Worlds in which a rollout is judged: requests and failures of both tracks, drawn in ticks of 5 s, read every 15 s.

The canary has a tenth of the traffic and is one of ten equal pods. Volumes are Poisson. Whether a scrape falls on the
beginning of something is chance (`apart`, `together`). Nothing here knows how a judge works.

Each pod has one in ten minutes.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from watchdog.judge.blocks import Counts

TICK_S = 5
STEP_S = 15
PODS = 10
HISTORY_S = 6 * 3600
WINDOW_S = 300

Numbers = NDArray[np.int64]
Shares = NDArray[np.float64]


class Chance(msgspec.Struct, frozen=True, kw_only=True):
    """How a pod fails while nothing is wrong with its version.

    Args:
        share: of its requests, in the mean.
        cluster: mean size of the bunches in which failures come, geometric; 1 is one by one.
        burst: share and mean seconds of bursts, exponential; 0 seconds are none.
    """

    share: float = 0.005
    cluster: float = 1.0
    burst: tuple[float, float] = (0.0, 0.0)


class World(msgspec.Struct, frozen=True, kw_only=True):
    """One cell: a service, and what happens to it.

    Args:
        name: of the cell.
        rps: of both tracks.
        chance: how every pod fails.
        bad: share of the candidate's failures from `onset_s`, where it is bad.
        onset_s: seconds from the candidate's first request.
        blip: share and seconds of failures of the candidate's first requests.
        outage: share, beginning and seconds of failures of both tracks.
        together: both tracks are scraped at the same time, but that time is chance.
        apart: each track is scraped at a time of its own.
        seconds: how long it is watched.
    """

    name: str
    rps: float
    chance: Chance = Chance()
    bad: float | None = None
    onset_s: int = 0
    blip: tuple[float, int] = (0.0, 0)
    outage: tuple[float, int, int] = (0.0, 0, 0)
    together: bool = False
    apart: bool = False
    seconds: int = 3600


class Seen(msgspec.Struct, frozen=True):
    """Counts of each run and block."""

    candidate: Numbers
    bad: Numbers
    stable: Numbers
    stable_bad: Numbers


def drawn(volume: float | Shares, shares: Shares, chance: Chance, rng: np.random.Generator) -> tuple[Numbers, Numbers]:
    """Draw requests and failures of ticks.

    Args:
        volume: expected requests of a tick.
        shares: of failures, a row for each run.
        chance: whose clusters they come in.
        rng: where chance comes from.
    """
    if chance.cluster > 1:
        bunches = rng.poisson(volume * shares / chance.cluster)
        more = rng.negative_binomial(np.maximum(bunches, 1), 1 / chance.cluster)
        bad = np.where(bunches > 0, bunches + more, 0)
    else:
        bad = rng.poisson(volume * shares)
    return rng.poisson(volume * (1 - shares)) + bad, bad


def shares(chance: Chance, rng: np.random.Generator, *, runs: int, ticks: int) -> Shares:
    """Give the expected share of failures of one pod in each tick."""
    found = np.full((runs, ticks), chance.share)
    share, seconds = chance.burst
    if seconds:
        begins = rng.random((runs, ticks)) < TICK_S / 600
        for run, tick in np.argwhere(begins):
            length = max(1, round(rng.exponential(seconds) / TICK_S))
            found[run, tick : tick + length] = share
    return found


def play(world: World, rng: np.random.Generator, *, runs: int) -> Seen:
    """Play a world as often as asked, and give what the scrapes show."""
    ticks = world.seconds // TICK_S
    volume = world.rps * TICK_S / PODS
    mine = shares(world.chance, rng, runs=runs, ticks=ticks)
    if world.bad is not None:
        mine[:, world.onset_s // TICK_S :] = world.bad
    share, seconds = world.blip
    mine[:, : seconds // TICK_S] = np.maximum(mine[:, : seconds // TICK_S], share)
    share, begin, seconds = world.outage
    out = slice(begin // TICK_S, (begin + seconds) // TICK_S)
    mine[:, out] = np.maximum(mine[:, out], share)
    candidate, bad = drawn(volume, mine, world.chance, rng)
    bursts = world.chance.burst[1] > 0
    stable, stable_bad = np.zeros((runs, ticks), np.int64), np.zeros((runs, ticks), np.int64)
    for _ in range(PODS - 1 if bursts else 1):  # without bursts nine pods together are like one with nine times as much
        theirs = shares(world.chance, rng, runs=runs, ticks=ticks)
        theirs[:, out] = np.maximum(theirs[:, out], share)
        total, failed = drawn(volume if bursts else (PODS - 1) * volume, theirs, world.chance, rng)
        stable, stable_bad = stable + total, stable_bad + failed
    most = STEP_S // TICK_S if world.together or world.apart else 1
    offsets = rng.integers(most, size=runs)
    others = rng.integers(most, size=runs) if world.apart else offsets
    return Seen(
        scraped(candidate, offsets), scraped(bad, offsets), scraped(stable, others), scraped(stable_bad, others)
    )


def scraped(ticks: Numbers, offsets: Sequence[int] | Numbers) -> Numbers:
    """Give what blocks of three ticks count when each run's first ends so many ticks early; a torn last one is cut."""
    late = np.zeros_like(ticks)
    for run, offset in enumerate(offsets):
        late[run, offset:] = ticks[run, : ticks.shape[1] - offset]
    per_block = STEP_S // TICK_S
    whole = late.shape[1] // per_block * per_block
    result: Numbers = late[:, :whole].reshape(len(late), -1, per_block).sum(axis=2)
    return result


def history(
    volume: float, expected: Shares, chance: Chance, rng: np.random.Generator
) -> tuple[list[Counts], list[list[Counts]]]:
    """Give what Prometheus has of the time before: windows of 5 min, and blocks of each pod for up to 6 h.

    Args:
        volume: expected requests of a pod in a tick.
        expected: of failures, a row for each pod.
        chance: whose clusters they come in.
        rng: where chance comes from.
    """
    total, bad = drawn(volume, expected, chance, rng)
    return windows(total, bad), blocks(total[:, -HISTORY_S // TICK_S :], bad[:, -HISTORY_S // TICK_S :])


def windows(total: Numbers, bad: Numbers) -> list[Counts]:
    """Give the windows of 5 min over all pods."""
    length = WINDOW_S // TICK_S
    sums = (each.sum(axis=0).reshape(-1, length).sum(axis=1).tolist() for each in (total, bad))
    return [Counts(*each) for each in zip(*sums, strict=True)]


def blocks(total: Numbers, bad: Numbers) -> list[list[Counts]]:
    """Give the blocks of each pod."""
    none = np.zeros(len(total), np.int64)
    rows = zip(scraped(total, none).tolist(), scraped(bad, none).tolist(), strict=True)
    return [[Counts(*each) for each in zip(*pod, strict=True)] for pod in rows]
