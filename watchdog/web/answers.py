"""Every answer as JSON, and every error in one shape: ``{"error": {"code", "message", "detail"}}``.

Alertmanager writes what it is answered into its log, so errors are short and hold nothing of the request's body.
"""

import logging
from collections.abc import Mapping

import msgspec
from aiohttp import web

from watchdog.decide.record import Record
from watchdog.errors import (
    ClusterError,
    Conflict,
    KeyReused,
    NotAdmitted,
    NotFound,
    PreconditionFailed,
    Rejected,
    UsageError,
)
from watchdog.model import Result, Revision, Undo
from watchdog.objects import WorkloadRef

SCHEMA = 1
"""Version of every answer."""

_log = logging.getLogger(__name__)

_LONGEST_DETAIL = 200
_CODES = {
    400: "bad-request",
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    409: "conflict",
    413: "too-large",
    422: "key-reused",
    500: "internal",
    503: "unavailable",
}
_SUMMARY = ("id", "policy", "mode", "state", "started", "ended", "outcome", "detail")


class HttpError(Exception):
    """Raised where a request cannot be answered as asked.

    Args:
        status: the HTTP status.
        message: what is wrong, in one sentence.
        detail: more of it; cut.
        code: one word, where the status does not say it.
        beside: more fields for the body.
    """

    def __init__(
        self, status: int, message: str, detail: str = "", *, code: str = "", beside: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        code = code or _CODES.get(status, "refused")
        self._body = {"error": {"code": code, "message": message, "detail": detail[:_LONGEST_DETAIL]}, **(beside or {})}

    @classmethod
    def of(cls, error: BaseException | None) -> "HttpError":
        """What an exception means to a client; one that nobody foresaw is logged and not told."""
        match error:
            case HttpError():
                return error
            case NotFound():
                return cls(404, "there is no such object", str(error))
            case KeyReused():
                return cls(422, "`idempotency_key` came before with another request", str(error))
            case UsageError():
                return cls(409, str(error))
            case Conflict() | PreconditionFailed() | Rejected() | NotAdmitted():
                return cls(409, "the cluster did not take the change", str(error))
            case ClusterError():
                return cls(503, "the cluster did not answer as it should", str(error))
        _log.error("a request failed", exc_info=error, extra={"event": "unforeseen"})
        return cls(500, "nobody foresaw this; the service's log tells more")

    @property
    def body(self) -> bytes:
        """What is answered, encoded."""
        return msgspec.json.encode(self._body)

    def response(self) -> web.Response:
        """Answer with it. After a 503 the next attempt may reach another replica, so the connection is closed."""
        response = reply(self._body, status=self.status)
        if self.status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        if self.status in {400, 500, 503}:
            response.force_close()
        return response


def reply(fields: Mapping[str, object], *, status: int = 200) -> web.Response:
    """Answer with an object."""
    return web.Response(body=msgspec.json.encode(fields), status=status, content_type="application/json")


def result_fields(result: Result, workload: WorkloadRef, *, dry_run: bool) -> dict[str, object]:
    """How a rollback ended, in the words of the command `rollback`."""
    plan = result.plan if isinstance(result.plan, Undo) else None
    refusals = (result.refused, *result.refused.also) if result.refused else ()
    return {
        "schema": SCHEMA,
        "namespace": workload.namespace,
        "deployment": workload.name,
        "outcome": result.outcome,
        "detail": result.detail,
        "guard": result.refused.guard if result.refused else None,
        "refusals": [{"guard": no.guard, "class": no.guard.guard_class, "detail": no.detail} for no in refusals],
        "incident": plan.rollout.incident if plan else None,
        "from": _revision_fields(plan.live) if plan else None,
        "to": _revision_fields(plan.target) if plan else None,
        "changes": plan.changes if plan else (),
        "revision": result.revision,
        "elapsed_seconds": result.elapsed_s,
        "pods": result.pods,
        "dry_run": dry_run,
    }


def _revision_fields(revision: Revision) -> dict[str, object]:
    fields: dict[str, object] = msgspec.to_builtins(revision)
    return {"revision": fields.pop("number"), **fields}


def summary_fields(record: Record) -> dict[str, object]:
    """A record as a line of a list."""
    ref, revision = record.workload, record.rollout.revision
    where = {"namespace": ref.namespace, "deployment": ref.name, "revision": revision}
    return where | {field: getattr(record, field) for field in _SUMMARY}
