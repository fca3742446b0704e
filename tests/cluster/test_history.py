"""The past as a real Prometheus gives it, against what was really counted."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.monitoring.fixtures import MISSING, REASON, REQUIRED
from tests.monitoring.past import PastServer, Sample
from watchdog.config import Prometheus
from watchdog.engine import baselines
from watchdog.engine.baselines import BaselineQuery
from watchdog.judge import calibration
from watchdog.judge.blocks import Counts
from watchdog.objects import WorkloadRef
from watchdog.ports import SignalQuery
from watchdog.prometheus.client import connect
from watchdog.prometheus.signals import PrometheusSignals

STEP_S = 15.0
NOW = 1_750_000_200
BLOCKS = 5760
QUERY = SignalQuery(bad="agent_errors_total", total="agent_requests_total", namespaces=("",))
pytestmark = pytest.mark.skipif(not REQUIRED and "promtool" in MISSING, reason=REASON)

WEB, API = WorkloadRef("shop", "web"), WorkloadRef("shop", "web-api")


def drawn(rng: random.Random, share: float) -> list[Counts]:
    """A day of blocks of one pod; failures come in bursts now and then."""
    found = []
    for _ in range(BLOCKS):
        total, often = rng.randint(40, 80), 0.3 if rng.random() < 0.01 else share
        found.append(Counts(total, sum(rng.random() < often for _ in range(total))))
    return found


def written(pods: dict[str, list[Counts]]) -> Iterator[Sample]:
    for name, blocks in pods.items():
        labels = {"namespace": "shop", "pod": name, "container": "agent", "instance": f"{name}:80", "job": "pods"}
        for metric, field in (("agent_requests_total", "total"), ("agent_errors_total", "bad")):
            value, begin = 0.0, NOW - STEP_S * BLOCKS
            yield metric, labels, value, begin
            for index, each in enumerate(blocks, start=1):
                value += getattr(each, field)
                yield metric, labels, value, begin + STEP_S * index


@pytest.fixture
def pods() -> dict[str, list[Counts]]:
    rng = random.Random(6)
    names = {**{f"web-abc-{index:05}": 0.01 for index in range(3)}, "web-bad-00000": 0.2, "web-api-abc-00000": 0.03}
    return {name: drawn(rng, share) for name, share in names.items()}


async def test_what_is_frozen_follows_from_what_was_counted(tmp_path: Path, pods: dict[str, list[Counts]]) -> None:
    asked = BaselineQuery(
        query=QUERY,
        first=int(NOW // STEP_S),
        workloads=(WEB,),
        others=(API,),
        old=frozenset({"web-abc"}),
        condemned=frozenset({"web-bad"}),
    )
    with PastServer(tmp_path, written(pods)) as server:
        async with connect(Prometheus(url=server.url), clock=time.time) as client:
            signals = PrometheusSignals(client, step_s=STEP_S, delay_s=0.0)
            [past] = await baselines.read(signals, [asked], step_s=STEP_S)

    mine = [blocks for name, blocks in pods.items() if name.startswith("web-abc")]
    everyone = [sum(column, Counts()) for column in zip(*mine, strict=True)]
    windows = [sum(everyone[at : at + 20], Counts()) for at in range(0, BLOCKS, 20)]
    assert past.reference == calibration.reference(windows, calibration.phis([blocks[-1440:] for blocks in mine]))
    assert past.reference.known
    assert past.reference.phi_historical > 1.5
    assert past.told == f"{sum(windows, Counts()).total:.0f} requests in 288 windows of 5 min of the day before"
    [api] = past.bystanders
    assert api.name == "shop/web-api"
    assert 0.03 < api.base < 0.06
