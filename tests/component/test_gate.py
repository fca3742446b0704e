"""The gate in a world in memory and in virtual time: verdict, action, and who else may end it."""

import asyncio
import datetime as dt

import msgspec
import pytest

from tests.component.world import WEB, World
from tests.unit.builders import template
from watchdog.config import Seconds
from watchdog.engine.act import Actor
from watchdog.engine.verify import Patience
from watchdog.errors import UsageError
from watchdog.gate import Gate, Ports, Report, Task
from watchdog.gate.trial import Numbers
from watchdog.judge.blocks import Word
from watchdog.model import Action, Cause, Outcome

pytestmark = pytest.mark.looptime


def gate(world: World, **changes: object) -> Gate:
    """A gate of thirty seconds on the world's workload."""
    task = Task(
        workload=WEB,
        stable=WEB,
        policy=msgspec.structs.replace(world.config.policies[0], bake=Seconds(30)),
        step_s=1,
        action=Action.UNDO,
        cause=Cause("ci", ""),
    )
    patience = Patience(request_s=2, observed_s=2, verify_s=10)
    ports = Ports(
        cluster=world,
        signals=world,
        store=world,
        actor=Actor(world, patience=patience, now=world.now),
        request_s=2,
        read_s=2,
        observed_s=2,
        held_s=60,
    )
    told: list[tuple[Numbers, ...]] = []
    return Gate(msgspec.structs.replace(task, **changes), ports, now=world.now, tell=told.append, say=print)


async def ran(world: World, **changes: object) -> Report:
    return await gate(world, **changes).run()


async def test_a_good_version_passes_when_its_time_is_over() -> None:
    world = World()
    world.deploy("fix")
    report = await ran(world)
    assert (report.verdict.word, report.outcome) == (Word.HEALTHY, Outcome.PASSED)
    assert world.count("patch") == 0


async def test_a_bad_version_is_undone_before_its_time_is_over() -> None:
    world = World()
    world.errors["bad"] = 0.3
    world.deploy("bad")
    began = world.now()
    report = await ran(world, baseline=0.004)
    assert (report.verdict.word, report.outcome) == (Word.BREACH, Outcome.ROLLED_BACK)
    assert world.scene.spec["template"] == template("good")
    assert world.now() - began < dt.timedelta(seconds=30)


async def test_without_stable_pods_and_without_a_past_a_bad_version_is_left_to_a_person() -> None:
    world = World()
    world.errors["bad"] = 0.3
    world.deploy("bad")
    report = await ran(world)
    assert (report.verdict.word, report.outcome) == (Word.BREACH, None)
    assert "no-history" in report.detail
    assert world.writes == []


async def test_without_an_action_a_bad_version_is_only_said_to_be_bad() -> None:
    world = World()
    world.errors["bad"] = 0.3
    world.deploy("bad")
    report = await ran(world, action=None)
    assert (report.verdict.word, report.outcome) == (Word.BREACH, None)
    assert world.writes == []


async def test_a_hotfix_ends_the_gate_and_nothing_is_written() -> None:
    world = World()
    world.deploy("bad")
    asyncio.get_running_loop().call_later(5, world.deploy, "fix")
    report = await ran(world)
    assert report.outcome is Outcome.SUPERSEDED
    assert world.writes == []


async def test_a_version_that_runs_another_image_is_a_mistake() -> None:
    world = World()
    world.deploy("bad")
    with pytest.raises(UsageError, match=r"not registry\.example/web:other"):
        await ran(world, image="registry.example/web:other")
