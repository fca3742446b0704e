"""How long an undo waits for what is slow around it: `python -m benchmarks.delays`.

The whole service runs in this process over a town in memory, in virtual time, so that what is waited for shows exactly
and nothing else does; its own computing is timed apart. Thirty rollouts begin within a minute, one of them is bad. The
evidence is there at the step from which on the judge, given nothing but the bad rollout's own numbers, speaks of a
breach; the delay is the time from that step to the accepted write.
"""

import argparse
import asyncio
import logging
import math
import random
import statistics
import time
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import looptime
import msgspec

from tests.component.town import HANGS, House, Town
from tests.unit.builders import hash_of
from watchdog.config import parse
from watchdog.engine import baselines
from watchdog.engine.rules import freeze_settings
from watchdog.engine.watch import Watch
from watchdog.judge.blocks import PodTimeline, Reading, Status, Track
from watchdog.judge.sequential import Controls
from watchdog.objects import WorkloadRef

T = TypeVar("T")

STEP_S = 1.0
MOST_S = STEP_S + 1.0
"""What an undo may wait for beside its evidence: a step, and a second."""

_ROLLOUTS = 30
_BEGIN_S = 60.0
_BAD_S, _FAILS_S, _WATCHED_S = 30.0, 45.0, 240.0
_LONG_STEP_S = 15.0
_PER_NAMESPACE, _PODS = 50, 2
_MOST_STEPS = 40

SLOW: Mapping[str, Mapping[str, float]] = {
    "nothing is slow": {},
    "the record store answers after 3 s": {"save": 3.0},
    "the record store hangs": {"save": HANGS},
    "Slack hangs": {"tell": HANGS},
    "Alertmanager hangs": {"alerts": HANGS, "silences": HANGS},
    "one query of two takes 10 s": {"read other_requests_total": 9.9},
    "one query of two hangs": {"read other_requests_total": HANGS},
    "pods of another namespace take 5 s": {"pods other": 5.0},
    "Events hang": {"event": HANGS},
}
SLOW = {**SLOW, "all of it at once": {name: seconds for each in SLOW.values() for name, seconds in each.items()}}

SETTINGS = """
prometheus = {{url = "http://prometheus", step = "{step:g}s"}}
alertmanager = {{urls = ["http://alertmanager"]}}
[[policies]]
name = "shop"
namespaces = [{shop}]
mode = "enforce"
grace = "0s"
bake = "5m"
signals.errors = {{bad = "errors_total", total = "requests_total"}}
[[policies]]
name = "other"
namespaces = ["other"]
mode = "enforce"
grace = "0s"
bake = "5m"
signals.errors = {{bad = "other_errors_total", total = "other_requests_total"}}
"""


class Undone(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the bad rollout.

    Args:
        evidence_s: from its deployment to the evidence; None where the evidence never sufficed.
        delay_s: from there to the accepted write; None where there was none.
        cpu_ms: of this process, per step.
    """

    evidence_s: float | None
    delay_s: float | None
    cpu_ms: float


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """How soon many rollouts are looked at.

    Args:
        begun: of how many a watch was fed in time.
        steps: from a rollout's beginning until its watch was first fed; the most, and the median.
        calls: requests of each kind that the API server got, until then.
        refused: how many of them were not answered in time.
        took_s: from the first one's beginning until then.
        cpu_ms: of this process, per step.
    """

    begun: int
    steps: float
    median: float
    calls: Counter[str]
    refused: int
    took_s: float
    cpu_ms: float


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", metavar="WORDS", help="rows whose name has these words")
    parser.add_argument("--seed", type=int, default=12)
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    print(
        f"| {_ROLLOUTS} rollouts, steps of {STEP_S:g} s | evidence after | undo written after another | CPU per step |"
    )
    print("|---|---:|---:|---:|")
    for name, slow in SLOW.items():
        if given.only in name:
            undone = run(undo(slow, seed=given.seed))
            print(f"| {name} | {_s(undone.evidence_s)} | {_s(undone.delay_s)} | {undone.cpu_ms:.0f} ms |", flush=True)
    print(f"\n| steps of {_LONG_STEP_S:g} s | looked at | after steps, at most (median) | requests until then | CPU |")
    print("|---|---:|---:|---|---:|")
    crowds = {"500 rollouts begin in a minute": (500, False), "5,000 Deployments are all new": (5000, True)}
    for name, (count, new) in crowds.items():
        if given.only in name:
            found = run(begin(count, new=new, seed=given.seed))
            calls = ", ".join(f"{number} × {kind}" for kind, number in sorted(found.calls.items()) if number)
            late = f" ({found.refused} not answered in time)" if found.refused else ""
            print(
                f"| {name} | {found.begun} | {found.steps:.1f} ({found.median:.1f}) | {calls}{late} in"
                f" {found.took_s:.0f} s | {found.cpu_ms:.0f} ms per step |",
                flush=True,
            )


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run in virtual time."""
    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        return runner.run(work)


# -- one bad rollout among many ----------------------------------------------------------------------------------------


async def undo(slow: Mapping[str, float], *, seed: int = 12, rollouts: int = _ROLLOUTS) -> Undone:
    """Let a bad rollout happen among others while something is slow."""
    chance = random.Random(seed)  # noqa: S311  (no secret)
    town = Town(parse(SETTINGS.format(step=STEP_S, shop='"shop"')))
    town.slow = dict(slow)
    others = [town.build("other" if number % 2 else "shop", f"app-{number:02}") for number in range(rollouts - 1)]
    bad = town.build("shop", "bad", overlap_s=120.0)
    loop, begun = asyncio.get_running_loop(), town.seconds
    async with town.served():
        for house in others:
            loop.call_later(chance.uniform(1, _BEGIN_S), town.deploy, house, "v2")
        loop.call_later(_BAD_S, town.deploy, bad, "bad")
        bad.shares["bad"] = (0.3, begun + _FAILS_S)
        seen: list[Reading] = []
        cpu = time.process_time()
        while bad.wrote is None and town.seconds < begun + _WATCHED_S:
            await asyncio.sleep((math.floor(town.seconds / STEP_S) + 1) * STEP_S - town.seconds)
            step = round(town.seconds / STEP_S)
            seen.append(Reading(step, tuple(bad.samples(town.seconds))))
        cpu = time.process_time() - cpu
    at = evidence(town, bad, seen)
    return Undone(
        evidence_s=None if at is None else at - begun - _BAD_S,
        delay_s=None if at is None or bad.wrote is None else bad.wrote - at,
        cpu_ms=1000 * cpu / len(seen),
    )


def evidence(town: Town, house: House, readings: Sequence[Reading]) -> float | None:
    """Give the time of the step at which a rollout's numbers suffice, for somebody who knows nothing late.

    Args:
        town: where it is.
        house: the Deployment, whose second version is the bad one.
        readings: of its pods, of every step.
    """
    policy = next(each for each in town.config.policies if house.ref.namespace in each.namespaces)
    settings = freeze_settings(policy, baselines.none("nothing is kept"), controls=Controls.BOTH, step_s=STEP_S)
    old, new = house.deployed[:2]
    facts = [
        PodTimeline(
            name=name,
            track=Track.CANDIDATE if version is new else Track.STABLE,
            hash=hash_of(version.name),
            created=version.born,
            step=math.ceil(version.born / STEP_S),
            ready=version.ready,
            ready_step=math.ceil(version.ready / STEP_S),
        )
        for version in (old, new)
        for name in house.names(version)
    ]
    first = math.ceil(new.born / STEP_S)
    watch = Watch(
        house.ref,
        policy,
        step_s=STEP_S,
        first=first,
        begun=new.born,
        bad_known=dict.fromkeys(policy.signals, True),
        sawtooth={},
        test_settings=dict.fromkeys(policy.signals, settings),
        lowest={},
    )
    for reading in readings:
        if reading.step >= first:
            watch.feed(dict.fromkeys(policy.signals, reading), facts)
            if any(each.status is Status.BREACH for each in watch.verdicts(urgent=False)):
                return reading.step * STEP_S
    return None


# -- many that begin ---------------------------------------------------------------------------------------------------


async def begin(count: int, *, new: bool, seed: int = 12) -> Begun:
    """Let many rollouts begin, within a minute; or let all Deployments be new when the service starts."""
    chance = random.Random(seed)  # noqa: S311  (no secret)
    shops = [f"shop-{number:02}" for number in range(count // _PER_NAMESPACE)]
    names = ", ".join(f'"{shop}"' for shop in shops)
    town = Town(parse(SETTINGS.format(step=_LONG_STEP_S, shop=names)))
    born: dict[WorkloadRef, float] = {}
    for number in range(count):
        house = town.build(
            shops[number % len(shops)], f"app-{number:04}", pods=_PODS, overlap_s=120.0, age_s=5.0 if new else 86_400.0
        )
        born[house.ref] = town.seconds
    loop = asyncio.get_running_loop()
    async with town.served() as service:
        if not new:
            await asyncio.sleep(_LONG_STEP_S)
            for house in town.houses.values():
                wait = chance.uniform(0, _BEGIN_S)
                born[house.ref] = town.seconds + wait
                loop.call_later(wait, town.deploy, house, "v2")
        town.calls.clear()
        first, cpu, steps = min(born.values()), time.process_time(), 0.0
        fed: dict[WorkloadRef, float] = {}
        while len(fed) < count and steps < _MOST_STEPS:
            await asyncio.sleep(_LONG_STEP_S / 3)
            steps += 1 / 3
            for record in tuple(service.context.records.values()):
                if record.workload not in fed and service.poller.next_step(record.id):
                    fed[record.workload] = town.seconds
        cpu, took_s = time.process_time() - cpu, town.seconds - first
        calls, refused = Counter(town.calls), sum(town.refused.values())
    waited = [(fed[ref] - born[ref]) / _LONG_STEP_S for ref in fed]
    return Begun(
        begun=len(fed),
        steps=max(waited, default=math.inf),
        median=statistics.median(waited) if waited else math.inf,
        calls=calls,
        refused=refused,
        took_s=took_s,
        cpu_ms=1000 * cpu / steps,
    )


def _s(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f} s"


if __name__ == "__main__":
    main()
