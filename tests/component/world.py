"""A whole world in memory for the service: one Deployment with its controller, counters, records and messages.

Everything here outlives the service, which may be killed after any write and begun anew. How the real parts behave is
for tests/cluster; what is tested here is what no real part can be brought to on demand: a death at every single write.
"""

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator, Mapping, Sequence

import msgspec

from tests.component.memory import MemoryCluster, complete
from tests.component.mortal import Mortal
from tests.unit.builders import NOW, Json, decoded, hash_of, history, replicaset
from watchdog.config import Config, parse
from watchdog.decide import templates
from watchdog.decide.record import Notified, Record, State
from watchdog.engine.act import Actor
from watchdog.engine.context import Context, Ports
from watchdog.engine.service import WatchdogService
from watchdog.engine.verify import Patience
from watchdog.errors import Unanswered
from watchdog.judge.blocks import Reading, Sample, ScrapeTarget
from watchdog.metrics import Channel, Metrics
from watchdog.model import Event, IncidentId
from watchdog.objects import Deployment, LabelSelector, Pod, WorkloadRef
from watchdog.ports import Changed, Deleted, Listed, SignalQuery

WEB = WorkloadRef("shop", "web")
RPS = 50.0

SETTINGS = """
[prometheus]
url = "http://prometheus"
step = "1s"
[limits]
budget = 0
cool_down = "0s"
breaker = 0
breaker_all = 0
recovery = "8s"
approval = "20s"
[[policies]]
name = "web"
namespaces = ["shop"]
rule = "{rule}"
grace = "0s"
bake = "10s"
{policy}
[policies.threshold]
window = "3s"
[policies.signals.errors]
bad = "errors_total"
total = "requests_total"
"""


class World(Mortal, MemoryCluster):
    """The cluster port, with a controller that finishes rollouts, and all other ports of the service.

    Attributes:
        records: what the store holds.
        said: what Slack shows, one text per message.
        errors: share of failed requests by version, or by version and pod, as in `bad-0`.
        stays: old pods go on beside the new ones.
        traffic: requests per second and pod, by version, where it is not `RPS`.
        failing: a further share, and since when, in seconds, by version.
        neighbours: other Deployments, with the share of their requests that fail, and since when.
        firing: since when alerts about `web` fire.
        service: the process that lives now.
    """

    service: WatchdogService | None = None

    def __init__(
        self,
        *,
        policy: str = 'mode = "enforce"',
        rule: str = "threshold",
        age: dt.timedelta = dt.timedelta(hours=1),
        die_after: int | None = None,
    ) -> None:
        super().__init__(history("good", replicas=3))
        complete(self.scene, revision=1)
        self.config: Config = parse(SETTINGS.format(policy=policy, rule=rule))
        self.records: dict[IncidentId, Record] = {}
        self.said: list[tuple[IncidentId, list[str]]] = []
        self.errors: dict[str, float] = {}
        self.stays = False
        self.traffic: dict[str, float] = {}
        self.failing: dict[str, tuple[float, float]] = {}
        self.neighbours: dict[str, tuple[float, float]] = {}
        self.firing: dt.datetime | None = None
        self.mortal(die_after)
        self._born: dict[str, dt.datetime] = {f"web-{hash_of('good')}": NOW - age}
        self._gone: dict[str, float] = {}
        self._epoch = asyncio.get_running_loop().time()

    def now(self) -> dt.datetime:
        """The wall clock, in virtual time."""
        return NOW + dt.timedelta(seconds=asyncio.get_running_loop().time() - self._epoch)

    # -- what happens --------------------------------------------------------------------------------------------------

    def deploy(self, version: str) -> None:
        """Somebody deploys a version; the controller finishes it at once."""
        self.scene.deploy(version)
        self._control()

    def _control(self) -> None:
        live = self.scene.snapshot.deployment.spec.template
        sets = self.scene.snapshot.replicasets
        newest = max(item.revision or 0 for item in sets)
        found = next((item for item in sets if templates.same(item.spec.template, live)), None)
        if found is None:
            version = str(self.scene.spec["template"]["spec"]["containers"][0]["image"]).rpartition(":")[2]
            document = replicaset(version, newest + 1)
            if any(item.hash == hash_of(version) for item in sets):  # admission has made another template of it
                document = replicaset("fix", newest + 1)
                document["spec"]["template"] = msgspec.json.decode(msgspec.json.encode(self.scene.spec["template"]))
            document["metadata"]["creationTimestamp"] = self.now().strftime("%Y-%m-%dT%H:%M:%SZ")
            self.scene.replicasets.append(document)
            self._born[document["metadata"]["name"]] = self.now()
            revision = newest + 1
        else:
            revision = found.revision or 0
            if revision < newest:
                revision = newest + 1
                self._born[found.metadata.name] = self.now()
        for item in self.scene.snapshot.replicasets:
            if templates.same(item.spec.template, live):
                self._gone.pop(item.metadata.name, None)
            elif not self.stays:
                self._gone.setdefault(item.metadata.name, self.now().timestamp())
        complete(self.scene, revision=revision)

    def start(self) -> WatchdogService:
        """A process of the service in this world."""
        patience = Patience(request_s=2, observed_s=2, verify_s=10)
        actor = Actor(self, patience=patience, now=self.now)
        ports = Ports(cluster=self, store=self, actor=actor, signals=self, alerts=None, channels={Channel.SLACK: self})
        return WatchdogService(Context(self.config, ports, Metrics(), now=self.now), self)

    async def live(self, seconds: float) -> None:
        """Let a process run for some time, or until it dies."""
        self.service = self.start()
        await self.lives(self.service.run(), seconds=seconds, end=self._end())
        self.service = None

    async def _end(self) -> None:
        """Come back when the service has died, or all is said and done for some seconds."""
        quiet = 0
        while not self.dead.is_set() and quiet < 8:
            await asyncio.sleep(0.5)
            bad = [record for record in self.records.values() if record.rollout.revision > 1]
            quiet = quiet + 1 if bad and all(record.state is State.ENDED for record in bad) else 0

    # -- the cluster ---------------------------------------------------------------------------------------------------

    async def deployment(self, ref: WorkloadRef, *, timeout_s: float) -> Deployment:
        await self._alive()
        if ref.name in self.neighbours:
            raise Unanswered("deployment", "nobody is to look at the neighbours")
        return await super().deployment(ref, timeout_s=timeout_s)

    async def pods(self, namespace: str, selector: LabelSelector, *, timeout_s: float) -> tuple[Pod, ...]:
        return tuple(
            decoded(_pod(item.metadata.name, item.metadata.uid, index, self._born[item.metadata.name]), Pod)
            for item in self.scene.snapshot.replicasets
            if self.stays or templates.same(item.spec.template, self.scene.snapshot.deployment.spec.template)
            for index in range(self.scene.spec["replicas"])
        )

    async def patch_deployment(self, ref: WorkloadRef, patch: bytes, *, dry_run: bool, timeout_s: float) -> Deployment:
        await self._alive()
        releasing = b"/metadata/managedFields/" in patch
        found = await super().patch_deployment(ref, patch, dry_run=dry_run, timeout_s=timeout_s)
        if not releasing:
            self._control()
        await self._wrote("release" if releasing else "patch")
        return found

    async def patch_replicaset(self, namespace: str, name: str, patch: bytes, *, timeout_s: float) -> None:
        await self._alive()
        await super().patch_replicaset(namespace, name, patch, timeout_s=timeout_s)
        await self._wrote("mark")

    async def post_event(self, event: Event, *, timeout_s: float) -> None:
        await self._alive()
        if all(each.name != event.name for each in self.events):
            self.events.append(event)
            await self._wrote(f"event {event.reason}")

    async def follow(self, ref: WorkloadRef) -> AsyncGenerator[Deployment | None, None]:
        while True:
            await self._alive()
            yield decoded(self.scene.deployment, Deployment)
            await asyncio.sleep(0.25)

    async def watch(self, namespace: str) -> AsyncGenerator[Listed | Changed | Deleted, None]:
        """The fleet port."""
        last: Json = {}
        while True:
            document = msgspec.json.decode(msgspec.json.encode(self.scene.deployment))
            if document != last:
                item = decoded(document, Deployment)
                yield Changed(item) if last else Listed((item, *map(_neighbour, self.neighbours)))
                last = document
            await asyncio.sleep(0.25)

    # -- counters ------------------------------------------------------------------------------------------------------

    async def read(self, query: SignalQuery, *, step: int, timeout_s: float) -> Reading:
        at = step - 0.0
        samples = []
        for item in self.scene.snapshot.replicasets:
            born = self._born[item.metadata.name].timestamp()
            version = next(v for v in (*self.errors, "good", "bad", "fix", "worse") if hash_of(v) == item.hash)
            if at < born or at > self._gone.get(item.metadata.name, at):
                continue  # not yet there, or no longer scraped
            for index in range(3):
                total = self.traffic.get(version, RPS) * (at - born)
                row = ScrapeTarget("shop", f"{item.metadata.name}-{index:05}", "web", f"10.0.0.{index}", "pods")
                bad = total * self.errors.get(f"{version}-{index}", self.errors.get(version, 0.0))
                if version in self.failing:
                    share, since = self.failing[version]
                    bad += share * RPS * max(0.0, at - since)
                samples.append(Sample(row, total, bad, at))
        for name, (share, since) in self.neighbours.items():
            if name in query.workloads or not query.pods:
                row, total = (
                    ScrapeTarget("shop", f"{name}-aaa-00000", "web", "10.0.0.9", "pods"),
                    RPS * (at - NOW.timestamp()),
                )
                samples.append(Sample(row, total + 1e7, share * RPS * max(0.0, at - since), at))
        return Reading(step, tuple(samples))

    async def read_past(
        self, query: SignalQuery, *, first: int, last: int, every: int = 1, timeout_s: float
    ) -> tuple[Reading, ...]:
        return tuple([await self.read(query, step=step, timeout_s=timeout_s) for step in range(first, last + 1, every)])

    async def resets(
        self, query: SignalQuery, *, step: int, window_s: float, timeout_s: float
    ) -> Mapping[ScrapeTarget, float]:
        return {}

    async def bad_seen(self, query: SignalQuery, *, step: int, timeout_s: float) -> bool:
        return True

    async def onset(self, labels: Mapping[str, str], *, at: float, timeout_s: float) -> float | None:
        return self.firing.timestamp() if self.firing else None

    # -- records and messages ------------------------------------------------------------------------------------------

    async def all(self, *, timeout_s: float) -> tuple[Record, ...]:
        return tuple(self.records.values())

    async def get(self, incident: IncidentId, *, timeout_s: float) -> Record | None:
        return self.records.get(incident)

    async def save(self, record: Record, *, timeout_s: float) -> None:
        await self._alive()
        self.records[record.id] = msgspec.json.decode(msgspec.json.encode(record), type=Record)
        await self._wrote(f"record {record.state}")

    async def prune(self, records: Sequence[Record], *, timeout_s: float) -> tuple[IncidentId, ...]:
        return ()

    async def tell(self, record: Record) -> Notified | None:
        """Keep one message per incident, as the real notifier does."""
        await self._alive()
        if record.state == "watching":
            return record.notified
        text = f"{record.state} {record.outcome or ''} {record.detail}"
        found = next((texts for incident, texts in self.said if incident == record.id), None)
        if found is None:
            found = []
            self.said.append((record.id, found))
        if not found or found[-1] != text:
            found.append(text)
            await self._wrote(f"slack {record.state}")
        return Notified("C1", str(len(self.said)), text)


def _neighbour(name: str) -> Deployment:
    document = history("good").deployment
    document["metadata"] |= {"name": name, "uid": name}
    return decoded(document, Deployment)


def _pod(owner: str, uid: str, index: int, born: dt.datetime) -> Json:
    at = born.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "metadata": {
            "name": f"{owner}-{index:05}",
            "namespace": "shop",
            "uid": f"{owner}-{index}-{at}",
            "creationTimestamp": at,
            "ownerReferences": [{"uid": uid, "controller": True, "kind": "ReplicaSet", "name": owner}],
        },
        "spec": {"nodeName": f"node-{index}"},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at}],
            "containerStatuses": [{"name": "web", "imageID": ""}],
        },
    }
