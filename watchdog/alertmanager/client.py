"""Every Alertmanager peer asked for what fires and what is silenced: a webhook alone may be lost.

Peers do not share alerts, only silences. So presence at one of them counts at once, and absence only where all of them
have answered and none was started so lately that Prometheus may not have told it yet.
"""

import asyncio
import datetime as dt
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, TypeVar

import aiohttp
import msgspec

from watchdog.alertmanager.payload import Labelled
from watchdog.config import Access, Alertmanager
from watchdog.decoding import Malformed, Moment, from_json, in_range
from watchdog.errors import WatchdogError
from watchdog.expressions import BadExpression, matches
from watchdog.http import headers, read_at_most, tls
from watchdog.model import Silence
from watchdog.ports import AlertView

T = TypeVar("T")

Send = Callable[[str, str, float], Awaitable[tuple[int, bytes]]]
"""Asks one peer: (method, path and query below its base URL, seconds) -> (status, body)."""

log = logging.getLogger(__name__)

ALERTS = "/api/v2/alerts?active=true&silenced=false&inhibited=false&filter=rollback_watchdog%3D%22true%22"
STATUS = "/api/v2/status"
SILENCES = "/api/v2/silences"

_LONGEST_BYTES = 1 << 24
_OURS = "RollbackWatchdog"


class _Active(Labelled, frozen=True, kw_only=True, rename="camel"):
    updated_at: Moment

    def __post_init__(self) -> None:
        super().__post_init__()
        if not in_range(self.updated_at):
            raise ValueError("updatedAt is out of range")


class _Cluster(msgspec.Struct, frozen=True):
    status: str


class _Status(msgspec.Struct, frozen=True):
    """Of a peer; `disabled` is the cluster of one that stands alone, and its uptime is the moment of its start."""

    cluster: _Cluster
    uptime: Moment

    def __post_init__(self) -> None:
        if not in_range(self.uptime):
            raise ValueError("uptime is out of range")


class _Matcher(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    value: str
    is_regex: bool
    is_equal: bool = True

    def takes_ours(self) -> bool:
        """Whether it matches the name of our alert; an expression that nobody can read does not."""
        if not self.is_regex:
            return (self.value == _OURS) == self.is_equal
        try:
            return matches(self.value, _OURS) == self.is_equal
        except BadExpression:
            return False


class _Silenced(msgspec.Struct, frozen=True, rename="camel"):
    id: str
    status: dict[str, str]
    matchers: tuple[_Matcher, ...]
    ends_at: Moment
    created_by: str = ""
    comment: str = ""

    def is_for_us(self) -> bool:
        """Whether it is active and names our alert, instead of merely not excluding it."""
        names = [matcher for matcher in self.matchers if matcher.name == "alertname"]
        named = any(matcher.is_equal for matcher in names) and all(matcher.takes_ours() for matcher in names)
        return named and self.status.get("state") == "active"

    def silence(self) -> Silence:
        """The same in our words."""
        others = (matcher for matcher in self.matchers if matcher.name != "alertname")
        return Silence(
            id=self.id,
            matchers=tuple((other.name, other.value, other.is_regex, other.is_equal) for other in others),
            by=self.created_by,
            comment=self.comment,
            until=self.ends_at,
        )


class Alertmanagers:
    """All peers of one Alertmanager. Implements `watchdog.ports.AlertSource`.

    Args:
        peers: how to ask each, by the name under which it is told of; `http_peers` makes most of them.
        settled_s: uptime from which what a peer does not list does not fire.
    """

    def __init__(self, peers: Mapping[str, Send], *, settled_s: float = 300) -> None:
        self._peers = peers
        self._settled_s = settled_s

    async def alerts(self, *, timeout_s: float) -> AlertView:
        """Ask every peer for what fires; never raises."""
        views = await self._of_all(lambda peer: self._view(peer, timeout_s))
        active = sorted((each for found, _ in views.values() for each in found or ()), key=lambda each: each.updated_at)
        alerts = [each.alert(firing=True) for each in active]
        return AlertView(
            alerts=tuple({alert.fingerprint: alert for alert in alerts}.values()),
            unreachable=tuple(peer for peer, (found, _) in views.items() if found is None),
            trustworthy=bool(views) and all(complete for _, complete in views.values()),
        )

    async def silences(self, *, timeout_s: float) -> tuple[Silence, ...] | None:
        """The active silences that name the alert `RollbackWatchdog`; None where no peer answers."""
        answers = await self._of_all(lambda peer: self._ask(peer, SILENCES, partial(_items, kind=_Silenced), timeout_s))
        known = [found for found in answers.values() if found is not None]
        ours = {each.id: each.silence() for found in known for each in found if each.is_for_us()}
        return tuple(ours.values()) if known else None

    async def _of_all(self, ask: Callable[[str], Coroutine[Any, Any, T]]) -> dict[str, T]:
        async with asyncio.TaskGroup() as group:
            tasks = {peer: group.create_task(ask(peer)) for peer in self._peers}
        return {peer: task.result() for peer, task in tasks.items()}

    async def _view(self, peer: str, timeout_s: float) -> tuple[tuple[_Active, ...] | None, bool]:
        """What fires, and whether that is all.

        The status comes second: a peer that was restarted in between gives itself away.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout_s
        active = await self._ask(peer, ALERTS, partial(_items, kind=_Active), timeout_s)
        status = (
            None
            if active is None
            else await self._ask(peer, STATUS, partial(from_json, kind=_Status), deadline - clock())
        )
        if status is None:
            return active, False
        up_s = (dt.datetime.now(dt.UTC) - status.uptime).total_seconds()
        return active, up_s >= self._settled_s and status.cluster.status in ("ready", "disabled")

    async def _ask(self, peer: str, path: str, decode: Callable[[bytes], T], timeout_s: float) -> T | None:
        """One answer; None, with a line in the log, where there is none that can be used."""
        try:
            async with asyncio.timeout(timeout_s):
                status, raw = await self._peers[peer]("GET", path, timeout_s)
            if status == 200:
                return decode(raw)
            problem = f"HTTP {status}"
        except TimeoutError:
            problem = f"no answer within {timeout_s:.3g} s"
        except (WatchdogError, aiohttp.ClientError, OSError, ValueError) as error:
            problem = (str(error).partition("\n")[0] or type(error).__name__)[:200]
        log.warning("no usable answer from an Alertmanager", extra={"peer": peer, "path": path, "problem": problem})
        return None


def _items(raw: bytes, kind: type[T]) -> tuple[T, ...]:
    """A list without those items that cannot be read: anyone may post an alert, and none shall hide the others.

    Raises:
        Malformed: it is no list, or none of it can be read.
    """
    items, found, problem = from_json(raw, tuple[msgspec.Raw, ...]), [], ""
    for item in items:
        try:
            found.append(from_json(item, kind))
        except Malformed as error:
            problem = str(error)
    if problem and not found:
        raise Malformed(problem)
    if problem:
        fields = {"left_out": len(items) - len(found), "problem": problem}
        log.warning("what an Alertmanager lists cannot all be read", extra=fields)
    return tuple(found)


def http_peers(settings: Alertmanager) -> dict[str, Send]:
    """The peers with an HTTP URL, each by that URL without the credentials that it may hold."""
    urls = [url.rstrip("/") for url in settings.urls if url.startswith(("http://", "https://"))]
    return {re.sub("//.*@", "//", url): _http(url, settings) for url in urls}


def _http(url: str, access: Access) -> Send:
    """No connection is kept: there are few requests, and each shall see the files as they are."""

    async def send(method: str, path: str, timeout_s: float) -> tuple[int, bytes]:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as session,
            session.request(
                method, url + path, headers=headers(access), ssl=tls(access), allow_redirects=False
            ) as response,
        ):
            return response.status, await read_at_most(response, _LONGEST_BYTES)

    return send
