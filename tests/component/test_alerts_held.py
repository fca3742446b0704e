"""Webhooks that are held: all of one or nothing of it, and no room for what was said before or is about nobody."""

import asyncio
import datetime as dt

import msgspec
import pytest

from tests.component.world import World
from tests.unit.builders import NOW
from watchdog.engine.context import Context
from watchdog.engine.service import WatchdogService
from watchdog.model import Alert, Silence
from watchdog.ports import AlertView

pytestmark = pytest.mark.looptime

MOST = 10_000


def alerts(count: int, *, first: int = 0, name: str = "web", firing: bool = True) -> list[Alert]:
    """So many alerts about a Deployment, each with a fingerprint of its own."""
    labels = {"alertname": "Errors", "namespace": "shop", "deployment": name}
    return [
        Alert(fingerprint=f"{number:016x}", labels=labels, starts_at=NOW, firing=firing)
        for number in range(first, first + count)
    ]


async def listed(world: World) -> WatchdogService:
    """A service that knows its workloads, and whose loops stand still."""
    service = world.start()
    async for change in world.watch("shop"):
        service.context.fleet.take("shop", change)
        break
    return service


def held(service: WatchdogService) -> int:
    """How many alerts are waiting to be looked at."""
    return service.alerts.waiting


async def test_a_webhook_of_any_size_is_held_whole_where_nothing_is_held_yet() -> None:
    service = await listed(World())
    assert service.take(alerts(3 * MOST))
    assert held(service) == 3 * MOST


async def test_a_webhook_for_which_there_is_no_room_is_held_in_no_part_and_its_repeat_is() -> None:
    service = await listed(World())
    assert service.take(alerts(MOST - 5))
    more = alerts(10, first=MOST)
    assert not service.take(more)
    assert held(service) == MOST - 5
    service.alerts._held.clear()
    service.alerts._room = MOST
    assert service.take(more)
    assert held(service) == 10


async def test_what_was_said_before_takes_up_no_room() -> None:
    service = await listed(World())
    said = alerts(MOST)
    for _ in range(3):
        assert service.take(said)
        assert service.take([*said, *said])
    assert held(service) == MOST


async def test_what_is_about_nobody_takes_up_no_room() -> None:
    service = await listed(World())
    assert service.take(alerts(MOST))
    assert service.take(alerts(MOST, first=MOST, name="nobody"))
    assert held(service) == MOST


async def test_an_alert_that_fires_and_is_resolved_in_one_webhook_is_held_as_both() -> None:
    service = await listed(World())
    assert service.take([*alerts(1), *alerts(1, firing=False), *alerts(1)])
    assert [each.alert.firing for held in service.alerts._held.values() for each in held] == [True, False]


async def test_what_is_remembered_of_alerts_is_bounded_and_forgotten_after_eight_hours() -> None:
    world = World()
    service = await listed(world)
    for first in range(0, 120_000, 20_000):
        assert service.take(alerts(20_000, first=first, name="nobody"))
        assert service.take([])
    assert len(service.alerts._known) <= 100_000
    await asyncio.sleep(dt.timedelta(hours=8, seconds=1).total_seconds())
    assert service.take([])
    assert not service.alerts._known


async def test_a_resync_that_is_asked_for_comes_at_once_and_not_more_often_than_once_a_second() -> None:
    class Told:
        def __init__(self) -> None:
            self.at: list[float] = []

        async def alerts(self, *, timeout_s: float) -> AlertView:
            self.at.append(asyncio.get_running_loop().time())
            return AlertView(alerts=())

        async def silences(self, *, timeout_s: float) -> tuple[Silence, ...] | None:
            return ()

    world, told = World(), Told()
    service = world.start()
    ports = msgspec.structs.replace(service.context.ports, alerts=told)
    service = WatchdogService(Context(world.config, ports, service.context.metrics, now=world.now), world)
    running = asyncio.create_task(service.alerts.resync())
    await asyncio.sleep(5)
    for _ in range(100):
        service.resync()
    await asyncio.sleep(0.5)
    assert told.at == [0, 5]
    for _ in range(100):
        service.resync()
        await asyncio.sleep(0.01)
    await asyncio.sleep(3)
    assert told.at == [0, 5, 6, 7]
    running.cancel()
