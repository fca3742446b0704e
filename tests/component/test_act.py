"""Carrying out one action while everything around it fails, in virtual time."""

import asyncio
import datetime as dt
import logging
from collections.abc import Callable

import msgspec
import pytest

from tests.component.memory import MemoryCluster, complete, exceed_deadline, observe, roll_out
from tests.unit.builders import CAUSE, NOW, Json, Scene, autoscaler, decoded, hash_of, history, status, template
from watchdog.decide import marks
from watchdog.decide.plan import Request
from watchdog.engine.act import Actor
from watchdog.engine.verify import Patience
from watchdog.errors import (
    ClusterError,
    Conflict,
    Denied,
    NotAdmitted,
    NotFound,
    PreconditionFailed,
    Rejected,
    ServerError,
    Throttled,
    Unanswered,
)
from watchdog.model import MANAGER, Guard, Outcome, Result, Undo
from watchdog.objects import Pod, TemplateHash, WorkloadRef

START = 1000.0
pytestmark = pytest.mark.looptime(start=START)

REF = WorkloadRef("shop", "web")
REQUEST = Request(cause=CAUSE)
PATIENCE = Patience(request_s=10, observed_s=5, verify_s=300)


def silence(operation: str = "get deployments shop/web") -> Unanswered:
    return Unanswered(operation, "no answer within 10 s")


@pytest.fixture
def cluster() -> MemoryCluster:
    return MemoryCluster(history("v1", "v2", "v3"))


def actor(cluster: MemoryCluster, *, patience: Patience = PATIENCE) -> Actor:
    return Actor(cluster, patience=patience, now=lambda: NOW)


async def undo(
    cluster: MemoryCluster,
    request: Request = REQUEST,
    *,
    dry_run: bool = False,
    verify: bool = False,
    condemned: bool = False,
) -> Result:
    return await actor(cluster).undo(REF, request, dry_run=dry_run, verify=verify, condemned=condemned)


def refused(code: int) -> NotAdmitted:
    return NotAdmitted(
        "patch deployments shop/web", code=code, refuser='admission webhook "images"', sentence="too old"
    )


def scaled(scene: Scene) -> None:
    """Let an autoscaler do its work, and the controller see it."""
    scene.deployment["metadata"]["generation"] += 1
    scene.deployment["status"]["observedGeneration"] += 1


def elapsed() -> float:
    return asyncio.get_running_loop().time() - START


def is_live(cluster: MemoryCluster, version: str) -> bool:
    return bool(cluster.scene.spec["template"] == template(version))


# -- the good way ------------------------------------------------------------------------------------------------------


async def test_an_undo_is_written_given_up_told_and_verified(cluster: MemoryCluster) -> None:
    cluster.then(2, observe)
    cluster.then(5, complete)
    result = await undo(cluster, verify=True)
    assert (result.outcome, result.revision, result.elapsed_s) == (Outcome.ROLLED_BACK, 4, 7)
    assert result.detail == "rolled back 3 → 2, 3 of 3 pods available"
    assert is_live(cluster, "v2")
    assert cluster.happened() == ["RollbackStarted", "RollbackCompleted"]
    assert [entry["manager"] for entry in cluster.scene.deployment["metadata"]["managedFields"]] == ["kubectl"]


async def test_the_event_says_who_asked_and_why(cluster: MemoryCluster) -> None:
    await undo(cluster)
    event = cluster.events[0]
    assert event.note.startswith("Rolling back 3 → 2 (by jane@example.com: checkout fails); ")
    assert (event.regarding, event.uid, event.warning) == (REF, cluster.scene.deployment["metadata"]["uid"], True)
    assert event.name.startswith("web-3-")
    assert event.name.endswith(".rollbackstarted")


async def test_a_bad_version_is_condemned_only_where_an_incident_found_it_bad(cluster: MemoryCluster) -> None:
    await undo(cluster)
    assert cluster.count("patch_replicaset") == 0
    other = MemoryCluster(history("v1", "v2", "v3"))
    await undo(other, condemned=True)
    found = next(item for item in other.scene.snapshot.replicasets if item.hash == hash_of("v3"))
    assert (marks.condemned_by(found) or "").startswith("web-3-")


async def test_a_dry_run_asks_the_api_server_and_leaves_nothing_behind(cluster: MemoryCluster) -> None:
    before = cluster.scene.copied()
    result = await undo(cluster, dry_run=True, verify=True, condemned=True)
    assert result.outcome is Outcome.ROLLED_BACK
    assert result.elapsed_s is None
    assert cluster.scene.deployment == before.deployment
    assert cluster.scene.replicasets == before.replicasets
    assert cluster.count("dry run") == 1
    assert cluster.events == []


async def test_a_refused_action_writes_nothing_but_its_event(cluster: MemoryCluster) -> None:
    cluster.scene.pause()
    result = await undo(cluster, verify=True)
    assert result.outcome is Outcome.REFUSED
    assert result.refused is not None
    assert result.refused.guard is Guard.PAUSED
    assert cluster.count("patch") == 0
    assert cluster.happened() == ["RollbackRefused"]
    assert cluster.events[0].name.startswith("web-3-")


async def test_a_refused_dry_run_does_not_even_write_its_event(cluster: MemoryCluster) -> None:
    cluster.scene.pause()
    await undo(cluster, dry_run=True)
    assert cluster.events == []


# -- looking before writing --------------------------------------------------------------------------------------------


async def test_a_change_that_the_controller_has_yet_to_see_is_waited_for(cluster: MemoryCluster) -> None:
    cluster.scene.deployment["metadata"]["generation"] += 1
    nothing = [lambda _: None] * 10
    cluster.fail("deployment", *nothing, lambda scene: observe(scene, revision=3))
    assert (await undo(cluster)).outcome is Outcome.ROLLED_BACK
    assert 0.9 < elapsed() < PATIENCE.observed_s


async def test_a_change_that_the_controller_does_not_see_is_not_waited_for_for_ever(cluster: MemoryCluster) -> None:
    cluster.scene.deployment["metadata"]["generation"] += 1
    result = await undo(cluster)
    assert result.refused is not None
    assert result.refused.guard is Guard.NOT_OBSERVED
    assert PATIENCE.observed_s <= elapsed() <= PATIENCE.observed_s + 0.5
    assert cluster.count("patch") == 0
    assert cluster.happened() == ["RollbackRefused"]


async def test_a_hotfix_that_comes_while_waiting_is_judged_for_itself_and_not_undone(cluster: MemoryCluster) -> None:
    request = msgspec.structs.replace(REQUEST, expected_revision=3)
    cluster.scene.deploy("hotfix")
    cluster.fail("deployment", lambda _: None, lambda scene: roll_out(scene))
    result = await undo(cluster, request)
    assert result.outcome is Outcome.SUPERSEDED
    assert is_live(cluster, "hotfix")


async def test_what_cannot_be_read_in_the_first_place_is_not_read_for_ever(cluster: MemoryCluster) -> None:
    cluster.fail("deployment", silence(), silence())
    with pytest.raises(Unanswered):
        await undo(cluster)
    assert cluster.count("deployment") == 1
    assert cluster.count("patch") == 0


@pytest.mark.parametrize("error", [Denied("get", "Forbidden"), Rejected("get", "BadRequest")])
async def test_an_error_while_looking_ends_the_action(cluster: MemoryCluster, error: ClusterError) -> None:
    cluster.fail("replicasets", error)
    with pytest.raises(type(error)):
        await undo(cluster)
    assert cluster.count("patch") == 0


# -- writing against others --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [PreconditionFailed("patch", "Invalid"), Conflict("patch", "Conflict")])
async def test_a_write_that_met_a_change_is_decided_again(cluster: MemoryCluster, error: ClusterError) -> None:
    cluster.fail("patch", error, error)
    cluster.fail("deployment", lambda _: None, scaled, scaled)
    assert (await undo(cluster)).outcome is Outcome.ROLLED_BACK
    assert (cluster.count("patch"), cluster.count("deployment")) == (3, 3)


@pytest.mark.parametrize(
    "error", [PreconditionFailed("patch", "Invalid"), Conflict("patch", "Conflict"), refused(409), refused(422)]
)
async def test_a_write_that_met_no_change_was_refused_and_a_person_is_told_at_once(
    cluster: MemoryCluster, error: ClusterError
) -> None:
    cluster.fail("patch", *[error] * 9)
    with pytest.raises(type(error)) as caught:
        await undo(cluster)
    assert (cluster.count("patch"), cluster.count("deployment"), elapsed()) == (1, 2, 0)
    assert str(caught.value).endswith("by hand: kubectl -n shop rollout undo deployment/web --to-revision=2")


@pytest.mark.parametrize("code", [400, 403])
async def test_a_no_for_good_is_told_at_once_and_by_its_name(cluster: MemoryCluster, code: int) -> None:
    cluster.fail("patch", *[refused(code)] * 9)
    with pytest.raises(NotAdmitted, match=r'refused by admission webhook "images": too old'):
        await undo(cluster)
    assert (cluster.count("patch"), cluster.count("deployment")) == (1, 1)


@pytest.mark.parametrize(
    ("action", "command"),
    [
        ("scale_down", "kubectl -n shop scale deployment/web --replicas=0"),
        ("pause", "kubectl -n shop rollout pause deployment/web"),
    ],
)
async def test_every_action_that_is_refused_says_how_a_person_does_it(
    cluster: MemoryCluster, action: str, command: str
) -> None:
    cluster.fail("patch", refused(403))
    with pytest.raises(NotAdmitted) as caught:
        await getattr(actor(cluster), action)(REF, REQUEST)
    assert str(caught.value).endswith(f"revision 3 stays live, by hand: {command}")


async def test_a_refused_write_beside_a_hotfix_is_superseded(cluster: MemoryCluster) -> None:
    cluster.fail("patch", refused(422))
    cluster.fail("deployment", lambda _: None, lambda scene: roll_out(scene))
    assert (await undo(cluster)).outcome is Outcome.SUPERSEDED
    assert is_live(cluster, "hotfix")


@pytest.mark.parametrize("error", [PreconditionFailed("patch", "Invalid"), Conflict("patch", "Conflict")])
async def test_three_races_are_run_at_most(cluster: MemoryCluster, error: ClusterError) -> None:
    cluster.fail("patch", *[error] * 9)
    cluster.fail("deployment", *[scaled] * 9)
    with pytest.raises(type(error)):
        await undo(cluster)
    assert cluster.count("patch") == 3
    assert is_live(cluster, "v3")


async def test_a_hotfix_that_comes_between_looking_and_writing_wins(cluster: MemoryCluster) -> None:
    cluster.fail("patch", roll_out)
    result = await undo(cluster)
    assert result.outcome is Outcome.SUPERSEDED
    assert is_live(cluster, "hotfix")
    assert cluster.count("patch") == 1
    assert cluster.happened() == ["RollbackSuperseded"]


async def test_a_hold_that_comes_between_looking_and_writing_wins(cluster: MemoryCluster) -> None:
    cluster.fail("patch", lambda scene: scene.annotations.update({marks.HOLD: "stop"}))
    result = await undo(cluster)
    assert result.refused is not None
    assert result.refused.guard is Guard.HOLD
    assert is_live(cluster, "v3")


async def test_an_action_on_a_version_that_is_no_longer_live_does_nothing(cluster: MemoryCluster) -> None:
    rollout = (await undo(MemoryCluster(history("v1", "v2", "v3")), dry_run=True)).plan
    assert rollout is not None
    judged = msgspec.structs.replace(rollout.rollout, hash=TemplateHash("another"))
    result = await undo(cluster, Request(cause=CAUSE, rollout=judged))
    assert result.outcome is Outcome.SUPERSEDED
    assert cluster.count("patch") == 0


async def test_a_second_undo_of_the_same_rollout_does_nothing(cluster: MemoryCluster) -> None:
    # A second replica, a repeated alert: without this it would bring the bad version back.
    first = await undo(cluster)
    assert first.plan is not None
    observe(cluster.scene)
    second = await undo(cluster, Request(cause=CAUSE, rollout=first.plan.rollout))
    assert second.outcome is Outcome.SUPERSEDED
    assert is_live(cluster, "v2")


@pytest.mark.parametrize(
    "error", [Denied("patch", "Forbidden"), Rejected("patch", "Invalid: spec (FieldValueInvalid)")]
)
async def test_a_write_that_the_api_refuses_is_not_repeated(cluster: MemoryCluster, error: ClusterError) -> None:
    cluster.fail("patch", error)
    with pytest.raises(type(error)):
        await undo(cluster)
    assert cluster.count("patch") == 1
    assert cluster.events == []


# -- writes without an answer ------------------------------------------------------------------------------------------


async def test_a_write_that_happened_without_an_answer_is_recognised_and_not_repeated(cluster: MemoryCluster) -> None:
    cluster.lose_answers(True)
    cluster.then(1, complete)
    result = await undo(cluster, verify=True)
    assert result.outcome is Outcome.ROLLED_BACK
    assert cluster.count("patch") == 1
    assert is_live(cluster, "v2")
    assert cluster.happened() == ["RollbackStarted", "RollbackCompleted"]


async def test_a_write_that_happened_without_an_answer_gives_its_fields_up_too(cluster: MemoryCluster) -> None:
    cluster.lose_answers(True)
    await undo(cluster)
    assert MANAGER not in [entry["manager"] for entry in cluster.scene.deployment["metadata"]["managedFields"]]


async def test_a_write_that_did_not_happen_is_tried_again(cluster: MemoryCluster) -> None:
    cluster.lose_answers(False)
    assert (await undo(cluster)).outcome is Outcome.ROLLED_BACK
    assert cluster.count("patch") == 2
    assert is_live(cluster, "v2")


async def test_a_write_that_happens_late_makes_the_second_one_fail_and_counts(cluster: MemoryCluster) -> None:
    # The first one is still on its way when the Deployment is read again.
    late = MemoryCluster(cluster.scene.copied())
    await undo(late)
    late.scene.deployment["metadata"].pop("managedFields")
    cluster.lose_answers(False)
    cluster.fail("patch", lambda _: None, lambda scene: scene.deployment.update(late.scene.deployment))
    assert (await undo(cluster)).outcome is Outcome.ROLLED_BACK
    assert cluster.count("patch") == 2
    assert is_live(cluster, "v2")


async def test_a_server_that_answers_no_write_at_all_leaves_it_unanswered(cluster: MemoryCluster) -> None:
    cluster.lose_answers(False, False, False, False)
    with pytest.raises(Unanswered):
        await undo(cluster)
    assert cluster.count("patch") == 3


async def test_after_a_write_in_doubt_looking_goes_on_until_somebody_answers(cluster: MemoryCluster) -> None:
    cluster.lose_answers(True)
    cluster.fail("deployment", lambda _: None, *[silence()] * 20)
    assert (await undo(cluster)).outcome is Outcome.ROLLED_BACK
    assert cluster.count("patch") == 1
    assert elapsed() >= 20


async def test_after_a_write_in_doubt_looking_ends_with_the_time_for_the_action(cluster: MemoryCluster) -> None:
    cluster.lose_answers(True)
    cluster.fail("deployment", lambda _: None, *[silence()] * 1000)
    with pytest.raises(Unanswered):
        await undo(cluster)
    assert PATIENCE.verify_s <= elapsed() <= PATIENCE.verify_s + 2


async def test_after_a_write_in_doubt_an_overloaded_server_is_asked_again(cluster: MemoryCluster) -> None:
    # Giving up would report "nothing was written" of a write that has happened.
    cluster.lose_answers(True)
    cluster.fail("deployment", lambda _: None, Throttled("get deployments shop/web", "Slow", retry_after_s=1))
    assert (await undo(cluster)).outcome is Outcome.ROLLED_BACK


async def test_a_write_in_doubt_stays_in_doubt_where_looking_is_refused(cluster: MemoryCluster) -> None:
    # A right or a token that was withdrawn meanwhile: what was asked before may have happened.
    cluster.lose_answers(True)
    cluster.fail("deployment", lambda _: None, Denied("get deployments shop/web", "Forbidden"))
    with pytest.raises(Unanswered, match="not known"):
        await undo(cluster)


async def test_a_write_in_doubt_stays_in_doubt_where_the_next_one_would_have_to_wait_too_long(
    cluster: MemoryCluster,
) -> None:
    cluster.lose_answers(False)
    cluster.fail("patch", lambda _: None, Throttled("patch", "TooManyRequests", retry_after_s=86400))
    with pytest.raises(Unanswered, match="not known"):
        await undo(cluster)


async def test_a_write_that_happened_and_was_replaced_at_once_is_not_reported_as_none(cluster: MemoryCluster) -> None:
    # Our record is still on the Deployment; "nothing was changed" would be untrue.
    cluster.lose_answers(True)
    cluster.fail("deployment", lambda _: None, lambda scene: roll_out(scene, revision=5))
    result = await undo(cluster)
    assert result.outcome is Outcome.SUPERSEDED
    assert result.refused is None
    assert result.plan is not None
    assert is_live(cluster, "hotfix")


async def test_the_same_undo_by_somebody_else_meanwhile_is_theirs(cluster: MemoryCluster) -> None:
    cluster.lose_answers(False)
    cluster.fail("deployment", lambda _: None, lambda scene: roll_out(scene, "v2", revision=4))
    assert (await undo(cluster)).outcome is Outcome.SUPERSEDED


async def test_an_overloaded_server_is_left_alone_for_as_long_as_it_asks(cluster: MemoryCluster) -> None:
    cluster.fail("patch", Throttled("patch", "TooManyRequests", retry_after_s=7))
    assert (await undo(cluster)).outcome is Outcome.ROLLED_BACK
    first, second = [call.at for call in cluster.calls if call.method == "patch"]
    assert second - first >= 7


async def test_an_overloaded_server_cannot_make_an_action_wait_beyond_its_time(cluster: MemoryCluster) -> None:
    cluster.fail("patch", Throttled("patch", "TooManyRequests", retry_after_s=86400))
    with pytest.raises(Throttled):
        await undo(cluster)
    assert elapsed() <= PATIENCE.verify_s


# -- after the write nothing may fail it -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["post_event", "release", "patch_replicaset"])
@pytest.mark.parametrize("error", [silence(), Denied("x", "Forbidden"), Rejected("x", "Invalid"), Conflict("x", "y")])
async def test_what_accompanies_an_action_cannot_fail_it(
    cluster: MemoryCluster, method: str, error: ClusterError, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.fail(method, *[error] * 9)
    cluster.then(1, complete)
    result = await undo(cluster, verify=True, condemned=True)
    assert result.outcome is Outcome.ROLLED_BACK
    assert is_live(cluster, "v2")
    events = {getattr(record, "event", None) for record in caplog.records if record.levelno == logging.WARNING}
    missed = {"post_event": "event-not-written", "release": "ownership-kept", "patch_replicaset": "not-condemned"}
    assert missed[method] in events


async def test_field_ownership_that_moved_is_found_again(cluster: MemoryCluster) -> None:
    def write_a_status(scene: Scene) -> None:
        entries = scene.deployment["metadata"]["managedFields"]
        entries.insert(0, {**entries[0], "manager": "kube-controller-manager"})

    cluster.fail("release", write_a_status)
    await undo(cluster)
    managers = [entry["manager"] for entry in cluster.scene.deployment["metadata"]["managedFields"]]
    assert managers == ["kube-controller-manager", "kubectl"]
    assert cluster.count("release") == 2


# -- verifying ---------------------------------------------------------------------------------------------------------


async def test_a_hotfix_after_the_write_supersedes_it(cluster: MemoryCluster) -> None:
    cluster.then(2, observe)
    cluster.then(1, lambda scene: roll_out(scene, revision=5))
    result = await undo(cluster, verify=True)
    assert result.outcome is Outcome.SUPERSEDED
    assert result.detail == "rolled back 3 → 2, then changed by someone else"
    assert cluster.happened() == ["RollbackStarted", "RollbackSuperseded"]


async def test_a_deployment_that_is_deleted_after_the_write_supersedes_it(cluster: MemoryCluster) -> None:
    cluster.then(2, lambda scene: scene.deployment.clear())
    assert (await undo(cluster, verify=True)).outcome is Outcome.SUPERSEDED


async def test_an_undo_that_takes_longer_than_a_person_waits_is_under_way_and_says_what_its_pods_wait_for(
    cluster: MemoryCluster,
) -> None:
    waiting = {"name": "web", "state": {"waiting": {"reason": "ImagePullBackOff"}}}
    cluster.pods_found = (decoded({"metadata": {}, "status": {"containerStatuses": [waiting]}}, Pod),)
    cluster.then(2, observe)
    result = await undo(cluster, verify=True)
    assert (result.outcome, elapsed()) == (Outcome.UNDER_WAY, PATIENCE.verify_s)
    assert result.elapsed_s == PATIENCE.verify_s
    assert "under way, not complete after 300 s: 1 of 3 pods run the target's template" in result.detail
    assert result.pods == ("1 pod: web: ImagePullBackOff",)
    assert cluster.calls[-1].method == f"pods app=web,pod-template-hash={hash_of('v2')}"
    assert cluster.happened() == ["RollbackStarted"], "it has not failed"
    assert is_live(cluster, "v2"), "an undo is never undone"


async def written(cluster: MemoryCluster) -> Undo:
    """An undo of ours that was written just now, for the service to verify."""
    result = await undo(cluster)
    assert isinstance(result.plan, Undo)
    return result.plan


def available(count: int) -> Callable[[Scene], None]:
    """Let the rollout come one pod further."""

    def edit(scene: Scene) -> None:
        generation = scene.deployment["metadata"]["generation"]
        scene.deployment["status"] = status(generation=generation, replicas=3, updated=3, available=count)

    return edit


async def test_the_service_verifies_for_as_long_as_the_rollout_goes_forward(cluster: MemoryCluster) -> None:
    """Ten pods that must live for three minutes each take half an hour."""
    cluster.scene.spec.update(progressDeadlineSeconds=600, minReadySeconds=550)
    plan = await written(cluster)
    cluster.then(2, observe)
    for count in (1, 2):
        cluster.then(550, available(count))
    cluster.then(550, complete)
    result = await actor(cluster).finish(plan, REQUEST, resumed=False)
    assert (result.outcome, elapsed()) == (Outcome.ROLLED_BACK, 1652)


@pytest.mark.parametrize(
    ("spec", "seconds"), [({"progressDeadlineSeconds": 600}, 660), ({"minReadySeconds": 900}, 1200)]
)
async def test_a_rollout_without_any_step_forward_fails_some_time_after_its_controller_should_have_given_up(
    cluster: MemoryCluster, spec: Json, seconds: float
) -> None:
    cluster.scene.spec.update(spec)
    plan = await written(cluster)
    cluster.then(10, observe)
    result = await actor(cluster).finish(plan, REQUEST, resumed=False)
    assert (result.outcome, elapsed()) == (Outcome.FAILED, 10 + seconds)
    assert f"no progress for {seconds} s: 1 of 3 pods run the target's template" in result.detail
    assert cluster.events[-1].reason == "RollbackFailed"


async def test_pods_that_are_not_ready_after_a_minute_are_told_once(cluster: MemoryCluster) -> None:
    plan = await written(cluster)
    created = (NOW - dt.timedelta(seconds=60)).isoformat()
    waiting = {"name": "web", "state": {"waiting": {"reason": "ImagePullBackOff"}}}
    pod = {"metadata": {"creationTimestamp": created}, "status": {"containerStatuses": [waiting]}}
    cluster.pods_found = (decoded(pod, Pod),)
    cluster.then(2, observe)
    cluster.then(200, complete)
    told: list[tuple[str, ...]] = []

    async def tell(pods: tuple[str, ...]) -> None:
        told.append(pods)

    result = await actor(cluster).finish(plan, REQUEST, resumed=False, stuck=tell)
    assert (result.outcome, told) == (Outcome.ROLLED_BACK, [("1 pod: web: ImagePullBackOff",)])


# -- what admission changes, and what is being deleted -----------------------------------------------------------------


def label(scene: Scene) -> None:
    """Let a mutating webhook have added to the template that was written last."""
    scene.spec["template"] = msgspec.json.decode(msgspec.json.encode(scene.spec["template"]))
    scene.spec["template"]["metadata"].setdefault("annotations", {})["injected"] = "yes"


async def test_a_template_that_admission_changed_is_ours_and_a_later_change_is_not(cluster: MemoryCluster) -> None:
    cluster.admit = label
    plan = await written(cluster)
    assert b"injected" in bytes(plan.template)
    cluster.then(2, complete)
    assert (await actor(cluster).finish(plan, REQUEST, resumed=False)).outcome is Outcome.ROLLED_BACK
    roll_out(cluster.scene, revision=5)
    assert (await actor(cluster).finish(plan, REQUEST, resumed=False)).outcome is Outcome.SUPERSEDED


async def test_a_template_that_admission_changed_is_ours_after_a_lost_answer(cluster: MemoryCluster) -> None:
    cluster.admit = label
    cluster.lose_answers(True)
    cluster.then(1, complete)
    result = await undo(cluster, verify=True)
    assert (result.outcome, cluster.count("patch")) == (Outcome.ROLLED_BACK, 1)


async def test_a_template_that_admission_changed_is_found_by_the_next_process_and_a_hotfix_is_not(
    cluster: MemoryCluster,
) -> None:
    cluster.admit = label
    request = msgspec.structs.replace(REQUEST, nonce="0" * 32)
    plan = (await undo(cluster, request)).plan
    assert isinstance(plan, Undo)
    proofs = (marks.digest(request.nonce, plan.rollout),)
    live = msgspec.json.decode(msgspec.json.encode(cluster.scene.replicaset("v2")))
    live["metadata"] |= {"name": "web-mutated", "uid": "mutated"}
    live["metadata"]["labels"]["pod-template-hash"] = "mutated"
    live["spec"]["template"] = cluster.scene.spec["template"]
    cluster.scene.replicasets.append(live)
    observe(cluster.scene)
    found = await actor(cluster).written(plan.rollout, proofs=proofs)
    assert isinstance(found, Undo)
    assert b"injected" in bytes(found.template)
    roll_out(cluster.scene, revision=5)
    assert await actor(cluster).written(plan.rollout, proofs=proofs) is None


async def test_a_deployment_that_is_being_deleted_is_left_alone_at_once(cluster: MemoryCluster) -> None:
    cluster.scene.deployment["metadata"]["deletionTimestamp"] = NOW.isoformat()
    for result in (
        await undo(cluster, verify=True),
        await actor(cluster).scale_down(REF, REQUEST),
        await actor(cluster).pause(REF, REQUEST),
    ):
        assert (result.outcome, "being deleted" in result.detail) == (Outcome.SUPERSEDED, True)
    assert (cluster.count("patch"), elapsed()) == (0, 0)


async def test_a_deployment_whose_deletion_begins_while_it_is_verified_is_not_waited_for(
    cluster: MemoryCluster,
) -> None:
    plan = await written(cluster)
    cluster.then(5, lambda scene: scene.deployment["metadata"].update(deletionTimestamp=NOW.isoformat()))
    result = await actor(cluster).finish(plan, REQUEST, resumed=False)
    assert (result.outcome, elapsed()) == (Outcome.SUPERSEDED, 5)


async def test_an_undo_whose_deadline_the_controller_gives_up_on_fails_at_once(cluster: MemoryCluster) -> None:
    cluster.then(10, exceed_deadline)
    result = await undo(cluster, verify=True)
    assert (result.outcome, elapsed()) == (Outcome.FAILED, 10)
    assert "progress deadline" in result.detail


async def test_pods_that_cannot_be_read_are_a_line_of_the_failure(cluster: MemoryCluster) -> None:
    cluster.then(1, exceed_deadline)
    selector = f"pods app=web,pod-template-hash={hash_of('v2')}"
    cluster.fail(selector, Denied("list pods shop", "Forbidden"))
    result = await undo(cluster, verify=True)
    assert result.outcome is Outcome.FAILED
    assert result.pods == ("its pods could not be read: list pods shop: Forbidden",)


async def test_an_undo_that_nobody_waits_for_ends_with_its_write(cluster: MemoryCluster) -> None:
    result = await undo(cluster)
    assert (result.outcome, result.elapsed_s, elapsed()) == (Outcome.ROLLED_BACK, None, 0)
    assert cluster.happened() == ["RollbackStarted"]


async def test_progress_is_told_once_for_each_change(cluster: MemoryCluster) -> None:
    told: list[str] = []
    cluster.then(1, observe)
    cluster.then(1, observe)
    cluster.then(1, complete)
    watched = Actor(cluster, patience=PATIENCE, now=lambda: NOW, progress=told.append)
    await watched.undo(REF, REQUEST)
    assert told == [
        "the controller has not seen the change yet",
        "1 of 3 pods run the target's template",
        "3 of 3 pods available",
    ]


# -- the other actions -------------------------------------------------------------------------------------------------


async def test_a_scale_down_condemns_and_waits_until_the_pods_are_gone(cluster: MemoryCluster) -> None:
    cluster.then(1, observe)
    cluster.then(2, complete)
    result = await actor(cluster).scale_down(REF, REQUEST)
    assert (result.outcome, result.elapsed_s) == (Outcome.SCALED_DOWN, 3)
    assert result.detail.startswith("scaled down 3 → 0 (revision 3)")
    found = next(item for item in cluster.scene.snapshot.replicasets if item.hash == hash_of("v3"))
    assert marks.condemned_by(found) is not None
    assert cluster.happened() == ["CanaryScaledDown"]


async def test_a_canary_that_somebody_scales_up_again_is_superseded(cluster: MemoryCluster) -> None:
    cluster.then(1, lambda scene: scene.spec.update(replicas=1))
    assert (await actor(cluster).scale_down(REF, REQUEST)).outcome is Outcome.SUPERSEDED


async def test_a_scale_down_looks_for_keda_each_time_it_decides(cluster: MemoryCluster) -> None:
    cluster.scalers = (autoscaler("web", labels={"scaledobject.keda.sh/name": "web-queue"}),)
    result = await actor(cluster).scale_down(REF, REQUEST)
    assert result.refused is not None
    assert result.refused.guard is Guard.KEDA
    assert cluster.scene.spec["replicas"] == 3


async def test_a_scale_down_is_not_made_where_keda_cannot_be_looked_for(cluster: MemoryCluster) -> None:
    cluster.fail("autoscalers", Denied("list horizontalpodautoscalers shop", "Forbidden"))
    with pytest.raises(Denied):
        await actor(cluster).scale_down(REF, REQUEST)
    assert cluster.scene.spec["replicas"] == 3


@pytest.mark.parametrize("landed", [True, False])
async def test_a_scale_down_without_an_answer_is_made_once(cluster: MemoryCluster, *, landed: bool) -> None:
    cluster.lose_answers(landed)
    cluster.then(1, complete)
    assert (await actor(cluster).scale_down(REF, REQUEST)).outcome is Outcome.SCALED_DOWN
    assert cluster.scene.annotations[marks.REPLICAS_BEFORE] == f"{hash_of('v3')}:3"


@pytest.mark.parametrize("landed", [True, False])
async def test_a_pause_without_an_answer_is_made_once(cluster: MemoryCluster, *, landed: bool) -> None:
    cluster.lose_answers(landed)
    result = await actor(cluster).pause(REF, REQUEST)
    assert (result.outcome, result.detail) == (Outcome.PAUSED, "paused at revision 3")
    assert cluster.scene.spec["paused"] is True
    assert cluster.happened() == ["RolloutPaused"]


@pytest.mark.parametrize("landed", [None, True, False])
async def test_a_new_version_gets_its_replicas_back_once(cluster: MemoryCluster, landed: bool | None) -> None:
    cluster.scene.annotations[marks.REPLICAS_BEFORE] = f"{hash_of('v2')}:5"
    cluster.scene.spec["replicas"] = 0
    cluster.lose_answers(*([] if landed is None else [landed]))
    result = await actor(cluster).restore(REF, REQUEST, condemned_images=frozenset())
    assert (result.outcome, result.detail) == (Outcome.RESTORED, "restored 0 → 5")
    assert cluster.scene.spec["replicas"] == 5
    assert cluster.events == []


async def test_a_used_mark_is_taken_off_the_replicaset_too_so_that_kubectl_cannot_bring_it_back(
    cluster: MemoryCluster,
) -> None:
    mark = f"{hash_of('v2')}:5"
    cluster.scene.annotations[marks.REPLICAS_BEFORE] = mark
    live = cluster.scene.replicaset("v3")["metadata"]["annotations"]
    live[marks.REPLICAS_BEFORE] = mark
    cluster.scene.spec["replicas"] = 0
    await actor(cluster).restore(REF, REQUEST, condemned_images=frozenset())
    assert marks.REPLICAS_BEFORE not in cluster.scene.replicaset("v3")["metadata"]["annotations"]


async def test_where_nothing_is_to_be_restored_nothing_is_written(cluster: MemoryCluster) -> None:
    result = await actor(cluster).restore(REF, REQUEST, condemned_images=frozenset())
    assert result.outcome is Outcome.REFUSED
    assert cluster.count("patch") == 0


# -- what is logged ----------------------------------------------------------------------------------------------------


async def test_every_end_is_one_log_line_with_its_fields(
    cluster: MemoryCluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    cluster.then(1, complete)
    done = await undo(cluster, verify=True)
    cluster.scene.pause()
    await undo(cluster, msgspec.structs.replace(REQUEST, to_revision=1))
    now_live = msgspec.structs.replace(done.plan.rollout, revision=4, hash=hash_of("v2")) if done.plan else None
    assert done.plan is not None
    assert now_live is not None
    ends = [vars(record) for record in caplog.records if vars(record).get("event") in ("rolled-back", "refused")]
    assert [(end["event"], end["workload"], end["incident"], end["guard"]) for end in ends] == [
        ("rolled-back", "shop/web", done.plan.rollout.incident, None),
        ("refused", "shop/web", now_live.incident, "paused"),
    ]


# -- interrupted, deleted, changed on the way --------------------------------------------------------------------------


async def test_being_interrupted_waits_for_the_write_and_what_follows_it(cluster: MemoryCluster) -> None:
    def interrupt(_: Scene) -> None:
        task.cancel()

    cluster.fail("patch", interrupt)
    task = asyncio.create_task(undo(cluster, verify=True, condemned=True))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert is_live(cluster, "v2")
    assert cluster.happened() == ["RollbackStarted"]
    assert [entry["manager"] for entry in cluster.scene.deployment["metadata"]["managedFields"]] == ["kubectl"]
    assert cluster.count("patch_replicaset") == 1


async def test_a_workload_that_is_deleted_between_read_and_write_is_superseded(cluster: MemoryCluster) -> None:
    cluster.fail("patch", NotFound("patch deployments shop/web", "NotFound"))
    result = await undo(cluster)
    assert (result.outcome, result.detail) == (Outcome.SUPERSEDED, "superseded: it was deleted by someone else")


async def test_a_failure_that_the_server_answers_with_is_no_doubt_once_nothing_was_found_written(
    cluster: MemoryCluster,
) -> None:
    cluster.fail("patch", *[ServerError("patch deployments shop/web", "InternalError")] * 3)
    with pytest.raises(ServerError, match=r"InternalError; revision 3 stays live"):
        await undo(cluster)
    assert is_live(cluster, "v3")


async def test_the_mark_of_an_earlier_action_on_the_same_rollout_does_not_count_as_this_one(
    cluster: MemoryCluster,
) -> None:
    await actor(cluster).scale_down(REF, REQUEST)
    cluster.scene.spec["replicas"] = 3
    observe(cluster.scene, revision=3)
    cluster.lose_answers(False)
    cluster.fail("deployment", lambda _: None, lambda scene: scene.annotations.update({marks.HOLD: "wait"}))
    result = await undo(cluster)
    assert (result.outcome, result.refused and result.refused.guard) == (Outcome.REFUSED, Guard.HOLD)


async def test_a_workload_that_is_deleted_while_it_is_verified_is_told_as_deleted(cluster: MemoryCluster) -> None:
    cluster.then(1, lambda scene: scene.deployment.clear())
    result = await undo(cluster, verify=True)
    assert (result.outcome, result.detail) == (Outcome.SUPERSEDED, "rolled back 3 → 2, then deleted by someone else")
