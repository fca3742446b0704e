"""A rollout judged by the rule `sequential`, in a world whose old pods are gone at once."""

import asyncio
import datetime as dt

import pytest

from tests.component.world import SETTINGS, World
from tests.unit.builders import NOW, hash_of
from watchdog.config import parse
from watchdog.decide.marks import CONDEMNED
from watchdog.decide.record import Record
from watchdog.judge.blocks import Verdict
from watchdog.model import Alert, Outcome

POLICY = 'mode = "enforce"\nsensitivity = "quick"'

pytestmark = pytest.mark.looptime


async def play(
    errors: float, *, age: dt.timedelta = dt.timedelta(hours=1), die_after: int | None = None
) -> tuple[World, Record]:
    world = World(policy=POLICY, rule="sequential", age=age, die_after=die_after)
    world.errors = {"good": 0.004, "bad": errors}

    story = asyncio.create_task(deployed(world))
    await world.live(60)
    if world.dead.is_set():
        world.revive()
        await asyncio.sleep(1)
        await world.live(70)
    await story
    return world, newest(world)


async def lived(world: World, *, seconds: float = 60) -> Record:
    """What became of a version that is deployed while the service lives."""
    story = asyncio.create_task(deployed(world))
    await world.live(seconds)
    await story
    return newest(world)


async def deployed(world: World) -> None:
    await asyncio.sleep(2)
    world.deploy("bad")


def newest(world: World) -> Record:
    return next(each for each in world.records.values() if each.rollout.hash == hash_of("bad"))


def breach(record: Record) -> str:
    return next(each.detail for each in record.verdicts if each.status == "breach")


async def test_without_a_history_the_past_only_asks_and_says_what_it_cannot_know() -> None:
    world, record = await play(0.3, age=dt.timedelta(minutes=3))
    assert record.outcome is Outcome.REFUSED
    [objection] = [objection for objection in record.objections if objection.guard == "no-history"]
    assert "in 0 windows of 5 min of the day before" in objection.detail
    assert record.plan
    assert record.plan.cause == "sequential"
    assert "cannot tell the version from an outage" in breach(record)
    stand = {each.control: each for each in record.evidence["errors"]}
    assert stand["historical"].log_e >= stand["historical"].bar
    assert world.writes.count("patch") == 0


async def test_with_a_history_a_bad_version_whose_old_pods_are_gone_at_once_is_undone_by_the_time_before() -> None:
    world, record = await play(0.3)
    assert record.outcome is Outcome.RECOVERED, record.detail
    settings = record.test_settings["errors"]
    assert settings.known
    assert settings.base == pytest.approx(0.004, abs=0.001)
    assert "windows of 5 min of the day before" in settings.past
    assert not record.incident_first
    assert "cannot tell the version from an outage" in breach(record)
    assert world.writes.count("patch") == 1


async def test_a_version_that_comes_while_the_old_one_fails_may_be_the_fix_and_is_asked_about() -> None:
    world = World(policy=POLICY, rule="sequential", age=dt.timedelta(hours=8))
    world.errors = {"good": 0.004, "bad": 0.9}
    world.failing = {"good": (0.2, NOW.timestamp() - 60)}
    record = await lived(world)
    assert record.outcome is Outcome.REFUSED
    assert "failed in the 10 min before the rollout" in record.incident_first
    assert world.writes.count("patch") == 0


@pytest.mark.parametrize(("failing", "outcome"), [(2, Outcome.REFUSED), (1, Outcome.RECOVERED)])
async def test_an_outage_that_other_workloads_show_too_is_asked_about(failing: int, outcome: Outcome) -> None:
    world = World(policy=POLICY, rule="sequential")
    world.errors = {"good": 0.004, "bad": 0.3}
    out, well = (0.2, NOW.timestamp() + 5), (0.0, 0.0)
    world.neighbours = {f"o{index}": out if index < failing else well for index in range(4)}
    record = await lived(world)
    assert [each.name for each in record.test_settings["errors"].bystanders] == [f"shop/o{index}" for index in range(4)]
    assert record.outcome is outcome
    objections = [objection.detail for objection in record.objections if objection.guard == "bystanders"]
    assert objections == (["2 of 4 other workloads fail too: shop/o0, shop/o1"] if failing == 2 else [])


async def test_one_pod_with_nearly_all_failures_is_asked_about_with_its_node() -> None:
    world = World(policy=POLICY, rule="sequential")
    world.errors = {"good": 0.004, "bad": 0.004, "bad-1": 0.5}
    record = await lived(world)
    assert record.outcome is Outcome.REFUSED
    [detail] = [objection.detail for objection in record.objections if objection.guard == "one-pod"]
    assert detail.endswith(f"are of pod web-{hash_of('bad')}-00001 on node node-1")


async def test_a_version_that_only_the_past_spoke_against_is_absolved_if_its_undo_does_not_help() -> None:
    world = World(policy=POLICY, rule="sequential")
    world.errors = {"good": 0.004, "bad": 0.004}
    world.failing = dict.fromkeys(("good", "bad"), (0.3, NOW.timestamp() + 6))
    record = await lived(world)
    assert record.outcome is Outcome.INEFFECTIVE
    assert "requests failed, limit 1.3%" in record.detail
    assert [(each.control, each.reached is not None) for each in record.evidence["errors"]] == [
        ("concurrent", False),
        ("historical", True),
    ]
    [bad] = [each for each in world.scene.snapshot.replicasets if each.hash == hash_of("bad")]
    assert world.writes.count("mark") >= 2, "condemned, and absolved"
    assert CONDEMNED not in bad.metadata.annotations


async def test_what_is_recovered_is_measured_by_the_limit_of_the_past_and_not_by_a_fixed_one() -> None:
    world = World(policy=POLICY, rule="sequential")
    world.errors = {"good": 0.004, "bad": 0.3}
    world.failing = {"good": (0.04, NOW.timestamp() + 5)}  # of rules that allow 5 %
    record = await lived(world)
    assert record.outcome is Outcome.INEFFECTIVE


async def test_nothing_is_called_healthy_by_a_past_that_failed_too_often_to_judge_by() -> None:
    world = World(policy=POLICY, rule="sequential")
    world.errors = {"good": 0.2, "bad": 0.2}
    record = await lived(world)
    assert record.outcome is Outcome.UNJUDGED
    assert "no-reference: 20.0 % failed in the worst 5 min of the day before" in record.detail


async def test_a_healthy_rollout_passes() -> None:
    world, record = await play(0.002)
    assert record.outcome is Outcome.PASSED, record.detail
    assert world.writes.count("patch") == 0


async def test_another_policy_judges_the_rollout_anew_and_says_so() -> None:
    world = World(policy=POLICY, rule="sequential")
    world.errors = {"good": 0.004, "bad": 0.004}
    story = asyncio.create_task(deployed(world))
    await world.live(6)
    before = newest(world)
    world.config = parse(SETTINGS.format(policy=POLICY, rule="sequential").replace('grace = "0s"', 'grace = "1s"'))
    await world.live(60)
    await story
    after = newest(world)
    assert after.policy_digest != before.policy_digest
    assert [each.detail for each in after.verdicts].count(
        "the policy was changed during the watch: the rollout is judged anew"
    ) == 1
    assert after.outcome is Outcome.PASSED


async def test_whoever_replays_the_past_after_a_death_comes_to_the_same_counts_and_evidence() -> None:
    _, undisturbed = await play(0.3)
    for write in range(1, 8):
        _, record = await play(0.3, die_after=write)
        assert (record.outcome, breach(record)) == (undisturbed.outcome, breach(undisturbed)), write
        assert record.test_settings == undisturbed.test_settings


@pytest.mark.parametrize(("rps", "outcome"), [(0.2, Outcome.REFUSED), (5.0, Outcome.PASSED)])
async def test_a_version_that_callers_stay_away_from_is_asked_about_two_minutes_after_it_is_alone(
    rps: float, outcome: Outcome
) -> None:
    world = World(policy=POLICY, rule="sequential", age=dt.timedelta(hours=3))
    world.config = parse(SETTINGS.replace('bake = "10s"', 'bake = "140s"').format(policy=POLICY, rule="sequential"))
    world.traffic = {"bad": rps}
    record = await lived(world, seconds=300)
    assert record.lowest["errors"] == pytest.approx(120 * 3 * 50)
    assert record.outcome is outcome, record.detail
    assert world.writes.count("patch") == 0
    if outcome is Outcome.REFUSED:
        assert breach(record) == "72 requests in the last 2 min, where the day before had 18000 and more"
        assert [objection.guard for objection in record.objections] == ["unconfirmed"]
        assert record.plan
        assert record.plan.cause == "starved"


async def test_a_starved_version_is_found_by_the_process_that_replays_its_past_too() -> None:
    ends = []
    for dies in (None, 4):
        world = World(policy=POLICY, rule="sequential", age=dt.timedelta(hours=3), die_after=dies)
        world.config = parse(SETTINGS.replace('bake = "10s"', 'bake = "140s"').format(policy=POLICY, rule="sequential"))
        world.traffic = {"bad": 0.2}
        story = asyncio.create_task(deployed(world))
        await world.live(300)
        assert world.dead.is_set() == (dies is not None)
        world.revive()
        await asyncio.sleep(1)
        await world.live(300)
        await story
        record = newest(world)
        ends.append((record.outcome, breach(record), record.lowest))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("rps", [0.2, 50.0])
async def test_new_pods_with_little_traffic_beside_old_ones_are_noted_once_and_pass(rps: float) -> None:
    world = World(policy=POLICY, rule="sequential", age=dt.timedelta(hours=3))
    world.config = parse(SETTINGS.replace('bake = "10s"', 'bake = "140s"').format(policy=POLICY, rule="sequential"))
    world.traffic, world.stays = {"bad": rps}, True
    record = await lived(world, seconds=300)
    assert record.outcome is Outcome.PASSED, record.detail
    notes = [each.detail for each in record.verdicts if "little traffic" in each.detail]
    where = "where their share were 4518"
    assert notes == ([f"the new pods get little traffic: 36 requests in a minute, {where}"] if rps < 1 else [])


HEARD = 25.4
"""Between two steps, when the evidence has passed the bar of an alert and not yet the other."""


def slowly_failing(*, mode: str = "enforce", share: float = 0.05) -> World:
    world = World(policy=POLICY, rule="sequential")
    settings = SETTINGS.replace('bake = "10s"', 'bake = "40s"').replace('approval = "20s"', 'approval = "1h"')
    world.config = parse(settings.format(policy=POLICY.replace("enforce", mode), rule="sequential"))
    world.errors, world.traffic = {"good": 0.004, "bad": share}, {"bad": 5.0}
    return world


async def alerted(world: World, *, at: float) -> None:
    """An Alertmanager tells of an alert about `web`, at a time from the world's beginning."""
    began = world.firing = NOW + dt.timedelta(seconds=20)
    labels = {"alertname": "Errors", "namespace": "shop", "deployment": "web", "rollback_watchdog": "true"}
    await asyncio.sleep(at - (world.now() - NOW).total_seconds())
    assert world.service
    assert world.service.take((Alert(fingerprint="f", labels=labels, starts_at=began, firing=True),))


async def test_an_alert_has_the_default_rule_act_at_once_on_the_evidence_that_is_in() -> None:
    acted = []
    for alert in (True, False):
        world = slowly_failing()
        story = asyncio.create_task(alerted(world, at=HEARD)) if alert else None
        record = await lived(world)
        assert record.outcome is Outcome.RECOVERED, record.detail
        assert [each.what for each in record.alerts] == ["attributed"] * alert
        acted.append((next(each for each in record.verdicts if each.status == "breach"), record.evidence["errors"]))
        if story:
            await story
    (with_alert, stands), (calm, stands_alone) = acted
    assert (with_alert.at - NOW).total_seconds() == pytest.approx(HEARD, abs=0.1)
    assert (calm.at - NOW).total_seconds() == pytest.approx(29, abs=0.1), "the rule alone goes on until the higher bar"
    assert ("needed 40 : 1" in with_alert.detail, "needed 200 : 1" in calm.detail) == (True, True)
    assert [(stand.control, stand.reached) for stand in stands] == [
        ("concurrent", None),
        ("historical", pytest.approx(3.688879, abs=1e-6)),
    ]
    assert [stand.reached for stand in stands_alone] == [None, stands_alone[1].bar]


async def test_an_alert_about_a_version_whose_counters_are_good_changes_nothing() -> None:
    world = slowly_failing(share=0.004)
    story = asyncio.create_task(alerted(world, at=HEARD))
    record = await lived(world)
    await story
    assert [each.what for each in record.alerts] == ["attributed"]
    assert record.outcome is Outcome.PASSED, record.detail
    assert world.writes.count("patch") == 0


async def test_whoever_replays_an_alert_that_came_between_two_steps_judges_as_the_process_that_heard_it() -> None:
    """The next process hears the same alert again, as an Alertmanager repeats it, and it counts from when it did."""
    world, said = slowly_failing(mode="approve"), list[tuple[tuple[Verdict, ...], list[float | None]]]()

    async def judged(at: float) -> None:
        await asyncio.sleep(at - (world.now() - NOW).total_seconds())
        assert world.service
        [item] = [each for each in world.service.rollouts() if each.rollout.hash == hash_of("bad")]
        seen = world.service.poller.last(item.id)
        assert seen
        said.append((seen.watch.verdicts(urgent=False), [each.reached for each in seen.watch.evidence()["errors"]]))

    stories = [asyncio.create_task(each) for each in (deployed(world), alerted(world, at=HEARD), judged(34.5))]
    await world.live(35)
    stories += [asyncio.create_task(each) for each in (alerted(world, at=36.2), judged(38.5))]
    await world.live(5)
    await asyncio.gather(*stories)
    assert said[0] == said[1]
    [verdict], reached = said[1]
    assert verdict.detail == breach(newest(world))
    assert reached == [None, pytest.approx(3.688879, abs=1e-6)]
