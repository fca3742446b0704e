"""A fault that nobody foresaw, at any part of the outside, costs its own rollout a step and nobody anything else."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest

from tests.component.world import WEB, World
from tests.unit.builders import hash_of
from watchdog.decide import incident as life
from watchdog.decide.record import Notified, Record, State
from watchdog.engine.faults import Faults
from watchdog.errors import NotificationError
from watchdog.metrics import Metrics, Part
from watchdog.model import Action, IncidentId, Mode, Outcome, Rollout, Topology
from watchdog.ports import Changed, Deleted, Listed

pytestmark = pytest.mark.looptime


class Broken(World):
    """A world in which the first calls of one method raise what no border should."""

    def __init__(self, method: str, *, times: int, policy: str = 'mode = "enforce"') -> None:
        super().__init__(policy=policy)
        self.left = times
        if method == "watch":
            return
        whole: Callable[..., Awaitable[Any]] = getattr(self, method)

        async def broken(*args: Any, **kwargs: Any) -> Any:
            self._maybe_raise()
            return await whole(*args, **kwargs)

        setattr(self, method, broken)

    def _maybe_raise(self) -> None:
        if self.left > 0:
            self.left -= 1
            raise KeyError("nobody foresaw this")

    async def watch(self, namespace: str) -> AsyncGenerator[Listed | Changed | Deleted, None]:
        async for change in super().watch(namespace):
            self._maybe_raise()
            yield change


METHODS = (
    "all",
    "save",
    "tell",
    "read",
    "read_past",
    "bad_seen",
    "resets",
    "pods",
    "replicasets",
    "post_event",
    "watch",
)


@pytest.mark.parametrize("method", METHODS)
async def test_a_bad_version_is_undone_although_something_raises_what_nobody_foresaw(method: str) -> None:
    world = Broken(method, times=3)
    world.errors = {"bad": 0.3}
    asyncio.get_running_loop().call_later(10, world.deploy, "bad")
    await world.live(90)
    bad = [record for record in world.records.values() if record.rollout.hash == hash_of("bad")]
    assert [record.outcome for record in bad] == [Outcome.RECOVERED], (method, world.writes)
    assert world.writes.count("patch") == 1
    assert world.left == 0


async def test_a_fault_is_counted_said_once_and_tried_again_with_growing_pauses(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = Metrics()
    faults, loop = Faults(metrics), asyncio.get_running_loop()
    began: list[float] = []

    async def run() -> None:
        began.append(loop.time())
        raise LookupError("again")

    task = asyncio.create_task(faults.keep(Part.POLL, run))
    await asyncio.sleep(16)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    pauses = [round(after - before) for before, after in itertools.pairwise(began)]
    assert pauses == [1, 2, 4, 8]
    assert [record.levelname for record in caplog.records].count("ERROR") == 1
    assert b'rollback_watchdog_faults_total{part="poll"} 5.0' in metrics.exposition()[0]


async def test_a_loop_that_has_worked_for_long_begins_with_a_short_pause() -> None:
    faults, loop = Faults(Metrics()), asyncio.get_running_loop()
    began: list[float] = []

    async def run() -> None:
        began.append(loop.time())
        await asyncio.sleep(100 if len(began) > 3 else 0)
        raise LookupError("at last")

    task = asyncio.create_task(faults.keep(Part.POLL, run))
    await asyncio.sleep(115)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [round(each - began[0]) for each in began] == [0, 1, 3, 7, 108]


class SlackAway(World):
    """A world in which Slack hangs for a quarter of an hour, and only the newest record is kept meanwhile."""

    async def tell(self, record: Record) -> Notified | None:
        await asyncio.sleep(900)
        raise NotificationError("Slack is not reached")

    async def prune(self, records: Sequence[Record], *, timeout_s: float) -> tuple[IncidentId, ...]:
        gone = tuple(record.id for record in sorted(records, key=lambda each: each.started)[:-1])
        for incident in gone:
            self.records.pop(incident, None)
        return gone

    async def _end(self) -> None:
        await asyncio.Event().wait()


async def test_a_record_that_is_pruned_while_slack_is_away_holds_nothing_up() -> None:
    world = SlackAway()
    world.errors = {"bad": 0.3}
    loop = asyncio.get_running_loop()
    for at, version in ((10, "fix"), (100, "worse"), (3000, "bad")):
        loop.call_later(at, world.deploy, version)
    await world.live(3100)
    ended = {record.rollout.hash: record.outcome for record in world.records.values()}
    assert ended == {hash_of("worse"): Outcome.PASSED, hash_of("bad"): Outcome.RECOVERED}


async def test_a_loop_that_is_cancelled_ends_although_its_closing_fails() -> None:
    async def run() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            raise RuntimeError("what was open cannot be closed")

    task = asyncio.create_task(Faults(Metrics()).keep(Part.WATCH, run))
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.wait({task}, timeout=10)
    assert task.cancelled()


async def test_a_record_that_ended_or_was_lowered_stays_so_whoever_held_an_older_state_of_it() -> None:
    world = World()
    context = world.start().context
    async with asyncio.TaskGroup() as group:
        context.works_in(group)
        rollout = Rollout(WEB, "uid", 2, hash_of("bad"))
        older = Record(
            id=rollout.incident,
            rollout=rollout,
            policy="web",
            policy_digest="d",
            topology=Topology.ROLLING,
            mode=Mode.ENFORCE,
            action=Action.UNDO,
            started=world.now(),
        )
        context.put(older)
        context.put(msgspec.structs.replace(older, mode=Mode.OBSERVE))
        assert context.put(older).mode is Mode.OBSERVE
        context.put(life.end(older, Outcome.SUPERSEDED, "by someone else", now=world.now()))
        assert context.put(life.advance(older, life.Happening.BREACH, now=world.now())).state is State.ENDED
        assert context.open_of(WEB) is None


class OneHangs(World):
    """Slack takes no message about one version, for ever."""

    async def tell(self, record: Record) -> Notified | None:
        if record.rollout.hash == hash_of("bad"):
            await asyncio.Event().wait()
        return await super().tell(record)


async def test_a_message_that_slack_does_not_take_holds_up_no_other_incidents() -> None:
    world = OneHangs()
    world.errors = {"bad": 0.3, "worse": 0.4}
    loop = asyncio.get_running_loop()
    loop.call_later(2, world.deploy, "bad")
    loop.call_later(9, world.deploy, "worse")
    await world.live(80)
    told = {record.rollout.hash for record in world.records.values() if record.id in dict(world.said)}
    assert told == {hash_of("worse")}


def test_a_fault_that_never_ends_is_contained_as_the_first_one_was() -> None:
    faults = Faults(Metrics())
    pauses = [faults.note(Part.JUDGE, LookupError("again"), about="web-2") for _ in range(3000)]
    assert pauses[:7] == [1, 2, 4, 8, 16, 32, 60]
    assert set(pauses[7:]) == {60}
