"""Records as they are stored: what a next process reads, what goes when one is too long, and what is kept."""

import asyncio
import base64
import datetime as dt
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from tests.component.fake_api import FakeApi, hang, page, running, status, write_kubeconfig
from tests.unit.builders import NOW, Json
from tests.unit.json_patch import apply
from watchdog.config import RecordKind
from watchdog.decide.record import AlertSeen, Answer, Notified, Planned, Record, State, VerdictSeen, Written
from watchdog.errors import ClusterError, Denied, Rejected, Unanswered
from watchdog.judge.blocks import Blind, BlindReason, Block, Counts, PodCounts, PodTimeline, Restart, Track
from watchdog.kube import KubeCluster, connect
from watchdog.kube.watching import WatchSettings
from watchdog.model import Action, Guard, IncidentId, Mode, Objection, Outcome, Rollout, Topology
from watchdog.objects import TemplateHash, WorkloadRef
from watchdog.records import RecordStore
from watchdog.records.form import LONGEST_BYTES, read, write
from watchdog.records.store import expendable

HASH = TemplateHash("6d4cf56db6")
OBJECTS = "/api/v1/namespaces/watchdog/configmaps"
PLAN = Planned(
    action=Action.UNDO,
    from_revision=2,
    from_hash=HASH,
    to_revision=1,
    to_hash=TemplateHash("5c4d"),
    cause="threshold",
    target_images={"web": "web:v1"},
)


def record(name: str = "web", revision: int = 2, *, ended: dt.datetime | None = None, **fields: object) -> Record:
    """A record; with `ended` one that passed then."""
    rollout = Rollout(WorkloadRef("shop", name), "uid-1", revision, HASH)
    passed = {"state": State.ENDED, "ended": ended, "outcome": Outcome.PASSED} if ended else {}
    record = Record(
        id=rollout.incident,
        rollout=rollout,
        policy="web",
        policy_digest="d1",
        topology=Topology.ROLLING,
        mode=Mode.ENFORCE,
        action=Action.UNDO,
        started=NOW - dt.timedelta(days=90),
        images={"web": "web:v2"},
    )
    return msgspec.structs.replace(record, **{**passed, **fields})


def block(step: int) -> Block:
    return Block(step, Counts(1234.0, 56.0), Counts(9876.0, 5.0), Counts(12.0, 1.0))


def pod(index: int, *, gone: float | None = None) -> PodTimeline:
    return PodTimeline(
        name=f"web-6d4cf56db6-{index:05}",
        track=Track.CANDIDATE,
        hash=HASH,
        created=1.77e9 + index,
        step=118_000_000,
        ready=1.77e9 + index + 7.25,
        ready_step=118_000_001,
        restarts=(Restart(1, 1.77e9, 118_000_000),),
        gone=gone,
        gone_step=None if gone is None else 118_000_002,
    )


def verdict(index: int) -> VerdictSeen:
    return VerdictSeen(NOW + dt.timedelta(seconds=index), "insufficient", "5 of 20 requests in 1 min " * 8)


class Objects(FakeApi):
    """An API server that keeps ConfigMaps, or Secrets, unless a script says otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, Json] = {}
        self.resource = "configmaps"

    @property
    def path(self) -> str:
        return f"/api/v1/namespaces/watchdog/{self.resource}"

    async def serve(self, request: web.Request) -> web.StreamResponse:
        if (request.method, request.path) not in self._scripts:
            self.answer(request.method, request.path, self.keep)
        return await super().serve(request)

    async def keep(self, request: web.Request) -> web.StreamResponse:
        body = self.seen[-1].body
        name = request.path.removeprefix(self.path).strip("/")
        if request.method == "POST":
            document = json.loads(body)
            if document["metadata"]["name"] in self.kept:
                return await status(409, "AlreadyExists")(request)
            self.kept[document["metadata"]["name"]] = document
        elif not name:
            key, _, value = request.query["labelSelector"].partition("=")
            found = [item for item in self.kept.values() if item["metadata"]["labels"].get(key) == value]
            return await page(*found)(request)
        elif name not in self.kept:
            return await status(404, "NotFound")(request)
        elif request.method == "PATCH":
            self.kept[name] = apply(body, self.kept[name])
        elif request.method == "DELETE":
            del self.kept[name]
            return web.json_response({})
        return web.json_response(self.kept.get(name, {}))


@pytest.fixture
async def api() -> AsyncIterator[Objects]:
    api = Objects()
    async with running(api):
        yield api


@pytest.fixture
async def cluster(api: Objects, tmp_path: Path) -> AsyncIterator[KubeCluster]:
    async with connect(kubeconfig=str(write_kubeconfig(tmp_path, api.url))) as transport:
        yield KubeCluster(transport, watching=WatchSettings(request_s=5, watch_s=300, inactivity_s=90))


def store_on(cluster: KubeCluster, kind: RecordKind = RecordKind.CONFIG_MAP) -> RecordStore:
    return RecordStore(cluster, namespace="watchdog", kind=kind, now=lambda: NOW)


@pytest.fixture
def store(cluster: KubeCluster) -> RecordStore:
    return store_on(cluster)


FULL = record(
    state=State.ENDED,
    ended=NOW,
    outcome=Outcome.RECOVERED,
    plan=PLAN,
    pods=(pod(1), pod(2, gone=1.77e9)),
    blocks={"errors": (block(1), Block(2, blind=Blind(BlindReason.STALE, "no sample")))},
    verdicts=(verdict(1),),
    objections=(Objection(Guard.SHARED, "stable fails too", NOW, asks=True),),
    people=(Answer("approve", "jane ☂", NOW, "slack"),),
)

# -- reading and writing -----------------------------------------------------------------------------------------------

BY_AN_EARLIER_VERSION = """\
{"schema":1,"id":"web-2-abc","rollout":{"workload":{"namespace":"shop","name":"web"},"uid":"uid","revision":2,\
"hash":"abc","switch":""},"policy":"web","policy_digest":"d","topology":"rolling","mode":"approve","action":"undo",\
"started":"2026-03-01T12:00:00Z","state":"asking","judged_by":{"errors":{"step_s":15,"controls":"both","blocks":4.0,\
"base":0.01,"phi_concurrent":1.5,"phi_historical":1.5,"m_cap":null,"known":true,"past":"the day",\
"incident_first":{"reason":"incident-first","detail":"40 of 900 failed before"},"alpha":0.01,"alpha_alert":0.05,\
"signals":1,"bake_s":900.0,"completed_s":null,"bystanders":[]}},\
"verdicts":[{"at":"2026-03-01T12:00:00Z","word":"breach","detail":"30 %","cause":"sequential","signal":"errors"}],\
"vetoes":[{"guard":"shared","detail":"the stable pods fail, too","at":"2026-03-01T12:00:00Z","lowers":true}],\
"people":[{"answer":"approve","by":"jane","at":"2026-03-01T12:00:00Z","way":"http"}],\
"told":{"channel":"C1","ts":"1.1","said":"d1","details":["d2"]}}"""


def test_a_record_of_an_earlier_version_is_read_and_its_names_stay() -> None:
    record = read(BY_AN_EARLIER_VERSION)
    first = Objection(Guard.INCIDENT_FIRST, "40 of 900 failed before", asks=True)
    assert record.test_settings["errors"].incident_first == first
    assert record.objections == (Objection(Guard.SHARED, "the stable pods fail, too", NOW, asks=True),)
    assert (record.verdicts[0].status, record.people[0].via) == ("breach", "http")
    assert record.notified == Notified("C1", "1.1", "d1", ("d2",))
    before, now = json.loads(BY_AN_EARLIER_VERSION), json.loads(write(record))
    del before["judged_by"]["errors"]["incident_first"], now["judged_by"]["errors"]["incident_first"]
    assert now == before


@pytest.mark.parametrize("kind", list(RecordKind))
async def test_a_record_comes_back_as_it_was_saved(api: Objects, cluster: KubeCluster, kind: RecordKind) -> None:
    api.resource = f"{kind}s"
    await store_on(cluster, kind).save(FULL, timeout_s=5)
    assert await store_on(cluster, kind).get(FULL.id, timeout_s=5) == FULL
    assert await store_on(cluster, kind).all(timeout_s=5) == (FULL,)


async def test_a_person_finds_a_record_by_its_name_and_labels_and_can_read_it(api: Objects, store: RecordStore) -> None:
    await store.save(FULL, timeout_s=5)
    (found,) = api.kept.values()
    assert found["metadata"] == {
        "name": f"rollback-watchdog-{FULL.id}",
        "labels": {"app.kubernetes.io/managed-by": "rollback-watchdog", "rollback-watchdog.io/state": "ended"},
    }
    text = json.loads(found["data"]["record.json"])
    assert text["schema"] == 1
    assert text["ended"] == "2026-03-01T12:00:00Z"


async def test_a_secret_holds_the_record_in_base64(api: Objects, cluster: KubeCluster) -> None:
    api.resource = "secrets"
    store = store_on(cluster, RecordKind.SECRET)
    await store.save(record(), timeout_s=5)
    await store.save(FULL, timeout_s=5)
    (found,) = api.kept.values()
    assert base64.b64decode(found["data"]["record.json"], validate=True).decode() == write(FULL)


async def test_the_next_process_replaces_a_record_and_its_state(api: Objects, cluster: KubeCluster) -> None:
    await store_on(cluster).save(record(), timeout_s=5)
    (found,) = api.kept.values()
    assert found["metadata"]["labels"]["rollback-watchdog.io/state"] == "open"
    found["metadata"]["labels"]["team"] = "shop"
    await store_on(cluster).save(FULL, timeout_s=5)
    (found,) = api.kept.values()
    assert found["metadata"]["labels"]["rollback-watchdog.io/state"] == "ended"
    assert found["metadata"]["labels"]["team"] == "shop"
    assert await store_on(cluster).get(FULL.id, timeout_s=5) == FULL


async def test_a_known_record_is_saved_with_one_request(api: Objects, store: RecordStore) -> None:
    await store.save(record(), timeout_s=5)
    await store.save(FULL, timeout_s=5)
    assert [seen.method for seen in api.seen] == ["POST", "PATCH"]


async def test_a_record_that_somebody_deleted_is_made_again(api: Objects, store: RecordStore) -> None:
    await store.save(record(), timeout_s=5)
    api.kept.clear()
    await store.save(FULL, timeout_s=5)
    assert await store.get(FULL.id, timeout_s=5) == FULL


async def test_what_is_not_there_is_no_error(store: RecordStore) -> None:
    assert await store.get(FULL.id, timeout_s=5) is None
    assert await store.all(timeout_s=5) == ()


async def test_an_id_that_is_no_name_never_comes_into_a_path(api: Objects, store: RecordStore) -> None:
    assert await store.get(IncidentId("../secrets/token"), timeout_s=5) is None
    assert api.seen == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        write(FULL)[:-1],
        write(FULL).replace('"schema":1', '"schema":2'),
        write(FULL).replace('"enforce"', '"annihilate"'),
        write(record("other")),
    ],
)
async def test_what_cannot_be_read_is_logged_and_left_alone(
    api: Objects, store: RecordStore, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    await store.save(FULL, timeout_s=5)
    await store.save(record("good"), timeout_s=5)
    before = api.kept[f"rollback-watchdog-{FULL.id}"]
    before["data"]["record.json"] = text
    with caplog.at_level(logging.WARNING):
        assert await store.all(timeout_s=5) == (record("good"),)
    assert [line.__dict__["record"] for line in caplog.records] == [f"watchdog/rollback-watchdog-{FULL.id}"]
    assert await store.get(FULL.id, timeout_s=5) is None
    assert api.kept[f"rollback-watchdog-{FULL.id}"] == before


async def test_a_secret_that_is_not_base64_is_left_alone(api: Objects, cluster: KubeCluster) -> None:
    api.resource = "secrets"
    store = store_on(cluster, RecordKind.SECRET)
    await store.save(FULL, timeout_s=5)
    api.kept[f"rollback-watchdog-{FULL.id}"]["data"]["record.json"] = "a"
    assert await store.all(timeout_s=5) == ()


async def test_fields_of_a_newer_program_are_passed_over(api: Objects, store: RecordStore) -> None:
    await store.save(FULL, timeout_s=5)
    data = api.kept[f"rollback-watchdog-{FULL.id}"]["data"]
    data["record.json"] = data["record.json"].replace('"schema":1', '"schema":1,"mood":{"good":true}')
    assert await store.get(FULL.id, timeout_s=5) == FULL


async def test_a_refusal_of_the_api_server_is_told(api: Objects, store: RecordStore) -> None:
    api.answer("POST", OBJECTS, status(403, "Forbidden"))
    with pytest.raises(Denied):
        await store.save(FULL, timeout_s=5)


@pytest.mark.looptime
async def test_a_save_of_two_requests_has_one_deadline(api: Objects, store: RecordStore) -> None:
    async def slowly(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(3)
        return await status(409, "AlreadyExists")(request)

    api.answer("POST", OBJECTS, slowly)
    api.answer("PATCH", f"{OBJECTS}/rollback-watchdog-{FULL.id}", hang)
    begun = asyncio.get_running_loop().time()
    with pytest.raises(Unanswered):
        await store.save(FULL, timeout_s=5)
    assert asyncio.get_running_loop().time() - begun == pytest.approx(5, abs=0.5)


# -- thinning ----------------------------------------------------------------------------------------------------------


def stored(record: Record) -> Record:
    """What is left of a record that is too long, as the next process reads it."""
    text = write(record)
    assert len(text.encode()) <= LONGEST_BYTES
    assert len(text.encode()) > LONGEST_BYTES - 1024, "more went than had to"
    return msgspec.json.decode(text, type=Record)


def test_of_a_long_watch_the_newest_blocks_of_each_signal_stay_and_all_else() -> None:
    long = msgspec.structs.replace(
        FULL, blocks={name: tuple(block(step) for step in range(480)) for name in ("a", "b")}
    )
    kept = stored(long)
    assert msgspec.structs.replace(kept, blocks=long.blocks) == long
    assert kept.blocks["a"] == kept.blocks["b"] == long.blocks["a"][-len(kept.blocks["a"]) :]
    assert len(kept.blocks["a"]) > 100


def test_every_block_of_two_hours_stays_and_what_single_pods_counted_goes_first() -> None:
    counts = tuple(PodCounts(f"web-2f05d4b689-{index:05}", Counts(15.0, 1.0)) for index in range(10))
    blocks = tuple(
        Block(118157769 + step, Counts(150.0, 10.0), pods=counts, ready=True, old_live=step < 40) for step in range(480)
    )
    kept = read(write(msgspec.structs.replace(FULL, blocks={"errors": blocks}))).blocks["errors"]
    assert [msgspec.structs.replace(each, pods=counts) for each in kept] == list(blocks)
    assert kept[-1].pods == counts
    assert kept[0].pods == ()


def test_of_two_thousand_pods_and_480_blocks_those_pods_stay_that_went_last() -> None:
    pods = [*(pod(index, gone=2e9 - index) for index in range(1900)), *(pod(index) for index in range(1900, 2000))]
    blocks = {name: tuple(block(step) for step in range(480)) for name in ("a", "b", "c")}
    huge = msgspec.structs.replace(
        FULL, pods=tuple(pods), blocks=blocks, verdicts=tuple(verdict(index) for index in range(100))
    )
    kept = stored(huge)
    assert kept.blocks == {name: steps[-8:] for name, steps in blocks.items()}
    assert kept.verdicts == huge.verdicts[-10:]
    gone = sum(item.gone is not None for item in kept.pods)
    assert kept.pods == (*pods[:gone], *pods[1900:])
    assert gone > 50
    untouched = {"pods": huge.pods, "blocks": blocks, "verdicts": huge.verdicts}
    assert msgspec.structs.replace(kept, **untouched) == huge


def test_a_guard_that_lowered_the_incident_is_never_forgotten() -> None:
    lowered = Objection(Guard.LATE, "no traffic", NOW, asks=True)
    spoke = tuple(
        Objection(Guard.NOT_OBSERVED, "wait " * 40, NOW + dt.timedelta(seconds=index)) for index in range(1000)
    )
    kept = stored(record(objections=(lowered, *spoke)))
    assert kept.objections == (lowered, *spoke[-len(kept.objections) + 1 :])
    assert len(kept.objections) > 100


def test_what_was_decided_and_done_outlives_everything_else() -> None:
    done: Json = {"plan": PLAN, "writes": (Written(NOW, "undo"),), "people": FULL.people, "images": {"web": "web:v2"}}
    alerts = tuple(AlertSeen(f"{index:016}", "High ☂" * 50, NOW, "attributed") for index in range(500))
    many = {f"signal-{index}": tuple(block(step) for step in range(8)) for index in range(90)}
    pods = tuple(pod(index) for index in range(500))
    text = write(record(pods=pods, alerts=alerts, blocks=many, **done))
    assert len(text.encode()) <= LONGEST_BYTES
    kept = msgspec.json.decode(text, type=Record)
    assert {key: getattr(kept, key) for key in done} == done
    assert kept.alerts == alerts[-10:]
    assert kept.pods == ()


# -- what is kept ------------------------------------------------------------------------------------------------------


def ago(**time: float) -> dt.datetime:
    return NOW - dt.timedelta(**time)


def test_open_records_and_the_newest_200_incidents_are_kept() -> None:
    refused = {"outcome": Outcome.REFUSED}
    old = [record("web", index, ended=ago(days=index), **refused) for index in range(1, 251)]
    still_open = [record("web", 1000 + index, state=State.ACTING, plan=PLAN) for index in range(10)]
    assert expendable([*old, *still_open], now=NOW) == old[200:]


def test_an_incident_that_condemned_images_within_a_day_outlives_the_limit() -> None:
    undone = {"outcome": Outcome.RECOVERED, "plan": PLAN}
    newer = [record("web", index, ended=ago(minutes=index), **undone) for index in range(200)]
    recent = record("web", 300, ended=ago(hours=23.9), **undone)
    older = record("web", 301, ended=ago(hours=24.1), **undone)
    refused = record("web", 302, ended=ago(hours=23), outcome=Outcome.REFUSED)
    assert expendable([older, recent, refused, *newer], now=NOW) == [refused, older]


def test_of_what_passed_the_newest_one_of_each_workload_is_kept_and_no_more_than_a_thousand() -> None:
    first = [record("web", index, ended=ago(days=index)) for index in range(3)]
    superseded = record("web", 9, ended=ago(days=9), outcome=Outcome.SUPERSEDED)
    others = [record(f"web-{index}", ended=ago(days=10 + index)) for index in range(1010)]
    assert expendable([*reversed(others), superseded, *first], now=NOW) == [*first[1:], superseded, *others[999:]]


def test_a_superseded_rollout_that_had_been_acted_on_is_an_incident() -> None:
    acted = record("web", 1, ended=ago(days=2), outcome=Outcome.SUPERSEDED, plan=PLAN)
    assert expendable([acted, record("web", 2, ended=ago(days=1))], now=NOW) == []


async def test_what_need_not_be_kept_is_deleted_and_what_is_gone_already_is_no_error(
    api: Objects, store: RecordStore
) -> None:
    records = [record("web", index, ended=ago(days=index)) for index in range(4)]
    for each in records:
        await store.save(each, timeout_s=5)
    del api.kept[f"rollback-watchdog-{records[1].id}"]
    await store.prune(records, timeout_s=5)
    assert await store.all(timeout_s=5) == (records[0],)


async def test_a_deletion_that_fails_is_told_and_made_up_for(api: Objects, store: RecordStore) -> None:
    records = [record("web", index, ended=ago(days=index)) for index in range(3)]
    for each in records:
        await store.save(each, timeout_s=5)
    path = f"{OBJECTS}/rollback-watchdog-{records[1].id}"
    api.answer("DELETE", path, status(500, "InternalError"), api.keep)
    with pytest.raises(ClusterError):
        await store.prune(records, timeout_s=5)
    await store.prune(records, timeout_s=5)
    assert await store.all(timeout_s=5) == (records[0],)


async def test_an_incident_id_that_can_be_no_name_reaches_no_path(store: RecordStore, api: Objects) -> None:
    old = NOW - dt.timedelta(days=30)
    forged = record(ended=old, outcome=Outcome.FAILED, id=IncidentId("/../victim-config"))
    with pytest.raises(Rejected, match="is no name for a record"):
        await store.save(forged, timeout_s=5)
    newer = [record(revision=number, ended=NOW, outcome=Outcome.FAILED) for number in range(2, 203)]
    assert forged.id not in await store.prune([*newer, forged], timeout_s=5)
    assert not [seen for seen in api.seen if "victim" in seen.path]
