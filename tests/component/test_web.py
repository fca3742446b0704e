"""The routes over real sockets: what they answer, and in which shape they say no."""

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.component.backend import FakeBackend, Served, exchange, post, record, rolled_back, serving, token_file
from tests.unit.builders import Json, hash_of
from watchdog.alertmanager.payload import read_webhook
from watchdog.config import Server
from watchdog.decide.evaluations import Posted
from watchdog.decide.plan import Request
from watchdog.decide.record import State
from watchdog.errors import (
    ClusterError,
    ConfigError,
    Conflict,
    Denied,
    KeyReused,
    NotAdmitted,
    NotFound,
    Rejected,
    Unanswered,
    UsageError,
)
from watchdog.kube.transport import Transport
from watchdog.model import Cause, Guard, Objection, Outcome, Result
from watchdog.objects import WorkloadRef

# The clock jumps when nothing has come for so many looks at the sockets: enough for the kernel's loopback.
pytestmark = pytest.mark.looptime(noop_cycles=400)

A, P = "token-of-alertmanager", "token-of-people"
ROLLBACK = {"namespace": "shop", "deployment": "web", "reason": "checkout fails"}
POSTED = {"namespace": "shop", "deployment": "web", "image": "web:v2", "bad": 2, "total": 10, "id": "7-1"}


@pytest.fixture
def backend() -> FakeBackend:
    """Give an engine that does everything well."""
    return FakeBackend()


@pytest.fixture
def settings(tmp_path: Path) -> Server:
    """Give a token for alerts and one for people."""
    return Server(
        alerts_token_files=(token_file(tmp_path, "alerts", A),), api_token_files=(token_file(tmp_path, "api", P),)
    )


@pytest.fixture
async def served(backend: FakeBackend, transport: Transport, settings: Server) -> AsyncIterator[Served]:
    """Serve."""
    async with serving(backend, transport, settings) as served:
        yield served


# -- alerts ------------------------------------------------------------------------------------------------------------


async def test_alerts_that_are_held_are_counted(served: Served, backend: FakeBackend) -> None:
    reply = await served.ask("POST", "/alerts", ["a1", "a2"], token=A)
    assert (reply.status, reply.json) == (200, {"accepted": 2})
    assert [alert.fingerprint for alert in backend.taken] == ["a1", "a2"]


async def test_alerts_that_cannot_be_held_are_to_be_sent_again_and_perhaps_to_another_replica(
    served: Served, backend: FakeBackend
) -> None:
    backend.has_room = False
    reply = await served.ask("POST", "/alerts", ["a1"], token=A)
    assert (reply.status, reply.error["code"], reply.headers["Connection"]) == (503, "unavailable", "close")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/alerts"),
        ("POST", "/rollback"),
        ("POST", "/evaluations"),
        ("GET", "/incidents"),
        ("GET", "/rollouts"),
        ("POST", "/incidents/a/approve"),
    ],
)
async def test_a_replica_that_does_not_lead_answers_nothing_but_503_and_closes(
    served: Served, backend: FakeBackend, method: str, path: str
) -> None:
    backend.is_accepting = False
    reply = await served.ask(method, path, token=P)
    assert (reply.status, reply.error["code"], reply.headers["Connection"]) == (503, "unavailable", "close")
    assert not backend.taken
    assert not backend.calls


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b"null", b'{"receiver": "x"}', b"[" * 100_000, b'["a"]["b"]'],
    ids=["empty", "cut", "no text", "null", "an object", "deep", "two"],
)
async def test_a_body_that_is_not_alertmanagers_is_refused_in_few_words(served: Served, body: bytes) -> None:
    reply = await served.ask("POST", "/alerts", data=body, token=A)
    assert (reply.status, reply.error["code"]) == (400, "bad-request")
    assert len(reply.body) < 400
    assert (await served.ask("POST", "/alerts", ["a1"], token=A)).status == 200


async def test_alertmanagers_own_form_is_read_and_a_very_deep_one_refused(
    backend: FakeBackend, transport: Transport, settings: Server
) -> None:
    alert = {"status": "firing", "labels": {"alertname": "Errors"}, "startsAt": "2026-03-01T12:00:00Z"}
    async with serving(backend, transport, settings, parse=read_webhook) as served:
        for body, expected in (({"alerts": [alert]}, 200), ({"version": "4"}, 400)):
            assert (await served.ask("POST", "/alerts", body, token=A)).status == expected
        deep = b'{"alerts": ' + b"[" * 10_000
        assert (await served.ask("POST", "/alerts", data=deep, token=A)).status == 400
        deep = b'{"unknown": ' + b"[" * 10_000
        assert (await served.ask("POST", "/alerts", data=deep, token=A)).status == 400
    assert [taken.name for taken in backend.taken] == ["Errors"]


async def test_a_redirect_that_makes_get_of_post_shows_up_as_a_failure(served: Served) -> None:
    reply = await served.ask("GET", "/alerts", token=A)
    assert (reply.status, reply.error["code"], reply.headers["Allow"]) == (405, "method-not-allowed", "POST")


async def test_a_body_above_8_mib_is_too_large_and_what_fires_is_asked_for_at_once(
    served: Served, backend: FakeBackend
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(9):
            yield b"x" * (1 << 20)

    for data in (io.BytesIO(b"x" * (9 << 20)), chunks()):
        reply = await served.ask("POST", "/alerts", data=data, token=A)
        assert (reply.status, reply.error["code"]) == (413, "too-large")
    assert not backend.taken
    assert backend.resyncs == 2


async def test_a_body_of_almost_8_mib_is_taken(served: Served, backend: FakeBackend) -> None:
    body = json.dumps(["a" * 1000] * 8300).encode()
    assert 7.8 * (1 << 20) < len(body) < 8 << 20
    assert (await served.ask("POST", "/alerts", data=io.BytesIO(body), token=A)).json == {"accepted": 8300}


async def test_a_body_that_trickles_in_is_given_up_and_meanwhile_others_are_served(
    served: Served, backend: FakeBackend
) -> None:
    slow = asyncio.create_task(exchange(served.ports.api, post("/alerts", A, "Content-Length: 100"), b'["a1"'))
    assert (await served.ask("POST", "/alerts", ["a2"], token=A)).status == 200
    assert not slow.done()
    began = asyncio.get_running_loop().time()
    assert (await slow)[0] == 503
    assert asyncio.get_running_loop().time() - began < 20
    assert [alert.fingerprint for alert in backend.taken] == ["a2"]


async def test_a_connection_without_a_whole_request_is_closed(served: Served) -> None:
    for begin in (b"", b"POST /alerts HTTP/1.1\r\nHost:"):
        began = asyncio.get_running_loop().time()
        reader, writer = await asyncio.open_connection("127.0.0.1", served.ports.api)
        writer.write(begin)
        assert await reader.read() == b""
        assert 5 < asyncio.get_running_loop().time() - began < 15
        writer.close()
        await writer.wait_closed()


async def test_a_client_that_goes_away_in_the_middle_of_its_body_is_nobodys_error(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", served.ports.api)
    writer.write(post("/alerts", A, "Content-Length: 100") + b"[")
    await writer.drain()
    await asyncio.sleep(1)
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(1)
    assert not [line for line in caplog.records if line.levelno >= logging.ERROR]


_HEADS = [
    b"GET /incidents?after=%ff HTTP/1.1\r\nHost: here\r\n",
    b"GET /incidents?after=\xff HTTP/1.1\r\nHost: here\r\n",
    b"GET /incidents/%c3%28 HTTP/1.1\r\nHost: here\r\n",
    b"GET /%ed%a0%80 HTTP/1.1\r\nHost: here\r\n",
    b"GET /incidents HTTP/1.1\r\nHost: here\r\nX: \xff\xfe\r\n",
    b"GET /incidents HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer \xff\r\n",
    b"POST /alerts HTTP/1.1\r\nHost: here\r\nContent-Length: 1e400\r\n",
    b"POST /alerts HTTP/1.1\r\nHost: here\r\nContent-Length: 99999999999999999999999999\r\n",
]


@pytest.mark.parametrize("head", _HEADS)
async def test_a_path_a_query_or_a_header_that_is_not_utf8_or_no_number_is_malformed(
    served: Served, head: bytes
) -> None:
    status, error = await exchange(served.ports.api, head + b"Connection: close\r\n\r\n")
    assert (status, error["code"]) == (400, "bad-request")


def changed(fields: Json, field: str, value: bytes) -> bytes:
    """An object in JSON, in which the value of one field is these bytes."""
    pairs = ((name, value if name == field else json.dumps(fields[name]).encode()) for name in fields)
    return b"{%b}" % b", ".join(b'"%b": %b' % (name.encode(), text) for name, text in pairs)


@pytest.mark.parametrize("path", ["/rollback", "/evaluations"])
@pytest.mark.parametrize("value", [b'"\xff"', b"1e400", b"-1e400", b"NaN", b"1180591620717411303424", b"[" * 100_000])
async def test_bad_text_and_numbers_beyond_json_are_malformed_in_every_field(
    served: Served, backend: FakeBackend, path: str, value: bytes
) -> None:
    good: Json = {
        **ROLLBACK,
        "to_revision": 1,
        "dry_run": False,
        "expected_current_revision": 2,
        "idempotency_key": "k",
    }
    good = good if path == "/rollback" else POSTED
    for field in good:
        reply = await served.ask("POST", path, data=changed(good, field, value), token=P)
        assert (field, reply.status, reply.error["code"]) == (field, 400, "bad-request")
    assert (backend.calls, backend.posted) == ([], [])


@pytest.mark.parametrize(
    "value", [b'"\xff"', b"1e400", b"NaN", b"1180591620717411303424", b"[" * 100_000, b"{}", b"true"]
)
async def test_bad_text_and_numbers_are_malformed_in_every_field_of_an_alert(
    backend: FakeBackend, transport: Transport, settings: Server, value: bytes
) -> None:
    alert = {"status": "firing", "labels": {"alertname": "Errors"}, "startsAt": "2026-03-01T12:00:00Z"}
    async with serving(backend, transport, settings, parse=read_webhook) as served:
        for field in alert:
            body = b'{"alerts": [%b]}' % changed(alert, field, value)
            if value == b"{}" and field == "labels":
                continue
            reply = await served.ask("POST", "/alerts", data=body, token=A)
            assert (field, reply.status, reply.error["code"]) == (field, 400, "bad-request")
    assert not backend.taken


@pytest.mark.parametrize("body", [b"\xff", b"1e400", b"NaN", b"[" * 100_000, b"[]", b'{"a": 1e400}'])
async def test_an_answer_with_a_body_that_is_no_object_is_none(
    served: Served, backend: FakeBackend, body: bytes
) -> None:
    backend.kept = [record("shop", "web")]
    reply = await served.ask("POST", f"/incidents/{backend.kept[0].id}/approve", data=body, token=P)
    assert (reply.status, reply.error["code"], backend.answers) == (400, "bad-request", [])


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET /incidents HTTP/1.1\r\nHost here\r\n\r\n",
        b"GET /incidents HTTP/1.1\r\nHost: here\r\nX: " + b"secret" * 3000 + b"\r\n\r\n",
        b"GET /" + b"secret" * 3000 + b" HTTP/1.1\r\nHost: here\r\n\r\n",
        post("/alerts", A, "Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    ],
    ids=["no HTTP", "no header", "long header", "long path", "two lengths"],
)
async def test_bytes_that_are_not_http_are_answered_in_our_shape_and_neither_told_nor_logged(
    served: Served, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    assert await exchange(served.ports.api, sent) == (
        400,
        {"code": "bad-request", "message": "this is not HTTP", "detail": ""},
    )
    assert "secret" not in caplog.text
    assert not [line for line in caplog.records if line.levelno >= logging.WARNING]


async def test_a_broken_chunk_is_malformed_and_one_that_breaks_later_is_given_up(served: Served) -> None:
    head = post("/alerts", A, "Transfer-Encoding: chunked", "Connection: close")
    began = asyncio.get_running_loop().time()
    assert (await exchange(served.ports.api, head + b"zz\r\n"))[0] == 400
    assert (await exchange(served.ports.api, head, b"zz\r\n"))[0] == 503
    assert asyncio.get_running_loop().time() - began < 20


async def test_an_expectation_that_nobody_knows_is_answered_in_our_shape(served: Served) -> None:
    status, error = await exchange(served.ports.api, post("/nowhere", A, "Expect: the-worst", "Connection: close"))
    assert (status, error["detail"]) == (417, "")


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/readyz", "/metrics", "/alerts/", "/incidents/a/b", "/openapi.json"]
)
async def test_other_paths_do_not_exist_on_the_api_port(served: Served, path: str) -> None:
    reply = await served.ask("GET", path, token=P)
    assert (reply.status, reply.error["code"]) == (404, "not-found")


async def test_what_nobody_foresaw_is_logged_once_and_not_told(
    served: Served, backend: FakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.result = RuntimeError("hunter2")
    reply = await served.ask("POST", "/rollback", ROLLBACK, token=P)
    assert (reply.status, reply.error["code"]) == (500, "internal")
    assert b"hunter2" not in reply.body
    assert [line.levelname for line in caplog.records if line.exc_info] == ["ERROR"]


# -- rollback ----------------------------------------------------------------------------------------------------------


async def test_a_rollback_is_asked_of_the_engine_whole_and_its_result_told_whole(
    served: Served, backend: FakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    body = {**ROLLBACK, "to_revision": 1, "expected_current_revision": 2, "idempotency_key": "k-1"}
    reply = await served.ask("POST", "/rollback", body, token=P)
    asked = Request(cause=Cause("static token", "checkout fails"), to_revision=1, expected_revision=2)
    assert backend.calls == [(WorkloadRef("shop", "web"), asked, False, "k-1")]
    assert reply.status == 200
    told = reply.json
    assert (told["outcome"], told["from"]["revision"], told["to"]["revision"]) == ("rolled-back", 2, 1)
    assert (told["revision"], told["elapsed_seconds"], told["dry_run"]) == (3, 4.2, False)
    assert b"hunter2" not in reply.body
    lines = [line.__dict__ for line in caplog.records if line.name.startswith("watchdog.web")]
    assert [(line.get("event"), line.get("workload"), line.get("user")) for line in lines if "workload" in line] == [
        ("rollback-asked", "shop/web", "static token")
    ]


async def test_a_dry_run_and_a_write_that_is_not_waited_for_are_told_apart(
    served: Served, backend: FakeBackend
) -> None:
    backend.result = rolled_back(elapsed_s=None)
    dry = await served.ask("POST", "/rollback", {**ROLLBACK, "dry_run": True}, token=P)
    assert (dry.status, dry.json["dry_run"]) == (200, True)
    assert (await served.ask("POST", "/rollback", ROLLBACK, token=P)).status == 202
    assert [(dry_run, key) for _, _, dry_run, key in backend.calls] == [(True, ""), (False, "")]


async def test_a_refusal_is_a_conflict_that_names_every_guard(served: Served, backend: FakeBackend) -> None:
    also = Objection(Guard.HOLD, "held until noon")
    refused = Objection(Guard.PAUSED, "spec.paused is true", also=(also,))
    backend.result = Result(outcome=Outcome.REFUSED, detail=str(refused), refused=refused)
    reply = await served.ask("POST", "/rollback", ROLLBACK, token=P)
    assert (reply.status, reply.error["code"], reply.error["detail"]) == (409, "paused", "policy")
    assert [(no["guard"], no["class"]) for no in reply.json["refusals"]] == [("paused", "policy"), ("hold", "policy")]


async def test_a_rollback_that_another_one_made_needless_is_answered_200_already(
    served: Served, backend: FakeBackend
) -> None:
    refused = Objection(Guard.ALREADY, "revision 4 was put there by the rollback 3 → 2")
    backend.result = Result(outcome=Outcome.ALREADY, detail=refused.detail, refused=refused)
    for dry_run in (False, True):
        reply = await served.ask("POST", "/rollback", ROLLBACK | {"dry_run": dry_run}, token=P)
        assert (reply.status, reply.json["outcome"], reply.json["detail"]) == (200, "already", refused.detail)
        assert "error" not in reply.json


async def test_a_key_that_came_with_another_request_is_refused_and_the_field_is_named(
    served: Served, backend: FakeBackend
) -> None:
    backend.result = KeyReused("shop/web: write another key for another action, or repeat all fields of the first")
    reply = await served.ask("POST", "/rollback", ROLLBACK | {"idempotency_key": "k"}, token=P)
    assert (reply.status, reply.error["code"]) == (422, "key-reused")
    assert "`idempotency_key`" in reply.error["message"]


async def test_a_revision_that_is_not_live_any_more_is_a_conflict(served: Served, backend: FakeBackend) -> None:
    refused = Objection(Guard.SUPERSEDED, "live is revision 3")
    backend.result = Result(outcome=Outcome.SUPERSEDED, detail=str(refused), refused=refused)
    reply = await served.ask("POST", "/rollback", {**ROLLBACK, "expected_current_revision": 2}, token=P)
    assert (reply.status, reply.error["code"], reply.json["outcome"]) == (409, "superseded", "superseded")


async def test_a_rollback_that_did_not_get_ready_is_not_called_good(served: Served, backend: FakeBackend) -> None:
    backend.result = Result(outcome=Outcome.FAILED, detail="not complete after 300 s", elapsed_s=300.0)
    reply = await served.ask("POST", "/rollback", ROLLBACK, token=P)
    assert (reply.status, reply.error["code"], reply.error["message"]) == (409, "failed", "not complete after 300 s")


async def test_a_rollback_that_is_still_under_way_is_accepted_and_not_called_failed(
    served: Served, backend: FakeBackend
) -> None:
    backend.result = Result(outcome=Outcome.UNDER_WAY, detail="under way", elapsed_s=300.0)
    reply = await served.ask("POST", "/rollback", ROLLBACK, token=P)
    assert (reply.status, reply.json["outcome"]) == (202, "under-way")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NotFound("get deployments shop/web", "NotFound"), 404, "not-found"),
        (Unanswered("patch deployments shop/web", "no answer within 10 s"), 503, "unavailable"),
        (Denied("patch deployments shop/web", "Forbidden"), 503, "unavailable"),
        (Conflict("patch deployments shop/web", "Conflict"), 409, "conflict"),
        (Rejected("patch deployments shop/web", "Invalid: spec.x"), 409, "conflict"),
        (NotAdmitted("patch deployments shop/web", code=500, refuser="quota x", sentence="no"), 409, "conflict"),
    ],
)
async def test_what_the_cluster_says_has_a_status_of_its_own(
    served: Served, backend: FakeBackend, error: ClusterError, status: int, code: str
) -> None:
    backend.result = error
    reply = await served.ask("POST", "/rollback", ROLLBACK, token=P)
    assert (reply.status, reply.error["code"], reply.error["detail"]) == (status, code, str(error))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"namespace": None}, "namespace"),
        ({"namespace": "../secrets"}, "namespace"),
        ({"deployment": "web/scale"}, "deployment"),
        ({"reason": " "}, "reason"),
        ({"reason": "x" * 501}, "reason"),
        ({"to_revision": 0}, "to_revision"),
        ({"to_revision": "1"}, "to_revision"),
        ({"to_revision": True}, "to_revision"),
        ({"dry_run": "yes"}, "dry_run"),
        ({"expected_current_revision": 1.5}, "expected_current_revision"),
        ({"force": True}, "force"),
        ({"idempotency_key": 7}, "idempotency_key"),
    ],
)
async def test_a_wrong_field_is_named_and_nothing_happens(
    served: Served, backend: FakeBackend, change: Json, named: str
) -> None:
    reply = await served.ask("POST", "/rollback", ROLLBACK | change, token=P)
    assert (reply.status, reply.error["code"]) == (400, "bad-request")
    assert named in reply.error["detail"]
    assert not backend.calls


async def test_what_a_body_holds_comes_back_at_most_in_part(served: Served) -> None:
    reply = await served.ask("POST", "/rollback", ROLLBACK | {"x" * 10_000: 1}, token=P)
    assert reply.status == 400
    assert len(reply.body) < 400


@pytest.mark.parametrize("missing", sorted(ROLLBACK))
async def test_a_missing_field_is_named(served: Served, missing: str) -> None:
    body = {field: value for field, value in ROLLBACK.items() if field != missing}
    assert missing in (await served.ask("POST", "/rollback", body, token=P)).error["detail"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{" * 9, b'{"reason":' + b"[" * 100_000])
async def test_a_rollback_that_is_no_object_is_malformed(served: Served, body: bytes) -> None:
    assert (await served.ask("POST", "/rollback", data=body, token=P)).status == 400


async def test_a_rollback_that_takes_minutes_is_answered(served: Served, backend: FakeBackend) -> None:
    backend.during = lambda: asyncio.sleep(250)
    assert (await served.ask("POST", "/rollback", ROLLBACK, token=P)).status == 200


async def test_a_list_that_takes_minutes_is_given_up(served: Served, backend: FakeBackend) -> None:
    backend.during = lambda: asyncio.sleep(250)
    assert (await served.ask("GET", "/incidents", token=P)).error["code"] == "unavailable"


async def test_a_rollback_goes_on_although_its_client_has_gone(served: Served, backend: FakeBackend) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def take_long() -> None:
        began.set()
        await asyncio.sleep(120)
        ended.set()

    backend.during = take_long
    body = json.dumps(ROLLBACK).encode()
    _, writer = await asyncio.open_connection("127.0.0.1", served.ports.api)
    writer.write(post("/rollback", P, f"Content-Length: {len(body)}") + body)
    await began.wait()
    writer.close()
    await writer.wait_closed()
    await asyncio.wait_for(ended.wait(), 130)


# -- evaluations -------------------------------------------------------------------------------------------------------


async def test_evaluations_are_passed_on_whole_and_what_became_of_them_is_told(
    served: Served, backend: FakeBackend
) -> None:
    reply = await served.ask("POST", "/evaluations", POSTED, token=P)
    assert backend.posted == [(WorkloadRef("shop", "web"), Posted(id="7-1", total=10, bad=2, image="web:v2"))]
    assert (reply.status, reply.json) == (
        200,
        {
            "schema": 1,
            "namespace": "shop",
            "deployment": "web",
            "hash": hash_of("v2"),
            "counted": True,
            "rollouts": [{"incident": "web-2-12345678", "track": "candidate"}],
            "detail": "candidate of web-2-12345678",
        },
    )


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"bad": 11}, "`bad` is more than `total`"),
        ({"bad": -1}, "$.bad"),
        ({"total": 0}, "$.total"),
        ({"total": "10"}, "$.total"),
        ({"id": " "}, "$.id"),
        ({"id": "x" * 101}, "$.id"),
        ({"image": ""}, "`image` or `hash`"),
        ({"hash": "12345"}, "`image` or `hash`"),
        ({"deployment": "a/b"}, "`deployment`"),
        ({"good": 8}, "`good`"),
    ],
    ids=str,
)
async def test_a_wrong_field_of_evaluations_is_named_and_nothing_is_counted(
    served: Served, backend: FakeBackend, changed: Json, named: str
) -> None:
    reply = await served.ask("POST", "/evaluations", {**POSTED, **changed}, token=P)
    assert (reply.status, reply.error["code"]) == (400, "bad-request")
    assert named in reply.error["detail"]
    assert not backend.posted


@pytest.mark.parametrize("missing", sorted({*POSTED} - {"image"}))
async def test_a_missing_field_of_evaluations_is_named(served: Served, missing: str) -> None:
    body = {key: value for key, value in POSTED.items() if key != missing}
    assert f"`{missing}`" in (await served.ask("POST", "/evaluations", body, token=P)).error["detail"]


@pytest.mark.parametrize(
    ("refusal", "status"), [(UsageError("image web:v2 is not live"), 409), (NotFound("evaluations", "nobody"), 404)]
)
async def test_evaluations_that_cannot_count_are_refused_with_the_reason(
    served: Served, backend: FakeBackend, refusal: Exception, status: int
) -> None:
    backend.refusal = refusal
    reply = await served.ask("POST", "/evaluations", POSTED, token=P)
    assert reply.status == status
    assert str(refusal) in f"{reply.error['message']} {reply.error['detail']}"


# -- incidents ---------------------------------------------------------------------------------------------------------


async def test_incidents_are_listed_newest_first_without_rollouts_that_never_were_one(
    served: Served, backend: FakeBackend
) -> None:
    old, new, fine = record("shop", "a", age_s=60), record("shop", "b"), record("shop", "c", state=State.WATCHING)
    backend.kept, backend.watched = [old, fine, new], [fine, new]
    incidents = (await served.ask("GET", "/incidents", token=P)).json["incidents"]
    assert [each["id"] for each in incidents] == [new.id, old.id]
    assert (incidents[0]["namespace"], incidents[0]["deployment"], incidents[0]["state"]) == ("shop", "b", "asking")
    assert "blocks" not in incidents[0]
    rollouts = (await served.ask("GET", "/rollouts", token=P)).json["rollouts"]
    assert {each["id"] for each in rollouts} == {fine.id, new.id}


async def test_one_incident_is_told_whole(served: Served, backend: FakeBackend) -> None:
    backend.kept = [record("shop", "web")]
    told = (await served.ask("GET", f"/incidents/{backend.kept[0].id}", token=P)).json
    assert (told["schema"], told["incident"]["policy"], told["incident"]["rollout"]["revision"]) == (1, "all", 2)


@pytest.mark.parametrize("name", ["nobody-2-12345678", "..%2Fsecrets", "a%0Ab", "x" * 300])
async def test_an_incident_that_is_not_there_is_not_found(served: Served, name: str) -> None:
    for method, path in (("GET", f"/incidents/{name}"), ("POST", f"/incidents/{name}/approve")):
        assert (await served.ask(method, path, token=P)).error["code"] == "not-found"


@pytest.mark.parametrize("word", ["approve", "dismiss"])
async def test_what_a_person_answers_is_passed_on_with_name_and_way(
    served: Served, backend: FakeBackend, word: str
) -> None:
    backend.kept = [record("shop", "web")]
    reply = await served.ask("POST", f"/incidents/{backend.kept[0].id}/{word}", token=P)
    assert (reply.status, reply.json["incident"]["people"][0]["answer"]) == (200, word)
    assert [(each.answer, each.by, each.via) for each in backend.answers] == [(word, "static token", "http")]


async def test_an_answer_that_nobody_waits_for_is_a_conflict(served: Served, backend: FakeBackend) -> None:
    backend.kept, backend.refusal = [record("shop", "web")], UsageError("web-2 is not being asked")
    reply = await served.ask("POST", f"/incidents/{backend.kept[0].id}/approve", token=P)
    assert (reply.status, reply.error["message"]) == (409, "web-2 is not being asked")


async def test_records_that_cannot_be_read_are_a_matter_of_later(served: Served, backend: FakeBackend) -> None:
    backend.refusal = Unanswered("list configmaps", "no answer within 10 s")
    assert (await served.ask("GET", "/incidents", token=P)).error["code"] == "unavailable"


# -- health and metrics, start and stop --------------------------------------------------------------------------------


async def test_health_and_metrics_are_open_on_their_own_port_only(served: Served, backend: FakeBackend) -> None:
    backend.is_accepting = False
    for path in ("/healthz", "/readyz"):
        assert (await served.ask("GET", path, port=served.ports.metrics)).status == 200
    metrics = await served.ask("GET", "/metrics", port=served.ports.metrics)
    assert (metrics.body, metrics.headers["Content-Type"]) == (b"up 1\n", "text/plain; version=0.0.4")
    assert (await served.ask("GET", "/incidents", port=served.ports.metrics)).error["code"] == "not-found"


async def test_what_is_not_alive_or_not_ready_says_so(served: Served, backend: FakeBackend) -> None:
    backend.is_alive = backend.is_ready = False
    for path in ("/healthz", "/readyz"):
        reply = await served.ask("GET", path, port=served.ports.metrics)
        assert (reply.status, reply.error["code"]) == (503, "unavailable")


async def test_a_request_under_way_is_finished_before_the_server_ends(
    backend: FakeBackend, transport: Transport, settings: Server
) -> None:
    began = asyncio.Event()

    async def take_a_moment() -> None:
        began.set()
        await asyncio.sleep(2)

    backend.during = take_a_moment
    async with serving(backend, transport, settings) as served:
        body = json.dumps(ROLLBACK).encode()
        asked = asyncio.create_task(
            exchange(served.ports.api, post("/rollback", P, f"Content-Length: {len(body)}", "Connection: close") + body)
        )
        backend.result = NotFound("get deployments shop/web", "NotFound")
        await began.wait()
    assert (await asked)[0] == 404


@pytest.mark.parametrize("address", ["[::]:0", ":0", "localhost:0"])
async def test_every_form_of_an_address_is_reached_over_ipv4(
    backend: FakeBackend, transport: Transport, settings: Server, address: str
) -> None:
    async with serving(backend, transport, settings, listen=address) as served:
        assert (await served.ask("POST", "/alerts", ["a1"], token=A)).status == 200


@pytest.mark.parametrize("address", ["203.0.113.1:0", "nowhere.invalid:1"])
async def test_an_address_that_cannot_be_had_is_named(
    backend: FakeBackend, transport: Transport, settings: Server, address: str
) -> None:
    with pytest.raises(ConfigError, match=r"^server\.listen: "):
        async with serving(backend, transport, settings, listen=address):
            pass
