"""`source = "pods"` beside a real Prometheus that scrapes the same pods: the same rows, from both formats."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from tests.component.test_scrape import OPENMETRICS, pod
from tests.controlplane.plane import free_ports
from tests.monitoring.fixtures import MISSING, REASON, REQUIRED
from tests.monitoring.server import Server
from watchdog.config import Prometheus, Scrape, Signal
from watchdog.engine.watch import query_of
from watchdog.judge.blocks import Reading
from watchdog.prometheus import PrometheusSignals
from watchdog.prometheus import connect as connect_prometheus
from watchdog.scrape import PodSignals, connect, wanted

if "prometheus" in MISSING and not REQUIRED:
    pytest.skip(REASON, allow_module_level=True)

TEXT = r"""# TYPE http_requests_total counter
http_requests_total{code="200",path="/",pod="mine"} 90
http_requests_total{code="200",path="/a \"b\" \\ # {x}",pod="mine"} 5
http_requests_total{code="503",path="/",pod="other"} 5
http_requests_total{code="404",path="/"} 1e3
# TYPE latency_seconds histogram
latency_seconds_bucket{le="0.5"} 80
latency_seconds_bucket{le="+Inf"} 100
latency_seconds_count 100
latency_seconds_sum 12.5
"""
OPEN = r"""# TYPE http_requests counter
http_requests_total{code="200",path="/"} 40.0 # {trace_id="a b"} 1.0
http_requests_total{code="502",path="/"} 2.0
http_requests_created{code="502",path="/"} 1.7e9
# TYPE latency_seconds histogram
latency_seconds_bucket{le="0.5"} 30.0
latency_seconds_bucket{le="+Inf"} 42.0
latency_seconds_count 42.0
latency_seconds_sum 5.0
# EOF
"""
PODS = {"web-1": ("127.9.1.1", TEXT, "text/plain; version=0.0.4"), "web-2": ("127.9.1.2", OPEN, OPENMETRICS)}
SIGNALS = {
    "status": Signal(total="http_requests_total", bad='http_requests_total{code=~"5.."}'),
    "not matched": Signal(total="http_requests_total", bad='http_requests_total{code!~"2..|4.."}'),
    "slow": Signal(total="latency_seconds_count", good='latency_seconds_bucket{le="0.5"}'),
    "a label that the target has, too": Signal(
        total='http_requests_total{exported_pod=~"mine|other"}', bad='http_requests_total{exported_pod="other"}'
    ),
    "an absent label": Signal(total='http_requests_total{path!=""}', bad='http_requests_total{code="503",nothing=""}'),
    "the target's own labels": Signal(
        total='http_requests_total{pod="web-2",namespace="shop"}', bad='http_requests_total{pod="web-2",code=~"5.+"}'
    ),
}


class Scraper(Server):
    """A Prometheus with one job: the pods, with the labels that discovery would give them."""

    program = "prometheus"

    def __init__(self, directory: Path, targets: dict[str, str]) -> None:
        super().__init__(directory)
        found = [
            {"targets": [address], "labels": {"namespace": "shop", "pod": name, "container": "proxy"}}
            for name, address in targets.items()
        ]
        settings = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [{"job_name": "pods", "static_configs": found}],
        }
        (directory / "prometheus.json").write_text(json.dumps(settings))

    def arguments(self) -> list[str]:
        """The command line."""
        return [
            "--config.file=prometheus.json",
            "--storage.tsdb.path=data",
            f"--web.listen-address=127.0.0.1:{self._port}",
            "--log.level=warn",
        ]


@pytest.fixture
def ports() -> dict[str, int]:
    return dict(zip(PODS, free_ports(len(PODS)), strict=True))


@pytest.fixture
def scraper(tmp_path: Path, ports: dict[str, int]) -> Iterator[Scraper]:
    with Scraper(tmp_path, {name: f"{PODS[name][0]}:{port}" for name, port in ports.items()}) as found:
        yield found


@asynccontextmanager
async def served(name: str, port: int) -> AsyncIterator[None]:
    """A pod as a real server."""
    address, text, kind = PODS[name]

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=text.encode(), headers={"Content-Type": kind})

    application = web.Application()
    application.router.add_get("/metrics", answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, address, port).start()
    try:
        yield
    finally:
        await runner.cleanup()


def rows(reading: Reading) -> list[tuple[str, str, str, str, str, float | None, float | None]]:
    """Everything of a reading but the time of the scrape."""
    assert reading.blind is None
    return [
        (each.row.namespace, each.row.pod, each.row.container, each.row.instance, each.row.job, each.total, each.bad)
        for each in reading.samples
    ]


async def test_pods_that_are_read_give_the_rows_that_prometheus_gives_of_them(
    scraper: Scraper, ports: dict[str, int]
) -> None:
    pods = tuple(
        pod(name, PODS[name][0], annotations={"prometheus.io/port": str(port)}) for name, port in ports.items()
    )
    async with (
        served("web-1", ports["web-1"]),
        served("web-2", ports["web-2"]),
        connect(concurrency=2) as get,
        connect_prometheus(Prometheus(url=scraper.url), clock=time.time) as client,
    ):
        theirs = PrometheusSignals(client, step_s=1, delay_s=0)
        ours = PodSignals(
            get,
            settings=Scrape(),
            want=wanted(list(SIGNALS.values())),
            clock=time.time,
            observe=lambda _outcome, _seconds: None,
        )
        everything = query_of(SIGNALS["status"], {"shop"})
        for _ in range(150):  # its first scrape takes five seconds
            if len((await theirs.read(everything, step=int(time.time()), timeout_s=5)).samples) == len(PODS):
                break
            await asyncio.sleep(0.2)
        for name, signal in SIGNALS.items():
            expected = await theirs.read(query_of(signal, {"shop"}), step=int(time.time()), timeout_s=5)
            found = await ours.read(
                query_of(signal, {"shop"}, targets=pods), step=int(time.time() / Scrape().step), timeout_s=5
            )
            assert rows(expected), name
            assert rows(found) == rows(expected), name
