"""The rule `sequential` from end to end: real pods, a real Prometheus with a past, a service that judges and acts.

Everything is played at once, as in `test_scenarios`; a version under judgement gets ten requests per second.
"""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import scenarios
from tests.cluster.scenarios import CANARY, End, Scenario, Scene
from tests.cluster.service import Service
from tests.controlplane.plane import ControlPlane
from tests.monitoring import past
from tests.monitoring.exporter import Exporter
from tests.monitoring.fixtures import MISSING, REASON, REQUIRED
from tests.monitoring.past import Sample
from tests.monitoring.prometheus import PrometheusServer
from watchdog.decide.record import EvidenceStatus, State
from watchdog.judge.blocks import BlindReason
from watchdog.judge.sequential import Control
from watchdog.model import Outcome

pytestmark = pytest.mark.skipif(not REQUIRED and "promtool" in MISSING, reason=REASON)

RECORDS = "sequential-records"
USUAL = "0.004"
RPS = 10.0
PATIENCE_S = 150
PAST_S, SCRAPED_S = 7200.0, 15.0
ALONE = """
[policies.signals.errors]
bad = 'http_requests_total{code="500"}'
total = "http_requests_total"
"""
"""Other series than the rest: what fails here on purpose is no bystander of theirs."""


def running(scene: Scene, name: str = "web", *, replicas: int, rps: float = RPS) -> None:
    """A version that is complete, known to be good, and fails as rarely as it always did."""
    told = {"sim/rps": f"{rps / replicas:g}", "sim/errors": USUAL}
    one_by_one = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    scene.create_deployment(name, replicas=replicas, template_annotations=told, strategy=one_by_one)
    scene.complete(name)
    scene.mark_passed(name)


def finished(scene: Scene, name: str = "web") -> None:
    """Wait until the watch of the version has ended."""

    def over() -> bool:
        return any(each.state is State.ENDED for each in scene.seen(2, name))

    scene.wait(over, PATIENCE_S, what=f"the end of the watch in {scene.namespace}")


def roll(scene: Scene, replicas: int) -> None:
    """A version comes that fails one request in ten."""
    running(scene, replicas=replicas)
    scene.set_image("web", "v2", template_annotations={"sim/errors": "0.1"})
    finished(scene)


def three_replicas(scene: Scene) -> None:
    """One request in ten fails, and the old pods are gone in seconds."""
    roll(scene, 3)


def ten_replicas(scene: Scene) -> None:
    """The same, spread over ten pods."""
    roll(scene, 10)


def canary_beside(scene: Scene) -> None:
    """The same in a canary, beside nine times as many requests."""
    running(scene, replicas=9, rps=9 * RPS)
    running(scene, "web-canary", replicas=1)
    scene.set_image("web-canary", "v2", template_annotations={"sim/errors": "0.1"})
    finished(scene, "web-canary")


def upstream_outage(scene: Scene) -> None:
    """What both tracks lean on breaks while a canary is out."""
    running(scene, replicas=9, rps=9 * RPS)
    running(scene, "web-canary", replicas=1)
    scene.set_image("web-canary", "v2")
    scene.complete("web-canary")
    scene.wait(lambda: scene.seen(name="web-canary"), what="the watch")
    scene.fail("web")  # and web-canary with it
    finished(scene, "web-canary")


def two_workers(scene: Scene) -> None:
    """Two workers count apart behind one /metrics, and the new version fails."""
    scene.exporter.saw_tooth(f"{scene.namespace}/")
    running(scene, replicas=3)
    scene.shown("min(resets(agent_requests_total%[20s])) >= 3")
    scene.set_image("web", "v2", template_annotations={"sim/errors": "0.1"})
    finished(scene)


def judged(play: Callable[[Scene], None], **settings: str) -> Scenario:
    """A play under the rule `sequential`."""
    return Scenario(play, {"rule": "sequential", "bake": "60s", **settings}, None)


PLAYS = (
    judged(three_replicas),
    judged(ten_replicas, bake="120s"),
    judged(canary_beside, more=CANARY),
    judged(upstream_outage, more=CANARY, signal=ALONE, bake="20s"),
    judged(two_workers, signal=ALONE, bake="10s"),
)


def before() -> Iterator[Sample]:
    """Two hours in which every workload failed as rarely as it does."""
    chance = random.Random(1)
    end = time.time() - 2 * SCRAPED_S
    for play in PLAYS:
        for index in range(3):
            pod = f"web-5d4f7b9c6d-{index:05}"
            labels = {"namespace": play.namespace, "pod": pod, "container": "app", "instance": pod, "job": "pods"}
            total = bad = 0
            for step in range(round(PAST_S / SCRAPED_S)):
                came = round(RPS * SCRAPED_S / 3)
                total, bad = total + came, bad + sum(chance.random() < float(USUAL) for _ in range(came))
                at = end - PAST_S + step * SCRAPED_S
                yield "agent_requests_total", labels, total, at
                yield "agent_errors_total", labels, bad, at


@pytest.fixture(scope="module")
def ended(
    plane: ControlPlane, account: Path, exporter: Exporter, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, End | Exception]]:
    """All plays, played to one service."""
    directory = tmp_path_factory.mktemp("prometheus-with-a-past")
    past.write(directory, before())
    scenarios.prepare(plane, PLAYS, records=RECORDS)
    with PrometheusServer(directory, exporter=exporter) as prometheus:
        service = Service(
            tmp_path_factory.mktemp("sequential"),
            kubeconfig=account,
            policies=scenarios.policies(PLAYS),
            prometheus=prometheus.url,
            records=RECORDS,
        )
        with service:
            yield scenarios.play_all(plane, service, exporter, prometheus, PLAYS, records=RECORDS)
    scenarios.clear(plane, PLAYS, records=RECORDS)


@pytest.fixture
def played(ended: dict[str, End | Exception]) -> Callable[[Callable[[Scene], None]], End]:
    """Give the facts after a play."""

    def give(play: Callable[[Scene], None]) -> End:
        end = ended[play.__name__]
        if isinstance(end, Exception):
            raise end
        return end

    return give


Played = Callable[[Callable[[Scene], None]], End]


def stands(end: End, name: str = "web") -> dict[Control, EvidenceStatus]:
    """Where the controls stood."""
    return {Control(each.control): each for each in end.record(2, name).evidence["errors"]}


@pytest.mark.parametrize("play", [three_replicas, ten_replicas])
def test_one_failure_in_ten_is_undone_in_a_rolling_update(played: Played, play: Callable[[Scene], None]) -> None:
    end = played(play)
    record = end.record()
    assert (record.outcome, end.image()) == (Outcome.RECOVERED, "v1"), record.detail
    assert record.plan
    assert record.plan.cause == "sequential"
    spoke = [each for each in stands(end).values() if each.reached is not None]
    assert spoke
    assert all(each.log_e >= each.reached for each in spoke if each.reached is not None)
    assert end.mark("condemned", "v2") == record.id


def test_one_failure_in_ten_of_a_canary_takes_its_pods_away(played: Played) -> None:
    end = played(canary_beside)
    record = end.record(name="web-canary")
    assert record.outcome is Outcome.RECOVERED, record.detail
    assert record.plan
    assert record.plan.cause == "sequential"
    assert (end.deployments["web-canary"]["spec"]["replicas"], end.image("web-canary")) == (0, "v2")
    assert (end.deployments["web"]["spec"]["replicas"], end.image("web")) == (9, "v1")
    [stand] = stands(end, "web-canary").values()
    assert stand.control == Control.CONCURRENT
    assert stand.log_e >= stand.bar


def test_an_outage_of_both_tracks_leaves_the_canary_alone(played: Played) -> None:
    end = played(upstream_outage)
    record = end.record(name="web-canary")
    assert record.outcome in (Outcome.PASSED, Outcome.UNJUDGED), record.detail
    assert [each.status for each in record.verdicts if each.status == "breach"] == []
    assert "deployments" not in end.writes
    assert end.deployments["web-canary"]["spec"]["replicas"] == 1
    [stand] = stands(end, "web-canary").values()
    assert stand.log_e < stand.bar
    failed = [block for block in record.blocks["errors"] if block.candidate.ratio > 0.1 and block.stable.ratio > 0.1]
    assert len(failed) >= 5, "the outage was seen"


def test_counters_of_two_workers_behind_one_port_make_it_blind(played: Played) -> None:
    end = played(two_workers)
    record = end.record()
    assert record.outcome is Outcome.UNJUDGED, record.detail
    assert {each.cause for each in record.verdicts} >= {BlindReason.NOT_MONOTONIC}
    assert "PROMETHEUS_MULTIPROC_DIR" in record.detail
    assert "deployments" not in end.writes
    assert end.image() == "v2"
