"""What an answer of Prometheus says in numbers, or why it says nothing.

"Nothing found" is an answer. NaN, warnings or a part of the data are not, and none of them is ever a zero.
"""

import math
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from watchdog.decoding import Malformed, from_json
from watchdog.judge.blocks import MOST, Blind, BlindReason
from watchdog.prometheus.http import HttpAnswer
from watchdog.selectors import NAME

_T = TypeVar("_T")
_CURES = {
    400: "look at the selectors of the signal",
    401: "set prometheus.bearer_token_file, or username and password_file",
    403: "these credentials may not query it",
    404: "does prometheus.url have the right path prefix?",
    422: "look at the selectors of the signal",
}


def partial(detail: str) -> Blind:
    """An answer that is not all the numbers that were asked for."""
    return Blind(BlindReason.PARTIAL, detail)


NO_NUMBER = partial("the answer holds NaN, an infinity or a native histogram; select a plain counter")


class Series(msgspec.Struct, frozen=True):
    """The labels of a series, and its values by time in seconds since the epoch. NaN stands for what is no number."""

    labels: Mapping[str, str]
    points: Mapping[float, float]

    @property
    def value(self) -> float:
        """The newest value; NaN where there is none."""
        return self.points[max(self.points)] if self.points else math.nan


class _Body(msgspec.Struct, frozen=True, rename="camel"):
    status: str
    data: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""
    warnings: list[str] | None = None
    is_partial: bool = False


class _Data(msgspec.Struct, frozen=True, rename="camel"):
    result_type: str
    result: msgspec.Raw


class _Row(msgspec.Struct, frozen=True):
    metric: dict[str, str] = {}
    value: tuple[float, str] | None = None
    values: list[tuple[float, str]] = []
    histogram: tuple[float, msgspec.Raw] | None = None
    histograms: list[tuple[float, msgspec.Raw]] = []


def read(answer: HttpAnswer, decode: Callable[[msgspec.Raw], _T | Blind]) -> _T | Blind:
    """Take the data out of an answer and decode them."""
    if answer.status != 200:
        cure = _CURES.get(answer.status, "is prometheus.url right?")
        return Blind(BlindReason.UNREACHABLE, f"Prometheus refuses the question ({refusal(answer)}); {cure}")
    try:
        body = from_json(answer.body, _Body)
        if body.status == "success" and not (body.warnings or body.is_partial):
            return decode(body.data)
    except Malformed:
        detail = "what answers is no Prometheus; is prometheus.url right, with its path prefix?"
        return Blind(BlindReason.UNREACHABLE, detail)
    why = _line("; ".join(body.warnings or ()) or body.error or "isPartial")
    return partial(f"Prometheus says that data are missing ({why}); look at its targets and stores")


def refusal(answer: HttpAnswer) -> str:
    """The status, and the error where Prometheus itself wrote it."""
    try:
        error = from_json(answer.body, _Body).error
    except Malformed:
        error = ""
    return f"HTTP {answer.status}" + (f": {_line(error)}" if error else "")


def _line(text: str) -> str:
    return " ".join(text.split())[:200]


def _series(raw: msgspec.Raw, kind: str) -> tuple[Series, ...] | Blind:
    data = from_json(raw, _Data)
    if data.result_type != kind:
        return partial(f"the answer is a {data.result_type}, not a {kind}; write an expression that gives series")
    rows = from_json(data.result, list[_Row])
    if len({frozenset(row.metric.items()) for row in rows}) < len(rows):
        return partial("the answer has the same labels twice; do two Prometheus answer in turn, or one for both?")
    return tuple(Series(row.metric, _points(row)) for row in rows)


def _points(row: _Row) -> dict[float, float]:
    points = {at: _number(text) for at, text in (*((row.value,) if row.value else ()), *row.values)}
    for at, _ in (*((row.histogram,) if row.histogram else ()), *row.histograms):
        points[at] = math.nan
    return points


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if abs(number) <= MOST else math.nan


def vector(raw: msgspec.Raw) -> tuple[Series, ...] | Blind:
    """Each series with one value; what is no finite number is NaN."""
    series = _series(raw, "vector")
    if not isinstance(series, Blind) and any(len(one.points) != 1 for one in series):
        return NO_NUMBER
    return series


def matrix(raw: msgspec.Raw) -> tuple[Series, ...] | Blind:
    """Each series with its values; what is no finite number is NaN."""
    return _series(raw, "matrix")


def label_names(raw: msgspec.Raw) -> dict[str, frozenset[str]]:
    """The metrics of a list of series, each with the names of its labels."""
    names: dict[str, set[str]] = {}
    for labels in from_json(raw, list[dict[str, str]]):
        names.setdefault(labels.get(NAME, ""), set()).update(label for label in labels if label != NAME)
    return {metric: frozenset(labels) for metric, labels in names.items()}
