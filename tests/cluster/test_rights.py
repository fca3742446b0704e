"""The rights in `deploy/` are the ones that are used: none is missing, and none is too many."""

import json
from contextlib import aclosing
from pathlib import Path

import pytest
import yaml

from tests.cluster.conftest import ACCOUNT, DEPLOY
from tests.cluster.service import Service, policy
from tests.controlplane.cluster import Cluster
from tests.controlplane.plane import ControlPlane
from tests.monitoring.exporter import Exporter
from tests.monitoring.prometheus import PrometheusServer
from watchdog.app import Parts, assemble
from watchdog.config import Config
from watchdog.decide.patches import absolve
from watchdog.decide.plan import Request
from watchdog.errors import AlreadyExists, NotFound
from watchdog.kube import Right
from watchdog.model import Cause, Outcome
from watchdog.objects import LabelSelector, WorkloadRef

pytest_plugins = ["tests.monitoring.fixtures"]

REQUEST = Request(cause=Cause(by=ACCOUNT, reason="rights"))
BASIC = {("create", "selfsubjectaccessreviews"), ("create", "selfsubjectreviews")}
"""What every authenticated account may do."""
RARELY = {("delete", "configmaps")}
"""What takes a record that somebody else wrote, or hundreds of them: through the adapter alone."""
BLUE_GREEN = {(verb, "services") for verb in ("get", "list", "watch", "patch")}
"""What only blue-green policies use: `test_bluegreen` holds them to it."""
SERVICE = f"system:serviceaccount:{ACCOUNT}:{ACCOUNT}"

Verbs = set[tuple[str, str]]


def granted() -> Verbs:
    """Verb and resource of every rule in the manifests."""
    files = [DEPLOY / "base" / "role.yaml", DEPLOY / "workload-namespace" / "role.yaml"]
    roles = [role for file in files for role in yaml.safe_load_all(file.read_text())]
    rules = [rule for role in roles for rule in role["rules"]]
    return {(verb, resource) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}


def used(plane: ControlPlane) -> Verbs:
    """Verb and resource of every request of the account in the audit log."""
    events = plane.audit(SERVICE)
    return {(event["verb"], event["objectRef"]["resource"]) for event in events}


async def test_every_granted_right_is_used_and_no_other_is_asked_for(
    plane: ControlPlane, cluster: Cluster, parts: Parts, web: WorkloadRef
) -> None:
    await use_everything(cluster, parts, web)
    assert used(plane) - BASIC == granted()


async def test_every_request_names_the_service_and_its_replica(
    plane: ControlPlane, cluster: Cluster, parts: Parts, web: WorkloadRef
) -> None:
    cluster.create_deployment("web")
    await parts.cluster.deployment(web, timeout_s=5)
    event = plane.audit(SERVICE)[-1]
    assert event["userAgent"].startswith("rollback-watchdog/0.1.0 ")


def test_a_service_through_whole_incidents_asks_for_no_right_that_it_has_not(
    plane: ControlPlane,
    cluster: Cluster,
    kubeconfig: Path,
    exporter: Exporter,
    prometheus: PrometheusServer,
    tmp_path: Path,
) -> None:
    before = len(plane.audit(SERVICE))
    canary = policy(cluster.namespace, more='stable = "web"\ncandidate = "canary"', bake="5s")
    with Service(
        tmp_path, kubeconfig=kubeconfig, policies=[canary], prometheus=prometheus.url, records=ACCOUNT
    ) as service:
        play_two_versions_of_a_canary(cluster, service)
        ask_for_a_rollback(cluster, service)
    events = plane.audit(SERVICE)[before:]
    refused = [(event["verb"], event["requestURI"]) for event in events if event["responseStatus"].get("code") == 403]
    assert refused == []
    assert {
        (event["verb"], event["objectRef"]["resource"]) for event in events
    } - BASIC == granted() - RARELY - BLUE_GREEN
    kept = {event["objectRef"]["namespace"] for event in events if event["objectRef"]["resource"] == "configmaps"}
    assert kept == {ACCOUNT}


def play_two_versions_of_a_canary(cluster: Cluster, service: Service) -> None:
    """A bad canary is scaled down, the next one is given its replicas back, and passes."""
    good = {"sim/rps": "50", "sim/errors": "0"}
    for name in ("web", "canary"):
        cluster.create_deployment(name, replicas=2, template_annotations=good)
    for name in ("web", "canary"):
        cluster.wait_complete(name)
    cluster.set_image("canary", "v2", template_annotations={"sim/errors": "0.5"})
    scaled = "rollback-watchdog.io/replicas-before"
    service.until(lambda: cluster.get("deployments", "canary")["spec"]["replicas"] == 0, "scaled down")
    service.until(lambda: outcome(service, 2) == "recovered", "recovered")
    cluster.set_image("canary", "v3", template_annotations=good)
    service.until(lambda: scaled not in cluster.get("deployments", "canary")["metadata"]["annotations"], "restored")
    service.until(lambda: outcome(service, 3) == "passed", "passed")
    marks = cluster.replicasets("canary")[-1]["metadata"]["annotations"]
    assert "rollback-watchdog.io/passed" in marks


def outcome(service: Service, revision: int) -> str | None:
    """How the watch of a revision of the canary ended, as the log has it."""
    ends = [line for line in service.log if line.get("event") == "rollout-ended"]
    mine = [line for line in ends if line["incident"].startswith(f"canary-{revision}-")]
    return service.get(f"/incidents/{mine[-1]['incident']}")[1]["incident"]["outcome"] if mine else None


def ask_for_a_rollback(cluster: Cluster, service: Service) -> None:
    """A person who may not is told so: for that the service asks whose token it is, and what its owner may."""
    cluster.service_account("guest", {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]})
    token = cluster.plane.token_for(cluster.namespace, "guest", audience=ACCOUNT)
    body = {"namespace": cluster.namespace, "deployment": "web", "reason": "rights"}
    assert service.post("/rollback", body, token=token)[0] == 403


async def use_everything(cluster: Cluster, parts: Parts, web: WorkloadRef) -> None:
    """Each operation of the adapter, through what it is for where there is such a thing already."""
    cluster.create_deployment("web", image="v1", template_annotations={"sim/mode": "never-ready"})
    cluster.wait(lambda: len(cluster.replicasets("web")) == 1)
    cluster.set_image("web", "v2", template_annotations={"sim/mode": None})
    await cluster.eventually(lambda: cluster.wait_complete("web"))
    cluster.set_image("web", "v3")
    await cluster.eventually(lambda: cluster.wait_complete("web"))
    assert (await parts.actor.scale_down(web, REQUEST)).outcome is Outcome.SCALED_DOWN
    condemned = (await parts.cluster.replicasets(web.namespace, LabelSelector({"app": "web"}), timeout_s=5))[-1]
    marked = [
        item
        for item in await parts.cluster.replicasets(web.namespace, LabelSelector({"app": "web"}), timeout_s=5)
        if "rollback-watchdog.io/condemned" in item.metadata.annotations
    ]
    assert len(marked) == 1, condemned
    await parts.cluster.patch_replicaset(web.namespace, marked[0].metadata.name, absolve(marked[0]), timeout_s=5)
    pods = await parts.cluster.pods(web.namespace, LabelSelector({"app": "web"}), timeout_s=5)
    assert all(pod.metadata.labels["app"] == "web" for pod in pods)

    labels = {"test": "rights"}
    await parts.cluster.create_config_map(ACCOUNT, "record", labels=labels, data={"record.json": "{}"}, timeout_s=5)
    with pytest.raises(AlreadyExists):
        await parts.cluster.create_config_map(ACCOUNT, "record", labels=labels, data={}, timeout_s=5)
    patch = b'[{"op": "replace", "path": "/data/record.json", "value": "{\\"schema\\":1}"}]'
    await parts.cluster.patch_config_map(ACCOUNT, "record", patch, timeout_s=5)
    found = await parts.cluster.config_maps(ACCOUNT, LabelSelector(labels), timeout_s=5)
    assert [item.data for item in found] == [{"record.json": '{"schema":1}'}]
    await parts.cluster.delete_config_map(ACCOUNT, "record", timeout_s=5)
    with pytest.raises(NotFound):
        await parts.cluster.config_map(ACCOUNT, "record", timeout_s=5)
    await review_somebody(cluster, parts, web)
    await switch_a_service(cluster, parts)


async def switch_a_service(cluster: Cluster, parts: Parts) -> None:
    """See a Service, and see it change."""
    cluster.create("services", {"metadata": {"name": "web"}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}})
    ref = WorkloadRef(cluster.namespace, "web")
    assert (await parts.cluster.service(ref, timeout_s=5)).spec.selector == {"a": "b"}
    seen = []
    async with aclosing(parts.cluster.watch_services(cluster.namespace)) as states:
        async for state in states:
            seen.append(state["web"].spec.selector)
            if len(seen) == 2:
                break
            patch = b'[{"op": "replace", "path": "/spec/selector", "value": {"a": "c"}}]'
            await parts.cluster.patch_service(ref, patch, timeout_s=5)
    assert seen == [{"a": "b"}, {"a": "c"}]


async def review_somebody(cluster: Cluster, parts: Parts, web: WorkloadRef) -> None:
    """Ask whose token one is, and whether its owner may patch the workload."""
    rule = {"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["web"], "verbs": ["patch"]}
    cluster.service_account("developer", rule)
    audience = "rollback-watchdog"
    token = cluster.plane.token_for(web.namespace, "developer", audience=audience)
    user = await parts.reviews.whose(token, audience=audience, timeout_s=5)
    assert user is not None
    assert user.username == f"system:serviceaccount:{web.namespace}:developer"
    elsewhere = cluster.plane.token_for(web.namespace, "developer")
    assert await parts.reviews.whose(elsewhere, audience=audience, timeout_s=5) is None
    for name, allowed in (("web", True), ("other", False)):
        right = Right("patch", "deployments", "apps", web.namespace, name)
        assert await parts.reviews.may(user, right, timeout_s=5) is allowed


async def test_a_rotated_token_is_read_again(plane: ControlPlane, cluster: Cluster, kubeconfig: Path) -> None:
    cluster.create_deployment("web")
    web = WorkloadRef(cluster.namespace, "web")
    path = plane.kubeconfig_for(ACCOUNT, ACCOUNT)
    good = path.read_text()
    token = json.loads(good)["users"][0]["user"]["token"]
    path.write_text(good.replace(token, "expired"))
    async with assemble(Config(), kubeconfig=str(path), context=None) as parts:
        path.write_text(good)
        assert (await parts.cluster.deployment(web, timeout_s=5)).ref == web
