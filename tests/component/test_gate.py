"""The gate in a world in memory and in virtual time: verdict, action, and who else may end it."""

import asyncio
import datetime as dt
import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from tests.component.world import RPS, WEB, World
from tests.unit.builders import NOW, Json, decoded, hash_of, history, replicaset, status, template
from watchdog.cli.gate import exit_code
from watchdog.config import Policy, Seconds
from watchdog.decide import marks
from watchdog.decide.limits import Facts, SafetyLimits, condemned_images, objections
from watchdog.decide.plan import Request
from watchdog.decide.record import Answer, Record, State
from watchdog.decide.revisions import live_rollout, read_history
from watchdog.engine.act import Actor
from watchdog.engine.verify import Patience
from watchdog.errors import Denied, NotFound, Unanswered, UsageError
from watchdog.gate import Gate, GatePorts, GateRequest, Report
from watchdog.gate.others import ServiceState
from watchdog.gate.pinned import look, pin
from watchdog.gate.tally import SignalNumbers
from watchdog.judge.blocks import Blind, BlindReason, Reading, Sample, ScrapeTarget, Status, Verdict
from watchdog.model import (
    MANAGER,
    Action,
    Cause,
    Guard,
    IncidentId,
    Mode,
    Objection,
    Outcome,
    Result,
    Rollout,
    ScaleDown,
    Topology,
    Undo,
)
from watchdog.objects import HASH_LABEL, Deployment, LabelSelector, Pod, PodStatus, ReplicaSet, WorkloadRef
from watchdog.ports import SignalQuery

pytestmark = pytest.mark.looptime

STABLE = WorkloadRef("shop", "web-stable")
CI = Cause("ci", "")


class Beside(World):
    """The same world with old pods that stay: those of a stable Deployment, whose requests may begin to fail.

    Attributes:
        stable_errors: which share of them does.
        rps: requests per second of each pod.
        blind: why no counter can be read, while that is so.
        pulling: names of pods that cannot pull their image.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.stable_errors = 0.0
        self.rps = RPS
        self.blind: Blind | None = None
        self.pulling: set[str] = set()
        self.stable = history("stable", replicas=3)
        for document in (self.stable.deployment, *self.stable.replicasets):
            document["metadata"]["name"] = document["metadata"]["name"].replace("web", STABLE.name)
        self.stable.deployment["metadata"]["uid"] = "uid-of-web-stable"
        self.stable.replicasets[0]["metadata"]["ownerReferences"][0]["uid"] = "uid-of-web-stable"
        self.stable.spec["selector"] = {"matchLabels": {"app": STABLE.name}}
        self.stable.deployment["status"] = status(generation=1, replicas=3, updated=3, available=3)

    async def deployment(self, ref: WorkloadRef, *, timeout_s: float) -> Deployment:
        if ref == STABLE:
            return decoded(self.stable.deployment, Deployment)
        return await super().deployment(ref, timeout_s=timeout_s)

    async def replicasets(self, namespace: str, selector: LabelSelector, *, timeout_s: float) -> tuple[ReplicaSet, ...]:
        if selector.match_labels.get("app") == STABLE.name:
            return self.stable.snapshot.replicasets
        return await super().replicasets(namespace, selector, timeout_s=timeout_s)

    async def pods(self, namespace: str, selector: LabelSelector, *, timeout_s: float) -> tuple[Pod, ...]:
        mine = await super().pods(namespace, selector, timeout_s=timeout_s)
        owner = self.stable.replicasets[0]["metadata"]
        beside = tuple(decoded(_pod(owner["name"], owner["uid"], index), Pod) for index in range(3))
        found = {"": (*mine, *beside), STABLE.name: beside}.get(selector.match_labels.get("app", ""), mine)
        return tuple(_pulling(pod) if pod.metadata.name in self.pulling else pod for pod in found)

    async def read(self, query: SignalQuery, *, step: int, timeout_s: float) -> Reading:
        if self.blind:
            return Reading(step, blind=self.blind)
        found = await super().read(query, step=step, timeout_s=timeout_s)
        scale = self.rps / RPS
        samples = [
            msgspec.structs.replace(each, total=(each.total or 0) * scale, bad=(each.bad or 0) * scale)
            for each in found.samples
        ]
        name = self.stable.replicasets[0]["metadata"]["name"]
        for index in range(3):
            total = self.rps * (step - 1_000_000_000)
            bad = self.rps * max(0.0, step - NOW.timestamp()) * self.stable_errors
            row = ScrapeTarget("shop", f"{name}-{index:05}", "web", f"10.0.1.{index}", "pods")
            samples.append(Sample(row, total, bad, float(step)))
        return Reading(step, tuple(samples))


class Crowded(World):
    """A namespace with other Deployments, the first of which begin to roll out with us."""

    def __init__(self, *, rolling: int) -> None:
        super().__init__()
        self._rolling = rolling

    async def replicasets(self, namespace: str, selector: LabelSelector, *, timeout_s: float) -> tuple[ReplicaSet, ...]:
        found = await super().replicasets(namespace, selector, timeout_s=timeout_s)
        if selector.match_labels:
            return found
        for index, name in enumerate(self.neighbours):
            new = index < self._rolling and self.now() > NOW + dt.timedelta(seconds=3)
            for version in ("aaa", "bbb") if new else ("aaa",):
                document = replicaset("good", 1, replicas=1)
                document["metadata"]["name"] = f"{name}-{version}"
                document["metadata"]["ownerReferences"][0] |= {"name": name, "uid": name}
                found = (*found, decoded(document, ReplicaSet))
        return found


class Shy(World):
    """Nobody tells of other Deployments."""

    async def replicasets(self, namespace: str, selector: LabelSelector, *, timeout_s: float) -> tuple[ReplicaSet, ...]:
        if not selector.match_labels:
            raise Denied("list replicasets", "Forbidden")
        return await super().replicasets(namespace, selector, timeout_s=timeout_s)


class Forgetful(World):
    """A Prometheus that keeps no day."""

    async def read_past(
        self, query: SignalQuery, *, first: int, last: int, every: int = 1, timeout_s: float
    ) -> tuple[Reading, ...]:
        if every == 1:
            return await super().read_past(query, first=first, last=last, timeout_s=timeout_s)
        blind = Blind(BlindReason.UNREACHABLE, "the day before is not kept")
        return tuple(Reading(step, blind=blind) for step in range(first, last + 1, every))


class Slow(Forgetful):
    """A rolling update whose old pods stay and take requests for a while, of which a fifth fails."""

    def __init__(self, *, overlap_s: float) -> None:
        super().__init__()
        self.errors["good"] = 0.2
        self._overlap_s = overlap_s

    def _control(self) -> None:
        known = set(self._gone)
        super()._control()
        for name in self._gone.keys() - known:
            self._gone[name] += self._overlap_s

    async def pods(self, namespace: str, selector: LabelSelector, *, timeout_s: float) -> tuple[Pod, ...]:
        live = await super().pods(namespace, selector, timeout_s=timeout_s)
        old = [
            decoded(_pod(item.metadata.name, item.metadata.uid, index), Pod)
            for item in self.scene.snapshot.replicasets
            if self._gone.get(item.metadata.name, 0) > self.now().timestamp()
            for index in range(3)
        ]
        return (*live, *old)


def _pod(owner: str, uid: str, index: int) -> Json:
    at = "2026-03-01T10:00:00Z"
    return {
        "metadata": {
            "name": f"{owner}-{index:05}",
            "namespace": "shop",
            "uid": f"{owner}-{index}",
            "creationTimestamp": at,
            "ownerReferences": [{"uid": uid, "controller": True, "kind": "ReplicaSet", "name": owner}],
        },
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at}],
            "containerStatuses": [{"name": "web", "imageID": ""}],
        },
    }


def _pulling(pod: Pod) -> Pod:
    at = pod.metadata.creation_timestamp
    assert at is not None
    document = {
        "phase": "Pending",
        "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": at.isoformat()}],
        "containerStatuses": [{"name": "web", "imageID": "", "state": {"waiting": {"reason": "ImagePullBackOff"}}}],
    }
    return msgspec.structs.replace(pod, status=decoded(document, PodStatus))


def gate(
    world: World,
    *,
    said: list[str] | None = None,
    held_s: float = 60,
    bake_s: float = 30,
    actor: Actor | None = None,
    **changes: object,
) -> Gate:
    """A gate of thirty seconds, or so many, on the world's workload."""
    changes.setdefault("policy", world.config.policies[0])
    changes["policy"] = msgspec.structs.replace(changes["policy"], bake=Seconds(bake_s))  # type: ignore[type-var]
    task = GateRequest(
        workload=WEB, stable=WEB, policy=world.config.policies[0], step_s=1, action=Action.UNDO, cause=CI
    )
    ports = GatePorts(
        cluster=world,
        signals=world,
        store=world,
        actor=actor or acting(world),
        request_s=2,
        read_s=2,
        observed_s=2,
        held_s=held_s,
    )
    told: list[tuple[SignalNumbers, ...]] = []
    heard = [] if said is None else said
    return Gate(msgspec.structs.replace(task, **changes), ports, now=world.now, tell=told.append, say=heard.append)


def acting(world: World) -> Actor:
    return Actor(world, patience=Patience(request_s=2, observed_s=2, verify_s=10), now=world.now)


async def ran(world: World, **changes: Any) -> Report:
    return await gate(world, **changes).run()


def ended(report: Report) -> tuple[Status, Outcome | None, int]:
    """Verdict, outcome, and what a pipeline is told."""
    return report.verdict.status, report.outcome, exit_code(report, allow_insufficient=False)


def later(seconds: float, what: Callable[..., object], *arguments: object) -> None:
    asyncio.get_running_loop().call_later(seconds, what, *arguments)


# -- verdict and action ------------------------------------------------------------------------------------------------


async def test_a_good_version_passes_when_its_time_is_over() -> None:
    world = World()
    world.deploy("fix")
    began = world.now()
    report = await ran(world)
    assert ended(report) == (Status.HEALTHY, Outcome.PASSED, 0)
    assert world.now() - began >= dt.timedelta(seconds=29)
    assert world.writes == []


async def test_a_bad_version_is_undone_before_its_time_is_over() -> None:
    world = World()
    world.errors["bad"] = 0.3
    world.deploy("bad")
    began = world.now()
    report = await ran(world, baseline=0.004)
    assert ended(report) == (Status.BREACH, Outcome.ROLLED_BACK, 1)
    assert world.scene.spec["template"] == template("good")
    assert world.now() - began < dt.timedelta(seconds=30)


async def test_a_version_that_turns_bad_after_its_first_minutes_is_not_passed_by_a_gate_that_begins_late() -> None:
    world = World()
    world.deploy("bad")
    await asyncio.sleep(40)
    later(1, world.errors.update, {"bad": 0.5})
    await asyncio.sleep(20)
    report = await ran(world, baseline=0.004)
    assert ended(report) == (Status.BREACH, Outcome.ROLLED_BACK, 1)


async def test_without_stable_pods_and_without_a_past_a_bad_version_is_left_to_a_person() -> None:
    world = Forgetful()
    world.errors["bad"] = 0.3
    world.deploy("bad")
    report = await ran(world)
    assert ended(report) == (Status.BREACH, None, 1)
    assert "no-history" in report.detail
    assert "the day before is not kept" in report.detail
    assert "--baseline" in report.detail
    assert world.writes == []


@pytest.mark.parametrize(("overlap_s", "outcome"), [(60, Outcome.ROLLED_BACK), (6, None)])
async def test_as_long_as_old_pods_are_beside_their_word_is_waited_for(
    overlap_s: float, outcome: Outcome | None
) -> None:
    world = Slow(overlap_s=overlap_s)
    world.errors["bad"] = 0.5
    world.deploy("bad")
    report = await ran(world, bake_s=60)
    assert ended(report) == (Status.BREACH, outcome, 1)
    assert ("no-history" in report.detail) == (outcome is None)
    assert [note for note in report.notes if note.startswith("shared: ")]


async def test_a_version_that_callers_stay_away_from_is_left_to_a_person_when_its_time_is_over() -> None:
    world = World(age=dt.timedelta(hours=3))
    world.traffic = {"bad": 0.2}
    world.deploy("bad")
    began = world.now()
    report = await ran(world, bake_s=140)
    assert ended(report) == (Status.BREACH, None, 1)
    assert report.verdict.detail == "72 requests in the last 2 min, where the day before had 18000 and more"
    assert report.detail.startswith("nothing was changed, unconfirmed: missing requests prove no failure")
    assert "--baseline" not in report.detail
    assert world.now() - began >= dt.timedelta(seconds=139)
    assert world.writes == []


@pytest.mark.parametrize(("failing", "rolling"), [(2, 0), (1, 0), (2, 2)])
async def test_an_outage_that_other_workloads_show_too_is_noted(failing: int, rolling: int) -> None:
    world = Crowded(rolling=rolling)
    world.errors = {"good": 0.004, "bad": 0.3}
    out, well = (0.2, NOW.timestamp() + 5), (0.0, 0.0)
    world.neighbours = {f"o{index}": out if index < failing else well for index in range(4)}
    world.deploy("bad")
    report = await ran(world)
    assert ended(report) == (Status.BREACH, Outcome.ROLLED_BACK, 1)
    noted = "bystanders: 2 of 4 other workloads fail too: shop/o0, shop/o1; the service would have asked a person first"
    assert [note for note in report.notes if note.startswith("bystanders")] == (
        [noted] if failing > rolling + 1 else []
    )


async def test_a_gate_goes_on_where_other_workloads_may_not_be_listed() -> None:
    world = Shy()
    world.errors = {"good": 0.004, "bad": 0.3}
    world.deploy("bad")
    assert ended(await ran(world)) == (Status.BREACH, Outcome.ROLLED_BACK, 1)


async def test_the_day_before_says_what_is_usual_and_the_gate_says_what_it_was() -> None:
    world = World()
    world.errors |= {"good": 0.01, "bad": 0.3}
    world.deploy("bad")
    report = await ran(world)
    assert ended(report) == (Status.BREACH, Outcome.ROLLED_BACK, 1)
    assert re.match(r"usual share of failures 1\.\d\d%, by 5\d+ requests in 1\d windows of 5 min", report.past[0])
    assert re.search(r"; failures come in clusters of \d", report.past[0])


async def test_what_a_person_says_is_usual_comes_before_what_was_counted() -> None:
    world = World()
    world.errors["bad"] = 0.1
    world.deploy("bad")
    report = await ran(world, baseline=0.1)
    assert ended(report) == (Status.HEALTHY, Outcome.PASSED, 0)
    assert report.past[0].startswith("usual share of failures 10.00%, as --baseline says")


async def test_without_an_action_a_bad_version_is_only_said_to_be_bad() -> None:
    world = World()
    world.errors["bad"] = 0.3
    world.deploy("bad")
    report = await ran(world, action=None)
    assert ended(report) == (Status.BREACH, None, 1)
    assert world.writes == []


async def test_a_dry_run_lets_the_api_server_check_the_write_and_changes_nothing() -> None:
    world = World()
    world.errors["bad"] = 0.3
    world.deploy("bad")
    report = await ran(world, baseline=0.004, dry_run=True)
    assert ended(report) == (Status.BREACH, Outcome.ROLLED_BACK, 1)
    assert report.detail.startswith("dry run, nothing was changed: ")
    assert world.count("dry run") == 1
    assert world.count("patch") == 0
    assert world.scene.spec["template"] == template("bad")


async def test_a_bad_canary_is_scaled_to_zero_and_the_stable_pods_are_untouched() -> None:
    world = Beside()
    world.errors["bad"] = 0.3
    world.deploy("bad")
    before = msgspec.json.encode(world.stable.deployment)
    report = await ran(world, stable=STABLE, action=Action.SCALE_DOWN)
    assert ended(report) == (Status.BREACH, Outcome.SCALED_DOWN, 1)
    assert world.scene.spec["replicas"] == 0
    assert msgspec.json.encode(world.stable.deployment) == before
    assert report.numbers[0].control == "concurrent"
    assert report.numbers[0].stable.total > 0


async def test_what_the_stable_pods_fail_as_well_is_not_held_against_a_canary() -> None:
    world = Beside()
    world.stable_errors = world.errors["bad"] = 0.3
    world.deploy("bad")
    assert ended(await ran(world, stable=STABLE, action=Action.SCALE_DOWN)) == (Status.HEALTHY, Outcome.PASSED, 0)


async def test_a_guard_that_would_have_the_service_ask_is_shown_and_does_not_bind() -> None:
    world = Beside()
    world.stable_errors, world.errors["bad"] = 0.2, 0.9
    world.deploy("bad")
    report = await ran(world, stable=STABLE, action=Action.SCALE_DOWN)
    assert ended(report) == (Status.BREACH, Outcome.SCALED_DOWN, 1)
    (shared,) = [note for note in report.notes if note.startswith("shared: ")]
    assert shared.endswith("; the service would have asked a person first")


async def test_early_ends_as_soon_as_the_canary_is_proven_not_to_be_worse() -> None:
    world = Beside()
    world.deploy("fix")
    began = world.now()
    report = await ran(world, stable=STABLE, action=Action.SCALE_DOWN, early=True, bake_s=300)
    assert ended(report) == (Status.HEALTHY, Outcome.PASSED, 0)
    assert "proven not to be worse" in report.verdict.detail
    assert world.now() - began < dt.timedelta(seconds=100)


async def test_early_proves_nothing_of_a_canary_that_is_slightly_worse() -> None:
    world = Beside()
    world.errors["bad"] = 0.006
    world.deploy("bad")
    began = world.now()
    await ran(world, stable=STABLE, action=Action.SCALE_DOWN, early=True, bake_s=300)
    assert world.now() - began >= dt.timedelta(seconds=299)


# -- too little to judge by --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("allowed", "code"), [(False, 3), (True, 0)])
async def test_too_few_requests_are_no_verdict_unless_that_is_allowed(*, allowed: bool, code: int) -> None:
    world = Beside()
    world.rps = 0.1
    world.deploy("fix")
    report = await ran(world, stable=STABLE)
    assert (report.verdict.status, report.outcome) == (Status.INSUFFICIENT, None)
    assert "20 are needed" in report.verdict.detail
    assert exit_code(report, allow_insufficient=allowed) == code
    assert world.writes == []


@pytest.mark.parametrize("allowed", [False, True])
async def test_a_gate_that_cannot_see_ends_blind_whatever_is_allowed_and_moves_nothing(*, allowed: bool) -> None:
    world = Beside()
    world.errors["bad"] = 0.9
    world.blind = Blind(BlindReason.UNREACHABLE, "Prometheus does not answer")
    world.deploy("bad")
    report = await ran(world, stable=STABLE, action=Action.SCALE_DOWN)
    assert (report.verdict.status, report.outcome) == (Status.BLIND, None)
    assert report.verdict.detail == "Prometheus does not answer"
    assert exit_code(report, allow_insufficient=allowed) == 3
    assert world.writes == []


async def test_what_was_missed_while_blind_is_judged_when_it_can_be_seen_again() -> None:
    world = Beside()
    world.errors["bad"] = 0.3
    world.blind = Blind(BlindReason.UNREACHABLE, "Prometheus does not answer")
    world.deploy("bad")
    later(15, setattr, world, "blind", None)
    assert ended(await ran(world, stable=STABLE, action=Action.SCALE_DOWN))[1] is Outcome.SCALED_DOWN


async def test_an_image_that_cannot_be_pulled_is_the_versions_fault() -> None:
    world = Beside()
    world.deploy("bad")
    world.pulling = {f"web-{hash_of('bad')}-{index:05}" for index in range(3)}
    report = await ran(world, policy=patient(world))
    assert ended(report) == (Status.BREACH, Outcome.ROLLED_BACK, 1)
    assert report.verdict.cause == "image-pull"


async def test_an_image_that_nobody_can_pull_is_not_the_versions_fault() -> None:
    world = Beside()
    world.deploy("bad")
    world.pulling = {f"web-{hash_of('bad')}-{index:05}" for index in range(3)} | {
        f"web-stable-{hash_of('stable')}-00000"
    }
    report = await ran(world, policy=patient(world), bake_s=90)
    assert ended(report) == (Status.BLIND, None, 3)
    assert "look at the registry" in report.verdict.detail
    assert world.writes == []


def patient(world: World) -> Policy:
    """The world's policy, where five seconds are long for a pull."""
    (policy,) = world.config.policies
    rule = msgspec.structs.replace(policy.conditions, image_pull=Seconds(5))
    return msgspec.structs.replace(policy, conditions=rule)


# -- who else may end it -----------------------------------------------------------------------------------------------


async def test_a_hotfix_ends_the_gate_and_nothing_is_written() -> None:
    world = World()
    world.deploy("bad")
    later(5, world.deploy, "fix")
    report = await ran(world)
    assert ended(report) == (Status.INSUFFICIENT, Outcome.SUPERSEDED, 4)
    assert world.writes == []


async def test_a_hotfix_between_the_verdict_and_the_write_wins() -> None:
    world = World()
    world.errors["bad"] = 0.3
    world.deploy("bad")
    world.fail("patch", lambda _: world.deploy("fix"))
    report = await ran(world, baseline=0.004)
    assert (report.outcome, exit_code(report, allow_insufficient=False)) == (Outcome.SUPERSEDED, 4)
    assert world.scene.spec["template"] == template("fix")


async def test_beside_the_service_only_the_service_acts() -> None:
    world = World()
    world.errors["bad"] = 0.5
    said: list[str] = []
    async with asyncio.TaskGroup() as group:
        service = group.create_task(world.start().run())
        await asyncio.sleep(2)
        world.deploy("bad")
        await asyncio.sleep(1)
        report = await ran(world, said=said)
        service.cancel()
    assert ended(report)[0] is Status.BREACH
    assert ended(report)[2] == 1
    assert report.service
    assert world.count("patch") == 1
    assert world.scene.spec["template"] == template("good")


async def test_an_open_incident_of_the_service_is_waited_for_and_nothing_is_written() -> None:
    world = World()
    world.errors["bad"] = 0.5
    world.deploy("bad")
    keep(world, state=State.ASKING)
    record = world.records[rollout(world).incident]
    done = msgspec.structs.replace(record, state=State.ENDED, outcome=Outcome.RECOVERED, detail="undone to revision 1")

    def undone() -> None:
        world.deploy("good")
        world.records[record.id] = done

    later(40, undone)
    said: list[str] = []
    began = world.now()
    report = await ran(world, baseline=0.004, said=said)
    assert ended(report) == (Status.BREACH, Outcome.RECOVERED, 1)
    assert report.service
    assert world.now() - began >= dt.timedelta(seconds=40)
    assert said[2] == f"the service holds incident {record.id} (asking): waiting for its end"
    assert world.count("patch") == 0


async def test_an_incident_that_has_no_end_is_no_verdict() -> None:
    world = World()
    world.errors["bad"] = 0.5
    world.deploy("bad")
    keep(world, state=State.ASKING)
    report = await ran(world, baseline=0.004, held_s=20)
    assert ended(report) == (Status.BLIND, None, 3)
    assert world.count("patch") == 0


async def test_what_a_person_dismissed_is_not_undone_by_the_gate() -> None:
    world = World()
    world.errors["bad"] = 0.5
    world.deploy("bad")
    answer = Answer("dismiss", "jane@example.com", world.now(), "http")
    keep(world, state=State.ENDED, outcome=Outcome.REFUSED, detail="dismissed by jane", people=(answer,))
    report = await ran(world, baseline=0.004)
    assert ended(report) == (Status.BREACH, Outcome.REFUSED, 4)
    assert world.count("patch") == 0


async def test_what_the_service_passed_is_judged_all_the_same() -> None:
    world = World()
    world.errors["bad"] = 0.5
    world.deploy("bad")
    keep(world, state=State.ENDED, outcome=Outcome.PASSED)
    assert ended(await ran(world, baseline=0.004)) == (Status.BREACH, Outcome.ROLLED_BACK, 1)


async def test_records_that_may_not_be_read_are_noted_and_the_gate_goes_on() -> None:
    world = Secretive()
    world.deploy("fix")
    report = await ran(world)
    assert ended(report) == (Status.HEALTHY, Outcome.PASSED, 0)
    assert [note for note in report.notes if "records may not be read" in note]


@pytest.mark.parametrize("by", [MANAGER, "jane@example.com"])
async def test_a_rollback_by_whomever_its_mark_names_ends_the_gate_and_proves_nothing(by: str) -> None:
    world = Secretive()
    world.deploy("fix")
    running = asyncio.create_task(ran(world))
    await asyncio.sleep(5)
    request = Request(cause=Cause(by, "checkout fails"), rollout=rollout(world))
    await acting(world).undo(WEB, request, condemned=True)
    report = await running
    assert ended(report) == (Status.INSUFFICIENT, Outcome.SUPERSEDED, 4)
    assert f"{by} rolled it back, its mark says" in report.verdict.detail
    assert not report.service
    assert "checkout fails" in report.detail
    assert not gate_records(world)


async def test_without_the_records_a_canary_at_zero_whose_mark_names_the_service_is_unproven() -> None:
    world = Beside()
    world.deploy("fix")
    running = asyncio.create_task(ran(world, stable=STABLE, action=Action.SCALE_DOWN))
    await asyncio.sleep(5)
    request = Request(cause=Cause(MANAGER, "checkout fails"), rollout=rollout(world))
    await acting(world).scale_down(WEB, request)
    assert ended(await running) == (Status.BLIND, Outcome.UNPROVEN, 4)


@pytest.mark.parametrize("by", [MANAGER, "jane@example.com"])
async def test_marks_alone_neither_condemn_a_version_nor_end_its_gate(by: str) -> None:
    world = World()
    world.deploy("fix")
    live = rollout(world)
    world.scene.deployment["metadata"]["annotations"][marks.LAST_ROLLBACK] = marks.write_last_rollback(
        marks.LastRollback(live.incident, live.hash, hash_of("good"), live.revision, 1, by, "bad", world.now())
    )
    replicaset = next(each for each in world.scene.replicasets if each["metadata"]["labels"][HASH_LABEL] == live.hash)
    for incident in (live.incident, "web-1-12345678"):
        replicaset["metadata"]["annotations"][marks.CONDEMNED] = marks.write_about(live.hash, incident)
        assert ended(await ran(world)) == (Status.HEALTHY, Outcome.PASSED, 0)
    assert world.count("patch") == 0


# -- what a gate keeps -------------------------------------------------------------------------------------------------


def gate_records(world: World) -> list[Record]:
    """The records that gates wrote."""
    return [record for record in world.records.values() if record.id == record.rollout.gate_incident]


async def test_a_gate_that_undoes_a_version_condemns_it_in_a_record_of_its_own_before_the_undo_is_verified() -> None:
    world = World()
    world.errors["bad"] = 0.3
    world.deploy("bad")
    bad = rollout(world)
    kept: list[bool] = []
    report = await ran(world, baseline=0.004, actor=Watched(world, kept))
    assert ended(report) == (Status.BREACH, Outcome.ROLLED_BACK, 1)
    (record,) = gate_records(world)
    assert (record.id, record.state, record.outcome) == (f"{bad.incident}-gate", State.ENDED, Outcome.ROLLED_BACK)
    assert record.plan is not None
    assert record.write_at is not None
    assert kept == [True]
    condemned = condemned_images([record], [WEB], now=world.now())
    assert condemned == {(name, image): record.id for name, image in record.plan.condemned.items()}
    assert condemned
    assert not [note for note in report.notes if "record" in note]


async def test_what_a_gate_did_counts_neither_for_the_budget_nor_for_the_cool_down_of_the_service() -> None:
    world = World()
    world.errors["bad"] = 0.3
    world.deploy("bad")
    await ran(world, baseline=0.004)
    (record,) = gate_records(world)
    world.deploy("worse")
    keep(world)
    limits = SafetyLimits(
        budget=1, cool_down=dt.timedelta(hours=1), breaker=0, breaker_all=0, breaker_window=dt.timedelta(minutes=10)
    )
    facts = Facts(verdict=Verdict(Status.BREACH, "bad"), others=(record,))
    crossed = objections(world.records[rollout(world).incident], facts, limits, now=world.now())
    assert {objection.guard for objection in crossed} & {Guard.BUDGET, Guard.COOL_DOWN} == set()


async def test_a_gate_that_may_write_no_record_says_that_nothing_is_condemned() -> None:
    class ReadOnly(World):
        async def save(self, record: Record, *, timeout_s: float) -> None:
            raise Denied(f"save configmaps {record.id}", "Forbidden")

    world = ReadOnly()
    world.errors["bad"] = 0.3
    world.deploy("bad")
    report = await ran(world, baseline=0.004)
    assert ended(report) == (Status.BREACH, Outcome.ROLLED_BACK, 1)
    (note,) = [note for note in report.notes if "no record condemns this version" in note]
    assert "Forbidden" in note


async def test_a_dry_run_leaves_no_record() -> None:
    world = World()
    world.errors["bad"] = 0.3
    world.deploy("bad")
    assert ended(await ran(world, baseline=0.004, dry_run=True))[0] is Status.BREACH
    assert world.records == {}


async def test_a_canary_that_a_record_condemns_is_scaled_down_again_when_somebody_brings_it_back() -> None:
    world = Beside()
    world.errors["bad"] = 0.5
    world.deploy("bad")
    assert ended(await ran(world, stable=STABLE, action=Action.SCALE_DOWN))[1] is Outcome.SCALED_DOWN
    world.errors["bad"] = 0.0
    world.scene.spec["replicas"] = 3
    world.deploy("bad")
    began = world.now()
    report = await ran(world, stable=STABLE, action=Action.SCALE_DOWN)
    assert ended(report) == (Status.BREACH, Outcome.SCALED_DOWN, 1)
    assert report.verdict.cause == "condemned-image"
    assert world.now() - began < dt.timedelta(seconds=15)


async def test_what_the_service_only_observed_is_judged_and_acted_upon_by_the_gate() -> None:
    world = World()
    world.errors["bad"] = 0.5
    world.deploy("bad")
    keep(world, state=State.ENDED, outcome=Outcome.OBSERVED, detail="would have been undone")
    assert ended(await ran(world, baseline=0.004)) == (Status.BREACH, Outcome.ROLLED_BACK, 1)


async def test_what_the_service_could_not_prove_ends_the_gate_with_4() -> None:
    world = World()
    world.deploy("fix")
    keep(world, state=State.ENDED, outcome=Outcome.UNPROVEN, detail="a mark says so, and no record")
    report = await ran(world)
    assert (report.outcome, exit_code(report, allow_insufficient=True)) == (Outcome.UNPROVEN, 4)
    assert world.count("patch") == 0


async def test_a_version_that_a_rollback_put_there_is_not_undone_to_what_that_left() -> None:
    world = World()
    world.deploy("bad")
    await acting(world).undo(WEB, Request(cause=Cause("jane", "checkout fails")))
    await asyncio.sleep(5)
    world.errors["good"] = 0.5
    report = await ran(world, baseline=0.004)
    assert ended(report) == (Status.BREACH, Outcome.ALREADY, 4)
    assert "by jane" in report.detail
    assert world.count("patch") == 1


class Watched(Actor):
    """Notes whether the gate's record was there when the verification began."""

    def __init__(self, world: World, kept: list[bool]) -> None:
        super().__init__(world, patience=Patience(request_s=2, observed_s=2, verify_s=10), now=world.now)
        self._records = world
        self._kept = kept

    async def finish(
        self,
        plan: Undo | ScaleDown,
        request: Request,
        *,
        resumed: bool,
        stuck: Callable[[tuple[str, ...]], Awaitable[None]] | None = None,
    ) -> Result:
        self._kept.append(bool(gate_records(self._records)))
        return await super().finish(plan, request, resumed=resumed, stuck=stuck)


async def test_an_api_server_that_is_away_for_a_while_only_delays() -> None:
    world = World()
    world.deploy("fix")
    later(3, world.fail, "deployment", *[Unanswered("get deployments shop/web", "no answer within 2 s")] * 4)
    said: list[str] = []
    report = await ran(world, said=said)
    assert ended(report) == (Status.HEALTHY, Outcome.PASSED, 0)
    assert any(text.endswith("this step waits") for text in said)


async def test_a_workload_that_is_deleted_meanwhile_is_not_what_is_live_any_more() -> None:
    world = World()
    world.deploy("fix")
    later(3, world.fail, "deployment", NotFound("get deployments shop/web", "NotFound"))
    assert ended(await ran(world)) == (Status.INSUFFICIENT, Outcome.SUPERSEDED, 4)


async def test_a_version_that_runs_another_image_is_a_mistake() -> None:
    world = World()
    world.deploy("bad")
    with pytest.raises(UsageError, match=r"not registry\.example/web:other"):
        await ran(world, image="registry.example/web:other")


class Secretive(World):
    """Where whoever runs the gate may not read the service's records."""

    async def get(self, incident: IncidentId, *, timeout_s: float) -> Record | None:
        raise Denied(f"get configmaps {incident}", "Forbidden")


def rollout(world: World) -> Rollout:
    """What is live."""
    found = live_rollout(world.scene.snapshot.deployment, read_history(world.scene.snapshot))
    assert not isinstance(found, Objection)
    return found[0]


def keep(world: World, **fields: Any) -> None:
    """Let the service have a record of what is live."""
    live = rollout(world)
    made = Record(
        id=live.incident,
        rollout=live,
        policy="web",
        policy_digest="d",
        topology=Topology.ROLLING,
        mode=Mode.APPROVE,
        action=Action.UNDO,
        started=world.now(),
        **fields,
    )
    world.records[live.incident] = made


async def test_the_running_service_learns_what_a_gate_condemned_though_its_record_comes_after_the_mark() -> None:
    world = World()
    world.errors["bad"] = 0.3
    service = world.start()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(service.run())
        await asyncio.sleep(2)
        world.deploy("bad")
        bad = rollout(world)
        await asyncio.sleep(1)
        plan = Request(cause=CI, rollout=bad)
        result = await acting(world).undo(WEB, plan, verify=False, condemned=True)
        scene = pin(await look(world, WEB, WEB, timeout_s=2), WEB)
        assert not isinstance(scene, Objection)
        running_images = msgspec.structs.replace(scene, rollout=bad, images={"web": "registry.example/web:bad"})
        keeper = ServiceState(world, running_images, request_s=2)
        seen = await look(world, WEB, WEB, timeout_s=2)
        task = GateRequest(
            workload=WEB, stable=WEB, policy=world.config.policies[0], step_s=1, action=Action.UNDO, cause=CI
        )
        await asyncio.sleep(3)
        assert not await keeper.condemn(task, seen, Verdict(Status.BREACH, "bad"), result, at=world.now())
        await asyncio.sleep(10)
        running.cancel()
    assert bad.gate_incident in service.context.records
    assert service.context.records[bad.incident].outcome is Outcome.SUPERSEDED
    assert not [incident for incident, _ in world.said if incident == bad.gate_incident]
