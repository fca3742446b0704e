"""Traffic: a Service that finds its Ready pods, and people who send it real HTTP requests, at a rate that never waits.

The balancing is done where the client is, as kube-proxy does it: each request goes straight to a pod.
"""

import asyncio
import bisect
import itertools
import time
from collections.abc import Callable, Sequence

import aiohttp
import msgspec

from watchdog.sandbox.nodes import PORT_ANNOTATION
from watchdog.sandbox.store import Json, Store

_DEADLINE_S = 2.0


class Endpoint(msgspec.Struct, frozen=True):
    """A pod that takes traffic."""

    pod: str
    url: str


class Service:
    """A Service object of the cluster, and the pods that it sends requests to in turn.

    Args:
        store: where it is.
        namespace: of the Service.
        name: of the Service.
    """

    def __init__(self, store: Store, *, namespace: str, name: str) -> None:
        self._store = store
        self._at = (namespace, name)
        self._turn = itertools.count()
        self._seen = -1
        self._endpoints: tuple[Endpoint, ...] = ()

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Its pods that are Ready and not being deleted."""
        if self._seen != self._store.version:
            selector = self._store.get("services", *self._at)["spec"]["selector"]
            found = (pod for pod in self._store.list("pods", self._at[0]) if _matches(pod, selector) and _takes(pod))
            self._endpoints = tuple(Endpoint(pod["metadata"]["name"], _url(pod)) for pod in found)
            self._seen = self._store.version
        return self._endpoints

    def pick(self) -> Endpoint | None:
        """The pod for the next request; None while there is none."""
        endpoints = self.endpoints
        return endpoints[next(self._turn) % len(endpoints)] if endpoints else None


class Request(msgspec.Struct, frozen=True):
    """One request that has ended: when it began, in seconds since the epoch, at which pod, and whether it failed."""

    at: float
    pod: str
    failed: bool


class Counted(msgspec.Struct, frozen=True):
    """Requests, and those of them that failed."""

    total: int = 0
    failed: int = 0

    @property
    def share(self) -> float:
        """The share that failed; 0 without requests."""
        return self.failed / self.total if self.total else 0.0


class Load:
    """Sends requests to a Service at a steady rate, whatever becomes of those before, and keeps how each ended.

    Args:
        service: where to.
        rate: requests per second.
        now: seconds since the epoch.
    """

    def __init__(self, service: Service, *, rate: float, now: Callable[[], float] = time.time) -> None:
        self._service = service
        self._rate = rate
        self._now = now
        self._ended: list[Request] = []

    async def run(self) -> None:
        """Send until cancelled."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=_DEADLINE_S)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            asyncio.TaskGroup() as group,
        ):
            loop = asyncio.get_running_loop()
            begun = loop.time()
            for number in itertools.count():
                await asyncio.sleep(max(0.0, begun + number / self._rate - loop.time()))
                group.create_task(self._send(session))

    async def _send(self, session: aiohttp.ClientSession) -> None:
        at, endpoint, failed = self._now(), self._service.pick(), True
        if endpoint is not None:
            try:
                async with session.get(endpoint.url) as response:
                    await response.read()
                    failed = response.status >= 500
            except (aiohttp.ClientError, TimeoutError):
                failed = True
        self._keep(Request(at, endpoint.pod if endpoint else "", failed))

    def _keep(self, request: Request) -> None:
        bisect.insort(self._ended, request, key=_began)

    def between(self, begin: float, end: float = float("inf")) -> Sequence[Request]:
        """The requests that began in a time and have ended, oldest first."""
        first = bisect.bisect_left(self._ended, begin, key=_began)
        return self._ended[first : bisect.bisect_left(self._ended, end, key=_began)]

    def count(self, begin: float, end: float = float("inf")) -> Counted:
        """How many began in a time, and how many of them failed."""
        found = self.between(begin, end)
        return Counted(len(found), sum(each.failed for each in found))


def _began(request: Request) -> float:
    return request.at


def _url(pod: Json) -> str:
    return f"http://{pod['status']['podIP']}:{pod['metadata']['annotations'][PORT_ANNOTATION]}/"


def _matches(pod: Json, selector: Json) -> bool:
    labels = pod["metadata"].get("labels", {})
    return all(labels.get(key) == value for key, value in selector.items())


def _takes(pod: Json) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]
