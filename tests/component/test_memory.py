"""What the service holds in memory, of rollouts under watch and of those that have ended."""

import asyncio
import gc
import tracemalloc

import msgspec
import pytest

from tests.component.town import House, Town
from watchdog.config import parse
from watchdog.decide.record import Record, State
from watchdog.engine.service import WatchdogService
from watchdog.judge import sequential
from watchdog.judge.sequential import Control, SequentialState
from watchdog.model import Outcome
from watchdog.records import form

pytestmark = pytest.mark.looptime

SETTINGS = """
prometheus = {{url = "http://prometheus", step = "{step}s"}}
[[policies]]
name = "shop"
namespaces = ["shop"]
mode = "enforce"
grace = "0s"
bake = "{bake}"
max_watch = "24h"
signals.errors = {{bad = "errors_total", total = "requests_total"}}
"""


def town_of(*names: str, bake: str, step: int = 5) -> tuple[Town, list[House]]:
    """A town, and its houses."""
    town = Town(parse(SETTINGS.format(bake=bake, step=step)))
    return town, [town.build("shop", name, pods=4, overlap_s=120) for name in names]


def stored(town: Town) -> Record:
    """The only record of the store."""
    (text,) = town.texts.values()
    return form.read(text)


async def ended(service: WatchdogService) -> Record:
    """The only record in memory, once it has ended and is saved."""
    for _ in range(1200):
        await asyncio.sleep(1)
        if found := [each for each in service.context.records.values() if each.state is State.ENDED]:
            await asyncio.sleep(1)
            return service.context.records[found[0].id]
    raise AssertionError("it has not ended")


async def test_rollouts_under_watch_for_an_hour_hold_little_more_than_after_a_quarter() -> None:
    town, houses = town_of("web", "api", "cart", bake="12h", step=15)
    held = []
    tracemalloc.start()
    try:
        async with town.served():
            await asyncio.sleep(1)
            for house in houses:
                town.deploy(house, "v2")
            for minutes in (15, 60):
                await asyncio.sleep(60 * minutes)
                gc.collect()
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    # 720 blocks, each of which would be more than a kilobyte as an object with what each pod counted, and a table of
    # logarithms that all watches share.
    assert held[1] - held[0] < 200_000


@pytest.mark.parametrize("version", ["good", "bad"])
async def test_an_ended_record_is_thin_in_memory_and_whole_where_it_is_asked_for(version: str) -> None:
    town, (house,) = town_of("web", bake="2m")
    house.shares["bad"] = (0.3, town.seconds + 60)
    async with town.served() as service:
        await asyncio.sleep(1)
        town.deploy(house, version)
        record = await ended(service)
        assert (record.blocks, record.pods, record.test_settings) == ({}, (), {})
        assert record.outcome is (Outcome.PASSED if version == "good" else Outcome.RECOVERED)
        whole = await service.record(record.id)
        assert whole is not None
        assert whole == stored(town)
        assert whole.pods
        assert len(whole.blocks["errors"]) > 5


async def test_the_blocks_of_a_record_give_the_evidence_that_it_names() -> None:
    town, (house,) = town_of("web", bake="2m")
    house.shares["bad"] = (0.3, town.seconds + 60)
    async with town.served() as service:
        await asyncio.sleep(1)
        town.deploy(house, "bad")
        await ended(service)
    record, state = stored(town), SequentialState()
    for block in record.blocks["errors"]:
        state = sequential.step(state, block, record.test_settings["errors"])
    stands = {stand.control: stand.log_e for stand in record.evidence["errors"]}
    assert stands == pytest.approx({str(control): state.evidence(control).log_e for control in Control})
    assert max(stands.values()) > record.test_settings["errors"].bar


async def test_a_record_that_changes_after_its_end_is_saved_whole() -> None:
    town, (house,) = town_of("web", bake="2m")
    async with town.served() as service:
        await asyncio.sleep(1)
        town.deploy(house, "good")
        thin, before = await ended(service), stored(town)
        service.context.put(msgspec.structs.replace(thin, detail="said anew"))
        await asyncio.sleep(1)
        assert stored(town) == msgspec.structs.replace(before, detail="said anew")
        assert service.context.records[thin.id].blocks == {}


async def test_the_next_process_keeps_ended_records_thin_and_loses_nothing_of_them() -> None:
    town, (house,) = town_of("web", bake="2m")
    async with town.served() as service:
        await asyncio.sleep(1)
        town.deploy(house, "good")
        thin, before = await ended(service), stored(town)
    async with town.served() as service:
        await asyncio.sleep(60)
        assert service.context.records[thin.id].blocks == {}
        assert await service.record(thin.id) == before
    assert stored(town) == before


async def test_a_rollout_under_watch_is_shown_with_its_blocks() -> None:
    town, (house,) = town_of("web", bake="1h")
    async with town.served() as service:
        await asyncio.sleep(1)
        town.deploy(house, "good")
        await asyncio.sleep(60)
        (record,) = service.rollouts()
        assert record.blocks == {}
        whole = await service.record(record.id)
        assert whole is not None
        assert len(whole.blocks["errors"]) >= 10
