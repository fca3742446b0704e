"""HTTP: `POST /agent`, health, metrics."""

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import openai
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from agent_api.agent import Agent, AgentError
from agent_api.settings import Settings
from agent_api.stores import PostgresTranscripts, RedisSessions, StoreError

log = logging.getLogger(__name__)

_MAX_MESSAGE = 8000
_SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CHECK_S = 2.0


class Metrics:
    """What the watchdog judges by: errors of all requests, and how long they took."""

    def __init__(self, settings: Settings) -> None:
        self.registry = CollectorRegistry()
        labels = {"namespace": settings.namespace, "deployment": settings.track}
        made: dict[str, Any] = {"labelnames": list(labels), "registry": self.registry}
        # Made with their labels at once, so that the first error is a step from 0 and not a new series.
        self.requests = Counter("agent_requests_total", "Messages taken", **made).labels(**labels)
        self.errors = Counter("agent_errors_total", "Messages without an answer", **made).labels(**labels)
        self.seconds = Histogram("agent_request_seconds", "Time to the answer", **made).labels(**labels)


class RateLimit:
    """A bucket of a minute's requests that fills evenly.

    Args:
        per_minute: how many.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_second = per_minute / 60
        self._size = self._left = float(per_minute)
        self._at = time.monotonic()

    def take(self) -> bool:
        """Say whether one more request may come now."""
        now = time.monotonic()
        self._left = min(self._size, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Server:
    """The handlers.

    Args:
        settings: limits and labels.
        agent: that answers.
        stores: without which no request can succeed; what `check` raises is why not.
    """

    def __init__(self, settings: Settings, *, agent: Agent, stores: tuple[Any, ...]) -> None:
        self._agent = agent
        self._stores = stores
        self._metrics = Metrics(settings)
        self._limit = RateLimit(settings.rate_limit)

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        return [
            web.post("/agent", self.agent),
            web.get("/health", self.health),
            web.get("/live", self.live),
            web.get("/metrics", self.metrics),
        ]

    async def agent(self, request: web.Request) -> web.Response:
        """Answer a message. What the caller did wrong is no error of ours, and is not counted."""
        try:
            body = json.loads(await request.read())
        except ValueError:
            return _error(400, "malformed", "the body is not JSON")
        match body:
            case {"message": str(message)} if message.strip() and len(message) <= _MAX_MESSAGE:
                session_id = body.get("session_id")
            case _:
                return _error(400, "message", f"message must be a text of 1 to {_MAX_MESSAGE} characters")
        if session_id is not None and not (isinstance(session_id, str) and _SESSION.fullmatch(session_id)):
            return _error(400, "session_id", "session_id must be 1 to 64 letters, digits, _ or -")
        if not self._limit.take():
            return _error(429, "rate-limit", "too many messages: try again later", {"Retry-After": "1"})
        self._metrics.requests.inc()
        with self._metrics.seconds.time():
            try:
                reply = await self._agent.process_message(message, session_id)
            except (AgentError, StoreError) as error:
                self._metrics.errors.inc()
                log.warning("no answer: %s: %r", error, error.__cause__)
                return _error(503, "unavailable", str(error))
            except Exception:
                self._metrics.errors.inc()
                log.exception("no answer")
                return _error(500, "internal", "an error of ours; it is in the log")
        return web.json_response({"response": reply.response, "tokens": reply.tokens, "session_id": reply.session_id})

    async def health(self, _: web.Request) -> web.Response:
        """Ready: both stores answer. The model is left out: its outage takes all pods alike, and no restart helps."""
        try:
            async with asyncio.timeout(_CHECK_S):
                await asyncio.gather(*(store.check() for store in self._stores))
        except (StoreError, TimeoutError) as error:
            return web.json_response({"status": "unavailable", "reason": str(error) or "too slow"}, status=503)
        return web.json_response({"status": "ok"})

    async def live(self, _: web.Request) -> web.Response:
        """Alive: it answers at all. A kubelet that restarted pods for a store's outage would make it worse."""
        return web.json_response({"status": "ok"})

    async def metrics(self, _: web.Request) -> web.Response:
        """Give the metrics."""
        return web.Response(
            body=generate_latest(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4}
        )


async def serve(settings: Settings) -> web.Application:
    """Return the application; its stores are opened when it starts and closed when it ends."""
    app = web.Application(client_max_size=64 * 1024)
    stack = AsyncExitStack()
    sessions = RedisSessions(settings.redis_url)
    stack.push_async_callback(sessions.close)
    client = openai.AsyncOpenAI(
        api_key=settings.api_key, base_url=settings.base_url, timeout=settings.llm_timeout_s, max_retries=2
    )
    stack.push_async_callback(client.close)
    transcripts = await stack.enter_async_context(
        PostgresTranscripts.open(settings.database_url, track=settings.track, model=settings.model)
    )
    agent = Agent(settings, client=client, sessions=sessions, transcripts=transcripts)
    app.add_routes(Server(settings, agent=agent, stores=(sessions, transcripts)).routes())

    async def lifetime(_: web.Application) -> AsyncIterator[None]:
        async with stack:
            yield

    app.cleanup_ctx.append(lifetime)
    return app


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message}}, status=status, headers=headers)
