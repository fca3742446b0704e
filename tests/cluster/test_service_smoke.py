"""Smoke."""

from pathlib import Path

from tests.cluster.service import Service, policy
from tests.controlplane.cluster import Cluster
from tests.controlplane.plane import ControlPlane
from tests.monitoring.exporter import Exporter
from tests.monitoring.prometheus import PrometheusServer


def test_a_bad_rollout_is_undone(
    plane: ControlPlane,
    cluster: Cluster,
    kubeconfig: Path,
    exporter: Exporter,
    prometheus: PrometheusServer,
    tmp_path: Path,
) -> None:
    cluster.create_deployment("web", template_annotations={"sim/rps": "50", "sim/errors": "0.002"})
    cluster.wait_complete("web")
    rs = cluster.replicasets("web")[0]
    h = rs["metadata"]["labels"]["pod-template-hash"]
    cluster.patch(
        "replicasets",
        rs["metadata"]["name"],
        {"metadata": {"annotations": {"rollback-watchdog.io/passed": f"{h}:2026-11-23T00:00:00Z"}}},
    )
    with Service(
        tmp_path / "s",
        kubeconfig=kubeconfig,
        policies=[policy(cluster.namespace)],
        prometheus=prometheus.url,
        records="rollback-watchdog",
    ) as service:
        import time

        time.sleep(4)
        cluster.set_image("web", "v2", template_annotations={"sim/errors": "0.3"})
        try:
            service.until(
                lambda: any(
                    line.get("event") == "rollout-ended" and line["incident"].startswith("web-2")
                    for line in service.log
                ),
                "ended",
                40,
            )
        finally:
            print(service.log_file.read_text()[-8000:])
            print(service.get("/incidents"))
            print(cluster.kubectl("get", "events"))
