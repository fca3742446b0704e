"""The agent's manifests, as kustomize renders them and the real API server takes them."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.controlplane.cluster import Cluster
from tests.controlplane.plane import ControlPlane

DEPLOY = Path(__file__).parents[2] / "examples" / "agent-api" / "deploy"
IMAGE = "ghcr.io/example/agent-api:1a2b3c"
OVERLAYS = ("staging", "production", "production-blue-green")


def render(plane: ControlPlane, overlay: str, image: str = IMAGE) -> str:
    path = f"{plane.kubectl.parent}{os.pathsep}{os.environ['PATH']}"
    command = [str(DEPLOY / "bin" / "render"), overlay, image]
    done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return done.stdout


def objects(plane: ControlPlane, overlay: str) -> dict[tuple[str, str], Any]:
    return {(item["kind"], item["metadata"]["name"]): item for item in yaml.safe_load_all(render(plane, overlay))}


def settings(found: dict[tuple[str, str], Any]) -> Any:
    return next(item["data"] for (kind, _), item in found.items() if kind == "ConfigMap")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_server_knows_every_field_and_admits_the_pods_where_it_is_strictest(
    plane: ControlPlane, cluster: Cluster, overlay: str
) -> None:
    plane.admin("label", "namespace", cluster.namespace, "pod-security.kubernetes.io/enforce=restricted")
    rendered = list(yaml.safe_load_all(render(plane, overlay)))
    for item in rendered:
        item["metadata"]["namespace"] = cluster.namespace
    arguments = ("apply", "--server-side", "--validate=strict", "--dry-run=server", "--filename=-")
    plane.admin(*arguments, stdin=yaml.safe_dump_all(rendered))
    template = next(item for item in rendered if item["kind"] == "Deployment")["spec"]["template"]
    cluster.create("pods", {**template, "metadata": {**template["metadata"], "name": "agent"}})


def test_the_namespaces_and_the_pipelines_accounts_are_accepted(plane: ControlPlane) -> None:
    plane.admin("apply", "--kustomize", str(DEPLOY / "namespaces"), "--validate=strict", "--dry-run=client")
    items = list(yaml.safe_load_all(plane.admin("kustomize", str(DEPLOY / "namespaces"))))
    assert {item["metadata"]["name"] for item in items if item["kind"] == "Namespace"} == {"staging", "production"}


def test_the_settings_are_those_of_each_environment(plane: ControlPlane) -> None:
    names = ("MODEL_NAME", "LOG_LEVEL", "MAX_TOKENS", "RATE_LIMIT")
    production = dict(zip(names, ("gpt-4o", "WARNING", "2000", "1000"), strict=True))
    staging = dict(zip(names, ("gpt-4o-mini", "DEBUG", "500", "100"), strict=True))
    assert settings(objects(plane, "staging")) == staging
    assert settings(objects(plane, "production")) == production
    assert settings(objects(plane, "production-blue-green")) == production


def test_a_tenth_of_productions_pods_is_canary_and_one_service_has_both(plane: ControlPlane) -> None:
    found = objects(plane, "production")
    stable, canary = (found["Deployment", name] for name in ("agent-api", "agent-api-canary"))
    assert (stable["spec"]["replicas"], canary["spec"]["replicas"]) == (9, 1)
    selector = found["Service", "agent-api"]["spec"]["selector"]
    for deployment, track in ((stable, "stable"), (canary, "canary")):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert labels == {"app": "agent-api", "track": track} == deployment["spec"]["selector"]["matchLabels"]
        assert selector.items() <= labels.items()
    assert found["PodDisruptionBudget", "agent-api"]["spec"]["selector"]["matchLabels"] == selector


def test_staging_is_production_but_for_settings_and_replicas(plane: ControlPlane) -> None:
    def template(overlay: str, name: str) -> str:
        found = objects(plane, overlay)
        config = next(each for kind, each in found if kind == "ConfigMap")
        return yaml.safe_dump(found["Deployment", name]["spec"]["template"]).replace(config, "CONFIG")

    for name in ("agent-api", "agent-api-canary"):
        assert template("staging", name) == template("production", name)


def test_changed_settings_change_the_pods(plane: ControlPlane) -> None:
    """By the hash in the ConfigMap's name, so that an undo brings the old settings back."""
    for overlay in OVERLAYS:
        found = objects(plane, overlay)
        (config,) = (name for kind, name in found if kind == "ConfigMap")
        assert config.startswith("agent-api-")
        for (kind, _), item in found.items():
            if kind == "Deployment":
                (container,) = item["spec"]["template"]["spec"]["containers"]
                assert container["envFrom"] == [{"configMapRef": {"name": config}}]
                assert container["image"] == IMAGE
                assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()


def test_no_secret_is_in_a_manifest(plane: ControlPlane) -> None:
    for overlay in OVERLAYS:
        found = objects(plane, overlay)
        assert not [key for key in found if key[0] == "Secret"]
        (container,) = found["Deployment", min(n for k, n in found if k == "Deployment")]["spec"]["template"]["spec"][
            "containers"
        ]
        taken = {each["name"]: each.get("valueFrom", {}) for each in container["env"]}
        for name in ("OPENAI_API_KEY", "REDIS_URL", "DATABASE_URL"):
            assert taken[name] == {"secretKeyRef": {"name": "agent-api", "key": name}}


def test_the_blue_green_services_name_one_colour_each(plane: ControlPlane) -> None:
    found = objects(plane, "production-blue-green")
    live, preview = (found["Service", name]["spec"]["selector"]["track"] for name in ("agent-api", "agent-api-preview"))
    assert {live, preview} == {"blue", "green"}
    for colour in ("blue", "green"):
        deployment = found["Deployment", f"agent-api-{colour}"]
        assert deployment["spec"]["template"]["metadata"]["labels"]["track"] == colour
        assert deployment["spec"]["replicas"] == 9


@pytest.mark.parametrize("image", ["", "a|b", "a\nb", "$(id)"])
def test_an_image_that_is_none_is_refused(image: str) -> None:
    done = subprocess.run([DEPLOY / "bin" / "render", "staging", image], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert not done.stdout
