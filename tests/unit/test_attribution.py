"""Which workload an alert is about, and whether its rollout can be the cause."""

import pytest

from tests.unit.builders import NOW
from watchdog.decide.attribution import Nameable, attributable, workloads_of
from watchdog.decide.record import AlertSeen
from watchdog.model import Alert
from watchdog.objects import WorkloadRef

WEB, API = WorkloadRef("shop", "web"), WorkloadRef("shop", "api")
CANDIDATES = (
    Nameable(WEB, frozenset({"web-6dd79c475f"}), {"team": "web"}),
    Nameable(API, frozenset({"api-79dcc59495"}), {"team": "api"}),
    Nameable(WorkloadRef("other", "web"), frozenset({"web-6dd79c475f"}), {}),
)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ({"namespace": "shop", "deployment": "web"}, (WEB,)),
        ({"namespace": "shop", "deployment": "unknown", "team": "web"}, ()),
        ({"namespace": "shop", "pod": "web-6dd79c475f-abcde"}, (WEB,)),
        ({"namespace": "shop", "pod": "web-0000000000-abcde"}, ()),
        ({"namespace": "shop", "pod": "database-0", "team": "api"}, (API,)),
        ({"team": "web"}, (WEB,)),
        ({"team": "web", "namespace": "other"}, ()),
        ({"pod": "web-6dd79c475f-abcde"}, ()),
        ({}, ()),
    ],
)
def test_an_alert_is_about_what_its_labels_name(labels: dict[str, str], found: tuple[WorkloadRef, ...]) -> None:
    alert = Alert(fingerprint="0" * 16, labels=labels, starts_at=NOW, firing=True)
    assert workloads_of(alert, CANDIDATES) == found


def test_two_workloads_with_the_same_match_are_ambiguous() -> None:
    alert = Alert(fingerprint="0" * 16, labels={"team": "web"}, starts_at=NOW, firing=True)
    twins = (CANDIDATES[0], Nameable(API, frozenset(), {"team": "web"}))
    assert workloads_of(alert, twins) == (WEB, API)


@pytest.mark.parametrize(
    ("onset", "traffic_from", "yes"),
    [(11.0, 10.0, True), (10.0, 10.0, False), (9.0, 10.0, False), (None, 10.0, False), (11.0, None, False)],
)
def test_only_what_began_after_the_candidate_took_traffic_can_be_its_fault(
    onset: float | None, traffic_from: float | None, *, yes: bool
) -> None:
    assert attributable(onset, traffic_from=traffic_from) is yes


@pytest.mark.parametrize(
    ("what", "until", "steps"),
    [("attributed", 0, [4, 5, 6, 7]), ("resolved", 6, [4, 5]), ("resolved", 0, []), ("before-rollout", 0, [])],
)
def test_an_alert_counts_for_the_steps_that_were_judged_while_it_was_known(
    what: str, until: int, steps: list[int]
) -> None:
    seen = AlertSeen("f", "Errors", NOW, what, NOW, from_step=4, until_step=until)
    assert [step for step in range(1, 8) if seen.speaks(step)] == steps
