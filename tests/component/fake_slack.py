"""A Slack workspace with one channel that remembers its messages, and fails as it is told to."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
from aiohttp import web

from tests.component.fake_api import FakeApi, no_bytes, raw, running

Json = dict[str, Any]
Trouble = Callable[["FakeSlack", "Call", web.Request], Awaitable[web.StreamResponse]]

CHANNEL = "C0123456789"
READS = {"conversations.history", "conversations.replies", "users.conversations", "auth.test"}


class Call(msgspec.Struct, frozen=True):
    """One call of a method, and the loop's time at which it came."""

    method: str
    arguments: Json
    token: str
    at: float


class FakeSlack(FakeApi):
    """Takes messages as Slack does; each trouble in a method's script comes once, in order, and then all is well."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.messages: list[Json] = []
        self._troubles: dict[str, list[Trouble]] = {}

    def trouble(self, method: str, *troubles: Trouble) -> None:
        """Say what goes wrong."""
        self._troubles[method] = list(troubles)

    def called(self, method: str) -> list[Call]:
        """The calls of a method so far."""
        return [call for call in self.calls if call.method == method]

    @property
    def channel(self) -> list[str]:
        """The texts that stand in the channel."""
        return [message["text"] for message in self.messages if "thread_ts" not in message]

    @property
    def thread(self) -> list[str]:
        """The texts that stand in threads."""
        return [message["text"] for message in self.messages if "thread_ts" in message]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer one call."""
        method = request.path.removeprefix("/api/")
        arguments = dict(request.query) if method in READS else json.loads(await request.read())
        token = request.headers["Authorization"].removeprefix("Bearer ")
        call = Call(method, arguments, token, asyncio.get_running_loop().time())
        self.calls.append(call)
        troubles = self._troubles.get(method)
        if troubles:
            return await troubles.pop(0)(self, call, request)
        return await raw(json.dumps(self.take(call)).encode())(request)

    def take(self, call: Call) -> Json:
        """Do what a call asks for."""
        asked = call.arguments
        known = {message["ts"]: message for message in self.messages}
        match call.method:
            case "chat.postMessage":
                ts = f"{1700000000 + len(self.messages)}.000100"
                self.messages.append({**asked, "ts": ts})
                return {"ok": True, "channel": CHANNEL, "ts": ts}
            case _ if asked.get("channel", CHANNEL) != CHANNEL:
                return {"ok": False, "error": "channel_not_found"}  # every other method wants the id
            case "chat.update" if asked["ts"] not in known:
                return {"ok": False, "error": "message_not_found"}
            case "chat.update":
                known[asked["ts"]] |= asked
                return {"ok": True, "channel": CHANNEL, "ts": asked["ts"]}
            case "conversations.history":
                newest = [each for each in reversed(self.messages) if "thread_ts" not in each]
                found = [each for each in newest if each["ts"] > asked.get("oldest", "0")]
                return {"ok": True, "messages": [_shown(each, asked) for each in found[: int(asked["limit"])]]}
            case "conversations.replies":
                found = [each for each in self.messages if asked["ts"] in (each["ts"], each.get("thread_ts"))]
                return {"ok": True, "messages": [_shown(each, asked) for each in found[: int(asked["limit"])]]}
            case "users.conversations" if not asked["cursor"]:
                return {"ok": True, "channels": [], "response_metadata": {"next_cursor": "page2"}}
            case "users.conversations":
                return {"ok": True, "channels": [{"id": CHANNEL, "name": "deploys"}]}
            case "auth.test":
                return {"ok": True, "team": "Acme", "user": "watchdog"}
        return {"ok": False, "error": "unknown_method"}


@contextlib.contextmanager
def in_a_thread() -> Iterator[FakeSlack]:
    """A Slack that lives in a thread of its own, for tests that wait in theirs."""
    fake, serving = FakeSlack(), threading.Event()
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        async with running(fake):
            serving.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert serving.wait(10)
    try:
        yield fake
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
        loop.close()


def _shown(message: Json, asked: Json) -> Json:
    """Metadata come only where they are asked for."""
    return message if asked.get("include_all_metadata") == "1" else {**message, "metadata": None}


# -- troubles ----------------------------------------------------------------------------------------------------------


def limited(retry_after: str) -> Trouble:
    """Ask to come back later."""

    async def give(_: FakeSlack, __: Call, request: web.Request) -> web.StreamResponse:
        body = b'{"ok": false, "error": "ratelimited"}'
        return await raw(body, code=429, headers={"Retry-After": retry_after})(request)

    return give


def broken(code: int, body: bytes = b"upstream is away", kind: str = "text/plain") -> Trouble:
    """Answer as something in front of Slack does."""

    async def give(_: FakeSlack, __: Call, request: web.Request) -> web.StreamResponse:
        return await raw(body, code=code, headers={"Content-Type": kind})(request)

    return give


def no(error: str, **more: str) -> Trouble:
    """Refuse as Slack does: with status 200."""

    async def give(_: FakeSlack, __: Call, request: web.Request) -> web.StreamResponse:
        return await raw(json.dumps({"ok": False, "error": error, **more}).encode())(request)

    return give


async def hangs(_: FakeSlack, __: Call, ___: web.Request) -> web.StreamResponse:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError


async def lost(slack: FakeSlack, call: Call, request: web.Request) -> web.StreamResponse:
    """Do it, and cut the connection before the answer."""
    slack.take(call)
    return await no_bytes(request)
