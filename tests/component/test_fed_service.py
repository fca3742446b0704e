"""The whole service, with one border fed with whatever bytes can be: a bad rollout beside it is undone in time."""

import asyncio
import copy
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from pathlib import Path

import pytest
from aiohttp import web

from tests.component.fake_api import Json, raw, running
from tests.component.fake_slack import Call, FakeSlack
from tests.component.garbage import garbage
from tests.component.test_alertmanager import ALERTS, SILENCES, STATUS, active, matcher, silence, up
from tests.component.test_borders import ANSWERS, DOCUMENTS, RECORD, SLACK
from tests.component.world import WEB, World
from tests.unit.builders import hash_of, replicaset
from watchdog.alertmanager import Alertmanagers
from watchdog.config import Slack
from watchdog.decide.record import Record
from watchdog.decoding import Malformed, from_json
from watchdog.engine.act import Actor
from watchdog.engine.context import Context, Ports
from watchdog.engine.service import WatchdogService
from watchdog.engine.verify import Patience
from watchdog.judge.blocks import Blind, BlindReason, Reading
from watchdog.kube.reading import decode
from watchdog.metrics import Channel, Metrics
from watchdog.model import Outcome
from watchdog.notify.slack import SlackNotifier
from watchdog.objects import Deployment, LabelSelector, Pod, ReplicaSet, WorkloadRef
from watchdog.ports import AlertSource, Changed, Deleted, Listed, Notifier, SignalQuery
from watchdog.prometheus import HttpAnswer, PrometheusClient, PrometheusSignals
from watchdog.records.form import NoRecord, read, write

IN_TIME_S = 12.0


class Fed(World):
    """A world in which one border gives garbage, beside what the bad rollout needs.

    Attributes:
        alert_source: the Alertmanagers.
        notifier: who is told, instead of this world.
        undone_at: when the bad version was undone, in the loop's time.
    """

    alert_source: AlertSource | None = None
    notifier: Notifier | None = None

    def __init__(self, *, seed: int) -> None:
        super().__init__()
        self.chance = random.Random(seed)
        self.errors = {"bad": 0.3}
        self.deployed_at = self.undone_at = 0.0

    def start(self) -> WatchdogService:
        actor = Actor(self, patience=Patience(request_s=2, observed_s=2, verify_s=10), now=self.now)
        ports = Ports(
            cluster=self,
            store=self,
            actor=actor,
            signals=self,
            alerts=self.alert_source,
            channels={Channel.SLACK: self.notifier or self},
        )
        return WatchdogService(Context(self.config, ports, Metrics(), now=self.now), self)

    async def patch_deployment(self, ref: WorkloadRef, patch: bytes, *, dry_run: bool, timeout_s: float) -> Deployment:
        self.undone_at = self.undone_at or asyncio.get_running_loop().time()
        return await super().patch_deployment(ref, patch, dry_run=dry_run, timeout_s=timeout_s)

    async def _end(self) -> None:
        """Never come back: what is odd may look like an end."""
        await asyncio.Event().wait()

    async def is_undone(self) -> None:
        """Deploy a bad version after a while, and hold the service to what it promises."""

        def deploy() -> None:
            self.deployed_at = asyncio.get_running_loop().time()
            self.deploy("bad")

        asyncio.get_running_loop().call_later(20, deploy)
        await self.live(70)
        bad = [record for record in self.records.values() if record.rollout.hash == hash_of("bad")]
        assert [record.outcome for record in bad if record.workload == WEB] == [Outcome.RECOVERED], self.writes
        assert self.undone_at - self.deployed_at <= IN_TIME_S


class OddNeighbours(Fed):
    """Other Deployments, their ReplicaSets and pods are odd ones, and each is changed every quarter of a second."""

    def _odd(self, name: str) -> Json:
        found = copy.deepcopy(DOCUMENTS[name])
        if name == "deployment":
            found["metadata"] |= {"name": f"other-{self.chance.randrange(5)}", "uid": "other"}
            found["spec"]["selector"] = {"matchLabels": {"app": "other"}}
        return found

    async def watch(self, namespace: str) -> AsyncGenerator[Listed | Changed | Deleted, None]:
        async with aclosing(super().watch(namespace)) as changes:
            yield await anext(changes)
            coming = asyncio.ensure_future(anext(changes))
            try:
                while True:
                    with suppress(Malformed):
                        odd = from_json(garbage(self.chance, self._odd("deployment")), Deployment)
                        if odd.ref != WEB:
                            yield self.chance.choice((Changed, Changed, Deleted))(odd)
                    await asyncio.wait({coming}, timeout=0.25)
                    if coming.done():
                        yield coming.result()
                        coming = asyncio.ensure_future(anext(changes))
            finally:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)

    async def read_past(
        self, query: SignalQuery, *, first: int, last: int, every: int = 1, timeout_s: float
    ) -> tuple[Reading, ...]:
        if "web" in query.workloads or any(pod.startswith("web-") for pod in query.pods):
            return await super().read_past(query, first=first, last=last, every=every, timeout_s=timeout_s)
        blind = Blind(BlindReason.PARTIAL, "nobody counts what the others do")
        return tuple(Reading(step, blind=blind) for step in range(first, last + 1, every))

    async def deployment(self, ref: WorkloadRef, *, timeout_s: float) -> Deployment:
        if ref == WEB:
            return await super().deployment(ref, timeout_s=timeout_s)
        return decode(garbage(self.chance, self._odd("deployment")), Deployment, operation="get")

    async def replicasets(self, namespace: str, selector: LabelSelector, *, timeout_s: float) -> tuple[ReplicaSet, ...]:
        if selector.match_labels == {"app": "web"}:
            return await super().replicasets(namespace, selector, timeout_s=timeout_s)
        odd = replicaset("v2", 2, uid="other")
        return (decode(garbage(self.chance, odd), ReplicaSet, operation="list"),)

    async def pods(self, namespace: str, selector: LabelSelector, *, timeout_s: float) -> tuple[Pod, ...]:
        if selector.match_labels == {"app": "web"}:
            return await super().pods(namespace, selector, timeout_s=timeout_s)
        return (decode(garbage(self.chance, self._odd("pod")), Pod, operation="list"),)


class OddCounters(Fed):
    """Every fourth question to Prometheus gets an odd answer."""

    def __init__(self, *, seed: int) -> None:
        super().__init__(seed=seed)

        async def send(path: str, form: Mapping[str, str], *, timeout_s: float) -> HttpAnswer:
            return HttpAnswer(200, garbage(self.chance, *ANSWERS))

        client = PrometheusClient(
            send, params={}, clock=lambda: self.now().timestamp(), observe=lambda _outcome, _seconds: None
        )
        self.odd = PrometheusSignals(client, step_s=1.0, delay_s=0.0)

    async def read(self, query: SignalQuery, *, step: int, timeout_s: float) -> Reading:
        if self.chance.random() < 0.25:
            return await self.odd.read(query, step=step, timeout_s=timeout_s)
        return await super().read(query, step=step, timeout_s=timeout_s)

    async def bad_seen(self, query: SignalQuery, *, step: int, timeout_s: float) -> bool:
        await self.odd.bad_seen(query, step=step, timeout_s=timeout_s)
        return True


class OddAlerts(Fed):
    """The Alertmanager lists odd alerts, silences and times of its start."""

    def __init__(self, *, seed: int) -> None:
        super().__init__(seed=seed)
        quiet = silence(matcher("alertname", "(a+)+!", regex=True), matcher("namespace", "((a+)+)+!", regex=True))

        async def send(method: str, path: str, timeout_s: float) -> tuple[int, bytes]:
            shown = {ALERTS: [active("A", namespace="shop", deployment="other")], STATUS: up(1000), SILENCES: [quiet]}
            return 200, garbage(self.chance, shown[path.partition("?")[0]])

        self.alert_source = Alertmanagers({"peer": send})


def odd_records(chance: random.Random) -> list[Record]:
    """What can be read of three hundred odd records of another workload."""
    document = from_json(write(RECORD), dict)
    document["rollout"]["workload"]["name"] = "other"
    found = {}
    for _ in range(300):
        try:
            record = read(garbage(chance, document).decode(errors="replace"))
        except NoRecord:
            continue
        if record.workload != WEB:
            found[record.id] = record
    return list(found.values())


@pytest.mark.looptime
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("world", [OddNeighbours, OddCounters, OddAlerts])
async def test_a_bad_version_is_undone_in_time_while_a_border_is_fed(world: type[Fed], seed: int) -> None:
    await world(seed=seed).is_undone()


@pytest.mark.looptime
@pytest.mark.parametrize("seed", range(4))
async def test_a_bad_version_is_undone_in_time_among_odd_records(seed: int) -> None:
    world = Fed(seed=seed)
    world.records.update({record.id: record for record in odd_records(world.chance)})
    await world.is_undone()


@pytest.mark.looptime(noop_cycles=60)
@pytest.mark.parametrize("seed", range(2))
async def test_a_bad_version_is_undone_in_time_whatever_slack_answers(seed: int, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("xoxb-1")
    world, server = Fed(seed=seed), FakeSlack()

    async def odd(_: FakeSlack, __: Call, request: web.Request) -> web.StreamResponse:
        return await raw(garbage(world.chance, *SLACK))(request)

    async with running(server):
        for method in ("chat.postMessage", "chat.update", "conversations.history", "conversations.replies"):
            server.trouble(method, *[odd] * 1000)
        settings = Slack(channel="C0123456789", api_url=f"{server.url}/api/", token_file=str(token))
        world.notifier = notifier = SlackNotifier(settings, approval_s=600)
        try:
            await world.is_undone()
        finally:
            await notifier.close()
    assert server.calls
