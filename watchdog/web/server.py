"""The two listeners: the API, and apart from it health and metrics, which are open.

aiohttp is given sockets and its own protocol class directly, because only there can each error have our shape: bytes
that are not HTTP never reach an application, and the framework's own 404 and 405 are texts.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from typing import NamedTuple

from aiohttp import web

from watchdog.config import Server
from watchdog.errors import ConfigError
from watchdog.kube import Reviews
from watchdog.model import MANAGER
from watchdog.web.answers import HttpError, reply
from watchdog.web.api import Api, Parse
from watchdog.web.auth import Gate
from watchdog.web.backend import Backend

Exposition = Callable[[], tuple[bytes, str]]
"""Gives the metrics and their content type."""

_log = logging.getLogger(__name__)

_HEAD_S = 30.0
_LINGER_S = 5.0
_HANDSHAKE_S = 10.0
_SHUTDOWN_S = 5.0

_OF_THE_FRAMEWORK = {400: HttpError(400, "this is not HTTP"), 504: HttpError(503, "this took too long")}


class Ports(NamedTuple):
    """Where we listen."""

    api: int
    metrics: int


class _Connection(web.RequestHandler):
    """One connection. A client has `_HEAD_S` for the head of a request, whether or not it is the first."""

    __slots__ = ()

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
        return await super().finish_response(request, resp, start_time)


@asynccontextmanager
async def serve(
    settings: Server,
    backend: Backend,
    reviews: Reviews,
    parse: Parse,
    exposition: Exposition,
    *,
    request_s: float,
) -> AsyncIterator[Ports]:
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
    api = Api(backend, Gate(settings, reviews, request_s=request_s), parse).application()
    async with (  # health is served until the very end
        _listen("metrics_listen", settings.metrics_listen, _open_routes(backend, exposition)) as metrics_port,
        _listen("listen", settings.listen, api, tls=tls) as api_port,
    ):
        yield Ports(api_port, metrics_port)


def _open_routes(backend: Backend, exposition: Exposition) -> web.Application:
    async def state(request: web.Request) -> web.Response:
        word, good = ("alive", backend.alive()) if request.path == "/healthz" else ("ready", backend.ready())
        if not good:
            raise HttpError(503, f"not {word}")
        return reply({"status": word})

    async def metrics(_: web.Request) -> web.Response:
        body, content_type = exposition()
        return web.Response(body=body, headers={"Content-Type": content_type})

    application = web.Application()
    application.add_routes([web.get("/healthz", state), web.get("/readyz", state), web.get("/metrics", metrics)])
    return application


@asynccontextmanager
async def _listen(
    setting: str, address: str, application: web.Application, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    runner = web.AppRunner(application, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()

    def connection() -> _Connection:
        assert runner.server  # noqa: S101  (it is set up)
        return _Connection(
            runner.server, loop=loop, keepalive_timeout=_HEAD_S, lingering_time=_LINGER_S, auto_decompress=False
        )

    handshake_s = _HANDSHAKE_S if tls else None
    try:
        listening = _socket(setting, address)
        server = await loop.create_server(connection, sock=listening, ssl=tls, ssl_handshake_timeout=handshake_s)
        with closing(server):
            yield int(listening.getsockname()[1])
    finally:
        await runner.cleanup()


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
