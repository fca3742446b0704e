"""List and watch of Deployments and Services that survives what watches die of.

The library's own watch retries an expired position with the same position, reconnects without a pause and can go silent
for ever (docs/design/kubernetes.md, Watches). Here

- a list comes in pages, and starts again where a page's continue token has expired;
- a watch asks for bookmarks, so that its position stays young, and ends by itself after some minutes;
- 410, as a status or as an event, any other error event, and any line that cannot be decoded lead to a new list; one
  object that cannot be is left out, so that it hides no other;
- a stream that ends is opened again at its last position, at most once a second;
- a stream on which no whole line has come for `inactivity_s`, not even a bookmark, is dropped and everything listed
  again: a frozen server and a position from the future both look like that (docs/design i4).
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Literal, TypeVar

import aiohttp
import msgspec

from watchdog.decoding import Malformed, from_json
from watchdog.errors import ClusterError, Denied, Expired, Unanswered
from watchdog.kube.reading import leave_out, read_list
from watchdog.kube.transport import ApiStatus, Transport
from watchdog.objects import Deployment, Service
from watchdog.ports import Changed, Deleted, Listed

_log = logging.getLogger(__name__)


class WatchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The durations of a watch, in seconds.

    Args:
        request_s: deadline of each page of a list and of opening a watch.
        watch_s: the server ends a watch after 80 to 100 % of this.
        inactivity_s: silence after which a watch counts as dead; above the 60 s between two bookmarks.
    """

    request_s: float
    watch_s: float
    inactivity_s: float


T = TypeVar("T", Deployment, Service)
_Word = Literal["listed", "changed", "deleted"]


class _WatchEvent(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _Version(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str


class _Position(msgspec.Struct, frozen=True):
    metadata: _Version


_LONGEST_LINE = 16 << 20
_SHORTEST_STREAM_S = 1.0
_LONGEST_BACKOFF_S = 30.0


async def watch_deployments(
    transport: Transport, *, namespace: str | None, settings: WatchSettings, field_selector: str = ""
) -> AsyncGenerator[Listed | Changed | Deleted, None]:
    """Give everything, then every change; for ever, through every fault but a missing right.

    Args:
        namespace: one namespace, or None for all.
        settings: durations.
        field_selector: narrows it, such as ``metadata.name=web``.

    Raises:
        Denied: the account may not list or watch.
    """
    where = f"namespaces/{namespace}/" if namespace else ""
    query = {"fieldSelector": field_selector} if field_selector else {}
    async with aclosing(_watch(transport, f"/apis/apps/v1/{where}deployments", Deployment, query, settings)) as seen:
        async for word, items in seen:
            if word == "listed":
                yield Listed(items)
            else:
                yield Changed(items[0]) if word == "changed" else Deleted(items[0])


async def watch_services(
    transport: Transport, *, namespace: str, settings: WatchSettings
) -> AsyncGenerator[dict[str, Service], None]:
    """Give all Services of a namespace by name, as they are and after every change; raises `Denied`."""
    there: dict[str, Service] = {}
    async with aclosing(_watch(transport, f"/api/v1/namespaces/{namespace}/services", Service, {}, settings)) as seen:
        async for word, items in seen:
            if word == "listed":
                there.clear()
            for item in items:
                if word == "deleted":
                    there.pop(item.metadata.name, None)
                else:
                    there[item.metadata.name] = item
            yield dict(there)


async def _watch(
    transport: Transport, path: str, kind: type[T], query: dict[str, str], settings: WatchSettings
) -> AsyncGenerator[tuple[_Word, tuple[T, ...]], None]:
    """Everything, then every change of one object; for ever, through every fault but a missing right."""
    operation, failures = _operation(path), 0
    loop = asyncio.get_running_loop()
    while True:
        begun = loop.time()
        try:
            items, position = await read_list(
                transport,
                path,
                kind,
                operation=operation,
                timeout_s=settings.request_s,
                query=query,
                lenient=True,
            )
            yield "listed", items
            async with aclosing(_watch_from(transport, path, kind, query, position, settings)) as changes:
                async for change in changes:
                    yield change
        except Denied:
            raise
        except ClusterError as error:
            # Whatever worked for longer than the longest pause was no failure in a row.
            failures = 1 if loop.time() - begun > _LONGEST_BACKOFF_S else failures + 1
            level = logging.INFO if isinstance(error, Expired) else logging.WARNING
            _log.log(level, "watch failed: %s", error, extra={"event": "relist"})
            await asyncio.sleep(_backoff(failures))


async def _watch_from(
    transport: Transport, path: str, kind: type[T], query: dict[str, str], position: str, settings: WatchSettings
) -> AsyncGenerator[tuple[_Word, tuple[T, ...]], None]:
    """One stream after the other from `position` on, until one of them cannot be gone on from."""
    operation, loop = _operation(path), asyncio.get_running_loop()
    while True:
        opened = loop.time()
        ends_after = settings.watch_s * random.uniform(0.8, 1.0)  # noqa: S311  (spreads load, keeps no secret)
        asked = {
            **query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": position,
            "timeoutSeconds": str(max(1, round(ends_after))),
        }
        async with aclosing(_lines(transport, path, asked, settings)) as lines:
            async for line in lines:
                try:
                    word, item, position = _decode(line, kind, operation)
                except Malformed as error:
                    raise Unanswered(operation, "malformed event") from error
                if item is not None:
                    yield word, (item,)
        await asyncio.sleep(max(0.0, _SHORTEST_STREAM_S - (loop.time() - opened)))


def _operation(path: str) -> str:
    return f"watch {path.rpartition('/')[2]}"


def _decode(line: bytes, kind: type[T], operation: str) -> tuple[_Word, T | None, str]:
    """An event and the position after it; None for a bookmark, and for an object that is left out.

    Raises:
        Malformed: it is no event, or none to go on from.
        Unanswered: it is an error.
    """
    event = from_json(line, _WatchEvent)
    if event.type == "ERROR":
        status = from_json(event.object, ApiStatus)
        error = Expired if status.code == 410 else Unanswered
        raise error(operation, status.reason or f"error {status.code}")
    position = from_json(event.object, _Position).metadata.resource_version
    if not position:
        raise Malformed("an event without a resourceVersion")
    if event.type == "BOOKMARK":
        return "changed", None, position
    try:
        return "deleted" if event.type == "DELETED" else "changed", from_json(event.object, kind), position
    except Malformed as error:
        if event.type == "DELETED":
            raise
        leave_out(operation, error)
        return "changed", None, position


async def _lines(
    transport: Transport, path: str, query: dict[str, str], settings: WatchSettings
) -> AsyncGenerator[bytes, None]:
    """The lines of one stream, until the server ends it.

    Raises:
        Unanswered: it broke, no whole line came for `inactivity_s`, or one is too long.
    """
    buffer, operation, loop = bytearray(), _operation(path), asyncio.get_running_loop()
    # The limits surround single steps and never a yield: there they would strike whoever consumes the events.
    try:
        async with AsyncExitStack() as stack:
            stream = transport.stream(path, operation=operation, query=query)
            try:
                async with asyncio.timeout(settings.request_s):
                    response = await stack.enter_async_context(stream)
            except TimeoutError as error:
                raise Unanswered(operation, f"no answer within {settings.request_s:g} s") from error
            newest = loop.time()
            while True:
                async with asyncio.timeout_at(newest + settings.inactivity_s):
                    chunk = await response.content.readany()
                if not chunk:
                    return
                head, *others = chunk.split(b"\n")
                buffer += head
                if len(buffer) > _LONGEST_LINE:
                    raise Unanswered(operation, f"an event of more than {_LONGEST_LINE >> 20} MiB")
                for other in others:
                    line, buffer = bytes(buffer), bytearray(other)
                    yield line
                    newest = loop.time()
    except TimeoutError as error:
        raise Unanswered(operation, f"silent for {settings.inactivity_s:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise Unanswered(operation, str(error) or type(error).__name__) from error


def _backoff(failures: int) -> float:
    """Seconds to wait after the n-th failure in a row: doubled each time, half of it by chance."""
    return min(_LONGEST_BACKOFF_S, 2.0 ** min(failures - 1, 10)) * random.uniform(0.5, 1.0)  # noqa: S311
