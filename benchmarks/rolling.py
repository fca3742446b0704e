"""Rolling updates and Recreate through the shipped judge: the old pods leave while it watches.

All Ready pods share the traffic evenly. A rollout begins at a chance tick of a block. New pods are judged after their
grace, and the reference is read from a day of history that ends with the rollout's beginning.

Source: docs/design/statistics.md §6. Each pod has one in ten
minutes.
"""

from collections.abc import Iterable, Mapping

import msgspec
import numpy as np
from msgspec.structs import replace

from benchmarks.canaries import SIZES, TRAFFIC, Found, decision, found, seeded, settings
from benchmarks.worlds import STEP_S, TICK_S, Chance, Numbers, Shares, drawn, history, scraped, shares
from watchdog.config import Policy, Sensitivity
from watchdog.judge import calibration, historical, objections
from watchdog.judge.blocks import Block, Counts, PodCounts
from watchdog.judge.sequential import Controls, SequentialSettings

DAY_S = 24 * 3600
BEFORE_S = 600
HISTORIES = 2
"""Histories of each cell, which its runs share in turn."""


class Topology(msgspec.Struct, frozen=True, kw_only=True):
    """How the pods are replaced.

    Args:
        name: of the topology.
        replicas: pods.
        ready_s: from a new pod's start to Ready.
        surge: pods beyond `replicas`.
        unavailable: pods fewer than `replicas`.
    """

    name: str
    replicas: int
    ready_s: int
    surge: int = 1
    unavailable: int = 0

    def times_s(self) -> tuple[list[int], list[int]]:
        """Give when each new pod becomes Ready and when each old one leaves."""
        ready: list[int] = []
        leave: list[int] = []
        at = 0
        while len(leave) < self.replicas:
            up = sum(each <= at for each in ready)
            leave += [at] * (min(self.replicas, self.unavailable + up) - len(leave))
            room = self.replicas + self.surge - (self.replicas - len(leave)) - len(ready)
            ready += [at + self.ready_s] * min(self.replicas - len(ready), room)
            at += self.ready_s
        return ready, leave


ONE = Topology(name="1 pod, 15 s", replicas=1, ready_s=15)
THREE = Topology(name="3 pods, 5 s", replicas=3, ready_s=5)
FOUR = Topology(name="4 pods, 15 s", replicas=4, ready_s=15, unavailable=1)
SLOW = Topology(name="4 pods, 60 s", replicas=4, ready_s=60, unavailable=1)
TEN = Topology(name="10 pods, 30 s", replicas=10, ready_s=30, surge=3, unavailable=2)
TEN_SINGLE = Topology(name="10 pods, 15 s, one by one", replicas=10, ready_s=15)
RECREATE = Topology(name="Recreate, 3 pods, 15 s", replicas=3, ready_s=15, surge=0, unavailable=3)


class World(msgspec.Struct, frozen=True, kw_only=True):
    """One cell.

    Args:
        name: of the cell.
        rps: of the workload.
        topology: of its rollout.
        chance: how every pod fails.
        bad: share of the new pods' failures, where they are bad.
        blip: share and seconds of failures of each new pod once it is Ready.
        drift: by what the share of failures has grown after an hour.
        seen: so it did the day before.
        incident: share and seconds of failures eight hours before.
        outage: share, beginning and seconds of failures of all pods; from the rollout's beginning.
        history_s: how much of the past there is.
    """

    name: str
    rps: float
    topology: Topology
    chance: Chance = Chance()
    bad: float | None = None
    blip: tuple[float, int] = (0.0, 0)
    drift: float = 1.0
    seen: bool = False
    incident: tuple[float, int] = (0.0, 0)
    outage: tuple[float, int, int] = (0.0, 0, 0)
    history_s: int = DAY_S

    @property
    def controls(self) -> Controls:
        """Which controls this topology has."""
        return Controls.HISTORICAL if self.topology.unavailable == self.topology.replicas else Controls.BOTH

    @property
    def first_ready_s(self) -> int:
        """When the first new pod is Ready, from the rollout's beginning."""
        return min(self.topology.times_s()[0])


def _healthy(like: World, *, large: Topology = TEN) -> list[World]:
    return [
        replace(like, name=f"{rps} rps, {topology.name}", rps=rps, topology=topology)
        for rps in TRAFFIC
        for topology in (FOUR, large)
    ]


_PLAIN = World(name="", rps=1, topology=ONE)

HEALTHY: Mapping[str, list[World]] = {
    name: _healthy(like)
    for name, like in {
        "independent failures 0.5 %": _PLAIN,
        "independent failures 2 %": replace(_PLAIN, chance=Chance(share=0.02)),
        "clusters of 10": replace(_PLAIN, chance=Chance(cluster=10)),
        "bursts 10 % × 20 s": replace(_PLAIN, chance=Chance(burst=(0.1, 20))),
        "bursts 30 % × 10 s": replace(_PLAIN, chance=Chance(burst=(0.3, 10))),
        "each new pod 20 % × 30 s": replace(_PLAIN, blip=(0.2, 30)),
        "each new pod 100 % × 10 s": replace(_PLAIN, blip=(1.0, 10)),
        "each new pod 100 % × 30 s": replace(_PLAIN, blip=(1.0, 30)),
        "drift × 3, as the day before": replace(_PLAIN, drift=3, seen=True),
        "drift × 3, for the first time": replace(_PLAIN, drift=3),
        "incident 30 % × 10 min, 8 h before": replace(_PLAIN, incident=(0.3, 600)),
        "10 min of history": replace(_PLAIN, history_s=600),
        "10 min of history, drift × 3": replace(_PLAIN, history_s=600, drift=3),
        "10 min of history, clusters of 10": replace(_PLAIN, history_s=600, chance=Chance(cluster=10)),
    }.items()
}

LOST: Mapping[str, list[World]] = {
    "each new pod 100 % × 45 s, half of it one by one": _healthy(replace(_PLAIN, blip=(1.0, 45)), large=TEN_SINGLE),
    "outage 30 % × 8 min, 5 min after the beginning": _healthy(replace(_PLAIN, outage=(0.3, 300, 480))),
    "outage 30 % × 8 min, 25 min after the beginning": _healthy(replace(_PLAIN, outage=(0.3, 1500, 480))),
}
"""Worlds in which the version is not to blame and nothing in the data says so; the last is asked about."""

BAD = [
    World(name=f"{rps} rps, {size:.1%}, {topology.name}", rps=rps, topology=topology, bad=size)
    for topology in (ONE, THREE, FOUR, SLOW, TEN, TEN_SINGLE, RECREATE)
    for rps in TRAFFIC
    for size in SIZES
]


class _Pods(msgspec.Struct, frozen=True):
    """What each new pod and all old ones count, by run and block."""

    new: list[tuple[Numbers, Numbers]]
    old: tuple[Numbers, Numbers]
    ready: Numbers
    live: Numbers


def run(
    world: World,
    *,
    runs: int,
    seed: int,
    seconds: int,
    sensitivity: Sensitivity = Sensitivity.BALANCED,
    alert: bool = False,
) -> Found:
    """Play and judge a cell.

    Args:
        world: the cell.
        runs: how many.
        seed: of chance.
        seconds: watched from the rollout's beginning.
        sensitivity: of the judge.
        alert: one fires all the time.
    """
    rng, policy = seeded(seed, repr(world)), preset(sensitivity)
    frozen = [replace(_frozen(world, rng), blocks=float(policy.blocks(STEP_S))) for _ in range(HISTORIES)]
    offsets = rng.integers(STEP_S // TICK_S, size=runs)
    pods = _played(world, offsets, rng, ticks=seconds // TICK_S, grace_s=policy.grace_s)
    each = world.bad is not None  # `one-pod` could only turn acting on a healthy version into asking
    return found(
        [decision(_blocks(pods, index, each=each), frozen[index % HISTORIES], alert=alert) for index in range(runs)]
    )


def preset(sensitivity: Sensitivity) -> Policy:
    """Give a policy that leaves all else to its sensitivity."""
    return Policy(name="drawn", namespaces=("drawn",), sensitivity=sensitivity)


def caught(world: World, *, runs: int, seed: int, within_s: int = 300) -> float:
    """Give the share of runs acted upon within a time of the first new pod's being Ready.

    Time runs from the first block's beginning, up to ten seconds before the rollout's, which is held against us.
    """
    acted = run(world, runs=runs, seed=seed, seconds=world.first_ready_s + within_s).acted_s
    return float((acted > 0).mean())


def _frozen(world: World, rng: np.random.Generator) -> SequentialSettings:
    replicas, ticks = world.topology.replicas, world.history_s // TICK_S
    expected = shares(world.chance, rng, runs=replicas, ticks=ticks)
    if world.seen:
        expected[:, : 3600 // TICK_S] *= _drift(world, np.arange(3600 // TICK_S))
    share, seconds = world.incident
    if seconds:
        begin = ticks - 8 * 3600 // TICK_S
        expected[:, begin : begin + seconds // TICK_S] = share
    past, pods = history(world.rps * TICK_S / replicas, expected, world.chance, rng)
    sizes = calibration.phis(pods)
    reference = calibration.reference(past, sizes)
    earlier = calibration.reference(past, sizes, newest_out=3)
    before = sum(past[-BEFORE_S // 300 :], Counts())
    first = objections.incident_first(before, limit=historical.limit(earlier.base), phi=earlier.phi_historical)
    return replace(settings(reference, world.controls), incident_first=first)


def _drift(world: World, ticks: Numbers) -> Shares:
    return 1 + (world.drift - 1) * np.clip(ticks * TICK_S / 3600, 0, 1)


def _played(world: World, offsets: Numbers, rng: np.random.Generator, *, ticks: int, grace_s: float) -> _Pods:
    """Draw what each pod counts; a new one counts only what is judged."""
    runs, none = len(offsets), np.zeros(len(offsets), np.int64)
    at_s = (np.arange(ticks)[None, :] - offsets[:, None]) * TICK_S
    block_s = (np.arange(ticks) // 3 * 3)[None, :] * TICK_S - offsets[:, None] * TICK_S
    ready_s, leave_s = world.topology.times_s()
    up = [at_s >= each for each in ready_s]
    there = [at_s < each for each in leave_s]
    everyone = np.sum([*up, *there], axis=0)
    volume = np.where(everyone > 0, world.rps * TICK_S / np.maximum(everyone, 1), 0)
    drift = _drift(world, at_s // TICK_S)
    old = np.zeros((2, runs, ticks), np.int64)
    out_share, begin, seconds = world.outage
    out = (at_s >= begin) & (at_s < begin + seconds)
    for each in there:
        expected = shares(world.chance, rng, runs=runs, ticks=ticks) * drift
        expected[out] = np.maximum(expected[out], out_share)
        old += drawn(volume * each, expected, world.chance, rng)
    new = []
    for begins_s, each in zip(ready_s, up, strict=True):
        expected = shares(world.chance, rng, runs=runs, ticks=ticks) * drift
        if world.bad is not None:
            expected[:] = world.bad
        share, seconds = world.blip
        expected[(at_s >= begins_s) & (at_s < begins_s + seconds)] = max(share, world.chance.share)
        expected[out] = np.maximum(expected[out], out_share)
        total, bad = drawn(volume * each, expected, world.chance, rng)
        judged = block_s >= begins_s + grace_s
        new.append((scraped(total * judged, none), scraped(bad * judged, none)))
    ready, live = (scraped(np.any(each, axis=0).astype(np.int64), none) for each in (up, there))
    return _Pods(new, (scraped(old[0], none), scraped(old[1], none)), ready, live)


def _blocks(pods: _Pods, run: int, *, each: bool) -> Iterable[Block]:
    """Give the blocks of one run, with what each new pod counted if asked."""
    rows = [(total[run].tolist(), bad[run].tolist()) for total, bad in pods.new]
    candidate, candidate_bad = np.sum([(total[run], bad[run]) for total, bad in pods.new], axis=0).tolist()
    columns = (candidate, candidate_bad, *(part[run].tolist() for part in (*pods.old, pods.ready, pods.live)))
    for at, (total, bad, old, old_bad, ready, live) in enumerate(zip(*columns, strict=True)):
        counted = [(index, Counts(some[at], failed[at])) for index, (some, failed) in enumerate(rows)] if each else []
        yield Block(
            at + 1,
            Counts(total, bad),
            Counts(old, old_bad),
            pods=tuple(PodCounts(f"new-{index}", counts) for index, counts in counted if counts.total),
            ready=ready > 0,
            old_live=live > 0,
        )
