"""An API server that answers as it is told to and remembers what it was asked."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

Json = dict[str, Any]
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Seen(msgspec.Struct, frozen=True):
    """One request, and the loop's time at which it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def verb(self) -> str:
        """Its method, or ``WATCH`` where it asks for changes instead of what there is."""
        return "WATCH" if "watch" in self.query else self.method


class FakeApi:
    """A script per method and path; of several answers each is given once, in order, and the last one again and again.

    Lists and watches of one path have scripts of their own: the method of a watch is written ``WATCH``.
    """

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[Seen] = []
        self._scripts: dict[tuple[str, str], list[Answer]] = {}
        self._news = asyncio.Condition()

    def answer(self, method: str, path: str, *answers: Answer) -> None:
        """Say what comes back."""
        self._scripts[method, path] = list(answers)

    def asked(self, method: str, path: str) -> list[Seen]:
        """What has been asked so far."""
        return [seen for seen in self.seen if (seen.verb, seen.path) == (method, path)]

    async def reached(self, count: int, method: str, path: str) -> None:
        """Wait until so many requests have come."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.asked(method, path)) >= count)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        at = asyncio.get_running_loop().time()
        query, body = dict(request.query), await request.read()
        seen = Seen(request.method, request.path, query, dict(request.headers), body, at)
        self.seen.append(seen)
        async with self._news:
            self._news.notify_all()
        script = self._scripts.get((seen.verb, seen.path))
        if not script:
            return await status(404, "NotFound")(request)
        answer = script.pop(0) if len(script) > 1 else script[0]
        return await answer(request)


@asynccontextmanager
async def running(api: FakeApi) -> AsyncIterator[FakeApi]:
    """Serve on 127.0.0.1 for as long as the context lasts."""
    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{path:.*}", api.serve)
    # An answer whose asker is gone is cancelled, so that a test can see that a connection was closed.
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    api.url = f"http://{host}:{port}"
    try:
        yield api
    finally:
        await runner.cleanup()


def write_kubeconfig(directory: Path, url: str) -> Path:
    """Write a kubeconfig with a token file beside it."""
    (directory / "token").write_text("first-token")
    path = directory / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "contexts": [{"name": "test", "context": {"cluster": "fake", "user": "jane"}}],
                "clusters": [{"name": "fake", "cluster": {"server": url}}],
                "users": [{"name": "jane", "user": {"tokenFile": str(directory / "token")}}],
            }
        )
    )
    return path


# -- answers -----------------------------------------------------------------------------------------------------------


def raw(body: bytes, *, code: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Give these bytes."""

    async def give(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=code, headers={"Content-Type": "application/json", **(headers or {})})

    return give


def good(body: Json) -> Answer:
    """Give an object."""
    return raw(json.dumps(body).encode())


def status(
    code: int, reason: str, *, message: str = "", details: Json | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """Refuse as the API server does, with an object of the kind Status."""
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    return raw(json.dumps({**body, "details": details or {}}).encode(), code=code, headers=headers)


def page(*items: Json, version: str = "1000", more: str = "") -> Answer:
    """Give a list, or with `more` one page of it and the token that continues it."""
    return good({"kind": "List", "metadata": {"resourceVersion": version, "continue": more}, "items": list(items)})


async def hang(_: web.Request) -> web.StreamResponse:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError


async def cut(request: web.Request) -> web.StreamResponse:
    """Begin to answer, then cut the connection."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"metadata": ')
    assert request.transport is not None
    request.transport.abort()
    return response


async def no_bytes(request: web.Request) -> web.StreamResponse:
    """Cut the connection before the first byte of an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


class Stream:
    """A watch: events, bytes as they are, and pauses in seconds; then the end, unless it stays open.

    Attributes:
        closed: set when the asker has closed the connection.
    """

    def __init__(self, *steps: Json | bytes | float, stays_open: bool = True) -> None:
        self._steps = steps
        self._stays_open = stays_open
        self.closed = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            for step in self._steps:
                if isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    await response.write(step if isinstance(step, bytes) else json.dumps(step).encode() + b"\n")
            if self._stays_open:
                await asyncio.Event().wait()
        except (asyncio.CancelledError, ConnectionError):
            self.closed.set()
            raise
        return response


def event(kind: str, item: Json) -> Json:
    """One event of a watch."""
    return {"type": kind, "object": item}


def bookmark(version: str) -> Json:
    """Tell a watch how far it has come."""
    return event("BOOKMARK", {"kind": "Deployment", "metadata": {"resourceVersion": version}, "spec": {"template": {}}})


def error_event(code: int, reason: str) -> Json:
    """An error as it comes inside a watch."""
    return event("ERROR", {"kind": "Status", "code": code, "reason": reason, "message": "password: hunter2"})
