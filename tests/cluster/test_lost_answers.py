"""Writes whose answer is lost: one undo, reported right. And what an undo leaves behind for server-side apply."""

import asyncio
from pathlib import Path

import pytest
import yaml

from tests.cluster.command import Command
from tests.controlplane.cluster import Cluster
from tests.controlplane.lossy import losing_answers
from tests.controlplane.plane import ControlPlane, ControlPlaneError, Json
from watchdog.app import assemble
from watchdog.config import Config, Kubernetes, Seconds
from watchdog.decide.plan import Request
from watchdog.model import Cause, Outcome
from watchdog.objects import WorkloadRef

REQUEST = Request(cause=Cause(by="test", reason="lost answer"))


@pytest.fixture
def bad(cluster: Cluster) -> Cluster:
    """`web` with v1 and v2 complete."""
    cluster.create_deployment("web", image="v1")
    cluster.wait_complete("web")
    cluster.set_image("web", "v2")
    cluster.wait_complete("web")
    return cluster


def numbers(cluster: Cluster) -> dict[str, str]:
    """Revision number by image."""
    return {
        item["spec"]["template"]["spec"]["containers"][0]["image"]: item["metadata"]["annotations"][
            "deployment.kubernetes.io/revision"
        ]
        for item in cluster.replicasets("web")
    }


def test_an_undo_whose_answer_is_lost_is_done_once_and_reported_as_done(
    plane: ControlPlane, bad: Cluster, kubeconfig: Path, web: WorkloadRef
) -> None:
    with losing_answers(plane, "PATCH") as server:
        lossy = plane.kubeconfig_for("rollback-watchdog", "rollback-watchdog", server=server)
        done = Command(lossy, web).rollback("--output=json")
    assert (done.code, done.json["outcome"]) == (0, "rolled-back"), done
    bad.wait_complete("web")
    assert numbers(bad) == {"v1": "3", "v2": "2"}
    patches = [event for event in plane.audit() if event["verb"] == "patch" and about(event, web)]
    undone = [event for event in patches if "last-rollback" in str(event["requestObject"])]
    assert [event["responseStatus"]["code"] for event in undone] == [200]


async def test_an_undo_that_the_store_sat_on_is_done_once_and_reported_as_done(
    plane: ControlPlane, bad: Cluster, kubeconfig: Path, web: WorkloadRef
) -> None:
    config = Config(kubernetes=Kubernetes(request_timeout=Seconds(1)))
    async with assemble(config, kubeconfig=str(kubeconfig), context=None, verify_s=30) as parts:
        # The connections are warm and the reads done when the store stops.
        await parts.cluster.deployment(web, timeout_s=5)
        with plane.frozen("etcd"):
            undo = asyncio.create_task(parts.actor.undo(web, REQUEST))
            await asyncio.sleep(0.1)
        result = await undo
    assert result.outcome is Outcome.ROLLED_BACK
    assert numbers(bad) == {"v1": "3", "v2": "2"}


def test_the_fix_can_be_applied_server_side_after_an_undo(cluster: Cluster, watchdog: Command) -> None:
    for image in ("v1", "v2"):
        apply_server_side(cluster, image)
        cluster.wait_complete("web")
    assert watchdog.rollback().code == 0
    owners = {entry["manager"] for entry in managed_fields(cluster)}
    assert "rollback-watchdog" not in owners
    apply_server_side(cluster, "v3")
    cluster.wait_complete("web")
    assert numbers(cluster)["v3"] == "4"


def test_an_undo_that_kept_its_ownership_would_stand_in_the_way_of_the_fix(cluster: Cluster) -> None:
    """The trap that the test above is about is real."""
    for image in ("v1", "v2"):
        apply_server_side(cluster, image)
        cluster.wait_complete("web")
    path = "/spec/template/spec/containers/0/image"
    query = "?fieldManager=rollback-watchdog"
    patch = [{"op": "replace", "path": path, "value": "v1"}]
    url = cluster.path("deployments", "web") + query
    cluster.plane.api("PATCH", url, patch, content_type="application/json-patch+json")
    with pytest.raises(ControlPlaneError, match='conflict with "rollback-watchdog"'):
        apply_server_side(cluster, "v3")


def apply_server_side(cluster: Cluster, image: str) -> None:
    """What a pipeline does with a manifest."""
    labels = {"app": "web"}
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"nodeName": "node-0", "containers": [{"name": "app", "image": image}]},
            },
        },
    }
    cluster.kubectl("apply", "--server-side", "--filename=-", stdin=yaml.safe_dump(manifest))


def managed_fields(cluster: Cluster) -> list[Json]:
    """Who owns what of the Deployment."""
    entries: list[Json] = cluster.get("deployments", "web")["metadata"]["managedFields"]
    return entries


def about(event: Json, ref: WorkloadRef) -> bool:
    """Whether an audit event is about this Deployment."""
    target = event.get("objectRef", {})
    return bool((target.get("resource"), target.get("namespace")) == ("deployments", ref.namespace))
