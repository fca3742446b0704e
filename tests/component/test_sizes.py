"""Nobody's answer is read without a limit: one of 200 MB is given up while it is read."""

import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from yarl import URL

from tests.component.fake_api import FakeApi, running, write_kubeconfig
from watchdog.alertmanager import Alertmanagers, http_peers
from watchdog.config import Alertmanager, Prometheus, Slack
from watchdog.errors import NotificationError, Unanswered
from watchdog.judge.blocks import Blind
from watchdog.kube import KubeCluster, connect
from watchdog.kube.transport import Transport
from watchdog.kube.watching import WatchSettings, watch_deployments
from watchdog.notify.slack import SlackNotifier
from watchdog.objects import LabelSelector, WorkloadRef
from watchdog.prometheus import connect as to_prometheus
from watchdog.scrape import connect as to_pods
from watchdog.scrape.http import Unusable

CHUNK = b" " * (1 << 20)
SENT = 200
MOST_MIB = 100
"""Of 200 MiB sent; the largest limit is 64 MiB, of one answer at a time."""


class Endless(FakeApi):
    """Answers everything with 200 MiB of white space.

    Attributes:
        sent: how many of them one asker has taken.
    """

    sent = 0

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Send until the asker goes away."""
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for number in range(SENT):
            await response.write(CHUNK)
            self.sent = max(self.sent, number + 1)
        return response


@pytest.fixture
async def endless() -> AsyncIterator[Endless]:
    server = Endless()
    async with running(server):
        tracemalloc.start()  # what the process takes from the system depends on the tests before
        yield server
        peak = tracemalloc.get_traced_memory()[1] >> 20
        tracemalloc.stop()
        assert server.sent < SENT
        assert peak < MOST_MIB, f"{peak} MiB"


@pytest.fixture
async def way(endless: Endless, tmp_path: Path) -> AsyncIterator[Transport]:
    async with connect(kubeconfig=str(write_kubeconfig(tmp_path, endless.url))) as transport:
        yield transport


SETTINGS = WatchSettings(request_s=30, watch_s=300, inactivity_s=90)


async def test_the_api_server(way: Transport) -> None:
    cluster = KubeCluster(way, watching=SETTINGS)
    with pytest.raises(Unanswered, match="an answer of more than 64 MiB"):
        await cluster.patch_deployment(WorkloadRef("shop", "web"), b"[]", dry_run=False, timeout_s=30)


async def test_a_list_of_the_api_server(way: Transport) -> None:
    with pytest.raises(Unanswered, match="an answer of more than 64 MiB"):
        await KubeCluster(way, watching=SETTINGS).pods("shop", LabelSelector(), timeout_s=60)


async def test_prometheus(endless: Endless) -> None:
    async with to_prometheus(Prometheus(url=endless.url), clock=lambda: 0.0) as client:
        found = await client.query("x", timeout_s=30)
    assert isinstance(found, Blind)


async def test_alertmanager(endless: Endless) -> None:
    view = await Alertmanagers(http_peers(Alertmanager(urls=(endless.url,)))).alerts(timeout_s=30)
    assert view.unreachable == (endless.url,)


async def test_slack(endless: Endless, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-1")
    notifier = SlackNotifier(Slack(channel="C0123456789", api_url=f"{endless.url}/api/"), approval_s=600)
    try:
        with pytest.raises(NotificationError, match="ClientPayloadError"):
            await notifier.check()
    finally:
        await notifier.close()


async def test_a_pod(endless: Endless) -> None:
    async with to_pods(concurrency=1) as get:
        with pytest.raises(Unusable, match=r"longer than scrape\.max_bytes"):
            await get(URL(endless.url), max_bytes=1 << 20)


async def test_a_line_of_a_watch(tmp_path: Path) -> None:
    server = Lists()
    async with running(server), connect(kubeconfig=str(write_kubeconfig(tmp_path, server.url))) as transport:
        changes = watch_deployments(transport, namespace="shop", settings=SETTINGS)
        await anext(changes)
        await anext(changes)  # the list that follows the line that was given up
        await changes.aclose()
    assert 0 < server.sent < SENT


class Lists(Endless):
    """Lists nothing, and has one line of 200 MiB for whoever watches."""

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer one of the two."""
        if "watch" in request.query:
            return await super().serve(request)
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": []})
