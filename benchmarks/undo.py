"""Time of an undo beside kubectl's, in one run on one control plane: `python -m benchmarks.undo`.

Both are timed as a user sees them, from typing to the accepted write, and the engine once more inside a running
process, as the service will call it, beside its three bare round trips on a warm connection. They take turns, so that a
noisy machine strikes all alike; what counts is the ratio of the medians.
"""

import argparse
import asyncio
import datetime as dt
import math
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Mapping, Sequence

from tests.controlplane.cluster import Cluster
from tests.controlplane.plane import ControlPlane
from watchdog.decide.plan import Request
from watchdog.engine.act import Actor
from watchdog.engine.verify import Patience
from watchdog.kube import KubeCluster, connect
from watchdog.kube.watching import WatchSettings
from watchdog.model import Cause
from watchdog.objects import Deployment, WorkloadRef

REQUEST = Request(cause=Cause(by="benchmark", reason="benchmark"))
WEB = WorkloadRef("shop", "web")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    with ControlPlane() as plane:
        plane.api("POST", "/api/v1/namespaces", {"metadata": {"name": "shop"}})
        shop = Cluster(plane, "shop")
        shop.wait(lambda: plane.exists("/api/v1/namespaces/shop/serviceaccounts/default"))
        shop.create_deployment("web", image="v0")
        shop.wait_complete("web")
        seconds = asyncio.run(measure(plane, shop, rounds))
    print(table(seconds))


async def measure(plane: ControlPlane, shop: Cluster, rounds: int) -> Mapping[str, Sequence[float]]:
    """Seconds of each way to undo, the ways taking turns."""
    config = f"--kubeconfig={plane.kubeconfig}"
    kubectl = f"{plane.kubectl} {config} --namespace=shop rollout"
    ours = f"{sys.executable} -m watchdog rollback shop/web {config}"
    ways = {
        "kubectl rollout undo": command(f"{kubectl} undo deployment/web"),
        "rollback-watchdog rollback --no-wait": command(f"{ours} --no-wait"),
        "kubectl rollout undo && kubectl rollout status": command(
            f"{kubectl} undo deployment/web && {kubectl} status deployment/web"
        ),
        "rollback-watchdog rollback": command(ours),
        "the engine in a running process, to the accepted write": accepted(str(plane.kubeconfig)),
        "GET, LIST, PATCH and nothing else, on a warm connection": bare(str(plane.kubeconfig)),
    }
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for index, (way, undo) in enumerate(ways.items()):
            shop.set_image("web", f"v{number}-{index}")
            shop.wait_complete("web")
            taken[way].append(await anext(undo))
            shop.wait_complete("web")
    for undo in ways.values():
        await undo.aclose()
    return taken


async def command(line: str) -> AsyncGenerator[float, None]:
    """Seconds that a shell line takes, again and again."""
    while True:
        started = time.perf_counter()
        subprocess.run(line, shell=True, check=True, capture_output=True)
        yield time.perf_counter() - started


class Timed(KubeCluster):
    """The adapter, noting when the first write was accepted."""

    accepted: float | None = None

    async def patch_deployment(self, ref: WorkloadRef, patch: bytes, *, dry_run: bool, timeout_s: float) -> Deployment:
        """Write, and look at the clock."""
        deployment = await super().patch_deployment(ref, patch, dry_run=dry_run, timeout_s=timeout_s)
        self.accepted = self.accepted or time.perf_counter()
        return deployment


async def accepted(kubeconfig: str) -> AsyncGenerator[float, None]:
    """Seconds from the call until the API server has accepted the write, again and again on warm connections."""
    settings = WatchSettings(request_s=10, watch_s=300, inactivity_s=90)
    patience = Patience(request_s=10, observed_s=5, verify_s=60)
    async with connect(kubeconfig=kubeconfig) as transport:
        while True:
            cluster = Timed(transport, watching=settings)
            actor = Actor(cluster, patience=patience, now=lambda: dt.datetime.now(dt.UTC))
            started = time.perf_counter()
            await actor.undo(WEB, REQUEST, verify=False)
            yield (cluster.accepted or math.nan) - started


async def bare(kubeconfig: str) -> AsyncGenerator[float, None]:
    """Seconds of a GET, a LIST and a PATCH, one after the other, which is the least that a guarded undo needs."""
    async with connect(kubeconfig=kubeconfig) as transport:
        cluster = KubeCluster(transport, watching=WatchSettings(request_s=10, watch_s=300, inactivity_s=90))
        while True:
            started = time.perf_counter()
            deployment = await cluster.deployment(WEB, timeout_s=10)
            await cluster.replicasets(WEB.namespace, deployment.spec.selector, timeout_s=10)
            patch = b'[{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "v0"}]'
            await cluster.patch_deployment(WEB, patch, dry_run=False, timeout_s=10)
            yield time.perf_counter() - started


def table(seconds: Mapping[str, Sequence[float]]) -> str:
    """Medians, 90th percentiles, and the ratio to kubectl's bare undo."""
    reference = statistics.median(next(iter(seconds.values())))
    rows = [f"{'':<58}{'median':>10}{'p90':>10}{'ratio':>8}"]
    for way, taken in seconds.items():
        median, p90 = statistics.median(taken), statistics.quantiles(taken, n=10)[-1]
        rows.append(f"{way:<58}{median * 1000:>7.0f} ms{p90 * 1000:>7.0f} ms{median / reference:>8.2f}")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
