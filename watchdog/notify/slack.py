"""Telling people in Slack: one message per record, updated in place, its details in the thread, and nothing twice.

Posting is not idempotent, and an answer may get lost after the message was taken. So every message carries its incident
as metadata, and whoever does not know that a message is there looks for it before posting: after a crash, after a
failover and after each repetition. Where the channel's history may not be read a message can come twice, which is
better than not at all.
"""

import asyncio
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar

import aiohttp
import msgspec
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web.async_client import AsyncWebClient
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential_jitter, wait_random

from watchdog.config import Slack
from watchdog.decide.record import Notified, Record
from watchdog.decoding import Malformed, converted, from_json, seconds
from watchdog.errors import NotificationError
from watchdog.http import TooLarge, read_at_most
from watchdog.model import IncidentId
from watchdog.notify.wording import Message, render

T = TypeVar("T")

log = logging.getLogger(__name__)

_EVENT = "rollback_watchdog"
_GIVE_UP_S = 600.0
_PACE_S = 1.0
_LONGEST_BYTES = 16 << 20
_MOST_PAGES = 100
_ID = re.compile(r"[CDG][A-Z0-9]{7,}")
_TRANSIENT = {"internal_error", "fatal_error", "service_unavailable", "request_timeout"}
_CANNOT_EDIT = {"message_not_found", "cant_update_message", "edit_window_closed"}
_PLAIN = {"parse": "none", "unfurl_links": False, "unfurl_media": False}
_CURES = {
    "channel_not_found": "set slack.channel to a channel that exists, and /invite the bot to it",
    "not_in_channel": "/invite the bot to the channel",
    "is_archived": "set slack.channel to a channel that is not archived",
    "missing_scope": "give the app this scope and install it again",
    **dict.fromkeys(
        ("invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired"),
        "put a valid bot token (xoxb-…) into $SLACK_BOT_TOKEN or slack.token_file",
    ),
}
_SDK_LOG = logging.getLogger(f"{__name__}.sdk")
_SDK_LOG.setLevel(logging.WARNING)  # at DEBUG it would log every body, and the proxy's URL with its password


class _RefusedError(NotificationError):
    """Raised when Slack says no and will say so again."""

    def __init__(self, code: str, *, needed: str = "") -> None:
        cure = _CURES.get(code, "see https://docs.slack.dev/reference/methods")
        super().__init__(f"Slack says {code}{f' ({needed})' if needed else ''}: {cure}")
        self.code = code


class _AgainError(NotificationError):
    """Raised when it is worth asking again, after so many seconds if Slack names them."""

    def __init__(self, problem: str, *, after_s: float | None = None) -> None:
        super().__init__(f"Slack is not reached ({problem})")
        self.after_s = after_s


_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
"""A channel or a message; it goes into the record."""


class _Failure(msgspec.Struct, frozen=True):
    error: str = ""
    needed: str = ""


class _Who(msgspec.Struct, frozen=True):
    user: str = ""
    team: str = ""


class _Posted(msgspec.Struct, frozen=True):
    channel: _Id
    ts: _Id


class _Payload(msgspec.Struct, frozen=True):
    incident: str = ""
    detail: str = ""


class _Metadata(msgspec.Struct, frozen=True):
    event_type: str
    event_payload: _Payload


class _Own(msgspec.Struct, frozen=True):
    """A message with metadata such as ours."""

    ts: _Id
    metadata: _Metadata


class _Messages(msgspec.Struct, frozen=True):
    messages: tuple[Any, ...]


class _Channel(msgspec.Struct, frozen=True):
    id: _Id
    name: str


class _Cursor(msgspec.Struct, frozen=True):
    next_cursor: str = ""


class _Channels(msgspec.Struct, frozen=True):
    channels: tuple[Any, ...]
    response_metadata: _Cursor = _Cursor()


class _Bounded(aiohttp.ClientResponse):
    """An answer that the SDK reads to a limit only, and as JSON through our own decoder: what is none is empty."""

    async def read(self) -> bytes:
        try:
            return await read_at_most(self, _LONGEST_BYTES)
        except TooLarge as error:
            raise aiohttp.ClientPayloadError(str(error)) from error

    async def text(self, *_: Any, **__: Any) -> str:
        return (await self.read()).decode(errors="replace")

    async def json(self, *_: Any, **__: Any) -> dict[str, Any]:
        try:
            return from_json(await self.read(), dict[str, Any])
        except Malformed:
            return {}


class SlackNotifier:
    """Implements `watchdog.ports.Notifier`. Made inside a running loop; closed by whoever made it.

    Args:
        settings: channel, token file, URL, deadline of each call.
        approval_s: seconds for which an approval is waited for, as messages say it.
    """

    def __init__(self, settings: Slack, *, approval_s: float) -> None:
        self._settings = settings
        self._approval_s = approval_s
        # The SDK ignores its own `timeout` where it is given a session.
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=settings.timeout), response_class=_Bounded
        )
        self._client = AsyncWebClient(
            base_url=settings.api_url, session=self._session, retry_handlers=[], logger=_SDK_LOG
        )
        self._client.proxy = None  # taken from HTTPS_PROXY for every URL, whatever NO_PROXY says
        self._channel = settings.channel
        self._told: dict[IncidentId, Notified] = {}
        self._blind = ""
        self._lock = asyncio.Lock()
        self._free_at = 0.0

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def check(self) -> str:
        """Say who we are in Slack, and whether messages will be found again; asks once.

        Raises:
            NotificationError: Slack is not reached or does not know the token; with the cure.
        """
        who = await self._ask("auth.test", _Who)
        whole = f"{who.user} in {who.team}"
        try:
            await self._ask("conversations.history", _Messages, channel=await self._channel_id(), limit=1)
        except _RefusedError as refusal:
            return f"{whole}; cannot read {self._settings.channel}, a message may come twice after a crash. {refusal}"
        return f"{whole}; finds its messages in {self._settings.channel}"

    async def tell(self, record: Record) -> Notified | None:
        """Post or update the one message of a record and its thread; None where there is nothing new to say.

        Of one incident it is called once at a time.

        Raises:
            NotificationError: Slack refused, or was not reached within 10 minutes. What was said by then is known here,
                and is not said again.
        """
        known = self._told.get(record.id, record.notified)
        message = render(msgspec.structs.replace(record, notified=known), approval_s=self._approval_s)
        if message is None:
            return None
        if known:
            self._told[record.id] = known
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(_AgainError),
            wait=_wait,
            stop=lambda state: state.idle_for + state.upcoming_sleep > _GIVE_UP_S,
            before_sleep=_log_wait,
            reraise=True,
        ):
            with attempt:
                async with self._lock:  # while this incident waits for its next try, others are told
                    await self._deliver(record.id, message)
        told = self._told[record.id]
        if record.ended:
            del self._told[record.id]
        return told if told != record.notified else None

    async def _deliver(self, incident: IncidentId, message: Message, *, successor: bool = False) -> None:
        """Say what is not yet said; may be cut anywhere and begun again.

        Args:
            incident: whose message.
            message: what it shall say.
            successor: it has just been found or posted, in place of one that could not be edited.
        """
        told, said = self._told.get(incident), _digest(message.text, message.blocks)
        if told is None:
            told = await self._find(incident) or await self._post(incident, message)
        if told.digest != said:
            try:
                # Without `parse` an update would look for links and names, unlike a post.
                await self._ask(
                    "chat.update", Any, channel=told.channel, ts=told.ts, parse="none", **_content(incident, message)
                )
            except _RefusedError as refusal:
                if successor or refusal.code not in _CANNOT_EDIT:
                    raise
                self._told[incident] = await self._find(incident, after=told.ts) or await self._post(incident, message)
                return await self._deliver(incident, message, successor=True)
        told = self._told[incident] = msgspec.structs.replace(told, digest=said)
        missing = {key: text for text in message.thread if (key := _digest(text)) not in told.details}
        there = await self._own("conversations.replies", channel=told.channel, ts=told.ts) if missing else []
        for key, text in missing.items():
            if key not in {own.metadata.event_payload.detail for own in there}:
                detail = {"text": text, "mrkdwn": False, "metadata": _metadata(incident, key)}
                await self._ask("chat.postMessage", Any, channel=told.channel, thread_ts=told.ts, **_PLAIN, **detail)
            told = self._told[incident] = msgspec.structs.replace(told, details=(*told.details, key))

    async def _post(self, incident: IncidentId, message: Message) -> Notified:
        content = _content(incident, message)
        posted = await self._ask("chat.postMessage", _Posted, channel=self._channel, **_PLAIN, **content)
        self._channel = posted.channel
        return Notified(posted.channel, posted.ts, digest=_digest(message.text, message.blocks))

    async def _find(self, incident: IncidentId, *, after: str = "0") -> Notified | None:
        """Our message of this incident among the newest 200 of the channel."""
        try:
            channel = await self._channel_id()
        except _RefusedError as refusal:
            self._log_blind(refusal)
            return None
        for own in await self._own("conversations.history", channel=channel, oldest=after):
            if own.metadata.event_payload.incident == incident:
                return Notified(channel, own.ts)
        return None

    async def _own(self, method: str, **where: str) -> list[_Own]:
        """What we have said; nothing where that may not be read."""
        try:
            answer = await self._ask(method, _Messages, limit=200, include_all_metadata=True, **where)
        except _RefusedError as refusal:
            self._log_blind(refusal)
            return []
        return [own for own in _such(answer.messages, _Own) if own.metadata.event_type == _EVENT]

    async def _channel_id(self) -> str:
        """The channel's id, without which nothing can be read; only a message may be posted to a name."""
        cursor, kinds = "", "public_channel,private_channel"
        for _ in range(_MOST_PAGES):
            if _ID.fullmatch(self._channel):
                return self._channel
            page = await self._ask(
                "users.conversations", _Channels, types=kinds, exclude_archived=True, limit=200, cursor=cursor
            )
            ids = {each.name: each.id for each in _such(page.channels, _Channel)}
            self._channel = ids.get(self._channel.lstrip("#"), self._channel)
            cursor = page.response_metadata.next_cursor
            if not cursor:
                break
        if not _ID.fullmatch(self._channel):
            raise _RefusedError("not_in_channel")
        return self._channel

    def _log_blind(self, refusal: _RefusedError) -> None:
        if refusal.code != self._blind:
            log.warning("slack history cannot be read", extra={"detail": str(refusal)})
        self._blind = refusal.code

    async def _ask(self, method: str, kind: type[T], **arguments: Any) -> T:
        """Call a method once; messages go out at one a second, which is what a channel takes."""
        loop = asyncio.get_running_loop()
        self._client.token = self._token()
        how: dict[str, Any] = {"http_verb": "GET", "params": arguments}
        if method.startswith("chat."):
            how = {"json": arguments}
            await asyncio.sleep(self._free_at - loop.time())
            self._free_at = loop.time() + _PACE_S
        try:
            return converted((await self._client.api_call(method, **how)).data, kind)
        except SlackApiError as error:
            raise _no(method, error.response) from None  # its response holds the request, and that the token
        except TimeoutError as error:
            raise _AgainError(f"{method}: no answer within {self._settings.timeout:g} s") from error
        except Malformed as error:
            raise _AgainError(f"{method}: not an answer of Slack ({error})") from error
        # The SDK raises the last three for what is no JSON, and for a token that is no header.
        except (aiohttp.ClientError, OSError, ValueError, AttributeError, SlackClientError) as error:
            raise _AgainError(f"{method}: {type(error).__name__}") from error

    def _token(self) -> str:
        """The token as it is now: it may have been rotated."""
        path = self._settings.token_file
        try:
            words = (Path(path).read_text(encoding="utf-8") if path else os.environ.get("SLACK_BOT_TOKEN", "")).split()
        except (OSError, UnicodeDecodeError):
            words = []
        if len(words) != 1:
            raise _RefusedError("not_authed")
        return words[0]


def _content(incident: IncidentId, message: Message) -> dict[str, Any]:
    return {"text": message.text, "blocks": message.blocks, "metadata": _metadata(incident)}


def _metadata(incident: IncidentId, detail: str = "") -> dict[str, Any]:
    return {"event_type": _EVENT, "event_payload": {"incident": incident} | ({"detail": detail} if detail else {})}


def _digest(*content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def _such(items: Iterable[object], kind: type[T]) -> Iterator[T]:
    """Those items that have this shape; others have put what they like beside them."""
    for item in items:
        with suppress(Malformed):
            yield converted(item, kind)


def _no(method: str, response: Any) -> NotificationError:
    """What an unusable answer means; errors come with status 200 as well."""
    status = getattr(response, "status_code", 0)
    try:
        failure = converted(getattr(response, "data", None), _Failure)
    except Malformed:
        failure = _Failure()
    code = failure.error[:100]
    if status == 429 or code == "ratelimited":
        return _AgainError(f"{method}: ratelimited", after_s=seconds(response.headers.get("Retry-After")))
    if status >= 500 or code in _TRANSIENT or (status in (0, 200) and not code):
        return _AgainError(f"{method}: {code or (f'HTTP {status}' if status >= 500 else 'not an answer of Slack')}")
    return _RefusedError(code or f"HTTP {status}", needed=failure.needed[:100])


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, _AgainError) and error.after_s is not None:
        return error.after_s + wait_random(0, 1)(state)
    return wait_exponential_jitter(initial=1, max=60)(state)


def _log_wait(state: RetryCallState) -> None:
    problem = str(state.outcome.exception()) if state.outcome else ""
    log.info("slack is asked again", extra={"detail": problem, "wait_s": round(state.upcoming_sleep, 1)})
