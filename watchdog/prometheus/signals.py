"""The questions of the judge to Prometheus, the same for live polling and for the past, so that live is a replay."""

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from itertools import chain
from typing import TypeVar

from watchdog.judge.blocks import Blind, Reading, ScrapeTarget
from watchdog.ports import SignalQuery
from watchdog.prometheus.answers import Series, partial
from watchdog.prometheus.client import MAX_SKEW_S, PrometheusClient
from watchdog.selectors import NAME, Selector, in_list, is_label, parse

MOST_POINTS = 10_000
"""Prometheus refuses a range of more than 11,000."""

NOT_SEEN_AGAIN_S = 60.0
OTHER_TIMES = partial(
    "the answer is for other times than were asked; for VictoriaMetrics set prometheus.params.nocache to 1, "
    "for Mimir leave align_queries_with_step off"
)

_POD = ("namespace", "pod", "container", "instance", "job")
_TARGET = ("namespace", "instance", "job")
_T = TypeVar("_T")


class PrometheusSignals:
    """Implements `watchdog.ports.Signals`.

    Args:
        client: the Prometheus.
        step_s: the grid, in seconds.
        delay_s: how far behind the grid it is asked, in seconds.
    """

    def __init__(self, client: PrometheusClient, *, step_s: float, delay_s: float) -> None:
        self._client = client
        self._step_s = step_s
        self._delay_s = delay_s
        self._seen: dict[tuple[str, tuple[str, ...]], float] = {}  # not seen until then; infinity: seen

    def _time(self, step: int) -> float:
        return step * self._step_s - self._delay_s

    async def read(self, query: SignalQuery, *, step: int, timeout_s: float) -> Reading:
        """Read all rows at one step of the grid."""
        at = self._time(step)
        answers = await _all(self._client.rows(text, time=at, timeout_s=timeout_s) for text in _expressions(query))
        return _readings(query, answers, (step,), lambda _: step)[0]

    async def read_past(
        self, query: SignalQuery, *, first: int, last: int, every: int = 1, timeout_s: float
    ) -> tuple[Reading, ...]:
        """Read the same at steps from `first` to `last`, both included; of `every` so many one."""
        steps = range(first, last + 1, every)
        slices = [steps[at : at + MOST_POINTS] for at in range(0, len(steps), MOST_POINTS)]
        return tuple(chain.from_iterable(await _all(self._slice(query, steps, timeout_s) for steps in slices)))

    async def _slice(self, query: SignalQuery, steps: range, timeout_s: float) -> list[Reading]:
        start, end = self._time(steps[0]), self._time(steps[-1])
        answers = await _all(
            self._client.query_range(text, start=start, end=end, step_s=self._step_s * steps.step, timeout_s=timeout_s)
            for text in _expressions(query)
        )
        asked = {round(self._time(step), 3): step for step in steps}
        return _readings(query, answers, steps, asked.get)

    async def resets(
        self, query: SignalQuery, *, step: int, window_s: float, timeout_s: float
    ) -> Mapping[ScrapeTarget, float]:
        """How often each row's total went down from step to step in the window; empty where that is not known.

        Of the sums, as the judge sees them: one restart takes down many series of a row, and that is one decrease.
        """
        window, between = (f"{round(seconds * 1000)}ms" for seconds in (window_s, self._step_s))
        text = f"resets(({_expressions(query)[0]})[{window}:{between}])"
        found = await self._client.query(text, time=self._time(step), timeout_s=timeout_s)
        return {} if isinstance(found, Blind) else {_row(query, series): series.value for series in found}

    async def bad_seen(self, query: SignalQuery, *, step: int, timeout_s: float) -> bool:
        """Whether `bad` may be taken for 0 where it is absent.

        Never where it selects successes: what their absence means, `read` has said already.
        """
        if query.good or query.within_total:
            return not query.good
        key, at = (query.bad, query.namespaces), self._time(step)
        if (until := self._seen.get(key, -math.inf)) > at:
            return until == math.inf
        text = f"count(present_over_time({parse(query.bad).text(in_list('namespace', query.namespaces))}[7d])) > 0"
        found = await self._client.query(text, time=at, timeout_s=timeout_s)
        if isinstance(found, Blind):
            return False
        self._seen[key] = math.inf if found else at + NOT_SEEN_AGAIN_S
        return bool(found)

    async def onset(self, labels: Mapping[str, str], *, at: float, timeout_s: float) -> float | None:
        """When an alert's expression began to hold, from ALERTS_FOR_STATE; None where that is not known.

        What Prometheus sends has its external labels, that series has not: only the alert's name must be there.
        """
        if not labels.get("alertname"):
            return None
        matchers = [
            in_list(label, (value,) if label == "alertname" else (value, ""))
            for label, value in labels.items()
            if is_label(label) and label != "alertstate"
        ]
        named = {**labels, NAME: "ALERTS_FOR_STATE"}
        found = await self._client.query(Selector(named[NAME]).text(*matchers), time=at, timeout_s=timeout_s)
        own = () if isinstance(found, Blind) else (one for one in found if one.labels.items() <= named.items())
        # What lies after the question is no time at which anything began.
        return max((series.value for series in own if 0 <= series.value <= at + MAX_SKEW_S), default=None)


async def _all(questions: Iterable[Coroutine[None, None, _T]]) -> list[_T]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(question) for question in questions]
    return [task.result() for task in tasks]


def _expressions(query: SignalQuery) -> tuple[str, str, str]:
    """What is asked: the rows of total, those of bad, and the time of each row's newest sample."""
    scope = [in_list("namespace", query.namespaces)]
    if query.pods or query.workloads:
        pods, others = in_list("pod", query.pods)[2], in_list("pod", query.workloads, then="-[^-]+-[^-]+")[2]
        scope.append(("pod", "=~", "|".join(filter(None, (pods, others)))))
    total, bad = parse(query.total).text(*scope), parse(query.bad).text(*scope)
    by = f"by ({','.join((*_TARGET, query.join) if query.join else _POD)})"
    return f"sum {by} ({total})", f"sum {by} ({bad})", f"max {by} (timestamp({total}))"


def _row(query: SignalQuery, series: Series) -> ScrapeTarget:
    labels = {name: series.labels.get(name, "") for name in (_TARGET if query.join else _POD)}
    return ScrapeTarget(**labels, label=series.labels.get(query.join, ""))


def _readings(
    query: SignalQuery,
    answers: Sequence[tuple[Series, ...] | Blind],
    steps: Sequence[int],
    step_of: Callable[[float], int | None],
) -> list[Reading]:
    """Put total, bad and time together, a table for each step."""
    tables: dict[int, dict[ScrapeTarget, list[float | None]]] = {step: {} for step in steps}
    for column, answer in enumerate(answers):
        if isinstance(answer, Blind):
            return [Reading(step, blind=answer) for step in steps]
        for series in answer:
            row = _row(query, series)
            for at, value in series.points.items():
                if (step := step_of(at)) is None:
                    return [Reading(step, blind=OTHER_TIMES) for step in steps]
                tables[step].setdefault(row, [None, None, None])[column] = value
    return [_reading(query, step, table) for step, table in tables.items()]


def _reading(query: SignalQuery, step: int, table: Mapping[ScrapeTarget, Sequence[float | None]]) -> Reading:
    rows = sorted(table.items())
    return Reading(step, tuple(query.sample(row, total=total, bad=bad, at=at) for row, (total, bad, at) in rows))
