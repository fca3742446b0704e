"""List and watch: what it asks, what it gives, and what it survives; hours of it in virtual time."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import pairwise

import pytest

from tests.component.fake_api import (
    Answer,
    FakeApi,
    Stream,
    bookmark,
    cut,
    error_event,
    event,
    hang,
    page,
    status,
)
from tests.unit.builders import Json, history
from watchdog.errors import Denied
from watchdog.kube import KubeCluster
from watchdog.kube.transport import Transport
from watchdog.kube.watching import WatchSettings, watch_deployments
from watchdog.objects import WorkloadRef
from watchdog.ports import Changed, Deleted, Listed

# The clock jumps when nothing has come for so many looks at the sockets: enough for the kernel's loopback.
pytestmark = pytest.mark.looptime(noop_cycles=400)

ALL = "/apis/apps/v1/deployments"
SHOP = "/apis/apps/v1/namespaces/shop/deployments"
SETTINGS = WatchSettings(request_s=10, watch_s=300, inactivity_s=90)

Seen = Listed | Changed | Deleted


def deployment(name: str, version: str) -> Json:
    document = history("v1").deployment
    document["metadata"] |= {"name": name, "resourceVersion": version}
    return document


WEB, CART = deployment("web", "1001"), deployment("cart", "1002")


def watch(transport: Transport, *, settings: WatchSettings = SETTINGS) -> AsyncGenerator[Seen, None]:
    return watch_deployments(transport, namespace=None, settings=settings)


async def take(changes: AsyncGenerator[Seen, None], count: int) -> list[str]:
    """Take so many changes and give them in short, such as `listed web cart`, `changed web`."""
    taken: list[str] = []
    async for change in changes:
        items = change.items if isinstance(change, Listed) else (change.item,)
        taken.append(" ".join([type(change).__name__.lower(), *(item.metadata.name for item in items)]))
        if len(taken) == count:
            return taken
    raise AssertionError("a watch never ends")


async def watched(transport: Transport, count: int) -> list[str]:
    """Open a watch, take so many changes, and close it."""
    async with aclosing(watch(transport)) as changes:
        return await take(changes, count)


def times(api: FakeApi, method: str, path: str = ALL) -> list[float]:
    return [seen.at for seen in api.asked(method, path)]


def positions(api: FakeApi) -> list[str]:
    return [seen.query["resourceVersion"] for seen in api.asked("WATCH", ALL)]


# -- the list ----------------------------------------------------------------------------------------------------------


async def test_where_objects_are_so_large_that_a_page_is_too_long_fewer_are_asked_for(
    api: FakeApi, transport: Transport
) -> None:
    large = deployment("large", "1")
    large["metadata"]["annotations"]["much"] = "x" * (65 << 20)
    api.answer("GET", ALL, page(large), page(WEB))
    api.answer("WATCH", ALL, Stream())
    assert await watched(transport, 1) == ["listed web"]
    assert [seen.query["limit"] for seen in api.asked("GET", ALL)] == ["500", "62"]


async def test_everything_is_listed_in_pages_and_then_watched_from_there(api: FakeApi, transport: Transport) -> None:
    api.answer("GET", ALL, page(WEB, version="900", more="token"), page(CART, version="1100"))
    api.answer("WATCH", ALL, Stream(event("MODIFIED", deployment("web", "1101"))))
    assert await watched(transport, 2) == ["listed web cart", "changed web"]
    assert [seen.query for seen in api.asked("GET", ALL)] == [
        {"limit": "500"},
        {"limit": "500", "continue": "token"},
    ]
    asked = api.asked("WATCH", ALL)[0].query
    assert 240 <= int(asked.pop("timeoutSeconds")) <= 300
    assert asked == {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": "1100"}


async def test_a_list_whose_token_expires_halfway_starts_again_and_gives_nothing_twice(
    api: FakeApi, transport: Transport
) -> None:
    api.answer("GET", ALL, page(WEB, more="token"), status(410, "Expired"), page(WEB, CART))
    api.answer("WATCH", ALL, Stream())
    assert await watched(transport, 1) == ["listed web cart"]
    assert [seen.query.get("continue") for seen in api.asked("GET", ALL)] == [None, "token", None]


async def test_one_deployment_is_followed_by_its_name(api: FakeApi, cluster: KubeCluster) -> None:
    api.answer("GET", SHOP, page())
    api.answer("WATCH", SHOP, Stream(event("ADDED", WEB), event("DELETED", WEB)))
    async with aclosing(cluster.follow(WorkloadRef("shop", "web"))) as states:
        seen = [await anext(states) for _ in range(3)]
    assert [state and state.metadata.name for state in seen] == [None, "web", None]
    assert {seen.query["fieldSelector"] for seen in api.seen} == {"metadata.name=web"}


# -- events ------------------------------------------------------------------------------------------------------------


async def test_additions_changes_and_deletions_are_given_in_their_order(api: FakeApi, transport: Transport) -> None:
    api.answer("GET", ALL, page())
    api.answer("WATCH", ALL, Stream(event("ADDED", WEB), event("MODIFIED", WEB), event("DELETED", WEB)))
    assert await watched(transport, 4) == ["listed", "changed web", "changed web", "deleted web"]


async def test_events_are_found_however_the_bytes_are_cut(api: FakeApi, transport: Transport) -> None:
    lines = [json.dumps(event("MODIFIED", item)).encode() + b"\n" for item in (WEB, CART, WEB)]
    text = b"".join(lines)
    halves = len(lines[0]) // 2
    api.answer("GET", ALL, page())
    api.answer("WATCH", ALL, Stream(text[:halves], 1.0, text[halves:-1], 1.0, text[-1:]))
    assert await watched(transport, 4) == ["listed", "changed web", "changed cart", "changed web"]


async def test_the_half_of_an_event_that_a_closed_stream_left_is_forgotten(api: FakeApi, transport: Transport) -> None:
    line = json.dumps(event("MODIFIED", WEB)).encode()
    api.answer("GET", ALL, page(version="1000"))
    api.answer("WATCH", ALL, Stream(line[:100], stays_open=False), Stream(event("MODIFIED", CART)))
    assert await watched(transport, 2) == ["listed", "changed cart"]
    assert positions(api) == ["1000", "1000"]


# -- the end of a stream -----------------------------------------------------------------------------------------------


async def test_a_stream_that_ends_is_opened_again_where_it_was(api: FakeApi, transport: Transport) -> None:
    api.answer("GET", ALL, page(version="1000"))
    api.answer(
        "WATCH",
        ALL,
        Stream(event("MODIFIED", deployment("web", "1005")), stays_open=False),
        Stream(bookmark("1050"), stays_open=False),
        Stream(event("DELETED", deployment("web", "1060")), stays_open=False),
        Stream(event("ADDED", deployment("cart", "1070"))),
    )
    assert await watched(transport, 4) == ["listed", "changed web", "deleted web", "changed cart"]
    assert positions(api) == ["1000", "1005", "1050", "1060"]
    assert len(api.asked("GET", ALL)) == 1


async def test_a_server_that_ends_every_stream_at_once_is_asked_once_a_second(
    api: FakeApi, transport: Transport
) -> None:
    ends = [Stream(stays_open=False)] * 20
    api.answer("GET", ALL, page())
    api.answer("WATCH", ALL, *ends, Stream(event("ADDED", WEB)))
    assert await watched(transport, 2) == ["listed", "changed web"]
    gaps = [later - earlier for earlier, later in pairwise(times(api, "WATCH"))]
    assert len(gaps) == 20
    assert min(gaps) >= 0.99
    assert max(gaps) <= 1.1


async def test_a_stream_that_lasted_is_opened_again_without_a_pause(api: FakeApi, transport: Transport) -> None:
    api.answer("GET", ALL, page())
    api.answer("WATCH", ALL, Stream(60.0, bookmark("1001"), stays_open=False), Stream(event("ADDED", WEB)))
    await watched(transport, 2)
    first, second = times(api, "WATCH")
    assert 60 <= second - first <= 60.1


# -- what leads to a new list ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(status(410, "Expired"), id="410 as a status"),
        pytest.param(Stream(error_event(410, "Expired")), id="410 as an event"),
        pytest.param(Stream(error_event(500, "InternalError")), id="another error event"),
        pytest.param(Stream(event("ERROR", {})), id="an error event that says nothing"),
        pytest.param(Stream(b"<html>\n"), id="garbage"),
        pytest.param(Stream(b'{"type": "MODIFIED", "object": {"metadata": 1}}\n'), id="another object"),
        pytest.param(Stream(b"\xff\n"), id="not a text"),
        pytest.param(status(500, "InternalError"), id="500"),
        pytest.param(status(400, "BadRequest"), id="400"),
        pytest.param(status(429, "TooManyRequests"), id="429"),
        pytest.param(cut, id="cut"),
        pytest.param(hang, id="no answer"),
    ],
)
async def test_a_watch_that_cannot_be_gone_on_from_begins_with_a_new_list(
    api: FakeApi, transport: Transport, broken: Answer
) -> None:
    api.answer("GET", ALL, page(version="1000"), page(WEB, version="2000"))
    api.answer("WATCH", ALL, broken, Stream(event("ADDED", CART)))
    assert await watched(transport, 3) == ["listed", "listed web", "changed cart"]
    assert positions(api) == ["1000", "2000"]


async def test_events_before_the_fault_are_given_all_the_same(api: FakeApi, transport: Transport) -> None:
    api.answer("GET", ALL, page())
    api.answer("WATCH", ALL, Stream(event("ADDED", WEB), b"garbage\n"))
    assert await watched(transport, 3) == ["listed", "changed web", "listed"]


@pytest.mark.parametrize("before", [(), (20.0, bookmark("1001")), (50.0, event("ADDED", WEB), 50.0, bookmark("1001"))])
async def test_a_stream_that_goes_silent_is_dropped_after_its_limit(
    api: FakeApi, transport: Transport, before: tuple[Json | float, ...]
) -> None:
    silent = Stream(*before)
    api.answer("GET", ALL, page())
    api.answer("WATCH", ALL, silent, Stream())
    async with aclosing(watch(transport)) as changes:
        await take(changes, 2 if len(before) < 4 else 3)
        last_sign = sum(step for step in before if isinstance(step, float))
        relisted = times(api, "GET")[1]
        assert 90 <= relisted - last_sign <= 92
        await silent.closed.wait()


async def test_a_bookmark_a_minute_keeps_a_quiet_watch_alive(api: FakeApi, transport: Transport) -> None:
    minutes = [step for minute in range(1, 61) for step in (60.0, bookmark(str(1000 + minute)))]
    api.answer("GET", ALL, page())
    api.answer("WATCH", ALL, Stream(*minutes, event("ADDED", WEB)))
    assert await watched(transport, 2) == ["listed", "changed web"]
    assert len(api.asked("WATCH", ALL)) == len(api.asked("GET", ALL)) == 1
    assert asyncio.get_running_loop().time() >= 3600


# -- faults that last --------------------------------------------------------------------------------------------------


async def waits(api: FakeApi, transport: Transport, count: int, method: str = "GET") -> list[float]:
    """Watch until so many requests have come, and give the pauses between them."""
    async with aclosing(watch(transport)) as changes:
        consuming = asyncio.create_task(take(changes, 1000))
        await api.reached(count, method, ALL)
        consuming.cancel()
        await asyncio.gather(consuming, return_exceptions=True)
    return [later - earlier for earlier, later in pairwise(times(api, method))]


async def test_the_pauses_between_failed_lists_grow_up_to_half_a_minute(api: FakeApi, transport: Transport) -> None:
    api.answer("GET", ALL, status(400, "BadRequest"))
    found = await waits(api, transport, 12)
    for number, pause in enumerate(found):
        longest = min(30.0, 2.0**number)
        assert longest / 2 <= pause <= longest + 0.2
    assert len(found) == 11


@pytest.mark.parametrize("where", ["GET", "WATCH"])
async def test_a_missing_right_ends_the_watch(api: FakeApi, transport: Transport, where: str) -> None:
    api.answer("GET", ALL, page())
    api.answer(where, ALL, status(403, "Forbidden"))
    with pytest.raises(Denied):
        await watched(transport, 2)


async def test_a_success_ends_the_growing(api: FakeApi, transport: Transport) -> None:
    failed = [status(400, "BadRequest")] * 6
    api.answer("GET", ALL, *failed, page(), status(400, "BadRequest"))
    api.answer("WATCH", ALL, Stream(event("ADDED", WEB), 60.0, b"garbage\n"))
    found = await waits(api, transport, 9)
    assert found[5] > 8
    assert found[7] <= 2.1


async def test_the_pauses_grow_too_where_the_list_works_and_the_watch_never_does(
    api: FakeApi, transport: Transport
) -> None:
    # A list is the dearest request there is, and whatever refuses the watch will not change its mind within a second.
    api.answer("GET", ALL, page())
    api.answer("WATCH", ALL, status(400, "BadRequest"))
    found = await waits(api, transport, 8)
    assert max(found) > 8


async def test_positions_that_always_expire_are_not_a_storm_of_lists(api: FakeApi, transport: Transport) -> None:
    api.answer("GET", ALL, page())
    api.answer("WATCH", ALL, *[Stream(error_event(410, "Expired"))] * 30, Stream(event("ADDED", WEB)))
    async with aclosing(watch(transport)) as changes:
        await take(changes, 32)
    assert asyncio.get_running_loop().time() > 10, "31 lists without a pause"


# -- whoever consumes it -----------------------------------------------------------------------------------------------


async def test_closing_the_generator_closes_the_connection(api: FakeApi, transport: Transport) -> None:
    stream = Stream(event("ADDED", WEB))
    api.answer("GET", ALL, page())
    api.answer("WATCH", ALL, stream)
    await watched(transport, 2)
    async with asyncio.timeout(5):
        await stream.closed.wait()


async def test_a_consumer_that_is_cancelled_closes_the_connection(api: FakeApi, transport: Transport) -> None:
    stream = Stream(event("ADDED", WEB))
    api.answer("GET", ALL, page())
    api.answer("WATCH", ALL, stream)
    consuming = asyncio.create_task(watched(transport, 1000))
    await api.reached(1, "WATCH", ALL)
    consuming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consuming
    async with asyncio.timeout(5):
        await stream.closed.wait()


async def test_a_slow_consumer_is_never_struck_by_the_limits_of_the_watch(api: FakeApi, transport: Transport) -> None:
    api.answer("GET", ALL, page(WEB))
    api.answer("WATCH", ALL, Stream(event("MODIFIED", WEB), event("MODIFIED", CART)))
    taken = []
    async with aclosing(watch(transport)) as changes:
        async for change in changes:
            await asyncio.sleep(1000)  # ten times the limit of inactivity, a hundred times that of a request
            taken.append(type(change))
            if len(taken) == 3:
                break
    assert taken == [Listed, Changed, Changed]
    assert len(api.asked("GET", ALL)) == 1


@pytest.mark.parametrize("broken", [error_event(500, "InternalError"), b'{"type": "MODIFIED", "object": "hunter2"}\n'])
async def test_what_an_error_says_of_an_object_is_not_logged(
    api: FakeApi, transport: Transport, broken: Json | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    api.answer("GET", ALL, page())
    api.answer("WATCH", ALL, Stream(broken), Stream())
    await watched(transport, 2)
    assert "watch failed: watch deployments: " in caplog.text
    assert "hunter2" not in caplog.text


async def test_an_opening_that_gets_no_answer_is_not_called_a_silent_watch(
    api: FakeApi, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    api.answer("GET", ALL, page())
    api.answer("WATCH", ALL, hang, Stream())
    await watched(transport, 2)
    assert "no answer within 10 s" in caplog.text
    assert "90 s" not in caplog.text
