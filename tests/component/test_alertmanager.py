"""The peers of an Alertmanager asked over HTTP: what is sent, what their answers mean, and what becomes of bad ones."""

import asyncio
import datetime as dt
import json
import logging
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.component.fake_api import FakeApi, Json, cut, hang, no_bytes, raw, running
from watchdog.alertmanager import Alertmanagers, http_peers
from watchdog.config import Alertmanager
from watchdog.errors import Denied
from watchdog.ports import AlertSource, AlertView

ALERTS, STATUS, SILENCES = "/api/v2/alerts", "/api/v2/status", "/api/v2/silences"
LONG_AGO = "2026-03-01T12:00:00.000Z"


def active(name: str, *, updated: str = LONG_AGO, fingerprint: str = "", **labels: str) -> Json:
    """An alert as 0.25's API gives it."""
    return {
        "annotations": {},
        "endsAt": "2099-01-01T00:00:00.000Z",
        "fingerprint": fingerprint or f"{sum(name.encode()):016x}",
        "receivers": [{"name": "rollback-watchdog"}],
        "startsAt": LONG_AGO,
        "status": {"inhibitedBy": [], "silencedBy": [], "state": "active"},
        "updatedAt": updated,
        "generatorURL": "http://prometheus:9090/graph",
        "labels": {"alertname": name, "rollback_watchdog": "true", **labels},
    }


def up(seconds: float, cluster: str = "ready") -> Json:
    """The status of a peer that was started so long ago."""
    started = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds)
    return {"cluster": {"name": "01", "peers": [], "status": cluster}, "uptime": started.isoformat(), "config": {}}


def matcher(name: str, value: str, *, regex: bool = False, equal: bool = True) -> Json:
    return {"name": name, "value": value, "isRegex": regex, "isEqual": equal}


def silence(*matchers: Json, state: str = "active", id: str = "s1") -> Json:
    return {
        "id": id,
        "status": {"state": state},
        "matchers": list(matchers),
        "createdBy": "jane",
        "comment": "drill",
        "startsAt": LONG_AGO,
        "endsAt": "2099-01-01T00:00:00.000Z",
        "updatedAt": LONG_AGO,
    }


OURS = matcher("alertname", "RollbackWatchdog")


def listing(api: FakeApi, *alerts: Json, status: Json | None = None) -> None:
    """Let a peer answer with these alerts."""
    api.answer("GET", ALERTS, raw(json.dumps(alerts).encode()))
    api.answer("GET", STATUS, raw(json.dumps(up(400) if status is None else status).encode()))


def silencing(api: FakeApi, *silences: Json) -> None:
    api.answer("GET", SILENCES, raw(json.dumps(silences).encode()))


def source(*peers: FakeApi, **settings: Any) -> Alertmanagers:
    return Alertmanagers(http_peers(Alertmanager(urls=tuple(peer.url for peer in peers), **settings)))


async def view(*peers: FakeApi, timeout_s: float = 5) -> AlertView:
    return await source(*peers).alerts(timeout_s=timeout_s)


@pytest.fixture
async def other() -> AsyncIterator[FakeApi]:
    """Give a second peer."""
    async with running(FakeApi()) as api:
        yield api


# -- what is sent ------------------------------------------------------------------------------------------------------


async def test_a_peer_is_asked_for_what_fires_and_is_routed_to_us_and_then_for_its_status(api: FakeApi) -> None:
    listing(api)
    adapter: AlertSource = source(api)
    assert await adapter.alerts(timeout_s=5) == AlertView(alerts=(), trustworthy=True)
    assert [seen.path for seen in api.seen] == [ALERTS, STATUS]
    filters = {"active": "true", "silenced": "false", "inhibited": "false", "filter": 'rollback_watchdog="true"'}
    assert api.seen[0].query == filters
    assert api.seen[0].headers["User-Agent"].startswith("rollback-watchdog/")


async def test_a_path_prefix_is_kept(api: FakeApi) -> None:
    api.answer("GET", f"/am{SILENCES}", raw(b"[]"))
    peers = http_peers(Alertmanager(urls=(f"{api.url}/am/",)))
    assert await Alertmanagers(peers).silences(timeout_s=5) == ()


async def test_headers_and_a_token_that_is_read_anew_are_sent(api: FakeApi, tmp_path: Path) -> None:
    silencing(api)
    token = tmp_path / "token"
    peers = source(api, headers={"X-Scope-OrgID": "shop"}, bearer_token_file=str(token))
    for text in ("first\n", "second\n"):
        token.write_text(text)
        await peers.silences(timeout_s=5)
    assert [seen.headers["Authorization"] for seen in api.seen] == ["Bearer first", "Bearer second"]
    assert api.seen[0].headers["X-Scope-OrgID"] == "shop"


async def test_a_name_and_a_password_are_sent(api: FakeApi, tmp_path: Path) -> None:
    silencing(api)
    (tmp_path / "password").write_text("pässword\n")
    await source(api, username="jane", password_file=str(tmp_path / "password")).silences(timeout_s=5)
    assert api.seen[0].headers["Authorization"] == "Basic amFuZTpww6Rzc3dvcmQ="


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """Make two self-signed certificates, `peer` and `ours`."""
    usage = "-addext subjectAltName=IP:127.0.0.1 -addext keyUsage=critical,digitalSignature,keyCertSign"
    key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    for name in ("peer", "ours"):
        command = f"openssl req -x509 {key} -days 2 -subj /CN={name} {usage} -keyout {name}.key -out {name}.crt"
        subprocess.run(command.split(), cwd=tmp_path, capture_output=True, check=True)
    return tmp_path


async def test_a_peer_is_spoken_to_with_our_certificate_and_under_its_own_authority(certificates: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates / "ours.crt")
    context.load_cert_chain(certificates / "peer.crt", certificates / "peer.key")
    context.verify_mode = ssl.CERT_REQUIRED
    application = web.Application()
    application.router.add_get(SILENCES, raw(b"[]"))
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    urls = (f"https://127.0.0.1:{runner.addresses[0][1]}",)
    trust, own = str(certificates / "peer.crt"), str(certificates / "ours.crt")
    settings = [
        Alertmanager(urls=urls, ca_file=trust, cert_file=own, key_file=str(certificates / "ours.key")),
        Alertmanager(urls=urls, ca_file=trust),
        Alertmanager(urls=urls, ca_file=own),
        Alertmanager(urls=urls),
        Alertmanager(urls=urls, ca_file=str(certificates / "missing")),
    ]
    answers = [await Alertmanagers(http_peers(each)).silences(timeout_s=5) for each in settings]
    await runner.cleanup()
    assert answers == [(), None, None, None, None]


# -- what fires --------------------------------------------------------------------------------------------------------


async def test_an_alert_is_taken_over_with_all_of_its_labels(api: FakeApi) -> None:
    listing(api, active("AgentErrors", fingerprint="4b328d8475880854", namespace="shop", deployment="web"))
    ((alert,), unreachable, trustworthy) = (found := await view(api)).alerts, found.unreachable, found.trustworthy
    assert alert.labels["deployment"] == "web"
    assert alert.fingerprint == "4b328d8475880854"
    assert alert.starts_at == dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
    assert alert.firing
    assert alert.generator_url == "http://prometheus:9090/graph"
    assert (unreachable, trustworthy) == ((), True)


@pytest.mark.parametrize("swapped", [False, True])
async def test_of_equal_alerts_the_one_updated_last_wins_whoever_tells_it(
    api: FakeApi, other: FakeApi, swapped: bool
) -> None:
    older, newer = active("A", updated="2026-03-01T12:00:01Z"), active("A", updated="2026-03-01T12:00:02Z")
    newer["startsAt"] = "2026-03-01T12:00:01Z"
    listing(api, newer if swapped else older, active("B"))
    listing(other, older if swapped else newer, active("C"))
    found = await view(api, other)
    assert sorted(alert.name for alert in found.alerts) == ["A", "B", "C"]
    assert {alert.starts_at.second for alert in found.alerts if alert.name == "A"} == {1}


@pytest.mark.parametrize(
    ("up_s", "cluster", "trustworthy"),
    [
        (301, "ready", True),
        (301, "disabled", True),
        (301, "settling", False),
        (290, "ready", False),
        (-3600, "ready", False),
    ],
)
async def test_absence_means_resolved_only_at_a_peer_that_is_up_for_long_and_settled(
    api: FakeApi, up_s: float, cluster: str, trustworthy: bool
) -> None:
    listing(api, active("A"), status=up(up_s, cluster))
    found = await view(api)
    assert [alert.name for alert in found.alerts] == ["A"]
    assert (found.unreachable, found.trustworthy) == ((), trustworthy)


@pytest.mark.parametrize("status", [{}, {**up(400), "uptime": "2020-01-01T00:00:00"}, {**up(400), "cluster": None}])
async def test_a_peer_whose_status_cannot_be_read_is_not_trusted(api: FakeApi, status: Json) -> None:
    listing(api, active("A"), status=status)
    found = await view(api)
    assert (len(found.alerts), found.unreachable, found.trustworthy) == (1, (), False)


async def test_what_one_peer_says_counts_while_another_is_away(api: FakeApi, other: FakeApi) -> None:
    listing(api, active("A"))
    other.answer("GET", ALERTS, no_bytes)
    found = await view(api, other)
    assert [alert.name for alert in found.alerts] == ["A"]
    assert (found.unreachable, found.trustworthy) == ((other.url,), False)


async def test_without_any_peer_nothing_is_known() -> None:
    assert await view() == AlertView(alerts=())
    assert await source().silences(timeout_s=5) is None


# -- bad answers -------------------------------------------------------------------------------------------------------


async def _redirect(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("/elsewhere")


BAD = {
    "a redirect": _redirect,
    "a refusal": raw(b"[]", code=401),
    "a fault": raw(b"[]", code=503),
    "a part": raw(b"[]", code=206),
    "a cut connection": cut,
    "no byte": no_bytes,
    "no answer": hang,
    "a web page": raw(b"<html>login</html>"),
    "another shape": raw(b'{"status": "success"}'),
    "no UTF-8": raw(b'[{"labels": {"a": "\xff"}}]'),
    "too deep": raw(b"[" * 10_000),
    "too much": raw(b"[" + b" " * (1 << 24) + b"]"),
    "a broken encoding": raw(b"[]", headers={"Content-Encoding": "gzip"}),
    "a silence and an alert without what they need": raw(
        b'[{"id": "x", "labels": {}, "startsAt": "0001-01-01T00:00:00Z"}]'
    ),
}


@pytest.mark.parametrize("case", BAD)
async def test_a_peer_without_a_usable_answer_is_unreachable_and_the_log_says_why(
    api: FakeApi, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    for path in (ALERTS, SILENCES, "/elsewhere"):
        api.answer("GET", path, BAD[case])
    found = await view(api, timeout_s=0.5)
    assert found == AlertView(alerts=(), unreachable=(api.url,))
    assert await source(api).silences(timeout_s=0.5) is None
    assert not api.asked("GET", "/elsewhere")
    for record in caplog.records:
        assert (record.levelno, record.__dict__["peer"]) == (logging.WARNING, api.url)
        assert 0 < len(record.__dict__["problem"]) <= 200
    assert len(caplog.records) == 2


async def test_a_hanging_peer_delays_the_others_answer_no_longer_than_the_deadline(
    api: FakeApi, other: FakeApi
) -> None:
    listing(api, active("A"))
    api.answer("GET", STATUS, hang)
    other.answer("GET", ALERTS, hang)
    async with asyncio.timeout(2):
        found = await view(api, other, timeout_s=0.3)
    assert [alert.name for alert in found.alerts] == ["A"]
    assert (found.unreachable, found.trustworthy) == ((other.url,), False)


async def test_a_peer_away_or_a_missing_token_is_no_exception(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    peers = http_peers(Alertmanager(urls=("http://jane:hunter2@127.0.0.1:1",)))
    assert (await Alertmanagers(peers).alerts(timeout_s=5)).unreachable == ("http://127.0.0.1:1",)
    missing = Alertmanager(urls=("http://127.0.0.1:1",), bearer_token_file=str(tmp_path / "missing"))
    assert await Alertmanagers(http_peers(missing)).silences(timeout_s=5) is None
    assert "hunter2" not in str([record.__dict__ for record in caplog.records])


async def test_a_peer_behind_the_api_server_is_asked_by_the_way_that_is_given(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[tuple[str, str, float]] = []

    async def send(method: str, path: str, timeout_s: float) -> tuple[int, bytes]:
        asked.append((method, path.partition("?")[0], timeout_s))
        return 200, json.dumps([active("A")] if path.startswith(ALERTS) else up(400)).encode()

    async def denied(method: str, path: str, timeout_s: float) -> tuple[int, bytes]:
        raise Denied(f"{method} {path}", "Forbidden " * 100)

    url = "service://monitoring/alertmanager:9093"
    assert http_peers(Alertmanager(urls=(url,))) == {}
    found = await Alertmanagers({url: send}).alerts(timeout_s=5)
    assert [alert.name for alert in found.alerts] == ["A"]
    assert found.trustworthy
    assert [(method, path) for method, path, _ in asked] == [("GET", ALERTS), ("GET", STATUS)]
    assert asked[1][2] <= asked[0][2] == 5
    found = await Alertmanagers({url: denied}).alerts(timeout_s=5)
    assert found.unreachable == (url,)
    (record,) = caplog.records
    assert len(record.__dict__["problem"]) == 200


@pytest.mark.looptime
async def test_both_questions_to_a_peer_share_the_deadline_even_where_the_way_to_it_knows_none() -> None:
    async def slow(_: str, path: str, timeout_s: float) -> tuple[int, bytes]:
        await asyncio.sleep(6 if path.startswith(ALERTS) else 60)
        return 200, b"[]"

    found = await Alertmanagers({"peer": slow}).alerts(timeout_s=10)
    assert (found.unreachable, found.trustworthy) == ((), False)
    assert asyncio.get_running_loop().time() == 10


# -- silences ----------------------------------------------------------------------------------------------------------


async def test_a_silence_is_taken_over_with_its_other_matchers(api: FakeApi) -> None:
    silencing(api, silence(OURS, matcher("namespace", "shop|dev", regex=True), matcher("deployment", "x", equal=False)))
    (found,) = await source(api).silences(timeout_s=5) or ()
    assert found.matchers == (("namespace", "shop|dev", True, True), ("deployment", "x", False, False))
    assert (found.id, found.by, found.comment) == ("s1", "jane", "drill")
    assert found.until == dt.datetime(2099, 1, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("found", "counts"),
    [
        (silence(OURS), True),
        (silence(OURS, state="expired"), False),
        (silence(OURS, state="pending"), False),
        (silence(matcher("alertname", "Rollback.*", regex=True)), True),
        (silence(matcher("alertname", "Rollback", regex=True)), False),
        (silence(matcher("alertname", "(", regex=True)), False),
        (silence(matcher("alertname", "AgentErrors")), False),
        (silence(matcher("alertname", "RollbackWatchdog", equal=False)), False),
        (silence(matcher("alertname", "AgentErrors", equal=False)), False),
        (silence(OURS, matcher("alertname", "AgentErrors", equal=False)), True),
        (silence(OURS, matcher("alertname", "Rollback.*", regex=True, equal=False)), False),
        (silence(matcher("namespace", "shop")), False),
        (silence({"name": "alertname", "value": "RollbackWatchdog", "isRegex": False}), True),
    ],
)
async def test_a_silence_counts_where_it_is_active_and_names_our_alert(api: FakeApi, found: Json, counts: bool) -> None:
    silencing(api, found)
    assert bool(await source(api).silences(timeout_s=5)) == counts


async def test_silences_of_all_peers_that_answer_count_once_each(api: FakeApi, other: FakeApi) -> None:
    silencing(api, silence(OURS, id="a"), silence(OURS, id="b"))
    silencing(other, silence(OURS, id="b"), silence(OURS, id="c"))
    found = await source(api, other).silences(timeout_s=5)
    assert [each.id for each in found or ()] == ["a", "b", "c"]
    other.answer("GET", SILENCES, no_bytes)
    found = await source(api, other).silences(timeout_s=5)
    assert [each.id for each in found or ()] == ["a", "b"]


async def test_a_silence_with_a_hostile_expression_holds_nothing_up(api: FakeApi) -> None:
    hostile = silence(matcher("alertname", "((([a-zA-Z]+)+)+)+!", regex=True), id="hostile")
    ours = silence(matcher("alertname", "Rollback.*", regex=True), id="ours")
    api.answer("GET", SILENCES, raw(json.dumps([hostile, ours]).encode()))
    async with asyncio.timeout(2):
        found = await source(api).silences(timeout_s=1)
    assert found is not None
    assert [each.id for each in found] == ["ours"]


async def test_one_alert_that_cannot_be_read_hides_no_other(api: FakeApi) -> None:
    listing(api, {**active("B"), "startsAt": "9999-12-31T23:59:59Z"}, active("A"))
    assert [alert.name for alert in (await view(api)).alerts] == ["A"]
