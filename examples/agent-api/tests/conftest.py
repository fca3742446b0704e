"""Fixtures of more than one layer."""

import os
from collections.abc import AsyncIterator, Iterator

import pytest
from aiohttp.test_utils import TestServer

from agent_api.settings import Settings
from tests.llm_server import Model
from tests.stores import MissingError, postgres_url, redis_url


@pytest.fixture
def settings() -> Settings:
    """Settings that reach nothing."""
    return Settings(api_key="none", redis_url="redis://127.0.0.1:1", database_url="postgresql://127.0.0.1:1/none")


@pytest.fixture
def model() -> Model:
    """The local model."""
    return Model()


@pytest.fixture
async def model_url(model: Model) -> AsyncIterator[str]:
    """Where the local model listens."""
    async with TestServer(model.app()) as server:
        yield str(server.make_url("/v1"))


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Redis and a PostgreSQL, as environment: those that REDIS_URL and DATABASE_URL name, else our own."""
    if {"REDIS_URL", "DATABASE_URL"} <= os.environ.keys():
        yield {name: os.environ[name] for name in ("REDIS_URL", "DATABASE_URL")}
        return
    directory = tmp_path_factory.mktemp("stores")
    try:
        with redis_url(directory) as sessions, postgres_url(directory) as transcripts:
            yield {"REDIS_URL": sessions, "DATABASE_URL": transcripts}
    except MissingError as error:
        pytest.fail(f"NO INTEGRATION TESTS: {error}", pytrace=False)
