"""A pod's process: a real HTTP server on a loopback address of its own, with counters under /metrics."""

import asyncio
import errno
import itertools
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.exposition import choose_encoder

from watchdog.sandbox.behaviour import Behaviour, Upstream, failures

PORT = 8080
"""Where pods listen, as far as each has an address of its own."""

_TRIES = 64
_PLACES = 254 * 256 * 254


class Place(msgspec.Struct, frozen=True):
    """Where a pod listens."""

    address: str
    port: int

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return f"http://{self.address}:{self.port}"


def addresses() -> Iterator[str]:
    """Give loopback addresses, none of them twice; it begins anywhere, so that several sandboxes hardly meet."""
    for number in itertools.count(secrets.randbelow(_PLACES)):
        high, low = divmod(number % _PLACES, 254)
        yield f"127.{high // 256 + 1}.{high % 256}.{low + 1}"


def listen(candidates: Iterator[str]) -> socket.socket:
    """Listen on the next free address; where the system has only 127.0.0.1, on a free port of that.

    Raises:
        OSError: there is no way to listen.
    """
    for address in itertools.islice(candidates, _TRIES):
        try:
            return socket.create_server((address, PORT), backlog=256)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                break
            if error.errno != errno.EADDRINUSE:
                raise
    return socket.create_server(("127.0.0.1", 0), backlog=256)


class _Worker:
    """One process of those that may stand behind one port, with a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter("http_requests", "Requests by how they ended.", ["code"], registry=self.registry)
        for code in ("200", "500", "503"):
            self._requests.labels(code)

    def count(self, status: int) -> None:
        """Count a request that has ended."""
        self._requests.labels(str(status)).inc()


class _Process:
    """What answers at a pod's port. Requests and scrapes fall on its workers in turn, but not on all alike."""

    def __init__(self, version: str, behaviour: Behaviour, upstream: Upstream) -> None:
        self._version = version
        self._behaviour = behaviour
        self._upstream = upstream
        self._failures = failures(behaviour.errors)
        workers = [_Worker() for _ in range(behaviour.workers)]
        self._busy = itertools.cycle([*workers, *workers[:1], *workers[:1]])  # the first takes more: they drift apart
        self._scraped = itertools.cycle(workers)

    def application(self) -> web.Application:
        """The pod's routes: everything is a request, but for /metrics."""
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_route("*", "/{path:.*}", self._request)
        return app

    async def _request(self, _: web.Request) -> web.Response:
        worker, failed = next(self._busy), next(self._failures)
        await asyncio.sleep(self._behaviour.latency_s)
        status = 503 if self._behaviour.upstream and self._upstream.down else 500 if failed else 200
        worker.count(status)
        return web.Response(status=status, text=f"{self._version}\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        body = encode(next(self._scraped).registry)
        return web.Response(body=body, headers={"Content-Type": content_type})


@asynccontextmanager
async def serving(
    listener: socket.socket, *, version: str, behaviour: Behaviour, upstream: Upstream
) -> AsyncIterator[Place]:
    """Run a pod's process on a socket for as long as the context lasts, and close the socket.

    Args:
        listener: a socket that listens.
        version: what it answers with.
        behaviour: how it behaves.
        upstream: what it calls.
    """
    application = _Process(version, behaviour, upstream).application()
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    address, port = listener.getsockname()
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        yield Place(address, port)
    finally:
        await runner.cleanup()
        listener.close()
