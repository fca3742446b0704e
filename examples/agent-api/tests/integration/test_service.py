"""The whole service over HTTP, with a real Redis, a real PostgreSQL and a local model."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
import redis.asyncio as redis
from aiohttp.test_utils import TestClient, TestServer

from agent_api.server import serve
from agent_api.settings import Settings
from tests.llm_server import Model

Make = Callable[..., Awaitable[TestClient[Any, Any]]]


@pytest.fixture
async def make(stores: dict[str, str], model_url: str) -> AsyncIterator[Make]:
    """Start the service with more environment."""
    started: list[TestClient[Any, Any]] = []

    async def start(**environment: str) -> TestClient[Any, Any]:
        base = {"OPENAI_API_KEY": "local", "OPENAI_BASE_URL": model_url, "POD_NAMESPACE": "test", **stores}
        client = TestClient(TestServer(await serve(Settings.read({**base, **environment}))))
        await client.start_server()
        started.append(client)
        return client

    yield start
    for client in started:
        await client.close()


@pytest.fixture
async def service(make: Make) -> TestClient[Any, Any]:
    """The service."""
    return await make()


async def ask(service: TestClient[Any, Any], message: str, **more: str) -> dict[str, Any]:
    answer = await service.post("/agent", json={"message": message, **more})
    body = await answer.json()
    assert answer.status == 200, body
    return dict(body)


async def metric(service: TestClient[Any, Any], name: str) -> float:
    text = await (await service.get("/metrics")).text()
    return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


async def test_a_question_is_answered_in_the_promised_shape(service: TestClient[Any, Any]) -> None:
    body = await ask(service, "What is 12 * 12?")
    assert body.keys() == {"response", "tokens", "session_id"}
    assert body["response"] == "144"
    assert body["tokens"] > 0


async def test_a_session_is_remembered_in_redis_and_forgotten_later(
    service: TestClient[Any, Any], stores: dict[str, str]
) -> None:
    session = (await ask(service, "Hello, my name is Ada"))["session_id"]
    assert (await ask(service, "What is my name?", session_id=session))["response"] == "Your name is Ada."
    async with redis.from_url(stores["REDIS_URL"], decode_responses=True) as client:
        turns = await client.lrange(f"session:{session}", 0, -1)
        assert len(turns) == 4
        assert json.loads(turns[-1])["content"] == "Your name is Ada."
        assert 3500 < await client.ttl(f"session:{session}") <= 3600


async def test_a_session_keeps_its_newest_twenty_turns(service: TestClient[Any, Any], stores: dict[str, str]) -> None:
    for _ in range(11):
        await ask(service, "Hello", session_id="long")
    async with redis.from_url(stores["REDIS_URL"]) as client:
        assert await client.llen("session:long") == 20


async def test_an_answer_is_written_to_postgresql(make: Make, stores: dict[str, str]) -> None:
    service = await make(DEPLOYMENT_TRACK="canary", MODEL_NAME="local-1")
    body = await ask(service, "How long is a parcel kept?")
    connection = await asyncpg.connect(stores["DATABASE_URL"])
    try:
        row = await connection.fetchrow("SELECT * FROM transcripts WHERE session_id = $1", body["session_id"])
    finally:
        await connection.close()
    assert row["response"] == body["response"]
    assert (row["track"], row["model"], row["tokens"]) == ("canary", "local-1", body["tokens"])


async def test_pods_that_start_together_make_one_table(make: Make) -> None:
    assert len(await asyncio.gather(*(make() for _ in range(8)))) == 8


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"{}",
        b'{"message": 1}',
        b'{"message": "  "}',
        b'{"message": "x", "session_id": 5}',
        b'{"message": "x", "session_id": "a b"}',
        json.dumps({"message": "x" * 8001}).encode(),
        b"\xff\xfe",
    ],
)
async def test_a_wrong_request_is_400_and_no_error_of_ours(service: TestClient[Any, Any], body: bytes) -> None:
    answer = await service.post("/agent", data=body)
    assert answer.status == 400
    assert (await answer.json())["error"]["code"]
    assert await metric(service, "agent_requests_total") == 0


async def test_a_model_that_fails_once_is_asked_again(service: TestClient[Any, Any], model: Model) -> None:
    model.failures = 1
    assert (await ask(service, "Hello"))["response"]
    assert len(model.requests) == 2
    assert await metric(service, "agent_errors_total") == 0


async def test_a_model_that_goes_on_failing_is_a_counted_error(service: TestClient[Any, Any], model: Model) -> None:
    model.failures = 3
    answer = await service.post("/agent", json={"message": "Hello"})
    assert answer.status == 503
    assert (await answer.json())["error"]["message"] == "the model does not answer"
    labels = '{deployment="stable",namespace="test"}'
    assert await metric(service, f"agent_errors_total{labels}") == 1
    assert await metric(service, f"agent_requests_total{labels}") == 1
    assert await metric(service, "agent_request_seconds_count") == 1


async def test_more_than_the_limit_is_429_and_not_counted(make: Make) -> None:
    service = await make(RATE_LIMIT="1")
    await ask(service, "Hello")
    answer = await service.post("/agent", json={"message": "Hello"})
    assert answer.status == 429
    assert answer.headers["Retry-After"]
    assert await metric(service, "agent_requests_total") == 1


async def test_it_is_ready_with_its_stores_and_alive_without(make: Make) -> None:
    service = await make()
    assert (await service.get("/health")).status == 200
    lonely = await make(REDIS_URL="redis://127.0.0.1:1/0")
    answer = await lonely.get("/health")
    assert answer.status == 503
    assert await answer.json() == {"status": "unavailable", "reason": "redis does not answer"}
    assert (await lonely.get("/live")).status == 200


async def test_without_sessions_an_answer_is_a_counted_503(make: Make) -> None:
    lonely = await make(REDIS_URL="redis://127.0.0.1:1/0")
    assert (await lonely.post("/agent", json={"message": "Hello"})).status == 503
    assert await metric(lonely, "agent_errors_total") == 1
