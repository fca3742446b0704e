"""An alert that fires before the service knows its workloads: it is kept for them, and not taken for nobody's."""

import asyncio
from collections.abc import AsyncGenerator

import msgspec
import pytest

from tests.component.world import World
from tests.unit.builders import hash_of, status
from watchdog.engine.context import Context
from watchdog.engine.service import WatchdogService
from watchdog.model import Alert, Silence
from watchdog.ports import AlertView, Changed, Deleted, Listed

LISTED_S = 6.0

pytestmark = pytest.mark.looptime


class SlowWorld(World):
    """The world of an API server that takes its time to list, and of an Alertmanager that answers at once.

    Attributes:
        asked: when the Alertmanager was asked, on the loop's clock.
        listed: when the workloads were.
    """

    def __init__(self) -> None:
        super().__init__(policy='mode = "observe"')
        self.asked: list[float] = []
        self.listed = 0.0

    def start(self) -> WatchdogService:
        service = super().start()
        ports = msgspec.structs.replace(service.context.ports, alerts=self.Alerts(self))
        return WatchdogService(Context(self.config, ports, service.context.metrics, now=self.now), self)

    async def watch(self, namespace: str) -> AsyncGenerator[Listed | Changed | Deleted, None]:
        await asyncio.sleep(LISTED_S)
        self.listed = asyncio.get_running_loop().time()
        async for change in super().watch(namespace):
            yield change

    class Alerts:
        """The Alertmanager port."""

        def __init__(self, world: "SlowWorld") -> None:
            self._world = world

        async def alerts(self, *, timeout_s: float) -> AlertView:
            world = self._world
            world.asked.append(asyncio.get_running_loop().time())
            labels = {"alertname": "Errors", "namespace": "shop", "deployment": "web", "rollback_watchdog": "true"}
            assert world.firing
            alert = Alert(fingerprint="f", labels=labels, starts_at=world.firing, firing=True)
            return AlertView(alerts=(alert,), trustworthy=True)

        async def silences(self, *, timeout_s: float) -> tuple[Silence, ...] | None:
            return ()


async def test_an_alert_is_attributed_though_the_alertmanager_answers_before_workloads_are_listed() -> None:
    world = SlowWorld()
    world.deploy("bad")
    generation = world.scene.deployment["metadata"]["generation"]
    world.scene.deployment["status"] = status(generation=generation, replicas=4, updated=1, available=3)
    await asyncio.sleep(3)
    world.firing = world.now()
    service = world.start()
    task = asyncio.create_task(service.run())
    await asyncio.sleep(LISTED_S + 35)  # what fires when a watch begins is looked at with the next answer
    [record] = [each for each in service.context.records.values() if each.rollout.hash == hash_of("bad")]
    task.cancel()
    await asyncio.wait({task})
    assert [(alert.name, alert.what) for alert in record.alerts] == [("Errors", "attributed")]
    assert world.asked
    assert world.asked[0] >= world.listed, "whose it is can only be told then"


async def test_an_alert_that_is_pushed_before_workloads_are_listed_is_to_be_sent_again() -> None:
    world = SlowWorld()
    world.firing = world.now()
    service = world.start()
    task = asyncio.create_task(service.run())
    await asyncio.sleep(LISTED_S - 1)
    early = service.accepting()
    await asyncio.sleep(2)
    late = service.accepting()
    task.cancel()
    await asyncio.wait({task})
    assert (early, late) == (False, True)
