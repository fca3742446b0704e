"""A town in memory: many Deployments with their controllers, counters, records and messages, and how slow each may be.

Time is virtual, so that an hour of thirty rollouts takes seconds, and what is waited for can be told exactly. As over
the wire, every answer is decoded anew: nothing that the service keeps of one is shared with the next.
"""

import asyncio
import datetime as dt
import math
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec

from tests.component.memory import MemoryCluster
from tests.unit.builders import NOW, Json, hash_of, history, replicaset, status
from watchdog.config import Config
from watchdog.decide.record import Notified, Record, State
from watchdog.engine.act import Actor
from watchdog.engine.context import Context, Ports
from watchdog.engine.service import WatchdogService
from watchdog.engine.verify import Patience
from watchdog.errors import NotFound, Unanswered
from watchdog.judge.blocks import Blind, BlindReason, Reading, Sample, ScrapeTarget
from watchdog.metrics import Channel, Metrics
from watchdog.model import Event, IncidentId, Silence
from watchdog.objects import REVISION, Autoscaler, Deployment, LabelSelector, Pod, ReplicaSet, WorkloadRef
from watchdog.ports import AlertView, Changed, Deleted, Listed, SignalQuery
from watchdog.records import form
from watchdog.records.store import expendable

T = TypeVar("T")

HANGS = math.inf
"""Seconds after which something answers that never does."""

_ROUND_TRIP_S = 0.01
_AT_ONCE = 100
_READY_S = 2.0


class Version(msgspec.Struct):
    """What was deployed, since when, and until when its pods live."""

    name: str
    born: float
    gone: float = math.inf

    @property
    def ready(self) -> float:
        """When its pods are Ready, and count."""
        return self.born + _READY_S


class House:
    """One Deployment and its controller, which replaces all pods and keeps the old ones for a while beside the new.

    Attributes:
        versions: those that still count, by name; the name is the tag of the image.
        deployed: the newest ten, in order.
        shares: share of requests that fail, and since when, by version.
        rps: requests per second of each pod.
    """

    def __init__(self, ref: WorkloadRef, *, pods: int, born: float, overlap_s: float) -> None:
        self.scene = history("v1", replicas=pods)
        self.cluster = MemoryCluster(self.scene)
        self.ref = ref
        self.deployed = [Version("v1", born)]
        self.versions = {"v1": self.deployed[0]}
        self.shares: dict[str, tuple[float, float]] = {}
        self.rps = 10.0
        self.wrote: float | None = None
        self.overlap_s = overlap_s
        self._pods = pods
        self._numbers = {"v1": 1}
        self._pods_json: dict[str, bytes] = {}
        document = self.scene.deployment
        document["metadata"] |= {"name": ref.name, "namespace": ref.namespace, "uid": f"uid-of-{ref}"}
        document["spec"]["selector"] = {"matchLabels": {"app": ref.name}}
        self.scene.replicasets = [self._replicaset("v1", born)]
        self._complete("v1", born)

    def deploy(self, version: str, *, now: float) -> None:
        """Somebody deploys a version."""
        self.scene.deploy(version)
        self.control(now=now)

    def control(self, *, now: float) -> None:
        """Take the template up that is live: the new pods are there at once, and the old ones for a while yet."""
        version = str(self.scene.spec["template"]["spec"]["containers"][0]["image"]).rpartition(":")[2]
        number = max(self._numbers.values()) + 1
        self._numbers[version] = number
        if not any(item["metadata"]["name"] == self._owner(version) for item in self.scene.replicasets):
            self.scene.replicasets.append(self._replicaset(version, now))
        for name in [name for name, each in self.versions.items() if each.gone < now - 600]:
            del self.versions[name]  # scraped by nobody any more
        for each in self.versions.values():
            each.gone = min(each.gone, now + self.overlap_s)
        self.versions[version] = Version(version, now)
        self.deployed = [*self.deployed[-9:], self.versions[version]]
        self._pods_json.pop(version, None)
        self._number(version)
        generation = self.scene.deployment["metadata"]["generation"]
        total = self._pods * len([each for each in self.versions.values() if each.gone > now])
        self.scene.deployment["status"] = status(
            generation=generation, replicas=total, updated=self._pods, available=self._pods
        ) | _progressing(now)
        while len(self.scene.replicasets) > 10:
            self.scene.replicasets.pop(0)

    def settle(self, *, now: float) -> bool:
        """Finish the rollout, and say whether there was one to finish."""
        version = max(self._numbers, key=lambda name: self._numbers[name])
        before = self.scene.deployment["status"]["replicas"]
        self._complete(version, now)
        return bool(self.scene.deployment["status"]["replicas"] != before)

    def alive(self, now: float) -> list[Version]:
        """The versions that have pods."""
        return [each for each in self.versions.values() if each.gone > now]

    def pods(self, now: float) -> tuple[Pod, ...]:
        """Its pods, as the API server shows them."""
        texts = [self._pods_json.get(each.name) or self._pods_text(each) for each in self.alive(now)]
        return tuple(pod for text in texts for pod in msgspec.json.decode(text, type=tuple[Pod, ...]))

    def samples(self, now: float) -> list[Sample]:
        """What its pods count by now."""
        found = []
        for each in self.alive(now):
            ready = each.ready
            if now < ready:
                continue
            share, since = self.shares.get(each.name, (0.0, 0.0))
            total = math.floor(self.rps * (now - ready))
            bad = math.floor(share * self.rps * max(0.0, now - max(since, ready)))
            for index, name in enumerate(self.names(each)):
                row = ScrapeTarget(self.ref.namespace, name, "web", f"10.0.0.{index}:8080", "pods")
                found.append(Sample(row, float(total), float(bad), now))
        return found

    def names(self, version: Version) -> list[str]:
        """The names of a version's pods."""
        return [f"{self._owner(version.name)}-{index:05}" for index in range(self._pods)]

    def _pods_text(self, version: Version) -> bytes:
        owner = self._owner(version.name)
        at, ready = (stamp(each) for each in (version.born, version.ready))
        found = msgspec.json.encode([_pod(self.ref, owner, at, ready, index) for index in range(self._pods)])
        self._pods_json[version.name] = found
        return found

    def _complete(self, version: str, now: float) -> None:
        self._number(version)
        generation = self.scene.deployment["metadata"]["generation"]
        number = self._pods
        self.scene.deployment["status"] = status(
            generation=generation, replicas=number, updated=number, available=number
        ) | _progressing(now)

    def _number(self, version: str) -> None:
        number = str(self._numbers[version])
        self.scene.annotations[REVISION] = number
        mine = self._owner(version)
        for item in self.scene.replicasets:
            if item["metadata"]["name"] == mine:
                item["metadata"]["annotations"][REVISION] = number

    def _owner(self, version: str) -> str:
        return f"{self.ref.name}-{hash_of(version)}"

    def _replicaset(self, version: str, born: float) -> Json:
        document = replicaset(version, 1, replicas=self._pods, uid=f"uid-of-{self.ref}")
        owner = self._owner(version)
        document["metadata"] |= {"name": owner, "namespace": self.ref.namespace, "uid": f"uid-of-{owner}"}
        document["metadata"]["creationTimestamp"] = stamp(born)
        document["metadata"]["labels"]["app"] = self.ref.name
        return document


class Town:
    """All ports of the service over many houses.

    Attributes:
        houses: the Deployments.
        slow: seconds that an operation takes beside a round trip, by its name: `save`, `tell`, `alerts`, `silences`,
            `event`, `pods NAMESPACE`, `read METRIC` (the metric of `total`).
        calls: how many requests of each kind the API server got.
        refused: how many it did not answer in time.
        texts: what the store holds, as text.
    """

    def __init__(self, config: Config, *, round_trip_s: float = _ROUND_TRIP_S) -> None:
        self.config = config
        self.houses: dict[WorkloadRef, House] = {}
        self._by_namespace: dict[str, list[House]] = defaultdict(list)
        self.slow: dict[str, float] = {}
        self.calls: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.texts: dict[str, str] = {}
        self._round_trip_s = round_trip_s
        self._changes: dict[str, asyncio.Queue[WorkloadRef]] = {}
        self._server = asyncio.Semaphore(_AT_ONCE)
        self._epoch = asyncio.get_running_loop().time()
        self._events: set[str] = set()

    # -- what happens --------------------------------------------------------------------------------------------------

    def now(self) -> dt.datetime:
        """The wall clock, in virtual time."""
        return NOW + dt.timedelta(seconds=asyncio.get_running_loop().time() - self._epoch)

    @property
    def seconds(self) -> float:
        """The same in seconds since the epoch."""
        return self.now().timestamp()

    def build(
        self, namespace: str, name: str, *, pods: int = 10, overlap_s: float = 30.0, age_s: float = 86_400.0
    ) -> House:
        """Put a Deployment into the town whose only version has been live for some time."""
        ref = WorkloadRef(namespace, name)
        house = House(ref, pods=pods, born=self.seconds - age_s, overlap_s=overlap_s)
        self.houses[ref] = house
        self._by_namespace[namespace].append(house)
        return house

    def deploy(self, house: House, version: str) -> None:
        """Somebody deploys a version."""
        house.deploy(version, now=self.seconds)
        self._moved(house)

    def _moved(self, house: House) -> None:
        self._changed(house.ref)
        asyncio.get_running_loop().call_later(house.overlap_s + 0.001, self._settled, house)

    def _settled(self, house: House) -> None:
        if len(house.alive(self.seconds)) == 1 and house.settle(now=self.seconds):
            self._changed(house.ref)

    def _changed(self, ref: WorkloadRef) -> None:
        self._changes.setdefault(ref.namespace, asyncio.Queue()).put_nowait(ref)

    @asynccontextmanager
    async def served(self) -> AsyncIterator[WatchdogService]:
        """Have a process of the service in this town."""
        patience = Patience(request_s=10, observed_s=10, verify_s=300)
        actor = Actor(self, patience=patience, now=self.now)
        ports = Ports(cluster=self, store=self, actor=actor, signals=self, alerts=self, channels={Channel.SLACK: self})
        service = WatchdogService(Context(self.config, ports, Metrics(), now=self.now), self)
        task = asyncio.create_task(service.run())
        try:
            yield service
            if task.done():
                await task
        finally:
            task.cancel()
            await asyncio.wait({task})

    # -- how long it takes ---------------------------------------------------------------------------------------------

    async def _asked(self, kind: str, *, timeout_s: float, slow: str = "") -> None:
        """Have the API server answer: so many requests at once, each of one round trip, and what is slow beside it."""
        self.calls[kind] += 1
        try:
            async with asyncio.timeout(timeout_s):
                async with self._server:
                    await asyncio.sleep(self._round_trip_s)
                await self._waits(slow)
        except TimeoutError as error:
            self.refused[kind] += 1
            raise Unanswered(kind, f"no answer within {timeout_s:g} s") from error

    async def _waits(self, slow: str) -> None:
        seconds = self.slow.get(slow, 0.0)
        await (asyncio.Event().wait() if seconds == HANGS else asyncio.sleep(seconds))

    # -- the cluster ---------------------------------------------------------------------------------------------------

    async def deployment(self, ref: WorkloadRef, *, timeout_s: float) -> Deployment:
        await self._asked("get deployment", timeout_s=timeout_s)
        return _as(self._house(ref).scene.deployment, Deployment)

    async def replicasets(self, namespace: str, selector: LabelSelector, *, timeout_s: float) -> tuple[ReplicaSet, ...]:
        await self._asked("list replicasets", timeout_s=timeout_s)
        found = [item for house in self._selected(namespace, selector) for item in house.scene.replicasets]
        return _as(found, tuple[ReplicaSet, ...])

    async def pods(self, namespace: str, selector: LabelSelector, *, timeout_s: float) -> tuple[Pod, ...]:
        await self._asked("list pods", timeout_s=timeout_s, slow=f"pods {namespace}")
        return tuple(pod for house in self._selected(namespace, selector) for pod in house.pods(self.seconds))

    def _selected(self, namespace: str, selector: LabelSelector) -> list[House]:
        """The houses whose objects a selector finds: all of a namespace, or one."""
        app = selector.match_labels.get("app")
        found = [self.houses.get(WorkloadRef(namespace, app))] if app else self._by_namespace.get(namespace, [])
        return [house for house in found if house]

    async def autoscalers(self, namespace: str, *, timeout_s: float) -> tuple[Autoscaler, ...]:
        await self._asked("list autoscalers", timeout_s=timeout_s)
        return ()

    async def patch_deployment(self, ref: WorkloadRef, patch: bytes, *, dry_run: bool, timeout_s: float) -> Deployment:
        await self._asked("patch deployment", timeout_s=timeout_s)
        house = self._house(ref)
        found = await house.cluster.patch_deployment(ref, patch, dry_run=dry_run, timeout_s=timeout_s)
        if not dry_run and b"/metadata/managedFields/" not in patch:
            house.wrote = house.wrote or self.seconds
            house.control(now=self.seconds)
            self._moved(house)
        return found

    async def patch_replicaset(self, namespace: str, name: str, patch: bytes, *, timeout_s: float) -> None:
        await self._asked("patch replicaset", timeout_s=timeout_s)
        house = self._house(WorkloadRef(namespace, name.rpartition("-")[0]))
        await house.cluster.patch_replicaset(namespace, name, patch, timeout_s=timeout_s)

    async def post_event(self, event: Event, *, timeout_s: float) -> None:
        await self._asked("post event", timeout_s=timeout_s, slow="event")

    async def follow(self, ref: WorkloadRef) -> AsyncGenerator[Deployment | None, None]:
        while True:
            yield _as(self._house(ref).scene.deployment, Deployment)
            await asyncio.sleep(1)

    async def watch(self, namespace: str) -> AsyncGenerator[Listed | Changed | Deleted, None]:
        """The port Fleet."""
        changes = self._changes.setdefault(namespace, asyncio.Queue())
        mine = self._by_namespace.get(namespace, [])
        yield Listed(tuple(_as(house.scene.deployment, Deployment) for house in mine))
        while True:
            yield Changed(_as(self._house(await changes.get()).scene.deployment, Deployment))

    def _house(self, ref: WorkloadRef) -> House:
        if ref not in self.houses:
            raise NotFound("get deployment", f"there is no {ref}")
        return self.houses[ref]

    # -- counters ------------------------------------------------------------------------------------------------------

    async def read(self, query: SignalQuery, *, step: int, timeout_s: float) -> Reading:
        self.calls["read"] += 1
        try:
            async with asyncio.timeout(timeout_s):
                await self._waits(f"read {query.total}")
        except TimeoutError:
            return Reading(step, blind=Blind(BlindReason.UNREACHABLE, f"no answer within {timeout_s:g} s"))
        return self.reading(query, step)

    def reading(self, query: SignalQuery, step: int) -> Reading:
        """Give what Prometheus has of a step, without a wait."""
        at = step * self.config.step_s
        pods, workloads = frozenset(query.pods), frozenset(query.workloads)
        found = [
            sample
            for namespace in query.namespaces
            for house in self._by_namespace.get(namespace, [])
            for sample in house.samples(at)
            if not pods or sample.row.pod in pods or house.ref.name in workloads
        ]
        return Reading(step, tuple(found))

    async def read_past(
        self, query: SignalQuery, *, first: int, last: int, every: int = 1, timeout_s: float
    ) -> tuple[Reading, ...]:
        """Steps since the town began; what was before is not known."""
        self.calls["read"] += 1
        wanted = range(first, last + 1, every)
        begin = NOW.timestamp() / self.config.step_s
        unknown = Blind(BlindReason.UNREACHABLE, "nothing is kept of that time")
        try:
            async with asyncio.timeout(timeout_s):
                await self._waits(f"read {query.total}")
        except TimeoutError:
            unknown, begin = Blind(BlindReason.UNREACHABLE, f"no answer within {timeout_s:g} s"), math.inf
        return tuple(self.reading(query, step) if step >= begin else Reading(step, blind=unknown) for step in wanted)

    async def resets(
        self, query: SignalQuery, *, step: int, window_s: float, timeout_s: float
    ) -> Mapping[ScrapeTarget, float]:
        self.calls["read"] += 1
        return {}

    async def bad_seen(self, query: SignalQuery, *, step: int, timeout_s: float) -> bool:
        self.calls["read"] += 1
        return True

    async def onset(self, labels: Mapping[str, str], *, at: float, timeout_s: float) -> float | None:
        return None

    # -- alerts, records and messages ----------------------------------------------------------------------------------

    async def alerts(self, *, timeout_s: float) -> AlertView:
        try:
            async with asyncio.timeout(timeout_s):
                await self._waits("alerts")
        except TimeoutError:
            return AlertView((), unreachable=("http://alertmanager",))
        return AlertView((), trustworthy=True)

    async def silences(self, *, timeout_s: float) -> tuple[Silence, ...] | None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._waits("silences")
        except TimeoutError:
            return None
        return ()

    async def all(self, *, timeout_s: float) -> tuple[Record, ...]:
        return tuple(form.read(text) for text in self.texts.values())

    async def get(self, incident: IncidentId, *, timeout_s: float) -> Record | None:
        text = self.texts.get(incident)
        return form.read(text) if text else None

    async def save(self, record: Record, *, timeout_s: float) -> None:
        await self._asked("save record", timeout_s=timeout_s, slow="save")
        self.texts[record.id] = form.write(record)

    async def prune(self, records: Sequence[Record], *, timeout_s: float) -> tuple[IncidentId, ...]:
        gone = expendable(records, now=self.now())
        for record in gone:
            self.texts.pop(record.id, None)
        return tuple(record.id for record in gone)

    async def tell(self, record: Record) -> Notified | None:
        """Keep one message per incident, as the real notifier does."""
        await self._waits("tell")
        if record.state is State.WATCHING:
            return record.notified
        return Notified("C1", record.id, f"{record.state} {record.outcome or ''}")


def stamp(seconds: float) -> str:
    """Write a time as the API server does."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _as(document: object, kind: type[T]) -> T:
    return msgspec.json.decode(msgspec.json.encode(document), type=kind)


def _progressing(now: float) -> Json:
    condition = {
        "type": "Progressing",
        "status": "True",
        "reason": "NewReplicaSetAvailable",
        "lastUpdateTime": stamp(now),
    }
    return {"conditions": [condition]}


def _pod(ref: WorkloadRef, owner: str, at: str, ready: str, index: int) -> Json:
    return {
        "metadata": {
            "name": f"{owner}-{index:05}",
            "namespace": ref.namespace,
            "uid": f"{owner}-{index}-{at}",
            "creationTimestamp": at,
            "labels": {"app": ref.name},
            "ownerReferences": [{"uid": f"uid-of-{owner}", "controller": True, "kind": "ReplicaSet", "name": owner}],
        },
        "spec": {"nodeName": f"node-{index}"},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": ready}],
            "containerStatuses": [{"name": "web", "imageID": ""}],
        },
    }
