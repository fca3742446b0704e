"""A fault that nobody foresaw stays where it arose: logged once with its place, counted, and tried
again with growing pauses.

A loop or a rollout that fails costs itself a step, and nobody else. What a border foresees has errors of its own and
never comes here.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

from watchdog.metrics import Metrics, Part

_log = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 60.0
_MOST = 1000

Key = tuple[Part, str]
Place = tuple[Part, str, int, type[BaseException]]


class Faults:
    """Counts faults, and says how long to wait after each."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._in_a_row: dict[Key, int] = {}
        self._said: dict[Place, None] = {}

    def note(self, part: Part, error: BaseException, *, about: str = "") -> float:
        """Count a fault, log its place where that is new, and give the seconds until the next try.

        Args:
            about: the rollout, workload or peer whose work it was; each has pauses of its own.
        """
        self._metrics.fault(part)
        failures = self._in_a_row[part, about] = self._in_a_row.get((part, about), 0) + 1
        pause_s = growing(failures, longest_s=_LONGEST_PAUSE_S)
        place = (part, *_place(error), type(error))
        fields = {"event": "fault", "part": part, "about": about or None}
        if place in self._said:
            _log.debug("the same fault again: %r", error, extra=fields)
        else:
            self._said[place] = None
            _log.error("nobody foresaw this; tried again in %g s", pause_s, extra=fields, exc_info=error)
        if len(self._in_a_row) > _MOST:
            del self._in_a_row[next(iter(self._in_a_row))]
        if len(self._said) > _MOST:
            del self._said[next(iter(self._said))]
        return pause_s

    def over(self, part: Part, about: str = "") -> None:
        """Say that something works again: the next fault is the first of a new row."""
        self._in_a_row.pop((part, about), None)

    async def tried(self, part: Part, work: Callable[[], Awaitable[object]]) -> None:
        """Do something that must be done before anything else can be, however often it takes."""
        while True:
            try:
                await work()
            except Exception as error:
                _end_if_cancelled(error)
                await asyncio.sleep(self.note(part, error))
            else:
                return

    async def keep(self, part: Part, run: Callable[[], Awaitable[object]], *, about: str = "") -> NoReturn:
        """Run a loop for ever: whatever ends it is a fault, and it begins again."""
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            try:
                await run()
            except Exception as error:
                _end_if_cancelled(error)
                if loop.time() - begun > _LONGEST_PAUSE_S:
                    self.over(part, about)
                pause_s = self.note(part, error, about=about)
            else:
                pause_s = _LONGEST_PAUSE_S  # a loop that has nothing to do, such as one without a notifier
            await asyncio.sleep(pause_s)


def growing(failures: int, *, longest_s: float) -> float:
    """Seconds until the next try after so many failures in a row, however many: 1, 2, 4 and so on."""
    return min(2.0 ** min(failures - 1, 10), longest_s)


def _end_if_cancelled(error: Exception) -> None:
    """End with the service, also where closing what was open raised something else on the way."""
    if (task := asyncio.current_task()) and task.cancelling():
        raise asyncio.CancelledError from error


def _place(error: BaseException) -> tuple[str, int]:
    """File and line at which an exception was raised."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return (trace.tb_frame.f_code.co_filename, trace.tb_lineno) if trace else ("", 0)
