"""A model of a few rules behind the OpenAI API, for tests and for trying the service without a key.

    python tests/llm_server.py 8081     # then OPENAI_BASE_URL=http://127.0.0.1:8081/v1

It does what its prompt says and no more, so a prompt that lost its rules gets worse answers, as with a real model: it
calls a tool only where the system's text names it, and answers only the text in <question>.
"""

import asyncio
import html
import json
import re
import sys
from typing import Any

from aiohttp import web

Json = dict[str, Any]

CALCULATION = re.compile(r"\d[\d\s.+*/()%-]*[+*/%-][\d\s.+*/()-]*\d\)?")
TOPICS = re.compile(r"parcel|delivery|refund|insurance|claim|kept|weigh|cost", re.IGNORECASE)


class Model:
    """Answers chat completions; `failures` is how many of the next it refuses with a 500."""

    def __init__(self) -> None:
        self.requests: list[Json] = []
        self.failures = 0
        self.hangs = False

    def app(self) -> web.Application:
        """The application."""
        app = web.Application()
        app.add_routes([web.post("/v1/chat/completions", self._complete)])
        return app

    async def _complete(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.requests.append(asked)
        if self.hangs:
            await asyncio.sleep(60)
        if self.failures:
            self.failures -= 1
            return web.json_response({"error": {"message": "overloaded"}}, status=500, headers={"retry-after-ms": "1"})
        message = answer(asked["messages"], [tool["function"]["name"] for tool in asked.get("tools", [])])
        words = sum(len(str(each.get("content")).split()) for each in asked["messages"])
        usage = {"prompt_tokens": words, "completion_tokens": 10, "total_tokens": words + 10}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if "tool_calls" in message else "stop"}
        completion = {"id": "c", "object": "chat.completion", "created": 0, "model": asked["model"]}
        return web.json_response({**completion, "choices": [choice], "usage": usage})


def answer(messages: list[Json], tools: list[str]) -> Json:
    """Return the next message."""
    system = "".join(each["content"] for each in messages if each["role"] == "system")
    if "You are a judge" in system:
        return _said(_judged(messages[-1]["content"]))
    if messages[-1]["role"] == "tool":
        result = messages[-1]["content"]
        unknown = result.startswith("error:") or result == "nothing found"
        return _said("I do not know." if unknown else result.splitlines()[0])
    asked = "".join(each["content"] for each in messages if each["role"] == "user")
    found = re.search(r"<question>\n(.*)\n</question>", asked, re.DOTALL)
    question = html.unescape(found[1]) if found else ""
    remembered = re.search(r"user: (?:hello, )?my name is (\w+)", asked, re.IGNORECASE)
    if remembered and "what is my name" in question.lower():
        return _said(f"Your name is {remembered[1]}.")
    calculation = CALCULATION.search(question)
    if calculation and "calculator" in tools and "calculator" in system:
        return _call("calculator", {"expression": calculation[0]})
    if TOPICS.search(question) and "search" in tools and "search" in system:
        return _call("search", {"query": question})
    return _said("Nice to meet you." if "my name is" in question.lower() else "I do not know.")


def _judged(text: str) -> str:
    """Say 1 where the answer has every number of the criterion, or admits what the criterion wants admitted."""
    criterion, _, given = text.partition("</criterion>")
    numbers = set(re.findall(r"\d[\d.]*", criterion))
    good = numbers <= set(re.findall(r"\d[\d.]*\d|\d", given)) if numbers else "do not know" in given
    return json.dumps({"score": 1.0 if good else 0.0})


def _said(text: str) -> Json:
    return {"role": "assistant", "content": text}


def _call(name: str, arguments: Json) -> Json:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"role": "assistant", "content": None, "tool_calls": [{"id": "t", "type": "function", "function": function}]}


if __name__ == "__main__":
    web.run_app(Model().app(), host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
