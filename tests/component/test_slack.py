"""Telling people in Slack: what is sent, what happens when Slack does not, and that nothing is said twice."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from tests.component.fake_api import running
from tests.component.fake_slack import CHANNEL, FakeSlack, Trouble, broken, hangs, limited, lost, no
from tests.unit.test_slack_wording import BASE, EVIL, SAMPLES, evil, said
from watchdog.config import Slack
from watchdog.decide.record import Notified, Record
from watchdog.errors import NotificationError
from watchdog.notify.slack import SlackNotifier

# The clock jumps when nothing has come for so many looks at the sockets: enough for the kernel's loopback.
pytestmark = pytest.mark.looptime(noop_cycles=400)

TOKEN = "xoxb-very-secret"
POST, UPDATE = "chat.postMessage", "chat.update"
HISTORY, REPLIES = "conversations.history", "conversations.replies"
PASSED = SAMPLES["passed"]  # a message without a thread
ACTING, RECOVERED = SAMPLES["acting"], SAMPLES["recovered"]
TROUBLES = {
    "500": broken(500),
    "503-html": broken(503, b"<html>", "text/html"),
    "text": broken(200, b"hello"),
    "half-json": broken(200, b"{", "application/json"),
    "list": broken(200, b"[]", "application/json"),
    "not-utf8": broken(200, b"\xff", "application/json"),
    "empty": broken(200, b"", "text/html"),
    "internal-error": no("internal_error"),
    "ratelimited": no("ratelimited"),
    "lost": lost,
    "hangs": hangs,
}
REFUSALS = {
    "put a valid bot token": no("invalid_auth"),
    "not_in_channel: /invite the bot": no("not_in_channel"),
    "channel_not_found: set slack.channel": no("channel_not_found"),
    r"missing_scope \(chat:write\): give the app this scope": no("missing_scope", needed="chat:write"),
    "who_knows: see https://docs.slack.dev": no("who_knows"),
    "HTTP 404": broken(404),
}
replace = msgspec.structs.replace


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK_BOT_TOKEN", TOKEN)


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    slack = FakeSlack()
    async with running(slack):
        yield slack


@asynccontextmanager
async def notifying(
    slack: FakeSlack, *, channel: str = "#deploys", token_file: str = ""
) -> AsyncIterator[SlackNotifier]:
    settings = Slack(channel=channel, api_url=f"{slack.url}/api/", token_file=token_file)
    notifier = SlackNotifier(settings, approval_s=600)
    try:
        yield notifier
    finally:
        await notifier.close()


@pytest.fixture
async def notifier(slack: FakeSlack) -> AsyncIterator[SlackNotifier]:
    async with notifying(slack) as notifier:
        yield notifier


async def tell(notifier: SlackNotifier, record: Record) -> Notified:
    told = await notifier.tell(record)
    assert told is not None
    return told


# -- what is said ------------------------------------------------------------------------------------------------------


async def test_an_incident_is_one_message_with_its_details_in_the_thread(
    slack: FakeSlack, notifier: SlackNotifier
) -> None:
    told = await tell(notifier, ACTING)
    told = await tell(notifier, replace(RECOVERED, notified=told))
    assert slack.channel == [said(RECOVERED).text]
    assert slack.thread == list(said(RECOVERED).thread)
    assert (told.channel, told.ts, len(told.details)) == (CHANNEL, slack.messages[0]["ts"], len(slack.thread))
    assert [call.arguments["parse"] for call in slack.called(UPDATE)] == ["none"]


async def test_the_same_text_is_not_sent_again(slack: FakeSlack, notifier: SlackNotifier) -> None:
    told = await tell(notifier, ACTING)
    calls = len(slack.calls)
    assert await notifier.tell(replace(ACTING, notified=told)) is None
    async with notifying(slack) as other:
        assert await other.tell(replace(ACTING, notified=told)) is None
    assert len(slack.calls) == calls


async def test_nothing_is_said_of_a_rollout_that_is_merely_watched(slack: FakeSlack, notifier: SlackNotifier) -> None:
    assert await notifier.tell(replace(PASSED, state=BASE.state, outcome=None)) is None
    assert slack.calls == []


async def test_a_question_says_how_long_it_stands(slack: FakeSlack, notifier: SlackNotifier) -> None:
    await tell(notifier, SAMPLES["asking"])
    assert "(expires 13:45 UTC)" in slack.channel[0]


async def test_foreign_text_mentions_nobody(slack: FakeSlack, notifier: SlackNotifier) -> None:
    await tell(notifier, evil(EVIL))
    assert slack.thread
    for message in slack.messages:
        sent = str({key: message.get(key) for key in ("text", "blocks")})
        assert "<" not in sent
        assert (message["unfurl_links"], message["unfurl_media"], message["parse"]) == (False, False, "none")
    assert "&lt;!channel&gt; &amp;" in slack.channel[0]


async def test_messages_go_out_at_one_a_second(slack: FakeSlack, notifier: SlackNotifier) -> None:
    await asyncio.gather(tell(notifier, RECOVERED), tell(notifier, replace(PASSED, id="web-1-0")))
    times = [call.at for call in slack.calls if call.method in (POST, UPDATE)]
    assert len(times) > 3
    assert all(after - before >= 0.99 for before, after in pairwise(times))


# -- Slack is in trouble -----------------------------------------------------------------------------------------------


async def test_retry_after_is_honoured(slack: FakeSlack, notifier: SlackNotifier) -> None:
    slack.trouble(POST, limited("30"), limited("45"))
    await tell(notifier, PASSED)
    first, second, third = (call.at for call in slack.called(POST))
    assert 30 <= second - first <= 32
    assert 45 <= third - second <= 47
    assert len(slack.channel) == 1


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
@pytest.mark.parametrize("method", [POST, HISTORY, "users.conversations"])
async def test_a_trouble_that_passes_delays_the_message_and_does_not_double_it(
    slack: FakeSlack, notifier: SlackNotifier, method: str, trouble: Trouble
) -> None:
    slack.trouble(method, trouble, trouble)
    await tell(notifier, PASSED)
    assert slack.channel == [said(PASSED).text]


@pytest.mark.parametrize("trouble", [TROUBLES["500"], lost, hangs], ids=["500", "lost", "hangs"])
async def test_a_detail_comes_once_in_the_thread_whatever_happens(
    slack: FakeSlack, notifier: SlackNotifier, trouble: Trouble
) -> None:
    told = await tell(notifier, ACTING)
    slack.trouble(POST, trouble)
    slack.trouble(UPDATE, trouble)
    slack.trouble(REPLIES, trouble)
    await tell(notifier, replace(RECOVERED, notified=told))
    assert slack.channel == [said(RECOVERED).text]
    assert slack.thread == list(said(RECOVERED).thread)


async def test_a_hanging_slack_is_left_at_the_deadline(slack: FakeSlack, notifier: SlackNotifier) -> None:
    slack.trouble(POST, hangs)
    await tell(notifier, PASSED)
    first, second = (call.at for call in slack.called(POST))
    assert 10 <= second - first <= 14


async def test_a_slack_that_stays_away_is_given_up_after_ten_minutes(slack: FakeSlack, notifier: SlackNotifier) -> None:
    slack.trouble(POST, *[broken(502)] * 100)
    with pytest.raises(NotificationError, match=r"Slack is not reached \(chat.postMessage: HTTP 502\)"):
        await notifier.tell(PASSED)
    times = [call.at for call in slack.called(POST)]
    assert 500 <= times[-1] - times[0] <= 620
    assert len(times) < 25


async def test_a_slack_that_asks_for_an_hour_is_given_up_at_once(slack: FakeSlack, notifier: SlackNotifier) -> None:
    slack.trouble(POST, limited("3600"))
    with pytest.raises(NotificationError, match="ratelimited"):
        await notifier.tell(PASSED)
    assert len(slack.called(POST)) == 1


@pytest.mark.parametrize("cure", REFUSALS)
async def test_a_refusal_is_final_and_names_its_cure(slack: FakeSlack, notifier: SlackNotifier, cure: str) -> None:
    slack.trouble(POST, REFUSALS[cure])
    with pytest.raises(NotificationError, match=cure):
        await notifier.tell(PASSED)
    assert len(slack.called(POST)) == 1


async def test_after_a_failure_the_rest_is_said_and_nothing_twice(slack: FakeSlack, notifier: SlackNotifier) -> None:
    slack.trouble(REPLIES, no("fatal_error"), *[broken(500)] * 100)
    with pytest.raises(NotificationError):
        await notifier.tell(ACTING)
    slack.trouble(REPLIES)
    await tell(notifier, ACTING)
    assert slack.channel == [said(ACTING).text]
    assert slack.thread == list(said(ACTING).thread)


async def test_a_shutdown_does_not_wait_for_slack(slack: FakeSlack, notifier: SlackNotifier) -> None:
    slack.trouble(POST, limited("300"))
    telling = asyncio.create_task(notifier.tell(PASSED))
    await asyncio.sleep(20)
    telling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await telling


# -- crashes and strangers ---------------------------------------------------------------------------------------------


async def test_after_a_crash_the_own_message_is_found_and_updated(slack: FakeSlack, notifier: SlackNotifier) -> None:
    await notifier.tell(ACTING)
    async with notifying(slack) as next_process:
        told = await tell(next_process, RECOVERED)  # whose record knows of no message
    assert slack.channel == [said(RECOVERED).text]
    assert slack.thread == list(said(RECOVERED).thread)
    assert told.ts == slack.messages[0]["ts"]


async def test_the_message_of_another_incident_is_left_alone(slack: FakeSlack, notifier: SlackNotifier) -> None:
    await notifier.tell(PASSED)
    await notifier.tell(replace(ACTING, id="web-1-00000000"))
    slack.messages.append({"text": "hello", "ts": "1800000000.1", "metadata": {"event_type": "x", "event_payload": {}}})
    async with notifying(slack) as next_process:
        await next_process.tell(replace(RECOVERED, id="cart-1-00000000"))
    assert slack.channel == [said(PASSED).text, said(ACTING).text, "hello", said(RECOVERED).text]


@pytest.mark.parametrize("method", [HISTORY, REPLIES, "users.conversations"])
async def test_without_the_right_to_look_messages_are_posted_all_the_same(
    slack: FakeSlack, notifier: SlackNotifier, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    slack.trouble(method, *[no("missing_scope", needed="channels:history")] * 9)
    for incident in ("a-1-0", "b-1-0", "c-1-0"):
        await tell(notifier, replace(ACTING, id=incident))
    assert len(slack.channel) == 3
    assert [line.message for line in caplog.records] == ["slack history cannot be read"]


async def test_what_this_process_said_it_knows_without_the_right_to_look(
    slack: FakeSlack, notifier: SlackNotifier
) -> None:
    slack.trouble(HISTORY, *[no("missing_scope")] * 9)
    slack.trouble(REPLIES, *[no("missing_scope")] * 9)
    await tell(notifier, ACTING)
    await tell(notifier, RECOVERED)  # whose record could not be saved
    assert slack.channel == [said(RECOVERED).text]
    assert slack.thread == list(said(RECOVERED).thread)


async def test_a_breach_that_was_told_is_taken_back_even_if_its_record_could_not_be_saved(
    slack: FakeSlack, notifier: SlackNotifier
) -> None:
    await tell(notifier, SAMPLES["breach"])
    await tell(notifier, replace(SAMPLES["cleared"], notified=None))
    assert slack.channel == [said(SAMPLES["cleared"]).text]


async def test_a_channel_is_known_by_its_id_once_something_was_posted(
    slack: FakeSlack, notifier: SlackNotifier
) -> None:
    slack.trouble("users.conversations", no("missing_scope"))
    await tell(notifier, PASSED)
    await tell(notifier, replace(PASSED, id="web-1-00000000"))
    assert [call.method for call in slack.calls] == ["users.conversations", POST, HISTORY, POST]


async def test_a_channel_given_by_its_id_needs_no_list_of_channels(slack: FakeSlack) -> None:
    async with notifying(slack, channel=CHANNEL) as notifier:
        await tell(notifier, PASSED)
    assert [call.method for call in slack.calls] == [HISTORY, POST]


@pytest.mark.parametrize("error", ["message_not_found", "cant_update_message", "edit_window_closed"])
async def test_a_message_that_cannot_be_edited_any_more_gets_a_successor(
    slack: FakeSlack, notifier: SlackNotifier, error: str
) -> None:
    first = await tell(notifier, ACTING)
    slack.trouble(UPDATE, no(error), no(error))
    slack.trouble(POST, lost)
    second = await tell(notifier, replace(RECOVERED, notified=first))
    assert second.ts > first.ts
    assert slack.channel == [said(ACTING).text, said(RECOVERED).text]
    assert [each["text"] for each in slack.messages if each.get("thread_ts") == second.ts] == list(
        said(RECOVERED).thread
    )


# -- tokens and proxies ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"])
async def test_a_proxy_in_the_environment_is_ignored(
    slack: FakeSlack, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    async with notifying(slack) as notifier:
        await tell(notifier, PASSED)


async def test_the_token_is_read_anew_for_each_call(slack: FakeSlack, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("xoxb-first\n")
    async with notifying(slack, token_file=str(path)) as notifier:
        told = await tell(notifier, replace(ACTING, verdicts=()))
        path.write_text("xoxb-second\n")
        await tell(notifier, replace(RECOVERED, verdicts=(), notified=told))
    assert slack.called(POST)[0].token == "xoxb-first"
    assert slack.called(UPDATE)[0].token == "xoxb-second"


@pytest.mark.parametrize("content", ["", "two words", "line\nline", None])
async def test_without_a_token_the_cure_is_named(slack: FakeSlack, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    async with notifying(slack, token_file=str(path)) as notifier:
        with pytest.raises(NotificationError, match="put a valid bot token"):
            await notifier.tell(PASSED)
    assert slack.calls == []


async def test_no_token_and_no_proxy_is_ever_logged(
    slack: FakeSlack, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:proxy-password@127.0.0.1:9")
    slack.trouble(POST, limited("1"), broken(500), no("invalid_auth"))
    with caplog.at_level(logging.DEBUG):
        async with notifying(slack) as notifier:
            with pytest.raises(NotificationError) as caught:
                await notifier.tell(PASSED)
    logged = "\n".join(str(vars(line)) for line in caplog.records if not line.name.startswith("asyncio"))
    for secret in (TOKEN, "proxy-password", said(PASSED).text):
        assert secret not in logged + repr(caught.value) + repr(caught.value.__context__)
    assert "slack is asked again" in logged


# -- check -------------------------------------------------------------------------------------------------------------


async def test_a_check_says_who_we_are_and_that_messages_are_found(notifier: SlackNotifier) -> None:
    assert await notifier.check() == "watchdog in Acme; finds its messages in #deploys"


async def test_a_check_says_what_a_missing_scope_costs(slack: FakeSlack, notifier: SlackNotifier) -> None:
    slack.trouble(HISTORY, no("missing_scope", needed="channels:history"))
    said_there = await notifier.check()
    assert said_there.startswith("watchdog in Acme; cannot read #deploys, a message may come twice after a crash.")
    assert "(channels:history): give the app this scope" in said_there


async def test_a_check_of_a_bad_token_names_the_cure(slack: FakeSlack, notifier: SlackNotifier) -> None:
    slack.trouble("auth.test", no("invalid_auth"))
    with pytest.raises(NotificationError, match="put a valid bot token"):
        await notifier.check()
