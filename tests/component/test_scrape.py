"""Pods that are read directly: what they answer, what is refused, and what becomes of it."""

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import pytest
from aiohttp import web
from yarl import URL

from tests.component.world import SETTINGS, World
from tests.unit.builders import decoded, hash_of
from watchdog.config import Scrape, Seconds, Signal, parse
from watchdog.decide.record import State
from watchdog.engine.act import Actor
from watchdog.engine.context import Context, Ports
from watchdog.engine.service import WatchdogService
from watchdog.engine.verify import Patience
from watchdog.engine.watch import Watch, query_of
from watchdog.judge.blocks import BlindReason, Reading, Sample, ScrapeTarget
from watchdog.metrics import Channel, Metrics
from watchdog.model import Outcome
from watchdog.objects import LabelSelector, Pod
from watchdog.ports import SignalQuery
from watchdog.scrape import PodSignals, connect, wanted
from watchdog.scrape.exposition import read
from watchdog.scrape.http import Exposition, Unusable
from watchdog.scrape.signals import NO_PAST
from watchdog.scrape.targets import Target, target

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
ERRORS = Signal(total="http_requests_total", bad='http_requests_total{code=~"5.."}')
AGENT = Signal(total="agent_requests_total", bad="agent_errors_total")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Pods:
    """Real servers on addresses of the loopback network, and the pods that the API server would show of them."""

    def __init__(self) -> None:
        self.pods: list[Pod] = []
        self.asked: list[web.Request] = []
        self._runners: list[web.AppRunner] = []

    async def add(self, answer: str | bytes | Handler, *, kind: str = "text/plain", packed: bool = False) -> Pod:
        """One more pod, with what it answers."""

        async def handle(request: web.Request) -> web.StreamResponse:
            self.asked.append(request)
            if callable(answer):
                return await answer(request)
            body = answer.encode() if isinstance(answer, str) else answer
            headers = {"Content-Type": kind, **({"Content-Encoding": "gzip"} if packed else {})}
            return web.Response(body=gzip.compress(body) if packed else body, headers=headers)

        number = len(self.pods) + 1
        application = web.Application()
        application.router.add_get("/{path:.*}", handle)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        self._runners.append(runner)
        address = f"127.9.0.{number}"
        site = web.TCPSite(runner, address, 0)
        await site.start()
        port = runner.addresses[0][1]
        found = pod(f"web-{number}", address, annotations={"prometheus.io/port": str(port)})
        self.pods.append(found)
        return found

    def query(self, signal: Signal = ERRORS) -> SignalQuery:
        """What the engine asks of a signal."""
        return query_of(signal, {"shop"}, targets=tuple(self.pods))

    async def close(self) -> None:
        for runner in self._runners:
            await runner.cleanup()


def pod(name: str, address: str = "127.9.0.1", *, annotations: Mapping[str, str] | None = None, **status: Any) -> Pod:
    containers = [
        {"name": "proxy", "ports": [{"containerPort": 15090}]},
        {"name": "app", "ports": [{"containerPort": 8080}]},
    ]
    return decoded(
        {
            "metadata": {"name": name, "namespace": "shop", "uid": name, "annotations": dict(annotations or {})},
            "spec": {"containers": containers},
            "status": {"phase": "Running", "podIP": address, **status},
        },
        Pod,
    )


@pytest.fixture
async def pods() -> AsyncIterator[Pods]:
    found = Pods()
    yield found
    await found.close()


class Reader:
    """The adapter with a clock that a test moves, beginning in the middle of step 200."""

    def __init__(self, signals: PodSignals, clock: list[float]) -> None:
        self.signals = signals
        self._clock = clock

    async def read(self, query: SignalQuery, step: int = 200) -> Reading:
        self._clock[0] = step * 5.0 + 0.1
        return await self.signals.read(query, step=step, timeout_s=5)


@pytest.fixture
async def reader(request: pytest.FixtureRequest) -> AsyncIterator[Reader]:
    clock = [1000.1]
    settings = Scrape(**{"timeout": Seconds(0.5), **getattr(request, "param", {})})
    join = msgspec.structs.replace(AGENT, join="deployment", candidate="canary", stable="stable")
    good = Signal(total="http_requests_total", good='http_requests_total{code!~"5.."}')
    named = Signal(total='http_requests_total{job="pods",pod=~"web-.+",exported_pod="mine"}', bad="agent_errors_total")
    async with connect(concurrency=settings.concurrency) as get:
        signals = PodSignals(
            get,
            settings=settings,
            want=wanted([ERRORS, AGENT, join, good, named]),
            clock=lambda: clock[0],
            observe=lambda _outcome, _seconds: None,
        )
        yield Reader(signals, clock)


def values(reading: Reading) -> Sequence[tuple[str, float | None, float | None]]:
    return [(sample.row.pod, sample.total, sample.bad) for sample in reading.samples]


TEXT = """# HELP http_requests_total All of them.
# TYPE http_requests_total counter
http_requests_total{code="200",path="/"} 90
http_requests_total{code="200",path="/a \\"b\\" # {x}"} 5
http_requests_total{code="503",path="/"} 5
http_requests_total_other{code="503"} 1000
"""
OPEN = """# HELP http_requests All of them.
# TYPE http_requests counter
http_requests_total{code="200",path="/"} 90.0 # {trace_id="a b"} 1.0 1700000000.5
http_requests_total{code="200",path="/a \\"b\\" # {x}"} 5.0
http_requests_total{code="503",path="/"} 5.0
http_requests_created{code="503",path="/"} 1.7e9
# TYPE http_requests_total_other gauge
http_requests_total_other{code="503"} 1000
# EOF
"""

# -- what is read ------------------------------------------------------------------------------------------------------


async def test_both_formats_give_the_same_rows(pods: Pods, reader: Reader) -> None:
    await pods.add(TEXT)
    await pods.add(OPEN, kind=OPENMETRICS)
    await pods.add(OPEN, kind=OPENMETRICS, packed=True)
    reading = await reader.read(pods.query())
    assert values(reading) == [("web-1", 100, 5), ("web-2", 100, 5), ("web-3", 100, 5)]
    port = pods.pods[0].metadata.annotations["prometheus.io/port"]
    assert reading.samples[0].row == ScrapeTarget("shop", "web-1", "proxy", f"127.9.0.1:{port}", "pods")
    assert reading.samples[0].at == 1000.1


async def test_nothing_secret_is_sent_and_both_formats_are_asked_for(pods: Pods, reader: Reader) -> None:
    await pods.add(TEXT)
    await reader.read(pods.query())
    (asked,) = pods.asked
    assert asked.path == "/metrics"
    assert "application/openmetrics-text" in asked.headers["Accept"]
    assert not {"Authorization", "Cookie", "Proxy-Authorization"} & set(asked.headers)


async def test_every_pod_is_asked_once_a_step_whoever_asks(pods: Pods, reader: Reader) -> None:
    await pods.add(TEXT)
    await asyncio.gather(*(reader.read(pods.query(signal)) for signal in (ERRORS, AGENT, ERRORS)))
    assert len(pods.asked) == 1
    await reader.read(pods.query(), 201)
    assert len(pods.asked) == 2


async def test_successes_are_taken_from_the_total(pods: Pods, reader: Reader) -> None:
    await pods.add(TEXT)
    good = Signal(total="http_requests_total", good='http_requests_total{code!~"5.."}')
    assert values(await reader.read(pods.query(good))) == [("web-1", 100, 5)]


async def test_own_labels_give_way_to_those_of_the_target(pods: Pods, reader: Reader) -> None:
    await pods.add('http_requests_total{pod="mine",job="theirs"} 7\nhttp_requests_total{pod="other"} 8\n')
    named = Signal(total='http_requests_total{job="pods",pod=~"web-.+",exported_pod="mine"}', bad="agent_errors_total")
    assert values(await reader.read(pods.query(named))) == [("web-1", 7, None)]


async def test_joined_tracks_are_rows_of_their_own(pods: Pods, reader: Reader) -> None:
    await pods.add(
        'agent_requests_total{deployment="canary"} 10\nagent_requests_total{deployment="stable"} 90\n'
        'agent_errors_total{deployment="canary"} 3\n'
    )
    join = msgspec.structs.replace(AGENT, join="deployment", candidate="canary", stable="stable")
    reading = await reader.read(pods.query(join))
    assert [(each.row.label, each.row.pod, each.total, each.bad) for each in reading.samples] == [
        ("canary", "", 10, 3),
        ("stable", "", 90, None),
    ]


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        ("# TYPE agent_errors_total counter\nagent_requests_total 5\n", True),
        ("# HELP agent_errors_total Failures.\nagent_requests_total 5\n", True),
        ("agent_errors_total 0\n", True),
        ("# TYPE agent_errors_total_of_another counter\nagent_requests_total 5\n", False),
    ],
)
async def test_failures_are_known_where_their_metric_is_exposed(
    pods: Pods, reader: Reader, body: str, seen: bool
) -> None:
    await pods.add(body)
    assert await reader.signals.bad_seen(pods.query(AGENT), step=200, timeout_s=5) is seen


async def test_the_family_of_openmetrics_makes_a_metric_known(pods: Pods, reader: Reader) -> None:
    await pods.add("# TYPE agent_errors counter\n# EOF\n", kind=OPENMETRICS)
    assert await reader.signals.bad_seen(pods.query(AGENT), step=200, timeout_s=5)


# -- what is not -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        TEXT + 'http_requests_total{code="500} 1\n',
        TEXT + "http_requests_total much\n",
        TEXT + 'http_requests_total{code="503",path="/"} 5\n',
        TEXT + 'http_requests_total{code="500"} NaN\n',
        TEXT + 'http_requests_total{code="500"} +Inf\n',
    ],
    ids=["quotes", "number", "twice", "nan", "infinity"],
)
async def test_what_is_no_count_blinds_the_row_of_that_pod_only(pods: Pods, reader: Reader, body: str) -> None:
    await pods.add(body)
    await pods.add(TEXT)
    assert values(await reader.read(pods.query())) == [("web-1", None, None), ("web-2", 100, 5)]


async def test_an_openmetrics_body_that_is_cut_off_blinds_its_row(pods: Pods, reader: Reader) -> None:
    await pods.add(OPEN.removesuffix("# EOF\n"), kind=OPENMETRICS)
    assert values(await reader.read(pods.query())) == [("web-1", None, None)]


async def test_lines_of_other_metrics_are_not_even_parsed(pods: Pods, reader: Reader) -> None:
    await pods.add('broken{ 1\nmore broken "\n' + TEXT)
    assert values(await reader.read(pods.query())) == [("web-1", 100, 5)]


async def test_a_pod_that_does_not_answer_is_a_missing_row_and_never_zero(pods: Pods, reader: Reader) -> None:
    async def away(request: web.Request) -> web.StreamResponse:
        return web.Response(status=503, text=TEXT)

    await pods.add(away)
    await pods.add(TEXT)
    assert values(await reader.read(pods.query())) == [("web-2", 100, 5)]


async def test_a_redirect_is_not_followed(pods: Pods, reader: Reader) -> None:
    async def elsewhere(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound(f"http://127.9.0.2:{pods.pods[1].metadata.annotations['prometheus.io/port']}/metrics")

    await pods.add(elsewhere)
    second = await pods.add(TEXT)
    pods.pods.remove(second)
    pods.pods.append(second)
    assert values(await reader.read(pods.query())) == [("web-2", 100, 5)]
    assert len(pods.asked) == 2


@pytest.mark.parametrize("reader", [{"max_bytes": 100_000}], indirect=True)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
async def test_an_answer_that_is_too_long_is_none(pods: Pods, reader: Reader, packed: bool) -> None:
    await pods.add(TEXT.encode() + b"#" * 5_000_000, packed=packed)
    await pods.add(TEXT)
    assert values(await reader.read(pods.query())) == [("web-2", 100, 5)]


@pytest.mark.parametrize("reader", [{"concurrency": 1}], indirect=True)
async def test_a_slow_pod_holds_up_neither_the_step_nor_twice_the_others(pods: Pods, reader: Reader) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(5)
        return web.Response(text=TEXT)

    await pods.add(slow)
    for _ in range(5):
        await pods.add(TEXT)
    began = time.monotonic()
    everybody = [(f"web-{number}", 100, 5) for number in range(2, 7)]
    assert values(await reader.read(pods.query())) == everybody
    assert time.monotonic() - began < 2
    pods.asked.clear()
    assert values(await reader.read(pods.query(), 201)) == everybody
    assert pods.asked[-1].host.startswith("127.9.0.1:")


@pytest.mark.parametrize("reader", [{"max_pods": 2}], indirect=True)
async def test_more_pods_than_are_allowed_are_blind_and_not_a_choice_of_them(pods: Pods, reader: Reader) -> None:
    for _ in range(3):
        await pods.add(TEXT)
    blind = (await reader.read(pods.query())).blind
    assert blind is not None
    assert blind.reason is BlindReason.PARTIAL
    assert not pods.asked


# -- the past ----------------------------------------------------------------------------------------------------------


async def test_a_step_is_given_again_as_it_was_and_what_was_not_read_is_blind(pods: Pods, reader: Reader) -> None:
    count = iter((10, 30))

    async def counting(request: web.Request) -> web.StreamResponse:
        return web.Response(text=f'http_requests_total{{code="200"}} {next(count)}\n')

    await pods.add(counting)
    live = [await reader.read(pods.query(), step) for step in (200, 201)]
    past = await reader.signals.read_past(pods.query(), first=198, last=201, timeout_s=5)
    assert list(past[2:]) == live
    assert [reading.blind.reason for reading in past if reading.blind] == [BlindReason.STALE] * 2
    assert [sample.total for reading in live for sample in reading.samples] == [10, 30]


async def test_counters_that_went_down_are_counted_by_row(pods: Pods, reader: Reader) -> None:
    count = iter((10, 3, 9, 2))

    async def counting(request: web.Request) -> web.StreamResponse:
        return web.Response(text=f"http_requests_total {next(count)}\n")

    await pods.add(counting)
    rows = [(await reader.read(pods.query(), step)).samples[0].row for step in range(200, 204)]
    found = await reader.signals.resets(pods.query(), step=203, window_s=3600, timeout_s=5)
    assert found == {rows[0]: 2}
    assert await reader.signals.resets(pods.query(), step=203, window_s=5, timeout_s=5) == {rows[0]: 1}


# -- where a pod is asked ----------------------------------------------------------------------------------------------


def where(found: Pod, **settings: Any) -> Target:
    there = target(found, Scrape(**settings))
    assert isinstance(there, Target), there
    return there


def test_annotations_choose_port_and_path_and_never_the_host() -> None:
    notes = {"prometheus.io/port": "8080", "prometheus.io/path": "/@evil.example/#x", "prometheus.io/scheme": "https"}
    there = where(pod("a", "10.0.0.1", annotations=notes))
    assert (there.url.scheme, there.url.host, there.url.port) == ("https", "10.0.0.1", 8080)
    assert there.url.path == "/@evil.example/#x"
    assert there.container == "app"


def test_an_ipv6_pod_has_its_address_in_brackets() -> None:
    there = where(pod("a", "fd00::1"), port=9100)
    assert (there.instance, str(there.url)) == ("[fd00::1]:9100", "http://[fd00::1]:9100/metrics")


@pytest.mark.parametrize(
    "address", ["evil.example", "169.254.169.254", "::ffff:169.254.169.254", "224.0.0.1", "fe80::1"]
)
def test_what_is_no_address_of_a_pod_is_never_asked(address: str) -> None:
    assert "address" in str(target(pod("a", address), Scrape(port=80)))


@pytest.mark.parametrize(
    ("notes", "why"),
    [
        ({}, "declares 2 ports"),
        ({"prometheus.io/port": "99999"}, "no port"),
        ({"prometheus.io/port": "80", "prometheus.io/path": "http://evil.example/"}, "path"),
        ({"prometheus.io/port": "80", "prometheus.io/scheme": "file"}, "scheme"),
        ({"prometheus.io/port": "80", "prometheus.io/scrape": "false"}, "says false"),
    ],
)
def test_a_pod_that_cannot_be_asked_says_why(notes: Mapping[str, str], why: str) -> None:
    assert why in str(target(pod("a", annotations=notes), Scrape()))


def test_a_pod_without_an_address_is_waited_for() -> None:
    assert target(pod("a", ""), Scrape(port=80)) == ""


# -- cost --------------------------------------------------------------------------------------------------------------


def test_five_megabytes_with_two_wanted_metrics_take_no_time() -> None:
    line = 'go_other_seconds_bucket{{handler="/api/v1/things",le="{0}"}} {0}\n'
    body = ("".join(line.format(number) for number in range(90_000)) + TEXT).encode()
    assert len(body) > 5_000_000
    began = time.process_time()
    exposed = read(Exposition(body, openmetrics=False), wanted([ERRORS, AGENT]), {"pod": "web-1"})
    assert time.process_time() - began < 0.5  # 0.01 s alone; the parser takes 2 s of it all
    assert exposed.sums[ERRORS.total, ""] == {"": 100}


# -- the whole way -----------------------------------------------------------------------------------------------------


class ScrapedWorld(World):
    """The world in memory, whose counters are read from its pods."""

    def __init__(self, *, policy: str = 'mode = "enforce"', rule: str = "threshold") -> None:
        super().__init__(policy=policy)
        source = 'source = "pods"\n[scrape]\nstep = "1s"\ntimeout = "500ms"\n'
        self.config = parse(source + SETTINGS.format(policy=policy, rule=rule))
        self.asked: set[str] = set()

    def start(self) -> WatchdogService:
        signals = PodSignals(
            self.ask,
            settings=self.config.scrape,
            want=wanted(self.config.policies[0].signals.values()),
            clock=lambda: self.now().timestamp(),
            observe=lambda _outcome, _seconds: None,
        )
        actor = Actor(self, patience=Patience(request_s=2, observed_s=2, verify_s=10), now=self.now)
        ports = Ports(
            cluster=self, store=self, actor=actor, signals=signals, alerts=None, channels={Channel.SLACK: self}
        )
        return WatchdogService(Context(self.config, ports, Metrics(), now=self.now), self)

    async def pods(self, namespace: str, selector: LabelSelector, *, timeout_s: float) -> tuple[Pod, ...]:
        replace = msgspec.structs.replace
        return tuple(
            replace(
                found,
                metadata=replace(
                    found.metadata,
                    annotations={"prometheus.io/port": "80", "prometheus.io/path": f"/{found.metadata.name}"},
                ),
                status=replace(found.status, pod_ip="10.0.0.1"),
            )
            for found in await super().pods(namespace, selector, timeout_s=timeout_s)
        )

    async def ask(self, url: URL, *, max_bytes: int) -> Exposition:
        """The way to the pods: each shows what it has counted up to now."""
        name = url.path[1:]
        self.asked.add(name)
        now = self.now().timestamp()
        samples = [each for each in await self._samples(now) if each.row.pod == name]
        if not samples:
            raise Unusable("connection refused")
        return Exposition(
            f"requests_total {samples[0].total}\nerrors_total {samples[0].bad}\n".encode(), openmetrics=False
        )

    async def _samples(self, now: float) -> tuple[Sample, ...]:
        reading = await World.read(self, query_of(ERRORS, {"shop"}), step=int(now), timeout_s=1)
        return reading.samples


@pytest.mark.looptime
async def test_a_bad_version_is_undone_by_what_its_pods_say() -> None:
    world = ScrapedWorld()
    world.errors["bad"] = 0.4

    async def story() -> None:
        await asyncio.sleep(3)
        world.deploy("bad")

    task = asyncio.create_task(story())
    await world.live(60)
    await task
    record = next(each for each in world.records.values() if each.rollout.revision > 1)
    assert (record.state, record.outcome) == (State.ENDED, Outcome.RECOVERED)
    assert "patch" in world.writes
    assert any(hash_of("bad") in name for name in world.asked)


@pytest.mark.looptime
async def test_a_good_version_is_left_alone_by_what_its_pods_say() -> None:
    world = ScrapedWorld()

    async def story() -> None:
        await asyncio.sleep(3)
        world.deploy("fix")

    task = asyncio.create_task(story())
    await world.live(60)
    await task
    record = next(each for each in world.records.values() if each.rollout.revision > 1)
    assert (record.state, record.outcome) == (State.ENDED, Outcome.PASSED)
    assert "patch" not in world.writes


@pytest.mark.looptime
async def test_a_process_that_reads_pods_starts_afresh_where_another_was_killed_and_says_so() -> None:
    world = ScrapedWorld(rule="sequential")
    world.errors["bad"] = 0.01
    before, died = await lived(world, 8.5, deploy_at=2)
    world.revive()
    after, _ = await lived(world, 3)
    told = {each.step: each.blind for each in after.blocks["errors"]}
    missed = [step for step in told if step < died]
    assert len(missed) > 4
    assert {told[step] for step in missed} == {NO_PAST}
    assert 'source = "pods" has no past, it starts afresh' in NO_PAST.detail
    assert not any(blind for step, blind in told.items() if step > died + 1)
    # What the pods counted before is nobody's evidence: it came in one piece, and is not judged.
    judged = [sum(each.candidate.total for each in watch.blocks["errors"]) for watch in (before, after)]
    assert 0 < judged[1] < judged[0]
    again = sum(each.candidate.total for each in after.blocks["errors"] if each.step > died + 1)
    assert judged[1] == again


async def lived(world: ScrapedWorld, seconds: float, *, deploy_at: float | None = None) -> tuple[Watch, int]:
    """Let a process live and be killed; give its only watch and the step in which it died."""
    service = world.start()
    task = asyncio.create_task(service.run())
    if deploy_at is not None:
        await asyncio.sleep(deploy_at)
        world.deploy("bad")
    await asyncio.sleep(seconds - (deploy_at or 0))
    world.dead.set()
    while not task.done():  # the dead never answer, and whoever waits for them is cut off again
        task.cancel()
        await asyncio.wait({task}, timeout=1)
    [record] = [each for each in service.context.records.values() if each.rollout.revision > 1]
    seen = service.poller.last(record.id)
    assert seen
    return seen.watch, seen.step
