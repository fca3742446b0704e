"""Which revision the service goes back to."""

import datetime as dt

from tests.unit.builders import NOW, Scene, hash_of, history, template
from watchdog.decide import marks
from watchdog.decide.revisions import read_history
from watchdog.decide.target import service_target
from watchdog.model import Guard, Objection

BAKE = dt.timedelta(minutes=15)
HOURS = dt.timedelta(hours=1)


def target(
    scene: Scene,
    *,
    begun_from: str = "v2",
    doubtful: tuple[str, ...] = (),
    cut_short: tuple[str, ...] = (),
    began: dt.datetime = NOW,
) -> tuple[int | None, bool] | Objection:
    found = service_target(
        scene.snapshot.deployment,
        read_history(scene.snapshot),
        begun_from=hash_of(begun_from),
        doubtful={hash_of(version) for version in doubtful},
        cut_short={hash_of(version) for version in cut_short},
        bake=BAKE,
        began=began,
        now=NOW,
    )
    return found if isinstance(found, Objection) else (found[0].revision, found[1])


def passed(scene: Scene, version: str, *, days_ago: float = 0) -> None:
    at = NOW - dt.timedelta(days=days_ago)
    scene.annotate(version, marks.PASSED, marks.write_about(hash_of(version), f"{at:%Y-%m-%dT%H:%M:%SZ}"))


def test_what_was_live_when_the_rollout_began_is_the_target_if_it_outlived_a_bake() -> None:
    assert target(history("v1", "v2", "v3")) == (2, True)


def test_what_a_record_says_did_not_pass_is_passed_over_for_one_that_did() -> None:
    scene = history("v1", "v2", "v3")
    assert target(scene, doubtful=("v2",)) == (1, True)
    assert target(scene, doubtful=("v1", "v2")) == (2, False)


def test_a_mark_proves_nothing_against_a_record_that_says_otherwise() -> None:
    scene = history("v1", "v2", "v3")
    passed(scene, "v2")
    assert target(scene, doubtful=("v1", "v2")) == (2, False)


def test_what_somebody_replaced_before_its_bake_was_over_counts_where_a_mark_says_that_it_passed_another_time() -> None:
    scene = history("v1", "v2", "v3")
    assert target(scene, doubtful=("v1",), cut_short=("v2",)) == (2, False)
    passed(scene, "v2")
    assert target(scene, doubtful=("v1",), cut_short=("v2",)) == (2, True)


def test_only_two_revisions_back_and_seven_days_are_looked_at() -> None:
    scene = history("v0", "v1", "v2", "v3")
    passed(scene, "v0")
    assert target(scene, doubtful=("v1", "v2")) == (3, False)
    older = history("v1", "v2", "v3")
    passed(older, "v1", days_ago=8)
    assert target(older, doubtful=("v2",)) == (2, False)


def test_what_was_created_within_a_bake_of_the_rollout_is_not_known_to_be_good() -> None:
    scene = history("v1", "v2", "v3")  # created three, two and one hours before NOW
    assert target(scene, began=NOW - 2 * HOURS + BAKE / 2) == (1, True)
    assert target(history("v2", "v3"), began=NOW - 2 * HOURS + BAKE / 2) == (1, False)


def test_a_condemned_revision_is_never_the_target() -> None:
    scene = history("v1", "v2", "v3")
    scene.condemn("v2")
    assert target(scene) == (1, True)
    scene.condemn("v1")
    refused = target(scene)
    assert isinstance(refused, Objection)
    assert refused.guard is Guard.NO_TARGET


def test_a_mark_of_another_hash_says_nothing() -> None:
    scene = history("v1", "v2", "v3")
    scene.annotate("v2", marks.PASSED, marks.write_about(hash_of("v1"), "2026-03-01T00:00:00Z"))
    assert target(scene, doubtful=("v2",)) == (1, True)


def test_without_a_history_there_is_no_target() -> None:
    refused = target(history("v3"))
    assert isinstance(refused, Objection)
    assert refused.guard is Guard.NO_TARGET


def test_a_restart_is_nothing_to_undo() -> None:
    scene = history("v1", "v2")
    restarted = template("v1", annotations={"kubectl.kubernetes.io/restartedAt": "now"})
    scene.spec["template"] = restarted
    scene.replicasets[1]["spec"]["template"] |= {"spec": restarted["spec"], "metadata": restarted["metadata"]}
    refused = target(scene, begun_from="v1")
    assert isinstance(refused, Objection)
    assert refused.guard is Guard.NOTHING_TO_UNDO
