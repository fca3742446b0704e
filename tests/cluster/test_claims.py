"""A mark is a claim, never a proof: what becomes of the plays of `claims` that are played to one service."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import claims, scenarios
from tests.cluster.conftest import ACCOUNT
from tests.cluster.scenarios import End, Played, Scene
from tests.cluster.service import Service
from tests.controlplane.plane import ControlPlane, Json
from tests.monitoring.exporter import Exporter
from tests.monitoring.prometheus import PrometheusServer
from watchdog.model import Outcome

LIMITS = 'budget = 2\ncool_down = "30m"\nbreaker = 0\nrecovery = "12s"'
"""Budget and cool-down as they are by default; the breaker would count the bad versions of all plays together."""


class Ended:
    """The service, all plays played to it or beside it, and what its account then had asked of the API server."""

    def __init__(self, service: Service, pid: int, ends: dict[str, End | Exception], audit: list[Json]) -> None:
        self.service = service
        self.pid = pid
        self.ends = ends
        self.audit = audit


@pytest.fixture(scope="module")
def ended(
    plane: ControlPlane,
    account: Path,
    exporter: Exporter,
    prometheus: PrometheusServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Ended]:
    """What became of everything."""
    plays = claims.CLAIMS
    scenarios.prepare(plane, plays, records=claims.RECORDS)
    with Service(
        tmp_path_factory.mktemp("claims") / "service",
        kubeconfig=account,
        policies=scenarios.policies(plays),
        prometheus=prometheus.url,
        records=claims.RECORDS,
        limits=LIMITS,
    ) as service:
        pid = service.pid
        ends = scenarios.play_all(plane, service, exporter, prometheus, plays, records=claims.RECORDS)
        yield Ended(service, pid, ends, plane.audit(f"system:serviceaccount:{ACCOUNT}:{ACCOUNT}"))
    scenarios.clear(plane, plays, records=claims.RECORDS)


@pytest.fixture
def played(ended: Ended) -> Played:
    """Give the facts after a play."""
    return scenarios.ends_of(ended.ends)


def condemned(end: End, name: str) -> list[str]:
    """The images of a Deployment that a mark condemns."""
    return [image for image in ("v1", "v2", "v3") if end.mark("condemned", image, name)]


# -- mode observe ------------------------------------------------------------------------------------------------------

OBSERVED = (
    claims.observed_and_healthy,
    claims.observed_and_bad,
    claims.observed_and_returned,
    claims.observed_and_copied,
)


@pytest.mark.parametrize("play", OBSERVED, ids=lambda play: play.__name__)
def test_in_mode_observe_nothing_is_written_to_workloads_whatever_anybody_does(
    ended: Ended, played: Played, play: Callable[[Scene], None]
) -> None:
    played(play)
    assert claims.writes(ended.audit, play) == []


def test_in_mode_observe_healthy_versions_pass_whatever_marks_say(played: Played) -> None:
    found = claims.outcomes(played(claims.observed_and_healthy), but=("scaled",))
    assert set(found.values()) == {Outcome.PASSED}, found


def test_in_mode_observe_bad_versions_end_observed_whatever_marks_say(played: Played) -> None:
    end = played(claims.observed_and_bad)
    found = claims.outcomes(end)
    assert set(found.values()) == {Outcome.OBSERVED}, found
    assert all(record.plan for record in end.records if record.rollout.revision == 2)


def test_a_return_to_the_older_template_is_somebody_elses_whatever_its_mark_says(played: Played) -> None:
    end = played(claims.observed_and_returned)
    found = claims.outcomes(end)
    assert set(found.values()) == {Outcome.SUPERSEDED}, found


def test_a_mark_that_came_back_with_kubectl_undo_is_no_action_of_ours(played: Played) -> None:
    assert claims.outcomes(played(claims.observed_and_copied)) == {"web": Outcome.SUPERSEDED}


def test_in_mode_observe_a_persons_rollback_ends_the_watch_as_superseded(ended: Ended, played: Played) -> None:
    end = played(claims.observed_and_by_hand)
    assert claims.outcomes(end) == dict.fromkeys(claims.WAYS, Outcome.SUPERSEDED)
    assert claims.images(end) == {"v1"}
    assert [condemned(end, way) for way in claims.WAYS] == [[]] * 4


def test_in_mode_observe_the_service_writes_a_persons_rollback_only_where_it_was_asked_for_it(
    ended: Ended, played: Played
) -> None:
    played(claims.observed_and_by_hand)
    done = claims.writes(ended.audit, claims.observed_and_by_hand)
    assert set(done) <= {"patch deployments/http 200"}, done
    assert len(done) == 2  # the undo, and giving up the ownership of its fields


# -- mode enforce ------------------------------------------------------------------------------------------------------


def test_marks_on_healthy_versions_undo_nothing_and_the_versions_pass(ended: Ended, played: Played) -> None:
    end = played(claims.enforced_and_healthy)
    found = claims.outcomes(end)
    assert set(found.values()) == {Outcome.PASSED}, found
    assert claims.images(end) == {"v2"}
    assert claims.writes(ended.audit, claims.enforced_and_healthy, "deployments") == []


def test_marks_that_say_it_was_done_do_not_stop_a_bad_version_from_being_undone(played: Played) -> None:
    end = played(claims.enforced_and_bad)
    assert claims.images(end) == {"v1"}
    found = claims.outcomes(end)  # a busy machine may not prove the recovery in time
    assert set(found.values()) <= {Outcome.RECOVERED, Outcome.ROLLED_BACK}, found


@pytest.mark.parametrize("way", claims.BY_HAND)
def test_a_persons_rollback_supersedes_a_watch_and_condemns_nothing(played: Played, way: str) -> None:
    end = played(claims.enforced_and_by_hand)
    record = end.record(2, way)
    assert (record.outcome, record.plan, record.writes) == (Outcome.SUPERSEDED, None, ())
    assert end.facts["condemned"][way] == []


@pytest.mark.parametrize("way", ["command", "http"])
@pytest.mark.parametrize("play", [claims.observed_and_by_hand, claims.enforced_and_by_hand])
def test_a_persons_own_event_stands_as_they_wrote_it(played: Played, play: Callable[[Scene], None], way: str) -> None:
    end = played(play)
    about = [event for event in end.events if event["regarding"]["name"] == way]
    notes = [event["note"] for event in about if event["reason"] == "RollbackStarted"]
    assert len(notes) == 1
    assert claims.REASON in notes[0]


@pytest.mark.parametrize("way", claims.BY_HAND)
def test_the_image_that_a_person_took_back_is_watched_anew_and_passes(played: Played, way: str) -> None:
    record = played(claims.enforced_and_by_hand).record(4, way)
    assert (record.outcome, record.objections) == (Outcome.PASSED, ())


@pytest.mark.parametrize("way", claims.BY_HAND)
def test_a_persons_rollback_costs_no_budget_and_no_cool_down(played: Played, way: str) -> None:
    end = played(claims.enforced_after_by_hand)
    record = end.record(4, way)
    assert (record.objections, record.outcome, end.image(way)) == ((), Outcome.RECOVERED, "v1")


# -- containment -------------------------------------------------------------------------------------------------------


def test_a_bad_version_is_undone_in_time_beside_annotations_of_all_kinds(played: Played) -> None:
    end = played(claims.enforced_beside_odd_ones)
    assert (end.record().outcome, end.image()) == (Outcome.RECOVERED, "v1")
    assert end.facts["undo_s"] < 10


def test_the_service_has_lived_through_everything(ended: Ended) -> None:
    assert ended.service.pid == ended.pid
    assert ended.service.get("/healthz", metrics=True)[0] == 200
    assert [line for line in ended.service.log if line.get("event") in ("unforeseen", "fault")] == []


def test_an_incident_that_is_no_name_gets_into_no_path(ended: Ended, played: Played) -> None:
    played(claims.observed_and_returned)
    asked = [event["requestURI"] for event in ended.audit if "victim" in event["requestURI"].lower()]
    assert asked == []
    records = [event for event in ended.audit if event.get("objectRef", {}).get("namespace") == claims.RECORDS]
    assert records
    refused = [event["requestURI"] for event in records if event["responseStatus"]["code"] == 422]
    assert refused == []
