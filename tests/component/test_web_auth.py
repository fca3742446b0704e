"""Who is let in: tokens in files, tokens that the API server knows, client certificates, and nobody else."""

import asyncio
import json
import logging
import os
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from tests.component.backend import (
    JANE,
    RIGHTS,
    TOKENS,
    FakeBackend,
    exchange,
    know,
    post,
    record,
    serving,
    token_file,
)
from tests.component.fake_api import FakeApi, hang, raw, status
from watchdog.config import Server
from watchdog.errors import ConfigError
from watchdog.kube.transport import Transport

pytestmark = pytest.mark.looptime(noop_cycles=400)

ROLLBACK = {"namespace": "shop", "deployment": "web", "reason": "checkout fails"}
EVERY_ROUTE = [
    ("POST", "/alerts"),
    ("POST", "/rollback"),
    ("POST", "/evaluations"),
    ("POST", "/incidents/web-2-12345678/approve"),
    ("POST", "/incidents/web-2-12345678/dismiss"),
    ("GET", "/incidents"),
    ("GET", "/incidents/web-2-12345678"),
    ("GET", "/rollouts"),
]


@pytest.fixture
def backend() -> FakeBackend:
    """Give an engine that keeps one incident in each of two namespaces."""
    backend = FakeBackend()
    backend.kept = backend.watched = [record("shop", "web"), record("bank", "vault")]
    return backend


def incident(backend: FakeBackend, name: str) -> str:
    return next(kept.id for kept in backend.kept if kept.workload.name == name)


# -- nobody ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), EVERY_ROUTE)
@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "Bearer wrong", "Bearer wr\xf6ng"]
)
async def test_without_any_credential_configured_nobody_is_let_in(
    api: FakeApi, backend: FakeBackend, transport: Transport, method: str, path: str, header: str | None
) -> None:
    know(api)
    async with serving(backend, transport, Server()) as served:
        headers = {"Authorization": header} if header is not None else {}
        reply = await served.ask(method, path, headers=headers)
    assert (reply.status, reply.error["code"]) == (401, "unauthorized")
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert (backend.taken, backend.calls, backend.answers) == ([], [], [])


@pytest.mark.parametrize("path", ["/alerts", "/rollback"])
async def test_a_body_is_not_waited_for_from_somebody_who_is_not_known(
    api: FakeApi, backend: FakeBackend, transport: Transport, path: str
) -> None:
    know(api)
    async with serving(backend, transport, Server()) as served:
        assert (await exchange(served.ports.api, post(path, "wrong", "Content-Length: 100")))[0] == 401


# -- tokens in files ---------------------------------------------------------------------------------------------------


async def test_each_of_two_tokens_opens_its_own_route_and_no_other(
    api: FakeApi, backend: FakeBackend, transport: Transport, tmp_path: Path
) -> None:
    know(api)
    settings = Server(
        alerts_token_files=(token_file(tmp_path, "a1", "old"), token_file(tmp_path, "a2", "new")),
        api_token_files=(token_file(tmp_path, "p", "people-old", "people-new"),),
    )
    async with serving(backend, transport, settings) as served:
        for token in ("old", "new"):
            assert (await served.ask("POST", "/alerts", [], token=token)).status == 200
            assert (await served.ask("GET", "/rollouts", token=token)).status == 401
        for token in ("people-old", "people-new"):
            assert (await served.ask("POST", "/alerts", [], token=token)).status == 401
            assert (await served.ask("GET", "/rollouts", token=token)).status == 200
        for header in ("Bearer ol", "Bearer oldd", "Bearer old new", "Bearer OLD", "Basic old", "old"):
            assert (await served.ask("POST", "/alerts", [], headers={"Authorization": header})).status == 401


async def test_a_rotated_token_holds_at_once_and_the_one_before_no_longer(
    backend: FakeBackend, transport: Transport, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Server(alerts_token_files=(token_file(tmp_path, "alerts", "first"),))
    async with serving(backend, transport, settings) as served:

        async def statuses() -> list[int]:
            return [(await served.ask("POST", "/alerts", [], token=token)).status for token in ("first", "other")]

        assert await statuses() == [200, 401]
        token_file(tmp_path, "alerts", "other")
        assert await statuses() == [401, 200]
        token_file(tmp_path, "alerts")
        assert await statuses() == [503, 503]
        (tmp_path / "alerts").unlink()
        assert await statuses() == [503, 503]
        token_file(tmp_path, "alerts", "first")
        assert await statuses() == [200, 401]
    assert "cannot be read" in caplog.text
    assert "other" not in caplog.text


@pytest.mark.parametrize("content", [None, " \n"])
async def test_a_token_file_that_holds_none_lets_nobody_in_and_stops_nothing(
    backend: FakeBackend, transport: Transport, tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "bad").write_text(content)
    settings = Server(alerts_token_files=(str(tmp_path / "bad"), token_file(tmp_path, "good", "token")))
    async with serving(backend, transport, settings) as served:
        assert (await served.ask("POST", "/alerts", [], token="token")).status == 200
        for header in ("Bearer", "Bearer ", "Bearer  "):
            assert (await served.ask("POST", "/alerts", [], headers={"Authorization": header})).status == 401


def unreadable(path: Path, why: str) -> None:
    """Make a token file that cannot be read, or that holds none."""
    match why:
        case "no rights":
            path.symlink_to("/proc/self/mem")  # whose first bytes not even root may read
        case "bad bytes":
            path.write_bytes(b"\xff\xfet\x00o\x00k\x00")
        case "a directory":
            path.mkdir()
        case "a pipe":
            os.mkfifo(path)
        case "a rotation that points nowhere":
            path.symlink_to(path.with_name("gone"))
        case "without end":
            path.symlink_to("/dev/zero")
        case "empty":
            path.touch()


UNREADABLE = (
    "no rights",
    "bad bytes",
    "a directory",
    "a pipe",
    "a rotation that points nowhere",
    "without end",
    "empty",
    "absent",
)


@pytest.mark.parametrize("why", UNREADABLE)
async def test_a_token_file_that_cannot_be_read_is_503_unless_the_token_stands_in_another_one(
    api: FakeApi, backend: FakeBackend, transport: Transport, tmp_path: Path, why: str
) -> None:
    know(api, "patch shop/web")
    unreadable(tmp_path / "bad", why)
    files = (str(tmp_path / "bad"), token_file(tmp_path, "good", "token"))
    settings = Server(alerts_token_files=files, api_token_files=files)
    async with serving(backend, transport, settings) as served:
        assert (await served.ask("POST", "/alerts", [], token="token")).status == 200
        assert (await served.ask("POST", "/rollback", ROLLBACK, token="token")).status == 200
        assert (await served.ask("POST", "/rollback", ROLLBACK, token=JANE)).status == 200
        for path in ("/alerts", "/rollback"):
            reply = await served.ask("POST", path, ROLLBACK, token="other")
            assert (reply.status, reply.error["code"], reply.headers["Connection"]) == (503, "unavailable", "close")
            assert (await served.ask("POST", path, ROLLBACK)).status == 401


# -- tokens that the API server knows ----------------------------------------------------------------------------------


async def test_who_may_patch_the_deployment_may_roll_it_back_and_is_named(
    api: FakeApi, backend: FakeBackend, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    know(api, "patch shop/web")
    async with serving(backend, transport, Server()) as served:
        assert (await served.ask("POST", "/rollback", ROLLBACK, token=JANE)).status == 200
    assert [request.cause.by for _, request, _, _ in backend.calls] == ["jane"]
    assert json.loads(api.asked("POST", TOKENS)[0].body)["spec"]["audiences"] == ["rollback-watchdog"]
    assert "rollback-asked by jane: allowed" in caplog.text
    assert JANE not in caplog.text


async def test_who_may_not_is_refused_alike_whether_or_not_the_deployment_exists(
    api: FakeApi, backend: FakeBackend, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    know(api, "get shop/web", "patch shop/other")
    async with serving(backend, transport, Server()) as served:
        reply = await served.ask("POST", "/rollback", ROLLBACK, token=JANE)
    assert (reply.status, reply.error["code"]) == (403, "forbidden")
    assert not backend.calls
    assert "rollback-asked by jane: forbidden" in caplog.text


@pytest.mark.parametrize("audiences", [(), ("https://kubernetes.default.svc",)])
async def test_a_token_for_somebody_else_is_not_taken(
    api: FakeApi, backend: FakeBackend, transport: Transport, audiences: tuple[str, ...]
) -> None:
    know(api, "patch shop/web", audiences=audiences)
    async with serving(backend, transport, Server()) as served:
        assert (await served.ask("POST", "/rollback", ROLLBACK, token=JANE)).status == 401
    assert not api.asked("POST", RIGHTS)


async def test_a_token_that_could_not_be_checked_is_not_taken(
    api: FakeApi, backend: FakeBackend, transport: Transport
) -> None:
    know(api, "patch shop/web", error="webhook failed")
    async with serving(backend, transport, Server()) as served:
        assert (await served.ask("POST", "/rollback", ROLLBACK, token=JANE)).status == 401


@pytest.mark.parametrize("token", ["a b", "a\tb", "{}", "tök\xf6n", "=", "a=b"])
async def test_what_cannot_be_a_token_is_not_sent_to_the_api_server(
    api: FakeApi, backend: FakeBackend, transport: Transport, token: str
) -> None:
    know(api)
    async with serving(backend, transport, Server()) as served:
        assert (await served.ask("GET", "/rollouts", token=token)).status == 401
    assert not api.seen


async def test_a_revoked_right_bites_at_the_next_request(
    api: FakeApi, backend: FakeBackend, transport: Transport
) -> None:
    know(api, "patch shop/web")
    async with serving(backend, transport, Server()) as served:
        assert (await served.ask("POST", "/rollback", ROLLBACK, token=JANE)).status == 200
        know(api)
        assert (await served.ask("POST", "/rollback", ROLLBACK, token=JANE)).status == 403


@pytest.mark.parametrize("path", [TOKENS, RIGHTS])
@pytest.mark.parametrize(
    "broken",
    [hang, status(500, "InternalError"), status(403, "Forbidden"), status(404, "NotFound"), raw(b"{}")],
    ids=["hangs", "fails", "forbids", "knows no reviews", "talks nonsense"],
)
async def test_nobody_is_let_in_while_the_api_server_does_not_say_who_may(
    api: FakeApi, backend: FakeBackend, transport: Transport, path: str, broken: Callable[..., Awaitable[object]]
) -> None:
    know(api, "patch shop/web")
    api.answer("POST", path, broken)  # type: ignore[arg-type]
    async with serving(backend, transport, Server()) as served:
        reply = await served.ask("POST", "/rollback", ROLLBACK, token=JANE)
    assert (reply.status, reply.error["code"]) == (503, "unavailable")
    assert not backend.calls


async def test_a_flood_of_tokens_does_not_become_a_flood_at_the_api_server(
    api: FakeApi, backend: FakeBackend, transport: Transport
) -> None:
    api.answer("POST", TOKENS, hang)
    async with serving(backend, transport, Server()) as served:
        flood = await asyncio.gather(*(served.ask("GET", "/rollouts", token=f"t{n}") for n in range(40)))
    assert {reply.status for reply in flood} == {503}
    assert len(api.asked("POST", TOKENS)) == 8


async def test_lists_show_only_namespaces_whose_deployments_the_caller_may_get_and_ask_once_for_each(
    api: FakeApi, backend: FakeBackend, transport: Transport
) -> None:
    know(api, "get shop/")
    backend.kept = backend.watched = [*backend.kept, record("shop", "cart")]
    async with serving(backend, transport, Server()) as served:
        for path in ("incidents", "rollouts"):
            api.seen.clear()
            shown = (await served.ask("GET", f"/{path}", token=JANE)).json[path]
            assert sorted(each["deployment"] for each in shown) == ["cart", "web"]
            assert len(api.asked("POST", RIGHTS)) == 2


async def test_an_incident_that_may_not_be_seen_looks_like_one_that_is_not_there(
    api: FakeApi, backend: FakeBackend, transport: Transport
) -> None:
    know(api, "get shop/web", "patch bank/vault")
    async with serving(backend, transport, Server()) as served:
        assert (await served.ask("GET", f"/incidents/{incident(backend, 'web')}", token=JANE)).status == 200
        for method, end in (("GET", ""), ("POST", "/approve")):
            hidden = await served.ask(method, f"/incidents/{incident(backend, 'vault')}{end}", token=JANE)
            absent = await served.ask(method, f"/incidents/nobody-1-12345678{end}", token=JANE)
            assert (hidden.status, hidden.body) == (404, absent.body)


async def test_only_who_may_patch_the_deployment_posts_evaluations_of_it(
    api: FakeApi, backend: FakeBackend, transport: Transport
) -> None:
    body = {"namespace": "shop", "deployment": "web", "image": "web:v2", "bad": 2, "total": 10, "id": "7"}
    know(api, "get shop/web", "patch shop/cart")
    async with serving(backend, transport, Server()) as served:
        assert (await served.ask("POST", "/evaluations", body, token=JANE)).status == 403
        assert not backend.posted
        know(api, "patch shop/web")
        assert (await served.ask("POST", "/evaluations", body, token=JANE)).status == 200
    assert len(backend.posted) == 1


async def test_only_who_may_patch_the_deployment_answers_for_it(
    api: FakeApi, backend: FakeBackend, transport: Transport
) -> None:
    async with serving(backend, transport, Server()) as served:
        path = f"/incidents/{incident(backend, 'web')}/approve"
        know(api, "get shop/web")
        assert (await served.ask("POST", path, token=JANE)).status == 403
        know(api, "get shop/web", "patch shop/web")
        assert (await served.ask("POST", path, token=JANE)).status == 200
    assert [answer.by for answer in backend.answers] == ["jane"]


# -- TLS ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make two authorities, and a certificate by each for 127.0.0.1 and for a client."""
    directory = tmp_path_factory.mktemp("certificates")

    def openssl(arguments: str) -> None:
        subprocess.run(["openssl", *arguments.split()], cwd=directory, capture_output=True, check=True)

    for authority in ("ours", "theirs"):
        key = f"-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {authority}.key"
        usage = "-addext keyUsage=critical,keyCertSign"
        openssl(f"req -x509 {key} -subj /CN={authority} -days 2 -out {authority}.crt {usage}")
        for name in ("server", "client"):
            leaf = f"{authority}-{name}"
            (directory / f"{leaf}.ext").write_text(
                f"subjectAltName=IP:127.0.0.1\nextendedKeyUsage={name}Auth\nauthorityKeyIdentifier=keyid\n"
            )
            key = f"-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {leaf}.key"
            openssl(f"req {key} -subj /CN={name} -out {leaf}.csr")
            signing = f"-CA {authority}.crt -CAkey {authority}.key -CAcreateserial"
            openssl(f"x509 -req -in {leaf}.csr {signing} -days 2 -extfile {leaf}.ext -out {leaf}.crt")
    openssl("ec -in ours-server.key -aes256 -passout pass:secret -out locked.key")
    return directory


def client(certificates: Path, leaf: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificates / "ours.crt")
    if leaf:
        context.load_cert_chain(certificates / f"{leaf}.crt", certificates / f"{leaf}.key")
    return context


def tls(certificates: Path, **settings: object) -> Server:
    crt, key = (str(certificates / f"ours-server.{end}") for end in ("crt", "key"))
    return Server(**{"tls_cert_file": crt, "tls_key_file": key, **settings})  # type: ignore[arg-type]


async def test_a_client_certificate_opens_alerts_and_nothing_else(
    api: FakeApi, backend: FakeBackend, transport: Transport, certificates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    know(api)
    settings = tls(certificates, client_ca_file=str(certificates / "ours.crt"))
    async with serving(backend, transport, settings) as served:
        certified = client(certificates, "ours-client")
        assert (await served.ask("POST", "/alerts", ["a1"], tls=certified)).status == 200
        assert (await served.ask("POST", "/rollback", ROLLBACK, tls=certified)).status == 401
        assert (await served.ask("POST", "/alerts", ["a1"], tls=client(certificates))).status == 401
        for foreign in ("theirs-client", "ours-server"):
            with pytest.raises((aiohttp.ClientError, OSError)):
                await served.ask("POST", "/alerts", ["a1"], tls=client(certificates, foreign))
        assert (await served.ask("GET", "/healthz", port=served.ports.metrics)).status == 200
    assert "in the clear" not in caplog.text


async def test_a_client_certificate_is_nothing_where_none_is_asked_for(
    backend: FakeBackend, transport: Transport, certificates: Path, tmp_path: Path
) -> None:
    settings = tls(certificates, alerts_token_files=(token_file(tmp_path, "alerts", "token"),))
    async with serving(backend, transport, settings) as served:
        certified = client(certificates, "ours-client")
        assert (await served.ask("POST", "/alerts", ["a1"], tls=certified)).status == 401
        assert (await served.ask("POST", "/alerts", ["a1"], tls=certified, token="token")).status == 200


async def test_without_tls_one_warning_says_what_that_means(
    backend: FakeBackend, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(backend, transport, Server()):
        pass
    assert caplog.text.count("in the clear") == 1


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("tls_cert_file", "missing.crt"),
        ("tls_cert_file", "theirs-server.crt"),
        ("tls_key_file", "locked.key"),
        ("client_ca_file", "missing.crt"),
        ("client_ca_file", "ours-client.key"),
    ],
)
async def test_a_certificate_that_cannot_be_used_stops_the_start_and_is_named(
    backend: FakeBackend, transport: Transport, certificates: Path, setting: str, value: str
) -> None:
    settings = tls(certificates, **{setting: str(certificates / value)})
    named = setting.replace("key", "cert")
    with pytest.raises(ConfigError, match=rf"^server\.{named}: "):
        async with serving(backend, transport, settings):
            pass


async def test_client_certificates_without_tls_stop_the_start(
    backend: FakeBackend, transport: Transport, certificates: Path
) -> None:
    with pytest.raises(ConfigError, match=r"^server\.client_ca_file: "):
        async with serving(backend, transport, Server(client_ca_file=str(certificates / "ours.crt"))):
            pass
