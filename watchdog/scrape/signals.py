"""The questions of the judge to the pods themselves.

Every pod is asked once per step, whichever signals ask; what it gave is kept for a while as sums of what the signals
select. A step that was read is given again as it was, so that within this process live is a replay. What was before the
process, or before a pod was watched, nobody knows: that is blind.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Mapping

import msgspec

from watchdog.config import Scrape
from watchdog.judge.blocks import Blind, BlindReason, Reading, Sample, ScrapeTarget
from watchdog.objects import Pod
from watchdog.ports import SignalQuery
from watchdog.scrape.exposition import Exposed, Wanted, read
from watchdog.scrape.http import Get, Unusable
from watchdog.scrape.targets import Target, target
from watchdog.selectors import parse

_log = logging.getLogger(__name__)

KEPT_S = 900.0
"""More than the ten minutes and a window that are looked at before a rollout."""

_OF_STEP = 0.8
"""A round must leave time to judge before the next one begins."""

NO_PAST = Blind(BlindReason.STALE, 'not read by this process: source = "pods" has no past, it starts afresh')

_Name = tuple[str, str]


class _Scraped(msgspec.Struct, frozen=True):
    """One pod at one step; `target` and `exposed` are None where it could not be asked, or did not answer."""

    target: Target | None = None
    exposed: Exposed | None = None
    at: float | None = None


class PodSignals:
    """Implements `watchdog.ports.Signals`.

    Args:
        get: the way to pods.
        settings: ports, paths and limits.
        want: what the signals select.
        clock: seconds since the epoch.
        observe: told the outcome (``ok``, ``unreachable`` or ``partial``) and the seconds of each pod asked.
    """

    def __init__(
        self,
        get: Get,
        *,
        settings: Scrape,
        want: Wanted,
        clock: Callable[[], float],
        observe: Callable[[str, float], None],
    ) -> None:
        self._get = get
        self._settings = settings
        self._step_s = float(settings.step)
        self._want = want
        self._clock = clock
        self._observe = observe
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._ring: dict[int, dict[_Name, _Scraped]] = {}
        self._claimed: dict[tuple[int, _Name], asyncio.Event] = {}
        self._seen: set[_Name] = set()  # namespace and metric
        self._troubles: dict[_Name, str] = {}

    # -- the port ------------------------------------------------------------------------------------------------------

    async def read(self, query: SignalQuery, *, step: int, timeout_s: float) -> Reading:
        """Read all rows at one step of the grid; of a step that is over, what was read then."""
        return (await self.read_past(query, first=step, last=step, timeout_s=timeout_s))[0]

    async def read_past(
        self, query: SignalQuery, *, first: int, last: int, every: int = 1, timeout_s: float
    ) -> tuple[Reading, ...]:
        """Give what this process has read at steps from `first` to `last`; the last may be that of now."""
        blind = await self._scrape(query.targets, step=last, timeout_s=timeout_s)
        past = tuple(self._reading(query, step) for step in range(first, last, every))
        return (*past, Reading(last, blind=blind) if blind else self._reading(query, last))

    async def resets(
        self, query: SignalQuery, *, step: int, window_s: float, timeout_s: float
    ) -> Mapping[ScrapeTarget, float]:
        """How often each row's total went down in the part of the window that this process has read."""
        last: dict[ScrapeTarget, float] = {}
        found: dict[ScrapeTarget, float] = {}
        for at in sorted(self._ring):
            if step * self._step_s - window_s <= at * self._step_s <= step * self._step_s:
                for sample in self._reading(query, at).samples:
                    if sample.total is not None:
                        found.setdefault(sample.row, 0.0)
                        found[sample.row] += sample.total < last.get(sample.row, -math.inf)
                        last[sample.row] = sample.total
        return found

    async def bad_seen(self, query: SignalQuery, *, step: int, timeout_s: float) -> bool:
        """Whether `bad` may be taken for 0 where it is absent: a pod shows that metric, if only its type or help."""
        if query.good or query.within_total:
            return not query.good
        now = max(step, math.floor(self._clock() / self._step_s))
        await self._scrape(query.targets, step=now, timeout_s=timeout_s)
        metric = parse(query.bad).metric
        return any((namespace, metric) in self._seen for namespace in query.namespaces)

    async def onset(self, labels: Mapping[str, str], *, at: float, timeout_s: float) -> float | None:
        """Pods know nothing of alerts."""
        return None

    # -- reading -------------------------------------------------------------------------------------------------------

    def _is_now(self, step: int) -> bool:
        """Whether what a pod says now belongs to a step: until the next one begins, and timers may fire early."""
        return -0.5 <= self._clock() / self._step_s - step < 1

    async def _scrape(self, pods: Iterable[Pod], *, step: int, timeout_s: float) -> Blind | None:
        """Ask the pods that were not asked at this step yet, and wait for those that somebody else asks."""
        if not self._is_now(step):
            return None
        kept = self._kept(step)
        named = {(pod.metadata.namespace, pod.metadata.name): pod for pod in pods}
        theirs = [event for name in named if (event := self._claimed.get((step, name)))]
        mine = [name for name in named if name not in kept and (step, name) not in self._claimed]
        busy = sum(1 for at, _ in self._claimed if at == step)
        if (many := len(kept) + busy + len(mine)) > self._settings.max_pods:
            detail = f"{many} pods to read, more than scrape.max_pods = {self._settings.max_pods}: raise it"
            return Blind(BlindReason.PARTIAL, detail)
        left_s = min(timeout_s, (step + 1) * self._step_s - self._clock(), self._step_s) * _OF_STEP
        deadline = asyncio.get_running_loop().time() + left_s
        done = asyncio.Event()
        self._claimed.update({(step, name): done for name in mine})
        try:
            async with asyncio.TaskGroup() as group:
                # Those that gave no answer last time come last, so that they hold nobody up.
                for name in sorted(mine, key=self._troubles.__contains__):
                    group.create_task(self._one(name, named[name], kept, deadline))
        finally:
            for name in mine:
                del self._claimed[step, name]
            done.set()
        for event in theirs:
            await event.wait()
        return None

    async def _one(self, name: _Name, pod: Pod, kept: dict[_Name, _Scraped], deadline: float) -> None:
        where = target(pod, self._settings)
        kept[name] = _Scraped()
        if isinstance(where, str):
            self._note(name, where)
            return
        loop, timeout_s = asyncio.get_running_loop(), float(self._settings.timeout)
        began, problem, outcome = loop.time(), "", "unreachable"
        try:
            async with asyncio.timeout_at(deadline), self._slots:
                began, at = loop.time(), self._clock()
                async with asyncio.timeout(timeout_s):
                    answer = await self._get(where.url, max_bytes=self._settings.max_bytes)
        except TimeoutError:
            problem = f"no answer within {timeout_s:g} s, or before the next step"
        except Unusable as error:
            problem = str(error)
        else:
            exposed = read(answer, self._want, where.labels)
            problem, outcome = exposed.problem, "partial" if exposed.problem else "ok"
            kept[name] = _Scraped(where, exposed, at)
            self._seen |= {(name[0], metric) for metric in exposed.metrics}
        self._observe(outcome, loop.time() - began)
        self._note(name, problem and f"{where.url}: {problem}")

    def _kept(self, step: int) -> dict[_Name, _Scraped]:
        """What is kept of a step; with a new one the oldest goes, and what is said of pods that are long gone."""
        if step not in self._ring:
            known = {name for kept in self._ring.values() for name in kept}
            self._troubles = {name: text for name, text in self._troubles.items() if name in known}
            for old in [at for at in self._ring if (step - at) * self._step_s > KEPT_S]:
                del self._ring[old]
        return self._ring.setdefault(step, {})

    def _note(self, name: _Name, problem: str) -> None:
        """Say what is wrong with a pod when it begins, and when it is something else."""
        if problem and self._troubles.get(name) != problem:
            fields = {"event": "pod-not-scraped", "namespace": name[0], "pod": name[1]}
            _log.warning("pod %s/%s gives no counters: %s", *name, problem, extra=fields)
            self._troubles[name] = problem
        elif not problem:
            self._troubles.pop(name, None)

    # -- giving --------------------------------------------------------------------------------------------------------

    def _reading(self, query: SignalQuery, step: int) -> Reading:
        asked = [
            scraped
            for (namespace, pod), scraped in self._ring.get(step, {}).items()
            if namespace in query.namespaces and (not query.pods or pod in query.pods)
        ]
        if not asked and (query.targets or not self._is_now(step)):
            return Reading(step, blind=NO_PAST)
        samples = [sample for scraped in asked for sample in _samples(query, scraped)]
        return Reading(step, tuple(sorted(samples, key=lambda sample: sample.row)))


def _samples(query: SignalQuery, scraped: _Scraped) -> list[Sample]:
    where, exposed = scraped.target, scraped.exposed
    if where is None or exposed is None:
        return []
    joined = ScrapeTarget(namespace=where.namespace, instance=where.instance, job=where.job)
    row = joined if query.join else ScrapeTarget(**where.labels)
    if exposed.problem:
        return [Sample(row, None, None)]
    totals, bads = (exposed.sums.get((text, query.join), {}) for text in (query.total, query.bad))
    return [
        query.sample(
            msgspec.structs.replace(row, label=label),
            total=totals.get(label),
            bad=bads.get(label),
            at=scraped.at if label in totals else None,
        )
        for label in totals.keys() | bads.keys()
    ]
