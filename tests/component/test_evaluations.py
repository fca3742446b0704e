"""Evaluations that a pipeline posts about a rollout under watch, in a world whose requests never fail."""

import asyncio
from contextlib import suppress

import pytest

from tests.component.world import WEB, World
from tests.unit.builders import hash_of
from watchdog.decide.evaluations import Posted, Taken
from watchdog.decide.record import Record
from watchdog.errors import NotFound, UsageError
from watchdog.model import Outcome
from watchdog.objects import WorkloadRef

POLICY = 'mode = "enforce"\n[policies.evaluations]\nenabled = true'

pytestmark = pytest.mark.looptime


def batch(version: str, bad: int, total: int = 100, *, name: str = "run-7") -> Posted:
    return Posted(id=name, total=total, bad=bad, hash=hash_of(version))


async def post(world: World, posted: Posted, ref: WorkloadRef = WEB) -> Taken:
    """Post once; the dead answer nobody."""
    service = world.service
    if service is None or world.dead.is_set():
        raise TimeoutError
    taken = await asyncio.wait_for(service.evaluated(ref, posted), 1)
    if service is not world.service or world.dead.is_set():
        raise TimeoutError
    return taken


async def insist(world: World, posted: Posted) -> Taken:
    """Post until it is counted, as a pipeline does whose service may be away or has not seen the rollout yet."""
    while True:
        with suppress(NotFound, UsageError, TimeoutError):
            taken = await post(world, posted)
            if "no rollout" not in taken.detail:
                return taken
        await asyncio.sleep(0.3)


async def play(*posted: Posted, die_after: int | None = None) -> tuple[World, Record, list[Taken]]:
    """Deploy a version, and post a second later."""
    world = World(policy=POLICY, die_after=die_after)
    taken: list[Taken] = []

    async def story() -> None:
        await asyncio.sleep(2)
        world.deploy("bad")
        await asyncio.sleep(1.5)
        taken.extend([await insist(world, each) for each in posted])

    task = asyncio.create_task(story())
    await world.live(60)
    if world.dead.is_set():
        world.revive()
        await asyncio.sleep(1)
        await world.live(70)
    await asyncio.wait_for(task, 5)
    return world, next(each for each in world.records.values() if each.rollout.hash == hash_of("bad")), taken


def breach(record: Record) -> str:
    return next(each.detail for each in record.verdicts if each.status == "breach")


async def test_a_version_whose_answers_are_bad_is_undone_although_its_requests_are_fine() -> None:
    world, record, taken = await play(batch("good", 3), batch("bad", 60))
    assert (record.outcome, world.writes.count("patch")) == (Outcome.RECOVERED, 1)
    assert [(each.counted, each.rollouts[0].track) for each in taken] == [(True, "stable"), (True, "candidate")]
    assert "60 of 100 evaluations failed, of the stable version 3 of 100" in breach(record)
    assert record.plan
    assert record.plan.numbers
    assert (record.plan.numbers.candidate_bad, record.plan.numbers.stable_bad) == (60, 3)
    assert {each.control: each.log_e > each.bar for each in record.evidence["evaluations"]} == {
        "concurrent": True,
        "historical": True,
    }


async def test_without_evaluations_of_the_stable_version_a_person_is_asked() -> None:
    world, record, _ = await play(batch("bad", 60))
    assert (record.outcome, world.writes.count("patch")) == (Outcome.REFUSED, 0)
    assert "no-history" in [objection.guard for objection in record.objections]


async def test_good_evaluations_and_none_at_all_let_a_rollout_pass() -> None:
    for posted in ((), (batch("good", 3), batch("bad", 3))):
        _, record, _ = await play(*posted)
        assert record.outcome is Outcome.PASSED, record.detail


async def test_the_same_id_counts_once_for_each_version() -> None:
    _, record, taken = await play(batch("bad", 5), batch("bad", 5), batch("good", 5))
    assert [each.counted for each in taken] == [True, False, True]
    assert "counted before" in taken[1].detail
    assert sum(each.total for each in record.evaluations) == 200


async def test_the_image_tells_the_version_too() -> None:
    _, record, taken = await play(Posted(id="7", total=10, bad=1, image="registry.example/web:bad"))
    assert (taken[0].hash, record.evaluations[0].track) == (hash_of("bad"), "candidate")


async def test_a_death_after_any_write_loses_no_evaluation_and_ends_the_same() -> None:
    posted = (batch("good", 3), batch("bad", 60))
    undisturbed, record, _ = await play(*posted)
    for write in range(1, len(undisturbed.writes) + 1):
        world, found, _ = await play(*posted, die_after=write)
        about = f"{write}: {world.writes}"
        assert (found.outcome, world.writes.count("patch")) == (Outcome.RECOVERED, 1), about
        assert [(each.id, each.track) for each in found.evaluations] == [
            (each.id, each.track) for each in record.evaluations
        ], about
        assert breach(found) == breach(record), about


async def test_whoever_writes_an_older_state_of_the_record_takes_no_evaluation_away() -> None:
    world = World(policy=POLICY)
    task = asyncio.create_task(world.live(6))
    await asyncio.sleep(1)
    world.deploy("bad")
    await asyncio.sleep(2)
    assert world.service
    context = world.service.context
    older = next(each for each in context.records.values() if each.rollout.hash == hash_of("bad"))
    await post(world, batch("bad", 5))
    assert [each.id for each in context.put(older, save=False, notify=False).evaluations] == ["run-7"]
    await task


# -- what cannot count -------------------------------------------------------------------------------------------------


async def refused(world: World, ref: WorkloadRef, posted: Posted) -> str:
    with pytest.raises((UsageError, NotFound)) as caught:
        await post(world, posted, ref)
    return str(caught.value)


async def test_what_cannot_count_is_refused_with_its_cure() -> None:
    world = World(policy=POLICY)
    task = asyncio.create_task(world.live(20))
    await asyncio.sleep(1)
    idle = await post(world, batch("good", 5))
    assert (idle.counted, idle.rollouts) == (False, ())
    assert "no rollout that takes evaluations is under watch" in idle.detail
    world.deploy("bad")
    await asyncio.sleep(2)
    assert "no policy matches" in await refused(world, WorkloadRef("shop", "other"), batch("bad", 5))
    unknown = await refused(world, WEB, batch("worse", 5))
    assert unknown.startswith(f"hash {hash_of('worse')} is not live in shop/web, but ")
    assert hash_of("bad") in unknown
    assert "is not live" in await refused(
        world, WEB, Posted(id="1", total=5, bad=1, image="registry.example/web:worse")
    )
    for number in range(100):
        await post(world, batch("good", 0, name=str(number)))
    assert "post fewer and larger" in await refused(world, WEB, batch("good", 0, name="one more"))
    await task


async def test_a_policy_that_takes_none_says_what_to_write() -> None:
    world = World()
    task = asyncio.create_task(world.live(5))
    await asyncio.sleep(1)
    assert "write enabled = true in [policies.evaluations]" in await refused(world, WEB, batch("good", 5))
    await task
