"""Deployments, ReplicaSets and garbage: docs/design d and k, and what the service relies on besides."""

import re

import pytest

from tests.controlplane.cluster import Cluster
from tests.controlplane.plane import ApiError, Json
from watchdog.objects import HASH_LABEL, REVISION

NEVER_READY = {"sim/mode": "never-ready"}
HISTORY = "deployment.kubernetes.io/revision-history"


def revisions(cluster: Cluster) -> list[int]:
    return [int(item["metadata"]["annotations"][REVISION]) for item in cluster.replicasets("web")]


def roll(cluster: Cluster, image: str) -> Json:
    cluster.set_image("web", image)
    return cluster.wait_complete("web")


def sizes(cluster: Cluster) -> list[int]:
    """The wanted sizes of the ReplicaSets, oldest revision first."""
    return [item["spec"]["replicas"] for item in cluster.replicasets("web")]


def reason(cluster: Cluster) -> str:
    return str(cluster.condition("web", "Progressing").get("reason"))


def test_names_labels_and_owners_lead_from_the_deployment_to_its_pods(cluster: Cluster) -> None:
    cluster.create_deployment("web", replicas=2)
    deployment = cluster.wait_complete("web")
    (replicaset,) = cluster.replicasets("web")
    hashed = replicaset["metadata"]["labels"][HASH_LABEL]
    assert replicaset["metadata"]["name"] == f"web-{hashed}"
    assert replicaset["spec"]["selector"]["matchLabels"] == {"app": "web", HASH_LABEL: hashed}
    assert replicaset["spec"]["template"]["metadata"]["labels"][HASH_LABEL] == hashed
    (owner,) = replicaset["metadata"]["ownerReferences"]
    assert owner == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "web",
        "uid": deployment["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    for pod in cluster.pods("web"):
        assert re.fullmatch(f"web-{hashed}-[a-z0-9]{{5}}", pod["metadata"]["name"])
        assert pod["metadata"]["labels"] == {"app": "web", HASH_LABEL: hashed}


def test_a_complete_deployment_says_so_in_its_status(cluster: Cluster) -> None:
    cluster.create_deployment("web", replicas=2)
    cluster.wait_complete("web")
    cluster.wait(lambda: reason(cluster) == "NewReplicaSetAvailable")
    status = cluster.get("deployments", "web")["status"]
    said = {(each["type"], each["status"], each["reason"], each["message"]) for each in status.pop("conditions")}
    name = cluster.replicasets("web")[0]["metadata"]["name"]
    assert said == {
        ("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability."),
        ("Progressing", "True", "NewReplicaSetAvailable", f'ReplicaSet "{name}" has successfully progressed.'),
    }
    counts = {"replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2}
    assert status == {"observedGeneration": 1, "terminatingReplicas": 0, **counts}


@pytest.mark.usefixtures("needs_kubectl")
def test_d1_an_undo_renumbers_and_remembers_the_old_number(cluster: Cluster) -> None:
    cluster.create_deployment("web", replicas=1)
    cluster.wait_complete("web")
    roll(cluster, "v2")
    roll(cluster, "v3")
    cluster.kubectl("rollout", "undo", "deployment/web", "--to-revision=2")
    cluster.wait_complete("web")
    assert revisions(cluster) == [1, 3, 4]
    assert cluster.replicasets("web")[-1]["metadata"]["annotations"][HISTORY] == "2"


def test_d2_a_change_cause_stays_for_the_next_rollout(cluster: Cluster) -> None:
    cause = {"kubernetes.io/change-cause": "undo to 2"}
    cluster.create_deployment("web", replicas=1, annotations=cause)
    cluster.wait_complete("web")
    roll(cluster, "v2")
    found = [item["metadata"]["annotations"]["kubernetes.io/change-cause"] for item in cluster.replicasets("web")]
    assert found == ["undo to 2", "undo to 2"]


@pytest.mark.usefixtures("needs_kubectl")
def test_d3_d4_a_mark_on_a_replicaset_stays_and_spreads_with_a_kubectl_undo_to_it(cluster: Cluster) -> None:
    cluster.create_deployment("web", replicas=1)
    cluster.wait_complete("web")
    name = cluster.replicasets("web")[0]["metadata"]["name"]
    cluster.patch("replicasets", name, {"metadata": {"annotations": {"mark": "1"}}})
    cluster.patch("deployments", "web", {"metadata": {"annotations": {"own": "1"}}})
    cluster.wait_complete("web")
    roll(cluster, "v2")
    roll(cluster, "v3")
    assert cluster.get("replicasets", name)["metadata"]["annotations"]["mark"] == "1"
    cluster.kubectl("rollout", "undo", "deployment/web", "--to-revision=1")
    annotations = cluster.wait_complete("web")["metadata"]["annotations"]
    assert annotations == {REVISION: "4", "mark": "1", "own": "1"}
    roll(cluster, "v4")
    assert cluster.replicasets("web")[-1]["metadata"]["annotations"]["mark"] == "1"


def test_k1_without_a_history_the_old_revision_stays_until_the_new_one_is_complete(cluster: Cluster) -> None:
    cluster.create_deployment("web", replicas=2, revisionHistoryLimit=0)
    cluster.wait_complete("web")
    cluster.set_image("web", "v2", template_annotations={"sim/ready-after": "1s"})
    cluster.wait(lambda: revisions(cluster) == [1, 2])
    cluster.wait_complete("web")
    cluster.wait(lambda: revisions(cluster) == [2])


def test_the_history_keeps_the_newest_revisions(cluster: Cluster) -> None:
    cluster.create_deployment("web", replicas=1, revisionHistoryLimit=1)
    cluster.wait_complete("web")
    for image in ("v2", "v3", "v4"):
        roll(cluster, image)
    cluster.wait(lambda: revisions(cluster) == [3, 4])


def test_k2_a_paused_deployment_renumbers_a_known_template_and_moves_no_pod(cluster: Cluster) -> None:
    cluster.create_deployment("web", replicas=1)
    cluster.wait_complete("web")
    roll(cluster, "v2")
    cluster.patch("deployments", "web", {"spec": {"paused": True}})
    cluster.wait(lambda: reason(cluster) == "DeploymentPaused")
    assert cluster.condition("web", "Progressing")["status"] == "Unknown"
    cluster.set_image("web", "v1")
    cluster.wait(lambda: revisions(cluster) == [2, 3])
    assert sizes(cluster) == [1, 0]
    cluster.set_image("web", "v9")
    generation = cluster.get("deployments", "web")["metadata"]["generation"]
    cluster.wait(lambda: cluster.get("deployments", "web")["status"]["observedGeneration"] == generation)
    assert revisions(cluster) == [2, 3]
    cluster.patch("deployments", "web", {"spec": {"paused": False}})
    cluster.wait_complete("web")
    assert revisions(cluster) == [2, 3, 4]


@pytest.mark.usefixtures("needs_kubectl")
def test_k2_kubectl_does_not_undo_a_paused_deployment_and_resumes_it(cluster: Cluster) -> None:
    cluster.create_deployment("web", replicas=1)
    cluster.wait_complete("web")
    roll(cluster, "v2")
    cluster.kubectl("rollout", "pause", "deployment/web")
    with pytest.raises(Exception, match="cannot rollback a paused deployment"):
        cluster.kubectl("rollout", "undo", "deployment/web")
    cluster.kubectl("rollout", "resume", "deployment/web")
    cluster.kubectl("rollout", "undo", "deployment/web")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=10s")
    assert cluster.get("deployments", "web")["spec"]["template"]["spec"]["containers"][0]["image"] == "v1"


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "stuck"),
    [
        (4, "25%", "25%", [3, 2]),
        (10, "25%", "25%", [8, 5]),
        (3, 1, 0, [3, 1]),
        (3, 0, 1, [2, 1]),
        (3, 1, "50%", [2, 2]),
    ],
)
def test_a_rollout_that_gets_nowhere_stops_where_the_strategy_says(
    cluster: Cluster, replicas: int, surge: int | str, unavailable: int | str, stuck: list[int]
) -> None:
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
    strategy = {"type": "RollingUpdate", "rollingUpdate": rolling}
    cluster.create_deployment("web", replicas=replicas, strategy=strategy)
    cluster.wait_complete("web")
    cluster.set_image("web", "bad", template_annotations=NEVER_READY)
    cluster.wait(lambda: sizes(cluster) == stuck)


def test_a_rollout_that_gets_nowhere_exceeds_its_deadline_and_an_undo_takes_that_back(cluster: Cluster) -> None:
    cluster.create_deployment("web", replicas=2, progressDeadlineSeconds=1)
    good = cluster.wait_complete("web")
    cluster.set_image("web", "bad", template_annotations=NEVER_READY)
    cluster.wait(lambda: reason(cluster) == "ProgressDeadlineExceeded")
    assert cluster.condition("web", "Progressing")["status"] == "False"
    template = {"op": "replace", "path": "/spec/template", "value": good["spec"]["template"]}
    undone = cluster.patch("deployments", "web", [template])
    path = f"{cluster.path('deployments')}?resourceVersion={undone['metadata']['resourceVersion']}&timeoutSeconds=2"
    for event in cluster.plane.watch(path):
        item = event["object"]
        if item["status"]["observedGeneration"] == item["metadata"]["generation"]:
            said = [each["reason"] for each in item["status"]["conditions"] if each["type"] == "Progressing"]
            assert said != ["ProgressDeadlineExceeded"]  # docs/design l1
    cluster.wait_complete("web")
    assert revisions(cluster) == [2, 3]


def test_recreate_has_no_new_pod_before_the_last_old_one_is_gone(cluster: Cluster) -> None:
    slow = {"sim/terminate-after": "1s"}
    cluster.create_deployment("web", replicas=2, strategy={"type": "Recreate"}, template_annotations=slow)
    cluster.wait_complete("web")
    cluster.set_image("web", "v2")
    seen = set()

    def complete() -> bool:
        images = {pod["spec"]["containers"][0]["image"] for pod in cluster.pods("web")}
        seen.add(frozenset(images))
        return images == {"v2"} and len(cluster.pods("web")) == 2

    cluster.wait(complete)
    assert frozenset({"v1", "v2"}) not in seen


def test_scaling_in_the_middle_of_a_rollout_is_shared_out(cluster: Cluster) -> None:
    cluster.create_deployment("web", replicas=10)
    cluster.wait_complete("web")
    cluster.set_image("web", "bad", template_annotations=NEVER_READY)
    cluster.wait(lambda: sizes(cluster) == [8, 5])
    cluster.patch("deployments", "web", {"spec": {"replicas": 20}})
    cluster.wait(lambda: sum(sizes(cluster)) == 25)
    assert sizes(cluster) == [15, 10]


def test_a_scale_down_takes_the_pods_that_are_not_ready(cluster: Cluster) -> None:
    cluster.create_deployment("web", replicas=2, template_annotations={"sim/ready-after": "300ms"})
    cluster.wait_complete("web")
    ready = {pod["metadata"]["name"] for pod in cluster.pods("web")}
    cluster.patch("deployments", "web", {"spec": {"replicas": 4}})
    cluster.wait(lambda: len(cluster.pods("web")) == 4)
    cluster.patch("deployments", "web", {"spec": {"replicas": 2}})
    cluster.wait(lambda: len(cluster.pods("web")) == 2)
    assert {pod["metadata"]["name"] for pod in cluster.pods("web")} == ready


def test_a_ready_pod_is_available_after_its_time(cluster: Cluster) -> None:
    cluster.create_deployment("web", replicas=1, minReadySeconds=3)

    def ready() -> Json | None:
        status: Json = cluster.get("deployments", "web").get("status", {})
        return status if status.get("readyReplicas") == 1 else None

    assert "availableReplicas" not in cluster.wait(ready)
    cluster.wait_complete("web")


@pytest.mark.parametrize(("mode", "waiting"), [("crash-loop", "CrashLoopBackOff"), ("image-pull", "ImagePullBackOff")])
def test_a_pod_that_does_not_start_says_why(cluster: Cluster, mode: str, waiting: str) -> None:
    cluster.create_deployment("web", replicas=1, template_annotations={"sim/mode": mode})

    def reasons() -> bool:
        found = [each for pod in cluster.pods("web") for each in pod["status"].get("containerStatuses", ())]
        return [each["state"].get("waiting", {}).get("reason") for each in found] == [waiting]

    cluster.wait(reasons)
    cluster.wait(lambda: cluster.condition("web", "Available").get("status") == "False")


def test_a_pod_that_is_deleted_is_replaced(cluster: Cluster) -> None:
    cluster.create_deployment("web", replicas=1)
    cluster.wait_complete("web")
    first = cluster.pods("web")[0]["metadata"]["name"]
    cluster.delete("pods", first)
    cluster.wait(lambda: {pod["metadata"]["name"] for pod in cluster.pods("web")} - {first})
    cluster.wait_complete("web")


def test_what_a_deployment_owns_goes_with_it(cluster: Cluster) -> None:
    cluster.create_deployment("web", replicas=2)
    cluster.wait_complete("web")
    cluster.delete("deployments", "web")
    cluster.wait(lambda: not cluster.objects("replicasets") and not cluster.objects("pods"))


def test_an_orphaned_replicaset_is_adopted_by_the_next_deployment_of_its_selector(cluster: Cluster) -> None:
    cluster.create_deployment("web", replicas=1)
    cluster.wait_complete("web")
    cluster.plane.api("DELETE", cluster.path("deployments", "web"), {"propagationPolicy": "Orphan"})
    cluster.wait(lambda: not cluster.plane.exists(cluster.path("deployments", "web")))
    (orphan,) = cluster.objects("replicasets")
    cluster.create_deployment("web", replicas=1)
    cluster.wait_complete("web")
    assert [item["metadata"]["uid"] for item in cluster.replicasets("web")] == [orphan["metadata"]["uid"]]


def test_the_selector_of_a_deployment_does_not_change(cluster: Cluster) -> None:
    cluster.create_deployment("web", replicas=0)
    with pytest.raises(ApiError) as caught:
        cluster.patch("deployments", "web", {"spec": {"selector": {"matchLabels": {"app": "other"}}}})
    assert caught.value.status == 422
