"""Which revision is live, and which one an undo goes to."""

import pytest

from tests.unit.builders import UID, Scene, hash_of, history, replicaset, template
from watchdog.decide.revisions import choose_target, describe, live_rollout, read_history
from watchdog.model import Guard, Objection, Rollout
from watchdog.objects import (
    CHANGE_CAUSE,
    HASH_LABEL,
    REVISION,
    ReplicaSet,
    TemplateHash,
    WorkloadRef,
)


def target(scene: Scene, *, to_revision: int | None = None) -> ReplicaSet | Objection:
    snapshot = scene.snapshot
    return choose_target(snapshot.deployment, read_history(snapshot), to_revision=to_revision)


def target_hash(scene: Scene, *, to_revision: int | None = None) -> str:
    found = target(scene, to_revision=to_revision)
    assert isinstance(found, ReplicaSet), found
    return found.hash


def no_target(scene: Scene, *, to_revision: int | None = None) -> Objection:
    found = target(scene, to_revision=to_revision)
    assert isinstance(found, Objection), found
    return found


def live(scene: Scene) -> Rollout | Objection:
    snapshot = scene.snapshot
    found = live_rollout(snapshot.deployment, read_history(snapshot))
    if isinstance(found, Objection):
        return found
    rollout, replicaset = found
    assert (rollout.revision, rollout.hash) == (replicaset.revision, replicaset.hash)
    return rollout


def not_observed(scene: Scene) -> str:
    found = live(scene)
    assert isinstance(found, Objection)
    assert found.guard is Guard.NOT_OBSERVED
    return found.detail


def owned(scene: Scene) -> set[str]:
    return {item.metadata.name for item in read_history(scene.snapshot).all}


# -- whose ReplicaSets -------------------------------------------------------------------------------------------------


def test_a_replicaset_of_a_deployment_that_is_gone_is_not_history() -> None:
    scene = history("v1", "v2")
    scene.replicasets.append(replicaset("v0", 9, uid="the deployment of the same name before this one"))
    assert f"web-{hash_of('v0')}" not in owned(scene)
    assert target_hash(scene) == hash_of("v1")


def test_an_orphaned_replicaset_is_not_history_whatever_its_labels_say() -> None:
    scene = history("v1", "v2")
    del scene.replicaset("v1")["metadata"]["ownerReferences"]
    assert no_target(scene).guard is Guard.NO_TARGET


def test_an_owner_that_does_not_control_does_not_count() -> None:
    scene = history("v1", "v2")
    scene.replicaset("v1")["metadata"]["ownerReferences"] = [{"uid": UID}]
    assert no_target(scene).guard is Guard.NO_TARGET


# -- which one is live -------------------------------------------------------------------------------------------------


def test_what_is_live_is_named_by_uid_revision_and_hash() -> None:
    assert live(history("v1", "v2")) == Rollout(WorkloadRef("shop", "web"), UID, 2, hash_of("v2"))


def test_of_two_replicasets_with_the_live_template_the_older_one_is_live() -> None:
    scene = history("v1", "v2")
    twin = replicaset("v2", 3, age=-1)
    twin["metadata"]["name"] = "web-aaaa"
    twin["metadata"]["labels"][HASH_LABEL] = "aaaa"
    scene.replicasets.insert(0, twin)
    found = live(scene)
    assert isinstance(found, Rollout)
    assert found.hash == hash_of("v2")


def test_of_two_equally_old_replicasets_the_first_by_name_is_live() -> None:
    scene = history("v1", "v2")
    twin = replicaset("v2", 2)
    twin["metadata"]["name"] = "web-0000"
    twin["metadata"]["labels"][HASH_LABEL] = "0000"
    scene.replicasets.append(twin)
    found = live(scene)
    assert isinstance(found, Rollout)
    assert found.hash == "0000"


def test_nothing_is_live_until_the_controller_has_seen_the_newest_change() -> None:
    scene = history("v1", "v2")
    scene.deployment["metadata"]["generation"] += 1
    assert "not seen" in not_observed(scene)


def test_nothing_is_live_until_a_replicaset_has_the_live_template() -> None:
    scene = history("v1", "v2")
    scene.spec["template"] = template("v3")
    assert "no ReplicaSet" in not_observed(scene)


def test_a_paused_deployment_without_its_replicaset_is_said_to_be_paused() -> None:
    scene = history("v1", "v2")
    scene.spec["template"] = template("v3")
    scene.pause()
    assert "paused" in not_observed(scene)


def test_nothing_is_live_until_the_live_replicaset_has_its_number() -> None:
    scene = history("v1", "v2")
    del scene.replicaset("v2")["metadata"]["annotations"][REVISION]
    assert "number" in not_observed(scene)


def test_nothing_is_live_until_the_deployment_carries_its_revision() -> None:
    scene = history("v1", "v2")
    del scene.annotations[REVISION]
    assert "number" in not_observed(scene)


# -- the incident's id -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "incident"),
    [
        ("web", "web-7-8f5ed95a"),
        ("a" * 60, "a" * 40 + "-7-8f5ed95a"),
        ("a" * 39 + ".suffix", "a" * 39 + "-7-8f5ed95a"),
    ],
)
def test_an_incident_is_named_after_deployment_revision_and_a_digest(name: str, incident: str) -> None:
    # printf uid-1/7/5d4f8c7b9 | sha256sum | cut -c 1-8
    assert Rollout(WorkloadRef("shop", name), "uid-1", 7, TemplateHash("5d4f8c7b9")).incident == incident


def test_the_same_template_rolled_out_again_is_another_incident() -> None:
    first, again = (Rollout(WorkloadRef("shop", "web"), UID, revision, hash_of("v2")) for revision in (2, 4))
    assert first.incident.rpartition("-")[2] != again.incident.rpartition("-")[2]


def test_a_deployment_made_anew_under_the_same_name_is_another_incident() -> None:
    first, again = (Rollout(WorkloadRef("shop", "web"), uid, 2, hash_of("v2")) for uid in (UID, "another"))
    assert first.incident.rpartition("-")[2] != again.incident.rpartition("-")[2]


# -- the target --------------------------------------------------------------------------------------------------------


def test_an_undo_goes_to_the_second_highest_revision() -> None:
    assert target_hash(history("v1", "v2", "v3")) == hash_of("v2")


def test_revisions_are_compared_as_numbers() -> None:
    scene = history(*(f"v{number}" for number in range(1, 12)))
    assert target_hash(scene) == hash_of("v10")


def test_the_second_highest_revision_is_taken_even_where_the_live_one_is_neither() -> None:
    scene = history("v1", "v2", "v3")
    scene.annotate("v1", REVISION, "4")
    scene.annotate("v2", REVISION, "5")
    assert target_hash(scene) == hash_of("v1")


def test_a_live_revision_that_is_no_longer_the_newest_was_read_in_the_middle_of_a_change() -> None:
    scene = history("v1", "v2", "v3")
    scene.replicasets.append(replicaset("v4", 4, age=-1))
    refused = no_target(scene)
    assert refused.guard is Guard.NOT_OBSERVED
    assert "newer" in refused.detail


def test_of_equal_revision_numbers_the_older_replicaset_is_taken() -> None:
    scene = history("v1", "v2", "v3")
    scene.annotate("v1", REVISION, "2")
    assert target_hash(scene) == hash_of("v1")
    assert target_hash(scene, to_revision=2) == hash_of("v1")


@pytest.mark.parametrize("number", [None, "", "0", "-1", "1.5", "two", "²", "99999999999999999999"])
def test_a_replicaset_without_a_number_that_can_be_read_is_never_a_target(number: str | None) -> None:
    # kubectl takes a missing one for 0, skips what does not fit into 64 bits, and stops at neither.
    scene = history("v1", "v2", "v3")
    annotations = scene.replicaset("v2")["metadata"]["annotations"]
    annotations.pop(REVISION) if number is None else annotations.update({REVISION: number})
    assert target_hash(scene) == hash_of("v1")


def test_a_named_revision_is_taken() -> None:
    assert target_hash(history("v1", "v2", "v3"), to_revision=1) == hash_of("v1")


def test_a_named_revision_that_is_not_there_is_refused_with_those_that_are() -> None:
    refused = no_target(history("v1", "v2"), to_revision=7)
    assert refused.guard is Guard.NO_TARGET
    assert refused.detail == "there is no revision 7; there are: 1, 2"


def test_numbers_that_a_replicaset_had_before_are_not_targets() -> None:
    scene = history("v1", "v2", "v3")
    scene.annotate("v2", "deployment.kubernetes.io/revision-history", "7")
    assert no_target(scene, to_revision=7).guard is Guard.NO_TARGET


def test_condemned_revisions_are_passed_over() -> None:
    scene = history("v1", "v2", "v3")
    scene.condemn("v2")
    assert target_hash(scene) == hash_of("v1")


def test_a_condemnation_of_another_hash_passes_nothing_over() -> None:
    scene = history("v1", "v2", "v3")
    scene.annotate("v2", "rollback-watchdog.io/condemned", f"{hash_of('v1')}:web-1-0badf00d")
    assert target_hash(scene) == hash_of("v2")


def test_where_all_others_are_condemned_the_newest_of_them_is_left_for_the_guard_to_refuse() -> None:
    scene = history("v1", "v2", "v3")
    scene.condemn("v1")
    scene.condemn("v2")
    assert target_hash(scene) == hash_of("v2")


def test_a_condemned_live_revision_is_still_the_one_that_is_left() -> None:
    scene = history("v1", "v2", "v3")
    scene.condemn("v3")
    assert target_hash(scene) == hash_of("v2")


def test_a_single_revision_leaves_nothing_to_go_back_to() -> None:
    refused = no_target(history("v1"))
    assert refused.guard is Guard.NO_TARGET
    assert "no older ReplicaSet" in refused.detail


def test_a_history_limit_of_zero_is_named_as_the_reason() -> None:
    scene = history("v1")
    scene.spec["revisionHistoryLimit"] = 0
    assert "revisionHistoryLimit is 0" in no_target(scene).detail


def test_the_live_revision_by_its_number_is_nothing_to_undo() -> None:
    refused = no_target(history("v1", "v2"), to_revision=2)
    assert refused.guard is Guard.NOTHING_TO_UNDO
    assert "revision 2 is what is live" in refused.detail


def test_a_restart_leaves_nothing_to_undo_and_says_how_to_go_further_back() -> None:
    scene = history("v1", "v2", "v3")
    restarted = template("v2", annotations={"kubectl.kubernetes.io/restartedAt": "2026-03-01T11:00:00Z"})
    scene.spec["template"] = restarted
    scene.replicaset("v3")["spec"]["template"] = restarted
    refused = no_target(scene)
    assert refused.guard is Guard.NOTHING_TO_UNDO
    assert "annotations" in refused.detail
    assert "--to-revision" in refused.detail
    assert target_hash(scene, to_revision=1) == hash_of("v1")


def test_a_revision_is_described_by_its_number_hash_name_and_images() -> None:
    scene = history("v1", "v2")
    scene.annotate("v1", CHANGE_CAUSE, "the first one")
    described = describe(read_history(scene.snapshot).others[0])
    assert (described.number, described.hash, described.replicaset) == (1, hash_of("v1"), f"web-{hash_of('v1')}")
    assert described.images == {"web": "registry.example/web:v1"}
