"""What the service does while its write is refused, and what it says: in virtual time, on the world of the deaths."""

import asyncio
from itertools import pairwise

import msgspec
import pytest

from tests.component.test_service_deaths import until
from tests.component.world import World
from tests.unit.builders import NOW, Scene, hash_of
from watchdog.decide import marks
from watchdog.decide.record import Record, State
from watchdog.errors import ClusterError, Conflict, Denied, NotAdmitted, PreconditionFailed, ServerError, Throttled
from watchdog.model import Event, Outcome
from watchdog.notify.wording import render

pytestmark = pytest.mark.looptime

PATCH = "patch deployments shop/web"
FOREVER = 100
LONG_S = 420


def no(code: int, *, retry_after_s: float = 0.0) -> NotAdmitted:
    by = 'admission webhook "images.example.test"'
    return NotAdmitted(PATCH, code=code, refuser=by, sentence="v1 has a hole", retry_after_s=retry_after_s)


def record_of(world: World) -> Record:
    return next(record for record in world.records.values() if record.rollout.hash == hash_of("bad"))


def writes(world: World) -> list[float]:
    return [call.at for call in world.calls if call.method == "patch"]


def failed(world: World) -> list[Event]:
    return [event for event in world.events if event.reason == "RollbackFailed"]


async def play(world: World, seconds: float = LONG_S) -> None:
    """A bad version under the service."""
    world.errors = {"bad": 0.3}

    async def deploy() -> None:
        await asyncio.sleep(2)
        world.deploy("bad")

    story = asyncio.create_task(deploy())
    await world.live(seconds)
    await story


@pytest.mark.parametrize("error", [no(400), no(403), Denied(PATCH, 'Forbidden: User "x" cannot patch')])
async def test_a_no_for_good_is_tried_once_more_and_then_told_with_the_way_out(error: ClusterError) -> None:
    world = World()
    world.fail("patch", *[error] * FOREVER)
    await play(world)
    record = record_of(world)
    assert (record.outcome, len(writes(world))) == (Outcome.FAILED, 2)
    assert writes(world)[1] - writes(world)[0] == 1
    assert "after 2 tries in 1 s" in record.detail
    assert error.reason in record.detail
    assert "kubectl -n shop rollout undo deployment/web --to-revision=1" in record.detail
    assert [event.note for event in failed(world)] == [record.detail]
    message = render(record)
    assert message is not None
    assert message.first_line.startswith("shop/web: rolling back 2 → 1 FAILED")
    assert message.first_line.endswith("kubectl -n shop rollout undo deployment/web --to-revision=1")


@pytest.mark.parametrize(
    "error",
    [
        no(409),
        no(422),
        no(429),
        no(500),
        Conflict(PATCH, "Conflict"),
        PreconditionFailed(PATCH, "Invalid"),
        Throttled(PATCH, "TooManyRequests", retry_after_s=1),
        ServerError(PATCH, "InternalError"),
    ],
)
async def test_a_no_that_may_pass_is_tried_about_a_dozen_times_in_the_time_for_an_undo(error: ClusterError) -> None:
    world = World()
    world.fail("patch", *[error] * FOREVER)
    await play(world)
    record, at = record_of(world), writes(world)
    assert (record.outcome, len(failed(world))) == (Outcome.FAILED, 1)
    assert 10 <= len(at) <= 12
    assert 300 <= at[-1] - at[0] < 301
    pauses = [round(later - before) for before, later in pairwise(at)]
    assert pauses[:6] == [1, 2, 4, 8, 16, 32]
    assert "--to-revision=1" in record.detail


async def test_while_it_is_tried_the_record_and_the_message_say_who_refuses_and_what_is_tried() -> None:
    world = World()
    world.fail("patch", *[no(422)] * FOREVER)
    await play(world, 30)
    record = record_of(world)
    assert record.state is State.ACTING
    assert record.tried is not None
    assert record.plan is not None
    assert (record.plan.from_revision, record.plan.to_revision, record.plan.to_hash) == (2, 1, hash_of("good"))
    assert record.detail.startswith('refused by admission webhook "images.example.test": v1 has a hole; tried again')
    message = render(record)
    assert message is not None
    assert "rolling back 2 → 1" in message.first_line
    assert "Nothing to do" not in message.text
    assert message.first_line.endswith("kubectl -n shop rollout undo deployment/web --to-revision=1")


@pytest.mark.parametrize("refused", [[no(403)], [no(422)] * 4, [no(500)] * 5, [no(429, retry_after_s=30)]])
async def test_a_refuser_that_gives_way_has_the_undo_done(refused: list[ClusterError]) -> None:
    world = World()
    world.fail("patch", *refused)
    await play(world)
    assert (record_of(world).outcome, failed(world)) == (Outcome.RECOVERED, [])
    assert len(writes(world)) == len(refused) + 1


@pytest.mark.parametrize(("asked_s", "waited_s"), [(30, 30), (86400, 60)])
async def test_a_retry_after_is_honoured_for_a_minute_at_most(asked_s: float, waited_s: float) -> None:
    world = World()
    world.fail("patch", Throttled(PATCH, "TooManyRequests", retry_after_s=asked_s))
    await play(world)
    first, second = writes(world)
    assert second - first == pytest.approx(waited_s)


async def test_a_process_that_dies_while_it_tries_leaves_its_bounds_to_the_next() -> None:
    world = World()
    world.fail("patch", *[no(422)] * FOREVER)
    await play(world, 60)
    before = record_of(world)
    await world.live(LONG_S)
    record, at = record_of(world), writes(world)
    assert before.tried is not None
    assert record.tried is not None
    assert (record.outcome, record.tried.until) == (Outcome.FAILED, before.tried.until)
    assert len(at) <= 13
    assert at[-1] - at[0] < 310


async def test_a_hotfix_ends_the_trying_at_once() -> None:
    world = World()
    world.fail("patch", *[no(422)] * FOREVER)

    async def fix() -> None:
        await until(lambda: len(writes(world)) == 6)
        await asyncio.sleep(5)
        world.deploy("fix")

    story = asyncio.create_task(fix())
    await play(world, 120)
    await story
    record = record_of(world)
    assert (record.outcome, len(writes(world))) == (Outcome.SUPERSEDED, 6)
    fixed = next(each for each in world.records.values() if each.rollout.hash == hash_of("fix"))
    assert fixed.outcome is Outcome.PASSED


@pytest.mark.parametrize(
    ("annotation", "word"),
    [("rollback-watchdog.io/mode", "mode"), (marks.HOLD, "hold")],
)
async def test_whoever_says_stop_while_it_is_tried_is_heard(annotation: str, word: str) -> None:
    world = World()
    world.fail("patch", *[no(422)] * FOREVER)

    async def stop() -> None:
        await until(lambda: len(writes(world)) == 4)
        world.scene.annotations[annotation] = "observe" if word == "mode" else "stop it"

    story = asyncio.create_task(stop())
    await play(world)
    await story
    record = record_of(world)
    assert (record.outcome, len(writes(world))) == (Outcome.REFUSED, 4)
    assert record.detail.startswith(f"{word}: ")


async def test_the_bound_is_the_time_for_an_undo() -> None:
    world = World()
    rollback = msgspec.structs.replace(world.config.rollback, timeout=20)
    world.config = msgspec.structs.replace(world.config, rollback=rollback)
    world.fail("patch", *[no(500)] * FOREVER)
    await play(world)
    at = writes(world)
    assert [round(each - at[0]) for each in at] == [0, 1, 3, 7, 15, 20]


async def test_what_a_mutating_webhook_made_of_the_good_version_is_ours_and_proven_to_have_helped() -> None:
    world = World()

    def inject(scene: Scene) -> None:
        template = msgspec.json.decode(msgspec.json.encode(scene.spec["template"]))
        template["metadata"].setdefault("annotations", {})["injected"] = "yes"
        scene.spec["template"] = template

    world.admit = inject
    await play(world)
    assert [record.rollout.hash for record in world.records.values()] == [hash_of("bad")], "no watch of the restored"
    record = record_of(world)
    assert (record.outcome, len(writes(world))) == (Outcome.RECOVERED, 1)
    assert record.plan is not None
    assert record.plan.to_hash == hash_of("fix"), "the hash that the controller gave it"
    assert "requests failed afterwards" in record.detail


# -- mode observe ------------------------------------------------------------------------------------------------------

OBSERVE = 'mode = "observe"'


async def test_observing_shows_the_plan_that_would_have_been_carried_out() -> None:
    world = World(policy=OBSERVE)
    await play(world, 60)
    record = record_of(world)
    assert (record.outcome, record.detail) == (Outcome.OBSERVED, "would have done this: undo 2 → 1")
    assert record.plan is not None
    assert (record.plan.from_revision, record.plan.to_revision, record.plan.to_hash) == (2, 1, hash_of("good"))
    assert record.plan.target_images == {"web": "registry.example/web:good"}
    assert writes(world) == []
    assert world.count("dry run") == world.count("patch_replicaset") == 0
    message = render(record)
    assert message is not None
    assert message.first_line.startswith("OBSERVE: shop/web: would roll back 2 → 1, ")


@pytest.mark.parametrize(
    ("guard", "annotations", "spec"),
    [
        ("hold", {marks.HOLD: "stop"}, {}),
        ("recreate", {}, {"strategy": {"type": "Recreate"}}),
    ],
)
async def test_observing_shows_the_guards_that_would_have_refused(
    guard: str, annotations: dict[str, str], spec: dict[str, object]
) -> None:
    world = World(policy=OBSERVE)
    world.scene.annotations.update(annotations)
    world.scene.spec.update(spec)
    await play(world, 60)
    record = record_of(world)
    assert (record.outcome, [objection.guard for objection in record.objections]) == (Outcome.OBSERVED, ["mode", guard])
    message = render(record)
    assert message is not None
    assert message.first_line.startswith(f"OBSERVE: shop/web: would NOT roll back 2 → 1 ({guard}), ")


async def test_observing_shows_that_a_person_would_have_been_asked() -> None:
    world = World(policy=OBSERVE)
    world.scene.replicasets[0]["metadata"]["creationTimestamp"] = NOW.isoformat()
    await play(world, 60)
    record = record_of(world)
    assert record.outcome is Outcome.OBSERVED
    assert "target-not-passed" in [objection.guard for objection in record.objections]
    assert record.detail.startswith("would have asked before this: undo 2 → 1; target-not-passed: ")
