"""The rights in `deploy/` are the ones that are used: none is missing, and none is too many."""

import json
from pathlib import Path

import pytest
import yaml

from tests.cluster.conftest import ACCOUNT, DEPLOY
from tests.controlplane.cluster import Cluster
from tests.controlplane.plane import ControlPlane
from watchdog.app import Parts, assemble
from watchdog.config import Config
from watchdog.decide.patches import absolve
from watchdog.decide.plan import Request
from watchdog.errors import AlreadyExists, NotFound
from watchdog.kube import Right
from watchdog.model import Cause, Outcome
from watchdog.objects import LabelSelector, WorkloadRef

REQUEST = Request(cause=Cause(by=ACCOUNT, reason="rights"))
BASIC = {("create", "selfsubjectaccessreviews"), ("create", "selfsubjectreviews")}
"""What every authenticated account may do."""

Verbs = set[tuple[str, str]]


def granted() -> Verbs:
    """Verb and resource of every rule in the manifests."""
    files = [DEPLOY / "base" / "role.yaml", DEPLOY / "workload-namespace" / "role.yaml"]
    roles = [role for file in files for role in yaml.safe_load_all(file.read_text())]
    rules = [rule for role in roles for rule in role["rules"]]
    return {(verb, resource) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}


def used(plane: ControlPlane) -> Verbs:
    """Verb and resource of every request of the account in the audit log."""
    events = plane.audit(f"system:serviceaccount:{ACCOUNT}:{ACCOUNT}")
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
    event = plane.audit(f"system:serviceaccount:{ACCOUNT}:{ACCOUNT}")[-1]
    assert event["userAgent"].startswith("rollback-watchdog/0.1.0 ")


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
