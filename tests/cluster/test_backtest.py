"""`backtest` against a real Prometheus with days of written-back history, and the API server's ReplicaSets."""

import asyncio
import datetime as dt
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cluster.test_real_prometheus import wait_until_ready
from tests.component import test_cli
from tests.component.fake_api import FakeApi, page, running, write_kubeconfig
from tests.component.test_cli import SETS, SHOP, Ran, runner
from tests.unit.builders import Json

MISSING = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
if MISSING and os.environ.get("WATCHDOG_TESTS_REQUIRE_ALL") != "1":
    pytest.skip("NO BACKTEST of a real Prometheus without it: apt-get install prometheus", allow_module_level=True)

elsewhere = test_cli.elsewhere

STEP_S = 15
LAG_S = 9
"""A target is scraped 4 s before the instant that is asked about, which is 5 s before the grid's."""

BEGAN = int(time.time()) // 3600 * 3600 - 4 * 3600
"""When the healthy rollout began."""

RPS = 10
MINUTE = 60
USUAL = 0.004


class Pod(NamedTuple):
    """One pod: its name, from when and until when it serves, and the share that fails."""

    name: str
    ready: int
    gone: int
    share: float


def rolled(name: str, at: int, *, share: float, undone: int | None = None, prefix: str = "") -> list[Pod]:
    """Two pods of v1, which two of v2 replace at `at`, until v1 comes back with pods of other names."""
    day, end = at - 26 * 3600, at + 3 * 3600
    old = [Pod(f"{name}-1a1a1-old0{n}", day, at + 40 + 20 * n, USUAL) for n in range(2)]
    new = [Pod(f"{name}-2b2b2-new0{n}", at + 20 + 20 * n, undone + 20 if undone else end, share) for n in range(2)]
    back = [Pod(f"{name}-1a1a1-bak0{n}", undone + 10, end, USUAL) for n in range(2)] if undone else []
    return [*old, *new, *back]


HEALTHY, UNDONE, LEFT, SILENT = (BEGAN + index * 600 for index in range(4))
"""When each workload rolled out."""

UNDONE_AT = UNDONE + 12 * MINUTE
PODS = {
    "web": rolled("web", HEALTHY, share=USUAL),
    "api": rolled("api", UNDONE, share=0.3, undone=UNDONE_AT),
    "pay": rolled("pay", LEFT, share=0.2),
}


def counted(pod: Pod, at: float) -> tuple[int, int]:
    """Requests and failures of a pod at a time."""
    total = int(RPS * max(0, min(at, pod.gone) - pod.ready))
    return total, int(total * pod.share)


def failed(pods: list[Pod], at: float) -> int:
    """What the new version's pods had counted at the scrape of the grid's step that ends at `at`."""
    return sum(counted(pod, at - LAG_S)[1] for pod in pods if "-2b2b2-" in pod.name)


def openmetrics() -> Iterator[str]:
    """Every sample, one family after the other."""
    for pods in PODS.values():
        for pod in pods:
            labels = f'namespace="shop",pod="{pod.name}",container="app",instance="{pod.name}:80",job="shop"'
            for code in ("200", "500"):
                for at in range((pod.ready + LAG_S) // STEP_S * STEP_S - LAG_S, pod.gone, STEP_S):
                    if at >= pod.ready:
                        total, bad = counted(pod, at)
                        value = bad if code == "500" else total - bad
                        yield f'http_requests_total{{{labels},code="{code}"}} {value} {at}'
    for name, about, created in (("pay", "0c0c0", LEFT - 2 * 86400), ("pay", "1a1a1", LEFT - 30 * 3600)):
        labels = f'namespace="shop",replicaset="{name}-{about}"'
        for at in range(created, created + 7200, 60):
            yield f"kube_replicaset_created{{{labels}}} {created} {at}"
            yield f'kube_replicaset_owner{{{labels},owner_kind="Deployment",owner_name="{name}"}} 1 {at}'


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that has only the past."""
    place: Path = tmp_path_factory.mktemp("prometheus")
    families: dict[str, list[str]] = {}
    for line in openmetrics():
        families.setdefault(line.partition("{")[0], []).append(line)
    (place / "samples").write_text("\n".join(line for each in families.values() for line in each) + "\n# EOF\n")
    (place / "config").write_text("scrape_configs: []\n")
    blocks = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(place / "samples"), str(place / "data")]
    subprocess.run(blocks, check=True, capture_output=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    options = {"config.file": place / "config", "storage.tsdb.path": place / "data", "web.listen-address": address}
    with (place / "log").open("w") as log:
        command = ["prometheus", *(f"--{name}={value}" for name, value in options.items())]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_until_ready(f"http://{address}/-/ready", process)
            yield f"http://{address}"
        finally:
            process.kill()
            process.wait()


def stamp(at: float) -> str:
    return f"{dt.datetime.fromtimestamp(at, dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


def deployment(name: str, at: int) -> Json:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "app", "image": "a:2"}]}}
    metadata = {"name": name, "namespace": "shop", "uid": name, "creationTimestamp": stamp(at - 5 * 86400)}
    spec = {"selector": {"matchLabels": {"app": name}}, "template": template}
    return {"metadata": {**metadata, "annotations": {"deployment.kubernetes.io/revision": "2"}}, "spec": spec}


def replicaset(name: str, about: str, created: int, revision: str, before: str = "") -> Json:
    annotations = {"deployment.kubernetes.io/revision": revision}
    if before:
        annotations["deployment.kubernetes.io/revision-history"] = before
    owner = {"uid": name, "kind": "Deployment", "name": name, "controller": True}
    labels = {"app": name, "pod-template-hash": about}
    metadata = {"name": f"{name}-{about}", "namespace": "shop", "uid": f"{name}-{about}", "labels": labels}
    metadata |= {"creationTimestamp": stamp(created), "annotations": annotations, "ownerReferences": [owner]}
    image = {"1a1a1": "a:1", "2b2b2": "a:2"}[about]
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "app", "image": image}]}}
    return {"metadata": metadata, "spec": {"template": template}}


CONFIG = """
prometheus.url = "{url}"
[[policies]]
name = "shop"
namespaces = ["shop"]
rule = "sequential"
[policies.signals.errors]
bad = 'http_requests_total{{code=~"5.."}}'
total = "http_requests_total"
"""


@pytest.fixture
async def api(tmp_path: Path, prometheus: str) -> AsyncIterator[FakeApi]:
    """An API server with four Deployments; their oldest ReplicaSets are gone."""
    starts = {"web": HEALTHY, "api": UNDONE, "pay": LEFT, "idle": SILENT}
    async with running(FakeApi()) as api:
        api.answer("GET", SHOP, page(*(deployment(name, at) for name, at in starts.items())))
        sets = [replicaset(name, "2b2b2", at, "2") for name, at in starts.items()]
        sets += [
            replicaset("web", "1a1a1", HEALTHY - 4 * 86400, "1"),
            replicaset("api", "1a1a1", UNDONE - 4 * 86400, "3", before="1"),
            replicaset("idle", "1a1a1", SILENT - 4 * 86400, "1"),
        ]
        api.answer("GET", SETS, page(*sets))
        write_kubeconfig(tmp_path, api.url)
        Path("config.toml").write_text(CONFIG.format(url=prometheus))
        yield api


async def run(tmp_path: Path, *options: str) -> Ran:
    return await runner(tmp_path / "kubeconfig")("backtest", "--since", "3d", *options)


@pytest.fixture
async def found(api: FakeApi, tmp_path: Path) -> Json:
    """What the command says in JSON."""
    ran = await run(tmp_path, "--json")
    assert ran.code == 0, ran
    return ran.json


async def test_debug(api: FakeApi, tmp_path: Path) -> None:
    ran = await run(tmp_path, "--html", "/tmp/backtest.html")
    print(ran.out, ran.err, ran.code)
    print(json.dumps((await run(tmp_path, "--json")).json["rollouts"], indent=1)[:6000])
