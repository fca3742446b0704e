"""Which cluster, and as whom: what kubectl would say, from the same files and environment."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.component.fake_api import FakeApi, good, write_kubeconfig
from tests.controlplane.build import find
from tests.unit.builders import history
from watchdog.errors import ConfigError
from watchdog.kube import KubeCluster, connect
from watchdog.kube.access import from_kubeconfig
from watchdog.kube.watching import WatchSettings
from watchdog.objects import WorkloadRef

SETTINGS = WatchSettings(request_s=5, watch_s=300, inactivity_s=90)
WEB = "/apis/apps/v1/namespaces/shop/deployments/web"


def kubeconfig(path: Path, name: str, **user: object) -> Path:
    """A kubeconfig whose cluster, user, context and current context have one name."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}.invalid"}}],
        "users": [{"name": name, "user": {"token": "secret", **user}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    path.write_text(json.dumps(config))
    return path


def kubectls_server(paths: str) -> str | None:
    """The server that the real kubectl would talk to; None where there is no kubectl."""
    found = find()[0].get("kubectl") or shutil.which("kubectl")
    if not found:
        return None
    command = [str(found), "config", "view", "--minify", "--output=jsonpath={.clusters[0].cluster.server}"]
    environment = {**os.environ, "KUBECONFIG": paths}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a"), ("missing", "b", "a")])
async def test_of_several_kubeconfigs_the_first_current_context_counts_as_for_kubectl(
    tmp_path: Path, order: tuple[str, ...]
) -> None:
    for name in ("a", "b"):
        kubeconfig(tmp_path / name, name)
    paths = os.pathsep.join(str(tmp_path / name) for name in order)
    server = (await from_kubeconfig(paths, None)()).host
    first = next(name for name in order if name != "missing")
    assert server == f"https://{first}.invalid"
    assert kubectls_server(paths) in (None, server)


@pytest.mark.parametrize(("key", "value"), [("as", "nobody"), ("as-groups", ["viewers"])])
async def test_a_user_who_acts_for_another_is_refused_instead_of_acting_with_more_rights(
    tmp_path: Path, key: str, value: object
) -> None:
    path = kubeconfig(tmp_path / "config", "a", **{key: value})
    with pytest.raises(ConfigError, match="acts for another"):
        await from_kubeconfig(str(path), None)()


async def test_in_a_pod_a_kubeconfig_at_home_comes_before_the_pods_own_account(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".kube").mkdir()
    write_kubeconfig(tmp_path, api.url).rename(tmp_path / ".kube" / "config")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "192.0.2.1")
    monkeypatch.setenv("KUBECONFIG", "")
    api.answer("GET", WEB, good(history("v1").deployment))
    async with connect() as transport:
        found = await KubeCluster(transport, watching=SETTINGS).deployment(WorkloadRef("shop", "web"), timeout_s=5)
    assert found.metadata.name == "web"


async def test_passwords_of_other_programs_are_left_alone(
    api: FakeApi, kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("default login someone password else\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    api.answer("GET", WEB, good(history("v1").deployment))
    async with connect(kubeconfig=str(kubeconfig)) as transport:
        await KubeCluster(transport, watching=SETTINGS).deployment(WorkloadRef("shop", "web"), timeout_s=5)
    assert api.seen[0].headers["Authorization"].startswith("Bearer ")
