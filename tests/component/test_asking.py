"""A judgement guard has a person asked instead of ending the watch, and the rollout goes on being watched meanwhile."""

import asyncio

import pytest

from tests.component.test_service_deaths import until
from tests.component.world import SETTINGS, World
from tests.unit.builders import hash_of
from watchdog.config import parse
from watchdog.decide import marks
from watchdog.decide.record import Record, State
from watchdog.errors import Unanswered
from watchdog.model import Guard, Outcome
from watchdog.objects import Deployment, WorkloadRef

pytestmark = pytest.mark.looptime


def held_back(*, approval: str = "60s", mode: str = "enforce") -> World:
    """A world whose workload has had its one action of the day."""
    world = World()
    settings = SETTINGS.replace("budget = 0", "budget = 1").replace('cool_down = "0s"', 'cool_down = "1h"')
    settings = settings.replace('approval = "20s"', f'approval = "{approval}"')
    world.config = parse(settings.format(policy=f'mode = "{mode}"', rule="threshold"))
    world.errors = {"bad": 0.3, "worse": 0.4}
    return world


def about(world: World, version: str) -> Record:
    return next(each for each in world.records.values() if each.rollout.hash == hash_of(version))


def state_of(world: World, version: str) -> State | None:
    found = [each.state for each in world.records.values() if each.rollout.hash == hash_of(version)]
    return found[0] if found else None


async def bad_twice(world: World) -> None:
    await asyncio.sleep(2)
    world.deploy("bad")
    await until(lambda: state_of(world, "bad") is State.ENDED)
    world.deploy("worse")
    await until(lambda: state_of(world, "worse") is State.ASKING)


async def test_after_budget_and_cool_down_a_person_is_asked_and_an_approval_has_the_undo_done() -> None:
    world = held_back()

    async def story() -> list[int]:
        await bad_twice(world)
        seen = []
        for _ in range(2):
            await asyncio.sleep(5)
            assert world.service
            context = world.service.context
            whole = await context.complete(context.records[about(world, "worse").id])
            seen.append(len(whole.blocks["errors"]))
        world.scene.annotations[marks.ANSWER] = f"{about(world, 'worse').id}=approve"
        world.scene.deployment["metadata"]["generation"] += 1
        world.scene.deployment["status"]["observedGeneration"] += 1
        return seen

    told = asyncio.create_task(story())
    await world.live(200)
    seen = await told
    assert seen[1] > seen[0], "it is watched while a person is asked"
    record = about(world, "worse")
    assert {objection.guard: objection.asks for objection in record.objections} == {
        Guard.BUDGET: True,
        Guard.COOL_DOWN: True,
    }
    assert record.outcome is Outcome.RECOVERED, record.detail
    assert world.writes.count("patch") == 2


async def test_a_question_that_nobody_answers_ends_with_the_guards_word_and_no_write() -> None:
    world = held_back(approval="10s")
    story = asyncio.create_task(bad_twice(world))
    await world.live(200)
    await story
    record = about(world, "worse")
    assert (record.outcome, record.detail) == (Outcome.REFUSED, "budget: nobody answered within 0:00:10")
    assert world.writes.count("patch") == 1


async def test_in_mode_observe_nobody_is_asked_whatever_speaks_against_it() -> None:
    world = held_back(mode="observe")
    story = asyncio.create_task(asyncio.sleep(2))
    story.add_done_callback(lambda _: world.deploy("bad"))
    await world.live(60)
    record = about(world, "bad")
    assert record.state is State.ENDED
    assert (record.asked, record.objections[0].guard, record.objections[0].asks) == (None, Guard.MODE, False)


class Deaf(World):
    """The world of an API server that does not answer the first questions about a Deployment of an incident."""

    lost = 0

    async def deployment(self, ref: WorkloadRef, *, timeout_s: float) -> Deployment:
        records = self.service.context.records.values() if self.service else ()
        if self.lost < 2 and any(each.state is State.BREACH for each in records):
            self.lost += 1
            raise Unanswered("deployment", "nobody answers")
        return await super().deployment(ref, timeout_s=timeout_s)


async def test_a_question_is_put_though_the_api_server_does_not_answer_at_first() -> None:
    world = Deaf(policy='mode = "approve"')
    world.errors = {"bad": 0.3}
    story = asyncio.create_task(asyncio.sleep(2))
    story.add_done_callback(lambda _: world.deploy("bad"))
    await world.live(60)
    record = about(world, "bad")
    assert world.lost == 2
    assert record.asked
    assert record.plan
    assert record.plan.to_hash == hash_of("good"), "an approval is about one target"
