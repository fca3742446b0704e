"""process_message, with a mocked model."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import openai
import pytest
from openai.types.chat import ChatCompletion

from agent_api.agent import Agent, AgentError
from agent_api.prompts import Turn
from agent_api.settings import Settings
from agent_api.stores import StoreError


class Memory:
    """Both stores, in memory."""

    def __init__(self) -> None:
        self.turns: dict[str, list[Turn]] = {}
        self.rows: list[dict[str, Any]] = []

    async def read(self, session_id: str) -> list[Turn]:
        return self.turns.get(session_id, [])

    async def append(self, session_id: str, turns: Sequence[Turn]) -> None:
        self.turns.setdefault(session_id, []).extend(turns)

    async def write(self, **row: Any) -> None:
        self.rows.append(row)


def completion(content: str | None = None, *calls: tuple[str, str], tokens: int = 10) -> ChatCompletion:
    made = [
        {"id": f"call-{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for number, (name, arguments) in enumerate(calls)
    ]
    message = {"role": "assistant", "content": content, "tool_calls": made or None}
    return ChatCompletion.model_validate(
        {
            "id": "c",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 0, "completion_tokens": tokens, "total_tokens": tokens},
        }
    )


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def llm() -> AsyncMock:
    return AsyncMock()


@pytest.fixture
def agent(settings: Settings, memory: Memory, llm: AsyncMock) -> Agent:
    client: Any = SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=llm)))
    return Agent(settings, client=client, sessions=memory, transcripts=memory)


async def test_an_answer_comes_with_its_tokens_and_is_kept(agent: Agent, llm: AsyncMock, memory: Memory) -> None:
    llm.return_value = completion(" Hello. ")
    reply = await agent.process_message("Hi", "s1")
    assert (reply.response, reply.tokens, reply.session_id) == ("Hello.", 10, "s1")
    assert memory.turns["s1"] == [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    assert memory.rows == [{"session_id": "s1", "message": "Hi", "response": "Hello.", "tokens": 10}]


async def test_the_model_is_asked_with_the_settings_limits(agent: Agent, llm: AsyncMock, settings: Settings) -> None:
    llm.return_value = completion("Hello.")
    await agent.process_message("Hi")
    assert llm.await_args
    assert llm.await_args.kwargs["model"] == settings.model
    assert llm.await_args.kwargs["max_tokens"] == settings.max_tokens


async def test_a_message_without_a_session_begins_one(agent: Agent, llm: AsyncMock) -> None:
    llm.return_value = completion("Hello.")
    first, second = await agent.process_message("Hi"), await agent.process_message("Hi")
    assert first.session_id != second.session_id


async def test_what_was_said_before_is_in_the_next_prompt(agent: Agent, llm: AsyncMock) -> None:
    llm.return_value = completion("Nice to meet you.")
    await agent.process_message("My name is Ada", "s1")
    await agent.process_message("What is my name?", "s1")
    assert "user: My name is Ada" in llm.await_args_list[1].kwargs["messages"][1]["content"]


async def test_a_tools_result_goes_back_to_the_model_and_tokens_add_up(agent: Agent, llm: AsyncMock) -> None:
    llm.side_effect = [completion(None, ("calculator", '{"expression": "6 * 7"}')), completion("It is 42.", tokens=5)]
    reply = await agent.process_message("What is 6 * 7?")
    assert (reply.response, reply.tokens) == ("It is 42.", 15)
    asked, told = llm.await_args_list[1].kwargs["messages"][-2:]
    assert asked["tool_calls"][0]["id"] == "call-0"
    assert told == {"role": "tool", "tool_call_id": "call-0", "content": "42"}


async def test_a_model_that_goes_on_calling_tools_is_stopped(agent: Agent, llm: AsyncMock, memory: Memory) -> None:
    llm.return_value = completion(None, ("search", '{"query": "x"}'))
    with pytest.raises(AgentError, match="goes on calling"):
        await agent.process_message("Hi")
    assert llm.await_count == 4
    assert memory.rows == []


async def test_an_empty_answer_is_none(agent: Agent, llm: AsyncMock) -> None:
    llm.return_value = completion("")
    with pytest.raises(AgentError, match="answered nothing"):
        await agent.process_message("Hi")


async def test_a_failing_model_is_an_error_with_its_cause(agent: Agent, llm: AsyncMock) -> None:
    llm.side_effect = openai.OpenAIError("quota")
    with pytest.raises(AgentError, match="does not answer") as caught:
        await agent.process_message("Hi")
    assert isinstance(caught.value.__cause__, openai.OpenAIError)


async def test_the_whole_answer_has_a_deadline(settings: Settings, memory: Memory) -> None:
    async def never(**_: Any) -> None:
        await asyncio.Event().wait()

    client: Any = SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=never)))
    agent = Agent(replace(settings, deadline_s=0.01), client=client, sessions=memory, transcripts=memory)
    with pytest.raises(AgentError, match="in time"):
        await agent.process_message("Hi")


async def test_a_store_that_is_away_is_its_own_error(agent: Agent, llm: AsyncMock, memory: Memory) -> None:
    llm.return_value = completion("Hello.")
    memory.write = AsyncMock(side_effect=StoreError("postgresql does not answer"))  # type: ignore[method-assign]
    with pytest.raises(StoreError):
        await agent.process_message("Hi")
