"""Time from an alert to the accepted undo, beside what it cannot be quicker than: `python -m benchmarks.alert`.

The whole service runs in this process against a real control plane and a real Prometheus. The alert comes by HTTP, as
from Alertmanager, and its onset from Prometheus' ALERTS_FOR_STATE. The evidence is already in: the rule alone would
wait for ever (by `threshold` for `consecutive`, by `sequential` for an `alpha` that no evidence of seconds reaches), so
what is timed is what an alert sets going. The bare round trips and kubectl's undo take turns with the alerts in the
same run.
"""

import argparse
import asyncio
import functools
import math
import os
import secrets
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.undo import bare
from tests.controlplane.cluster import Cluster
from tests.controlplane.plane import ControlPlane, free_ports
from tests.monitoring.exporter import Exporter
from tests.monitoring.prometheus import PrometheusServer, agent_errors
from watchdog.config import parse
from watchdog.kube import KubeCluster
from watchdog.objects import WorkloadRef
from watchdog.running import running

NAMES = [f"app-{number:02}" for number in range(20)]
TOKEN = secrets.token_hex(16)
EVIDENCE_S = 9.0

SETTINGS = """
prometheus = {{url = "{prometheus}", step = "1s", delay = "1s"}}
server = {{listen = "127.0.0.1:{port}", metrics_listen = "127.0.0.1:{metrics}", alerts_token_files = ["{token}"]}}
limits = {{budget = 0, cool_down = "0s", breaker = 0, breaker_all = 0, recovery = "5s"}}
records.namespace = "shop"
[[policies]]
name = "all"
namespaces = ["shop"]
workloads = [{names}]
mode = "enforce"
{rule}
grace = "0s"
bake = "1h"
[policies.signals.errors]
bad = "agent_errors_total"
total = "agent_requests_total"
"""

RULES = {
    "threshold": 'rule = "threshold"\nthreshold = {window = "3s", consecutive = 10000}',
    "sequential": 'rule = "sequential"\nsequential = {alpha = 1e-60, blocks = 60}\nalerts.alpha_alert = 0.4',
}
"""Each acts on an alert alone: a minute of full evidence is in nobody's way here. The bar of `alpha` sets the cap of a
block, so it is not out of all reach."""

accepted: dict[str, float] = {}
"""When the first patch of a Deployment was accepted, since it was last looked at."""


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="of twenty incidents each [10]")
    parser.add_argument("--rule", choices=RULES, default="threshold", help="[threshold]")
    asked = parser.parse_args()
    rounds, rule = asked.rounds, RULES[asked.rule]
    with ControlPlane() as plane, tempfile.TemporaryDirectory() as directory, Exporter(plane) as exporter:
        plane.api("POST", "/api/v1/namespaces", {"metadata": {"name": "shop"}})
        shop = Cluster(plane, "shop")
        shop.wait(lambda: plane.exists("/api/v1/namespaces/shop/serviceaccounts/default"))
        for name in ("web", *NAMES):
            shop.create_deployment(name, image="good", replicas=1, template_annotations={"sim/rps": "50"})
            shop.wait_complete(name)
            if name != "web":
                shop.mark_passed(name)
                # A new pod takes traffic beside the old one, which is what the rule `sequential` compares it with.
                shop.patch("deployments", name, {"spec": {"minReadySeconds": 500}})
        # Pending alerts have an onset, too, and none of these is ever sent by Prometheus itself.
        rules = [agent_errors("shop", name, hold="1h") for name in NAMES]
        with PrometheusServer(Path(directory), exporter=exporter, rules=rules) as prometheus:
            seconds = asyncio.run(measure(plane, shop, prometheus.url, Path(directory), rounds, rule))
    print(table(seconds))


async def measure(
    plane: ControlPlane, shop: Cluster, prometheus: str, directory: Path, rounds: int, rule: str
) -> Mapping[str, Sequence[float]]:
    """Seconds of each way, taking turns."""
    _note_patches()
    (directory / "token").write_text(TOKEN)
    port, metrics = free_ports(2)
    names = ", ".join(f'"{name}"' for name in NAMES)
    config = parse(
        SETTINGS.format(
            prometheus=prometheus, port=port, metrics=metrics, token=directory / "token", names=names, rule=rule
        )
    )
    taken: dict[str, list[float]] = {"alert": [], "bare": [], "kubectl": []}
    trips = bare(str(plane.kubeconfig))
    undo = [str(plane.kubectl), f"--kubeconfig={plane.kubeconfig}", "-n", "shop", "rollout", "undo", "deployment/web"]
    async with (
        running(config, kubeconfig=str(plane.kubeconfig), context=None) as service,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {TOKEN}"}) as session,
    ):
        task = asyncio.create_task(service.run())
        while not service.accepting():
            await asyncio.sleep(0.1)
        for number in range(rounds):
            for name in NAMES:
                await asyncio.to_thread(
                    shop.set_image, name, f"bad-{number}", template_annotations={"sim/errors": "0.5"}
                )
            await asyncio.sleep(EVIDENCE_S)
            for index, name in enumerate(NAMES):
                taken["alert"].append(await _alert(session, name))
                if index % 4 == 0:
                    await asyncio.to_thread(shop.set_image, "web", f"v{number}-{index}")
                    await asyncio.to_thread(shop.wait_complete, "web")
                    started = time.perf_counter()
                    await asyncio.to_thread(subprocess.run, undo, check=True, capture_output=True)
                    taken["kubectl"].append(time.perf_counter() - started)
                    await asyncio.to_thread(shop.wait_complete, "web")
                    taken["bare"].append(await anext(trips))
            while service.rollouts():
                await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await trips.aclose()
    return taken


async def _alert(session: aiohttp.ClientSession, name: str) -> float:
    """Post an alert about a workload, and wait until its undo is accepted."""
    accepted.pop(name, None)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    labels = {"alertname": "AgentErrors", "namespace": "shop", "deployment": name, "rollback_watchdog": "true"}
    alert = {
        "status": "firing",
        "labels": labels,
        "annotations": {},
        "startsAt": now,
        "fingerprint": os.urandom(8).hex(),
    }
    started = time.perf_counter()
    async with session.post("/alerts", json={"version": "4", "alerts": [alert]}) as response:
        response.raise_for_status()
    while name not in accepted:
        if time.perf_counter() - started > 20:
            raise RuntimeError(f"{name} was not undone within 20 s of its alert")
        await asyncio.sleep(0.0005)
    return accepted[name] - started


def _note_patches() -> None:
    original = KubeCluster.patch_deployment

    @functools.wraps(original)
    async def patch(self: KubeCluster, ref: WorkloadRef, *args: Any, **kwargs: Any) -> Any:
        found = await original(self, ref, *args, **kwargs)
        accepted.setdefault(ref.name, time.perf_counter())
        return found

    KubeCluster.patch_deployment = patch  # type: ignore[method-assign]


def table(seconds: Mapping[str, Sequence[float]]) -> str:
    """Medians, 99th percentiles, and the ratio to the bare round trips."""
    ways = {
        "alert": f"alert by HTTP to accepted undo, evidence in ({len(seconds['alert'])} incidents)",
        "bare": "GET, LIST, PATCH and nothing else, on a warm connection",
        "kubectl": "kubectl rollout undo",
    }
    reference = statistics.median(seconds["bare"])
    rows = [f"{'':<68}{'p50':>9}{'p99':>9}{'ratio':>8}"]
    for key, way in ways.items():
        taken = sorted(seconds[key])
        p50, p99 = statistics.median(taken), taken[min(len(taken) - 1, math.ceil(0.99 * len(taken)) - 1)]
        rows.append(f"{way:<68}{p50 * 1000:>6.0f} ms{p99 * 1000:>6.0f} ms{p50 / reference:>8.2f}")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
