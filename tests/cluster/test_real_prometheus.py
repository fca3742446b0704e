"""Rows, times and quoting against a real Prometheus, which reads blocks that hold exactly what is written here."""

import asyncio
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.controlplane.plane import free_ports
from watchdog.config import Prometheus, Seconds
from watchdog.judge.blocks import Blind, Sample, ScrapeTarget
from watchdog.ports import SignalQuery
from watchdog.prometheus import PrometheusClient, PrometheusSignals, Series, connect
from watchdog.selectors import Selector, in_list, parse, quoted

MISSING = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
if MISSING and os.environ.get("WATCHDOG_TESTS_REQUIRE_ALL") != "1":
    pytest.skip("NO TESTS on a real Prometheus without it: apt-get install prometheus", allow_module_level=True)

STEP_S, DELAY_S = 15, 5
LAST = int(time.time()) // STEP_S + 80  # what is asked about "the last 10 minutes" may be asked 30 minutes from now
FIRST = LAST - 120
"""Half an hour of steps: the reset is at + 30, the errors begin at + 40, web-b's samples end at + 60."""

WEB_A = ScrapeTarget("shop", "web-a", "app", "10.0.0.1:80", "web")
WEB_B = ScrapeTarget("shop", "web-b", "app", "10.0.0.2:80", "web")
QUERY = SignalQuery(bad='requests_total{code="500"}', total="requests_total", namespaces=("shop",))
NASTY = ['"', "\\", "a\nb", "\t", "😀", 'x"} or other{v=~".*', ".*", "a|b", "$", "\ufffd", "'`", "C:\\new"]


def scraped(step: int) -> float:
    """When a target was scraped: 4 s before the instant that the service asks about."""
    return step * STEP_S - DELAY_S - 4


def samples() -> Iterator[tuple[str, dict[str, str], float, float]]:
    """Metric, labels, value and time of everything there is."""
    for step in range(FIRST, LAST + 1):
        at, since = scraped(step), step - FIRST
        count = since * 10 if since < 30 else (since - 30) * 10
        for row in (WEB_A, WEB_B):
            labels = {"namespace": "shop", "pod": row.pod, "container": "app", "instance": row.instance, "job": "web"}
            if row == WEB_A or since < 60:
                ok = count if row == WEB_A else since * 20
                yield "requests_total", {**labels, "code": "200", "path": "/"}, ok, at
                yield "requests_total", {**labels, "code": "200", "path": "/cart"}, ok, at
            if row == WEB_A and since >= 40:
                yield "requests_total", {**labels, "code": "500", "path": "/"}, since - 40, at
            yield "odd_total", labels, float("nan") if since == 10 else since, at
        yield "requests_total", {"namespace": "other", "pod": "web-a", "code": "500"}, since, at
        yield (
            "agent_requests_total",
            {"namespace": "shop", "deployment": "canary", "instance": "i", "job": "j"},
            since,
            at,
        )
    for number, value in enumerate(NASTY):
        yield "nasty", {"v": value}, number, scraped(LAST)
    alert = {"alertname": "Errors", "namespace": "shop", "pod": 'web-"a"'}
    yield "ALERTS_FOR_STATE", {**alert, "severity": "page"}, 1000, scraped(LAST)
    yield "ALERTS_FOR_STATE", {**alert, "severity": "page", "code": "500"}, 2000, scraped(LAST)
    yield "ALERTS_FOR_STATE", {**alert, "severity": "ticket"}, 3000, scraped(LAST)


def openmetrics() -> str:
    """The same, one family after the other."""
    lines: dict[str, list[str]] = {}
    for metric, labels, value, at in samples():
        inside = ",".join(f'{name}="{escaped(text)}"' for name, text in labels.items())
        lines.setdefault(metric, []).append(f"{metric}{{{inside}}} {value:g} {at}")
    return "\n".join(line for family in lines.values() for line in family) + "\n# EOF\n"


def escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that scrapes nothing."""
    place: Path = tmp_path_factory.mktemp("prometheus")
    (place / "samples").write_text(openmetrics())
    (place / "config").write_text("scrape_configs: []\n")
    blocks = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(place / "samples"), str(place / "data")]
    subprocess.run(blocks, check=True, capture_output=True)
    address = f"127.0.0.1:{free_ports(1)[0]}"
    options = {"config.file": place / "config", "storage.tsdb.path": place / "data", "web.listen-address": address}
    with (place / "log").open("w") as log:
        command = ["prometheus", *(f"--{name}={value}" for name, value in options.items())]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_until_ready(f"http://{address}/-/ready", process)
            yield f"http://{address}"
        finally:
            process.kill()
            process.wait()


def wait_until_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1):  # noqa: S310
                return
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture
async def client(url: str) -> AsyncIterator[PrometheusClient]:
    """The way there."""
    async with connect(Prometheus(url=url, step=Seconds(STEP_S), delay=Seconds(DELAY_S)), clock=time.time) as client:
        yield client


@pytest.fixture
def signals(client: PrometheusClient) -> PrometheusSignals:
    """The questions of the judge."""
    return PrometheusSignals(client, step_s=STEP_S, delay_s=DELAY_S)


async def rows(client: PrometheusClient, expression: str) -> tuple[Series, ...]:
    found = await client.query(expression, time=LAST * STEP_S, timeout_s=10)
    assert not isinstance(found, Blind), found.detail
    return found


# -- rows --------------------------------------------------------------------------------------------------------------


async def test_rows_are_scrape_targets_of_the_namespaces_that_were_asked_for(signals: PrometheusSignals) -> None:
    reading = await signals.read(QUERY, step=FIRST + 50, timeout_s=10)
    at = scraped(FIRST + 50)
    assert reading.samples == (Sample(WEB_A, 410.0, 10.0, at), Sample(WEB_B, 2000.0, None, at))


async def test_pods_narrow_what_is_read(signals: PrometheusSignals) -> None:
    one = msgspec.structs.replace(QUERY, pods=("web-b",))
    reading = await signals.read(one, step=FIRST + 50, timeout_s=10)
    assert [sample.row for sample in reading.samples] == [WEB_B]


async def test_successes_are_taken_from_the_total(signals: PrometheusSignals) -> None:
    query = msgspec.structs.replace(QUERY, bad='requests_total{code="200"}', good=True)
    reading = await signals.read(query, step=FIRST + 50, timeout_s=10)
    assert [sample.bad for sample in reading.samples] == [10.0, 0.0]


async def test_a_joined_label_stands_in_the_row(signals: PrometheusSignals) -> None:
    query = SignalQuery(bad="agent_errors_total", total="agent_requests_total", join="deployment", namespaces=("shop",))
    reading = await signals.read(query, step=FIRST + 50, timeout_s=10)
    assert reading.samples == (
        Sample(ScrapeTarget(namespace="shop", instance="i", job="j", label="canary"), 50.0, None, scraped(FIRST + 50)),
    )


async def test_what_ended_shows_the_time_of_its_last_sample_until_it_is_gone(signals: PrometheusSignals) -> None:
    reading = await signals.read(QUERY, step=FIRST + 70, timeout_s=10)
    assert {sample.row: sample.at for sample in reading.samples}[WEB_B] == scraped(FIRST + 59)
    reading = await signals.read(QUERY, step=FIRST + 90, timeout_s=10)
    assert [sample.row for sample in reading.samples] == [WEB_A]


@pytest.mark.parametrize("bad", ['requests_total{code="500"}', "odd_total"])
async def test_the_past_is_what_was_read_at_each_step(signals: PrometheusSignals, bad: str) -> None:
    query = msgspec.structs.replace(QUERY, bad=bad)
    past = await signals.read_past(query, first=FIRST - 2, last=LAST, timeout_s=10)
    live = [await signals.read(query, step=step, timeout_s=10) for step in range(FIRST - 2, LAST + 1)]
    assert past == tuple(live)


async def test_not_a_number_leaves_its_row_without_one_in_its_step_and_no_other(signals: PrometheusSignals) -> None:
    query = msgspec.structs.replace(QUERY, bad="odd_total")
    past = await signals.read_past(query, first=FIRST, last=LAST, timeout_s=10)
    assert not any(reading.blind for reading in past)
    empty = [r.step - FIRST for r in past if any(s.total is None and s.row == WEB_A for s in r.samples)]
    assert empty == [10]


async def test_a_long_past_is_read_in_slices(signals: PrometheusSignals) -> None:
    past = await signals.read_past(QUERY, first=LAST - 12_000, last=LAST, timeout_s=30)
    assert [reading.step for reading in past] == list(range(LAST - 12_000, LAST + 1))
    assert past[-1] == await signals.read(QUERY, step=LAST, timeout_s=10)
    assert not any(reading.blind for reading in past)


# -- what else is asked ------------------------------------------------------------------------------------------------


async def test_one_restart_is_one_reset_however_many_series_it_takes_down(signals: PrometheusSignals) -> None:
    window_s = 40 * STEP_S
    assert await signals.resets(QUERY, step=FIRST + 50, window_s=window_s, timeout_s=10) == {WEB_A: 1.0, WEB_B: 0.0}


@pytest.mark.parametrize(
    ("bad", "namespaces", "seen"),
    [
        ('requests_total{code="500"}', ("elsewhere",), True),  # it is the total plus a matcher
        ("odd_total", ("shop",), True),
        ("odd_total", ("elsewhere",), False),
        ("erors_total", ("shop",), False),
    ],
)
async def test_what_was_never_seen_is_no_zero(
    signals: PrometheusSignals, bad: str, namespaces: tuple[str, ...], *, seen: bool
) -> None:
    query = SignalQuery(bad=bad, total="requests_total", namespaces=namespaces)
    assert await signals.bad_seen(query, step=LAST, timeout_s=10) is seen


async def test_an_onset_is_found_by_its_labels_without_those_that_only_the_receiver_sees(
    signals: PrometheusSignals,
) -> None:
    alert = {"alertname": "Errors", "namespace": "shop", "pod": 'web-"a"', "severity": "page"}
    sent = {**alert, "cluster": "eu", "alertstate": "firing", "not legal": "x"}
    at = LAST * STEP_S
    assert await signals.onset(sent, at=at, timeout_s=10) == 1000
    assert await signals.onset({**sent, "code": "500"}, at=at, timeout_s=10) == 2000
    assert await signals.onset({**alert, "pod": "web-.*"}, at=at, timeout_s=10) is None
    assert await signals.onset({**alert, "pod": "\ud800"}, at=at, timeout_s=10) is None


async def test_the_metrics_of_pods_come_with_their_labels(client: PrometheusClient) -> None:
    found = await client.metrics_of("shop", ["web-a", "web-b"], timeout_s=10)
    assert not isinstance(found, Blind)
    usual = frozenset({"namespace", "pod", "container", "instance", "job"})
    assert found == {"requests_total": usual | {"code", "path"}, "odd_total": usual}


async def test_what_it_refuses_is_told_with_its_reason(client: PrometheusClient) -> None:
    found = await client.query("sum(", timeout_s=10)
    assert isinstance(found, Blind)
    assert "parse error" in found.detail


# -- quoting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", NASTY)
async def test_a_value_selects_its_own_series_and_no_other(client: PrometheusClient, value: str) -> None:
    for matcher in (("v", "=", value), in_list("v", [value]), in_list("v", ["none", value])):
        found = await rows(client, Selector("nasty").text(matcher))
        assert [series.labels["v"] for series in found] == [value]


async def test_a_text_is_read_as_it_was_meant(url: str) -> None:
    async def check(text: str, other: str) -> None:
        async with connect(Prometheus(url=url), clock=time.time) as client:
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            made = f'label_join(vector(1), "v", {quoted(text)}, "x", "y")'
            (series,) = await rows(client, made)
            assert series.labels.get("v", "") == text
            anchored = in_list("v", [other, text])[2]
            (series,) = await rows(client, f'label_replace({made}, "hit", "yes", "v", {quoted(anchored)})')
            assert series.labels["hit"] == "yes"

    @settings(max_examples=150, database=None)
    @given(st.text(max_size=8), st.text(max_size=4))
    def property_holds(text: str, other: str) -> None:
        asyncio.run(check(text, other))

    await asyncio.to_thread(property_holds)


@pytest.mark.parametrize("text", ["nasty", '{"nasty"}', '{__name__="nasty",v!="$"}', 'nasty{"v"!~"a.*"}'])
async def test_what_was_parsed_selects_something(client: PrometheusClient, text: str) -> None:
    assert await rows(client, parse(text).text())


@pytest.mark.parametrize("metric", ["my.metric", "on", "Inf", "bool", "atan2", "anchored", "sum", "offset", "a:b"])
async def test_every_name_of_a_metric_is_understood(client: PrometheusClient, metric: str) -> None:
    assert await rows(client, Selector(metric, (("a", "=", "1"),)).text()) == ()
