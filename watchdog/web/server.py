"""The two listeners: the API, and apart from it health and metrics, which are open.

aiohttp is given sockets and its own protocol class directly, because only there can each error have our shape: bytes
that are not HTTP never reach an application, and the framework's own 404 and 405 are texts.

Whoever can connect can hold a connection, so each listener has a door: it lets in as many as leave descriptors for our
own calls, and where it is full the one that has waited longest makes room for the newest.
"""

import asyncio
import logging
import resource
import socket
import ssl
import time
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from typing import Any, NamedTuple

from aiohttp import web

from watchdog.config import Server
from watchdog.errors import ConfigError
from watchdog.kube import Reviews
from watchdog.model import MANAGER
from watchdog.web.answers import HttpError, reply
from watchdog.web.api import Api, Parse, well_formed
from watchdog.web.auth import Authentication
from watchdog.web.backend import Backend

Exposition = Callable[[], tuple[bytes, str]]
"""Gives the metrics and their content type."""

_log = logging.getLogger(__name__)

_HEAD_S = 10.0
_SEND_S = 10.0
_LINGER_S = 2.0
_HANDSHAKE_S = 10.0
_SHUTDOWN_S = 5.0

_MOST_CONNECTIONS = 512
_SHARE = 4
_METRICS_SHARE = 16
_AT_A_TIME = 100
_SAY_AGAIN_S = 60.0
_TOO_MANY = HttpError(503, "too many connections are open").body
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
_FULL += b"Content-Length: %d\r\n\r\n%b" % (len(_TOO_MANY), _TOO_MANY)
_OF_THE_FRAMEWORK = {400: HttpError(400, "this is not HTTP"), 504: HttpError(503, "this took too long")}


class ListenPorts(NamedTuple):
    """Where we listen."""

    api: int
    metrics: int


class _Door(socket.socket):
    """A listening socket that lets in no more than `most`.

    Where it is full, the oldest connection that is in no request is closed, be it in its handshake, in the head of a
    request or between two; where all are in one, the newest is told 503, without TLS, and closed.
    """

    def __init__(self, listening: socket.socket, *, most: int, told: bool) -> None:
        super().__init__(fileno=listening.detach())
        self.handlers: dict[int, _Connection] = {}
        self._most = most
        self._told = told
        self._inside: weakref.WeakKeyDictionary[socket.socket, None] = weakref.WeakKeyDictionary()
        self._said = -_SAY_AGAIN_S

    def accept(self) -> tuple[socket.socket, Any]:
        """Take the next connection for which there is room; the event loop asks for it."""
        for _ in range(_AT_A_TIME):
            found, address = super().accept()
            if self._makes_room():
                self._inside[found] = None
                return found, address
            self._turn_away(found)
        raise BlockingIOError

    def _makes_room(self) -> bool:
        there = [each for each in self._inside if each.fileno() >= 0]
        if len(there) < self._most:
            return True
        waiting = (each for each in there if self._waits(each))
        oldest = next(waiting, None)
        if oldest is None:
            return False
        del self._inside[oldest]
        with suppress(OSError):
            oldest.shutdown(socket.SHUT_RDWR)  # its transport reads the end, and closes it
        return True

    def _waits(self, connection: socket.socket) -> bool:
        handler = self.handlers.get(connection.fileno())
        return handler is None or handler.waits

    def _turn_away(self, connection: socket.socket) -> None:
        if time.monotonic() - self._said >= _SAY_AGAIN_S:
            self._said = time.monotonic()
            fields = {"event": "connections-full"}
            _log.warning("%d requests are under way: new connections are turned away", self._most, extra=fields)
        with closing(connection), suppress(OSError):
            connection.setblocking(False)
            if self._told:
                connection.send(_FULL)


class _Connection(web.RequestHandler):
    """One connection. A client has `_HEAD_S` for the head of a request, the first or a later one, and to read."""

    __slots__ = ("_descriptor", "_door")

    def __init__(self, manager: web.Server, door: _Door, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(manager, loop=loop, keepalive_timeout=_HEAD_S, lingering_time=_LINGER_S, auto_decompress=False)
        self._door = door
        self._descriptor = -1

    @property
    def waits(self) -> bool:
        """Whether it is in no request."""
        return self._waiter is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; every answer is waited for until the kernel has it, since closing would wait without end."""
        self._descriptor = transport.get_extra_info("socket").fileno()
        self._door.handlers[self._descriptor] = self
        if isinstance(transport, asyncio.WriteTransport):
            transport.set_write_buffer_limits(high=0)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        if self._door.handlers.get(self._descriptor) is self:
            del self._door.handlers[self._descriptor]
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what a handler raises, and bytes that are not HTTP, which are neither logged nor told."""
        return (_OF_THE_FRAMEWORK.get(status) or HttpError.of(exc)).response()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; the framework's own errors get our shape."""
        if isinstance(resp, web.HTTPException):
            allow = resp.headers.get("Allow")
            resp = HttpError(resp.status, resp.reason).response()
            if allow:
                resp.headers["Allow"] = allow
        resp.headers["Server"] = MANAGER
        transport = self.transport
        try:
            async with asyncio.timeout(_SEND_S):
                return await super().finish_response(request, resp, start_time)
        except TimeoutError:  # whoever does not read shall not hold it
            if transport:
                transport.abort()
            return resp, True


@asynccontextmanager
async def serve(
    settings: Server,
    backend: Backend,
    reviews: Reviews,
    parse: Parse,
    exposition: Exposition,
    *,
    request_s: float,
) -> AsyncIterator[ListenPorts]:
    """Listen for as long as the context lasts; at its end give requests under way a few seconds.

    Args:
        settings: addresses, tokens and certificates.
        backend: the engine.
        reviews: where the API server is asked who may.
        parse: reads Alertmanager's webhook.
        exposition: gives the metrics and their content type.
        request_s: deadline of one review.

    Raises:
        ConfigError: an address or a certificate cannot be used.
    """
    tls = _tls(settings)
    if not tls:
        _log.warning("without server.tls_cert_file tokens cross the network in the clear", extra={"event": "no-tls"})
    api = Api(backend, Authentication(settings, reviews, request_s=request_s), parse).application()
    async with (  # health is served until the very end
        _listen(
            "metrics_listen", settings.metrics_listen, _open_routes(backend, exposition), share=_METRICS_SHARE
        ) as metrics_port,
        _listen("listen", settings.listen, api, share=_SHARE, tls=tls) as api_port,
    ):
        yield ListenPorts(api_port, metrics_port)


def _open_routes(backend: Backend, exposition: Exposition) -> web.Application:
    async def state(request: web.Request) -> web.Response:
        word, good = ("alive", backend.alive()) if request.path == "/healthz" else ("ready", backend.ready())
        if not good:
            raise HttpError(503, f"not {word}")
        return reply({"status": word})

    async def metrics(_: web.Request) -> web.Response:
        body, content_type = exposition()
        return web.Response(body=body, headers={"Content-Type": content_type})

    application = web.Application(middlewares=[well_formed])
    application.add_routes([web.get("/healthz", state), web.get("/readyz", state), web.get("/metrics", metrics)])
    return application


@asynccontextmanager
async def _listen(
    setting: str, address: str, application: web.Application, *, share: int, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Listen; `share` is by what our descriptors are divided for this listener's connections."""
    loop = asyncio.get_running_loop()
    runner = web.AppRunner(application, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()

    def connection() -> _Connection:
        assert runner.server  # noqa: S101  (it is set up)
        return _Connection(runner.server, listening, loop=loop)

    try:
        listening = _Door(_socket(setting, address), most=most_connections(share), told=tls is None)
        server = await loop.create_server(
            connection,
            sock=listening,
            ssl=tls,
            ssl_handshake_timeout=_HANDSHAKE_S if tls else None,
            ssl_shutdown_timeout=_SHUTDOWN_S if tls else None,
        )
        with closing(server):
            yield int(listening.getsockname()[1])
    finally:
        await runner.cleanup()


def most_connections(share: int) -> int:
    """How many connections a listener may hold: a share of the descriptors that this process may open."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_CONNECTIONS * _SHARE if descriptors == resource.RLIM_INFINITY else descriptors
    return max(1, min(most, _MOST_CONNECTIONS * _SHARE) // share)


def _socket(setting: str, address: str) -> socket.socket:
    """Bind; to ``[::]`` for IPv4 too, as everywhere outside of asyncio."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, int(port)), family=family, dualstack_ipv6=host == "::")
    except OSError as error:
        raise ConfigError(f"server.{setting}", f"cannot listen on {address} ({error})") from error


def _tls(settings: Server) -> ssl.SSLContext | None:
    if not settings.tls_cert_file:
        if settings.client_ca_file:
            raise ConfigError("server.client_ca_file", "client certificates need TLS; write server.tls_cert_file too")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    setting = "tls_cert_file"
    try:
        context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file, password="")  # else it asks a terminal
        if settings.client_ca_file:
            setting = "client_ca_file"
            context.load_verify_locations(settings.client_ca_file)
            context.verify_mode = ssl.CERT_OPTIONAL  # a token will do, but a false certificate will not
    except OSError as error:
        raise ConfigError(f"server.{setting}", f"cannot be used ({error})") from error
    return context
