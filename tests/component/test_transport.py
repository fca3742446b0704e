"""One request to the API server: its deadline, its token, its errors, and what is never told of them."""

import asyncio
import json
import logging
import re
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from tests.component.fake_api import Answer, FakeApi, cut, good, hang, no_bytes, page, raw, status, write_kubeconfig
from tests.unit.builders import CAUSE, NOW, Json, history
from watchdog import __version__
from watchdog.decide.plan import Request, plan_undo
from watchdog.errors import (
    AlreadyExists,
    ClusterError,
    ConfigError,
    Conflict,
    Denied,
    Expired,
    NotAdmitted,
    NotFound,
    PreconditionFailed,
    Rejected,
    ServerError,
    Throttled,
    Unanswered,
)
from watchdog.kube import KubeCluster, Reviews, Right, connect
from watchdog.kube.transport import REPLICA, Transport
from watchdog.model import Event, EventReason, Undo
from watchdog.objects import Deployment, LabelSelector, Snapshot, WorkloadRef

REF = WorkloadRef("shop", "web")
WEB = "/apis/apps/v1/namespaces/shop/deployments/web"
SETS = "/apis/apps/v1/namespaces/shop/replicasets"
EVENTS = "/apis/events.k8s.io/v1/namespaces/shop/events"
MINE = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

SECRET = "hunter2"
LEAK = f'Deployment in version "v1" cannot be handled: {{"env": [{{"name": "PASSWORD", "value": "{SECRET}"}}]}}'
CAUSES = {"causes": [{"field": "spec.replicas", "reason": "FieldValueInvalid", "message": LEAK}]}
WEB_EVENT = Event(
    name="web-1.started",
    regarding=REF,
    uid="1",
    reason=EventReason.STARTED,
    action="Rollback",
    note="Rolling back",
)


def deployment() -> Json:
    return history("v1", "v2", "v3").deployment


async def read(cluster: KubeCluster, *, timeout_s: float = 5) -> Deployment:
    return await cluster.deployment(REF, timeout_s=timeout_s)


async def patch(cluster: KubeCluster, *, dry_run: bool = False, timeout_s: float = 5) -> Deployment:
    return await cluster.patch_deployment(REF, b"[]", dry_run=dry_run, timeout_s=timeout_s)


# -- what is sent ------------------------------------------------------------------------------------------------------


async def test_a_request_says_who_asks_and_carries_the_token(api: FakeApi, cluster: KubeCluster) -> None:
    api.answer("GET", WEB, good(deployment()))
    await read(cluster)
    headers = api.seen[0].headers
    assert headers["User-Agent"] == f"rollback-watchdog/{__version__} {REPLICA}"
    assert headers["Authorization"] == "Bearer first-token"
    assert headers["Accept"] == "application/json"


async def test_a_patch_names_its_manager_and_is_checked_strictly(api: FakeApi, cluster: KubeCluster) -> None:
    api.answer("PATCH", WEB, good(deployment()))
    await patch(cluster)
    assert api.seen[0].query == {"fieldManager": "rollback-watchdog", "fieldValidation": "Strict"}
    assert api.seen[0].headers["Content-Type"] == "application/json-patch+json"


async def test_a_dry_run_says_so_to_the_api_server(api: FakeApi, cluster: KubeCluster) -> None:
    api.answer("PATCH", WEB, good(deployment()))
    await patch(cluster, dry_run=True)
    assert api.seen[0].query == {"fieldManager": "rollback-watchdog", "fieldValidation": "Strict", "dryRun": "All"}


async def test_an_undo_sends_the_targets_template_as_the_server_sent_it(api: FakeApi, cluster: KubeCluster) -> None:
    template = (
        '{"spec": {"tomorrow":{"z":1.0,"a":1E3,"u":"\\u00e9\\/"},"containers":[{"image":"w:2","name":"web"}]},'
        '\n  "metadata":{"labels":{"pod-template-hash":"fb04dcb697","app":"web"},"creationTimestamp":null}}'
    )
    scene = history("v1", "v2", "v3")
    scene.replicaset("v2")["spec"]["template"] = "TEMPLATE"
    listed = json.dumps({"metadata": {}, "items": scene.replicasets}).replace('"TEMPLATE"', template)
    api.answer("GET", WEB, good(scene.deployment))
    api.answer("GET", SETS, raw(listed.encode()))
    api.answer("PATCH", WEB, good(scene.deployment))
    read_deployment = await read(cluster)
    sets = await cluster.replicasets("shop", read_deployment.spec.selector, timeout_s=5)
    plan = plan_undo(Snapshot(read_deployment, sets), Request(cause=CAUSE), now=NOW)
    assert isinstance(plan, Undo)
    await cluster.patch_deployment(REF, plan.patch, dry_run=False, timeout_s=5)
    assert b'{"op":"replace","path":"/spec/template","value":' + template.encode() + b"}" in api.seen[-1].body


async def test_a_selector_is_sent_in_the_form_of_a_query(api: FakeApi, cluster: KubeCluster) -> None:
    api.answer("GET", SETS, page())
    selector = msgspec.convert(
        {
            "matchLabels": {"b": "2", "a": "1"},
            "matchExpressions": [
                {"key": "tier", "operator": "NotIn", "values": ["x", "y"]},
                {"key": "zone", "operator": "In", "values": ["eu"]},
                {"key": "live", "operator": "Exists"},
                {"key": "dead", "operator": "DoesNotExist"},
            ],
        },
        LabelSelector,
    )
    await cluster.replicasets("shop", selector, timeout_s=5)
    assert api.seen[0].query["labelSelector"] == "a=1,b=2,tier notin (x,y),zone in (eu),live,!dead"


async def test_an_event_has_all_that_the_strict_api_wants(api: FakeApi, cluster: KubeCluster) -> None:
    api.answer("POST", EVENTS, good({}))
    await cluster.post_event(msgspec.structs.replace(WEB_EVENT, note="é" * 600), timeout_s=5)
    body = json.loads(api.seen[0].body)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", body.pop("eventTime"))
    assert len(body["note"].encode()) <= 1024
    assert body.pop("note").endswith("é...")
    assert body == {
        "metadata": {"name": "web-1.started", "namespace": "shop"},
        "reportingController": "rollback-watchdog",
        "reportingInstance": REPLICA,
        "action": "Rollback",
        "reason": "RollbackStarted",
        "type": "Normal",
        "regarding": {"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "shop", "name": "web", "uid": "1"},
    }


async def test_an_event_that_is_there_already_is_no_error(api: FakeApi, cluster: KubeCluster) -> None:
    api.answer("POST", EVENTS, status(409, "AlreadyExists"))
    await cluster.post_event(WEB_EVENT, timeout_s=5)
    assert len(api.seen) == 1


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        pytest.param(status(400, "BadRequest"), Rejected, "BadRequest", id="400"),
        pytest.param(status(403, "Forbidden"), Denied, "Forbidden", id="403"),
        pytest.param(status(404, "NotFound"), NotFound, "NotFound", id="404"),
        pytest.param(status(409, "Conflict"), Conflict, "Conflict", id="409 stale"),
        pytest.param(status(409, "AlreadyExists"), AlreadyExists, "AlreadyExists", id="409 there"),
        pytest.param(status(410, "Expired"), Expired, "Expired", id="410"),
        pytest.param(status(413, "RequestEntityTooLarge"), Rejected, "RequestEntityTooLarge", id="413"),
        pytest.param(status(422, "Invalid"), PreconditionFailed, "Invalid", id="422 test"),
        pytest.param(
            status(422, "Invalid", details=CAUSES),
            Rejected,
            "Invalid: spec.replicas (FieldValueInvalid)",
            id="422 validation",
        ),
        pytest.param(status(429, "TooManyRequests"), Throttled, "TooManyRequests", id="429"),
        pytest.param(status(500, "InternalError"), ServerError, "InternalError", id="500"),
        pytest.param(status(504, "Timeout"), Unanswered, "Timeout", id="504"),
        pytest.param(raw(b"upstream connect error", code=503), Unanswered, "HTTP 503", id="503 plain text"),
        pytest.param(raw(b"<html>", code=502), Unanswered, "HTTP 502", id="502 HTML"),
        pytest.param(raw(b"[1, 2]", code=403), Denied, "HTTP 403", id="403 other JSON"),
        pytest.param(raw(b"", code=302, headers={"Location": "/elsewhere"}), Rejected, "HTTP 302", id="302"),
        pytest.param(raw(b"{}"), Unanswered, "malformed answer", id="another object"),
        pytest.param(raw(b'{"metadata": {'), Unanswered, "malformed answer", id="half an object"),
        pytest.param(cut, Unanswered, "", id="cut"),
        pytest.param(no_bytes, Unanswered, "", id="no bytes"),
    ],
)
async def test_every_failure_of_a_write_has_its_name_and_is_asked_once(
    api: FakeApi, cluster: KubeCluster, answer: Answer, kind: type[ClusterError], reason: str
) -> None:
    # On a connection that has been used before, a library would be tempted to ask again.
    api.answer("GET", WEB, good(deployment()))
    await read(cluster)
    api.answer("PATCH", WEB, answer)
    with pytest.raises(ClusterError) as caught:
        await patch(cluster)
    assert type(caught.value) is kind
    assert caught.value.operation == "patch deployments shop/web"
    assert caught.value.reason.startswith(reason)
    assert caught.value.reason, "an error without a reason says nothing"
    assert [(seen.method, seen.path) for seen in api.seen] == [("GET", WEB), ("PATCH", WEB)]


async def test_a_422_that_is_no_answer_to_a_json_patch_is_no_failed_precondition(
    api: FakeApi, cluster: KubeCluster
) -> None:
    api.answer("POST", EVENTS, status(422, "Invalid"))
    with pytest.raises(Rejected):
        await cluster.post_event(WEB_EVENT, timeout_s=5)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("", 1.0), ("soon", 1.0), ("²", 1.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 1.0)],
)
async def test_a_429_says_when_to_come_back(api: FakeApi, cluster: KubeCluster, header: str, seconds: float) -> None:
    api.answer("PATCH", WEB, status(429, "TooManyRequests", headers={"Retry-After": header} if header else {}))
    with pytest.raises(Throttled) as caught:
        await patch(cluster)
    assert caught.value.retry_after_s == seconds


async def test_a_connection_that_nobody_takes_is_no_answer(tmp_path: Path) -> None:
    kubeconfig = write_kubeconfig(tmp_path, "http://127.0.0.1:9")
    async with connect(kubeconfig=str(kubeconfig)) as transport:
        with pytest.raises(Unanswered, match=r"^get x: .*127\.0\.0\.1"):
            await transport.request("GET", "/x", operation="get x", timeout_s=5)


@pytest.mark.parametrize("method", ["GET", "PATCH"])
async def test_an_answer_that_does_not_come_is_waited_for_until_the_deadline(
    api: FakeApi, cluster: KubeCluster, method: str
) -> None:
    api.answer(method, WEB, hang)
    began = asyncio.get_running_loop().time()
    with pytest.raises(Unanswered, match=r"no answer within 0\.2 s$"):
        await (read(cluster, timeout_s=0.2) if method == "GET" else patch(cluster, timeout_s=0.2))
    assert 0.2 <= asyncio.get_running_loop().time() - began < 2
    assert len(api.seen) == 1


# -- reads are repeated ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(status(503, "ServiceUnavailable"), id="503"),
        pytest.param(status(429, "TooManyRequests"), id="429"),
        pytest.param(cut, id="cut"),
        pytest.param(no_bytes, id="no bytes"),
    ],
)
async def test_a_read_without_an_answer_is_repeated_twice(api: FakeApi, cluster: KubeCluster, failure: Answer) -> None:
    api.answer("GET", WEB, failure, failure, good(deployment()))
    assert (await read(cluster)).ref == REF
    assert len(api.seen) == 3


async def test_a_read_is_given_up_after_the_third_attempt_with_its_error(api: FakeApi, cluster: KubeCluster) -> None:
    api.answer("GET", WEB, status(503, "ServiceUnavailable"), status(500, "InternalError"), status(429, "Slow"))
    with pytest.raises(Throttled, match="Slow"):
        await read(cluster)
    assert len(api.seen) == 3


@pytest.mark.parametrize("code", [400, 403, 404, 410])
async def test_a_read_that_was_refused_is_not_repeated(api: FakeApi, cluster: KubeCluster, code: int) -> None:
    api.answer("GET", WEB, status(code, "No"))
    with pytest.raises(ClusterError):
        await read(cluster)
    assert len(api.seen) == 1


async def test_all_attempts_of_a_read_share_one_deadline(api: FakeApi, cluster: KubeCluster) -> None:
    api.answer("GET", WEB, no_bytes, no_bytes, hang)
    began = asyncio.get_running_loop().time()
    with pytest.raises(Unanswered, match="no answer within 1 s"):
        await read(cluster, timeout_s=1)
    assert asyncio.get_running_loop().time() - began < 1.5


async def test_a_list_is_read_page_by_page(api: FakeApi, cluster: KubeCluster) -> None:
    one, two, three = history("v1", "v2", "v3").replicasets
    api.answer("GET", SETS, page(one, more="token-1"), page(two, more="token-2"), page(three))
    sets = await cluster.replicasets("shop", LabelSelector({"app": "web"}), timeout_s=5)
    assert [item.revision for item in sets] == [1, 2, 3]
    assert [seen.query for seen in api.seen] == [
        {"labelSelector": "app=web", "limit": "500"},
        {"labelSelector": "app=web", "limit": "500", "continue": "token-1"},
        {"labelSelector": "app=web", "limit": "500", "continue": "token-2"},
    ]


# -- the token ---------------------------------------------------------------------------------------------------------


def authorised(token: str) -> Answer:
    """Let only this token in."""
    accept, refuse = good(deployment()), status(401, "Unauthorized")

    async def give(request: web.Request) -> web.StreamResponse:
        known = request.headers.get("Authorization") == f"Bearer {token}"
        return await (accept if known else refuse)(request)

    return give


@pytest.mark.parametrize("method", ["GET", "PATCH"])
async def test_a_token_that_was_rotated_a_moment_ago_is_read_again(
    api: FakeApi, cluster: KubeCluster, tmp_path: Path, method: str
) -> None:
    api.answer(method, WEB, authorised("second-token"))
    (tmp_path / "token").write_text("second-token")
    assert (await (read(cluster) if method == "GET" else patch(cluster))).ref == REF
    assert [seen.headers["Authorization"] for seen in api.seen] == ["Bearer first-token", "Bearer second-token"]
    await read(cluster) if method == "GET" else await patch(cluster)
    assert len(api.seen) == 3, "the new token holds from now on"


async def test_a_token_that_is_refused_twice_is_denied(api: FakeApi, cluster: KubeCluster) -> None:
    api.answer("GET", WEB, status(401, "Unauthorized"))
    with pytest.raises(Denied, match="Unauthorized") as caught:
        await read(cluster)
    assert len(api.seen) == 2
    assert caught.value.may_pass, "a token is rotated from time to time"


async def test_a_token_that_cannot_be_read_again_is_denied(api: FakeApi, cluster: KubeCluster, tmp_path: Path) -> None:
    api.answer("GET", WEB, status(401, "Unauthorized"))
    (tmp_path / "token").unlink()
    with pytest.raises(Denied, match="no fresh token"):
        await read(cluster)


async def test_a_long_refusal_is_read_to_its_end(api: FakeApi, cluster: KubeCluster) -> None:
    body = {"kind": "Status", "reason": "Invalid", "message": "x" * 300_000, "details": CAUSES}
    api.answer("PATCH", WEB, raw(json.dumps(body).encode(), code=422))
    with pytest.raises(Rejected, match=r"spec\.replicas"):
        await patch(cluster)


async def test_a_token_file_may_end_with_a_newline(api: FakeApi, kubeconfig: Path, tmp_path: Path) -> None:
    # As an editor or `echo` writes it; kubectl takes it.
    api.answer("GET", WEB, authorised("first-token"))
    (tmp_path / "token").write_text("first-token\n")
    async with connect(kubeconfig=str(kubeconfig)) as transport:
        answer = await transport.request("GET", WEB, operation="get deployments shop/web", timeout_s=5)
    assert json.loads(answer)["metadata"]["name"] == "web"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"contexts": []}', '{"current-context": "gone", "contexts": [], "clusters": []}']
)
async def test_a_kubeconfig_that_cannot_be_used_is_an_error_with_a_cure(tmp_path: Path, text: str) -> None:
    (tmp_path / "kubeconfig").write_text(text)
    with pytest.raises(ConfigError, match=r"kubeconfig .*/kubeconfig cannot be used .*--kubeconfig and --context"):
        async with connect(kubeconfig=str(tmp_path / "kubeconfig")):
            raise AssertionError


async def test_an_unknown_context_is_an_error_with_a_cure(kubeconfig: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.*--kubeconfig and --context"):
        async with connect(kubeconfig=str(kubeconfig), context="nowhere"):
            raise AssertionError


# -- what is never told ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("details", [{}, CAUSES], ids=["without causes", "with causes"])
async def test_the_message_of_the_api_server_is_in_no_error_and_no_log(
    api: FakeApi, cluster: KubeCluster, caplog: pytest.LogCaptureFixture, details: Json
) -> None:
    caplog.set_level(logging.DEBUG)
    for code in (400, 401, 403, 404, 409, 410, 422, 429, 500, 503):
        api.answer("PATCH", WEB, status(code, "Because", message=LEAK, details=details))
        with pytest.raises(ClusterError, match="Because") as caught:
            await patch(cluster)
        told = [caplog.text]
        error: BaseException | None = caught.value
        while error:
            told += [str(error), repr(error), repr(vars(error))]
            error = error.__cause__ or error.__context__
        assert SECRET not in "".join(told)
        assert "PASSWORD" not in "".join(told)


async def test_a_secret_in_an_answer_that_cannot_be_read_is_in_no_error(api: FakeApi, cluster: KubeCluster) -> None:
    api.answer("GET", WEB, raw(json.dumps({"metadata": {"name": [SECRET]}, "spec": SECRET}).encode()))
    with pytest.raises(Unanswered) as caught:
        await read(cluster)
    assert SECRET not in f"{caught.value} {caught.value.__cause__}"


# -- reviews -----------------------------------------------------------------------------------------------------------


async def test_a_right_is_asked_for_in_the_words_of_the_api(api: FakeApi, transport: Transport) -> None:
    api.answer("POST", MINE, good({"status": {"allowed": True}}))
    right = Right(verb="patch", resource="deployments", group="apps", namespace="shop")
    assert await Reviews(transport).may_i(right, timeout_s=5)
    assert json.loads(api.seen[0].body) == {
        "spec": {
            "resourceAttributes": {
                "verb": "patch",
                "resource": "deployments",
                "group": "apps",
                "namespace": "shop",
                "name": "",
            }
        }
    }


@pytest.mark.parametrize("answer", [{"allowed": False}, {}, {"allowed": False, "reason": "RBAC: no"}])
async def test_a_right_that_is_not_granted_is_none(api: FakeApi, transport: Transport, answer: Json) -> None:
    api.answer("POST", MINE, good({"status": answer}))
    assert not await Reviews(transport).may_i(Right(verb="get", resource="pods"), timeout_s=5)


@pytest.mark.parametrize(
    ("answer", "known"),
    [
        ({"authenticated": True, "audiences": ["rollback-watchdog"], "user": {"username": "jane"}}, True),
        ({"authenticated": True, "audiences": ["another"], "user": {"username": "jane"}}, False),
        ({"authenticated": True, "user": {"username": "jane"}}, False),
        ({"authenticated": False, "audiences": ["rollback-watchdog"], "user": {"username": "jane"}}, False),
        ({"authenticated": True, "audiences": ["rollback-watchdog"], "error": "no", "user": {}}, False),
        ({"error": "invalid bearer token"}, False),
    ],
)
async def test_only_a_token_for_our_own_audience_tells_whose_it_is(
    api: FakeApi, transport: Transport, answer: Json, *, known: bool
) -> None:
    api.answer("POST", "/apis/authentication.k8s.io/v1/tokenreviews", good({"status": answer}))
    user = await Reviews(transport).whose("a-token", audience="rollback-watchdog", timeout_s=5)
    assert (user.username if user else None) == ("jane" if known else None)


async def test_a_token_in_a_review_that_cannot_be_read_is_in_no_error(api: FakeApi, transport: Transport) -> None:
    echo = {"spec": {"token": SECRET}, "status": {"audiences": SECRET}}
    api.answer("POST", "/apis/authentication.k8s.io/v1/tokenreviews", good(echo))
    with pytest.raises(Unanswered) as caught:
        await Reviews(transport).whose(SECRET, audience="rollback-watchdog", timeout_s=5)
    assert caught.value.__cause__ is None
    assert SECRET not in str(caught.value)


# -- who refused -------------------------------------------------------------------------------------------------------

OBJECT = '{"kind":"Deployment","spec":{"env":[{"name":"PASSWORD","value":"hunter2"}]}}'
ABOUT = 'deployments.apps "web" is forbidden: '
HOOK = 'admission webhook "images.example.test"'
POLICY = "ValidatingAdmissionPolicy 'tickets'"


@pytest.mark.parametrize("code", [400, 403, 404, 409, 410, 422, 429, 500, 503])
@pytest.mark.parametrize(
    ("message", "refuser", "sentence"),
    [
        (f"{HOOK} denied the request: v1 has a hole", HOOK, "v1 has a hole"),
        (f"{HOOK} denied the request without explanation", HOOK, ""),
        (f"{ABOUT}{POLICY} with binding 'all' denied request: a ticket", POLICY, "a ticket"),
        (f"{ABOUT}{POLICY} denied request: a ticket", POLICY, "a ticket"),
        (
            f"{ABOUT}exceeded quota: small, requested: pods=1, used: pods=3, limited: pods=3",
            "quota small",
            "exceeded quota: small, requested: pods=1, used: pods=3, limited: pods=3",
        ),
        (
            'Internal error occurred: failed calling webhook "a.test": failed to call webhook: Post "https://a": EOF',
            'webhook "a.test"',
            'failed to call webhook: Post "https://a": EOF',
        ),
    ],
)
async def test_a_refusal_keeps_the_refusers_name_and_sentence_with_any_status(
    api: FakeApi, cluster: KubeCluster, code: int, message: str, refuser: str, sentence: str
) -> None:
    body = {"kind": "Status", "reason": "Anything", "message": message, "details": CAUSES}
    api.answer("PATCH", WEB, raw(json.dumps(body).encode(), code=code))
    with pytest.raises(NotAdmitted) as caught:
        await patch(cluster)
    found = caught.value
    assert (found.code, found.refuser, found.sentence) == (code, refuser, sentence)
    assert found.may_pass is (code in (409, 422, 429, 500, 503))
    assert str(found).startswith(f"patch deployments shop/web: refused by {refuser}")


@pytest.mark.parametrize(
    "message",
    [
        f"Deployment in version v1 cannot be handled as a Deployment: strict decoding error: {OBJECT}",
        f'Deployment.apps "web" is invalid: spec.template: Invalid value: {OBJECT}',
        f"the object {OBJECT} says: {HOOK} denied the request: hunter2",
        f"{ABOUT}because of {OBJECT}: exceeded quota: hunter2, requested: hunter2",
        f'admission webhook "{OBJECT}" denied the request: hunter2',
        'User "x" hunter2',
    ],
)
@pytest.mark.parametrize("code", [400, 403, 422, 500])
async def test_a_message_that_does_not_begin_as_a_refusal_is_never_taken_over(
    api: FakeApi, cluster: KubeCluster, code: int, message: str
) -> None:
    body = {"kind": "Status", "reason": "Invalid", "message": message}
    api.answer("PATCH", WEB, raw(json.dumps(body).encode(), code=code))
    with pytest.raises(ClusterError) as caught:
        await patch(cluster)
    assert not isinstance(caught.value, NotAdmitted)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("told", [OBJECT, f"map[env:{OBJECT}]", f"&v1.Deployment{OBJECT}", json.dumps(OBJECT)])
async def test_the_object_in_a_refusers_sentence_is_cut_off(api: FakeApi, cluster: KubeCluster, told: str) -> None:
    body = {"kind": "Status", "reason": "Forbidden", "message": f"{HOOK} denied the request: not this: {told}"}
    api.answer("PATCH", WEB, raw(json.dumps(body).encode(), code=403))
    with pytest.raises(NotAdmitted) as caught:
        await patch(cluster)
    assert caught.value.sentence.startswith("not this:")
    assert caught.value.sentence.endswith("…")
    assert "hunter2" not in str(caught.value)


async def test_a_refusers_sentence_is_one_short_line_that_can_be_printed(api: FakeApi, cluster: KubeCluster) -> None:
    message = f"{HOOK} denied the request: one\ntwo\x1b[31m\u202e three {'word ' * 100_000}"
    body = {"kind": "Status", "reason": "Forbidden", "message": message}
    api.answer("PATCH", WEB, raw(json.dumps(body).encode(), code=403))
    with pytest.raises(NotAdmitted) as caught:
        await patch(cluster)
    assert caught.value.sentence.startswith("one two [31m three word")
    assert len(caught.value.sentence) <= 200
    assert caught.value.sentence.isprintable()


async def test_a_missing_right_is_named(api: FakeApi, cluster: KubeCluster) -> None:
    right = 'User "jane" cannot patch resource "deployments" in API group "apps" in the namespace "shop"'
    body = {"kind": "Status", "reason": "Forbidden", "message": f"{ABOUT}{right}: {OBJECT}"}
    api.answer("PATCH", WEB, raw(json.dumps(body).encode(), code=403))
    with pytest.raises(Denied) as caught:
        await patch(cluster)
    assert caught.value.reason == f"Forbidden: {right}"


async def test_a_webhook_that_asks_to_come_back_later_is_understood(api: FakeApi, cluster: KubeCluster) -> None:
    body = {"kind": "Status", "reason": "TooManyRequests", "message": f"{HOOK} denied the request: busy"}
    api.answer("PATCH", WEB, raw(json.dumps(body).encode(), code=429, headers={"Retry-After": "30"}))
    with pytest.raises(NotAdmitted) as caught:
        await patch(cluster)
    assert caught.value.retry_after_s == 30
