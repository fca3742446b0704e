"""The service is killed after every single write of every path, and the next process finishes what it began."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import pytest

from tests.component.world import SETTINGS, World
from tests.unit.builders import hash_of
from watchdog.config import parse
from watchdog.decide import marks
from watchdog.decide.record import State
from watchdog.model import MANAGER, Outcome

Story = Callable[[World], Awaitable[None]]

pytestmark = pytest.mark.looptime


class Path(NamedTuple):
    """One path of a rollout: what happens, and how it must end however often the service dies."""

    name: str
    policy: str
    errors: dict[str, float]
    story: Story
    outcome: Outcome
    live: str
    actions: int


async def until(condition: Callable[[], bool], *, pause_s: float = 0.2) -> None:
    while not condition():  # noqa: ASYNC110  (the world is a value to be looked at, and time is virtual)
        await asyncio.sleep(pause_s)


async def _bad(world: World) -> None:
    world.deploy("bad")


async def _all_turn_bad(world: World) -> None:
    """What the bad version broke stays broken after the undo."""
    world.deploy("bad")
    await until(lambda: "patch" in world.writes)
    world.errors["good"] = 0.4


async def _approved(world: World) -> None:
    world.deploy("bad")
    await until(lambda: any(record.state is State.ASKING for record in world.records.values()))
    incident = next(record.id for record in world.records.values() if record.state is State.ASKING)
    world.scene.annotations[marks.ANSWER] = f"{incident}=approve"
    world.scene.deployment["metadata"]["generation"] += 1
    world.scene.deployment["status"]["observedGeneration"] += 1


async def _dismissed(world: World) -> None:
    world.deploy("bad")
    await until(lambda: any(record.state is State.ASKING for record in world.records.values()))
    incident = next(record.id for record in world.records.values() if record.state is State.ASKING)
    world.scene.annotations[marks.ANSWER] = f"{incident}=dismiss"


async def _then_fixed(world: World) -> None:
    """A hotfix comes as soon as anything was written about the bad version's action."""
    world.deploy("bad")
    await until(lambda: "patch" in world.writes)
    world.deploy("fix")


def _claim(world: World, by: str) -> None:
    """Somebody writes that the version under watch was undone in this very incident."""
    record = next(each for each in world.records.values() if each.rollout.hash == hash_of("bad"))
    mark = marks.LastRollback(
        incident=record.id,
        from_hash=hash_of("bad"),
        to_hash=hash_of("good"),
        from_revision=2,
        to_revision=1,
        by=by,
        cause="my own reason",
        at=world.now(),
    )
    world.scene.annotations[marks.LAST_ROLLBACK] = marks.write_last_rollback(mark)


async def _claimed(world: World) -> None:
    """A forged mark says that the service has acted, while the version is live and healthy."""
    world.deploy("bad")
    await until(lambda: any(record.rollout.hash == hash_of("bad") for record in world.records.values()))
    _claim(world, MANAGER)


async def _taken_back(world: World) -> None:
    """A person goes back by the command, which writes a mark with the same incident."""
    world.deploy("bad")
    await until(lambda: any(record.rollout.hash == hash_of("bad") for record in world.records.values()))
    _claim(world, "jane")
    world.deploy("good")


ENFORCE, APPROVE, OBSERVE = 'mode = "enforce"', 'mode = "approve"', 'mode = "observe"'
PATHS = (
    Path("undone and recovered", ENFORCE, {"bad": 0.3}, _bad, Outcome.RECOVERED, "good", 1),
    Path("bad before, so perhaps the fix", ENFORCE, {"bad": 0.9, "good": 0.3}, _bad, Outcome.REFUSED, "bad", 0),
    Path("undone and still bad", ENFORCE, {"bad": 0.3}, _all_turn_bad, Outcome.INEFFECTIVE, "good", 1),
    Path("approved", APPROVE, {"bad": 0.3}, _approved, Outcome.RECOVERED, "good", 1),
    Path("dismissed", APPROVE, {"bad": 0.3}, _dismissed, Outcome.REFUSED, "bad", 0),
    Path("nobody answered", APPROVE, {"bad": 0.3}, _bad, Outcome.REFUSED, "bad", 0),
    Path("observed", OBSERVE, {"bad": 0.3}, _bad, Outcome.OBSERVED, "bad", 0),
    Path("healthy", ENFORCE, {}, _bad, Outcome.PASSED, "bad", 0),
    Path("paused", 'mode = "enforce"\naction = "pause"', {"bad": 0.3}, _bad, Outcome.REFUSED, "bad", 0),
    Path("claimed to be undone", ENFORCE, {}, _claimed, Outcome.PASSED, "bad", 0),
    Path("claimed to be undone, observed", OBSERVE, {}, _claimed, Outcome.PASSED, "bad", 0),
    Path("claimed to be undone, and bad", ENFORCE, {"bad": 0.3}, _claimed, Outcome.RECOVERED, "good", 1),
    Path("taken back by a person", ENFORCE, {}, _taken_back, Outcome.SUPERSEDED, "good", 0),
    Path("taken back by a person, observed", OBSERVE, {}, _taken_back, Outcome.SUPERSEDED, "good", 0),
    Path("a hotfix after the action", ENFORCE, {"bad": 0.3}, _then_fixed, Outcome.SUPERSEDED, "fix", 1),
)


async def play(path: Path, die_after: int | None) -> World:
    """Play a path in a world whose service dies after so many writes, and begins anew a moment later."""
    world = World(policy=path.policy, die_after=die_after)
    world.errors = dict(path.errors)
    story = asyncio.create_task(_later(path.story, world))
    await world.live(60)
    if world.dead.is_set():
        world.revive()
        await asyncio.sleep(1)
        await world.live(70)
    story.cancel()
    await asyncio.gather(story, return_exceptions=True)
    return world


async def _later(story: Story, world: World) -> None:
    await asyncio.sleep(2)
    await story(world)


def check(path: Path, world: World) -> None:
    about = f"{path.name}: {world.writes}"
    bad = [record for record in world.records.values() if record.rollout.hash == hash_of("bad")]
    assert [record.outcome for record in bad] == [path.outcome], (about, bad)
    image = world.scene.spec["template"]["spec"]["containers"][0]["image"]
    assert image.endswith(f":{path.live}"), about
    assert world.writes.count("patch") == path.actions, about
    messages = [incident for incident, _ in world.said]
    assert len(messages) == len(set(messages)), about
    for _, texts in world.said:
        assert len(texts) == len(set(texts)), (about, texts)
    assert not any(record.state is not State.ENDED for record in bad), about
    names = [event.name for event in world.events]
    assert len(names) == len(set(names)), about


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
async def test_every_path_ends_as_it_should(path: Path) -> None:
    check(path, await play(path, None))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
async def test_a_death_after_any_write_changes_nothing_of_the_end(path: Path) -> None:
    undisturbed = await play(path, None)
    for write in range(1, len(undisturbed.writes) + 1):
        world = await play(path, write)
        check(path, world)


async def test_a_mode_that_was_lowered_in_the_configuration_binds_the_rollouts_that_are_open() -> None:
    world = World(policy=ENFORCE)
    world.errors = {"bad": 0.3}
    asyncio.get_running_loop().call_later(2, world.deploy, "bad")
    asyncio.get_running_loop().call_later(4, world.dead.set)
    await world.live(60)
    assert [record.mode for record in world.records.values() if record.rollout.hash == hash_of("bad")] == ["enforce"]
    world.revive()
    world.config = parse(SETTINGS.format(policy=OBSERVE, rule="threshold"))
    await world.live(60)
    bad = [record for record in world.records.values() if record.rollout.hash == hash_of("bad")]
    assert [(record.outcome, record.mode) for record in bad] == [(Outcome.OBSERVED, "observe")]
    assert not {"patch", "mark", "release"} & set(world.writes)


async def test_an_action_whose_mark_somebody_overwrites_at_once_is_proven_all_the_same() -> None:
    async def overwritten(world: World) -> None:
        world.deploy("bad")
        await until(lambda: "patch" in world.writes, pause_s=0.01)  # before the watch of Deployments shows it
        _claim(world, "jane")

    path = Path("overwritten", ENFORCE, {"bad": 0.3}, overwritten, Outcome.RECOVERED, "good", 1)
    check(path, await play(path, None))
