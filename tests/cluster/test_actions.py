"""The actions beside undo: scale-down with restore, pause; and an autoscaler at work in between."""

import asyncio
import datetime as dt

import pytest

from tests.cluster.interference import Interfered
from tests.controlplane.cluster import Cluster
from tests.controlplane.plane import Json
from watchdog.app import Parts
from watchdog.decide import marks
from watchdog.decide.plan import Request
from watchdog.engine.act import Actor
from watchdog.engine.verify import Patience
from watchdog.model import Cause, Guard, Outcome
from watchdog.objects import WorkloadRef

REQUEST = Request(cause=Cause(by="rollback-watchdog", reason="8 % errors"))


def spec(cluster: Cluster) -> Json:
    """The spec of `web`."""
    found: Json = cluster.get("deployments", "web")["spec"]
    return found


def annotations(cluster: Cluster) -> dict[str, str]:
    """The annotations of `web`."""
    found: dict[str, str] = cluster.get("deployments", "web")["metadata"]["annotations"]
    return found


@pytest.fixture
def canary(cluster: Cluster) -> Cluster:
    """`web` with two replicas of v2, after v1."""
    cluster.create_deployment("web", image="v1", replicas=2)
    cluster.wait_complete("web")
    cluster.set_image("web", "v2")
    cluster.wait_complete("web")
    return cluster


async def settle(cluster: Cluster) -> None:
    """Wait for the controller to see the newest template."""

    def observed() -> bool:
        deployment = cluster.get("deployments", "web")
        return bool(deployment["status"]["observedGeneration"] == deployment["metadata"]["generation"])

    await cluster.eventually(observed)


async def test_a_bad_canary_is_scaled_to_zero_and_the_next_good_template_gets_its_replicas_back(
    canary: Cluster, parts: Parts, web: WorkloadRef
) -> None:
    result = await parts.actor.scale_down(web, REQUEST)
    assert result.outcome is Outcome.SCALED_DOWN
    assert spec(canary)["replicas"] == 0
    bad = canary.replicasets("web")[-1]
    hash_ = bad["metadata"]["labels"]["pod-template-hash"]
    assert annotations(canary)[marks.REPLICAS_BEFORE] == f"{hash_}:2"
    assert bad["metadata"]["annotations"][marks.CONDEMNED].startswith(f"{hash_}:web-2-")

    refused = await parts.actor.restore(web, REQUEST, condemned_images=frozenset())
    assert refused.outcome is Outcome.REFUSED  # the bad template is still there
    canary.set_image("web", "v3")
    await settle(canary)
    refused = await parts.actor.restore(web, REQUEST, condemned_images=frozenset({("app", "v3")}))
    assert refused.outcome is Outcome.REFUSED  # another template of a condemned image
    restored = await parts.actor.restore(web, REQUEST, condemned_images=frozenset({("app", "v2")}))
    assert restored.outcome is Outcome.RESTORED
    assert spec(canary)["replicas"] == 2
    assert marks.REPLICAS_BEFORE not in annotations(canary)


async def test_a_condemned_template_that_kubectl_brings_back_stays_at_zero(
    canary: Cluster, parts: Parts, web: WorkloadRef
) -> None:
    await parts.actor.scale_down(web, REQUEST)
    canary.set_image("web", "v3")
    await settle(canary)
    canary.kubectl("rollout", "undo", "deployment/web")  # back to v2, marks and all
    await settle(canary)
    assert (await parts.actor.restore(web, REQUEST, condemned_images=frozenset())).outcome is Outcome.REFUSED
    assert spec(canary)["replicas"] == 0


async def test_replicas_that_somebody_set_meanwhile_are_left_alone(
    canary: Cluster, parts: Parts, web: WorkloadRef
) -> None:
    await parts.actor.scale_down(web, REQUEST)
    canary.set_image("web", "v3")
    canary.kubectl("scale", "deployment/web", "--replicas=5")
    await settle(canary)
    assert (await parts.actor.restore(web, REQUEST, condemned_images=frozenset())).outcome is Outcome.RESTORED
    assert spec(canary)["replicas"] == 5
    assert marks.REPLICAS_BEFORE not in annotations(canary)


async def test_a_condemned_mark_that_kubectl_copies_to_a_good_version_does_not_count_there(
    canary: Cluster, parts: Parts, web: WorkloadRef
) -> None:
    await parts.actor.undo(web, REQUEST, condemned=True)  # v2 is condemned, v1 live
    canary.kubectl("rollout", "undo", "deployment/web")  # v2 again: its mark is now on the Deployment
    await canary.eventually(lambda: marks.CONDEMNED in annotations(canary))
    canary.set_image("web", "v3")
    await canary.eventually(lambda: len(canary.replicasets("web")) == 3)
    good = canary.replicasets("web")[-1]["metadata"]
    await canary.eventually(
        lambda: marks.CONDEMNED in canary.get("replicasets", good["name"])["metadata"]["annotations"]
    )
    canary.set_image("web", "v4")
    await settle(canary)
    result = await parts.actor.undo(web, REQUEST)
    assert spec(canary)["template"]["spec"]["containers"][0]["image"] == "v3", result


async def test_what_keda_scales_is_not_scaled_down(canary: Cluster, parts: Parts, web: WorkloadRef) -> None:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    labels = {"scaledobject.keda.sh/name": "web"}
    canary.create(
        "horizontalpodautoscalers",
        {"metadata": {"name": "keda-hpa-web", "labels": labels}, "spec": {"maxReplicas": 9, "scaleTargetRef": target}},
    )
    refused = (await parts.actor.scale_down(web, REQUEST)).refused
    assert refused is not None
    assert refused.guard is Guard.KEDA
    assert spec(canary)["replicas"] == 2


async def test_an_autoscaler_between_read_and_write_does_not_stop_an_undo(
    canary: Cluster, parts: Parts, web: WorkloadRef
) -> None:
    async def scale() -> None:
        await asyncio.to_thread(canary.kubectl, "scale", "deployment/web", "--replicas=4")

    patience = Patience(request_s=10, observed_s=5, verify_s=20)
    actor = Actor(Interfered(parts.cluster, scale), patience=patience, now=lambda: dt.datetime.now(dt.UTC))
    result = await actor.undo(web, REQUEST)
    assert (result.outcome, spec(canary)["replicas"]) == (Outcome.ROLLED_BACK, 4)


async def test_our_pause_stops_a_rolling_update_and_our_undo_lifts_it(
    cluster: Cluster, parts: Parts, web: WorkloadRef
) -> None:
    cluster.create_deployment("web", image="v1", replicas=4)
    cluster.wait_complete("web")
    cluster.set_image("web", "v2", template_annotations={"sim/mode": "never-ready"})
    await settle(cluster)
    paused = await parts.actor.pause(web, REQUEST)
    assert paused.outcome is Outcome.PAUSED
    assert spec(cluster)["paused"] is True
    assert annotations(cluster)[marks.PAUSED_BY].endswith(paused.plan.rollout.incident if paused.plan else "-")
    await settle(cluster)
    result = await parts.actor.undo(web, REQUEST)
    assert result.outcome is Outcome.ROLLED_BACK
    assert "paused" not in spec(cluster)
    assert marks.PAUSED_BY not in annotations(cluster)
    assert spec(cluster)["template"]["spec"]["containers"][0]["image"] == "v1"


async def test_a_pause_of_someone_else_stops_our_undo(canary: Cluster, parts: Parts, web: WorkloadRef) -> None:
    canary.kubectl("rollout", "pause", "deployment/web")
    await settle(canary)
    for refused in (await parts.actor.undo(web, REQUEST), await parts.actor.pause(web, REQUEST)):
        assert refused.refused is not None
        assert refused.refused.guard is Guard.PAUSED


async def test_a_pause_that_someone_else_put_after_ours_is_theirs(
    cluster: Cluster, parts: Parts, web: WorkloadRef
) -> None:
    cluster.create_deployment("web", image="v1")
    cluster.wait_complete("web")
    cluster.set_image("web", "v2", template_annotations={"sim/mode": "never-ready"})
    await settle(cluster)
    await parts.actor.pause(web, REQUEST)
    for verb in ("resume", "pause"):
        cluster.kubectl("rollout", verb, "deployment/web")
    await settle(cluster)
    refused = (await parts.actor.undo(web, REQUEST)).refused
    assert refused is not None
    assert refused.guard is Guard.PAUSED


async def test_a_canary_past_its_progress_deadline_is_scaled_down_and_its_pods_are_gone(
    cluster: Cluster, parts: Parts, web: WorkloadRef
) -> None:
    slow = {"sim/mode": "never-ready", "sim/terminate-after": "1s"}
    cluster.create_deployment("web", image="v1", template_annotations=slow, progressDeadlineSeconds=1)
    await cluster.eventually(
        lambda: cluster.condition("web", "Progressing").get("reason") == "ProgressDeadlineExceeded"
    )
    result = await parts.actor.scale_down(web, REQUEST)
    assert (result.outcome, result.detail) == (
        Outcome.SCALED_DOWN,
        "scaled down 3 → 0 (revision 1), no pods are left",
    )
    assert cluster.get("deployments", "web")["status"].get("replicas", 0) == 0


async def test_a_persons_scale_to_zero_is_not_undone_by_a_mark_that_kubectl_brings_back(
    canary: Cluster, parts: Parts, web: WorkloadRef
) -> None:
    await parts.actor.scale_down(web, REQUEST)
    canary.set_image("web", "v3")
    await settle(canary)
    assert (await parts.actor.restore(web, REQUEST, condemned_images=frozenset())).outcome is Outcome.RESTORED
    await canary.eventually(lambda: canary.wait_complete("web"))
    canary.set_image("web", "v4")
    await canary.eventually(lambda: canary.wait_complete("web"))
    canary.kubectl("scale", "deployment/web", "--replicas=0")
    canary.kubectl("rollout", "undo", "deployment/web")
    await settle(canary)
    assert (await parts.actor.restore(web, REQUEST, condemned_images=frozenset())).outcome is Outcome.REFUSED
    assert spec(canary)["replicas"] == 0


async def test_a_hotfix_during_the_verification_is_told_as_superseded(
    cluster: Cluster, parts: Parts, web: WorkloadRef
) -> None:
    cluster.create_deployment("web", image="v1", template_annotations={"sim/ready-after": "3s"})
    cluster.wait_complete("web")
    cluster.set_image("web", "v2", template_annotations={"sim/ready-after": None})
    cluster.wait_complete("web")
    undo = asyncio.create_task(parts.actor.undo(web, REQUEST))
    await cluster.eventually(lambda: spec(cluster)["template"]["spec"]["containers"][0]["image"] == "v1")
    cluster.set_image("web", "hotfix")
    result = await undo
    assert result.outcome is Outcome.SUPERSEDED
    assert result.detail == "rolled back 2 → 1, then changed by someone else"


async def test_a_template_that_the_controller_has_not_seen_is_not_judged(
    canary: Cluster, parts: Parts, web: WorkloadRef
) -> None:
    with canary.plane.frozen("kube-controller-manager"):
        canary.set_image("web", "v3")
        patience = Patience(request_s=10, observed_s=0.5, verify_s=5)
        actor = Actor(parts.cluster, patience=patience, now=lambda: dt.datetime.now(dt.UTC))
        refused = (await actor.undo(web, REQUEST)).refused
        assert refused is not None
        assert refused.guard is Guard.NOT_OBSERVED
    canary.wait_complete("web")
    # kubectl would have gone to v1, one too far.
    await parts.actor.undo(web, REQUEST)
    assert spec(canary)["template"]["spec"]["containers"][0]["image"] == "v2"
