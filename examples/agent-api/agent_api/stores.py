"""Sessions in Redis, transcripts in PostgreSQL. Every call has a deadline, and failures are the stores' own error."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Self

import asyncpg
import redis.asyncio as redis
from redis.exceptions import RedisError

from agent_api.prompts import Turn

_TIMEOUT_S = 2.0
_TURNS = 20
_SESSION_S = 3600

_SCHEMA = """
CREATE TABLE IF NOT EXISTS transcripts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    session_id text NOT NULL,
    track text NOT NULL,
    model text NOT NULL,
    message text NOT NULL,
    response text NOT NULL,
    tokens integer NOT NULL
)
"""
_LOCK = 7_306_101  # any number: pods that start together must not create the table at once


class StoreError(Exception):
    """A store does not answer; the message says which."""


class RedisSessions:
    """The newest 20 turns of each session, forgotten an hour after the last."""

    def __init__(self, url: str) -> None:
        self._redis = redis.from_url(
            url, decode_responses=True, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S
        )

    async def read(self, session_id: str) -> list[Turn]:
        """Return what was said, the oldest first."""
        with _failures("redis", RedisError):
            return [json.loads(turn) for turn in await self._redis.lrange(f"session:{session_id}", 0, -1)]

    async def append(self, session_id: str, turns: Sequence[Turn]) -> None:
        """Add turns; all of it or nothing."""
        key = f"session:{session_id}"
        with _failures("redis", RedisError):
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.rpush(key, *map(json.dumps, turns)).ltrim(key, -_TURNS, -1).expire(key, _SESSION_S)
                await pipeline.execute()

    async def check(self) -> None:
        """Raise StoreError unless it answers."""
        with _failures("redis", RedisError):
            await self._redis.ping()

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


class PostgresTranscripts:
    """One row for each answer; `open` makes one."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", *, track: str, model: str) -> None:
        self._pool = pool
        self._track = track
        self._model = model

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, url: str, *, track: str, model: str) -> AsyncIterator[Self]:
        """Connect and make the table where it is not there yet.

        Raises:
            StoreError: the database does not answer, or refuses.
        """
        with _failures("postgresql", asyncpg.PostgresError):
            pool = await asyncpg.create_pool(
                url, min_size=1, max_size=4, timeout=_TIMEOUT_S, command_timeout=_TIMEOUT_S
            )
        try:
            with _failures("postgresql", asyncpg.PostgresError):
                async with pool.acquire(timeout=_TIMEOUT_S) as connection, connection.transaction():
                    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
                    await connection.execute(_SCHEMA)
            yield cls(pool, track=track, model=model)
        finally:
            try:
                await asyncio.wait_for(pool.close(), _TIMEOUT_S)
            except TimeoutError:
                pool.terminate()

    async def write(self, *, session_id: str, message: str, response: str, tokens: int) -> None:
        """Keep one answer."""
        columns = "session_id, track, model, message, response, tokens"
        with _failures("postgresql", asyncpg.PostgresError, asyncpg.InterfaceError):
            await self._pool.execute(
                f"INSERT INTO transcripts ({columns}) VALUES ($1, $2, $3, $4, $5, $6)",  # noqa: S608  # all constants
                *(session_id, self._track, self._model, message, response, tokens),
                timeout=_TIMEOUT_S,
            )

    async def check(self) -> None:
        """Raise StoreError unless it answers."""
        with _failures("postgresql", asyncpg.PostgresError, asyncpg.InterfaceError):
            await self._pool.execute("SELECT 1", timeout=_TIMEOUT_S)


@contextlib.contextmanager
def _failures(store: str, *kinds: type[Exception]) -> Iterator[None]:
    try:
        yield
    except (OSError, *kinds) as error:  # a TimeoutError is an OSError
        raise StoreError(f"{store} does not answer") from error
