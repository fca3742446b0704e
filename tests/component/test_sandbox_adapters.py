"""The service's own adapters on the sandbox: what the service says to a cluster is said to it, and understood."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from tests.component.test_records import FULL, record
from tests.unit.builders import Json
from watchdog.config import RecordKind
from watchdog.decide import marks
from watchdog.decide.plan import Request
from watchdog.decide.record import State
from watchdog.engine.act import Actor
from watchdog.engine.verify import Patience
from watchdog.errors import Denied, PreconditionFailed
from watchdog.kube import KubeCluster, connect
from watchdog.kube.reviews import Reviews, Right, User
from watchdog.kube.transport import Transport
from watchdog.kube.watching import WatchSettings
from watchdog.model import MANAGER, Cause, Event, EventReason, Guard, Outcome
from watchdog.objects import Deployment, WorkloadRef
from watchdog.ports import Changed, Deleted, Listed
from watchdog.records import RecordStore
from watchdog.sandbox.cluster import Sandbox, start
from watchdog.sandbox.kubelet import ScriptedKubelet
from watchdog.sandbox.reviews import Account, Accounts

WEB = WorkloadRef("default", "web")
REQUEST = Request(cause=Cause(by="rollback-watchdog", reason="8 % errors"))
PATIENCE = Patience(request_s=5, observed_s=2, verify_s=10)
WATCHING = WatchSettings(request_s=5, watch_s=60, inactivity_s=70)
JANE = Account(username="jane", groups=("shop",), audience="rollback-watchdog")


def may(user: str, attributes: Json) -> bool:
    """Jane may ask for reviews, and create what is called web."""
    return user == "jane" and attributes["verb"] == "create" and attributes["name"] in ("", "web")


ACCOUNTS = Accounts({"audience": JANE, "api": Account(username="jane", groups=("shop",))}, may=may)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """A cluster whose pods are ready at once."""
    kubelet = ScriptedKubelet(ready_after_s=0.01, terminate_after_s=0.01)
    async with start(kubelet, accounts=ACCOUNTS) as sandbox:
        yield sandbox


@pytest.fixture
def kubeconfig(sandbox: Sandbox, tmp_path: Path) -> Path:
    """The way of the fixtures `transport` and `cluster` to the sandbox."""
    return sandbox.write_kubeconfig(tmp_path / "kubeconfig")


def create(sandbox: Sandbox, name: str = "web") -> None:
    labels = {"app": name}
    template = {
        "metadata": {"labels": labels},
        "spec": {"nodeName": "node-0", "containers": [{"name": "app", "image": "v1"}]},
    }
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    sandbox.store.create("deployments", {"metadata": {"name": name}, "spec": spec}, namespace="default")


def set_image(sandbox: Sandbox, image: str) -> None:
    def change(item: Json) -> None:
        item["spec"]["template"]["spec"]["containers"][0]["image"] = image

    sandbox.store.modify("deployments", "default", "web", change)


def image(item: Json) -> str:
    return str(item["spec"]["template"]["spec"]["containers"][0]["image"])


def wanted(item: Json) -> tuple[Json, Json, int]:
    """All but what the controller goes on to count."""
    metadata = item["metadata"]
    return item["spec"], metadata["annotations"], metadata["generation"]


async def complete(sandbox: Sandbox) -> Json:
    """Wait for the rollout of `web` to end."""
    async with asyncio.timeout(5):
        while True:
            found = sandbox.store.get("deployments", "default", "web")
            status = found.get("status", {})
            counts = {status.get(key) for key in ("replicas", "updatedReplicas", "availableReplicas")}
            if status.get("observedGeneration") == found["metadata"]["generation"] and counts == {2}:
                return found
            await asyncio.sleep(0.01)


@pytest.fixture
async def bad(sandbox: Sandbox) -> Json:
    """`web` with v2 after v1, complete."""
    create(sandbox)
    await complete(sandbox)
    set_image(sandbox, "v2")
    return await complete(sandbox)


class Watched(KubeCluster):
    """The adapter that the service has, which keeps each patch and lets somebody push between our read and write."""

    def __init__(self, transport: Transport, sandbox: Sandbox, *, pushed: str = "") -> None:
        super().__init__(transport, watching=WATCHING)
        self._sandbox = sandbox
        self._pushed = pushed
        self.patches: list[bytes] = []

    async def patch_deployment(self, ref: WorkloadRef, patch: bytes, *, dry_run: bool, timeout_s: float) -> Deployment:
        """Push, then write."""
        self.patches.append(patch)
        if self._pushed:
            set_image(self._sandbox, self._pushed)
        return await super().patch_deployment(ref, patch, dry_run=dry_run, timeout_s=timeout_s)


# -- acting ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("bad")
async def test_an_undo_is_written_verified_marked_and_told(sandbox: Sandbox, transport: Transport) -> None:
    cluster = Watched(transport, sandbox)
    result = await Actor(cluster, patience=PATIENCE, now=now).undo(WEB, REQUEST, condemned=True)
    assert result.outcome is Outcome.ROLLED_BACK
    assert image(await complete(sandbox)) == "v1"
    sets = sandbox.store.list("replicasets", "default")
    assert sorted(item["metadata"]["annotations"]["deployment.kubernetes.io/revision"] for item in sets) == ["2", "3"]
    condemned = [image(item) for item in sets if marks.CONDEMNED in item["metadata"]["annotations"]]
    assert condemned == ["v2"]
    told = {item["reason"] for item in sandbox.store.list("events", "default")}
    assert told == {EventReason.STARTED, EventReason.COMPLETED}


def managers(item: Json) -> set[str]:
    return {entry["manager"] for entry in item["metadata"]["managedFields"]}


@pytest.mark.usefixtures("bad")
async def test_an_undo_gives_up_the_fields_that_it_wrote(sandbox: Sandbox, transport: Transport) -> None:
    cluster = Watched(transport, sandbox)
    await Actor(cluster, patience=PATIENCE, now=now).undo(WEB, REQUEST)
    undo, *releases = cluster.patches
    assert [b"/metadata/managedFields/" in patch for patch in (undo, releases[-1])] == [False, True]
    assert MANAGER not in managers(await complete(sandbox))
    assert managers(sandbox.store.get("deployments", "default", "web"))


async def test_the_time_of_a_hold_is_that_of_its_owners_write(
    sandbox: Sandbox, cluster: KubeCluster, bad: Json
) -> None:
    hold = [{"op": "add", "path": "/metadata/annotations/rollback-watchdog.io~1hold", "value": "nobody knows"}]
    since = now().replace(microsecond=0)
    await cluster.patch_deployment(WEB, msgspec.json.encode(hold), dry_run=False, timeout_s=5)
    read = await cluster.deployment(WEB, timeout_s=5)
    owner = marks.field_owner(read.metadata, ("f:metadata", "f:annotations", f"f:{marks.HOLD}"))
    assert owner is not None
    assert owner.manager == MANAGER
    assert owner.time is not None
    assert since <= owner.time <= now()
    result = await Actor(cluster, patience=PATIENCE, now=now).undo(WEB, REQUEST)
    assert result.refused is not None
    assert result.refused.guard is Guard.HOLD
    assert image(await complete(sandbox)) == image(bad)


@pytest.mark.usefixtures("bad")
async def test_a_replay_of_an_undo_is_refused_and_changes_nothing(sandbox: Sandbox, transport: Transport) -> None:
    cluster = Watched(transport, sandbox)
    await Actor(cluster, patience=PATIENCE, now=now).undo(WEB, REQUEST)
    before = await complete(sandbox)
    with pytest.raises(PreconditionFailed):
        await KubeCluster.patch_deployment(cluster, WEB, cluster.patches[0], dry_run=False, timeout_s=5)
    assert wanted(sandbox.store.get("deployments", "default", "web")) == wanted(before)


@pytest.mark.usefixtures("bad")
async def test_a_hotfix_between_read_and_write_stays(sandbox: Sandbox, transport: Transport) -> None:
    cluster = Watched(transport, sandbox, pushed="hotfix")
    result = await Actor(cluster, patience=PATIENCE, now=now).undo(WEB, REQUEST)
    assert result.refused is not None
    assert result.refused.guard is Guard.SUPERSEDED
    assert image(await complete(sandbox)) == "hotfix"


async def test_a_dry_run_keeps_nothing(sandbox: Sandbox, cluster: KubeCluster, bad: Json) -> None:
    result = await Actor(cluster, patience=PATIENCE, now=now).undo(WEB, REQUEST, dry_run=True)
    assert result.plan is not None
    assert wanted(sandbox.store.get("deployments", "default", "web")) == wanted(bad)
    assert sandbox.store.list("events", "default") == []


@pytest.mark.usefixtures("bad")
async def test_a_template_that_the_controller_has_not_seen_is_not_judged(
    sandbox: Sandbox, cluster: KubeCluster
) -> None:
    sandbox.controllers.pause()
    set_image(sandbox, "v3")
    patience = Patience(request_s=5, observed_s=0.2, verify_s=1)
    result = await Actor(cluster, patience=patience, now=now).undo(WEB, REQUEST)
    assert result.refused is not None
    assert result.refused.guard is Guard.NOT_OBSERVED
    sandbox.controllers.resume()
    assert image(await complete(sandbox)) == "v3"


# -- seeing ------------------------------------------------------------------------------------------------------------


async def test_the_fleet_is_listed_once_and_then_every_change_is_seen(sandbox: Sandbox, cluster: KubeCluster) -> None:
    sandbox.controllers.pause()
    create(sandbox, "web")
    async with asyncio.timeout(5), aclosing(cluster.watch("default")) as changes:
        listed = await anext(changes)
        assert isinstance(listed, Listed)
        assert [item.ref for item in listed.items] == [WEB]
        create(sandbox, "cart")
        set_image(sandbox, "v2")
        sandbox.store.delete("deployments", "default", "web")
        seen = [await anext(changes) for _ in range(3)]
    assert [type(each) for each in seen] == [Changed, Changed, Deleted]
    items = [each.item for each in seen if isinstance(each, Changed | Deleted)]
    assert [(item.metadata.name, item.metadata.generation) for item in items] == [("cart", 1), ("web", 2), ("web", 2)]


async def test_a_fleet_watch_that_lost_its_position_lists_anew(sandbox: Sandbox, transport: Transport) -> None:
    cluster = KubeCluster(transport, watching=WatchSettings(request_s=5, watch_s=1, inactivity_s=5))
    async with asyncio.timeout(10), aclosing(cluster.watch("default")) as changes:
        assert await anext(changes) == Listed(())
        create(sandbox)
        assert isinstance(await anext(changes), Changed)
        sandbox.store.delete("deployments", "default", "web")
        sandbox.store.forget()
        async for change in changes:
            if isinstance(change, Listed):
                assert change.items == ()
                break


async def test_a_workload_is_followed_until_it_is_gone(sandbox: Sandbox, cluster: KubeCluster) -> None:
    sandbox.controllers.pause()
    async with asyncio.timeout(5), aclosing(cluster.follow(WEB)) as states:
        assert await anext(states) is None
        create(sandbox, "cart")
        create(sandbox, "web")
        state = await anext(states)
        assert state is not None
        assert state.ref == WEB
        sandbox.store.delete("deployments", "default", "web")
        assert await anext(states) is None


# -- keeping and telling -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(RecordKind))
async def test_a_record_lives_from_its_first_save_to_its_deletion(cluster: KubeCluster, kind: RecordKind) -> None:
    def store() -> RecordStore:
        return RecordStore(cluster, namespace="default", kind=kind, now=now)

    begun = msgspec.structs.replace(FULL, state=State.ACTING, ended=None, outcome=None)
    for each in (begun, FULL):
        await store().save(each, timeout_s=5)  # each time by another process
        assert await store().get(FULL.id, timeout_s=5) == each
    newer, older = (record("api", index, ended=now() - dt.timedelta(days=index)) for index in (1, 2))
    for each in (newer, older, older):
        await store().save(each, timeout_s=5)
    assert {each.id for each in await store().all(timeout_s=5)} == {FULL.id, newer.id, older.id}
    assert await store().prune((FULL, newer, older), timeout_s=5) == (older.id,)
    assert {each.id for each in await store().all(timeout_s=5)} == {FULL.id, newer.id}


async def test_an_event_is_kept_once_however_often_it_is_told(sandbox: Sandbox, cluster: KubeCluster) -> None:
    event = Event("web-2-started", WEB, "uid-1", EventReason.STARTED, "Undo", "é" * 600, warning=True)
    for _ in range(2):
        await cluster.post_event(event, timeout_s=5)
    (found,) = sandbox.store.list("events", "default")
    assert (found["metadata"]["name"], found["type"], found["regarding"]["name"]) == ("web-2-started", "Warning", "web")
    assert len(found["note"].encode()) <= 1024


# -- asking who may ----------------------------------------------------------------------------------------------------


async def test_a_token_is_somebodys_for_its_own_audience_only(transport: Transport) -> None:
    reviews = Reviews(transport)
    audience = "rollback-watchdog"
    jane = User(username="jane", groups=("shop", "system:authenticated"))
    assert await reviews.whose("audience", audience=audience, timeout_s=5) == jane
    assert await reviews.whose("api", audience=audience, timeout_s=5) is None
    assert await reviews.whose("unheard-of", audience=audience, timeout_s=5) is None


async def test_a_right_is_asked_for_by_user_verb_and_name(transport: Transport) -> None:
    reviews = Reviews(transport)
    right = Right("create", "deployments", group="rollback-watchdog.io", namespace="default", name="web")
    assert await reviews.may(User("jane"), right, timeout_s=5)
    assert not await reviews.may(User("joe"), right, timeout_s=5)
    assert not await reviews.may(User("jane"), msgspec.structs.replace(right, name="cart"), timeout_s=5)
    assert not await reviews.may(User("jane"), msgspec.structs.replace(right, verb="delete"), timeout_s=5)


async def test_whoever_has_a_token_is_told_who_they_are_and_held_to_their_rights(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    create(sandbox)
    async with connect(kubeconfig=str(sandbox.write_kubeconfig(tmp_path / "janes", token="api"))) as transport:
        reviews, cluster = Reviews(transport), KubeCluster(transport, watching=WATCHING)
        assert (await reviews.whoami(timeout_s=5)).username == "jane"
        assert await reviews.may_i(Right("create", "pods", namespace="default", name="web"), timeout_s=5)
        assert not await reviews.may_i(Right("patch", "deployments", group="apps", namespace="default"), timeout_s=5)
        with pytest.raises(Denied):
            await cluster.deployment(WEB, timeout_s=5)
        with pytest.raises(Denied):
            await anext(cluster.watch("default"))


async def test_a_token_for_the_service_is_no_token_for_the_api(sandbox: Sandbox, tmp_path: Path) -> None:
    async with connect(kubeconfig=str(sandbox.write_kubeconfig(tmp_path / "other", token="audience"))) as transport:
        with pytest.raises(Denied):
            await Reviews(transport).whoami(timeout_s=5)
