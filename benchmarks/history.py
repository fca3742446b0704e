"""What reading the past costs when rollouts begin: questions, seconds and bytes, against a real Prometheus.

`python -m benchmarks.history` writes a day of 15-s samples for 20 Deployments of 4 pods, then has 1, 5 and 20 of them
begin a rollout in the same step.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.monitoring.past import PastServer, Sample
from watchdog.config import Prometheus
from watchdog.engine import baselines
from watchdog.engine.baselines import BaselineQuery
from watchdog.objects import WorkloadRef
from watchdog.ports import SignalQuery
from watchdog.prometheus.client import connect
from watchdog.prometheus.signals import PrometheusSignals

STEP_S = 15.0
NOW = 1_750_000_200
DAY_S = 86_400
QUERY = SignalQuery(bad="agent_errors_total", total="agent_requests_total", namespaces=("",))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", type=int, default=20, help="Deployments [20]")
    parser.add_argument("--pods", type=int, default=4, help="of each [4]")
    asked = parser.parse_args()
    refs = [WorkloadRef("shop", f"app-{index}") for index in range(asked.workloads)]
    with tempfile.TemporaryDirectory() as directory, PastServer(Path(directory), _past(refs, asked.pods)) as server:
        print(f"{asked.workloads} Deployments of {asked.pods} pods, 24 h of 15-s samples")
        print(f"{'begin':>5} {'queries':>8} {'seconds':>8} {'CPU s':>6} {'without an answer':>18}")
        for count in sorted({1, max(1, len(refs) // 4), len(refs)}):
            asyncio.run(_measure(server.url, refs, count))


def _past(refs: list[WorkloadRef], pods: int) -> Iterator[Sample]:
    for ref in refs:
        for index in range(pods):
            labels = {"namespace": ref.namespace, "pod": f"{ref.name}-abc-{index:05}", "container": "agent"}
            labels |= {"instance": f"10.0.0.{index}", "job": "pods"}
            for metric, each in (("agent_requests_total", 150), ("agent_errors_total", 1)):
                for at in range(DAY_S // 15 + 1):
                    yield metric, labels, float(each * at), NOW - DAY_S + 15 * at


async def _measure(url: str, refs: list[WorkloadRef], count: int) -> None:
    queries: list[float] = []
    settings = Prometheus(url=url)
    async with connect(
        settings, clock=lambda: time.time(), observe=lambda _, seconds: queries.append(seconds)
    ) as client:
        signals = PrometheusSignals(client, step_s=STEP_S, delay_s=0.0)
        first = int(NOW // STEP_S)
        asked = [
            BaselineQuery(
                query=QUERY, first=first, workloads=(ref,), others=tuple(each for each in refs if each != ref)[:60]
            )
            for ref in refs[:count]
        ]
        began, cpu = time.perf_counter(), time.process_time()
        pasts = await baselines.read(signals, asked, step_s=STEP_S)
        took, burnt = time.perf_counter() - began, time.process_time() - cpu
    unread = sum(1 for past in pasts if not past.reference.known)
    print(f"{count:>5} {len(queries):>8} {took:>8.2f} {burnt:>6.2f} {unread:>18}")


if __name__ == "__main__":
    main()
