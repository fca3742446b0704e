"""A rolling update as it was: pods that came and went, and what each counted, told to a real Prometheus beforehand.

The world plays it to the service in virtual time. The counters are read by the real adapter from the real Prometheus,
whose answers cost no virtual time: only the way there is the world's own, and a call on which the process may die.
"""

import asyncio
import datetime as dt
import http.client
import math
import random
import urllib.parse
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import Any

import msgspec

from tests.component.memory import complete
from tests.component.world import World
from tests.monitoring.past import Sample
from tests.unit.builders import NOW, Json, decoded, hash_of, status
from watchdog.config import Config, parse
from watchdog.decide.record import Record
from watchdog.engine.act import Actor
from watchdog.engine.context import Context, Ports
from watchdog.engine.service import WatchdogService
from watchdog.engine.verify import Patience
from watchdog.metrics import Metrics
from watchdog.objects import Deployment, LabelSelector, Pod
from watchdog.ports import Changed, Deleted, Listed
from watchdog.prometheus import PrometheusClient, PrometheusSignals
from watchdog.prometheus.http import HttpAnswer

STEP_S, DELAY_S = 15, 5
BEGINS_S = 40.0
"""When the version is deployed, in seconds after the service began."""

_SCRAPED_S = 15.0
_SETTINGS = """
[prometheus]
url = "http://prometheus"
step = "15s"
delay = "5s"
[limits]
budget = 0
cool_down = "0s"
breaker = 0
breaker_all = 0
approval = "1d"
[[policies]]
name = "web"
namespaces = ["shop"]
rule = "sequential"
{policy}
[policies.signals.errors]
bad = 'errors_total{{world="{world}"}}'
total = 'requests_total{{world="{world}"}}'
"""


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """One pod; times in seconds after the service began.

    Args:
        version: what it runs.
        suffix: the five characters behind its ReplicaSet's name.
        created: when.
        ready: when it was first Ready; it then takes traffic.
        deleted: when it was told to end.
        ended: when it was gone.
        restarts: when its container began anew.
        rps: requests per second.
    """

    version: str
    suffix: str
    created: float
    ready: float
    deleted: float = math.inf
    ended: float = math.inf
    restarts: tuple[float, ...] = ()
    rps: float

    @property
    def name(self) -> str:
        """The pod's name."""
        return f"web-{hash_of(self.version)}-{self.suffix}"


Share = Callable[[Life, float], float]
"""The share of a pod's requests that fail at a time."""


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """A rolling update.

    Args:
        name: of the world; a label of its series.
        pods: all that ever were.
        share: what fails.
        completed: when the rollout was complete.
        until: when the story ends.
        since: when Prometheus first scraped.
        policy: its settings; nobody acts, so that all goes on, unless they say so.
    """

    name: str
    pods: tuple[Life, ...]
    share: Share
    completed: float
    until: float = 900.0
    since: float = -5400.0
    policy: str = 'mode = "approve"\nbake = "1h"'

    def samples(self) -> Iterator[Sample]:
        """What Prometheus scraped: each pod from its creation to its end, at an offset of its own."""
        for pod in self.pods:
            yield from self._scraped(pod, random.Random(f"{self.name}/{pod.name}"))

    def _scraped(self, pod: Life, chance: random.Random) -> Iterator[Sample]:
        labels = {"world": self.name, "namespace": "shop", "pod": pod.name, "container": "web", "job": "pods"}
        labels["instance"] = f"{pod.suffix}:8080"
        total, bad, shown = 0, 0, pod.version == "good"
        began, counted = pod.ready, pod.ready
        at = self.since + chance.uniform(0, _SCRAPED_S)
        while at < min(self.until, pod.ended):
            if at > pod.created:
                for restart in pod.restarts:
                    if began < restart <= at:
                        began = counted = restart
                        total = bad = 0
                came = max(0, int(pod.rps * (at - began)) - int(pod.rps * (counted - began)))
                total += came
                bad += sum(chance.random() < self.share(pod, at) for _ in range(came))
                counted = max(at, began)
                time = NOW.timestamp() + at
                yield "requests_total", labels, total, time
                shown = shown or bad > 0
                if shown:  # the series appears with the first failure
                    yield "errors_total", labels, bad, time
            at += _SCRAPED_S


def update(
    name: str,
    *,
    replicas: int,
    rps: float,
    share: Share,
    gap_s: float = 40.0,
    restarts: bool = True,
    seed: int = 0,
) -> Story:
    """A rolling update, pod by pod: the next old pod goes when the next new one is Ready.

    Args:
        name: of the world.
        replicas: how many.
        rps: requests per second of each pod.
        share: what fails.
        gap_s: from one new pod to the next.
        restarts: a container of the last old pod and one of the first new pod begin anew, and a new pod is evicted.
        seed: of the times.
    """
    chance = random.Random(seed)
    letters = "bcdfghjklmnpqrstvwxz2456789"

    def suffix() -> str:
        return "".join(chance.choices(letters, k=5))

    old, new = [], []
    ready = BEGINS_S
    for index in range(replicas):
        created = BEGINS_S + 1 + index * gap_s + chance.uniform(0, 5)
        ready = created + chance.uniform(3, 20)
        deleted = ready + chance.uniform(0.5, 3)
        last = restarts and index == replicas - 1
        old.append(
            Life(
                version="good",
                suffix=suffix(),
                created=-5500.0,
                ready=-5490.0,
                deleted=deleted,
                ended=deleted + chance.uniform(5, 30),
                restarts=(BEGINS_S + chance.uniform(2, 19),) if last else (),
                rps=rps,
            )
        )
        anew = (ready + chance.uniform(300, 400),) if restarts and index == 0 else ()
        new.append(Life(version="bad", suffix=suffix(), created=created, ready=ready, restarts=anew, rps=rps))
    completed = max(pod.ended for pod in old)
    if restarts:
        leaves = completed + chance.uniform(120, 240)
        evicted = new.pop()
        new.append(msgspec.structs.replace(evicted, deleted=leaves, ended=leaves + chance.uniform(5, 30)))
        new.append(Life(version="bad", suffix=suffix(), created=leaves + 1, ready=leaves + 9, rps=rps))
    return Story(name=name, pods=(*old, *new), share=share, completed=completed)


class RollingWorld(World):
    """The world of one story; its process may die on any call to the outside.

    Args:
        story: what happens.
        prometheus: URL of the Prometheus that was told of it.

    Attributes:
        crossings: calls to the outside so far.
        die_at: the call on which the process dies; None for never.
    """

    def __init__(self, story: Story, prometheus: str) -> None:
        super().__init__()
        self.config: Config = parse(_SETTINGS.format(world=story.name, policy=story.policy))
        self.story = story
        self.crossings = 0
        self.die_at: int | None = None
        self._way = http.client.HTTPConnection(prometheus.removeprefix("http://"), timeout=10)
        self._changed = asyncio.Condition()
        self._changes = 0

    def close(self) -> None:
        """Close the way to Prometheus."""
        self._way.close()

    @property
    def at(self) -> float:
        """Seconds since the service first began."""
        return (self.now() - NOW).total_seconds()

    # -- what happens --------------------------------------------------------------------------------------------------

    async def play(self) -> None:
        """Have the version deployed and the rollout completed in time."""
        await self._until(BEGINS_S)
        self.deploy("bad")
        generation = self.scene.deployment["metadata"]["generation"]
        self.scene.deployment["status"] = status(generation=generation, replicas=4, updated=1, available=3)
        await self._tell()
        await self._until(self.story.completed)
        complete(self.scene, revision=2)
        self.scene.deployment["status"]["conditions"] = [
            {"type": "Progressing", "status": "True", "lastUpdateTime": _text(self.now())}
        ]
        await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changes += 1
            self._changed.notify_all()

    async def _until(self, at: float) -> None:
        await asyncio.sleep(at - self.at)

    def start(self) -> WatchdogService:
        """A process of the service in this world."""
        client = PrometheusClient(
            self._send, params={}, clock=lambda: dt.datetime.now(dt.UTC).timestamp(), observe=lambda *_: None
        )
        signals = PrometheusSignals(client, step_s=STEP_S, delay_s=DELAY_S)
        actor = Actor(self, patience=Patience(request_s=2, observed_s=2, verify_s=10), now=self.now)
        ports = Ports(cluster=self, store=self, actor=actor, signals=signals, alerts=None, channels={})
        return WatchdogService(Context(self.config, ports, Metrics(), now=self.now), self)

    async def outside(self) -> None:
        """A call to the outside, on which the process may die."""
        await self._alive()
        self.crossings += 1
        if self.crossings == self.die_at:
            self.dead.set()
        await self._alive()

    # -- the ports -----------------------------------------------------------------------------------------------------

    async def _send(self, path: str, form: Mapping[str, str], *, timeout_s: float) -> HttpAnswer:
        await self.outside()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        self._way.request("POST", path, urllib.parse.urlencode(form), headers)  # blocks, and so takes no virtual time
        with self._way.getresponse() as answer:
            return HttpAnswer(answer.status, answer.read(), answer.headers.get("Date", ""))

    async def watch(self, namespace: str) -> AsyncGenerator[Listed | Changed | Deleted, None]:
        """The fleet port, which wakes nobody before something has changed: waking is what virtual time costs."""
        yield Listed((decoded(self.scene.deployment, Deployment),))
        seen = self._changes
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda seen=seen: self._changes > seen)  # type: ignore[misc]
            seen = self._changes
            yield Changed(decoded(self.scene.deployment, Deployment))

    async def _called(self, method: str) -> None:
        await self.outside()
        await super()._called(method)

    async def pods(self, namespace: str, selector: LabelSelector, *, timeout_s: float) -> tuple[Pod, ...]:
        await self.outside()
        uids = {item.metadata.name: item.metadata.uid for item in self.scene.snapshot.replicasets}
        there = [pod for pod in self.story.pods if pod.created <= self.at < pod.ended]
        return tuple(decoded(self._document(pod, uids), Pod) for pod in there if pod.name[:-6] in uids)

    def _document(self, pod: Life, uids: Mapping[str, str]) -> Json:
        at, owner = self.at, pod.name[:-6]
        restarts = [restart for restart in pod.restarts if restart <= at]
        ready: Json = {"type": "Ready", "status": "False"}
        if at >= pod.ready:
            since = max([pod.ready, *restarts])
            ready = {"type": "Ready", "status": "True", "lastTransitionTime": _stamp(since)}
        container: dict[str, Any] = {"name": "web", "imageID": "", "restartCount": len(restarts)}
        if restarts:
            container["lastState"] = {"terminated": {"exitCode": 1, "finishedAt": _stamp(restarts[-1])}}
        metadata: Json = {
            "name": pod.name,
            "namespace": "shop",
            "uid": pod.name,
            "creationTimestamp": _stamp(pod.created),
            "ownerReferences": [{"uid": uids[owner], "controller": True, "kind": "ReplicaSet", "name": owner}],
        }
        if at >= pod.deleted:
            metadata |= {"deletionTimestamp": _stamp(pod.deleted + 30), "deletionGracePeriodSeconds": 30}
        return {
            "metadata": metadata,
            "status": {"phase": "Running", "conditions": [ready], "containerStatuses": [container]},
        }

    async def save(self, record: Record, *, timeout_s: float) -> None:
        await self.outside()
        await super().save(record, timeout_s=timeout_s)
        await self.outside()


def _stamp(at: float) -> str:
    return _text(NOW + dt.timedelta(seconds=at))


def _text(at: dt.datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"
