"""What holds a service up, or is lost to it: each play of `claims` that has services of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import claims, scenarios
from tests.cluster.conftest import ACCOUNT
from tests.cluster.scenarios import End, Played
from tests.cluster.service import Service
from tests.controlplane.plane import ControlPlane, Json
from tests.monitoring.exporter import Exporter
from tests.monitoring.prometheus import PrometheusServer
from watchdog.model import Outcome

STEP_S = 1.0

RECORDS = f"{claims.RECORDS}-alone"


class Ended:
    """What became of all plays, and what the service's account then had asked of the API server."""

    def __init__(self, ends: dict[str, End | Exception], audit: list[Json]) -> None:
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
    plays, directory = claims.ALONE, tmp_path_factory.mktemp("held-up") / "none"
    scenarios.prepare(plane, plays, records=RECORDS)
    nobody = Service(directory, kubeconfig=account, policies=[], prometheus=prometheus.url, records=RECORDS)
    ends = scenarios.play_all(plane, nobody, exporter, prometheus, plays, records=RECORDS)
    yield Ended(ends, plane.audit(f"system:serviceaccount:{ACCOUNT}:{ACCOUNT}"))
    scenarios.clear(plane, plays, records=RECORDS)


@pytest.fixture
def played(ended: Ended) -> Played:
    """Give the facts after a play."""
    return scenarios.ends_of(ended.ends)


# -- without a record --------------------------------------------------------------------------------------------------


def test_an_action_that_no_record_tells_of_ends_unproven_and_nothing_more_is_written(
    ended: Ended, played: Played
) -> None:
    end = played(claims.killed_unsaved)
    assert end.facts["saved"] == 0
    assert [note for note in end.notes("RollbackFailed") if note.startswith("unproven: ")]
    later = claims.writes(ended.audit, claims.killed_unsaved, since=end.facts["since"])
    assert [each for each in later if "/later" not in each] == []


def test_people_are_told_once_of_an_action_that_no_record_tells_of(played: Played) -> None:
    end = played(claims.killed_unsaved)
    assert len(end.facts["told"]) == 1
    assert len(end.notes("RollbackFailed")) == 1


def test_a_mark_without_its_record_rebuilds_nothing_and_starts_nothing(ended: Ended, played: Played) -> None:
    end = played(claims.records_deleted)
    later = claims.writes(ended.audit, claims.records_deleted, since=end.facts["since"])
    assert [each for each in later if "/later" not in each] == []
    acted = [each for each in end.records if each.workload.name == "web" and each.plan]
    assert acted == []


def test_history_shows_a_mark_without_its_record(played: Played) -> None:
    shown = played(claims.records_deleted).facts["history"]
    assert shown.code == 0
    assert "Last rollback: 2 → 1" in shown.out


# -- others that are slow, or odd --------------------------------------------------------------------------------------


def test_odd_answers_of_slack_hold_up_no_undo_and_end_no_service(played: Played) -> None:
    end = played(claims.odd_slack)
    assert claims.outcomes(end) == dict.fromkeys(("first", "second"), Outcome.RECOVERED)
    assert claims.images(end) == {"v1"}
    assert end.facts["healthz"] == 200


def test_an_undo_waits_for_no_record_of_other_rollouts(played: Played) -> None:
    quick, slow = (played(play).facts["undo_s"] for play in (claims.quick_store, claims.slow_store))
    assert slow < quick + 1 + STEP_S
