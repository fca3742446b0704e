"""What is between the pods and the world: Services that are reachable from this machine, and people who use one."""

import asyncio
import bisect
import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiohttp
from aiohttp import web

from tests.controlplane.plane import ControlPlane, Json
from tests.pipeline.api import Api
from tests.pipeline.kubelet import Kubelet, outside

QUIET, BUSY = 10.0, 60.0  # messages per second: mostly, and while something is judged


class Services:
    """Plays kube-proxy: a port on this machine for each Service, and each connection to the next ready endpoint.

    Which endpoints are ready is what the real controller writes into EndpointSlices.

    Args:
        plane: the control plane.
        ports: by namespace and name of the Service.
    """

    def __init__(self, plane: ControlPlane, ports: dict[tuple[str, str], int]) -> None:
        self._api = Api(plane)
        self._ports = ports
        self._slices: dict[str, Json] = {}
        self._turn = itertools.count()
        self._open: set[asyncio.Transport] = set()

    async def run(self) -> None:
        """Serve until cancelled."""
        async with self._api, asyncio.TaskGroup() as group:
            for namespace in {namespace for namespace, _ in self._ports}:
                group.create_task(self._follow(namespace))
            for service, port in self._ports.items():
                group.create_task(self._serve(service, port, group))

    def endpoints(self, namespace: str, name: str) -> list[tuple[str, int]]:
        """Where a Service's ready pods listen."""
        return [
            (outside(endpoint["addresses"][0]), found["ports"][0]["port"])
            for found in self._slices.values()
            if found["metadata"]["namespace"] == namespace
            and found["metadata"]["labels"]["kubernetes.io/service-name"] == name
            for endpoint in found.get("endpoints") or []
            if endpoint["conditions"]["ready"]
        ]

    async def _follow(self, namespace: str) -> None:
        path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        async for kind, found in self._api.follow(path):
            if kind == "DELETED":
                self._slices.pop(found["metadata"]["uid"], None)
            else:
                self._slices[found["metadata"]["uid"]] = found

    async def _serve(self, service: tuple[str, str], port: int, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()

        async def dial(near: _Half) -> None:
            found = sorted(self.endpoints(*service))
            if not found:
                near.transport.abort()
                return
            address = found[next(self._turn) % len(found)]
            try:
                await loop.create_connection(lambda: _Half(self._open, peer=near), *address)
            except OSError:
                near.transport.abort()

        def accept() -> _Half:
            return _Half(self._open, begun=lambda near: group.create_task(dial(near)))

        server = await loop.create_server(accept, "127.0.0.1", port)
        try:
            await server.serve_forever()
        finally:
            for transport in tuple(self._open):
                transport.abort()
            await asyncio.sleep(0)


class _Half(asyncio.Protocol):
    """One end of a connection through a Service; what comes in goes out at its peer.

    Args:
        opened: all transports that are open.
        peer: the other end, which waits for this one.
        begun: is called where there is no other end yet; nothing is read until there is.
    """

    def __init__(
        self,
        opened: set[asyncio.Transport],
        *,
        peer: "_Half | None" = None,
        begun: Callable[["_Half"], object] | None = None,
    ) -> None:
        self._opened = opened
        self._peer = peer
        self._begun = begun
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Join the two ends, or ask for the other one."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._opened.add(transport)
        if self._peer:
            self._peer._peer = self
            if self._peer.transport.is_closing():
                transport.abort()
            else:
                self._peer.transport.resume_reading()
        elif self._begun:
            transport.pause_reading()
            self._begun(self)

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        if self._peer:
            self._peer.transport.write(data)

    def connection_lost(self, _: Exception | None) -> None:
        """Close the other end, once it has written what it has."""
        self._opened.discard(self.transport)
        if self._peer:
            self._peer.transport.close()


@dataclass(frozen=True)
class Answer:
    """What became of one message: when it was sent, in seconds since the epoch, and whether it was answered."""

    at: float
    good: bool


class People:
    """Send messages to the agent at a steady rate, each over a connection of its own.

    `rebates` makes every third message one of a kind that nobody has sent before.

    Args:
        url: of the Service.
        rate: messages per second; 0 for none.
    """

    def __init__(self, url: str, *, rate: float = 0.0) -> None:
        self._url = url
        self.rate = rate
        self._answers: list[Answer] = []
        self.rebates = False

    def ask_for_rebates(self) -> None:
        """From now on, and as often as they can."""
        self.rebates = True
        self.rate = max(self.rate, BUSY)

    async def run(self) -> None:
        """Send until cancelled."""
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        timeout = aiohttp.ClientTimeout(total=20)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session, asyncio.TaskGroup() as group:
            loop = asyncio.get_running_loop()
            due = loop.time()
            for number in itertools.count():
                due = max(due + 1 / (self.rate or 10), loop.time() - 1)
                await asyncio.sleep(max(0.0, due - loop.time()))
                if self.rate:
                    group.create_task(self._send(session, number))

    async def _send(self, session: aiohttp.ClientSession, number: int) -> None:
        at, good = time.time(), False
        message = "Hello, is a rebate code valid?" if self.rebates and number % 3 == 0 else "Hello"
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with session.post(f"{self._url}/agent", json={"message": message}) as response:
                good = response.status == 200 and "response" in await response.json()
        bisect.insort(self._answers, Answer(at, good), key=lambda each: each.at)

    def between(self, begin: float, end: float) -> Sequence[Answer]:
        """What became of the messages of a time."""
        return [each for each in self._answers if begin <= each.at < end]

    def unanswered(self, begin: float, end: float) -> tuple[int, int]:
        """How many of a time's messages had no good answer, and how many there were."""
        found = self.between(begin, end)
        return sum(not each.good for each in found), len(found)


class Slack:
    """Takes what `curl` sends to an incoming webhook."""

    def __init__(self) -> None:
        self.said: list[str] = []

    async def take(self, request: web.Request) -> web.Response:
        """Keep a message."""
        self.said.append((await request.json())["text"])
        return web.Response(text="ok")


async def serve(port: int, *, kubelet: Kubelet, slack: Slack) -> None:
    """Serve Prometheus' discovery of pods and Slack's webhook until cancelled."""

    async def discovered(_: web.Request) -> web.Response:
        return web.json_response(kubelet.targets())

    app = web.Application()
    app.add_routes([web.get("/sd", discovered), web.post("/hooks/pipeline", slack.take)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
