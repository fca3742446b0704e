"""What is kept of a rollout's pods."""

import pytest

from tests.unit.builders import Json, decoded
from watchdog.engine.pod_timeline import Named, Owners, by_name, restarts_between, update
from watchdog.judge.blocks import PodTimeline, Reading, Restart, Sample, ScrapeTarget, Track
from watchdog.objects import Pod, TemplateHash

NEW, OLD = TemplateHash("6dd79c475f"), TemplateHash("79dcc59495")
OWNERS: Owners = {"uid-new": (Track.CANDIDATE, NEW), "uid-old": (Track.STABLE, OLD)}
NAMED: Named = {f"web-{NEW}": (Track.CANDIDATE, NEW), f"web-{OLD}": (Track.STABLE, OLD)}
POD = f"web-{NEW}-abcde"
CREATED, READY, RESTARTED = 1772366400.0, 1772366410.0, 1772366430.0
NOW = CREATED + 60
BEGUN = 1000.0
STEP_S = 150.0
SINCE = round(CREATED / 5)


def pod(*, owner: str = "uid-new", controls: bool = True, restarts: int = 0, **changes: Json) -> Pod:
    terminated = {"exitCode": 1, "finishedAt": "2026-03-01T12:00:30Z"}
    document: Json = {
        "metadata": {
            "name": POD,
            "namespace": "shop",
            "uid": "uid-of-pod",
            "creationTimestamp": "2026-03-01T12:00:00Z",
            "ownerReferences": [{"uid": owner, "controller": controls, "kind": "ReplicaSet", "name": f"web-{NEW}"}],
            **changes.get("metadata", {}),
        },
        "status": {
            "containerStatuses": [
                {"name": "web", "restartCount": restarts, "lastState": {"terminated": terminated} if restarts else {}}
            ],
            **changes.get("status", {}),
        },
    }
    return decoded(document, Pod)


def restarted(count: int) -> Json:
    ended = {"terminated": {"exitCode": 1, "finishedAt": "2026-03-01T12:00:30Z"}}
    return {"name": "web", "restartCount": count, "lastState": ended}


def ready(status: str = "True") -> Json:
    return {"conditions": [{"type": "Ready", "status": status, "lastTransitionTime": "2026-03-01T12:00:10Z"}]}


def fact(**changes: object) -> PodTimeline:
    values: Json = {"name": POD, "track": Track.CANDIDATE, "hash": NEW, "created": CREATED, "step": 1, **changes}
    return PodTimeline(**values)


def seen(*pods: Pod, known: tuple[PodTimeline, ...] = (), step: int = 1, now: float = NOW) -> tuple[PodTimeline, ...]:
    return update(known, pods, OWNERS, since=step, step=step, step_s=STEP_S, now=now)


def seen_late(*pods: Pod, known: tuple[PodTimeline, ...] = ()) -> tuple[PodTimeline, ...]:
    """Look at pods at `NOW` for the first time since `CREATED`, on a grid of 5 s."""
    return update(known, pods, OWNERS, since=SINCE, step=SINCE + 12, step_s=5.0, now=NOW)


def reading(step: int, name: str, *, at: float | None, namespace: str = "shop") -> Reading:
    return Reading(step, (Sample(ScrapeTarget(namespace=namespace, pod=name), 1.0, 0.0, at),))


def named(*readings: Reading, known: tuple[PodTimeline, ...] = ()) -> tuple[PodTimeline, ...]:
    return by_name(known, readings, NAMED, namespace="shop", begun=BEGUN, step_s=STEP_S)


# -- update ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "track", "about"), [("uid-new", Track.CANDIDATE, NEW), ("uid-old", Track.STABLE, OLD)]
)
def test_a_pod_is_on_the_track_of_the_replicaset_that_owns_it(owner: str, track: Track, about: TemplateHash) -> None:
    assert seen(pod(owner=owner)) == (fact(track=track, hash=about),)


@pytest.mark.parametrize(
    "other", [pytest.param(pod(owner="uid-x"), id="another"), pytest.param(pod(controls=False), id="no controller")]
)
def test_a_pod_that_none_of_ours_controls_does_not_count(other: Pod) -> None:
    assert seen(other) == ()


def test_a_pod_without_a_time_of_its_own_was_created_now() -> None:
    assert seen(pod(metadata={"creationTimestamp": None})) == (fact(created=NOW),)


def test_ready_is_kept_from_the_first_time_on() -> None:
    first = seen(pod(status=ready("False")))
    assert first == (fact(),)
    second = seen(pod(status=ready()), known=first, step=2)
    assert second == (fact(ready=READY, ready_step=2),)
    assert seen(pod(status=ready("False")), known=second, step=3) == second


def test_restarts_of_before_it_was_known_carry_the_step_that_learns_of_them() -> None:
    assert seen(pod(restarts=2), step=4) == (fact(step=4, restarts=(Restart(2, RESTARTED, 4),)),)


def test_a_restart_is_added_only_where_the_count_has_grown() -> None:
    first = Restart(1, CREATED + 5, 1)
    known = (fact(restarts=(first,)),)
    assert seen(pod(restarts=1), known=known, step=2) == known
    assert seen(pod(restarts=3), known=known, step=2)[0].restarts == (first, Restart(3, RESTARTED, 2))


def test_a_restart_whose_end_nobody_tells_is_now() -> None:
    silent: Json = {"containerStatuses": [{"name": "web", "restartCount": 1}]}
    assert seen(pod(status=silent), known=(fact(),), step=2)[0].restarts == (Restart(1, NOW, 2),)


def test_restarts_of_all_containers_count_together_and_the_last_end_is_their_time() -> None:
    ends = ("2026-03-01T12:00:30Z", "2026-03-01T12:00:20Z")
    both: Json = {
        "containerStatuses": [
            {"name": end, "restartCount": 1, "lastState": {"terminated": {"finishedAt": end}}} for end in ends
        ]
    }
    assert seen(pod(status=both))[0].restarts == (Restart(2, RESTARTED, 1),)


def test_a_pod_is_gone_when_it_is_first_seen_terminating_or_no_more() -> None:
    gone = (fact(gone=NOW, gone_step=2),)
    terminating = pod(metadata={"deletionTimestamp": "2026-03-01T12:00:50Z"})
    assert seen(terminating, known=(fact(),), step=2) == gone
    assert seen(known=(fact(),), step=2) == gone
    assert seen(terminating, known=gone, step=3, now=NOW + 5) == gone
    assert seen(known=gone, step=3, now=NOW + 5) == gone


def test_what_happened_while_nobody_looked_is_known_from_the_step_that_would_have_seen_it() -> None:
    found = seen_late(pod(restarts=1, status=ready() | {"containerStatuses": [restarted(1)]}))
    restart = Restart(1, RESTARTED, SINCE + 6)
    assert found == (fact(step=SINCE, ready=READY, ready_step=SINCE + 2, restarts=(restart,)),)


def test_no_step_that_was_taken_learns_anything_afterwards() -> None:
    early = pod(metadata={"creationTimestamp": "2026-03-01T11:00:00Z"})
    assert [each.step for each in seen_late(early)] == [SINCE]


def test_of_several_restarts_that_nobody_saw_the_first_may_have_been_at_any_time() -> None:
    (found,) = seen_late(pod(restarts=2), known=(fact(step=SINCE),))
    assert found.restarts == (Restart(2, RESTARTED, SINCE),)


def test_a_pod_that_is_terminating_is_gone_since_it_was_told_to_end() -> None:
    until = {"deletionTimestamp": "2026-03-01T12:00:50Z", "deletionGracePeriodSeconds": 30}
    (found,) = seen_late(pod(metadata=until), known=(fact(step=SINCE),))
    assert (found.gone, found.gone_step) == (CREATED + 20, SINCE + 4)


# -- by_name -----------------------------------------------------------------------------------------------------------


def test_a_candidate_pod_that_went_unseen_lived_from_its_first_sample() -> None:
    found = named(reading(7, POD, at=1070.0), reading(8, POD, at=1080.0))
    assert found == (fact(created=1070.0, step=7, ready=1070.0, ready_step=7),)


@pytest.mark.parametrize(("at", "created"), [(1070.0, BEGUN - 1), (900.0, 900.0)])
def test_a_stable_pod_that_went_unseen_is_older_than_the_rollout(at: float, created: float) -> None:
    (found,) = named(reading(7, f"web-{OLD}-abcde", at=at))
    assert (found.track, found.hash, found.created, found.ready) == (Track.STABLE, OLD, created, at)


def test_a_pod_that_shows_nothing_new_for_some_steps_was_gone_after_its_last_sample() -> None:
    readings = [reading(7, POD, at=1040.0), *(reading(step, POD, at=1190.0) for step in range(8, 12))]
    assert named(*readings) == (fact(created=1040.0, step=7, ready=1040.0, ready_step=7, gone=1190.0, gone_step=9),)
    assert named(*readings[:3])[0].gone is None, "it may only not have been scraped"


def test_a_row_that_was_old_from_the_first_reading_on_makes_no_fact() -> None:
    assert named(*(reading(step, f"web-{OLD}-abcde", at=600.0) for step in range(7, 12))) == ()


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(reading(7, POD, at=1070.0, namespace="other"), id="another namespace"),
        pytest.param(reading(7, "web-0000000000-abcde", at=1070.0), id="another ReplicaSet"),
        pytest.param(reading(7, f"web-{NEW}-abcdef", at=1070.0), id="no suffix of a pod"),
        pytest.param(reading(7, f"web-{NEW}", at=1070.0), id="no suffix"),
        pytest.param(reading(7, POD, at=None), id="no sample"),
        pytest.param(reading(7, "", at=1070.0), id="no pod"),
    ],
)
def test_a_row_that_names_no_pod_of_ours_makes_no_fact(other: Reading) -> None:
    assert named(other) == ()


def test_what_the_api_server_showed_is_not_replaced_by_samples() -> None:
    known = (fact(),)
    assert named(reading(7, POD, at=1070.0), known=known) == known


def test_a_known_pod_that_was_missed_only_now_went_after_its_last_sample() -> None:
    known = (fact(gone=1800.0, gone_step=12),)
    readings = [reading(7, POD, at=1040.0), *(reading(step, POD, at=1190.0) for step in range(8, 12))]
    assert named(*readings, known=known) == (fact(gone=1190.0, gone_step=9),)
    assert named(*readings[:3], known=known) == known, "it may only not have been scraped"


def test_a_pod_that_was_seen_to_go_before_stays_as_it_was_seen() -> None:
    known = (fact(gone=1050.0, gone_step=8),)
    assert named(*(reading(step, POD, at=1040.0) for step in range(7, 12)), known=known) == known


# -- restarts_between --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begin", "end", "count"),
    [(0.0, 99.0, 5), (9.9, 99.0, 5), (10.0, 99.0, 4), (20.0, 99.0, 2), (30.0, 99.0, 0), (0.0, 9.9, 0)],
)
def test_restarts_count_from_just_after_a_time_up_to_another(begin: float, end: float, count: int) -> None:
    restarts = (Restart(1, 10.0, 1), Restart(3, 20.0, 2), Restart(5, 30.0, 3))
    assert restarts_between(fact(restarts=restarts), begin, end) == count


def test_of_restarts_that_were_learned_of_together_all_but_the_last_may_have_been_before() -> None:
    restarts = (Restart(3, 30.0, 3), Restart(4, 40.0, 4))
    assert restarts_between(fact(restarts=restarts), 0.0, 20.0) == 2


def test_a_pod_that_never_restarted_has_no_restarts() -> None:
    assert restarts_between(fact(), 0.0, 99.0) == 0
