"""The client and its answers: what is sent, what is repeated, and what is never taken for a number."""

import asyncio
import logging
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from email.utils import formatdate
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from tests.component.fake_api import Answer as Script
from tests.component.fake_api import FakeApi, Stream, cut, hang, no_bytes, raw
from tests.component.fake_prometheus import QUERY, QUERY_RANGE, by_query, forms, matrix, refused, result, vector
from watchdog.config import Prometheus
from watchdog.errors import ConfigError
from watchdog.judge.blocks import Blind, BlindReason, Reading, Sample, ScrapeTarget
from watchdog.ports import SignalQuery
from watchdog.prometheus import HttpAnswer, PrometheusClient, PrometheusSignals, Series, Unreachable, connect
from watchdog.prometheus.http import LONGEST_BODY

pytestmark = pytest.mark.looptime(noop_cycles=400)

ONE = vector(({"pod": "a"}, 3))
STEP_S, DELAY_S = 15, 5
SIGNAL = SignalQuery(bad="bad_total", total="all_total", namespaces=("shop",))
POD = {"namespace": "shop", "pod": "a", "container": "c", "instance": "i", "job": "j"}


@pytest.fixture
async def client(api: FakeApi) -> AsyncIterator[PrometheusClient]:
    """The way to that server."""
    async with connect(Prometheus(url=api.url), clock=time.time) as client:
        yield client


@pytest.fixture
def signals(client: PrometheusClient) -> PrometheusSignals:
    """The questions of the judge."""
    return PrometheusSignals(client, step_s=STEP_S, delay_s=DELAY_S)


async def ask(client: PrometheusClient, *, timeout_s: float = 10) -> tuple[Series, ...] | Blind:
    return await client.query("up", time=1000, timeout_s=timeout_s)


async def blind(client: PrometheusClient, *, timeout_s: float = 10) -> Blind:
    found = await ask(client, timeout_s=timeout_s)
    assert isinstance(found, Blind)
    return found


# -- what is sent ------------------------------------------------------------------------------------------------------


async def test_a_question_is_a_form_with_its_time_and_a_shorter_deadline_for_the_server(
    api: FakeApi, client: PrometheusClient
) -> None:
    api.answer("POST", QUERY, ONE)
    found = await client.query('x{a="😀&=+"}', time=1234.5, timeout_s=10)
    assert forms(api) == [{"query": 'x{a="😀&=+"}', "time": "1234.500", "timeout": "9000ms"}]
    assert found == (Series({"pod": "a"}, {1000.0: 3.0}),)
    assert api.seen[0].headers["User-Agent"].startswith("rollback-watchdog/")


async def test_prefix_parameters_and_headers_go_with_every_question(api: FakeApi) -> None:
    api.answer("POST", "/select/0/prometheus" + QUERY, ONE)
    settings = Prometheus(
        url=api.url + "/select/0/prometheus/", params={"partial_response": "false"}, headers={"X-Scope-OrgID": "shop"}
    )
    async with connect(settings, clock=time.time) as client:
        assert not isinstance(await client.query("up", timeout_s=10), Blind)
    (form,) = forms(api, "/select/0/prometheus" + QUERY)
    assert form == {"query": "up", "partial_response": "false", "timeout": "9000ms"}
    assert api.seen[0].headers["X-Scope-OrgID"] == "shop"


async def test_secrets_are_read_anew_for_each_question(api: FakeApi, tmp_path: Path) -> None:
    api.answer("POST", QUERY, ONE)
    secret = tmp_path / "secret"
    secret.write_text("first\n")
    async with connect(Prometheus(url=api.url, bearer_token_file=str(secret)), clock=time.time) as client:
        await ask(client)
        secret.write_text("second\n")
        await ask(client)
    async with connect(Prometheus(url=api.url, username="u", password_file=str(secret)), clock=time.time) as client:
        await ask(client)
    sent = [seen.headers["Authorization"] for seen in api.seen]
    assert sent == ["Bearer first", "Bearer second", "Basic dTpzZWNvbmQ="]


@pytest.mark.parametrize("content", [None, b"\xff", b"two\nlines hunter2"])
async def test_a_secret_that_cannot_be_read_is_no_answer_and_not_told(
    api: FakeApi, tmp_path: Path, content: bytes | None
) -> None:
    secret = tmp_path / "secret"
    if content is not None:
        secret.write_bytes(content)
    async with connect(Prometheus(url=api.url, bearer_token_file=str(secret)), clock=time.time) as client:
        found = await blind(client)
    assert found.reason is BlindReason.UNREACHABLE
    assert "hunter2" not in found.detail
    assert not api.seen


@pytest.mark.skipif(shutil.which("openssl") is None, reason="NO TEST of certificates without openssl: install it")
async def test_server_and_client_prove_themselves_by_certificates(api: FakeApi, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert", tmp_path / "key"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    await asyncio.to_thread(subprocess.run, [*command.split(), *names], check=True, capture_output=True)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=cert)
    server.load_cert_chain(cert, key)
    server.verify_mode = ssl.CERT_REQUIRED
    api.answer("POST", QUERY, ONE)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", api.serve)
    runner = web.AppRunner(application, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server).start()
    trusted = Prometheus(url=f"https://127.0.0.1:{runner.addresses[0][1]}", ca_file=str(cert))
    proven = msgspec.structs.replace(trusted, cert_file=str(cert), key_file=str(key))
    for settings, passes in ((trusted, False), (proven, True), (msgspec.structs.replace(proven, ca_file=""), False)):
        async with connect(settings, clock=time.time) as client:
            assert isinstance(await ask(client, timeout_s=1), Blind) is not passes
    await runner.cleanup()


async def test_certificates_that_are_not_there_are_a_configuration_error(tmp_path: Path) -> None:
    settings = Prometheus(url="https://127.0.0.1:1", ca_file=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="ca_file"):
        async with connect(settings, clock=time.time):
            pass


# -- another way -------------------------------------------------------------------------------------------------------


class Way:
    """A way that is not HTTP: what it was asked, and the date of its answers."""

    def __init__(self, *answers: HttpAnswer | Unreachable) -> None:
        self.asked: list[tuple[str, Mapping[str, str], float]] = []
        self._answers = list(answers)

    async def __call__(self, path: str, form: Mapping[str, str], *, timeout_s: float) -> HttpAnswer:
        self.asked.append((path, form, timeout_s))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Unreachable):
            raise answer
        return answer


NOTHING = b'{"status":"success","data":{"resultType":"vector","result":[]}}'


async def test_a_service_is_reached_in_the_way_that_was_given() -> None:
    way = Way(Unreachable("no endpoints"), HttpAnswer(200, NOTHING))
    async with connect(Prometheus(url="service://monitoring/prometheus:9090"), clock=time.time, send=way) as client:
        assert await ask(client) == ()
    assert [path for path, _, _ in way.asked] == [QUERY, QUERY]
    assert way.asked[0][2] == 10
    assert way.asked[1][2] <= 10


async def test_a_service_without_a_way_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=re.escape("prometheus.url: ")):
        async with connect(Prometheus(url="service://monitoring/prometheus:9090"), clock=time.time):
            pass


async def test_the_own_clock_counts_where_answers_have_no_date_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with connect(Prometheus(), clock=time.time, send=Way(HttpAnswer(200, NOTHING))) as client:
        assert [await ask(client), await ask(client)] == [(), ()]
        assert client.skew_s == 0
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


# -- clocks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ahead_s", "usable"), [(31, False), (29, True), (0, True), (-29, True), (-31, False)])
async def test_clocks_more_than_30_s_apart_blind(api: FakeApi, *, ahead_s: int, usable: bool) -> None:
    api.answer("POST", QUERY, vector(headers={"Date": formatdate(1_700_000_000 + ahead_s, usegmt=True)}))
    async with connect(Prometheus(url=api.url), clock=lambda: 1_700_000_000) as client:
        found = await ask(client)
        assert client.skew_s == ahead_s
    assert found == () if usable else isinstance(found, Blind) and found.reason is BlindReason.SKEW


# -- what is no number -------------------------------------------------------------------------------------------------

SAMPLE = {"metric": {}, "value": [1000, "1"]}
HISTOGRAM = {"count": "1", "sum": "1", "buckets": []}


NO_NUMBERS = {
    "NaN": (vector(({}, "NaN")), BlindReason.PARTIAL, "NaN"),
    "infinite": (vector(({}, "+Inf")), BlindReason.PARTIAL, "infinity"),
    "minus-infinite": (vector(({}, "-Inf")), BlindReason.PARTIAL, "infinity"),
    "no-number": (vector(({}, "many")), BlindReason.PARTIAL, "NaN"),
    "one-NaN-of-two": (vector(({}, 1), ({"a": "b"}, "NaN")), BlindReason.PARTIAL, "NaN"),
    "histogram": (result("vector", [{"metric": {}, "histogram": [1000, HISTOGRAM]}]), BlindReason.PARTIAL, "histogram"),
    "histogram-beside-value": (
        result("vector", [{**SAMPLE, "histogram": [1000, HISTOGRAM]}]),
        BlindReason.PARTIAL,
        "histogram",
    ),
    "no-value": (result("vector", [{"metric": {}}]), BlindReason.PARTIAL, "histogram"),
    "scalar": (result("scalar", [1000, "1"]), BlindReason.PARTIAL, "a scalar, not a vector"),
    "string": (result("string", [1000, "1"]), BlindReason.PARTIAL, "a string, not a vector"),
    "matrix": (matrix(({}, {1000: 1})), BlindReason.PARTIAL, "a matrix, not a vector"),
    "twice": (vector(({"a": "b"}, 1), ({"a": "b"}, 2)), BlindReason.PARTIAL, "same labels twice"),
    "warnings": (vector(({}, 1), warnings=["no StoreAPIs\nmatched"]), BlindReason.PARTIAL, "no StoreAPIs matched"),
    "partial": (vector(({}, 1), isPartial=True), BlindReason.PARTIAL, "isPartial"),
    "too-long": (raw(b" " * (LONGEST_BODY + 1)), BlindReason.PARTIAL, "more than 64 MiB; narrow"),
    "html": (raw(b"<html>hunter2"), BlindReason.UNREACHABLE, "no Prometheus"),
    "empty-object": (raw(b"{}"), BlindReason.UNREACHABLE, "no Prometheus"),
    "no-data": (raw(b'{"status":"success"}'), BlindReason.UNREACHABLE, "no Prometheus"),
    "no-result": (
        raw(b'{"status":"success","data":{"resultType":"vector"}}'),
        BlindReason.UNREACHABLE,
        "no Prometheus",
    ),
    "no-utf-8": (raw(b"\xff"), BlindReason.UNREACHABLE, "no Prometheus"),
    "bad-query": (refused(400, "bad_data", "parse error:\n" + "x" * 300), BlindReason.UNREACHABLE, "parse error: xxx"),
    "too-many-samples": (refused(422, "execution", "too many samples"), BlindReason.UNREACHABLE, "too many samples"),
    "unknown": (raw(b"hunter2", code=401), BlindReason.UNREACHABLE, "bearer_token_file"),
    "forbidden": (raw(b"hunter2", code=403), BlindReason.UNREACHABLE, "may not"),
    "not-found": (raw(b"hunter2", code=404), BlindReason.UNREACHABLE, "path prefix"),
    "canceled": (refused(499, "canceled", "gone"), BlindReason.UNREACHABLE, "gone"),
    "redirect": (raw(b"", code=302, headers={"Location": QUERY}), BlindReason.UNREACHABLE, "HTTP 302"),
}


@pytest.mark.parametrize(("answer", "reason", "words"), NO_NUMBERS.values(), ids=NO_NUMBERS)
async def test_what_is_no_number_is_never_one_and_not_asked_again(
    api: FakeApi, client: PrometheusClient, answer: Script, reason: BlindReason, words: str
) -> None:
    api.answer("POST", QUERY, answer)
    found = await blind(client)
    assert found.reason is reason
    assert words in found.detail
    assert "hunter2" not in found.detail
    assert "\n" not in found.detail
    assert len(found.detail) < 400
    assert len(api.seen) == 1


async def test_nothing_found_is_an_answer_and_so_is_one_with_infos(api: FakeApi, client: PrometheusClient) -> None:
    api.answer("POST", QUERY, vector(), vector(({}, 1), infos=["PromQL info: might not be a counter"], warnings=[]))
    assert await ask(client) == ()
    assert await ask(client) == (Series({}, {1000.0: 1.0}),)


# -- what is asked again -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [raw(b"Service Unavailable", code=503), refused(500, "internal", "x"), raw(b"", code=429), cut, no_bytes],
    ids=["503", "500", "429", "cut", "no-bytes"],
)
async def test_a_failure_that_may_pass_is_asked_again(api: FakeApi, client: PrometheusClient, failure: Script) -> None:
    api.answer("POST", QUERY, failure, failure, ONE)
    assert await ask(client) == (Series({"pod": "a"}, {1000.0: 3.0}),)
    assert [form["query"] for form in forms(api)] == ["up"] * 3


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (hang, "silence"),
        (Stream(b'{"status":', stays_open=True), "silence"),
        (raw(b"Service Unavailable", code=503), "HTTP 503"),
        (refused(503, "timeout", "query timed out"), "HTTP 503: query timed out"),
    ],
    ids=["hangs", "stops", "not-ready", "too-slow"],
)
async def test_no_answer_in_time_says_what_there_was_instead(
    api: FakeApi, client: PrometheusClient, failure: Script, words: str
) -> None:
    api.answer("POST", QUERY, failure)
    began = asyncio.get_running_loop().time()
    found = await blind(client, timeout_s=7)
    assert asyncio.get_running_loop().time() - began == pytest.approx(7, abs=0.5)
    assert found.reason is BlindReason.UNREACHABLE
    assert f"no usable answer within 7 s ({words}); is prometheus.url right" in found.detail


async def test_nobody_there_is_no_answer() -> None:
    async with connect(Prometheus(url="http://127.0.0.1:1"), clock=time.time) as client:
        found = await blind(client)
    assert found.reason is BlindReason.UNREACHABLE
    assert "127.0.0.1:1" in found.detail


async def test_each_question_is_counted_once_with_its_outcome_and_time(api: FakeApi) -> None:
    seen: list[tuple[str, float]] = []
    api.answer("POST", QUERY, raw(b"", code=503), ONE, vector(warnings=["gap"]), raw(b"", code=400), hang)
    settings = Prometheus(url=api.url)
    async with connect(settings, clock=time.time, observe=lambda *told: seen.append(told)) as client:
        for _ in range(4):
            await ask(client)
    assert [outcome for outcome, _ in seen] == ["ok", "partial", "unreachable", "unreachable"]
    assert seen[3][1] == pytest.approx(10, abs=0.5)


# -- signals -----------------------------------------------------------------------------------------------------------


def answers(total: Script, bad: Script, newest: Script) -> Script:
    by = "by (namespace,pod,container,instance,job)"
    scope = '{namespace=~"shop"}'
    return by_query(
        {
            f"sum {by} (all_total{scope})": total,
            f"sum {by} (bad_total{scope})": bad,
            f"max {by} (timestamp(all_total{scope}))": newest,
        }
    )


async def test_rows_of_one_instant_are_put_together(api: FakeApi, signals: PrometheusSignals) -> None:
    other = {**POD, "pod": "b"}
    api.answer("POST", QUERY, answers(vector((POD, 9)), vector((other, 1), (POD, 2)), vector((POD, 991.5))))
    reading = await signals.read(SIGNAL, step=67, timeout_s=10)
    assert reading == Reading(
        67, (Sample(ScrapeTarget(**POD), 9.0, 2.0, 991.5), Sample(ScrapeTarget(**other), None, 1.0, None))
    )
    assert [form["time"] for form in forms(api)] == ["1000.000"] * 3


@pytest.mark.parametrize("column", [0, 1, 2])
async def test_one_blind_column_blinds_the_reading(api: FakeApi, signals: PrometheusSignals, column: int) -> None:
    columns = [vector((POD, 1)), vector((POD, 1)), vector((POD, 1))]
    columns[column] = vector((POD, 1), warnings=["a store is gone"])
    api.answer("POST", QUERY, answers(*columns))
    reading = await signals.read(SIGNAL, step=67, timeout_s=10)
    assert reading.samples == ()
    assert reading.blind is not None
    assert reading.blind.reason is BlindReason.PARTIAL


async def test_a_blind_past_is_blind_at_each_step(api: FakeApi, signals: PrometheusSignals) -> None:
    gone = matrix((POD, {1000: 1}), isPartial=True)
    api.answer("POST", QUERY_RANGE, answers(matrix((POD, {1000: 1})), gone, matrix()))
    past = await signals.read_past(SIGNAL, first=67, last=69, timeout_s=10)
    assert [reading.step for reading in past] == [67, 68, 69]
    assert all(reading.blind and reading.blind.reason is BlindReason.PARTIAL for reading in past)
    form = forms(api, QUERY_RANGE)[0]
    assert {key: form[key] for key in ("start", "end", "step")} == {
        "start": "1000.000",
        "end": "1030.000",
        "step": "15.000",
    }


async def test_a_past_of_other_instants_than_were_asked_for_is_blind(api: FakeApi, signals: PrometheusSignals) -> None:
    shifted = matrix((POD, {1005: 1, 1020: 2}))  # as VictoriaMetrics shifts it
    api.answer("POST", QUERY_RANGE, answers(shifted, shifted, shifted))
    past = await signals.read_past(SIGNAL, first=67, last=68, timeout_s=10)
    assert all(reading.blind and "nocache" in reading.blind.detail for reading in past)
    assert len(past) == 2


async def test_a_histogram_in_the_past_is_a_row_without_a_number(api: FakeApi, signals: PrometheusSignals) -> None:
    mixed = result("matrix", [{"metric": POD, "values": [[1000, "1"]], "histograms": [[1015, HISTOGRAM]]}])
    api.answer("POST", QUERY_RANGE, answers(mixed, matrix(), matrix()))
    past = await signals.read_past(SIGNAL, first=67, last=68, timeout_s=10)
    assert [[sample.total for sample in reading.samples] for reading in past] == [[1.0], [None]]


@pytest.mark.parametrize(
    ("good", "total", "bad"),
    [
        ('all_total{ok="1"}', 9.0, 9.0),  # all of them failed
        ("good_total", 9.0, None),  # nobody knows
    ],
)
async def test_successes_that_are_absent_are_none_only_of_the_same_metric(
    api: FakeApi, signals: PrometheusSignals, good: str, total: float, bad: float | None
) -> None:
    query = msgspec.structs.replace(SIGNAL, bad=good, good=True)
    rows = vector((POD, total))
    by = "by (namespace,pod,container,instance,job)"
    api.answer("POST", QUERY, by_query({f"sum {by} (all_total{{namespace": rows, "sum ": vector(), "max ": rows}))
    reading = await signals.read(query, step=67, timeout_s=10)
    assert reading.samples == (Sample(ScrapeTarget(**POD), total, bad, 9.0),)
    assert not await signals.bad_seen(query, step=67, timeout_s=10)


async def test_seen_is_known_for_ever_and_not_seen_for_a_minute(api: FakeApi, signals: PrometheusSignals) -> None:
    api.answer("POST", QUERY, raw(b"", code=400), vector(), vector(({}, 1)))
    steps = (0, 1, 2, 4, 5, 6, 10_000)
    found = [await signals.bad_seen(SIGNAL, step=step, timeout_s=10) for step in steps]
    assert found == [False, False, False, False, True, True, True]
    assert [form["time"] for form in forms(api)] == ["-5.000", "10.000", "70.000"]
    assert forms(api)[0]["query"] == 'count(present_over_time(bad_total{namespace=~"shop"}[7d])) > 0'


async def test_what_cannot_be_asked_is_not_known(api: FakeApi, signals: PrometheusSignals) -> None:
    api.answer("POST", QUERY, raw(b"", code=400))
    assert await signals.resets(SIGNAL, step=67, window_s=3600, timeout_s=10) == {}
    assert await signals.onset({"alertname": "Errors"}, at=1000, timeout_s=10) is None
    assert await signals.onset({"pod": "a"}, at=1000, timeout_s=10) is None
    assert len(api.seen) == 2
