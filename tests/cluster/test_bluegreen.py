"""Blue-green on the real control plane: a Service is switched to a bad colour, and what becomes of it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import ACCOUNT
from tests.cluster.service import Service, allow, policy
from tests.controlplane.cluster import Cluster
from tests.controlplane.plane import ControlPlane, Json
from tests.monitoring.exporter import Exporter
from tests.monitoring.prometheus import PrometheusServer
from watchdog.decide.record import Record, State
from watchdog.model import Outcome
from watchdog.records.form import read

pytest_plugins = ["tests.monitoring.fixtures"]

GOOD, BAD = {"sim/rps": "50", "sim/errors": "0"}, {"sim/rps": "50", "sim/errors": "0.5"}
BLUE_GREEN = 'service = "agent"\nworkloads = ["agent-blue", "agent-green"]'

Make = Callable[..., Service]


def selector(colour: str) -> Json:
    """What the Service selects while a colour is live."""
    return {"service": "agent", "colour": colour}


@pytest.fixture
def make(
    plane: ControlPlane, namespace: str, kubeconfig: Path, prometheus: PrometheusServer, tmp_path: Path
) -> Iterator[Make]:
    """Make services that know which colour is live; whatever still runs is killed in the end."""
    made: list[Service] = []
    allow(plane, namespace, records=True)

    def give(mode: str = "enforce") -> Service:
        text = policy(namespace, more=BLUE_GREEN, mode=mode)
        service = Service(
            tmp_path / f"service-{len(made)}",
            kubeconfig=kubeconfig,
            policies=[text],
            records=namespace,
            prometheus=prometheus.url,
        )
        made.append(service)
        service.start()
        service.until(lambda: any(line.get("event") == "colour-live" for line in service.log), "seeing a colour")
        return service

    yield give
    for service in made:
        service.kill()


@pytest.fixture
def colours(cluster: Cluster, exporter: Exporter) -> Cluster:
    """Blue, which is good and live, and green, which fails half of its requests."""
    for colour, told in (("blue", GOOD), ("green", BAD)):
        cluster.create_deployment(
            f"agent-{colour}", image=colour, replicas=2, labels=selector(colour), template_annotations=told
        )
    for colour in ("blue", "green"):
        cluster.wait_complete(f"agent-{colour}")
    cluster.create(
        "services", {"metadata": {"name": "agent"}, "spec": {"selector": selector("blue"), "ports": [{"port": 80}]}}
    )
    return cluster


def switch(cluster: Cluster, colour: str) -> None:
    """Somebody switches."""
    cluster.patch("services", "agent", {"spec": {"selector": selector(colour)}})


def live(cluster: Cluster) -> str:
    """The colour that has the traffic."""
    return str(cluster.get("services", "agent")["spec"]["selector"]["colour"])


def records(cluster: Cluster) -> list[Record]:
    """Every record."""
    texts = [item["data"].get("record.json") for item in cluster.objects("configmaps")]
    return [read(text) for text in texts if text]


def ended(service: Service, cluster: Cluster) -> Record:
    """Wait until the only watch has ended."""
    service.until(lambda: [each.state for each in records(cluster)] == [State.ENDED], "ended")
    return records(cluster)[0]


def switches(cluster: Cluster) -> list[Json]:
    """Every accepted patch of a selector by the service in this namespace."""
    done = cluster.plane.audit(f"system:serviceaccount:{ACCOUNT}:{ACCOUNT}")
    return [
        event
        for event in done
        if (event["verb"], event["objectRef"]["resource"]) == ("patch", "services")
        and event["objectRef"]["namespace"] == cluster.namespace
        and event["responseStatus"]["code"] == 200
    ]


def events(cluster: Cluster, reason: str) -> list[Any]:
    """The notes of the Events with a reason."""
    return [event["note"] for event in cluster.objects("events") if event["reason"] == reason]


def test_a_switch_to_a_bad_colour_is_taken_back(colours: Cluster, make: Make) -> None:
    service = make()
    switch(colours, "green")
    record = ended(service, colours)
    assert (record.outcome, live(colours)) == (Outcome.RECOVERED, "blue"), record.detail
    assert [write.what for write in record.writes] == ["switched agent back agent-green → agent-blue"]
    green = colours.replicasets("agent-green")[-1]["metadata"]
    condemned = green["annotations"]["rollback-watchdog.io/condemned"]
    assert condemned == f"{green['labels']['pod-template-hash']}:{record.id}"
    assert [note.partition(" (")[0] for note in events(colours, "TrafficSwitchedBack")] == [
        "Switched agent back agent-green → agent-blue"
    ]
    managers = [entry["manager"] for entry in colours.get("services", "agent")["metadata"]["managedFields"]]
    assert ACCOUNT not in managers
    assert len(colours.pods("agent-green")) == 2


def test_a_colour_that_was_scaled_away_gets_its_pods_back_first(colours: Cluster, make: Make) -> None:
    service = make()
    switch(colours, "green")
    colours.wait(lambda: records(colours), what="the watch")
    colours.patch("deployments", "agent-blue", {"spec": {"replicas": 0}})
    record = ended(service, colours)
    assert (record.outcome, live(colours)) == (Outcome.RECOVERED, "blue"), record.detail
    assert [write.what for write in record.writes] == [
        "scaled agent-blue 0 → 2, to switch back when its pods are ready",
        "switched agent back agent-green → agent-blue",
    ]
    assert colours.get("deployments", "agent-blue")["spec"]["replicas"] == 2
    assert [objection.guard for objection in record.objections] == ["no-capacity"]
    assert len(events(colours, "RollbackStarted")) == 1


def test_another_switch_before_the_answer_is_left_alone(colours: Cluster, make: Make) -> None:
    service = make("approve")
    switch(colours, "green")
    service.until(lambda: [each.state for each in records(colours)] == [State.ASKING], "asking")
    incident = records(colours)[0].id
    switch(colours, "blue")
    colours.patch("services", "agent", {"metadata": {"annotations": {"rollback-watchdog.io/answer": "x"}}})
    green = {"metadata": {"annotations": {"rollback-watchdog.io/answer": f"{incident}=approve"}}}
    service.until(lambda: outcome(colours, incident) is Outcome.SUPERSEDED, "superseded")
    colours.patch("deployments", "agent-green", green)
    assert (live(colours), switches(colours)) == ("blue", [])


def test_a_hotfix_in_place_ends_the_watch_and_stays(colours: Cluster, make: Make) -> None:
    service = make("approve")
    switch(colours, "green")
    service.until(lambda: [each.state for each in records(colours)] == [State.ASKING], "asking")
    colours.set_image("agent-green", "fixed", template_annotations={"sim/errors": "0"})
    record = ended(service, colours)
    assert (record.outcome, live(colours), switches(colours)) == (Outcome.SUPERSEDED, "green", [])


def test_a_death_right_after_the_switch_back_leaves_one_action_and_one_record(colours: Cluster, make: Make) -> None:
    service = make()
    switch(colours, "green")
    colours.wait(lambda: records(colours), what="the watch")
    colours.wait(lambda: live(colours) == "blue", what="the switch back")
    service.kill()
    service.start()
    record = ended(service, colours)
    assert (record.outcome, live(colours)) == (Outcome.RECOVERED, "blue"), record.detail
    assert len(switches(colours)) <= 2  # the switch, and giving its fields up
    assert len(events(colours, "TrafficSwitchedBack")) == 1
    green = colours.replicasets("agent-green")[-1]["metadata"]
    assert "rollback-watchdog.io/condemned" in green["annotations"]


def test_every_right_on_services_is_used(colours: Cluster, make: Make) -> None:
    service = make()
    switch(colours, "green")
    ended(service, colours)
    done = colours.plane.audit(f"system:serviceaccount:{ACCOUNT}:{ACCOUNT}")
    mine = [event["objectRef"] | {"verb": event["verb"]} for event in done if "objectRef" in event]
    verbs = {
        each["verb"] for each in mine if each["resource"] == "services" and each.get("namespace") == colours.namespace
    }
    assert verbs == {"get", "list", "watch", "patch"}


def outcome(cluster: Cluster, incident: str) -> Outcome | None:
    """How an incident ended."""
    return next(each.outcome for each in records(cluster) if each.id == incident)


@pytest.fixture
def no_way_back(plane: ControlPlane, namespace: str) -> Iterator[str]:
    """A policy that lets nobody switch back to blue."""
    api = "/apis/admissionregistration.k8s.io/v1"
    back = "object.spec.selector.colour == 'blue' && oldObject.spec.selector.colour == 'green'"
    validation = {"expression": f"!({back})", "message": "blue has a hole", "reason": "Forbidden"}
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["services"]}]
    spec = {"matchConstraints": {"resourceRules": rules}, "validations": [validation]}
    plane.api("POST", f"{api}/validatingadmissionpolicies", {"metadata": {"name": namespace}, "spec": spec})
    selector = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    binding = {"policyName": namespace, "validationActions": ["Deny"], "matchResources": selector}
    plane.api("POST", f"{api}/validatingadmissionpolicybindings", {"metadata": {"name": namespace}, "spec": binding})
    yield namespace
    plane.api("DELETE", f"{api}/validatingadmissionpolicybindings/{namespace}")
    plane.api("DELETE", f"{api}/validatingadmissionpolicies/{namespace}")


def test_a_switch_back_that_a_policy_refuses_is_told_with_the_command_that_does_it(
    no_way_back: str, make: Make, colours: Cluster
) -> None:
    service = make()
    switch(colours, "green")
    record = ended(service, colours)
    assert (record.outcome, live(colours)) == (Outcome.FAILED, "green")
    assert f"refused by ValidatingAdmissionPolicy '{no_way_back}': blue has a hole" in record.detail
    command = f"kubectl -n {no_way_back} set selector service/agent 'colour=blue,service=agent'"
    assert record.detail.endswith(command)
    assert events(colours, "RollbackFailed") == [record.detail]
