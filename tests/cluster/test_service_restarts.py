"""The service when it is not always there: killed, stopped, deaf for a while, told twice, or held back by limits."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import ACCOUNT
from tests.cluster.service import NO_LIMITS, Service, allow, policy
from tests.component.fake_slack import FakeSlack, in_a_thread
from tests.controlplane.cluster import Cluster
from tests.controlplane.plane import ControlPlane, Json
from tests.monitoring.alertmanager import AlertmanagerServer
from tests.monitoring.exporter import Exporter
from tests.monitoring.prometheus import PrometheusServer, agent_errors
from watchdog.decide.record import Record, State
from watchdog.model import Guard, Outcome
from watchdog.records.form import read

pytest_plugins = ["tests.monitoring.fixtures"]

GOOD = {"sim/rps": "50", "sim/errors": "0"}
BAD = {"sim/errors": "0.5"}
ONLY_WITH_AN_ALERT = 1000
"""So many steps in a row of failures: the signal alone never acts, and with an alert one step suffices."""

Make = Callable[..., Service]


@pytest.fixture
def make(
    plane: ControlPlane, namespace: str, kubeconfig: Path, prometheus: PrometheusServer, tmp_path: Path
) -> Iterator[Make]:
    """Make services that keep their records in the test's namespace; whatever still runs is killed in the end."""
    made: list[Service] = []
    allow(plane, namespace, records=True)

    def give(*policies: str, **more: Any) -> Service:
        service = Service(
            tmp_path / f"service-{len(made)}",
            kubeconfig=kubeconfig,
            policies=list(policies),
            records=namespace,
            **{"prometheus": prometheus.url, **more},
        )
        made.append(service)
        return service

    yield give
    for service in made:
        service.kill()


@pytest.fixture
def good(cluster: Cluster, exporter: Exporter) -> Cluster:
    """`web` at version v1, complete and known to be good."""
    cluster.create_deployment("web", replicas=2, template_annotations=GOOD)
    cluster.wait_complete("web")
    cluster.mark_passed("web")
    return cluster


@pytest.fixture
def slack() -> Iterator[FakeSlack]:
    """A Slack beside the service, since that is waited for in this thread."""
    with in_a_thread() as fake:
        yield fake


def image(cluster: Cluster, name: str = "web") -> str:
    """What a Deployment runs."""
    return str(cluster.get("deployments", name)["spec"]["template"]["spec"]["containers"][0]["image"])


def records(cluster: Cluster, revision: int = 2) -> list[Record]:
    """The records of a revision."""
    texts = [item["data"].get("record.json") for item in cluster.objects("configmaps")]
    return [found for text in texts if text and (found := read(text)).rollout.revision == revision]


def record(cluster: Cluster, revision: int = 2) -> Record | None:
    """The record of a revision of the only workload."""
    return next(iter(records(cluster, revision)), None)


def under_watch(cluster: Cluster, revision: int = 2) -> None:
    """Wait until a revision is under watch and a pod of it was seen ready."""

    def seen() -> bool:
        found = record(cluster, revision)
        return found is not None and any(pod.hash == found.rollout.hash and pod.ready for pod in found.pods)

    cluster.wait(seen, what=f"the watch of revision {revision}")


def ended(service: Service, cluster: Cluster, revision: int = 2) -> Record:
    """Wait until the watch of a revision has ended, and give its record."""

    def over() -> bool:
        found = record(cluster, revision)
        return found is not None and found.state is State.ENDED

    service.until(over, f"ended: revision {revision}")
    found = record(cluster, revision)
    assert found
    return found


def undos(cluster: Cluster) -> list[Json]:
    """Every accepted patch of a template by the service in this namespace."""
    done = cluster.plane.audit(f"system:serviceaccount:{ACCOUNT}:{ACCOUNT}")
    mine = [
        event
        for event in done
        if (event["verb"], event["objectRef"]["resource"]) == ("patch", "deployments")
        and event["objectRef"]["namespace"] == cluster.namespace
        and event["responseStatus"]["code"] == 200
    ]
    return [event for event in mine if _replaces_template(event["requestObject"])]


def _replaces_template(patch: Any) -> bool:
    return any(step["op"] == "replace" and step["path"] == "/spec/template" for step in patch)


# -- ended and started again -------------------------------------------------------------------------------------------


def test_a_process_killed_between_the_patch_and_the_record_has_acted_once(
    good: Cluster, make: Make, slack: FakeSlack
) -> None:
    service = make(policy(good.namespace), slack=f"{slack.url}/api/")
    service.start()
    good.set_image("web", "v2", template_annotations=BAD)
    under_watch(good)
    # From here on no record can be written, so that the kill comes before it, whenever it comes.
    good.delete("rolebindings", ACCOUNT)
    good.delete("roles", ACCOUNT)
    service.until(lambda: image(good) == "v1" and slack.channel, "undone and told of")
    service.kill()
    before = record(good)
    assert before is not None
    assert (before.state, before.plan) == (State.WATCHING, None)
    allow(good.plane, good.namespace, records=True)
    service.start()
    after = ended(service, good)
    assert (after.outcome, after.id) == (Outcome.RECOVERED, before.id)
    assert len(undos(good)) == 1
    assert len(records(good)) == 1
    service.until(lambda: "recovered" in slack.channel[0], "said to have recovered")
    assert len(slack.channel) == 1


def test_a_terminated_process_ends_in_time_and_the_next_one_finishes_its_incident(
    cluster: Cluster, exporter: Exporter, make: Make
) -> None:
    cluster.create_deployment("web", replicas=2, template_annotations={**GOOD, "sim/ready-after": "3s"})
    cluster.wait_complete("web")
    cluster.mark_passed("web")
    service = make(policy(cluster.namespace))
    service.start()
    cluster.set_image("web", "v2", template_annotations={**BAD, "sim/ready-after": None})
    service.until(lambda: (found := record(cluster)) is not None and found.write_at is not None, "written and recorded")
    began = time.monotonic()
    assert service.stop() == 143
    assert time.monotonic() - began < 10
    left = record(cluster)
    assert left is not None
    assert (left.state, left.verified, left.write_at is not None) == (State.VERIFYING, "", True)
    service.start()
    assert ended(service, cluster).outcome is Outcome.RECOVERED
    assert len(undos(cluster)) == 1


# -- alerts ------------------------------------------------------------------------------------------------------------


def test_an_alert_that_came_while_the_service_was_down_is_found_when_it_is_back(
    good: Cluster, make: Make, prometheus: PrometheusServer, alertmanager: AlertmanagerServer
) -> None:
    prometheus.reload([agent_errors(good.namespace, "web")], alertmanagers=[alertmanager.url])
    service = make(
        policy(good.namespace, consecutive=ONLY_WITH_AN_ALERT, bake="60s"), alertmanagers=(alertmanager.url,)
    )
    good.set_image("web", "v2", template_annotations=BAD)
    good.wait_complete("web")
    alertmanager.until(lambda: bool(alertmanager.alerts()), "hold the alert")
    service.start()
    found = ended(service, good)
    assert found.outcome is Outcome.RECOVERED
    assert [alert.name for alert in found.alerts] == ["AgentErrors"]


def test_two_alertmanagers_that_tell_of_the_same_alert_lead_to_one_undo(
    good: Cluster, make: Make, prometheus: PrometheusServer, alertmanagers: list[AlertmanagerServer]
) -> None:
    urls = tuple(each.url for each in alertmanagers)
    prometheus.reload([agent_errors(good.namespace, "web")], alertmanagers=urls)
    service = make(policy(good.namespace, consecutive=ONLY_WITH_AN_ALERT, bake="60s"), alertmanagers=urls)
    for each in alertmanagers:
        each.reload([f"{service.url}/alerts"], token_file=service.directory / "alerts-token")
    service.start()
    good.set_image("web", "v2", template_annotations=BAD)
    found = ended(service, good)
    assert found.outcome is Outcome.RECOVERED
    assert len(found.alerts) == 1
    assert len(undos(good)) == 1
    assert len(records(good)) == 1


# -- Prometheus --------------------------------------------------------------------------------------------------------


def test_a_healthy_rollout_is_left_alone_while_prometheus_does_not_answer(
    good: Cluster, make: Make, exporter: Exporter, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with PrometheusServer(tmp_path_factory.mktemp("prometheus"), exporter=exporter) as prometheus:
        prometheus.until(lambda: bool(prometheus.query("agent_requests_total")), "have scraped")
        service = make(policy(good.namespace), prometheus=prometheus.url)
        service.start()
        good.set_image("web", "v2")
        good.wait_complete("web")
        service.until(lambda: words(good), "judged")
        written = good.get("deployments", "web")["metadata"]["generation"]
        prometheus.freeze()
        service.until(lambda: "blind" in words(good), "blind")
        prometheus.thaw()
        found = ended(service, good)
    assert found.outcome in (Outcome.PASSED, Outcome.UNJUDGED)
    assert "breach" not in words(good)
    assert (image(good), good.get("deployments", "web")["metadata"]["generation"]) == ("v2", written)
    assert undos(good) == []


def words(cluster: Cluster) -> list[str]:
    """What has been thought of revision 2, one after the other."""
    found = record(cluster)
    return [seen.status for seen in found.verdicts] if found else []


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def others(plane: ControlPlane, namespace: str, exporter: Exporter) -> Iterator[list[Cluster]]:
    """Two more namespaces where the service has its rights."""
    names = [f"{namespace}-{number}" for number in (2, 3)]
    for name in names:
        plane.api("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        allow(plane, name)
    found = [Cluster(plane, name) for name in names]
    for each in found:
        each.wait(lambda each=each: plane.exists(each.path("serviceaccounts", "default")))  # type: ignore[misc]
    yield found
    for name in names:
        plane.api("DELETE", f"/api/v1/namespaces/{name}")


def test_three_breaches_of_different_images_at_once_stop_everybody_and_people_are_asked(
    cluster: Cluster, others: list[Cluster], make: Make, exporter: Exporter, prometheus: PrometheusServer
) -> None:
    shops = [cluster, *others]
    for each in shops:
        each.create_deployment("web", replicas=1, template_annotations=GOOD)
    for each in shops:
        each.wait_complete("web")
        each.mark_passed("web")
    limits = NO_LIMITS.replace("breaker_all = 0", "breaker_all = 3")
    service = make(*(policy(each.namespace, bake="60s") for each in shops), limits=limits)
    service.start()
    for number, each in enumerate(shops):
        each.set_image("web", f"v2-{number}")

    def watched() -> bool:
        return sum(any(pod.ready for pod in found.pods) for found in records(cluster)) == 3

    service.until(watched, "watching all three")
    for each in shops:
        each.wait_complete("web")
    service.stop()
    for each in shops:
        exporter.set(f"{each.namespace}/web-", errors=0.5)
    failing = f'rate(agent_errors_total{{namespace=~"{cluster.namespace}.*"}}[5s]) > 15'
    prometheus.until(lambda: len(prometheus.query(failing)) >= 3, "see all three fail")
    # What happened meanwhile is judged in one step: all three are found in breach before the first is acted on.
    service.start()
    service.until(lambda: [each.state for each in records(cluster)] == [State.ASKING] * 3, "asking about all three")
    assert [{objection.guard for objection in each.objections} for each in records(cluster)] == [{Guard.BREAKER}] * 3
    assert [image(each) for each in shops] == ["v2-0", "v2-1", "v2-2"]


def test_after_an_action_budget_and_cool_down_have_a_person_asked_about_the_next(good: Cluster, make: Make) -> None:
    limits = NO_LIMITS.replace("budget = 0", "budget = 1").replace('"0s"', '"1h"')
    service = make(policy(good.namespace), limits=limits)
    service.start()
    good.set_image("web", "v2", template_annotations=BAD)
    assert ended(service, good).outcome is Outcome.RECOVERED
    good.set_image("web", "v3", template_annotations=BAD)

    def asking() -> bool:  # the undo made v1 revision 3
        return [each.state for each in records(good, 4)] == [State.ASKING]

    service.until(asking, "asking about the next")
    [asked] = [each for each in records(good, 4) if each.state is State.ASKING]
    assert {objection.guard for objection in asked.objections} == {Guard.BUDGET, Guard.COOL_DOWN}
    assert image(good) == "v3"
