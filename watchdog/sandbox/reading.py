"""Lists, page by page, and watches, as the API gives them."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec

from watchdog.sandbox.refusals import ApiError, bad_request, expired, invalid
from watchdog.sandbox.resources import Resource
from watchdog.sandbox.selecting import Matches, selector
from watchdog.sandbox.store import Change, Store

Json = dict[str, Any]
Shape = Callable[[Json], Json]
"""What an object looks like to whoever asked: whole, or its metadata only."""

_BOOKMARK_EVERY_S = 60.0
_LAST_BOOKMARK_S = 2.0
_INITIAL_END = {"k8s.io/initial-events-end": "true"}


def page(store: Store, kind: Resource, namespace: str | None, query: Mapping[str, str]) -> tuple[list[Json], Json]:
    """One page of a list, and the list's metadata.

    Later pages show what is there when they are read, but carry the first one's resourceVersion: a watch from there
    tells of everything that a list of that moment would have shown otherwise.

    Raises:
        ApiError: 400 a selector or a token cannot be read; 410 the token is too old; 504 the version is yet to come.
    """
    matches = selector(query.get("labelSelector", ""), query.get("fieldSelector", ""))
    position = _number(query.get("resourceVersion", ""))
    if position > store.version:
        raise ApiError(
            504,
            "Timeout",
            f"Too large resource version: {position}, current: {store.version}",
            details={
                "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                "retryAfterSeconds": 1,
            },
        )
    version, after = store.version, ("", "")
    if token := query.get("continue"):
        version, after = _read_token(token)
        if version < store.oldest:
            raise expired(version, store.oldest)
    items = [item for item in store.list(kind.name, namespace) if _place(item) > after and matches(item)]
    metadata: Json = {"resourceVersion": str(version)}
    limit = _number(query.get("limit", ""))
    if 0 < limit < len(items):
        metadata["continue"] = _write_token(version, _place(items[limit - 1]))
        if not query.get("labelSelector") and not query.get("fieldSelector"):
            metadata["remainingItemCount"] = len(items) - limit
        items = items[:limit]
    return items, metadata


async def events(
    store: Store, kind: Resource, namespace: str | None, query: Mapping[str, str], *, shape: Shape
) -> AsyncIterator[bytes]:
    """The lines of a watch, until its ``timeoutSeconds`` are over; a 410 comes as an event (docs/design i3).

    Raises:
        ApiError: before the first line, where the query makes no sense.
    """
    matches = selector(query.get("labelSelector", ""), query.get("fieldSelector", ""))
    bookmarks = query.get("allowWatchBookmarks") in ("true", "1")
    initial = _wants_initial(query)
    since = _number(query.get("resourceVersion", ""))
    loop = asyncio.get_running_loop()
    ends = loop.time() + (_number(query.get("timeoutSeconds", "")) or 3600)
    try:
        watch = store.watch(kind.name, namespace=namespace, since=None if initial else since)
    except ApiError as error:
        yield _line("ERROR", error.status())
        return
    with watch:
        version = store.version if initial else since
        for item in [entry for entry in store.list(kind.name, namespace) if matches(entry)] if initial else ():
            yield _line("ADDED", shape(item))
        if initial and query.get("sendInitialEvents") and bookmarks:
            yield _bookmark(kind, version, shape, _INITIAL_END)
        told, last_sent = loop.time(), False
        while (now := loop.time()) < ends:
            due = told + _BOOKMARK_EVERY_S
            if not last_sent and ends - now > _LAST_BOOKMARK_S:
                due = min(due, ends - _LAST_BOOKMARK_S)
            try:
                async with asyncio.timeout_at(min(due, ends)):
                    change = await anext(watch)
            except TimeoutError:
                if bookmarks and loop.time() < ends:
                    told, last_sent = loop.time(), ends - loop.time() <= _LAST_BOOKMARK_S
                    yield _bookmark(kind, max(version, store.version), shape, {})
                continue
            version = change.version
            if line := _seen(change, matches, shape):
                yield line


def _wants_initial(query: Mapping[str, str]) -> bool:
    """Whether a watch begins with what there is; checks the query of a WatchList (docs/design i5)."""
    if query.get("sendInitialEvents") in ("true", "1"):
        if query.get("resourceVersionMatch") != "NotOlderThan":
            problem = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            raise invalid("ListOptions", "meta.k8s.io", "", ("resourceVersionMatch", problem))
        return True
    return query.get("resourceVersion", "") in ("", "0") and "sendInitialEvents" not in query


def _seen(change: Change, matches: Matches, shape: Shape) -> bytes | None:
    """A change as whoever watches with a selector sees it: what no longer matches is gone, what does now is new."""
    before = change.previous is not None and matches(change.previous)
    after = change.type != "DELETED" and matches(change.object)
    if change.type == "DELETED":
        return _line("DELETED", shape(change.object)) if before else None
    if not before and not after:
        return None
    kind = "MODIFIED" if before and after else "ADDED" if after else "DELETED"
    return _line(kind, shape(change.object))


def _bookmark(kind: Resource, version: int, shape: Shape, annotations: Json) -> bytes:
    metadata: Json = {"resourceVersion": str(version), "creationTimestamp": None}
    if annotations:
        metadata["annotations"] = annotations
    return _line("BOOKMARK", shape({"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}))


def _line(kind: str, item: Json) -> bytes:
    return msgspec.json.encode({"type": kind, "object": item}) + b"\n"


def _place(item: Json) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _number(text: str) -> int:
    if text and not text.isdecimal():
        raise bad_request(f'invalid number: "{text}"')
    return int(text or 0)


def _write_token(version: int, place: tuple[str, str]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode((version, *place))).decode()


def _read_token(token: str) -> tuple[int, tuple[str, str]]:
    try:
        version, *place = msgspec.json.decode(base64.urlsafe_b64decode(token), type=tuple[int, str, str])
    except (ValueError, msgspec.MsgspecError) as error:
        raise bad_request(f"continue key is not valid: {error}") from error
    return version, (place[0], place[1])
