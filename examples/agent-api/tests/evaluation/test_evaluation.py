"""The quality of the answers: costs tokens, so it runs with AGENT_EVAL=1 only.

With OPENAI_API_KEY it asks the real API (or OPENAI_BASE_URL), without one the local model. AGENT_EVAL_FLOOR (0.8) is
the mean score below which it fails; AGENT_EVAL_RESULTS names a file for the results, of which `report.py` tells the
watchdog.
"""

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest

from agent_api.agent import Agent, AgentError
from agent_api.settings import Settings
from agent_api.stores import PostgresTranscripts, RedisSessions
from tests.evaluation.scoring import PASSED, Case, read_cases, score

pytestmark = pytest.mark.skipif(os.environ.get("AGENT_EVAL") != "1", reason="evaluation costs tokens: AGENT_EVAL=1")

CASES = Path(__file__).with_name("cases.json")
AT_ONCE = 4


@pytest.fixture
async def evaluated(
    stores: dict[str, str], model_url: str
) -> AsyncIterator[tuple[Agent, openai.AsyncOpenAI, Settings]]:
    """The agent as it is deployed, its client and its settings."""
    local = {} if os.environ.get("OPENAI_API_KEY") else {"OPENAI_API_KEY": "local", "OPENAI_BASE_URL": model_url}
    settings = Settings.read({**os.environ, **stores, **local})
    sessions = RedisSessions(settings.redis_url)
    async with (
        openai.AsyncOpenAI(api_key=settings.api_key, base_url=settings.base_url, timeout=30) as client,
        PostgresTranscripts.open(settings.database_url, track="evaluation", model=settings.model) as transcripts,
    ):
        yield Agent(settings, client=client, sessions=sessions, transcripts=transcripts), client, settings
    await sessions.close()


async def test_the_answers_are_good_enough(evaluated: tuple[Agent, openai.AsyncOpenAI, Settings]) -> None:
    agent, client, settings = evaluated
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(case: Case) -> tuple[Case, str, float]:
        async with gate:
            try:
                answer = (await agent.process_message(case.message)).response
            except AgentError as error:
                return case, f"({error})", 0.0
            return case, answer, await score(case, answer, client=client, model=settings.model)

    results = await asyncio.gather(*map(one, read_cases(CASES)))
    table = "\n".join(f"{points:.2f}  {case.name}: {answer!r}" for case, answer, points in results)
    mean = sum(points for *_, points in results) / len(results)
    counts = {"bad": sum(points < PASSED for *_, points in results), "total": len(results), "score": round(mean, 3)}
    if path := os.environ.get("AGENT_EVAL_RESULTS"):
        run = "-".join(filter(None, map(os.environ.get, ("GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT"))))
        text = json.dumps({**counts, "id": run or uuid.uuid4().hex, "model": settings.model})
        await asyncio.to_thread(Path(path).write_text, text)
    print(f"{table}\nscore {mean:.2f}")
    floor = float(os.environ.get("AGENT_EVAL_FLOOR", "0.8"))
    assert mean >= floor, f"score {mean:.2f} is below {floor}:\n{table}"
