"""The HTTP server while somebody leans on it: too many connections, slow ones, and bytes that mean nothing."""

import asyncio
import json
import random
import resource
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from tests.component import test_web_auth
from tests.component.backend import FakeBackend, Served, post, record, serving, token_file
from tests.component.test_web import POSTED, ROLLBACK, A, P
from watchdog.alertmanager.payload import read_webhook
from watchdog.config import Server
from watchdog.kube.transport import Transport
from watchdog.web.server import most_connections

pytestmark = pytest.mark.looptime(noop_cycles=400)

certificates = test_web_auth.certificates
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
WITHIN_S = 15.0


@pytest.fixture
def few_descriptors() -> Iterator[int]:
    """Let this process open no more than 480 files, of which the API gets 120; gives that number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (480, hard))
    yield most_connections(4)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


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
async def served(
    few_descriptors: int, backend: FakeBackend, transport: Transport, settings: Server
) -> AsyncIterator[Served]:
    """Serve, with few descriptors."""
    async with serving(backend, transport, settings) as served:
        yield served


async def opened(port: int, count: int, sent: bytes = b"") -> list[Stream]:
    """Open so many connections and send the same on each."""
    found = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
    for _, writer in found:
        writer.write(sent)
    await asyncio.sleep(0.1)
    return found


async def closed(streams: list[Stream]) -> None:
    for _, writer in streams:
        writer.close()
    for _, writer in streams:
        with suppress(ConnectionError):
            await writer.wait_closed()


# -- too many ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /alerts HTTP/1.1\r\nHost:",
        b"GET /nothing HTTP/1.1\r\nHost: here\r\n\r\n",
    ],
    ids=["silent", "in the head", "kept alive"],
)
async def test_connections_that_are_in_no_request_make_room_for_new_ones(
    served: Served, few_descriptors: int, sent: bytes
) -> None:
    began = asyncio.get_running_loop().time()
    many = await opened(served.ports.api, few_descriptors + 20, sent)
    for _ in range(10):
        assert (await served.ask("POST", "/alerts", [], token=A)).status == 200
    with suppress(ConnectionError):
        await many[0][0].read()
    assert not many[-1][0].at_eof()
    assert asyncio.get_running_loop().time() - began < 5
    await closed(many)


async def test_where_all_connections_are_in_a_request_new_ones_are_told_503_and_our_own_calls_go_on(
    served: Served, few_descriptors: int, backend: FakeBackend, tmp_path: Path
) -> None:
    go_on, full = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        if len(backend.calls) == few_descriptors:
            full.set()
        await go_on.wait()

    backend.during = wait
    body = json.dumps(ROLLBACK).encode()
    many = await opened(served.ports.api, few_descriptors, post("/rollback", P, f"Content-Length: {len(body)}") + body)
    await full.wait()
    for _ in range(300):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.ports.api)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "unavailable"
        await closed([(reader, writer)])
    (tmp_path / "ours").write_text("can be opened")
    assert (await served.ask("GET", "/healthz", port=served.ports.metrics)).status == 200
    go_on.set()
    for reader, _ in many:
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    await closed(many)
    assert (await served.ask("POST", "/alerts", [], token=A)).status == 200


async def test_health_is_told_however_many_connections_are_open_on_its_port(served: Served) -> None:
    many = await opened(served.ports.metrics, 60)
    for path in ("/healthz", "/readyz", "/metrics"):
        assert (await served.ask("GET", path, port=served.ports.metrics)).status == 200
    await closed(many)


async def test_handshakes_that_never_end_make_room_for_clients(
    few_descriptors: int, certificates: Path, backend: FakeBackend, transport: Transport, settings: Server
) -> None:
    secured = test_web_auth.tls(certificates, alerts_token_files=settings.alerts_token_files)
    context: ssl.SSLContext = test_web_auth.client(certificates)
    async with serving(backend, transport, secured) as served:
        many = await opened(served.ports.api, few_descriptors + 20)
        for _ in range(5):
            assert (await served.ask("POST", "/alerts", [], token=A, tls=context)).status == 200
        await closed(many)


# -- slow --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        b"",
        post("/alerts", A, "Content-Length: 100"),
        post("/rollback", P, "Content-Length: 100"),
        post("/alerts", "wrong", "Content-Length: 100"),
        post("/alerts", A, "Transfer-Encoding: chunked") + b"64\r\n",
    ],
    ids=["head", "body of alerts", "body of a rollback", "body of nobody", "chunk"],
)
async def test_one_byte_a_second_is_closed_within_fifteen_seconds(served: Served, head: bytes) -> None:
    ((reader, writer),) = await opened(served.ports.api, 1, head)
    loop = asyncio.get_running_loop()
    began = loop.time()
    end = asyncio.create_task(reader.read())
    for byte in b"POST /alerts HTTP/1.1 and so on":
        if end.done():
            break
        with suppress(ConnectionError):
            writer.write(bytes((byte,)))
        await asyncio.sleep(1)
    with suppress(ConnectionError):
        await end
    assert loop.time() - began <= WITHIN_S
    await closed([(reader, writer)])


async def test_whoever_does_not_read_its_answers_is_cut_off(served: Served, backend: FakeBackend) -> None:
    long = msgspec.structs.replace(record("shop", "web"), detail="x" * (1 << 20))
    backend.kept = [long]
    asks = 20 * post("/incidents", P).replace(b"POST", b"GET", 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.ports.api, limit=1)
    writer.write(asks)
    await asyncio.sleep(WITHIN_S + 10)
    with suppress(ConnectionError):
        whole = await reader.read()
        assert whole.count(b"HTTP/1.1 200") < 20
    await closed([(reader, writer)])


# -- meaningless -------------------------------------------------------------------------------------------------------

ALERT = {
    "status": "firing",
    "labels": {"alertname": "Errors"},
    "startsAt": "2026-03-01T12:00:00Z",
    "fingerprint": "0" * 16,
}
WORDS = (
    *(b"\x00", b"\xff", b"\xc3(", b"\r\n", b"%00", b"%ff", b"/../", b" ", b"\\", b'""', b"true", b"null"),
    *(b"1e400", b"-1", b"NaN", b"9" * 400, b"[" * 50_000, b"{" * 100, b"\xed\xa0\x80", b'"\\ud800"'),
    *(b"0001-01-01T00:00:00Z", b"9999-12-31T23:59:59-23:59"),
)


def valid(draw: random.Random) -> bytes:
    """A request that is answered as asked."""
    path, body = draw.choice(
        [
            ("/alerts", {"alerts": [ALERT]}),
            ("/rollback", {**ROLLBACK, "to_revision": 1, "idempotency_key": "k"}),
            ("/evaluations", POSTED),
            ("/incidents/web-2-12345678/approve", {}),
        ]
    )
    if draw.random() < 0.2:
        return post("/incidents", P, "Connection: close").replace(b"POST", b"GET", 1)
    data = json.dumps(body).encode()
    token = A if path == "/alerts" else P
    return post(path, token, "Connection: close", f"Content-Length: {len(data)}") + data


def mutated(draw: random.Random) -> bytes:
    """A request with bytes taken out, put in, or exchanged; or no request at all."""
    if draw.random() < 0.1:
        return draw.randbytes(draw.randrange(1, 200))
    sent = valid(draw)
    head, _, body = sent.partition(b"\r\n\r\n")
    in_body = draw.random() < 0.6 and body
    part = body if in_body else head
    for _ in range(draw.randrange(1, 4)):
        at = draw.randrange(len(part) + 1)
        until = at + draw.choice([0, 1, 1, draw.randrange(20)])
        part = part[:at] + draw.choice([*WORDS, b"", draw.randbytes(2)]) + part[until:]
    if not in_body:
        return part + b"\r\n\r\n" + body
    length = b"Content-Length: %d" % len(body)
    return head.replace(length, b"Content-Length: %d" % len(part)) + b"\r\n\r\n" + part


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_is_sent_is_answered_2xx_4xx_or_503_and_the_server_lives(
    few_descriptors: int, backend: FakeBackend, transport: Transport, settings: Server, seed: int
) -> None:
    draw = random.Random(seed)
    backend.kept = [record("shop", "web")]
    asked = 0
    async with serving(backend, transport, settings, parse=read_webhook) as served:
        for _ in range(250):
            sent = mutated(draw)
            reader, writer = await asyncio.open_connection("127.0.0.1", served.ports.api)
            answer = b""
            with suppress(ConnectionError):
                writer.write(sent)
                answer = await reader.read()
            if answer:
                status = int(answer.split()[1])
                assert status in (100, 200, 202, 503) or 400 <= status < 500, (sent[:500], answer[:500])
                asked += 1
            await closed([(reader, writer)])
        assert asked > 100
        assert (await served.ask("POST", "/alerts", {"alerts": [ALERT]}, token=A)).status == 200
