"""The service on the real control plane, Prometheus and Alertmanager: what becomes of the plays of `scenarios`."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import scenarios
from tests.cluster.scenarios import End, Played, Scene
from tests.cluster.service import Service
from tests.controlplane.plane import ControlPlane
from tests.monitoring.alertmanager import AlertmanagerServer
from tests.monitoring.exporter import Exporter
from tests.monitoring.prometheus import PrometheusServer
from watchdog.decide.record import State
from watchdog.model import Outcome


@pytest.fixture(scope="module")
def ended(
    plane: ControlPlane,
    account: Path,
    exporter: Exporter,
    prometheus: PrometheusServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Service, dict[str, End | Exception]]]:
    """The service, and all plays played to it."""
    directory = tmp_path_factory.mktemp("scenarios")
    scenarios.prepare(plane)
    with AlertmanagerServer(tmp_path_factory.mktemp("alertmanager")) as alertmanager:
        service = Service(
            directory,
            kubeconfig=account,
            policies=scenarios.policies(),
            prometheus=prometheus.url,
            records=scenarios.RECORDS,
            alertmanagers=(alertmanager.url,),
        )
        alertmanager.reload([f"{service.url}/alerts"], token_file=directory / "alerts-token")
        scenarios.silence(alertmanager)
        scenarios.rules(prometheus, alertmanager)
        with service:
            yield service, scenarios.play_all(plane, service, exporter, prometheus)
        prometheus.reload()
    scenarios.clear(plane)


@pytest.fixture
def played(ended: tuple[Service, dict[str, End | Exception]]) -> Played:
    """Give the facts after a play."""
    return scenarios.ends_of(ended[1])


def untouched(end: End, *, image: str = "v2") -> bool:
    """Whether nothing was written to the Deployments, nor marked on the version that is live."""
    marks = [end.mark(kind, image) for kind in ("condemned", "passed")]
    return "deployments" not in end.writes and end.image() == image and not any(marks)


# -- acted upon --------------------------------------------------------------------------------------------------------


def test_a_breach_is_undone_and_the_record_says_so(played: Played) -> None:
    end = played(scenarios.breach)
    record = end.record()
    assert (record.outcome, record.plan and record.plan.cause, end.image()) == (Outcome.RECOVERED, "threshold", "v1")
    assert record.detail.startswith("rolled back 2 → 1, 2 of 2 pods available; 0 of ")
    assert [write.what for write in record.writes] == ["rolled back 2 → 1"]
    assert end.mark("condemned", "v2") == record.id


def test_events_tell_of_a_breach_and_its_undo_once_each(played: Played) -> None:
    end = played(scenarios.breach)
    told = [len(end.notes(reason)) for reason in ("RolloutBreach", "RollbackStarted", "RollbackCompleted")]
    assert told == [1, 1, 1]


def test_a_condemned_image_in_another_template_is_undone_at_once(played: Played) -> None:
    end = played(scenarios.condemned_image_returns)
    record = end.record(4)
    assert (record.outcome, record.plan and record.plan.cause) == (Outcome.RECOVERED, "condemned-image")
    assert end.image() == "v1"


def test_a_bad_canary_is_scaled_down_and_the_next_good_one_gets_its_pods_back(played: Played) -> None:
    end = played(scenarios.canary)
    bad, good = end.record(2, "web-canary"), end.record(3, "web-canary")
    assert [write.what for write in bad.writes] == ["scaled down 2 → 0 (revision 2)"]
    assert (bad.outcome, good.outcome) == (Outcome.RECOVERED, Outcome.PASSED)
    assert (end.deployments["web-canary"]["spec"]["replicas"], end.image("web-canary")) == (2, "v3")
    assert (end.deployments["web"]["spec"]["replicas"], end.image("web")) == (2, "v1")


def test_a_canary_stays_at_zero_for_the_condemned_image_in_another_template(played: Played) -> None:
    end = played(scenarios.canary_again)
    assert end.deployments["web-canary"]["spec"]["replicas"] == 0


def test_a_rollout_past_its_progress_deadline_is_undone(played: Played) -> None:
    end = played(scenarios.progress_deadline)
    record = end.record()
    assert (record.plan and record.plan.cause, end.image()) == ("progress-deadline", "v1")
    assert record.outcome is Outcome.RECOVERED


def test_a_crash_loop_is_undone(played: Played) -> None:
    end = played(scenarios.crash_loop)
    record = end.record()
    assert (record.plan and record.plan.cause, end.image()) == ("crash-loop", "v1")
    assert record.outcome is Outcome.RECOVERED


# -- alerts ------------------------------------------------------------------------------------------------------------


def test_an_alert_that_the_signal_confirms_leads_to_the_undo(played: Played) -> None:
    end = played(scenarios.alert_confirmed)
    record = end.record()
    assert [alert.what for alert in record.alerts][:1] == ["attributed"]
    assert (record.outcome, end.image()) == (Outcome.RECOVERED, "v1")


def test_an_alert_on_a_healthy_rollout_does_nothing(played: Played) -> None:
    end = played(scenarios.alert_unconfirmed)
    assert [alert.what for alert in end.record().alerts] == ["attributed"]
    assert (end.record().outcome, end.record().writes, end.image()) == (Outcome.PASSED, (), "v2")


def test_an_alert_that_began_before_the_rollout_does_nothing(played: Played) -> None:
    end = played(scenarios.alert_before)
    assert [alert.what for alert in end.record().alerts] == ["before-rollout"]
    assert end.record().incident_first
    assert (end.record().outcome, untouched(end)) == (Outcome.UNJUDGED, True)


# -- left alone --------------------------------------------------------------------------------------------------------


def test_a_healthy_rollout_passes_and_its_replicaset_is_marked(played: Played) -> None:
    end = played(scenarios.healthy)
    assert (end.record().outcome, end.image()) == (Outcome.PASSED, "v2")
    assert end.mark("passed", "v2")
    assert "deployments" not in end.writes
    assert end.notes("RolloutPassed")


def test_what_fails_on_both_tracks_is_not_the_canarys_fault(played: Played) -> None:
    end = played(scenarios.both_tracks)
    assert (end.record(2, "web-canary").plan, end.image("web-canary")) == (None, "v2")
    assert "deployments" not in end.writes


def test_without_data_a_rollout_is_unjudged(played: Played) -> None:
    end = played(scenarios.no_data)
    assert (end.record().outcome, untouched(end)) == (Outcome.UNJUDGED, True)
    assert end.record().verdicts[-1].cause == "stale"
    assert any(note.startswith("stale: ") for note in end.notes("RolloutBlind"))


def test_counters_that_are_no_number_leave_a_rollout_unjudged(played: Played) -> None:
    end = played(scenarios.not_a_number)
    assert (end.record().outcome, untouched(end)) == (Outcome.UNJUDGED, True)
    assert end.record().verdicts[-1].status == "blind"


def test_counters_that_go_down_without_a_restart_leave_a_rollout_unjudged(played: Played) -> None:
    end = played(scenarios.saw_tooth)
    assert (end.record().outcome, untouched(end)) == (Outcome.UNJUDGED, True)
    assert end.record().verdicts[-1].cause == "not-monotonic"


def test_pods_that_find_no_room_are_not_the_versions_fault(played: Played) -> None:
    end = played(scenarios.pending)
    assert untouched(end)
    assert not any(verdict.status == "breach" for verdict in end.record().verdicts)


def test_a_hotfix_pushed_while_evidence_comes_in_stays(played: Played) -> None:
    end = played(scenarios.hotfix)
    assert (end.record().outcome, end.record().writes) == (Outcome.SUPERSEDED, ())
    assert (end.record(3).outcome, end.image()) == (Outcome.PASSED, "v3")


def test_a_bad_hotfix_in_an_incident_is_asked_about(played: Played) -> None:
    end = played(scenarios.hotfix_in_an_incident)
    record = end.record(3)
    assert (record.state, record.objections[0].guard) == (State.ASKING, "incident-first")
    assert untouched(end, image="v3")


def test_a_policy_for_those_who_opt_in_leaves_others_alone(played: Played) -> None:
    end = played(scenarios.opt_in)
    assert {record.workload.name for record in end.records} == {"named"}
    assert (end.image("named"), end.image()) == ("v1", "v2")


def test_observing_says_what_it_found_and_writes_nothing(played: Played) -> None:
    end = played(scenarios.observed)
    assert (end.record().outcome, end.writes, end.image()) == (Outcome.OBSERVED, [], "v2")
    plan = end.record().plan
    assert plan is not None
    assert (plan.from_revision, plan.to_revision, plan.target_images) == (2, 1, {"app": "v1"})
    notes = [*end.notes("RolloutBreach"), *end.notes("RollbackRefused")]
    assert len(notes) == 2
    assert all(note.startswith("OBSERVE ") for note in notes)


def test_observing_does_not_even_mark_what_passed(played: Played) -> None:
    end = played(scenarios.observed_healthy)
    assert (end.record().outcome, end.writes) == (Outcome.PASSED, [])


def test_a_policy_that_matches_nothing_is_reported(
    played: Played, ended: tuple[Service, dict[str, End | Exception]]
) -> None:
    assert played(scenarios.nothing_matched).records == []
    problems = [line["message"] for line in ended[0].log if line.get("event") == "policy-problem"]
    assert "policy 'nothing-matched' matches nothing in nothing-matched" in problems


# -- refused or asked --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("play", "guard"),
    [
        (scenarios.paused, "paused"),
        (scenarios.no_history, "no-target"),
        (scenarios.restart_only, "nothing-to-undo"),
        (scenarios.hold, "hold"),
    ],
)
def test_a_guard_refuses_and_nothing_is_written(played: Played, play: Callable[[Scene], None], guard: str) -> None:
    end = played(play)
    record = end.record()
    assert (record.outcome, [objection.guard for objection in record.objections]) == (Outcome.REFUSED, [guard])
    assert "deployments" not in end.writes
    assert not end.mark("condemned", end.image())
    assert [note for note in end.notes("RollbackRefused") if guard in note]


def test_under_a_silence_a_person_is_asked_and_nothing_is_written(played: Played) -> None:
    end = played(scenarios.silenced)
    record = end.record()
    assert (record.state, [objection.guard for objection in record.objections]) == (State.ASKING, ["silence"])
    assert untouched(end)


def test_an_approval_on_the_deployment_has_the_undo_done(played: Played) -> None:
    end = played(scenarios.approved)
    assert [(said.answer, said.via) for said in end.record().people] == [("approve", "annotation")]
    assert (end.record().outcome, end.image()) == (Outcome.RECOVERED, "v1")


def test_an_approval_that_comes_after_a_hotfix_does_nothing(played: Played) -> None:
    end = played(scenarios.approved_late)
    assert (end.record().outcome, end.record().writes) == (Outcome.SUPERSEDED, ())
    assert (end.record(3).outcome, end.image()) == (Outcome.PASSED, "v3")
    assert "deployments" not in end.writes


def test_a_dismissal_ends_the_incident_and_another_incidents_approval_does_nothing(played: Played) -> None:
    end = played(scenarios.dismissed)
    assert [said.answer for said in end.record().people] == ["dismiss"]
    assert (end.record().outcome, untouched(end)) == (Outcome.REFUSED, True)
