"""The service is killed after every single write of a scale-down and of a switch-back, as for an undo elsewhere."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping

import pytest

from tests.component.mortal import Mortal
from tests.component.town import House, Town
from tests.component.world import SETTINGS
from tests.unit.builders import Json, decoded, managed
from tests.unit.json_patch import PatchFailedError, apply
from watchdog.config import Config, parse
from watchdog.decide.record import Record, State
from watchdog.engine.act import Actor
from watchdog.engine.context import Context, Ports
from watchdog.engine.service import WatchdogService
from watchdog.engine.switching import Switcher
from watchdog.engine.verify import Patience
from watchdog.errors import PreconditionFailed
from watchdog.metrics import Channel, Metrics
from watchdog.model import MANAGER, Event, Outcome
from watchdog.objects import Deployment, Service, WorkloadRef
from watchdog.records import form

pytestmark = pytest.mark.looptime

CANARY = 'mode = "enforce"\nstable = "web"\ncandidate = "canary"'
COLOURS = 'mode = "enforce"\nservice = "web"\nworkloads = ["blue", "green"]'


class Scaled(House):
    """A Deployment whose pods carry its name, and that can be scaled, too."""

    def deploy(self, version: str, *, now: float) -> None:
        """Somebody deploys a version."""
        self.scene.deploy(version)
        self._label(self.scene.spec["template"])
        self.control(now=now)

    def control(self, *, now: float) -> None:
        """Take up what the newest patch changed: a scaling to zero, or else the template."""
        if self.scene.spec["replicas"]:
            super().control(now=now)
            return
        for each in self.alive(now):
            each.gone = now
        document = self.scene.deployment
        document["status"] = {"observedGeneration": document["metadata"]["generation"]}

    def _replicaset(self, version: str, born: float) -> Json:
        document = super()._replicaset(version, born)
        self._label(document["spec"]["template"])
        self._label(self.scene.spec["template"])
        return document

    def _label(self, template: Json) -> None:
        template["metadata"]["labels"]["app"] = self.ref.name


class Two(Mortal, Town):
    """Two Deployments, and perhaps a Service, that outlive the service: it dies after so many writes.

    Attributes:
        events: the names of the Events.
        document: the Service `web`; empty where there is none.
    """

    def __init__(self, config: Config, *, die_after: int | None) -> None:
        super().__init__(config, round_trip_s=0.001)
        self.mortal(die_after)
        self.events: list[str] = []
        self.document: Json = {}
        self._switched = asyncio.Event()

    def put(self, name: str) -> Scaled:
        """Put a Deployment into the town."""
        house = Scaled(WorkloadRef("shop", name), pods=3, born=self.seconds - 86_400, overlap_s=2.0)
        self.houses[house.ref] = house
        self._by_namespace["shop"].append(house)
        return house

    def serve(self, colour: str) -> None:
        """Have somebody switch the Service to a colour."""
        stamp = self.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        fields = managed("kubectl", fields={"f:spec": {"f:selector": {}}}) | {"time": stamp}
        metadata = {"name": "web", "namespace": "shop", "uid": "uid-of-web"} | {
            "managedFields": [fields],
            **({} if self.document else {"creationTimestamp": stamp}),
        }
        before = self.document.get("metadata", {})
        self.document = {"metadata": before | metadata, "spec": {"selector": {"app": colour}}}
        self._switched.set()

    async def live(self, seconds: float) -> None:
        """Let a process run until it dies, or everything has ended for a while."""
        patience = Patience(request_s=2, observed_s=2, verify_s=10)
        ports = Ports(
            cluster=self,
            store=self,
            actor=Actor(self, patience=patience, now=self.now),
            signals=self,
            alerts=None,
            channels={Channel.SLACK: self},
            switcher=Switcher(self, self, patience=patience, now=self.now),
        )
        context = Context(self.config, ports, Metrics(), now=self.now)
        await self.lives(WatchdogService(context, self, self).run(), seconds=seconds, end=self.dead.wait())
        self._switched.set()

    async def _asked(self, kind: str, *, timeout_s: float, slow: str = "") -> None:
        await self._alive()
        await super()._asked(kind, timeout_s=timeout_s, slow=slow)

    # -- the ports -----------------------------------------------------------------------------------------------------

    async def patch_deployment(self, ref: WorkloadRef, patch: bytes, *, dry_run: bool, timeout_s: float) -> Deployment:
        found = await super().patch_deployment(ref, patch, dry_run=dry_run, timeout_s=timeout_s)
        await self._wrote("release" if b"/metadata/managedFields/" in patch else f"patch {ref.name}")
        return found

    async def patch_replicaset(self, namespace: str, name: str, patch: bytes, *, timeout_s: float) -> None:
        await super().patch_replicaset(namespace, name, patch, timeout_s=timeout_s)
        await self._wrote("mark")

    async def post_event(self, event: Event, *, timeout_s: float) -> None:
        await super().post_event(event, timeout_s=timeout_s)
        if event.name not in self.events:
            self.events.append(event.name)
            await self._wrote(f"event {event.reason}")

    async def save(self, record: Record, *, timeout_s: float) -> None:
        await super().save(record, timeout_s=timeout_s)
        await self._wrote(f"save {record.state}")

    async def service(self, ref: WorkloadRef, *, timeout_s: float) -> Service:
        await self._asked("get service", timeout_s=timeout_s)
        return decoded(self.document, Service)

    async def patch_service(self, ref: WorkloadRef, patch: bytes, *, timeout_s: float) -> Service:
        await self._asked("patch service", timeout_s=timeout_s)
        try:
            self.document = apply(patch, self.document)
        except PatchFailedError as error:
            raise PreconditionFailed("patch services shop/web", "Invalid") from error
        releasing = b"/metadata/managedFields/" in patch
        if not releasing:
            self.document["metadata"]["managedFields"].append(managed(MANAGER))
        self._switched.set()
        await self._wrote("release" if releasing else "switch")
        return decoded(self.document, Service)

    async def watch_services(self, namespace: str) -> AsyncGenerator[Mapping[str, Service], None]:
        while True:
            self._switched.clear()
            await self._alive()
            yield {"web": decoded(self.document, Service)} if self.document else {}
            await self._switched.wait()

    def kept(self) -> list[Record]:
        """The records, as the store has them."""
        return [form.read(text) for text in self.texts.values()]


async def canary(town: Two) -> None:
    """A bad canary comes beside a good stable Deployment."""
    await asyncio.sleep(3)
    town.deploy(town.houses[WorkloadRef("shop", "canary")], "bad")


async def colours(town: Two) -> None:
    """Somebody switches to a bad colour."""
    await asyncio.sleep(5)
    town.serve("green")


async def play(policy: str, die_after: int | None = None, *, save_s: float = 0.0) -> Two:
    """Play one of the two in a town whose service dies after so many writes, and begins anew a moment later."""
    settings = SETTINGS.replace('bake = "10s"', 'bake = "20s"').format(policy=policy, rule="threshold")
    town = Two(parse(settings), die_after=die_after)
    town.slow["save"] = save_s
    _, other = (town.put(name) for name in (("web", "canary") if policy is CANARY else ("blue", "green")))
    other.shares["bad"] = (0.5, 0.0)
    story = canary if policy is CANARY else colours
    if policy is COLOURS:
        other.deploy("bad", now=town.seconds - 3600)
        town.serve("blue")
    going = asyncio.create_task(story(town))
    await town.live(60)
    if town.dead.is_set():
        town.revive()
        await asyncio.sleep(1)
        await town.live(60)
    await going
    return town


def check(policy: str, town: Two) -> None:
    about = f"{town.writes}"
    bad = [record for record in town.kept() if record.images == {"web": "registry.example/web:bad"}]
    assert [(record.state, record.outcome) for record in bad] == [(State.ENDED, Outcome.RECOVERED)], (about, bad)
    assert len(town.events) == len(set(town.events)), about
    done = Counter(town.writes)
    if policy is CANARY:
        assert (done["patch canary"], done["patch web"], done["switch"]) == (1, 0, 0), about
        assert town.houses[WorkloadRef("shop", "canary")].scene.spec["replicas"] == 0
    else:
        assert (done["switch"], done["patch blue"], done["patch green"]) == (1, 0, 0), about
        assert town.document["spec"]["selector"] == {"app": "blue"}


@pytest.mark.parametrize("policy", [CANARY, COLOURS], ids=["scale-down", "switch-back"])
async def test_a_bad_version_is_taken_out_of_the_traffic(policy: str) -> None:
    check(policy, await play(policy))


@pytest.mark.parametrize("save_s", [0.0, 0.5])  # with a slow store the patch comes before the record of its decision
@pytest.mark.parametrize("policy", [CANARY, COLOURS], ids=["scale-down", "switch-back"])
async def test_a_death_after_any_write_changes_nothing_of_the_end(policy: str, save_s: float) -> None:
    undisturbed = await play(policy, save_s=save_s)
    assert len(undisturbed.writes) > 10
    for write in range(1, len(undisturbed.writes) + 1):
        check(policy, await play(policy, write, save_s=save_s))
