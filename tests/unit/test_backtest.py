"""The pure parts of `backtest`: which rollouts there were, what they were, what others would have done, and how fast."""

import time

import msgspec
import numpy as np
import pytest

from benchmarks.checkers import rollbacks_s
from benchmarks.worlds import STEP_S, Seen
from watchdog import config
from watchdog.backtest.labels import Label, labelled
from watchdog.backtest.past import NOTHING, past
from watchdog.backtest.peers import PEERS, Checker, rollback_s
from watchdog.backtest.replay import replay
from watchdog.backtest.rollouts import Rollout, Subject, Version, replicaset_of
from watchdog.judge.blocks import Counts, Reading, Row, Sample
from watchdog.model import Topology
from watchdog.objects import WorkloadRef

WEB = WorkloadRef("shop", "web")
STEP = 15.0
BEGAN = 1_800_000_000.0

(POLICY,) = config.parse(
    """
    prometheus.url = "http://prometheus"
    [[policies]]
    name = "web"
    namespaces = ["shop"]
    [policies.signals.errors]
    bad = 'requests_total{code="500"}'
    total = "requests_total"
    """
).policies


def rollout(*, minutes: float = 60) -> Rollout:
    subject = Subject(workload=WEB, policy=POLICY, topology=Topology.ROLLING, stable=WEB)
    return Rollout(subject=subject, version=Version(name="web-2", created=BEGAN), until=BEGAN + 60 * minutes)


def readings(*, share: float, steps: int = 241, pods: int = 5, leaves: int = 8) -> list[Reading]:
    """What Prometheus shows of pods of v1 that leave after some steps, and of v2 that stay; 5 requests a second each."""
    found = []
    for index in range(steps):
        now = BEGAN + index * STEP
        samples = []
        for name, first, bad in (("web-1", -5760, 0.004), ("web-2", 2, share)):
            last = leaves if name == "web-1" else index
            for pod in range(pods):
                if index >= first and index <= last + 20:
                    seen = min(index, last)
                    total = 75.0 * (seen - first)
                    row = Row("shop", f"{name}-pod0{pod}", "app", f"10.0.0.{pod}:80", "web")
                    samples.append(Sample(row, total, float(int(total * bad)), BEGAN + seen * STEP - 4))
        found.append(Reading(round(now / STEP), tuple(samples)))
    return found


def speed() -> None:
    begin = time.process_time()
    for _ in range(100):
        replayed = replay(rollout(), {"errors": READ}, {"errors": NOTHING}, {"errors": True}, step_s=STEP)
    print("replay", time.process_time() - begin, replayed.was)
    rows = {}
    for pod in range(5):
        t = {BEGAN - 86400 + i * 300: 1000.0 * i for i in range(290)}
        f = {BEGAN - 6 * 3600 + i * 15: 50.0 * i for i in range(1441)}
        fb = {at: float(int(v * 0.004)) for at, v in f.items()}
        tb = {at: float(int(v * 0.004)) for at, v in t.items()}
        rows[Row("shop", f"web-1-pod0{pod}")] = (t, tb), (f, fb)
    begin = time.process_time()
    for _ in range(100):
        p = past({r: a for r, (a, _) in rows.items()}, {r: b for r, (_, b) in rows.items()}, began=BEGAN, fine_s=15.0)
    print("past", time.process_time() - begin, p)


READ = readings(share=0.004)
if __name__ == "__main__":
    import cProfile, pstats
    speed()
    pr = cProfile.Profile()
    pr.runcall(speed)
    pstats.Stats(pr).sort_stats("tottime").print_stats(18)
