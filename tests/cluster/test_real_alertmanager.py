"""Real Alertmanagers: what their webhook posts and what their API lists are the same alerts, and a restart is seen."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import pytest

from tests.component.fake_api import FakeApi, raw, running, status
from tests.monitoring.alertmanager import AlertmanagerServer
from watchdog.alertmanager import Alertmanagers, http_peers, read_webhook
from watchdog.config import Alertmanager
from watchdog.model import Alert
from watchdog.ports import AlertView

pytest_plugins = ["tests.monitoring.fixtures"]

OURS = {"alertname": "AgentErrors", "namespace": "shop", "deployment": "web", "rollback_watchdog": "true"}


@pytest.fixture
async def receiver() -> AsyncIterator[FakeApi]:
    """Give an address for webhooks that remembers what is posted."""
    async with running(FakeApi()) as receiver:
        receiver.answer("POST", "/alerts", raw(b"{}"))
        yield receiver


def source(*servers: AlertmanagerServer, settled_s: float = 0) -> Alertmanagers:
    urls = tuple(server.url for server in servers)
    return Alertmanagers(http_peers(Alertmanager(urls=urls)), settled_s=settled_s)


async def view(*servers: AlertmanagerServer, settled_s: float = 0) -> AlertView:
    return await source(*servers, settled_s=settled_s).alerts(timeout_s=5)


async def eventually(condition: Callable[[], Awaitable[object]]) -> None:
    """Ask every 50 ms until the answer is true."""
    for _ in range(300):
        if await condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("not within 15 s")


async def posted(receiver: FakeApi, count: int) -> tuple[Alert, ...]:
    """Wait for so many webhooks and read the last."""
    async with asyncio.timeout(15):
        await receiver.reached(count, "POST", "/alerts")
    return read_webhook(receiver.asked("POST", "/alerts")[count - 1].body)


async def test_the_webhook_and_the_api_tell_the_same_alert(
    alertmanager: AlertmanagerServer, receiver: FakeApi, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("s3cret")
    alertmanager.reload([f"{receiver.url}/alerts"], token_file=tmp_path / "token")
    alertmanager.post_alerts([{"labels": OURS, "generatorURL": "http://prometheus/graph"}])
    (told,) = await posted(receiver, 1)
    (listed,) = (await view(alertmanager)).alerts
    assert told == listed
    assert told.labels == OURS
    assert receiver.seen[0].headers["Authorization"] == "Bearer s3cret"
    ended = (dt.datetime.now(dt.UTC) - dt.timedelta(milliseconds=1)).isoformat()
    alertmanager.post_alerts([{"labels": OURS, "startsAt": told.starts_at.isoformat(), "endsAt": ended}])
    (resolved,) = await posted(receiver, 2)
    assert (resolved.firing, resolved.fingerprint, resolved.starts_at) == (False, told.fingerprint, told.starts_at)
    assert (await view(alertmanager)).alerts == ()


async def test_a_webhook_that_fails_is_repeated_until_it_is_taken(
    alertmanager: AlertmanagerServer, receiver: FakeApi
) -> None:
    receiver.answer("POST", "/alerts", status(503, "starting"), raw(b"{}"))
    alertmanager.reload([f"{receiver.url}/alerts"])
    alertmanager.post_alerts([{"labels": OURS}])
    assert await posted(receiver, 2) == await posted(receiver, 1)


async def test_only_alerts_that_are_routed_to_us_and_not_silenced_are_listed(alertmanager: AlertmanagerServer) -> None:
    others = [{**OURS, "rollback_watchdog": "false"}, {"alertname": "Other"}, {**OURS, "namespace": "quiet"}]
    alertmanager.silence({"namespace": "quiet"}, "drill")
    alertmanager.post_alerts([{"labels": labels} for labels in (OURS, *others)])

    async def settled() -> bool:
        return [alert.labels for alert in (await view(alertmanager)).alerts] == [OURS]

    await eventually(settled)


@pytest.mark.parametrize("labels", [OURS, {"alertname": "Ünïcode 😀", "rollback_watchdog": "true"}])
async def test_a_fingerprint_of_our_own_is_that_of_the_alertmanager(
    alertmanager: AlertmanagerServer, receiver: FakeApi, labels: Mapping[str, str]
) -> None:
    alertmanager.reload([f"{receiver.url}/alerts"])
    alertmanager.post_alerts([{"labels": labels}])
    (told,) = await posted(receiver, 1)
    body = receiver.asked("POST", "/alerts")[0].body
    (made,) = read_webhook(body.replace(b'"fingerprint"', b'"unknown"'))
    assert made == told


async def test_a_silence_that_names_the_watchdog_is_found_until_it_ends(alertmanager: AlertmanagerServer) -> None:
    alertmanager.silence({"alertname": "AgentErrors"}, "somebody else's")
    ours = alertmanager.silence({"alertname": "RollbackWatchdog", "namespace": "~shop|dev"}, "drill")
    (found,) = await source(alertmanager).silences(timeout_s=5) or ()
    assert found.matchers == (("namespace", "shop|dev", True, True),)
    assert (found.id, found.by, found.comment) == (ours, "tests", "drill")
    left_s = (found.until - dt.datetime.now(dt.UTC)).total_seconds()
    assert 3500 < left_s <= 3600
    alertmanager.expire(ours)
    assert await source(alertmanager).silences(timeout_s=5) == ()


async def test_peers_share_silences_but_not_alerts_and_are_read_together(
    alertmanagers: list[AlertmanagerServer],
) -> None:
    first, second = alertmanagers
    first.post_alerts([{"labels": OURS}, {"labels": {**OURS, "deployment": "a"}}])
    second.post_alerts([{"labels": OURS}, {"labels": {**OURS, "deployment": "b"}}])
    found = await view(first, second)
    assert sorted(alert.labels["deployment"] for alert in found.alerts) == ["a", "b", "web"]
    silence = first.silence({"alertname": "RollbackWatchdog"}, "drill")

    async def gossiped() -> bool:
        return [each.id for each in await source(second).silences(timeout_s=5) or ()] == [silence]

    async def settled() -> bool:
        return (await view(first, second)).trustworthy

    await eventually(gossiped)
    await eventually(settled)
    assert len(await source(first, second).silences(timeout_s=5) or ()) == 1
    first.stop()
    found = await view(first, second)
    assert sorted(alert.labels["deployment"] for alert in found.alerts) == ["b", "web"]
    assert (found.unreachable, found.trustworthy) == ((first.url,), False)


async def test_a_restarted_peer_has_forgotten_what_fires_and_is_not_trusted(alertmanager: AlertmanagerServer) -> None:
    alertmanager.post_alerts([{"labels": OURS}])
    alertmanager.silence({"alertname": "RollbackWatchdog"}, "drill")

    async def trusted() -> bool:
        found = await view(alertmanager, settled_s=3)
        assert len(found.alerts) == 1
        return found.trustworthy

    await eventually(trusted)
    alertmanager.stop()
    alertmanager.start()
    after = await view(alertmanager, settled_s=3)
    assert (after.alerts, after.unreachable, after.trustworthy) == ((), (), False)
    assert len(await source(alertmanager).silences(timeout_s=5) or ()) == 1


async def test_a_frozen_peer_does_not_hold_up_the_answer(alertmanager: AlertmanagerServer) -> None:
    alertmanager.freeze()
    assert (await source(alertmanager).alerts(timeout_s=0.3)).unreachable == (alertmanager.url,)
    alertmanager.thaw()
    assert (await view(alertmanager)).unreachable == ()
