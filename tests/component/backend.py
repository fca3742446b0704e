"""What stands around the HTTP server in its tests: an engine that does as told, an API server that knows people."""

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
from aiohttp import web

from tests.component.fake_api import FakeApi, good
from tests.unit.builders import NOW, UID, Json, hash_of
from watchdog.config import Server
from watchdog.decide.evaluations import BatchSide, Posted, Taken
from watchdog.decide.plan import Request
from watchdog.decide.record import Answer, Record, State
from watchdog.errors import NotFound
from watchdog.judge.blocks import Track
from watchdog.kube import Reviews
from watchdog.kube.transport import Transport
from watchdog.model import Action, Alert, IncidentId, Mode, Outcome, Result, Revision, Rollout, Topology, Undo
from watchdog.objects import WorkloadRef, is_name
from watchdog.web.api import Parse
from watchdog.web.server import ListenPorts, serve

TOKENS = "/apis/authentication.k8s.io/v1/tokenreviews"
RIGHTS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
AUDIENCE = "rollback-watchdog"
JANE = "jane-token"


def record(namespace: str, name: str, *, state: State = State.ASKING, age_s: int = 0) -> Record:
    """Give a record of revision 2 of a workload."""
    rollout = Rollout(WorkloadRef(namespace, name), UID, 2, hash_of("v2"))
    return Record(
        id=rollout.incident,
        rollout=rollout,
        policy="all",
        policy_digest="1234",
        topology=Topology.ROLLING,
        mode=Mode.APPROVE,
        action=Action.UNDO,
        started=NOW - dt.timedelta(seconds=age_s),
        state=state,
    )


def rolled_back(*, elapsed_s: float | None = 4.2) -> Result:
    """Give the result of an undo from revision 2 to 1."""
    live, target = (Revision(n, hash_of(f"v{n}"), f"web-{n}", {"web": f"web:v{n}"}) for n in (2, 1))
    rollout = Rollout(WorkloadRef("shop", "web"), UID, 2, live.hash)
    secret = msgspec.Raw(b'{"secret": "hunter2"}')
    plan = Undo(
        rollout=rollout, live=live, target=target, template=secret, patch=b"patch", mark="mark", changes=("spec.image",)
    )
    return Result(outcome=Outcome.ROLLED_BACK, detail="rolled back 2 → 1", plan=plan, revision=3, elapsed_s=elapsed_s)


class FakeBackend:
    """Implements `watchdog.web.backend.Backend`, and remembers what it was asked.

    Attributes:
        calls: workload, request, dry run and key of each rollback.
        result: what a rollback gives or raises.
        during: what is waited for meanwhile, and while all records are read.
    """

    def __init__(self) -> None:
        self.is_alive = self.is_ready = self.is_accepting = self.has_room = True
        self.taken: list[Alert] = []
        self.calls: list[tuple[WorkloadRef, Request, bool, str]] = []
        self.result: Result | Exception = rolled_back()
        self.during: Callable[[], Awaitable[object]] | None = None
        self.kept: list[Record] = []
        self.watched: list[Record] = []
        self.answers: list[Answer] = []
        self.posted: list[tuple[WorkloadRef, Posted]] = []
        self.refusal: Exception | None = None
        self.resyncs = 0

    def alive(self) -> bool:
        """As told."""
        return self.is_alive

    def ready(self) -> bool:
        """As told."""
        return self.is_ready

    def accepting(self) -> bool:
        """As told."""
        return self.is_accepting

    def take(self, alerts: Sequence[Alert]) -> bool:
        """Keep them, if there is room."""
        self.taken += alerts if self.has_room else ()
        return self.has_room

    def resync(self) -> None:
        """Count it."""
        self.resyncs += 1

    async def rollback(self, ref: WorkloadRef, request: Request, *, dry_run: bool, key: str) -> Result:
        """As told."""
        self.calls.append((ref, request, dry_run, key))
        if self.during:
            await self.during()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    async def evaluated(self, ref: WorkloadRef, posted: Posted) -> Taken:
        """Count them for the candidate of one rollout."""
        if self.refusal:
            raise self.refusal
        self.posted.append((ref, posted))
        side = BatchSide(IncidentId("web-2-12345678"), Track.CANDIDATE)
        return Taken(hash=hash_of("v2"), counted=True, rollouts=(side,), detail="candidate of web-2-12345678")

    async def records(self) -> tuple[Record, ...]:
        """All that are kept."""
        if self.during:
            await self.during()
        if self.refusal:
            raise self.refusal
        return tuple(self.kept)

    async def record(self, incident: IncidentId) -> Record | None:
        """One of them; what is no name must not come so far, since it may come into a URL."""
        assert is_name(incident), incident
        return next((kept for kept in self.kept if kept.id == incident), None)

    def rollouts(self) -> tuple[Record, ...]:
        """As told."""
        return tuple(self.watched)

    async def answer(self, incident: IncidentId, answer: Answer) -> Record:
        """Keep it."""
        if self.refusal:
            raise self.refusal
        found = await self.record(incident)
        if not found:
            raise NotFound(f"get {incident}", "NotFound")
        self.answers.append(answer)
        return msgspec.structs.replace(found, people=(answer,))


def know(api: FakeApi, *allowed: str, audiences: Sequence[str] = (AUDIENCE,), error: str = "") -> None:
    """Let the API server know Jane's token for these audiences, and what she may.

    Args:
        api: the server.
        allowed: such as ``patch shop/web``, or ``get shop/`` for every Deployment of a namespace.
        audiences: whom her token is for.
        error: what the server says is wrong with it.
    """

    async def whose(request: web.Request) -> web.StreamResponse:
        token = json.loads(await request.read())["spec"]["token"]
        user = {"username": "jane", "uid": "7", "groups": ["devs"], "extra": {"scopes": ["all"]}}
        known = {"authenticated": True, "user": user, "audiences": audiences, "error": error}
        return await good({"status": known if token == JANE else {"authenticated": False}})(request)

    async def may(request: web.Request) -> web.StreamResponse:
        spec = json.loads(await request.read())["spec"]
        right = spec["resourceAttributes"]
        assert (right["group"], right["resource"]) == ("apps", "deployments")
        assert (spec["user"], spec["uid"], spec["groups"], spec["extra"]) == (
            "jane",
            "7",
            ["devs"],
            {"scopes": ["all"]},
        )
        places = {f"{right['verb']} {right['namespace']}/{name}" for name in (right["name"], "")}
        return await good({"status": {"allowed": bool(places & set(allowed))}})(request)

    api.answer("POST", TOKENS, whose)
    api.answer("POST", RIGHTS, may)


def parse(body: bytes) -> tuple[Alert, ...]:
    """Read alerts in a form simpler than Alertmanager's."""
    return tuple(
        Alert(fingerprint=each, labels={}, starts_at=NOW, firing=True)
        for each in msgspec.json.decode(body, type=list[str])
    )


class Reply(msgspec.Struct, frozen=True):
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Json:
        """The object in it."""
        assert self.headers["Content-Type"].startswith("application/json"), self.body
        decoded: Json = json.loads(self.body)
        return decoded

    @property
    def error(self) -> Json:
        """The error in it, which has three fields and no more."""
        found: Json = self.json["error"]
        assert sorted(found) == ["code", "detail", "message"], found
        return found


class Served(msgspec.Struct):
    """A server under test, and a client of it."""

    ports: ListenPorts
    session: aiohttp.ClientSession
    scheme: str = "http"

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        data: object = None,
        port: int = 0,
        tls: object = True,
    ) -> Reply:
        """Ask once; `body` is sent as JSON, `data` as it is."""
        scheme = "http" if port else self.scheme
        async with self.session.request(
            method,
            f"{scheme}://127.0.0.1:{port or self.ports.api}{path}",
            json=body,
            data=data,
            headers={"Authorization": f"Bearer {token}"} if token else headers,
            ssl=tls,  # type: ignore[arg-type]
        ) as response:
            return Reply(response.status, response.headers, await response.read())


@asynccontextmanager
async def serving(
    backend: FakeBackend,
    transport: Transport,
    settings: Server,
    *,
    listen: str = "127.0.0.1:0",
    parse: Parse = parse,
) -> AsyncIterator[Served]:
    """Serve on ports that are free."""
    chosen = msgspec.structs.replace(settings, listen=listen, metrics_listen="127.0.0.1:0")
    async with (
        serve(
            chosen,
            backend,
            Reviews(transport),
            parse,
            lambda: (b"up 1\n", "text/plain; version=0.0.4"),
            request_s=5,
        ) as ports,
        aiohttp.ClientSession() as session,
    ):
        yield Served(ports, session, "https" if chosen.tls_cert_file else "http")


def token_file(directory: Path, name: str, *tokens: str) -> str:
    """Write tokens into a file, one on each line."""
    path = directory / name
    path.write_text("".join(f"{token}\n" for token in tokens))
    return str(path)


async def exchange(port: int, *parts: bytes) -> tuple[int, Json]:
    """Send bytes as they are, a second after each other, and read an answer until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await asyncio.sleep(1)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), json.loads(body)["error"]


def post(path: str, token: str, *headers: str) -> bytes:
    """Give the head of a request."""
    lines = (f"POST {path} HTTP/1.1", "Host: here", f"Authorization: Bearer {token}", *headers)
    return "\r\n".join((*lines, "", "")).encode()
