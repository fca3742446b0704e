"""The loop of a gate: look at the workload, read a step, judge, and act once at the end.

pin ──► past ──► step ──► still live? ──► service busy? ──► conditions, counters ──► over? ──► act or end
                  ▲                             │ wait                                │ no
                  └─────────────────────────────┴──────────────────────────────────────┘
"""

import asyncio
import datetime as dt
import math
from collections.abc import Callable

from watchdog.decide.status import Progress, rollout_status
from watchdog.engine.watch import judge_conditions
from watchdog.errors import ClusterError, Denied, NotFound, UsageError
from watchdog.gate import acting, others, rules
from watchdog.gate.feed import Feed
from watchdog.gate.pinned import Look, Pinned, began, look, pin
from watchdog.gate.report import Report
from watchdog.gate.request import End, GatePorts, GateRequest
from watchdog.gate.tally import GateTally, SignalNumbers
from watchdog.judge import conditions
from watchdog.judge.blocks import Blind, BlindReason, Status, Track, Verdict
from watchdog.judge.conditions import Observed
from watchdog.model import Objection, Outcome, Result
from watchdog.objects import LabelSelector

_LOOK_AGAIN_S = 0.5
_PATIENCE_S = 60.0


class Gate:
    """Judges one version.

    Args:
        now: the wall clock, with a time zone.
        tell: is given the numbers after each block that was waited for, and once those of the past.
        say: is told what is judged by what, and what is waited for.
    """

    def __init__(
        self,
        task: GateRequest,
        ports: GatePorts,
        *,
        now: Callable[[], dt.datetime],
        tell: Callable[[tuple[SignalNumbers, ...]], None],
        say: Callable[[str], None],
    ) -> None:
        self._task = task
        self._ports = ports
        self._now = now
        self._tell = tell
        self._say = say
        self._past: list[str] = []
        self._notes: list[str] = []

    async def run(self) -> Report:
        """Judge, act where that is asked for, and say how it ended.

        Raises:
            UsageError: the version does not run the image.
            ClusterError: the API server does not answer, or not us.
        """
        task, seen = self._task, await self._pinned()
        scene = pin(seen, task.stable)
        if isinstance(scene, Objection):
            return self._report(End(verdict=_blind(str(scene))), None, None)
        if task.image and task.image not in scene.images.values():
            runs = ", ".join(scene.images.values())
            raise UsageError(f"revision {scene.rollout.revision} of {task.workload} runs {runs}, not {task.image}")
        feed = Feed(task, self._ports, scene)
        tally = await feed.begin(seen, now=self._now().timestamp())
        beside = f" beside {task.stable}" if scene.canary else ""
        images = ", ".join(scene.images.values())
        self._say(f"{task.workload} revision {scene.rollout.revision} ({scene.rollout.hash}){beside}: {images}")
        self._past = rules.past(tally.rules, told=task.baseline is not None)
        for text in self._past:
            self._say(text)
        end = await self._judge(scene, feed, tally)
        return self._report(end, scene, tally)

    async def _pinned(self) -> Look:
        """What is live; the controller gets a moment to see a change that was made just before."""
        loop, task = asyncio.get_running_loop(), self._task
        until = loop.time() + self._ports.observed_s
        while True:
            seen = await look(self._ports.cluster, task.workload, task.stable, timeout_s=self._ports.request_s)
            if not isinstance(pin(seen, task.stable), Objection) or loop.time() > until:
                return seen
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def _judge(self, scene: Pinned, feed: Feed, tally: GateTally) -> End:
        """Go from step to step until something ends it."""
        task, loop = self._task, asyncio.get_running_loop()
        service = others.ServiceState(self._ports.store, scene, request_s=self._ports.request_s)
        step = math.floor(self._now().timestamp() / task.step_s)
        latest = step + math.ceil((float(task.policy.bake) + task.policy.grace_s) / task.step_s)
        answered, held_since = loop.time(), None
        while True:
            try:
                seen = await look(self._ports.cluster, task.workload, task.stable, timeout_s=self._ports.request_s)
                record = await service.record()
                answered = loop.time()
                if record and others.held(record):
                    held_since = held_since or loop.time()
                    if loop.time() - held_since > self._ports.held_s:
                        return End(verdict=_blind(f"the service's incident {record.id} has no end: {record.state}"))
                    self._say(f"the service holds incident {record.id} ({record.state}): waiting for its end")
                else:
                    held_since = None
                    end = others.ended(scene, seen, record, now=self._now())
                    end = end or await self._look(service, seen, feed, tally, step)
                    late = tally.first is None and step >= latest
                    if end is None and (late or tally.over or tally.verdict().status is Status.HEALTHY):
                        end = await self._act(service, seen, await self._last_word(scene, seen, tally))
                    if end:
                        return await self._settled(end, scene, service)
            except NotFound as error:
                return others.superseded(str(error), "it was deleted")
            except Denied:
                raise
            except ClusterError as error:
                if loop.time() - answered > _PATIENCE_S:
                    raise
                self._say(f"{error}: this step waits")
            step = max(step + 1, math.floor(self._now().timestamp() / task.step_s))
            await asyncio.sleep(max(0.0, step * task.step_s - self._now().timestamp()))

    async def _settled(self, end: End, scene: Pinned, service: others.ServiceState) -> End:
        """The end; if somebody was quicker than our action, theirs."""
        if service.denied:
            self._notes.append("the service's records may not be read: what it does is seen by its marks only")
        if acting.lost(end):
            task, timeout_s = self._task, self._ports.request_s
            seen = await look(self._ports.cluster, task.workload, task.stable, timeout_s=timeout_s)
            end = others.ended(scene, seen, await service.record(), now=self._now()) or end
        return end

    async def _look(
        self, service: others.ServiceState, seen: Look, feed: Feed, tally: GateTally, step: int
    ) -> End | None:
        """Take a step in, and end where it is a breach."""
        if by := await service.condemned(seen, now=self._now()):
            detail = f"it was condemned by incident {by}"
            return await self._act(service, seen, Verdict(Status.BREACH, detail, cause="condemned-image"))
        condition = await self._condition(service.scene, seen)
        if condition and condition.status is Status.BREACH:
            return await self._act(service, seen, condition)
        if await feed.feed(tally, seen, step, now=self._now().timestamp()):
            self._tell(tally.numbers())
        verdict = tally.verdict()
        return await self._act(service, seen, verdict) if verdict.status is Status.BREACH else None

    async def _act(self, service: others.ServiceState, seen: Look, verdict: Verdict) -> End:
        if verdict.status is not Status.BREACH:
            return End(verdict=verdict)
        self._notes += acting.passed_over(verdict)

        async def condemn(result: Result) -> None:
            if note := await service.condemn(self._task, seen, verdict, result, at=self._now()):
                self._notes.append(note)

        return await acting.act(service.scene, verdict, self._task, self._ports, condemn=condemn)

    async def _condition(self, scene: Pinned, seen: Look) -> Verdict | None:
        """What Kubernetes itself says; an image that others cannot pull either is asked about before it is blamed."""
        now = self._now()
        shown = Observed(
            deployment=seen.deployment,
            candidate=scene.pods(seen, Track.CANDIDATE),
            stable=scene.pods(seen, Track.STABLE),
            stable_template=scene.stable_template(seen),
            begun=dt.datetime.fromtimestamp(began(scene, seen, now=now.timestamp()), tz=dt.UTC),
            pulls_fail_elsewhere=await self._pulls_fail_elsewhere(scene, seen),
        )
        return judge_conditions(self._task.policy, shown, now=now)

    async def _pulls_fail_elsewhere(self, scene: Pinned, seen: Look) -> bool:
        if not any(map(conditions.failing_pull, scene.pods(seen, Track.CANDIDATE))):
            return False
        ours = {pod.metadata.uid for pod in seen.pods}
        namespace, timeout_s = self._task.workload.namespace, self._ports.request_s
        everyone = await self._ports.cluster.pods(namespace, LabelSelector(), timeout_s=timeout_s)
        return any(conditions.failing_pull(pod) for pod in everyone if pod.metadata.uid not in ours)

    async def _last_word(self, scene: Pinned, seen: Look, tally: GateTally) -> Verdict:
        """The verdict when the time is up."""
        condition, verdict = await self._condition(scene, seen), tally.verdict(over=True)
        if condition and verdict.status is not Status.HEALTHY:
            return condition
        status = rollout_status(seen.deployment)
        if verdict.status is Status.HEALTHY and status.progress is not Progress.COMPLETE:
            self._notes.append(f"the rollout is not complete: {status.detail}")
        return verdict

    def _report(self, end: End, scene: Pinned | None, tally: GateTally | None) -> Report:
        first = tally.first if tally else None
        return Report(
            workload=self._task.workload,
            verdict=end.verdict,
            rollout=scene.rollout if scene else None,
            outcome=end.outcome or (Outcome.PASSED if end.verdict.status is Status.HEALTHY else None),
            detail=end.detail,
            service=end.service,
            result=end.result,
            numbers=tally.numbers() if tally else (),
            images=scene.images if scene else {},
            past=tuple(self._past),
            notes=(*self._notes, *([tally.watch.note] if tally and tally.watch.note else ())),
            began=dt.datetime.fromtimestamp(first * self._task.step_s, tz=dt.UTC) if first else None,
            ended=self._now(),
        )


def _blind(detail: str) -> Verdict:
    return Verdict(Status.BLIND, detail, blind=Blind(BlindReason.PENDING, detail))
