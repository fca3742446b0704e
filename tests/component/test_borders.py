"""Every border is fed with whatever bytes can be, and raises nothing but its own error.

The inputs are random bytes, random JSON, and valid answers in which one value has been changed; see `garbage`. They
come from seeds, so that a failure comes again. What is accepted is used as the service uses it, as a number that
overflows mostly does so later.
"""

import base64
import datetime as dt
import json
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from aiohttp import web
from yarl import URL

from tests.component.fake_api import FakeApi, Json, raw, running, write_kubeconfig
from tests.component.fake_slack import Call, FakeSlack
from tests.component.garbage import ODD, encoded, garbage, garbled
from tests.component.test_alertmanager import ALERTS, SILENCES, STATUS, active, matcher, silence, up
from tests.component.test_records import block, pod, record, verdict
from tests.component.test_scrape import TEXT
from tests.component.test_scrape import pod as scraped_pod
from tests.unit.builders import CAUSE, NOW, decoded, hash_of, history, managed
from tests.unit.test_alert_payload import item
from tests.unit.test_slack_wording import SAMPLES
from watchdog.alertmanager import Alertmanagers, http_peers, read_webhook
from watchdog.config import Alertmanager, Prometheus, RecordKind, Scrape, Signal, Slack, load
from watchdog.decide import guards, limits, marks, pods, status, templates
from watchdog.decide.plan import Request, plan_restore, plan_undo
from watchdog.decide.revisions import read_history
from watchdog.decide.target import service_target
from watchdog.engine import pod_timeline
from watchdog.errors import ClusterError, ConfigError, NotificationError
from watchdog.judge import conditions
from watchdog.judge.blocks import Status, Track, Verdict
from watchdog.judge.conditions import ConditionSettings, Observed
from watchdog.kube import KubeCluster, Reviews, Right, connect
from watchdog.kube.reading import decode
from watchdog.kube.watching import WatchSettings, watch_deployments
from watchdog.notify.slack import SlackNotifier
from watchdog.objects import (
    Autoscaler,
    ConfigMap,
    Deployment,
    LabelSelector,
    Pod,
    ReplicaSet,
    Service,
    Snapshot,
    WorkloadRef,
)
from watchdog.ports import SignalQuery
from watchdog.prometheus import HttpAnswer, PrometheusClient, PrometheusSignals
from watchdog.prometheus import connect as to_prometheus
from watchdog.records import RecordStore
from watchdog.records.form import write
from watchdog.records.store import KEY, PREFIX, expendable
from watchdog.scrape import PodSignals, wanted
from watchdog.scrape.http import Exposition

pytestmark = pytest.mark.looptime(noop_cycles=60)

Feed = Callable[[bytes], Awaitable[object]]
Make = Callable[[random.Random], bytes]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

REF = WorkloadRef("shop", "web")
WEB = "/apis/apps/v1/namespaces/shop/deployments/web"
SHOP = "/apis/apps/v1/namespaces/shop/deployments"
BAKE = dt.timedelta(minutes=15)
RULE = ConditionSettings(crash_restarts=2, crash_share=0.2, image_pull_s=120)
WATCHING = WatchSettings(request_s=5, watch_s=300, inactivity_s=90)


class Border(NamedTuple):
    """One way in.

    Args:
        inputs: how many it gets.
        make: makes one.
        opened: gives what takes one, in a directory for files.
        own: what it may raise.
    """

    inputs: int
    make: Make
    opened: Callable[[Path], AbstractAsyncContextManager[Feed]]
    own: tuple[type[Exception], ...] = ()


# -- valid documents ---------------------------------------------------------------------------------------------------


def cluster_documents() -> dict[str, Json]:
    """A Deployment with everything on it that is read, its ReplicaSets, one of its pods, and what is around it."""
    scene, at = history("v1", "v2"), "2026-03-01T11:59:00Z"
    mark = {"incident": "web-1-aaaa", "from_hash": hash_of("v0"), "to_hash": hash_of("v1"), "from_revision": 1}
    mark |= {"to_revision": 1, "by": "jane", "cause": "x", "at": at}
    notes = {marks.LAST_ROLLBACK: json.dumps(mark), marks.HOLD: "until=2026-03-01T13:00:00Z;drill"}
    scene.deployment["metadata"]["annotations"] |= notes
    scene.deployment["metadata"]["managedFields"] = [
        managed("kubectl", fields={"f:metadata": {"f:annotations": {f"f:{marks.HOLD}": {}}}}),
        managed("rollback-watchdog"),
    ]
    progressing = {"type": "Progressing", "status": "True", "lastUpdateTime": at, "lastTransitionTime": at}
    scene.deployment["status"]["conditions"] = [progressing]
    scene.annotate("v1", marks.PASSED, marks.write_about(hash_of("v1"), at))
    sick = {"name": "web", "imageID": "x", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    sick["lastState"] = {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": at}}
    metadata: Json = {
        "name": "web-1",
        "namespace": "shop",
        "uid": "p1",
        "creationTimestamp": at,
        "deletionTimestamp": at,
    }
    metadata["deletionGracePeriodSeconds"] = 30
    metadata["ownerReferences"] = [{"uid": "uid-of-v2", "controller": True, "kind": "ReplicaSet", "name": "web"}]
    ready = {"type": "Ready", "status": "False", "lastTransitionTime": at}
    status: Json = {"phase": "Running", "podIP": "10.0.0.1", "startTime": at, "conditions": [ready]}
    status["containerStatuses"] = [sick]
    container = {"name": "web", "ports": [{"containerPort": 8080}]}
    return {
        "deployment": scene.deployment,
        "old": scene.replicasets[0],
        "new": scene.replicasets[1],
        "pod": {"metadata": metadata, "spec": {"nodeName": "n", "containers": [container]}, "status": status},
        "service": {"metadata": {"name": "web", "namespace": "shop"}, "spec": {"selector": {"app": "web"}}},
        "scaler": {"metadata": {"name": "web"}, "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}}},
        "map": {"metadata": {"name": "x", "labels": {}}, "data": {"record.json": "{}"}},
    }


DOCUMENTS = cluster_documents()
KINDS: dict[str, type[Any]] = {
    "deployment": Deployment,
    "old": ReplicaSet,
    "new": ReplicaSet,
    "pod": Pod,
    "service": Service,
}
KINDS |= {"scaler": Autoscaler, "map": ConfigMap}
STATUS_BODY: Json = {"kind": "Status", "code": 429, "reason": "TooManyRequests", "message": "x"}
STATUS_BODY |= {"details": {"causes": [{"field": "spec", "reason": "x"}], "retryAfterSeconds": 1}}
LABELS = {"namespace": "shop", "pod": "web-1", "container": "web", "instance": "10.0.0.1:8080", "job": "pods"}
METRIC = {"metric": {"__name__": "requests_total", **LABELS}}
VECTOR = {"resultType": "vector", "result": [{**METRIC, "value": [995.0, "12"]}]}
MATRIX = {"resultType": "matrix", "result": [{**METRIC, "values": [[995.0, "12"], [1010.0, "15"]]}]}
SUCCESS = {"status": "success", "warnings": [], "isPartial": False}
ANSWERS = (
    {**SUCCESS, "data": VECTOR},
    {**SUCCESS, "data": MATRIX},
    {**SUCCESS, "data": [METRIC["metric"]]},
    {"status": "error", "errorType": "bad_data", "error": "what is this?"},
)
WEBHOOK = {"version": "4", "status": "firing", "alerts": [item(), item(status="resolved")]}
QUIET = silence(matcher("alertname", "Rollback.+", regex=True), matcher("namespace", "shop|cart", regex=True))
RECORD = record(
    state="ended",
    ended=NOW,
    pods=tuple(pod(index) for index in range(2)),
    blocks={"errors": (block(1), block(2))},
    verdicts=(verdict(1),),
    write_at=NOW,
)
PAYLOAD = {"incident": SAMPLES["acting"].id, "detail": "x"}
METADATA = {"event_type": "rollback_watchdog", "event_payload": PAYLOAD}
MESSAGE = {"ts": "1700000000.000100", "text": "x", "metadata": METADATA}
SLACK = (
    {"ok": True, "channel": "C0123456789", "ts": "1700000000.000100"},
    {"ok": True, "messages": [MESSAGE]},
    {"ok": True, "channels": [{"id": "C0123456789", "name": "deploys"}], "response_metadata": {"next_cursor": ""}},
    {"ok": False, "error": "ratelimited", "needed": "x"},
)
SETTINGS = """
source = "prometheus"
[kubernetes]
request_timeout = "10s"
[prometheus]
url = "http://prometheus:9090"
headers = { X-Scope-OrgID = "a" }
step = "15s"
[alertmanager]
urls = ["http://alertmanager:9093"]
[server]
listen = "0.0.0.0:8080"
[scrape]
port = 8080
[limits]
budget = 2
cool_down = "30m"
[[policies]]
name = "web"
namespaces = ["shop"]
mode = "enforce"
bake = "15m"
sequential = { alpha = 0.01, blocks = 4 }
alerts = { match = { a = "b" }, confirm = "trust" }
[policies.threshold]
max_ratio = 0.05
max_times_stable = 2.0
[policies.signals.errors]
bad = 'requests_total{code=~"5.."}'
total = "requests_total"
"""


# -- the borders -------------------------------------------------------------------------------------------------------


def some_object(chance: random.Random) -> bytes:
    """The name of one of the cluster's documents, and a changed one."""
    name = chance.choice(list(DOCUMENTS))
    return name.encode() + b" " + garbage(chance, DOCUMENTS[name])


@asynccontextmanager
async def objects(_: Path) -> AsyncIterator[Feed]:
    """What the API server gives, decoded and looked at as a whole."""
    good = {name: decoded(document, KINDS[name]) for name, document in DOCUMENTS.items()}

    async def feed(given: bytes) -> None:
        name, _, body = given.partition(b" ")
        seen: dict[str, Any] = {**good, name.decode(): decode(body, KINDS[name.decode()], operation="get")}
        look_at(seen["deployment"], (seen["old"], seen["new"]), (seen["pod"],), seen["scaler"])
        guards.gitops(seen["service"])
        seen["service"].selects({"app": "web"})

    yield feed


def look_at(deployment: Deployment, sets: tuple[ReplicaSet, ...], found: tuple[Pod, ...], scaler: Autoscaler) -> None:
    """Ask all that the service asks of a Deployment."""
    snapshot = Snapshot(deployment, sets)
    plan_undo(snapshot, Request(cause=CAUSE), now=NOW)
    plan_undo(snapshot, Request(cause=CAUSE, force=True), now=NOW)
    plan_restore(snapshot, condemned_images=frozenset())
    seen = read_history(snapshot)
    service_target(deployment, seen, begun_from=hash_of("v1"), doubtful=(), bake=BAKE, began=NOW, now=NOW)
    for one in seen.all:
        marks.condemned_by(one)
        templates.changes(one.spec.template, deployment.spec.template)
        templates.images(one.spec.template)
    guards.keda(deployment, (scaler,))
    status.rollout_status(deployment)
    marks.read_last_rollback(deployment.metadata.annotations, now=NOW)
    str(deployment.spec.selector)
    pods.explain(found)
    owners = {each.metadata.uid: (Track.CANDIDATE, each.hash) for each in sets}
    pod_timeline.update((), found, owners, since=1, step=2, step_s=15.0, now=NOW.timestamp())
    looked = Observed(
        deployment=deployment,
        candidate=found,
        stable=(),
        stable_template=sets[0].spec.template,
        begun=NOW,
        pulls_fail_elsewhere=False,
    )
    conditions.judge(looked, RULE, now=NOW)


class OddApi(FakeApi):
    """An API server that has one answer to everything."""

    now: Handler

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Give it."""
        return await self.now(request)


@asynccontextmanager
async def answers(directory: Path) -> AsyncIterator[Feed]:
    """Lists, reads, writes and errors of a real HTTP server."""
    async with running(OddApi()) as api, connect(kubeconfig=str(write_kubeconfig(directory, api.url))) as transport:
        cluster, reviews, turn = KubeCluster(transport, watching=WATCHING), Reviews(transport), random.Random(4)
        right = Right("get", "deployments")
        asked: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: cluster.replicasets("shop", LabelSelector(), timeout_s=20),
            lambda: cluster.config_maps("shop", LabelSelector(), timeout_s=20),
            lambda: cluster.patch_deployment(REF, b"[]", dry_run=False, timeout_s=20),
            lambda: reviews.may_i(right, timeout_s=20),
            lambda: reviews.whose("token", audience="rollback-watchdog", timeout_s=20),
        )

        assert isinstance(api, OddApi)

        async def serve(body: bytes, _: web.Request) -> web.StreamResponse:
            code = turn.choice((200, 200, 200, 401, 403, 404, 409, 410, 422, 429, 500, 503))
            headers = {}
            if turn.random() < 0.5:
                after = str(turn.choice(ODD))
                headers = {"Retry-After": after} if after.isprintable() and after.isascii() else {}
            return await raw(body, code=code, headers={name: text[:4000] for name, text in headers.items()})(_)

        async def feed(body: bytes) -> None:
            api.now = partial(serve, body)
            await turn.choice(asked)()

        yield feed


def page(chance: random.Random) -> bytes:
    """An answer to one of those questions."""
    listed = {"metadata": {"resourceVersion": "1", "continue": ""}, "items": [DOCUMENTS["old"], DOCUMENTS["new"]]}
    user = {"username": "jane", "uid": "1", "groups": ["a"], "extra": {"a": ["b"]}}
    review = {"status": {"allowed": True, "user": user, "authenticated": True, "audiences": ["rollback-watchdog"]}}
    return garbage(chance, listed, listed, DOCUMENTS["deployment"], review, STATUS_BODY)


def line(chance: random.Random) -> bytes:
    """One line of a watch."""
    bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "5"}}}
    added = {"type": "MODIFIED", "object": DOCUMENTS["deployment"]}
    error = {"type": "ERROR", "object": {**STATUS_BODY, "code": 410}}
    return garbage(chance, added, added, bookmark, error)


@asynccontextmanager
async def watch(directory: Path) -> AsyncIterator[Feed]:
    """A watch that gets a bad line, and then lists a healthy Deployment: it comes through."""
    healthy = json.dumps(
        {"metadata": {"resourceVersion": "9"}, "items": [{**DOCUMENTS["deployment"], "metadata": {"name": "after"}}]}
    ).encode()
    async with running(OddApi()) as api, connect(kubeconfig=str(write_kubeconfig(directory, api.url))) as transport:
        assert isinstance(api, OddApi)

        async def feed(body: bytes) -> None:
            lists = [b'{"metadata": {"resourceVersion": "1"}, "items": []}', healthy]
            lines = [body + b"\n", b'{"type": "ERROR", "object": {"code": 410}}\n']

            async def serve(request: web.Request) -> web.StreamResponse:
                if "watch" in request.query:
                    return web.Response(body=b"".join(lines))
                return await raw(lists.pop(0) if len(lists) > 1 else lists[0])(request)

            api.now = serve
            changes = watch_deployments(transport, namespace="shop", settings=WATCHING)
            names: set[str] = set()
            while "after" not in names:
                change = await anext(changes)
                names = {each.metadata.name for each in getattr(change, "items", ())}
            await changes.aclose()

        yield feed


QUERY = SignalQuery(bad='requests_total{code=~"5.."}', total="requests_total", namespaces=("shop",), pods=("web-1",))


@asynccontextmanager
async def prometheus(_: Path) -> AsyncIterator[Feed]:
    """Answers of Prometheus, with a Date or what stands for one."""
    turn, given = random.Random(5), b""

    async def send(path: str, form: Mapping[str, str], *, timeout_s: float) -> HttpAnswer:
        date = turn.choice(("Thu, 01 Jan 1970 00:16:40 GMT", "", str(turn.choice(ODD))))
        return HttpAnswer(turn.choice((200, 200, 200, 400, 404, 422)), given, date)

    client = PrometheusClient(send, params={}, clock=lambda: 1000.0, observe=lambda _, __: None)
    signals = PrometheusSignals(client, step_s=15.0, delay_s=5.0)

    async def feed(body: bytes) -> None:
        nonlocal given
        given = body
        match turn.randrange(6):
            case 0:
                for sample in (await signals.read(QUERY, step=67, timeout_s=5)).samples:
                    assert (sample.total or 0.0) - (sample.bad or 0.0) < 1e300
            case 1:
                await signals.read_past(QUERY, first=66, last=67, timeout_s=5)
            case 2:
                await client.metrics_of("shop", ("web-1",), timeout_s=5)
            case 3:
                onset = await signals.onset({"alertname": "x"}, at=1000.0, timeout_s=5)
                assert onset is None or dt.datetime.fromtimestamp(onset, dt.UTC)
            case 4:
                await signals.resets(QUERY, step=67, window_s=60, timeout_s=5)
            case _:
                await signals.bad_seen(QUERY, step=67, timeout_s=5)

    yield feed


@asynccontextmanager
async def webhook(_: Path) -> AsyncIterator[Feed]:
    """The body of a webhook."""

    async def feed(body: bytes) -> None:
        for alert in read_webhook(body):
            alert.starts_at.astimezone(dt.timezone(dt.timedelta(hours=-14))).timestamp()

    yield feed


@asynccontextmanager
async def peers(_: Path) -> AsyncIterator[Feed]:
    """What a peer of Alertmanager lists: it never raises."""
    good = {ALERTS: [active("A")], STATUS: up(1000), SILENCES: [QUIET]}
    turn, given = random.Random(6), b""

    async def send(method: str, path: str, timeout_s: float) -> tuple[int, bytes]:
        which = path.partition("?")[0]
        return 200, given if turn.random() < 0.7 else encoded(good[which])

    source = Alertmanagers({"peer": send})

    async def feed(body: bytes) -> None:
        nonlocal given
        given = body
        for alert in (await source.alerts(timeout_s=5)).alerts:
            alert.starts_at.timestamp()
        silences = await source.silences(timeout_s=5)
        seen = limits.Facts(verdict=verdict_of(), others=(), silences=silences)
        limits.objections(RECORD, seen, LIMITS, now=NOW)

    yield feed


LIMITS = limits.SafetyLimits(
    budget=2, cool_down=dt.timedelta(minutes=30), breaker=3, breaker_all=10, breaker_window=dt.timedelta(minutes=10)
)


def verdict_of() -> Any:

    return Verdict(Status.BREACH, "x", cause="threshold")


class Maps:
    """ConfigMaps or Secrets of the store: one, with what was given."""

    def __init__(self) -> None:
        self.data: dict[str, str] = {}

    async def config_maps(
        self, namespace: str, selector: LabelSelector, *, resource: str, timeout_s: float
    ) -> tuple[ConfigMap, ...]:
        metadata = {"name": PREFIX + RECORD.id}
        return (decoded({"metadata": metadata, "data": self.data}, ConfigMap),)


@asynccontextmanager
async def records(_: Path) -> AsyncIterator[Feed]:
    """Records, as ConfigMaps and as Secrets: what cannot be read is left alone."""
    maps, turn = Maps(), random.Random(7)
    stores = {
        kind: RecordStore(maps, namespace="x", kind=kind, now=lambda: NOW)  # type: ignore[arg-type]
        for kind in RecordKind
    }

    async def feed(body: bytes) -> None:
        kind = turn.choice(list(RecordKind))
        text = body.decode(errors="replace")
        if kind is RecordKind.SECRET:
            text = base64.b64encode(body).decode() if turn.random() < 0.8 else text.replace("\\", "")
        maps.data = {KEY: text}
        found = await stores[kind].all(timeout_s=5)
        expendable(found, now=NOW)
        limits.condemned_images(found, (REF,), now=NOW)
        seen = limits.Facts(verdict=verdict_of(), others=found)
        limits.objections(RECORD, seen, LIMITS, now=NOW)
        for each in found:
            write(each)

    yield feed


@asynccontextmanager
async def exposition(_: Path) -> AsyncIterator[Feed]:
    """What pods expose."""
    turn, given, step = random.Random(8), b"", 0

    async def get(url: URL, *, max_bytes: int) -> Exposition:
        return Exposition(given, turn.random() < 0.5)

    signal = Signal(total="http_requests_total", bad='http_requests_total{code=~"5.."}')
    clock = lambda: step * 5.0 + 1  # noqa: E731
    signals = PodSignals(get, settings=Scrape(port=80), want=wanted((signal,)), clock=clock, observe=lambda _, __: None)
    query = SignalQuery(bad=signal.bad, total=signal.total, namespaces=("shop",), targets=(scraped_pod("web-1"),))

    async def feed(body: bytes) -> None:
        nonlocal given, step
        given, step = body, step + 1
        for sample in (await signals.read(query, step=step, timeout_s=5)).samples:
            assert (sample.total or 0.0) - (sample.bad or 0.0) < 1e300

    yield feed


def exposed(chance: random.Random) -> bytes:
    """An exposition in one of the two forms, changed."""
    strict = '# TYPE http_requests counter\nhttp_requests_total{code="500"} 5 1.0 # {trace_id="a"} 1 1.0\n# EOF\n'
    return garbled(chance, chance.choice((TEXT, strict)))


@asynccontextmanager
async def slack(directory: Path) -> AsyncIterator[Feed]:
    """Slack's answers, over HTTP; sometimes to the first call, sometimes to a later one."""
    turn, token = random.Random(9), directory / "slack-token"
    token.write_text("xoxb-1")
    async with running(FakeSlack()) as server:
        assert isinstance(server, FakeSlack)
        ways = ("chat.postMessage", "chat.update", "conversations.history", "conversations.replies")
        settings = Slack(channel="#deploys", api_url=f"{server.url}/api/", token_file=str(token))

        async def feed(body: bytes) -> None:
            code = turn.choice((200, 200, 200, 429, 503, 400))
            kind = turn.choice(("application/json", "application/json", "text/plain", "text/html", "application/gzip"))
            after = turn.choice(("1", "", "-1", "9" * 400, "Wed, 21 Oct 2015 07:28:00 GMT"))

            async def odd(_: FakeSlack, __: Call, request: web.Request) -> web.StreamResponse:
                return await raw(body, code=code, headers={"Content-Type": kind, "Retry-After": after})(request)

            server.messages.clear()
            server.trouble(turn.choice((*ways, "users.conversations", "auth.test")), odd)
            notifier = SlackNotifier(settings, approval_s=600)
            try:
                if turn.random() < 0.1:
                    await notifier.check()
                else:
                    await notifier.tell(SAMPLES["acting"])
                    await notifier.tell(SAMPLES["recovered"])
            finally:
                await notifier.close()

        yield feed


@asynccontextmanager
async def configuration(directory: Path) -> AsyncIterator[Feed]:
    """A configuration's file; its error names the place."""
    path = directory / "config.toml"

    async def feed(body: bytes) -> None:
        path.write_bytes(body)
        load(path)

    yield feed


@asynccontextmanager
async def token_files(directory: Path) -> AsyncIterator[Feed]:
    """Files with tokens, passwords and kubeconfigs, whatever they hold."""
    turn, secret = random.Random(11), directory / "secret"
    async with running(FakeApi()) as api:
        api.answer("GET", WEB, raw(encoded(DOCUMENTS["deployment"])))
        api.answer("POST", "/api/v1/query", raw(encoded(ANSWERS[0])))
        api.answer("GET", ALERTS, raw(b"[]"))
        path = write_kubeconfig(directory, api.url)
        healthy = path.read_text()

        async def feed(body: bytes) -> None:
            secret.write_bytes(body)
            match turn.randrange(4):
                case 0:
                    (directory / "token").write_bytes(body)
                    path.write_text(healthy)
                    async with connect(kubeconfig=str(path)) as transport:
                        await KubeCluster(transport, watching=WATCHING).deployment(REF, timeout_s=0.1)
                case 1:
                    (directory / "token").write_text("x")
                    path.write_bytes(body)
                    async with connect(kubeconfig=str(path)):
                        pass
                case 2:
                    held = Prometheus(url=api.url, bearer_token_file=str(secret))
                    named = Prometheus(url=api.url, username="a", password_file=str(secret))
                    settings = turn.choice((held, named))
                    async with to_prometheus(settings, clock=lambda: 0.0) as client:
                        await client.query("x", timeout_s=0.1)
                case _:
                    settings_ = Alertmanager(urls=(api.url,), bearer_token_file=str(secret))
                    await Alertmanagers(http_peers(settings_)).alerts(timeout_s=0.1)

        yield feed


def secrets(chance: random.Random) -> bytes:
    """A token, or a kubeconfig."""
    config = {"current-context": "a", "contexts": [{"name": "a", "context": {"cluster": "c", "user": "u"}}]}
    config |= {"clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}]}
    config |= {"users": [{"name": "u", "user": {"token": "x"}}]}
    odd = chance.choice(ODD)
    return chance.choice((garbage(chance, config), str(odd).encode(), b"tok\nen", b"t\xc3\xb6ken", b"\x00", b"a b"))


def of(*valid: Any) -> Make:
    """Make JSON of these documents."""
    return lambda chance: garbage(chance, *valid)


BORDERS = {
    "objects of the API server": Border(8000, some_object, objects, (ClusterError,)),
    "lists, reads, writes and errors of the API server": Border(1200, page, answers, (ClusterError,)),
    "watches": Border(250, line, watch),
    "Prometheus": Border(3500, of(*ANSWERS), prometheus),
    "Alertmanager's webhook": Border(2000, of(WEBHOOK), webhook, (ValueError,)),
    "Alertmanager's API": Border(1500, of([active("A")], up(1000), [QUIET], [QUIET]), peers),
    "records": Border(2000, of(msgspec.json.decode(write(RECORD))), records),
    "pods' metrics": Border(2000, exposed, exposition),
    "Slack": Border(150, of(*SLACK), slack, (NotificationError,)),
    "token files": Border(300, secrets, token_files, (ClusterError, ConfigError)),
    "configuration": Border(1500, lambda chance: garbled(chance, SETTINGS), configuration, (ConfigError,)),
}


@pytest.mark.parametrize("name", BORDERS)
async def test_a_border_raises_only_its_own_error(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)  # pytest would keep every line
    border, chance = BORDERS[name], random.Random(name)
    async with border.opened(tmp_path) as feed:
        for number in range(border.inputs):
            given = border.make(chance)
            try:
                await feed(given)
            except border.own:
                pass
            except BaseException as error:
                raise AssertionError(f"input {number} of {name}: {given[:2000]!r}") from error


def test_the_borders_get_enough_inputs() -> None:
    assert sum(border.inputs for border in BORDERS.values()) >= 20_000
