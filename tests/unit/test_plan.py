"""The exact writes of each action: what they change, and what makes them change nothing."""

import copy
import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.unit import json_patch
from tests.unit.builders import (
    CAUSE,
    NOW,
    UID,
    Json,
    Scene,
    autoscaler,
    hash_of,
    history,
    managed,
    replicaset,
    status,
    template,
)
from tests.unit.json_patch import PatchFailedError
from watchdog.decide import marks
from watchdog.decide.patches import absolve, condemn, release_ownership
from watchdog.decide.plan import (
    Request,
    landed,
    plan_pause,
    plan_restore,
    plan_scale_down,
    plan_undo,
)
from watchdog.model import (
    MANAGER,
    Guard,
    Objection,
    Pause,
    Plan,
    Restore,
    Rollout,
    ScaleDown,
    Undo,
)
from watchdog.objects import (
    CHANGE_CAUSE,
    HASH_LABEL,
    REVISION,
    Autoscaler,
    Metadata,
    TemplateHash,
    WorkloadRef,
)

LIVE = Rollout(WorkloadRef("shop", "web"), UID, 3, hash_of("v3"))
TRACKED_BY_ARGO = {"argocd.argoproj.io/tracking-id": "shop-web:apps/Deployment:shop/web"}
HELD = "until=2026-03-01T13:00:00Z;migration"
OVER = "until=2026-03-01T11:00:00Z;migration"


def bad_rollout() -> Scene:
    """Three versions; the last one is live and halfway through."""
    return history("v1", "v2", "v3")


def decide_undo(scene: Scene, **asked: Any) -> Undo | Objection:
    return plan_undo(scene.snapshot, Request(cause=CAUSE, **asked), now=NOW)


def undo(scene: Scene, **asked: Any) -> Undo:
    plan = decide_undo(scene, **asked)
    assert isinstance(plan, Undo), plan
    return plan


def scale_down(scene: Scene, *, autoscalers: tuple[Autoscaler, ...] = (), **asked: Any) -> ScaleDown:
    plan = plan_scale_down(scene.snapshot, Request(cause=CAUSE, **asked), autoscalers=autoscalers, now=NOW)
    assert isinstance(plan, ScaleDown), plan
    return plan


def pause(scene: Scene, **asked: Any) -> Pause:
    plan = plan_pause(scene.snapshot, Request(cause=CAUSE, **asked), now=NOW)
    assert isinstance(plan, Pause), plan
    return plan


def restore(scene: Scene) -> Restore:
    plan = plan_restore(scene.snapshot, condemned_images=frozenset())
    assert isinstance(plan, Restore), plan
    return plan


def refused(answer: Plan | Objection | None) -> Objection:
    assert isinstance(answer, Objection), answer
    return answer


def scaled_down(*, then: str | None) -> Scene:
    """A canary that we took away when it ran v3, and what somebody deployed to it since."""
    scene = bad_rollout()
    scene.deployment = scene.after(scale_down(scene).patch)
    if then:
        newer = history("v1", "v2", "v3", then, replicas=0)
        newer.annotations.update({marks.REPLICAS_BEFORE: scene.annotations[marks.REPLICAS_BEFORE]})
        return newer
    return scene


# -- undo: what it changes ---------------------------------------------------------------------------------------------


def test_an_undo_puts_the_template_of_the_revision_before_back() -> None:
    scene = bad_rollout()
    assert scene.after(undo(scene).patch)["spec"]["template"] == template("v2")


def test_an_undo_changes_the_template_and_our_mark_and_nothing_else() -> None:
    scene = bad_rollout()
    after, before = scene.after(undo(scene).patch), copy.deepcopy(scene.deployment)
    assert after["metadata"]["annotations"].pop(marks.LAST_ROLLBACK)
    del after["spec"]["template"], before["spec"]["template"]
    assert after == before


def test_an_undo_carries_the_targets_template_byte_for_byte() -> None:
    # Numbers, key order, escapes and unknown fields would not survive a round trip through models.
    text = (
        '{"spec":{"containers":[{"name":"web","image":"w:1","tomorrow":{"z":1.0,"a":1e3,"u":"\\u00e9"}}]},'
        f'"metadata":{{"labels":{{"app":"web","{HASH_LABEL}":"{hash_of("v2")}"}}}}}}'
    )
    snapshot = bad_rollout().snapshot
    sets = tuple(
        msgspec.structs.replace(item, spec=msgspec.structs.replace(item.spec, template=msgspec.Raw(text.encode())))
        if item.hash == hash_of("v2")
        else item
        for item in snapshot.replicasets
    )
    plan = plan_undo(msgspec.structs.replace(snapshot, replicasets=sets), Request(cause=CAUSE), now=NOW)
    assert isinstance(plan, Undo)
    assert text.encode() in plan.patch
    assert bytes(plan.template) == text.encode()


def test_an_undo_leaves_a_record_of_itself_in_the_same_write() -> None:
    scene = bad_rollout()
    plan = undo(scene, to_revision=1)
    mark = marks.read_last_rollback(scene.after(plan.patch)["metadata"]["annotations"], now=NOW)
    assert mark == marks.LastRollback(
        incident=LIVE.incident,
        from_hash=hash_of("v3"),
        to_hash=hash_of("v1"),
        from_revision=3,
        to_revision=1,
        by=CAUSE.by,
        cause=CAUSE.reason,
        at=NOW,
    )


def test_an_undo_restores_the_change_cause_of_its_target() -> None:
    scene = history("v1", "v2", "v3", cause="broke the checkout")
    scene.annotate("v2", CHANGE_CAUSE, "new checkout")
    assert scene.after(undo(scene).patch)["metadata"]["annotations"][CHANGE_CAUSE] == "new checkout"


def test_an_undo_to_a_revision_without_a_change_cause_removes_that_of_the_bad_one() -> None:
    scene = history("v1", "v2", "v3", cause="broke the checkout")
    assert CHANGE_CAUSE not in scene.after(undo(scene).patch)["metadata"]["annotations"]


def test_an_undo_keeps_what_others_have_annotated_since() -> None:
    # kubectl would wipe it, and would bring the marks of the target along.
    scene = bad_rollout()
    scene.annotations["team"] = "checkout"
    scene.annotate("v2", marks.PASSED, marks.write_about(hash_of("v2"), "2026-02-01T00:00:00Z"))
    after = scene.after(undo(scene).patch)["metadata"]["annotations"]
    assert after["team"] == "checkout"
    assert marks.PASSED not in after


def test_the_hash_of_the_target_does_not_get_into_the_deployments_template() -> None:
    scene = bad_rollout()
    assert HASH_LABEL not in scene.after(undo(scene).patch)["spec"]["template"]["metadata"]["labels"]


def test_a_target_whose_template_lacks_the_hash_label_can_be_gone_back_to() -> None:
    scene = bad_rollout()
    del scene.replicaset("v2")["spec"]["template"]["metadata"]["labels"][HASH_LABEL]
    assert scene.after(undo(scene).patch)["spec"]["template"] == template("v2")


def test_a_target_that_lost_its_own_hash_label_leaves_none_in_the_deployments_template() -> None:
    scene = bad_rollout()
    del scene.replicaset("v2")["metadata"]["labels"][HASH_LABEL]
    assert scene.after(undo(scene).patch)["spec"]["template"] == template("v2")


def test_an_undo_of_our_own_pause_resumes_and_takes_the_mark_away() -> None:
    scene = bad_rollout()
    scene.pause(incident=LIVE.incident, version="v3")
    after = scene.after(undo(scene).patch)
    assert after["spec"]["paused"] is False
    assert marks.PAUSED_BY not in after["metadata"]["annotations"]
    assert after["spec"]["template"] == template("v2")


def test_an_undo_says_what_it_would_change_without_any_secret() -> None:
    changes = undo(bad_rollout()).changes
    assert changes == (
        "spec.containers[web].env[PASSWORD].value",
        "spec.containers[web].image: registry.example/web:v3 -> registry.example/web:v2",
    )


# -- undo: pressed twice -----------------------------------------------------------------------------------------------


def after_undo(scene: Scene, *, at: dt.datetime = NOW, **asked: Any) -> Scene:
    """What is there after an undo, when the controller has renumbered the revision that it went to."""
    plan = plan_undo(scene.snapshot, Request(cause=CAUSE, **asked), now=at)
    assert isinstance(plan, Undo), plan
    after = scene.copied()
    after.deployment = after.after(plan.patch)
    newest = str(max(int(item["metadata"]["annotations"][REVISION]) for item in after.replicasets) + 1)
    after.annotations[REVISION] = newest
    target = next(item for item in after.replicasets if item["metadata"]["name"] == plan.target.replicaset)
    target["metadata"]["annotations"][REVISION] = newest
    return after


def test_the_emergency_button_pressed_twice_does_not_bring_the_bad_version_back() -> None:
    once = after_undo(bad_rollout())
    refusal = refused(decide_undo(once))
    assert refusal.guard is Guard.ALREADY
    assert refusal.detail == (
        f"revision 4 was put there by the rollback 3 → 2 at 12:00:00 UTC by {CAUSE.by} ({CAUSE.reason}); to go further"
        " back, name the revision with --to-revision, or say --expected-current-revision 4"
    )


def test_no_force_presses_the_emergency_button_twice() -> None:
    assert refused(decide_undo(after_undo(bad_rollout()), force=True)).guard is Guard.ALREADY


def test_an_undo_of_the_service_is_not_undone_by_a_person_who_did_not_know_of_it() -> None:
    scene = history("v1", "v2")
    scene.condemn("v2")
    after = after_undo(scene)
    assert refused(decide_undo(after, force=True)).guard is Guard.ALREADY


@pytest.mark.parametrize(("asked", "goes_to"), [({"to_revision": 3}, "v3"), ({"to_revision": 1}, "v1")])
def test_after_an_undo_a_named_revision_is_gone_to(asked: Json, goes_to: str) -> None:
    assert undo(after_undo(bad_rollout()), **asked).target.hash == hash_of(goes_to)


def test_whoever_knows_what_is_live_goes_further_back_and_never_to_what_was_left() -> None:
    scene = history("v1", "v2", "v3", "v4", "v5")
    for live, goes_to in ((5, "v4"), (6, "v3"), (7, "v2"), (8, "v1")):
        assert undo(scene, expected_revision=live).target.hash == hash_of(goes_to)
        scene = after_undo(scene, expected_revision=live)
        assert refused(decide_undo(scene)).guard is Guard.ALREADY
    assert refused(decide_undo(scene, expected_revision=9)).guard is Guard.NO_TARGET


def test_a_version_that_came_after_an_undo_is_after_undo() -> None:
    scene = after_undo(bad_rollout())
    scene.deploy("v4")
    newer = replicaset("v4", 5, age=-1)
    scene.replicasets.append(newer)
    scene.annotations[REVISION] = "5"
    scene.deployment["status"]["observedGeneration"] = scene.deployment["metadata"]["generation"]
    assert undo(scene).target.hash == hash_of("v2")


def test_an_undo_goes_on_where_it_would_not_go_to_what_the_last_one_left() -> None:
    scene = bad_rollout()
    scene.condemn("v3")
    assert undo(after_undo(scene)).target.hash == hash_of("v1")


@pytest.mark.parametrize(
    ("ago", "already"),
    [
        (dt.timedelta(), True),
        (dt.timedelta(minutes=60), True),
        (dt.timedelta(minutes=61), False),
        (dt.timedelta(seconds=-50), True),
        (dt.timedelta(seconds=-70), False),
        (dt.timedelta(days=-400), False),
    ],
)
def test_only_an_undo_of_the_last_hour_counts_and_none_of_the_future(ago: dt.timedelta, *, already: bool) -> None:
    answer = decide_undo(after_undo(bad_rollout(), at=NOW - ago))
    assert (isinstance(answer, Objection) and answer.guard is Guard.ALREADY) == already


@pytest.mark.parametrize(
    "text", ["", "{", "null", '{"incident": "a"}', "[" * 1000, '{"at": "9999-12-31T23:59:59-14:00"}']
)
def test_what_is_no_mark_withholds_nothing(text: str) -> None:
    scene = after_undo(bad_rollout())
    scene.annotations[marks.LAST_ROLLBACK] = text
    assert undo(scene).target.hash == hash_of("v3")


def test_a_scale_down_is_no_undo_that_could_be_pressed_twice() -> None:
    scene = bad_rollout()
    scene.deployment = scene.after(scale_down(scene).patch)
    scene.deployment["status"]["observedGeneration"] = scene.deployment["metadata"]["generation"]
    assert undo(scene).target.hash == hash_of("v2")


# -- every write: what makes it fail -----------------------------------------------------------------------------------


def undone() -> tuple[Scene, Plan]:
    scene = bad_rollout()
    return scene, undo(scene)


def scaled() -> tuple[Scene, Plan]:
    scene = bad_rollout()
    return scene, scale_down(scene)


def held_back() -> tuple[Scene, Plan]:
    scene = bad_rollout()
    return scene, pause(scene)


def given_back() -> tuple[Scene, Plan]:
    scene = scaled_down(then="v4")
    return scene, restore(scene)


def annotated(key: str, value: str) -> Callable[[Scene], object]:
    return lambda scene: scene.annotations.update({key: value})


def set_in_spec(**fields: object) -> Callable[[Scene], object]:
    return lambda scene: scene.spec.update(fields)


ACTIONS = {"undo": undone, "scale-down": scaled, "pause": held_back, "restore": given_back}
EVERY = tuple(ACTIONS)

INTERFERENCES: list[tuple[str, Callable[[Scene], object], tuple[str, ...]]] = [
    ("a hotfix", lambda scene: scene.deploy("hotfix"), EVERY),
    ("a hotfix that changes an annotation", set_in_spec(template=template("v3", annotations={"a": "b"})), EVERY),
    ("a new Deployment of that name", lambda scene: scene.deployment["metadata"].update(uid="another"), EVERY),
    ("a hold", annotated(marks.HOLD, HELD), EVERY),
    ("a revision that was numbered anew", annotated(REVISION, "9"), ("undo",)),
    ("a pause", set_in_spec(paused=True), ("undo", "pause")),
    ("a scaling", set_in_spec(replicas=7), ("scale-down", "restore")),
    ("another count to be restored", annotated(marks.REPLICAS_BEFORE, f"{hash_of('v3')}:9"), ("restore",)),
]


@pytest.mark.parametrize(
    ("action", "interfere"),
    [
        pytest.param(action, interfere, id=f"{action} / {name}")
        for name, interfere, actions in INTERFERENCES
        for action in actions
    ],
)
def test_whoever_comes_in_between_wins(action: str, interfere: Callable[[Scene], object]) -> None:
    scene, plan = ACTIONS[action]()
    scene.after(plan.patch)  # without the interference it would be accepted
    interfere(scene)
    with pytest.raises(PatchFailedError):
        scene.after(plan.patch)


@pytest.mark.parametrize("action", ACTIONS)
def test_no_write_is_accepted_a_second_time(action: str) -> None:
    scene, plan = ACTIONS[action]()
    scene.deployment = scene.after(plan.patch)
    with pytest.raises(PatchFailedError):
        scene.after(plan.patch)


@pytest.mark.parametrize("action", ["undo", "pause"])
def test_an_autoscaler_that_does_its_work_in_between_disturbs_nothing(action: str) -> None:
    scene, plan = ACTIONS[action]()
    scene.spec["replicas"] = 12
    scene.deployment["metadata"]["generation"] += 1
    scene.deployment["metadata"]["resourceVersion"] = "2000"
    assert scene.after(plan.patch)["spec"]["replicas"] == 12


@pytest.mark.parametrize("action", ACTIONS)
def test_a_status_that_the_controller_writes_in_between_disturbs_nothing(action: str) -> None:
    scene, plan = ACTIONS[action]()
    scene.deployment["status"] = status(generation=99, replicas=9, updated=9, available=9)
    assert landed(plan, scene.written(plan.patch))


def test_the_hold_that_was_judged_may_stay_and_no_other_may_replace_it() -> None:
    scene = bad_rollout()
    scene.annotations[marks.HOLD] = OVER
    patch = undo(scene).patch
    assert scene.after(patch)["metadata"]["annotations"][marks.HOLD] == OVER
    scene.annotations[marks.HOLD] = HELD
    with pytest.raises(PatchFailedError):
        scene.after(patch)


def test_a_forced_undo_does_not_pass_a_hold_that_was_not_there_when_it_was_forced() -> None:
    scene = bad_rollout()
    patch = undo(scene, force=True).patch
    scene.annotations[marks.HOLD] = HELD
    with pytest.raises(PatchFailedError):
        scene.after(patch)


def test_our_own_pause_lifted_by_somebody_in_between_is_not_lifted_again() -> None:
    scene = bad_rollout()
    scene.pause(incident=LIVE.incident, version="v3")
    patch = undo(scene).patch
    del scene.spec["paused"]
    with pytest.raises(PatchFailedError):
        scene.after(patch)


# -- undo: refusals ----------------------------------------------------------------------------------------------------


def test_the_version_that_was_judged_is_the_only_one_that_is_undone() -> None:
    other = msgspec.structs.replace(LIVE, hash=TemplateHash("another"))
    answer = refused(decide_undo(bad_rollout(), rollout=other))
    assert answer.guard is Guard.SUPERSEDED
    assert f"revision 3 ({hash_of('v3')}) is live now" in answer.detail
    assert isinstance(decide_undo(bad_rollout(), rollout=LIVE), Undo)


def test_a_version_that_came_back_under_a_new_number_is_not_the_one_that_was_judged() -> None:
    answer = refused(decide_undo(bad_rollout(), rollout=msgspec.structs.replace(LIVE, revision=2)))
    assert answer.guard is Guard.SUPERSEDED


def test_an_expected_revision_that_is_not_live_is_refused_with_the_one_that_is() -> None:
    answer = refused(decide_undo(bad_rollout(), expected_revision=2))
    assert (answer.guard, answer.detail) == (Guard.SUPERSEDED, "revision 3 is live, not the expected 2")
    assert isinstance(decide_undo(bad_rollout(), expected_revision=3), Undo)


def test_an_unobserved_change_is_not_observed_and_not_superseded() -> None:
    # Otherwise the caller would give up instead of looking again.
    scene = bad_rollout()
    scene.deploy("v4")
    assert refused(decide_undo(scene, rollout=LIVE)).guard is Guard.NOT_OBSERVED


def test_a_pause_that_keeps_the_controller_from_looking_is_named_instead_of_waited_for() -> None:
    scene = bad_rollout()
    scene.spec["template"] = template("v4")
    scene.pause()
    assert refused(decide_undo(scene)).guard is Guard.PAUSED
    assert refused(decide_undo(scene, force=True)).guard is Guard.NOT_OBSERVED


def everything_against_it() -> Scene:
    scene = bad_rollout()
    scene.pause()
    scene.spec["strategy"] = {"type": "Recreate"}
    scene.condemn("v1")
    scene.condemn("v2")
    scene.annotations.update(TRACKED_BY_ARGO)
    scene.annotations[marks.HOLD] = HELD
    return scene


def test_all_policy_guards_that_refuse_are_named_in_one_refusal() -> None:
    answer = refused(decide_undo(everything_against_it()))
    named = [answer.guard, *(each.guard for each in answer.also)]
    assert named == [Guard.PAUSED, Guard.RECREATE, Guard.CONDEMNED, Guard.GITOPS, Guard.HOLD]
    assert all(f"{guard}: " in str(answer) for guard in named)


def test_force_passes_the_policy_guards_and_remembers_which() -> None:
    scene = everything_against_it()
    plan = undo(scene, force=True)
    assert [each.guard for each in plan.forced] == [
        Guard.PAUSED,
        Guard.RECREATE,
        Guard.CONDEMNED,
        Guard.GITOPS,
        Guard.HOLD,
    ]
    after = scene.after(plan.patch)
    assert after["spec"]["template"] == template("v2")
    assert after["spec"]["paused"] is False


def test_an_undo_that_nothing_stood_against_was_not_forced() -> None:
    assert undo(bad_rollout(), force=True).forced == ()


def superseded(scene: Scene) -> Json:
    return {"expected_revision": 2}


def not_observed(scene: Scene) -> Json:
    scene.deploy("v4")
    return {}


def no_target(scene: Scene) -> Json:
    del scene.replicasets[:2]
    return {}


def nothing_to_undo(scene: Scene) -> Json:
    return {"to_revision": 3}


@pytest.mark.parametrize(
    ("prepare", "guard"),
    [
        (superseded, Guard.SUPERSEDED),
        (not_observed, Guard.NOT_OBSERVED),
        (no_target, Guard.NO_TARGET),
        (nothing_to_undo, Guard.NOTHING_TO_UNDO),
    ],
)
def test_force_never_passes_a_physical_guard(prepare: Callable[[Scene], Json], guard: Guard) -> None:
    scene = bad_rollout()
    assert refused(decide_undo(scene, force=True, **prepare(scene))).guard is guard


def test_a_policy_may_act_against_gitops_and_no_other_guard_is_lifted_by_that() -> None:
    scene = bad_rollout()
    scene.annotations.update(TRACKED_BY_ARGO)
    assert undo(scene, gitops_act=True).forced == ()
    scene.annotations[marks.HOLD] = HELD
    answer = refused(decide_undo(scene, gitops_act=True))
    assert (answer.guard, answer.also) == (Guard.HOLD, ())


def test_an_undo_passes_a_condemned_revision_over_and_refuses_where_all_are() -> None:
    scene = bad_rollout()
    scene.condemn("v2")
    assert undo(scene).target.hash == hash_of("v1")
    scene.condemn("v1")
    assert refused(decide_undo(scene)).guard is Guard.CONDEMNED


def test_a_condemned_revision_is_not_gone_back_to_by_its_number_either() -> None:
    scene = bad_rollout()
    scene.condemn("v2")
    assert refused(decide_undo(scene, to_revision=2)).guard is Guard.CONDEMNED


# -- scale-down --------------------------------------------------------------------------------------------------------


def test_a_scale_down_takes_all_pods_away_and_remembers_how_many_of_what_there_were() -> None:
    scene = bad_rollout()
    plan = scale_down(scene)
    after = scene.after(plan.patch)
    assert after["spec"]["replicas"] == 0
    assert after["spec"]["template"] == scene.spec["template"]
    assert after["metadata"]["annotations"][marks.REPLICAS_BEFORE] == f"{hash_of('v3')}:3"
    mark = marks.read_last_rollback(after["metadata"]["annotations"], now=NOW)
    assert mark is not None
    assert (mark.incident, mark.from_hash, mark.to_hash) == (LIVE.incident, hash_of("v3"), hash_of("v3"))
    assert plan.replicas == 3


def test_a_workload_without_replicas_has_nothing_to_be_taken_away() -> None:
    scene = history("v1", "v2", "v3", replicas=0)
    answer = plan_scale_down(scene.snapshot, Request(cause=CAUSE, force=True), autoscalers=(), now=NOW)
    assert refused(answer).guard is Guard.NOTHING_TO_UNDO


def test_a_single_version_can_be_scaled_down_though_it_cannot_be_undone() -> None:
    scene = history("v1")
    assert refused(decide_undo(scene)).guard is Guard.NO_TARGET
    assert scene.after(scale_down(scene).patch)["spec"]["replicas"] == 0


def test_a_scale_down_is_refused_by_keda_gitops_and_hold_together() -> None:
    scene = bad_rollout()
    scene.annotations.update({**TRACKED_BY_ARGO, marks.HOLD: HELD})
    keda = autoscaler("web", labels={"scaledobject.keda.sh/name": "web-queue"})
    request = Request(cause=CAUSE)
    answer = refused(plan_scale_down(scene.snapshot, request, autoscalers=(keda,), now=NOW))
    assert [answer.guard, *(each.guard for each in answer.also)] == [Guard.KEDA, Guard.GITOPS, Guard.HOLD]
    assert [each.guard for each in scale_down(scene, autoscalers=(keda,), force=True).forced] == [
        Guard.KEDA,
        Guard.GITOPS,
        Guard.HOLD,
    ]


def test_a_canary_that_was_replaced_is_not_scaled_down() -> None:
    other = msgspec.structs.replace(LIVE, hash=TemplateHash("another"))
    request = Request(cause=CAUSE, rollout=other, force=True)
    answer = plan_scale_down(bad_rollout().snapshot, request, autoscalers=(), now=NOW)
    assert refused(answer).guard is Guard.SUPERSEDED


# -- restore -----------------------------------------------------------------------------------------------------------


def test_a_new_version_gets_the_replicas_back() -> None:
    scene = scaled_down(then="v4")
    plan = restore(scene)
    after = scene.after(plan.patch)
    assert (plan.replicas, after["spec"]["replicas"]) == (3, 3)
    assert marks.REPLICAS_BEFORE not in after["metadata"]["annotations"]


def test_the_version_that_was_taken_away_does_not_get_its_replicas_back() -> None:
    scene = scaled_down(then=None)
    scene.deployment["status"]["observedGeneration"] = scene.deployment["metadata"]["generation"]
    assert plan_restore(scene.snapshot, condemned_images=frozenset()) is None


def test_a_condemned_version_does_not_get_the_replicas_back() -> None:
    scene = scaled_down(then="v4")
    scene.condemn("v4")
    assert plan_restore(scene.snapshot, condemned_images=frozenset()) is None


def test_a_version_with_condemned_images_does_not_get_the_replicas_back() -> None:
    scene = scaled_down(then="v4")
    assert plan_restore(scene.snapshot, condemned_images=frozenset({("web", "registry.example/web:v4")})) is None
    assert plan_restore(scene.snapshot, condemned_images=frozenset({("web", "registry.example/web:v3")})) is not None


def test_nothing_is_restored_before_the_controller_has_seen_the_new_version() -> None:
    scene = scaled_down(then="v4")
    scene.deployment["metadata"]["generation"] += 1
    assert plan_restore(scene.snapshot, condemned_images=frozenset()) is None


def test_nothing_is_restored_where_nothing_was_taken_away() -> None:
    assert plan_restore(bad_rollout().snapshot, condemned_images=frozenset()) is None


def test_where_somebody_has_scaled_it_since_only_the_mark_goes() -> None:
    scene = scaled_down(then="v4")
    scene.spec["replicas"] = 1
    plan = restore(scene)
    after = scene.after(plan.patch)
    assert (plan.replicas, after["spec"]["replicas"]) == (None, 1)
    assert marks.REPLICAS_BEFORE not in after["metadata"]["annotations"]


@pytest.mark.parametrize("mark", ["", "3", "nonsense:", "nonsense:-3", "nonsense:²", "nonsense:three"])
def test_a_count_that_cannot_be_read_is_no_mark_and_changes_nothing(mark: str) -> None:
    scene = scaled_down(then="v4")
    scene.annotations[marks.REPLICAS_BEFORE] = mark
    assert plan_restore(scene.snapshot, condemned_images=frozenset()) is None


# -- pause -------------------------------------------------------------------------------------------------------------


def test_a_pause_stops_the_rollout_and_says_whose_it_is() -> None:
    scene = bad_rollout()
    after = scene.after(pause(scene).patch)
    assert after["spec"]["paused"] is True
    assert after["metadata"]["annotations"][marks.PAUSED_BY] == f"{hash_of('v3')}:{LIVE.incident}"


def test_a_later_undo_by_us_passes_our_own_pause() -> None:
    scene = bad_rollout()
    scene.deployment = scene.after(pause(scene).patch)
    assert undo(scene).forced == ()


def test_a_complete_rollout_has_nothing_left_to_be_stopped() -> None:
    scene = bad_rollout()
    scene.deployment["status"] = status(generation=3, replicas=3, updated=3, available=3)
    answer = refused(plan_pause(scene.snapshot, Request(cause=CAUSE, force=True), now=NOW))
    assert answer.guard is Guard.NOTHING_TO_UNDO
    assert "complete" in answer.detail


def test_a_rollout_that_somebody_has_paused_is_left_to_them() -> None:
    scene = bad_rollout()
    scene.pause()
    assert refused(plan_pause(scene.snapshot, Request(cause=CAUSE), now=NOW)).guard is Guard.PAUSED


def test_a_rollout_that_we_have_paused_is_not_paused_again() -> None:
    scene = bad_rollout()
    scene.pause(incident=LIVE.incident, version="v3")
    answer = refused(plan_pause(scene.snapshot, Request(cause=CAUSE), now=NOW))
    assert answer.guard is Guard.NOTHING_TO_UNDO


def test_a_pause_is_refused_by_a_hold_and_by_gitops() -> None:
    scene = bad_rollout()
    scene.annotations.update({**TRACKED_BY_ARGO, marks.HOLD: HELD})
    answer = refused(plan_pause(scene.snapshot, Request(cause=CAUSE), now=NOW))
    assert [answer.guard, *(each.guard for each in answer.also)] == [Guard.GITOPS, Guard.HOLD]
    assert [each.guard for each in pause(scene, force=True).forced] == [Guard.GITOPS, Guard.HOLD]


# -- did a write without an answer happen? -----------------------------------------------------------------------------


@pytest.mark.parametrize("action", ACTIONS)
def test_a_write_is_known_to_have_happened_by_its_effect(action: str) -> None:
    scene, plan = ACTIONS[action]()
    assert not landed(plan, scene.snapshot.deployment)
    assert landed(plan, scene.written(plan.patch))


def test_a_mark_that_travelled_does_not_make_an_undo_of_somebody_else_ours() -> None:
    scene = bad_rollout()
    plan = undo(scene)
    scene.annotations[marks.LAST_ROLLBACK] = scene.after(plan.patch)["metadata"]["annotations"][marks.LAST_ROLLBACK]
    assert not landed(plan, scene.snapshot.deployment), "the template is still the bad one"


def test_the_same_undo_by_somebody_else_is_not_ours() -> None:
    scene = bad_rollout()
    plan = undo(scene)
    scene.deploy("v2")
    assert not landed(plan, scene.snapshot.deployment)


def test_the_mark_of_an_earlier_incident_does_not_make_an_undo_ours() -> None:
    scene = bad_rollout()
    plan = undo(scene)
    earlier = marks.LastRollback(
        incident=msgspec.structs.replace(LIVE, revision=1).incident,
        from_hash=hash_of("v3"),
        to_hash=hash_of("v2"),
        from_revision=1,
        to_revision=2,
        by="jane",
        cause="",
        at=NOW - dt.timedelta(days=1),
    )
    scene.deploy("v2")
    scene.annotations[marks.LAST_ROLLBACK] = marks.write_last_rollback(earlier)
    assert not landed(plan, scene.snapshot.deployment)


def test_a_scaling_to_zero_by_somebody_else_is_not_ours() -> None:
    scene = bad_rollout()
    plan = scale_down(scene)
    scene.spec["replicas"] = 0
    assert not landed(plan, scene.snapshot.deployment)


def test_a_pause_by_somebody_else_is_not_ours() -> None:
    scene = bad_rollout()
    plan = pause(scene)
    scene.pause()
    assert not landed(plan, scene.snapshot.deployment)


# -- field ownership ---------------------------------------------------------------------------------------------------


def metadata(*managers: str) -> Json:
    return {"metadata": {"managedFields": [managed(manager) for manager in managers]}}


def release(document: Json) -> bytes | None:
    return release_ownership(msgspec.json.decode(json.dumps(document["metadata"]), type=Metadata))


@pytest.mark.parametrize(
    "managers", [(MANAGER,), ("kubectl", MANAGER, "kcm"), (MANAGER, "kubectl", MANAGER), ("kubectl", MANAGER, MANAGER)]
)
def test_only_our_own_entries_are_given_up(managers: tuple[str, ...]) -> None:
    document = metadata(*managers)
    patch = release(document)
    assert patch is not None
    left = json_patch.apply(patch, document)["metadata"]["managedFields"]
    assert [entry["manager"] for entry in left] == [manager for manager in managers if manager != MANAGER]


def test_where_we_own_nothing_there_is_nothing_to_give_up() -> None:
    assert release(metadata("kubectl", "kcm")) is None


def test_entries_that_have_moved_since_are_not_taken_for_ours() -> None:
    patch = release(metadata("kubectl", MANAGER))
    assert patch is not None
    for moved in (metadata("kubectl", "kcm", MANAGER), metadata(MANAGER, "kcm"), metadata("kubectl")):
        with pytest.raises(PatchFailedError):
            json_patch.apply(patch, moved)


# -- condemn and absolve -----------------------------------------------------------------------------------------------


def test_a_condemnation_names_the_hash_it_is_about_and_the_incident() -> None:
    document = bad_rollout().replicaset("v3")
    after = json_patch.apply(condemn(LIVE), document)
    assert after["metadata"]["annotations"][marks.CONDEMNED] == f"{hash_of('v3')}:{LIVE.incident}"


def test_a_condemnation_does_not_strike_another_replicaset() -> None:
    with pytest.raises(PatchFailedError):
        json_patch.apply(condemn(LIVE), bad_rollout().replicaset("v2"))


def test_an_absolution_lifts_the_condemnation_that_was_read_and_no_newer_one() -> None:
    scene = bad_rollout()
    scene.condemn("v2", incident="web-2-00000001")
    read = next(item for item in scene.snapshot.replicasets if item.hash == hash_of("v2"))
    after = json_patch.apply(absolve(read), scene.replicaset("v2"))
    assert marks.CONDEMNED not in after["metadata"]["annotations"]
    scene.condemn("v2", incident="web-2-00000002")
    with pytest.raises(PatchFailedError):
        json_patch.apply(absolve(read), scene.replicaset("v2"))


# -- the mode, at the last look ----------------------------------------------------------------------------------------


def test_the_service_writes_nothing_where_somebody_has_just_asked_to_observe_only() -> None:
    scene = history("v1", "v2")
    scene.annotations[marks.MODE] = "observe"
    refused = decide_undo(scene, nonce="ab" * 16)
    assert isinstance(refused, Objection)
    assert refused.guard is Guard.MODE
    assert isinstance(decide_undo(scene), Undo), "a person is not bound by it"


def test_a_mode_that_comes_between_the_look_and_the_write_makes_the_write_fail() -> None:
    scene = history("v1", "v2")
    plan = decide_undo(scene, nonce="ab" * 16)
    assert isinstance(plan, Undo)
    scene.annotations[marks.MODE] = "observe"
    with pytest.raises(PatchFailedError):
        scene.after(plan.patch)
