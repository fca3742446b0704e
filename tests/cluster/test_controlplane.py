"""The test control plane itself, held to what the other cluster tests rely on."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.controlplane.cluster import Cluster
from tests.controlplane.lossy import losing_answers
from tests.controlplane.plane import ApiError, ControlPlane, ControlPlaneError, Json

CHECKOUT = Path(__file__).parents[2]
NEVER_READY = {"sim/mode": "never-ready"}


def container(pod: Json) -> Json:
    status: Json = pod["status"].get("containerStatuses", [{}])[0]
    return status


def waiting_reasons(cluster: Cluster, name: str) -> set[str]:
    states = [container(pod).get("state", {}) for pod in cluster.pods(name)]
    return {state.get("waiting", {}).get("reason") for state in states}


def accepts(host: str | None, port: int | None) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def misses_deadline(cluster: Cluster, name: str) -> Callable[[], bool]:
    return lambda: cluster.condition(name, "Progressing").get("reason") == "ProgressDeadlineExceeded"


def test_server_and_kubectl_are_stamped_with_the_version_of_the_module(plane: ControlPlane) -> None:
    versions = json.loads(plane.admin("version", "--output=json"))
    assert versions["serverVersion"]["gitVersion"] == versions["clientVersion"]["gitVersion"] == "v1.36.3"
    assert versions["serverVersion"]["minor"] == "36"


def test_a_rollout_completes_and_kubectl_undoes_it(cluster: Cluster) -> None:
    cluster.create_deployment("web", image="v1")
    cluster.wait_complete("web")
    cluster.set_image("web", "v2")
    cluster.wait_complete("web")
    cluster.kubectl("rollout", "undo", "deployment/web")
    assert cluster.wait_complete("web")["spec"]["template"]["spec"]["containers"][0]["image"] == "v1"
    key = "deployment.kubernetes.io/revision"
    assert [rs["metadata"]["annotations"][key] for rs in cluster.replicasets("web")] == ["2", "3"]


def test_a_token_without_rights_is_refused_and_one_with_a_role_is_not(plane: ControlPlane, cluster: Cluster) -> None:
    cluster.create_deployment("web", replicas=0)
    path = cluster.path("deployments", "web")
    with pytest.raises(ApiError) as refused:
        plane.api("GET", path, token=plane.token_for(cluster.namespace, "default"))
    assert refused.value.status == 403
    reader = cluster.service_account("reader", {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]})
    kubectl = [str(plane.kubectl), f"--kubeconfig={reader}"]
    may = subprocess.run([*kubectl, "get", "deployment", "web"], capture_output=True, text=True, check=False)
    may_not = subprocess.run([*kubectl, "get", "pods"], capture_output=True, text=True, check=False)
    assert may.returncode == 0
    assert "Forbidden" in may_not.stderr


def test_a_token_for_another_audience_is_no_token_for_the_api(plane: ControlPlane, cluster: Cluster) -> None:
    token = plane.token_for(cluster.namespace, "default", audience="rollback-watchdog")
    with pytest.raises(ApiError) as refused:
        plane.api("GET", cluster.path("deployments"), token=token)
    assert refused.value.status == 401


def test_the_audit_log_has_user_agent_and_body_of_a_write(plane: ControlPlane, cluster: Cluster) -> None:
    cluster.create_deployment("web", replicas=0)
    path, body = cluster.path("deployments", "web"), [{"op": "replace", "path": "/spec/replicas", "value": 0}]
    plane.api("PATCH", path, body, content_type="application/json-patch+json", user_agent="an-agent/1.0")
    (event,) = [event for event in plane.audit("admin") if event.get("userAgent") == "an-agent/1.0"]
    assert (event["verb"], event["level"], event["requestObject"]) == ("patch", "Request", body)
    assert event["objectRef"]["namespace"] == cluster.namespace
    assert {event["user"]["username"] for event in plane.audit("kwok")} == {"kwok"}


def test_pods_become_ready_and_leave_when_their_annotations_say(cluster: Cluster) -> None:
    cluster.create_deployment(
        "slow",
        replicas=1,
        template_annotations={"sim/ready-after": "1500ms", "sim/terminate-after": "1500ms"},
    )
    cluster.wait_complete("slow")
    (pod,) = cluster.pods("slow")
    created = datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
    ready = datetime.fromisoformat(container(pod)["state"]["running"]["startedAt"])
    assert (ready - created).total_seconds() > 0.5  # API times are whole seconds
    cluster.delete("pods", pod["metadata"]["name"])
    began = time.monotonic()
    cluster.wait(lambda: pod["metadata"]["name"] not in {p["metadata"]["name"] for p in cluster.pods("slow")})
    assert time.monotonic() - began > 1.2


def test_pods_that_are_bad_from_the_start_miss_the_progress_deadline(cluster: Cluster) -> None:
    modes = ["never-ready", "crash-loop", "image-pull"]
    for mode in modes:
        cluster.create_deployment(mode, replicas=1, progressDeadlineSeconds=1, template_annotations={"sim/mode": mode})
    for mode in modes:
        cluster.wait(misses_deadline(cluster, mode), what=f"the deadline of {mode}")
    (never_ready,), (crashing,), (pulling,) = (cluster.pods(mode) for mode in modes)
    assert never_ready["status"]["phase"] == "Running"
    assert "running" in container(never_ready)["state"]
    assert not container(never_ready)["ready"]
    assert container(crashing)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert container(crashing)["restartCount"] == 5
    assert container(crashing)["lastState"]["terminated"]["exitCode"] == 1
    assert pulling["status"]["phase"] == "Pending"
    assert container(pulling)["state"]["waiting"]["reason"] == "ImagePullBackOff"


def test_a_bad_version_stalls_its_rollout_and_a_good_one_replaces_it(cluster: Cluster) -> None:
    cluster.create_deployment("web", image="v1", progressDeadlineSeconds=1)
    cluster.wait_complete("web")
    cluster.set_image("web", "v2", template_annotations=NEVER_READY)
    cluster.wait(misses_deadline(cluster, "web"))
    assert cluster.get("deployments", "web")["status"]["availableReplicas"] == 3
    cluster.set_image("web", "v3", template_annotations={"sim/mode": None})
    cluster.wait_complete("web")


def test_a_pod_may_crash_after_it_was_ready(cluster: Cluster) -> None:
    later = {"sim/mode": "crash-later", "sim/crash-after": "1s"}
    cluster.create_deployment("web", replicas=2, template_annotations=later)
    cluster.wait_complete("web")
    cluster.wait(lambda: waiting_reasons(cluster, "web") == {"CrashLoopBackOff"})
    cluster.wait(lambda: cluster.condition("web", "Available").get("status") == "False")


def test_a_write_that_a_frozen_etcd_holds_up_is_made_when_it_goes_on(plane: ControlPlane, cluster: Cluster) -> None:
    cluster.create_deployment("web", replicas=0)
    cluster.wait_complete("web")
    mark = {"metadata": {"annotations": {"mark": "ours"}}}
    with ThreadPoolExecutor() as pool:
        with plane.frozen("etcd"):
            answer = pool.submit(cluster.patch, "deployments", "web", mark)
            with pytest.raises(TimeoutError):
                answer.result(timeout=0.5)
        assert answer.result()["metadata"]["annotations"]["mark"] == "ours"


def test_a_write_whose_answer_is_lost_is_made(plane: ControlPlane, cluster: Cluster) -> None:
    cluster.create_deployment("web", replicas=0)
    rule = {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "patch"]}
    cluster.service_account("writer", rule)
    with losing_answers(plane, "PATCH") as url:
        kubeconfig = plane.kubeconfig_for(cluster.namespace, "writer", server=url)
        with pytest.raises(ControlPlaneError, match="EOF"):
            cluster.kubectl(f"--kubeconfig={kubeconfig}", "annotate", "deployment/web", "mark=ours")
        read = cluster.kubectl(f"--kubeconfig={kubeconfig}", "get", "deployment/web", "--output=json")
    assert json.loads(read)["metadata"]["annotations"]["mark"] == "ours"


def test_a_frozen_controller_manager_leaves_the_new_generation_unobserved(
    plane: ControlPlane, cluster: Cluster
) -> None:
    cluster.create_deployment("web", image="v1")
    observed = cluster.wait_complete("web")["status"]["observedGeneration"]
    with plane.frozen("kube-controller-manager"):
        cluster.set_image("web", "v2")
        time.sleep(0.5)
        deployment = cluster.get("deployments", "web")
        assert deployment["metadata"]["generation"] == observed + 1
        assert deployment["status"]["observedGeneration"] == observed
        assert len(cluster.replicasets("web")) == 1
    cluster.wait_complete("web")


def test_a_frozen_kubelet_leaves_new_pods_pending(plane: ControlPlane, cluster: Cluster) -> None:
    with plane.frozen("kwok"):
        cluster.create_deployment("web", replicas=1)
        (pod,) = cluster.wait(lambda: cluster.pods("web"))
        time.sleep(0.5)
        assert cluster.get("pods", pod["metadata"]["name"])["status"]["phase"] == "Pending"
    cluster.wait_complete("web")


def test_a_frozen_apiserver_is_silent_and_then_goes_on(plane: ControlPlane, cluster: Cluster) -> None:
    with plane.frozen("kube-apiserver"), pytest.raises(TimeoutError):
        plane.api("GET", "/version", timeout_s=0.5)
    assert cluster.objects("deployments") == []


def test_a_restarted_apiserver_keeps_the_data_and_tells_an_old_watch_410_as_an_event(
    plane: ControlPlane, cluster: Cluster
) -> None:
    before = cluster.create_deployment("web", replicas=0)["metadata"]
    cluster.wait_complete("web")
    path = f"{cluster.path('deployments')}?resourceVersion={before['resourceVersion']}"
    events = plane.watch(path)
    assert next(events)["type"] == "MODIFIED"
    plane.restart("kube-apiserver")
    assert "ERROR" not in {event["type"] for event in events}  # it ends, and says nothing about why
    assert cluster.get("deployments", "web")["metadata"]["uid"] == before["uid"]
    event = next(plane.watch(path))
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
    cluster.set_image("web", "v2")
    cluster.wait_complete("web")


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's")
def test_a_test_runner_that_dies_hard_takes_its_control_plane_with_it(plane: ControlPlane) -> None:
    command = [sys.executable, "-m", "tests.controlplane", "run"]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        kubeconfig = Path(next(runner.stdout).removeprefix("kubeconfig: ").strip())
        server = urlsplit(json.loads(kubeconfig.read_text())["clusters"][0]["cluster"]["server"])
        runner.kill()
    try:
        Cluster(plane, "").wait(lambda: not accepts(server.hostname, server.port))
    finally:
        shutil.rmtree(kubeconfig.parent)
