"""A rollout judged by the rule `sequential`, in a world whose old pods are gone at once."""

import asyncio

import pytest

from tests.component.world import World
from tests.unit.builders import hash_of
from watchdog.decide.record import Record
from watchdog.model import Outcome

POLICY = 'mode = "enforce"\nrule = "sequential"\nsensitivity = "quick"'

pytestmark = pytest.mark.looptime


async def play(errors: float, *, die_after: int | None = None) -> tuple[World, Record]:
    world = World(policy=POLICY, die_after=die_after)
    world.errors = {"bad": errors}

    async def deploy() -> None:
        await asyncio.sleep(2)
        world.deploy("bad")

    story = asyncio.create_task(deploy())
    await world.live(60)
    if world.dead.is_set():
        world.revive()
        await asyncio.sleep(1)
        await world.live(70)
    await story
    return world, next(each for each in world.records.values() if each.rollout.hash == hash_of("bad"))


def breach(record: Record) -> str:
    return next(each.detail for each in record.verdicts if each.word == "breach")


async def test_without_a_history_the_past_only_asks_and_says_what_it_cannot_know() -> None:
    world, record = await play(0.3)
    assert record.outcome is Outcome.REFUSED
    assert "no-history" in [veto.guard for veto in record.vetoes]
    assert record.plan
    assert record.plan.cause == "sequential"
    assert "cannot tell the version from an outage" in breach(record)
    stand = {each.control: each for each in record.evidence["errors"]}
    assert stand["historical"].log_e >= stand["historical"].bar
    assert world.writes.count("patch") == 0


async def test_a_healthy_rollout_passes() -> None:
    world, record = await play(0.002)
    assert record.outcome is Outcome.PASSED, record.detail
    assert world.writes.count("patch") == 0


async def test_whoever_replays_the_past_after_a_death_comes_to_the_same_counts_and_evidence() -> None:
    _, undisturbed = await play(0.3)
    for write in range(1, 8):
        _, record = await play(0.3, die_after=write)
        assert (record.outcome, breach(record)) == (undisturbed.outcome, breach(undisturbed)), write
        assert record.judged_by == undisturbed.judged_by
