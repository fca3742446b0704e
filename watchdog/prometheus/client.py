"""One question to Prometheus: repeated within one deadline, with an eye on its clock."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from email.utils import parsedate_to_datetime
from typing import TypeVar

import msgspec
import tenacity

from watchdog.config import Prometheus
from watchdog.errors import ConfigError
from watchdog.http import TooLarge
from watchdog.judge.blocks import Blind, BlindReason
from watchdog.prometheus.answers import NO_NUMBER, Series, label_names, matrix, partial, read, refusal, vector
from watchdog.prometheus.http import HttpAnswer, Send, Unreachable, direct
from watchdog.selectors import Selector, in_list

log = logging.getLogger(__name__)

MAX_SKEW_S = 30.0
RECENT_S = 600.0

_T = TypeVar("_T")


class PrometheusClient:
    """Questions to one Prometheus. Nothing here raises for a bad answer: it comes back as `Blind`.

    Args:
        send: the way to it.
        params: go with every question.
        clock: seconds since the epoch.
        observe: told the outcome (``ok``, ``unreachable`` or ``partial``) and the seconds of each question.
    """

    def __init__(
        self,
        send: Send,
        *,
        params: Mapping[str, str],
        clock: Callable[[], float],
        observe: Callable[[str, float], None],
    ) -> None:
        self._send = send
        self._params = params
        self._clock = clock
        self._observe = observe
        self._undated = False
        self.skew_s = 0.0
        """Seconds by which Prometheus' clock was ahead of ours at its last answer."""

    async def query(
        self, expression: str, *, time: float | None = None, timeout_s: float
    ) -> tuple[Series, ...] | Blind:
        """Ask for the vector at one time, by default now. Each series has one value, a finite number."""
        found = await self.rows(expression, time=time, timeout_s=timeout_s)
        if not isinstance(found, Blind) and any(math.isnan(series.value) for series in found):
            return NO_NUMBER
        return found

    async def rows(self, expression: str, *, time: float | None = None, timeout_s: float) -> tuple[Series, ...] | Blind:
        """Ask the same where one series without a number must not hide the others: its value is NaN."""
        form = {"query": expression} if time is None else {"query": expression, "time": f"{time:.3f}"}
        return await self._ask("/api/v1/query", form, vector, timeout_s)

    async def query_range(
        self, expression: str, *, start: float, end: float, step_s: float, timeout_s: float
    ) -> tuple[Series, ...] | Blind:
        """Ask for the matrix from `start` to `end`; a value that is no finite number is NaN, and its time blind."""
        form = {"query": expression, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step_s:.3f}"}
        return await self._ask("/api/v1/query_range", form, matrix, timeout_s)

    async def metrics_of(
        self, namespace: str, pods: Sequence[str], *, timeout_s: float
    ) -> Mapping[str, frozenset[str]] | Blind:
        """The metrics that these pods have had in the last 10 minutes, each with the names of its labels."""
        now = self._clock() + self.skew_s
        form = {
            "match[]": Selector("").text(("namespace", "=", namespace), in_list("pod", pods)),
            "start": f"{now - RECENT_S:.3f}",
            "end": f"{now:.3f}",
        }
        return await self._ask("/api/v1/series", form, label_names, timeout_s)

    async def _ask(
        self, path: str, form: Mapping[str, str], decode: Callable[[msgspec.Raw], _T | Blind], timeout_s: float
    ) -> _T | Blind:
        loop = asyncio.get_running_loop()
        began = loop.time()
        answer = await self._answer(path, form, began + timeout_s)
        found = answer if isinstance(answer, Blind) else read(answer, decode)
        blind = found.reason if isinstance(found, Blind) else None
        outcome = {None: "ok", BlindReason.UNREACHABLE: "unreachable"}.get(blind, "partial")
        self._observe(outcome, loop.time() - began)
        return found

    async def _answer(self, path: str, form: Mapping[str, str], deadline: float) -> HttpAnswer | Blind:
        """Ask until there is an answer that another attempt would not change."""
        loop = asyncio.get_running_loop()
        timeout_s = deadline - loop.time()
        trouble = "silence"

        async def attempt() -> HttpAnswer:
            nonlocal trouble
            left_s = deadline - loop.time()
            # The server is to give up a little before we do, or it would go on working for nobody.
            fields = {**self._params, **form, "timeout": f"{max(1, round(left_s * 900))}ms"}
            try:
                answer = await self._send(path, fields, timeout_s=left_s)
            except Unreachable as error:
                trouble = str(error)
                raise
            if answer.status >= 500 or answer.status == 429:
                trouble = refusal(answer)
                raise Unreachable(trouble)
            return answer

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(Unreachable),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
        )
        try:
            async with asyncio.timeout_at(deadline):
                answer: HttpAnswer = await retrying(attempt)
        except TooLarge as error:
            return partial(f"{error}; narrow the signal's selectors")
        except TimeoutError:
            cure = "is prometheus.url right, and does a NetworkPolicy let this pod in?"
            detail = f"Prometheus gave no usable answer within {timeout_s:g} s ({trouble}); {cure}"
            return Blind(BlindReason.UNREACHABLE, detail)
        return self._skewed(answer) or answer

    def _skewed(self, answer: HttpAnswer) -> Blind | None:
        """Compare the clocks."""
        try:
            self.skew_s = parsedate_to_datetime(answer.date).timestamp() - self._clock()
        except (ValueError, OverflowError, TypeError):  # whatever a header can be
            self.skew_s = 0.0
            if not self._undated:
                log.warning("Prometheus' answers carry no Date; the own clock counts")
                self._undated = True
        if abs(self.skew_s) <= MAX_SKEW_S:
            return None
        way = "ahead of" if self.skew_s > 0 else "behind"
        detail = f"Prometheus' clock is {abs(self.skew_s):.0f} s {way} ours; synchronise both with NTP"
        return Blind(BlindReason.SKEW, detail)


@asynccontextmanager
async def connect(
    settings: Prometheus,
    *,
    clock: Callable[[], float],
    observe: Callable[[str, float], None] = lambda _outcome, _seconds: None,
    send: Send | None = None,
) -> AsyncIterator[PrometheusClient]:
    """Open a client. A URL that begins with ``service://`` needs a `send` of its own.

    Raises:
        ConfigError: there is no way there, or its certificates cannot be used.
    """
    if send is None and not settings.url.startswith(("http://", "https://")):
        raise ConfigError("prometheus.url", f"{settings.url!r} leads nowhere; write http://… or https://…")
    async with direct(settings.url, settings) if send is None else nullcontext(send) as way:
        yield PrometheusClient(way, params=settings.params, clock=clock, observe=observe)
