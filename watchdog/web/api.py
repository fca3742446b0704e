"""The routes of the API, and who may use them.

`POST /alerts` answers 200 when every alert is held in memory, and 503 when it could not be: Alertmanager repeats that,
and neither a 4xx nor a 3xx. After 413 we ask every Alertmanager at once for what fires. `POST /rollback` answers

    200   rolled back and verified, or with `dry_run` that it could be; or `already`: what is live was put there by a
          rollback of the last hour, and nothing was changed
    202   the write was accepted and is not waited for
    409   everything else, with the same fields and an `error`: a guard refused, somebody else changed the workload, or
          the rollout was not complete in time. No 5xx, because a caller might repeat that by itself
    404   no such workload
    422   the idempotency key came before with another request
    503   the cluster cannot be reached

`POST /evaluations` answers 200 also where a batch does not count, and says why: it came before, or no rollout of that
version is under watch. 409 is for what a caller has to mend: the version is not live, or the policy takes none.

Denied and absent look the same wherever a name alone would tell that something exists.
"""

import asyncio
import datetime as dt
import logging
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from watchdog.decide.evaluations import Posted
from watchdog.decide.plan import Request
from watchdog.decide.record import Answer, Record
from watchdog.decoding import Malformed, from_json
from watchdog.model import Alert, Cause, IncidentId, Outcome
from watchdog.objects import WorkloadRef, is_name
from watchdog.web.answers import SCHEMA, HttpError, reply, result_fields, summary_fields
from watchdog.web.auth import Authentication, Caller
from watchdog.web.backend import Backend

Parse = Callable[[bytes], tuple[Alert, ...]]
"""Reads Alertmanager's webhook; raises ValueError."""

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

_LONGEST_BODY = 8 << 20
_BODY_S = 10.0
_READ_S = 30.0

_Revision = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class _Rollback(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /rollback`."""

    namespace: str
    deployment: str
    reason: Annotated[str, msgspec.Meta(pattern=r"\S", max_length=500)]
    to_revision: _Revision | None = None
    dry_run: bool = False
    expected_current_revision: _Revision | None = None
    idempotency_key: Annotated[str, msgspec.Meta(max_length=200)] = ""

    def __post_init__(self) -> None:
        _named(self)


class _Evaluations(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /evaluations`."""

    namespace: str
    deployment: str
    bad: Annotated[int, msgspec.Meta(ge=0)]
    total: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    id: Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,100}$")]
    image: Annotated[str, msgspec.Meta(max_length=1000)] = ""
    hash: Annotated[str, msgspec.Meta(max_length=63)] = ""

    def __post_init__(self) -> None:
        _named(self)
        if bool(self.image) == bool(self.hash):
            raise ValueError("write `image` or `hash`, one of the two: which version was evaluated")
        if self.bad > self.total:
            raise ValueError("`bad` is more than `total`: write how many of them failed, and how many there were")


def _named(body: "_Rollback | _Evaluations") -> None:
    for field in ("namespace", "deployment"):
        if not is_name(getattr(body, field)):
            raise ValueError(f"`{field}` is not a name that Kubernetes allows")


class Api:
    """The handlers."""

    def __init__(self, backend: Backend, gate: Authentication, parse: Parse) -> None:
        self._backend = backend
        self._gate = gate
        self._parse = parse

    def application(self) -> web.Application:
        """Give the application."""
        application = web.Application(client_max_size=_LONGEST_BODY, middlewares=[well_formed, self._ready])
        application.add_routes(
            [
                web.post("/alerts", self._alerts),
                web.post("/rollback", self._rollback),
                web.post("/evaluations", self._evaluations),
                web.post("/incidents/{id}/{answer:approve|dismiss}", self._answer),
                web.get("/incidents", self._incidents),
                web.get("/incidents/{id}", self._incident),
                web.get("/rollouts", self._rollouts),
            ]
        )
        return application

    @web.middleware
    async def _ready(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not self._backend.accepting():
            raise HttpError(503, "this replica takes no requests now")
        async with asyncio.timeout(_READ_S if request.method != "POST" else None):
            return await handler(request)

    async def _alerts(self, request: web.Request) -> web.Response:
        self._gate.admit_alerts(request)
        try:
            body = await _body(request)
        except web.HTTPRequestEntityTooLarge:
            self._backend.resync()  # Alertmanager does not repeat it, so we ask for what is in it
            raise
        try:
            alerts = self._parse(body)
        except ValueError as error:
            _log.warning("malformed alerts: %s", str(error)[:200], extra={"event": "alerts-malformed"})
            raise HttpError(400, "this is not what Alertmanager sends", str(error)) from error
        if not self._backend.take(alerts):
            raise HttpError(503, "too many alerts are waiting")
        _log.info("%d alerts taken", len(alerts), extra={"event": "alerts"})
        return reply({"accepted": len(alerts)})

    async def _rollback(self, request: web.Request) -> web.Response:
        caller = await self._gate.caller(request)
        asked = await _decoded(request, _Rollback, "the body is not a rollback")
        ref = WorkloadRef(asked.namespace, asked.deployment)
        await self._require(caller, ref, "rollback-asked")
        result = await self._backend.rollback(
            ref,
            Request(
                cause=Cause(by=caller.name, reason=asked.reason.strip()),
                to_revision=asked.to_revision,
                expected_revision=asked.expected_current_revision,
            ),
            dry_run=asked.dry_run,
            key=asked.idempotency_key,
        )
        fields = result_fields(result, ref, dry_run=asked.dry_run)
        if result.outcome is Outcome.ALREADY:
            return reply(fields)
        if result.outcome is Outcome.UNDER_WAY:
            return reply(fields, status=202)
        if result.outcome is not Outcome.ROLLED_BACK:
            guard = result.refused.guard if result.refused else None
            detail = guard.guard_class if guard else ""
            raise HttpError(409, result.detail, detail, code=guard or result.outcome, beside=fields)
        return reply(fields, status=200 if asked.dry_run or result.elapsed_s is not None else 202)

    async def _evaluations(self, request: web.Request) -> web.Response:
        caller = await self._gate.caller(request)
        told = await _decoded(request, _Evaluations, "these are no evaluations")
        ref = WorkloadRef(told.namespace, told.deployment)
        await self._require(caller, ref, "evaluations-posted")
        posted = Posted(id=told.id, total=told.total, bad=told.bad, hash=told.hash, image=told.image)
        taken = await self._backend.evaluated(ref, posted)
        where = {"namespace": ref.namespace, "deployment": ref.name}
        return reply({"schema": SCHEMA, **where, **msgspec.structs.asdict(taken)})

    async def _answer(self, request: web.Request) -> web.Response:
        caller = await self._gate.caller(request)
        record = await self._visible(request, caller)
        if body := await _body(request):
            _from_json(body, dict[str, object], "the body is no object")
        word = request.match_info["answer"]
        await self._require(caller, record.workload, word, incident=record.id)
        answer = Answer(answer=word, by=caller.name, at=dt.datetime.now(dt.UTC), via="http")
        return reply({"schema": SCHEMA, "incident": await self._backend.answer(record.id, answer)})

    async def _incident(self, request: web.Request) -> web.Response:
        record = await self._visible(request, await self._gate.caller(request))
        return reply({"schema": SCHEMA, "incident": record})

    async def _incidents(self, request: web.Request) -> web.Response:
        caller = await self._gate.caller(request)
        records = [record for record in await self._backend.records() if record.incident]
        return reply({"schema": SCHEMA, "incidents": await self._summaries(caller, records)})

    async def _rollouts(self, request: web.Request) -> web.Response:
        caller = await self._gate.caller(request)
        return reply({"schema": SCHEMA, "rollouts": await self._summaries(caller, self._backend.rollouts())})

    async def _summaries(self, caller: Caller, records: Sequence[Record]) -> list[dict[str, object]]:
        """The newest first, of the namespaces whose Deployments the caller may get."""
        namespaces = {record.workload.namespace for record in records}
        seen = {space for space in namespaces if await self._gate.may(caller, "get", namespace=space)}
        newest = sorted(records, key=lambda record: record.started, reverse=True)
        return [summary_fields(record) for record in newest if record.workload.namespace in seen]

    async def _visible(self, request: web.Request, caller: Caller) -> Record:
        """The record that the path names, if the caller may get its Deployment."""
        name = request.match_info["id"]
        record = await self._backend.record(IncidentId(name)) if is_name(name) else None
        if record:
            ref = record.workload
            if await self._gate.may(caller, "get", namespace=ref.namespace, name=ref.name):
                return record
        raise HttpError(404, "there is no such incident")

    async def _require(self, caller: Caller, ref: WorkloadRef, event: str, *, incident: str | None = None) -> None:
        """Go on only for somebody who could patch the Deployment anyway; either way it is logged."""
        allowed = await self._gate.may(caller, "patch", namespace=ref.namespace, name=ref.name)
        fields = {"event": event, "workload": str(ref), "incident": incident, "user": caller.name}
        _log.info("%s by %s: %s", event, caller.name, "allowed" if allowed else "forbidden", extra=fields)
        if not allowed:
            raise HttpError(403, f"you may not patch the Deployment {ref}")


@web.middleware
async def well_formed(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse a path, query or header that is not UTF-8, which nothing behind this would expect."""
    try:
        urllib.parse.unquote_to_bytes(request.raw_path).decode()
        for field in request.raw_headers:
            b": ".join(field).decode()
    except UnicodeError as error:
        raise HttpError(400, "path, query and headers must be UTF-8") from error
    return await handler(request)


async def _decoded(request: web.Request, form: type[_T], wrong: str) -> _T:
    """The body in a form, or 400 with these words and the field that is wrong."""
    return _from_json(await _body(request), form, wrong)


def _from_json(body: bytes, form: type[_T], wrong: str) -> _T:
    try:
        return from_json(body, form)
    except Malformed as error:
        raise HttpError(400, wrong, str(error)) from error


async def _body(request: web.Request) -> bytes:
    """The whole body. Raises `TimeoutError` where it trickles in, or a chunk is broken, which aiohttp does not tell."""
    try:
        async with asyncio.timeout(_BODY_S):
            return await request.read()
    except (web.RequestPayloadError, ConnectionError) as error:
        raise HttpError(400, "the body is cut off or malformed") from error
