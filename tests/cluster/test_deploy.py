"""The manifests as a real API server takes them: nothing unknown, nothing that the strictest admission refuses."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import ACCOUNT, DEPLOY
from tests.controlplane.cluster import Cluster
from tests.controlplane.plane import ApiError, ControlPlane, ControlPlaneError

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def rendered(plane: ControlPlane, directory: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(plane.admin("kustomize", str(directory))))


def overlay(directory: Path, namespace: str, text: str) -> Path:
    """Somebody's own kustomization, which moves everything into a namespace; {deploy} is the way to deploy/."""
    deploy = os.path.relpath(DEPLOY, directory)
    (directory / "kustomization.yaml").write_text(f"namespace: {namespace}\n" + text.format(deploy=deploy))
    return directory


@pytest.mark.parametrize("which", ["base", "cluster-wide"])
def test_the_api_server_knows_every_field_of_the_service(
    plane: ControlPlane, namespace: str, tmp_path: Path, which: str
) -> None:
    directory = overlay(tmp_path, namespace, f"resources: [{{deploy}}/{which}]")
    plane.admin("apply", "--kustomize", str(directory), "--validate=strict", "--dry-run=server")


def test_the_pods_are_admitted_where_the_strictest_standard_is_enforced(
    plane: ControlPlane, cluster: Cluster, tmp_path: Path
) -> None:
    plane.admin("label", "namespace", cluster.namespace, *(f"{key}={value}" for key, value in RESTRICTED.items()))
    with pytest.raises(ApiError, match="violates PodSecurity"):
        cluster.create("pods", {"metadata": {"name": "any"}, "spec": {"containers": [{"name": "a", "image": "a"}]}})
    objects = rendered(plane, overlay(tmp_path, cluster.namespace, "resources: [{deploy}/base]"))
    cluster.create("serviceaccounts", next(item for item in objects if item["kind"] == "ServiceAccount"))
    template = next(item for item in objects if item["kind"] == "Deployment")["spec"]["template"]
    cluster.create("pods", {**template, "metadata": {**template["metadata"], "name": "watchdog"}})


def test_an_overlay_gives_its_own_image_configuration_and_namespace(plane: ControlPlane, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("# mine\n")
    text = """
resources: [{deploy}/base]
components: [{deploy}/service-monitor, {deploy}/prometheus-rules]
images: [{{name: rollback-watchdog, newName: mirror.invalid/watchdog, newTag: v2}}]
configMapGenerator: [{{name: rollback-watchdog-config, behavior: replace, files: [config.toml]}}]
"""
    objects = rendered(plane, overlay(tmp_path, "ops", text))
    kinds = {item["kind"]: item for item in objects}
    assert {"ServiceMonitor", "PrometheusRule"} <= kinds.keys()
    spec = kinds["Deployment"]["spec"]["template"]["spec"]
    assert spec["containers"][0]["image"] == "mirror.invalid/watchdog:v2"
    volume = next(volume for volume in spec["volumes"] if volume["name"] == "config")
    assert volume["configMap"]["name"] == kinds["ConfigMap"]["metadata"]["name"]
    assert kinds["ConfigMap"]["data"] == {"config.toml": "# mine\n"}
    assert {item["metadata"]["namespace"] for item in objects if not item["kind"].startswith("Cluster")} == {"ops"}
    subjects = [subject for item in objects for subject in item.get("subjects", ())]
    assert {subject["namespace"] for subject in subjects} == {"ops"}


def test_the_cluster_wide_rights_are_those_of_one_namespace_everywhere(plane: ControlPlane) -> None:
    base, wide = (
        {(item["kind"], item["metadata"]["name"]): item for item in rendered(plane, DEPLOY / which)}
        for which in ("base", "cluster-wide")
    )
    name = "rollback-watchdog-workloads"
    assert wide["ClusterRole", name]["rules"] == base["Role", name]["rules"]
    assert wide["ClusterRoleBinding", name]["roleRef"]["kind"] == "ClusterRole"
    assert wide["ClusterRoleBinding", name]["subjects"] == base["RoleBinding", name]["subjects"]
    moved = {("Role", name), ("RoleBinding", name)}
    assert wide.keys() == {("Cluster" + kind, each) if (kind, each) in moved else (kind, each) for kind, each in base}


def test_the_cluster_wide_rights_hold_in_every_namespace(
    plane: ControlPlane, cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    suffix = namespace[-6:]
    text = f"resources: [{{deploy}}/cluster-wide]\nnameSuffix: -{suffix}\n"
    plane.admin("apply", "--kustomize", str(overlay(tmp_path, namespace, text)))
    account = f"system:serviceaccount:{namespace}:{ACCOUNT}-{suffix}"
    can = ("auth", "can-i", "patch", "deployments.apps", "--namespace=default", f"--as={account}")
    try:
        assert plane.admin(*can).strip() == "yes"
    finally:
        for kind in ("clusterrole", "clusterrolebinding"):
            for name in (f"{ACCOUNT}-{suffix}", f"{ACCOUNT}-workloads-{suffix}"):
                plane.admin("delete", kind, name)
    with pytest.raises(ControlPlaneError):
        plane.admin(*can)


def test_the_help_for_kube_prometheus_is_accepted(plane: ControlPlane, cluster: Cluster, tmp_path: Path) -> None:
    directory = overlay(tmp_path, cluster.namespace, "resources: [{deploy}/kube-prometheus]")
    plane.admin("apply", "--kustomize", str(directory), "--validate=strict")
