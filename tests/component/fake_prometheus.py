"""A Prometheus that answers as it is told to: the scripted server of `fake_api`, and answers in its form."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from tests.component.fake_api import Answer, FakeApi, raw

QUERY = "/api/v1/query"
QUERY_RANGE = "/api/v1/query_range"

Row = tuple[Mapping[str, str], Any]


def forms(api: FakeApi, path: str = QUERY) -> list[dict[str, str]]:
    """What was asked, as the fields of each form."""
    return [dict(parse_qsl(seen.body.decode(), strict_parsing=True)) for seen in api.asked("POST", path)]


def result(kind: str, rows: Any, *, headers: Mapping[str, str] | None = None, **beside: Any) -> Answer:
    """Give a result of this type, with members such as `warnings` beside it."""
    body = {"status": "success", "data": {"resultType": kind, "result": rows}, **beside}
    return raw(json.dumps(body).encode(), headers=headers)


def vector(*rows: Row, at: float = 1000, headers: Mapping[str, str] | None = None, **beside: Any) -> Answer:
    """Give one value per set of labels."""
    found = [{"metric": dict(labels), "value": [at, str(value)]} for labels, value in rows]
    return result("vector", found, headers=headers, **beside)


def matrix(*rows: tuple[Mapping[str, str], Mapping[float, Any]], **beside: Any) -> Answer:
    """Give values by time per set of labels."""
    found = [
        {"metric": dict(labels), "values": [[at, str(value)] for at, value in points.items()]}
        for labels, points in rows
    ]
    return result("matrix", found, **beside)


def refused(code: int, kind: str, error: str) -> Answer:
    """Refuse as Prometheus does."""
    return raw(json.dumps({"status": "error", "errorType": kind, "error": error}).encode(), code=code)


def by_query(answers: Mapping[str, Answer]) -> Answer:
    """Choose the answer by the beginning of the query."""

    async def give(request: web.Request) -> web.StreamResponse:
        query = str((await request.post())["query"])
        return await next(answer for start, answer in answers.items() if query.startswith(start))(request)

    return give
