"""Reading: one object or a whole list, repeated where no answer came, decoded at once."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar

import msgspec
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from watchdog.decoding import Malformed, from_json
from watchdog.errors import Expired, Throttled, TooLong, Unanswered, Unreadable
from watchdog.kube.transport import Transport

T = TypeVar("T")

_PAGE_SIZE = 500
_MOST_PAGES = 1000

_log = logging.getLogger(__name__)


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct, frozen=True):
    metadata: _ListMeta
    items: tuple[msgspec.Raw, ...] | None = None


async def read_object(
    transport: Transport,
    path: str,
    kind: type[T],
    *,
    operation: str,
    timeout_s: float,
    query: Mapping[str, str] | None = None,
) -> T:
    """Read one object within a deadline, asking up to three times.

    Raises:
        ClusterError: the last attempt's error; `Unanswered` also for what cannot be decoded.
    """
    attempts = AsyncRetrying(
        retry=retry_if_exception(_again),
        stop=stop_after_attempt(3),
        wait=wait_random_exponential(multiplier=0.1, max=1.0),
        reraise=True,
    )
    try:
        async with asyncio.timeout(timeout_s):
            raw: bytes = await attempts(
                transport.request, "GET", path, operation=operation, timeout_s=timeout_s, query=query
            )
    except TimeoutError as error:
        raise Unanswered(operation, f"no answer within {timeout_s:g} s") from error
    return decode(raw, kind, operation=operation)


async def read_list(
    transport: Transport,
    path: str,
    kind: type[T],
    *,
    operation: str,
    timeout_s: float,
    query: Mapping[str, str] | None = None,
    lenient: bool = False,
) -> tuple[tuple[T, ...], str]:
    """Read a list page by page, each page within the deadline; once again where it took too long to be one list.

    Args:
        kind: of the items.
        operation: what this is, for errors.
        timeout_s: deadline of each page, in seconds.
        lenient: leave out an item that cannot be decoded, where it must not hide the others from whoever sees to all.

    Returns:
        The items, and the resourceVersion at which a watch goes on from here.

    Raises:
        Expired: a page's continue token expired twice.
        ClusterError: see `read_object`.
    """
    decoded = partial(_readable if lenient else _all, kind=kind, operation=operation)
    read = partial(_read_pages, transport, path, decoded, operation=operation, timeout_s=timeout_s, query=query or {})
    try:
        return await read()
    except Expired:
        return await read()


async def _read_pages(
    transport: Transport,
    path: str,
    decoded: Callable[[Iterable[msgspec.Raw]], Iterable[T]],
    *,
    operation: str,
    timeout_s: float,
    query: Mapping[str, str],
) -> tuple[tuple[T, ...], str]:
    items: list[T] = []
    limit, asked = _PAGE_SIZE, {**query, "limit": str(_PAGE_SIZE)}
    for _ in range(_MOST_PAGES):
        try:
            page = await read_object(transport, path, _Page, operation=operation, timeout_s=timeout_s, query=asked)
        except TooLong:
            if limit == 1:
                raise
            limit = max(1, limit // 8)  # the objects are large: fewer of them fit into an answer
            asked["limit"] = str(limit)
            continue
        # Page by page, so that the event loop never stands still for the whole of a large list.
        items += decoded(page.items or ())
        if not page.metadata.continue_:
            return tuple(items), page.metadata.resource_version
        asked["continue"] = page.metadata.continue_
    raise Unanswered(operation, f"a list of more than {_MOST_PAGES:,} pages")


def _all(items: Iterable[msgspec.Raw], *, kind: type[T], operation: str) -> list[T]:
    try:
        return [from_json(item, kind) for item in items]
    except Malformed as error:
        raise Unreadable(operation, "malformed answer") from error


def _readable(items: Iterable[msgspec.Raw], *, kind: type[T], operation: str) -> list[T]:
    found = []
    for item in items:
        try:
            found.append(from_json(item, kind))
        except Malformed as error:
            leave_out(operation, error)
    return found


def _again(error: BaseException) -> bool:
    return isinstance(error, Unanswered | Throttled) and not isinstance(error, TooLong)


def leave_out(operation: str, problem: Malformed) -> None:
    """Say that one object among others is passed over."""
    fields = {"event": "left-out", "operation": operation, "problem": str(problem)}
    _log.warning("%s: an object that cannot be read is left out: %s", operation, problem, extra=fields)


def decode(raw: bytes | msgspec.Raw, kind: type[T], *, operation: str) -> T:
    """Decode an answer; one that is not what was asked for is no answer."""
    try:
        return from_json(raw, kind)
    except Malformed as error:
        raise Unanswered(operation, "malformed answer") from error
