"""The agent: a message becomes a prompt, the model may call tools, and its answer is kept."""

import asyncio
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import openai

from agent_api.prompts import Turn, build_prompt
from agent_api.settings import Settings
from agent_api.tools import SCHEMAS, call_tool

log = logging.getLogger(__name__)

_ROUNDS = 4  # completions for one answer; a model that still calls tools then is going in circles


class AgentError(Exception):
    """There is no answer; the message is for the caller, the cause for the log."""


class Sessions(Protocol):
    """What was said in a session."""

    async def read(self, session_id: str) -> list[Turn]:
        """The oldest first."""
        ...

    async def append(self, session_id: str, turns: Sequence[Turn]) -> None:
        """Add them; all or nothing."""
        ...


class Transcripts(Protocol):
    """The durable record of each answer."""

    async def write(self, *, session_id: str, message: str, response: str, tokens: int) -> None:
        """Keep one answer."""
        ...


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, what it cost, and the session in which the next message may follow."""

    response: str
    tokens: int
    session_id: str


class Agent:
    """The agent with its model and its two stores.

    Args:
        settings: model, limits and deadlines.
        client: of any OpenAI-compatible API; it tries a completion again after a timeout, a 429 or a 5xx.
        sessions: of Redis.
        transcripts: of PostgreSQL.
    """

    def __init__(
        self, settings: Settings, *, client: openai.AsyncOpenAI, sessions: Sessions, transcripts: Transcripts
    ) -> None:
        self._settings = settings
        self._client = client
        self._sessions = sessions
        self._transcripts = transcripts

    async def process_message(self, message: str, session_id: str | None = None) -> Reply:
        """Answer a message within the deadline.

        Raises:
            AgentError: the model or a store failed or was too slow.
        """
        session_id = session_id or uuid.uuid4().hex
        try:
            async with asyncio.timeout(self._settings.deadline_s):
                context = await self._sessions.read(session_id)
                response, tokens = await self._complete(build_prompt(message, context))
                turns: list[Turn] = [{"role": "user", "content": message}, {"role": "assistant", "content": response}]
                await self._sessions.append(session_id, turns)
                await self._transcripts.write(session_id=session_id, message=message, response=response, tokens=tokens)
        except openai.OpenAIError as error:
            raise AgentError("the model does not answer") from error
        except TimeoutError as error:
            raise AgentError("no answer in time") from error
        return Reply(response, tokens, session_id)

    async def _complete(self, prompt: Sequence[Turn]) -> tuple[str, int]:
        messages: list[Any] = list(prompt)
        tokens = 0
        for _ in range(_ROUNDS):
            completion = await self._client.chat.completions.create(
                model=self._settings.model,
                messages=messages,
                tools=SCHEMAS,  # type: ignore[arg-type]
                max_tokens=self._settings.max_tokens,
                temperature=0,
            )
            tokens += completion.usage.total_tokens if completion.usage else 0
            answer = completion.choices[0].message
            if not answer.tool_calls:
                if not answer.content:
                    raise AgentError("the model answered nothing")
                return answer.content.strip(), tokens
            messages.append(answer.model_dump(exclude_none=True, include={"role", "content", "tool_calls"}))
            for call in answer.tool_calls:
                if call.type != "function":
                    raise AgentError("the model called a tool of an unknown kind")
                result = call_tool(call.function.name, call.function.arguments)
                log.debug("tool %s called", call.function.name)
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
        raise AgentError("the model goes on calling tools")
