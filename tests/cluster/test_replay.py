"""A restart is a replay: whoever was killed in a rollout, the next process knows what it would have known.

The real adapter reads from a real Prometheus, to which whole rolling updates were told beforehand.
"""

import asyncio
import itertools
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from typing import Any

import msgspec
import pytest

from tests.cluster.rolling import STEP_S, Life, RollingWorld, Share, Story, update
from tests.monitoring.fixtures import MISSING, REASON, REQUIRED
from tests.monitoring.past import PastServer
from watchdog.decide.record import Record, State
from watchdog.engine.service import WatchdogService
from watchdog.judge.blocks import Blind, Block, Counts
from watchdog.judge.sequential import Control, SequentialSettings
from watchdog.records.form import read, write

pytestmark = pytest.mark.skipif(not REQUIRED and "promtool" in MISSING, reason=REASON)


def _share(bad: float, good: float = 0.004) -> Share:
    return lambda pod, _at: bad if pod.version == "bad" else good


def _outage(pod: Life, at: float) -> float:
    """What both versions lean on fails for four minutes."""
    return 0.3 if 100 <= at < 340 else 0.004


def _late(_pod: Life, at: float) -> float:
    """What the version leans on fails from a quarter of an hour on."""
    return 0.3 if at >= LATE_S else 0.004


LATE_S = 900.0
STORIES = (
    update("one-in-ten", replicas=3, rps=3.4, share=_share(0.1), gap_s=90, seed=1),
    update("healthy", replicas=3, rps=3.4, share=_share(0.004), gap_s=90, seed=2),
    update("ten-pods", replicas=10, rps=1.0, share=_share(0.1), gap_s=25, seed=3),
    update("little", replicas=3, rps=0.4, share=_share(0.2), gap_s=90, seed=4),
    update("outage", replicas=4, rps=5.0, share=_outage, gap_s=60, seed=5),
)
PASSING = Life(version="bad", suffix="brief", created=300.0, ready=308.0, deleted=400.0, ended=410.0, rps=4.0)
QUIET = update("quiet", replicas=2, rps=4.0, share=_share(0.004), restarts=False, seed=6)
EPISODE = msgspec.structs.replace(QUIET, pods=(*QUIET.pods, PASSING))
"""A new pod comes and goes."""

LATE = msgspec.structs.replace(
    update("late", replicas=3, rps=3.4, share=_late, restarts=False, seed=7),
    policy='mode = "enforce"\nbake = "1h"',
    until=1500.0,
)
"""Everything fails, but only twelve minutes after the new version has taken all traffic."""

A_DAY = msgspec.structs.replace(
    update("a-day", replicas=3, rps=3.4, share=_share(0.004), restarts=False, seed=8),
    policy='mode = "enforce"\nbake = "25h"\nmax_watch = "26h"',
    until=86_400.0,
)

ASKS = {
    "one-in-ten": {"mode"},
    "healthy": set(),
    "ten-pods": {"mode"},
    "little": {"mode"},
    "outage": {"mode", "shared"},
}
"""Which guards turn acting into asking, where there is a breach at all: the mode is `approve`, so that all goes on."""

KILLS = 10
AFTER_S = 1.0
"""So long after a step everything of it is done: what is asked takes no virtual time."""


class Run(msgspec.Struct):
    """What was known after each step, by whichever process."""

    stands: dict[int, dict[Control, float]] = {}
    blocks: tuple[Block, ...] = ()
    record: Record | None = None
    calls: int = 0
    calls_at: dict[int, int] = {}
    deaths: int = 0


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PastServer]:
    """The Prometheus that was told all stories."""
    directory = tmp_path_factory.mktemp("past")
    with PastServer(
        directory, chain.from_iterable(story.samples() for story in (*STORIES, EPISODE, LATE, A_DAY))
    ) as server:
        yield server


async def live(story: Story, url: str, kills: list[tuple[int, float]]) -> Run:
    """Play a story to a service that is killed on the given calls, each followed by seconds without any process."""
    with closing(RollingWorld(story, url)) as world:
        return await _lived(world, kills)


async def _lived(world: RollingWorld, kills: list[tuple[int, float]]) -> Run:
    story, run = world.story, Run()
    plays = asyncio.create_task(world.play())
    while world.at < story.until - 60:
        world.die_at = kills[0][0] if kills else None
        service = world.start()
        task = asyncio.create_task(service.run())
        while world.at < story.until - 60 and not world.dead.is_set():
            await asyncio.sleep(STEP_S - (world.at - AFTER_S) % STEP_S)
            _look(service, run)
            run.calls_at[round(world.at)] = world.crossings
        if not world.dead.is_set():
            _look(service, run, last=True)
            run.record = run.record and await service.context.complete(run.record)
        world.dead.set()
        await stop(task)
        world.revive()
        if kills:
            run.deaths += 1
            await asyncio.sleep(kills.pop(0)[1])
    run.calls = world.crossings
    await plays
    return run


async def stop(task: asyncio.Task[None]) -> None:
    """End a process: the dead never answer, and whoever waits for them is cut off again."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.1)
    with pytest.raises(asyncio.CancelledError):
        await task


def _look(service: WatchdogService, run: Run, *, last: bool = False) -> None:
    for record in service.context.records.values():
        if seen := service.poller.last(record.id):
            stands = seen.watch.evidence()["errors"]
            run.stands[seen.watch.next_step - 1] = {Control(each.control): each.log_e for each in stands}
            if last:
                run.record, run.blocks = record, tuple(seen.watch.blocks["errors"])


def _told(block: Block) -> tuple[Counts, Counts, Counts, Blind | None]:
    return block.candidate, block.stable, block.grace, block.blind


def differences(run: Run, undisturbed: Run) -> list[str]:
    """In which steps two runs do not know the same."""
    wanted = {block.step: _told(block) for block in undisturbed.blocks}
    found = [
        f"block {block.step}: {_told(block)} instead of {wanted[block.step]}"
        for block in run.blocks
        if wanted.get(block.step, _told(block)) != _told(block)
    ]
    for step, stands in sorted(run.stands.items()):
        for control, log_e in stands.items() if step in undisturbed.stands else ():
            if log_e != undisturbed.stands[step][control]:
                found.append(f"step {step}, {control}: {log_e} instead of {undisturbed.stands[step][control]}")
    return found


def breach(record: Record) -> list[str]:
    """What was said of a breach."""
    return [each.detail for each in record.verdicts if each.status == "breach"]


@pytest.mark.looptime
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_whoever_is_killed_at_any_moment_has_a_successor_with_the_same_evidence(
    story: Story, prometheus: PastServer
) -> None:
    undisturbed = await live(story, prometheus.url, [])
    assert undisturbed.record
    assert len(undisturbed.stands) > 50
    assert undisturbed.record.test_settings["errors"].known
    assert {objection.guard for objection in undisturbed.record.objections} == ASKS[story.name]
    chance = random.Random(story.name)
    for _ in range(KILLS):
        call = chance.randrange(10, undisturbed.calls * 4 // 5)
        run = await live(story, prometheus.url, [(call, chance.choice((0.5, 20.0, 60.0, 150.0)))])
        assert run.record
        assert (run.deaths, "\n".join(differences(run, undisturbed))) == (1, ""), call
        assert breach(run.record) == breach(undisturbed.record)


@pytest.mark.looptime
async def test_a_pod_that_came_and_went_while_nobody_ran_has_counted(prometheus: PastServer) -> None:
    undisturbed = await live(EPISODE, prometheus.url, [])
    call = next(calls for at, calls in undisturbed.calls_at.items() if at > PASSING.created - 20)
    run = await live(EPISODE, prometheus.url, [(call, 150.0)])
    assert run.deaths == 1
    assert run.record
    assert [pod.gone for pod in run.record.pods if pod.name == PASSING.name] != [None]
    counted = [sum((block.candidate + block.grace for block in each.blocks), Counts()) for each in (run, undisturbed)]
    assert counted[0] == counted[1]


# -- what comes late ---------------------------------------------------------------------------------------------------


@pytest.mark.looptime
async def test_an_outage_that_begins_long_after_the_rollout_is_asked_about(prometheus: PastServer) -> None:
    assert LATE_S - LATE.completed > 720
    run = await live(LATE, prometheus.url, [])
    assert run.record
    [objection] = [each for each in run.record.objections if each.guard == "late"]
    assert objection.asks
    assert "evidence" in breach(run.record)[-1]
    assert (run.record.state, run.record.writes) == (State.ASKING, ())
    stands = list(run.stands.values())[-1]
    assert stands[Control.HISTORICAL] > run.record.test_settings["errors"].bar


@pytest.mark.looptime
async def test_a_healthy_version_is_left_alone_for_a_day(prometheus: PastServer) -> None:
    """A service that comes after a day reads what it has missed, block by block."""
    with closing(RollingWorld(A_DAY, prometheus.url)) as world:
        await world.play()
        await asyncio.sleep(A_DAY.until - 60 - world.at)
        service = world.start()
        task = asyncio.create_task(service.run())
        await asyncio.sleep(45)
        [record] = service.context.records.values()
        seen = service.poller.last(record.id)
        await stop(task)
    assert seen
    blocks = seen.watch.blocks["errors"]
    assert len(blocks) > 5700
    assert {block.blind for block in blocks} == {None}
    assert sum(block.candidate.total for block in blocks) > 800_000
    assert [each.status for each in record.verdicts if each.status == "breach"] == []
    assert record.state is State.WATCHING
    assert "patch" not in world.writes
    assert all(each.reached is None for each in seen.watch.evidence()["errors"])


# -- the record --------------------------------------------------------------------------------------------------------


@pytest.mark.looptime
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_evaluate_gives_the_records_number_from_the_records_blocks(story: Story, prometheus: PastServer) -> None:
    kept = (await live(story, prometheus.url, [])).record
    assert kept
    record = read(write(kept))
    assert record.blocks == kept.blocks, "nothing was left out to make it short"
    settings, stands = record.test_settings["errors"], record.evidence["errors"]
    for stand, phi in zip(stands, (settings.phi_concurrent, settings.phi_historical), strict=True):
        found = evaluated(trace_of(record, "errors"), settings, phi=phi)
        column = {"concurrent": "log_e", "historical": "log_e_historical"}[stand.control]
        assert found[-2][column] == pytest.approx(stand.log_e, abs=1e-6)
        assert found[-2]["onset"] is not None


def trace_of(record: Record, signal: str) -> str:
    """A record's blocks as `evaluate` reads them: from the first on in which a pod of the version was Ready."""
    rows = ["time,candidate_total,candidate_bad,stable_total,stable_bad,stable_ready"]
    for block in itertools.dropwhile(lambda each: not each.ready, record.blocks[signal]):
        sides = (block.candidate, block.stable)
        counts = ",".join(f"{max(side.total, side.bad)!r},{side.bad!r}" for side in sides)
        rows.append(f"{block.step * STEP_S},{counts},{block.old_live:d}")
    return "\n".join(rows)


def evaluated(trace: str, settings: SequentialSettings, *, phi: float) -> list[dict[str, Any]]:
    """What the command says, held to what the record says that it was judged by."""
    words = {"control": settings.controls, "baseline": settings.base, "phi": phi, "blocks": settings.blocks}
    words |= {"alpha": settings.alpha / settings.signals}
    if settings.m_cap is not None:
        words["m-cap"] = settings.m_cap
    command = [sys.executable, "-m", "watchdog", "evaluate", "-", "--output", "json"]
    command += [f"--{name}={value}" for name, value in words.items()]
    done = subprocess.run(command, input=trace, capture_output=True, text=True, check=False, timeout=60)
    assert not done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
