"""A person's rollback asked for more than once: by two people, by a key that is repeated, and twenty times at once."""

import asyncio
from typing import Any

import pytest

from tests.component.world import WEB, World
from tests.unit.builders import template
from watchdog.decide.plan import Request
from watchdog.engine.service import WatchdogService
from watchdog.errors import Denied, KeyReused, Rejected, Unanswered
from watchdog.model import Cause, Outcome, Result
from watchdog.objects import Deployment, WorkloadRef

pytestmark = pytest.mark.looptime


def asked(reason: str = "checkout fails", *, by: str = "jane", **more: Any) -> Request:
    """What a person asks for."""
    return Request(cause=Cause(by, reason), **more)


async def posted(service: WatchdogService, request: Request, *, key: str = "", dry_run: bool = False) -> Result:
    return await service.rollback(WEB, request, dry_run=dry_run, key=key)


def bad_world() -> World:
    """Three versions, of which the last one is bad."""
    world = World()
    world.deploy("fix")
    world.deploy("bad")
    return world


def live(world: World, version: str) -> bool:
    return bool(world.scene.spec["template"] == template(version))


async def test_a_second_press_changes_nothing_and_says_who_was_first() -> None:
    world = bad_world()
    service = world.start()
    assert (await posted(service, asked())).outcome is Outcome.ROLLED_BACK
    for dry_run in (True, False):
        again = await posted(service, asked("still fails", by="ada"), dry_run=dry_run)
        assert again.outcome is Outcome.ALREADY
        assert "3 → 2 at" in again.detail
        assert "by jane (checkout fails)" in again.detail
    assert (live(world, "fix"), world.count("patch")) == (True, 1)


async def test_a_press_after_that_of_another_process_changes_nothing() -> None:
    world = bad_world()
    await posted(world.start(), asked())
    assert (await posted(world.start(), asked(by="ada"))).outcome is Outcome.ALREADY
    assert live(world, "fix")


async def test_twenty_presses_at_once_make_one_write() -> None:
    world = bad_world()
    service = world.start()
    results = await asyncio.gather(*(posted(service, asked(f"reason {n}")) for n in range(20)))
    assert sum(each.outcome is Outcome.ROLLED_BACK for each in results) == 1
    assert {each.outcome for each in results} <= {Outcome.ROLLED_BACK, Outcome.ALREADY, Outcome.SUPERSEDED}
    assert live(world, "fix")


async def test_twenty_posts_with_one_key_and_twenty_reasons_make_one_write_and_the_others_are_refused() -> None:
    world = bad_world()
    service = world.start()
    posts = (posted(service, asked(f"reason {n}"), key="build-17") for n in range(20))
    results = await asyncio.gather(*posts, return_exceptions=True)
    assert [type(each) for each in results] == [Result, *[KeyReused] * 19]
    assert (live(world, "fix"), world.count("patch")) == (True, 1)


async def test_a_key_that_is_repeated_with_all_of_its_request_gives_the_same_result_at_once_and_later() -> None:
    world = bad_world()
    service = world.start()
    results = await asyncio.gather(*(posted(service, asked(), key="build-17") for _ in range(20)))
    results.append(await posted(service, asked(), key="build-17"))
    assert all(each == results[0] for each in results)
    assert (results[0].outcome, world.count("patch")) == (Outcome.ROLLED_BACK, 1)


@pytest.mark.parametrize(
    ("request_", "dry_run"),
    [
        (asked("another reason"), False),
        (asked(to_revision=1), False),
        (asked(expected_revision=3), False),
        (asked(), True),
    ],
)
async def test_a_key_names_one_action_and_no_other_may_use_it(request_: Request, *, dry_run: bool) -> None:
    world = bad_world()
    service = world.start()
    await posted(service, asked(), key="build-17")
    with pytest.raises(KeyReused, match="another key"):
        await posted(service, request_, key="build-17", dry_run=dry_run)
    assert world.count("patch") == 1


async def test_the_same_key_of_somebody_else_is_another_key() -> None:
    world = bad_world()
    service = world.start()
    await posted(service, asked(), key="1")
    assert (await posted(service, asked("other", by="ada"), key="1")).outcome is Outcome.ALREADY


@pytest.mark.parametrize(
    "error", [Denied("get deployments shop/web", "Forbidden"), Rejected("get deployments shop/web", "no")]
)
async def test_what_failed_may_be_tried_again_under_its_key_but_nothing_else(error: Exception) -> None:
    world = bad_world()
    service = world.start()
    world.fail("deployment", error)
    with pytest.raises(type(error)):
        await posted(service, asked(), key="build-17")
    with pytest.raises(KeyReused):
        await posted(service, asked("other"), key="build-17")
    assert (await posted(service, asked(), key="build-17")).outcome is Outcome.ROLLED_BACK


async def test_what_a_guard_refused_may_be_tried_again_under_its_key() -> None:
    world = bad_world()
    service = world.start()
    world.scene.pause()
    assert (await posted(service, asked(), key="build-17")).outcome is Outcome.REFUSED
    del world.scene.spec["paused"]
    assert (await posted(service, asked(), key="build-17")).outcome is Outcome.ROLLED_BACK


class Hanging(World):
    """Where no Deployment can be read before it goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.gone_on = asyncio.Event()

    async def deployment(self, ref: WorkloadRef, *, timeout_s: float) -> Deployment:
        await self.gone_on.wait()
        return await super().deployment(ref, timeout_s=timeout_s)


async def test_keys_are_bounded_and_one_of_an_action_under_way_is_never_forgotten() -> None:
    world = Hanging()
    world.deploy("bad")
    service = world.start()
    first = [asyncio.create_task(posted(service, asked(), key=str(number))) for number in range(1000)]
    await asyncio.sleep(1)
    with pytest.raises(Unanswered, match="under way"):
        await posted(service, asked(), key="one more")
    world.gone_on.set()
    done = await asyncio.gather(*first)
    assert sum(each.outcome is Outcome.ROLLED_BACK for each in done) == 1
    assert (await posted(service, asked(), key="one more")).outcome is Outcome.ALREADY
