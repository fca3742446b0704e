"""The loop of a gate: look at the workload, read a step, judge, and act once at the end.

pin ──► past ──► step ──► still live? ──► service busy? ──► conditions, counters ──► over? ──► act or end
                  ▲                             │ wait                                │ no
                  └─────────────────────────────┴──────────────────────────────────────┘
"""

import asyncio
import datetime as dt
import math
from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from watchdog.config import GitOps, Policy, Signal
from watchdog.decide import marks
from watchdog.decide.plan import Request
from watchdog.decide.record import Record, State
from watchdog.decide.status import Progress, rollout_status
from watchdog.engine import facts
from watchdog.engine.act import Actor
from watchdog.engine.watch import query_of
from watchdog.errors import ClusterError, Denied, NotFound, UsageError
from watchdog.gate.report import Report
from watchdog.gate.scene import Look, Scene, began, look, pin
from watchdog.gate.trial import Control, Numbers, Settings, Trial
from watchdog.judge import conditions, counters
from watchdog.judge.blocks import Blind, BlindReason, PodFact, Reading, Track, Verdict, Word
from watchdog.model import MANAGER, Action, Cause, Guard, Outcome, Refused, Result
from watchdog.objects import WorkloadRef
from watchdog.ports import Cluster, Signals, Store

_FEW_PODS = 50
_RESETS_S = 3600.0
_PAST_S = 30.0
_LOOK_AGAIN_S = 0.5
_PATIENCE_S = 60.0
_HELD = (State.BREACH, State.ASKING, State.ACTING, State.VERIFYING)
_ACTED = (Outcome.ROLLED_BACK, Outcome.SCALED_DOWN, Outcome.PAUSED, Outcome.RECOVERED, Outcome.INEFFECTIVE)


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a gate.

    Args:
        workload: what is judged.
        stable: the Deployment beside it; the workload itself where there is none.
        image: what the version must run; empty for whatever it is.
        signals: what is judged by.
        policy: conditions, patience and GitOps; that of the workload, or the defaults.
        bake_s: how long is judged, from the first judged block.
        grace_s: per pod from Ready: counted, not judged.
        blocks: B of the rule.
        step_s: the grid.
        action: what a breach leads to; None for nothing.
        early: end with healthy as soon as that is proven.
        baseline: usual share of failures, where it is told.
        dry_run: let the API server check the write, and do nothing.
        cause: who asks, and why.
    """

    workload: WorkloadRef
    stable: WorkloadRef
    image: str
    signals: Mapping[str, Signal]
    policy: Policy
    bake_s: float
    grace_s: float
    blocks: float
    step_s: float
    action: Action | None
    early: bool
    dry_run: bool
    cause: Cause
    baseline: float | None = None


class Ports(msgspec.Struct, frozen=True, kw_only=True):
    """The outside, and how long it may take: an answer of the API server, of Prometheus, the service's incident."""

    cluster: Cluster
    signals: Signals
    store: Store
    actor: Actor
    request_s: float
    query_s: float
    observed_s: float
    held_s: float


class Gate:
    """Judges one version.

    Args:
        task: what is asked.
        ports: the outside.
        now: the wall clock, with a time zone.
        tell: is given the numbers after each block that was waited for, and once those of the past.
        say: is told what is waited for.
    """

    def __init__(
        self,
        task: Task,
        ports: Ports,
        *,
        now: Callable[[], dt.datetime],
        tell: Callable[[tuple[Numbers, ...]], None],
        say: Callable[[str], None],
    ) -> None:
        self._task = task
        self._ports = ports
        self._now = now
        self._tell = tell
        self._say = say
        self._notes: list[str] = []
        self._pods: tuple[PodFact, ...] = ()
        self._reads_records = True

    async def run(self) -> Report:
        """Judge, act where that is asked for, and say how it ended.

        Raises:
            UsageError: the version does not run the image.
            ClusterError: the API server does not answer, or not us.
        """
        task = self._task
        seen, scene = await self._pin()
        if isinstance(scene, Refused):
            blind = Blind(BlindReason.PENDING, str(scene))
            return self._report(Verdict(Word.BLIND, blind.detail, blind=blind), None)
        if task.image and task.image not in scene.images.values():
            runs = ", ".join(scene.images.values())
            raise UsageError(f"revision {scene.rollout.revision} of {task.workload} runs {runs}, not {task.image}")
        now = self._now().timestamp()
        step = math.floor(now / task.step_s)
        trial = await self._begin(scene, seen, step, now)
        return await self._judge(scene, trial, step)

    async def _pin(self) -> tuple[Look, Scene | Refused]:
        """What is live; the controller gets a moment to see a change that was made just before."""
        loop, task = asyncio.get_running_loop(), self._task
        until = loop.time() + self._ports.observed_s
        while True:
            seen = await look(self._ports.cluster, task.workload, task.stable, timeout_s=self._ports.request_s)
            scene = pin(seen, task.stable)
            if not isinstance(scene, Refused) or loop.time() > until:
                return seen, scene
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def _begin(self, scene: Scene, seen: Look, step: int, now: float) -> Trial:
        """Make the trial, with what has to be known before its first step: that of the version's first pod."""
        task, signals = self._task, self._ports.signals
        begun = began(scene, seen, now=now)
        earliest = math.ceil((now - float(task.policy.max_watch)) / task.step_s)
        first = min(max(math.ceil(begun / task.step_s), earliest), step)
        begun = max(begun, first * task.step_s - task.step_s)
        owners, _ = scene.sides(seen)
        self._pods = facts.update((), seen.pods, owners, since=first, step=step, step_s=task.step_s, now=now)
        settings = {}
        for name, signal in task.signals.items():
            query = query_of(signal, {task.workload.namespace})
            bad_known = await signals.bad_seen(query, step=step, timeout_s=self._ports.query_s)
            resets = await signals.resets(query, step=step, window_s=_RESETS_S, timeout_s=self._ports.query_s)
            restarts = {pod.name: facts.restarts_between(pod, now - _RESETS_S, now) for pod in self._pods}
            settings[name] = counters.Settings(
                namespace=task.workload.namespace,
                step_s=task.step_s,
                grace_s=task.grace_s,
                begun=begun,
                join=(signal.candidate, signal.stable) if signal.join else None,
                bad_known=bad_known,
                base_blind=counters.not_monotonic(resets, restarts),
            )
        controls: tuple[Control, ...] = (Control.CONCURRENT, Control.HISTORICAL)
        if scene.canary:
            controls = (Control.CONCURRENT,)
        elif not scene.stable_hash or seen.deployment.spec.strategy.type == "Recreate":
            controls = (Control.HISTORICAL,)
        self._notes.append("no history was read: the evidence grows slowly, as if failures came in clusters of 3")
        rule = Settings(
            step_s=task.step_s,
            bake_s=task.bake_s,
            blocks=task.blocks,
            controls=controls,
            min_requests=task.policy.threshold.min_requests,
            early=task.early,
            baseline=task.baseline,
        )
        return Trial(rule, settings, first=first)

    # -- step by step --------------------------------------------------------------------------------------------------

    async def _judge(self, scene: Scene, trial: Trial, step: int) -> Report:
        task, loop = self._task, asyncio.get_running_loop()
        latest = step + math.ceil((task.bake_s + task.grace_s) / task.step_s)
        answered, held_since = loop.time(), None
        while True:
            try:
                seen = await look(self._ports.cluster, task.workload, task.stable, timeout_s=self._ports.request_s)
                record = await self._record(scene)
                answered = loop.time()
                if record and record.state in _HELD:
                    held_since = held_since or loop.time()
                    if loop.time() - held_since > self._ports.held_s:
                        end = f"the service's incident {record.id} did not come to an end: {record.state}"
                        return self._report(self._blind(BlindReason.PENDING, end), scene, trial)
                    self._say(f"the service holds incident {record.id} ({record.state}): waiting for its end")
                else:
                    held_since = None
                    report = self._gone(scene, seen, record, trial) or await self._look(scene, seen, trial, step)
                    over = trial.over or (trial.first is None and step >= latest)
                    if report is None and over:
                        report = self._report(self._last_word(scene, seen, trial), scene, trial)
                    if report:
                        return report
            except NotFound as error:
                gone = Verdict(Word.INSUFFICIENT, str(error))
                return self._report(gone, scene, trial, outcome=Outcome.SUPERSEDED, detail="it was deleted")
            except Denied:
                raise
            except ClusterError as error:
                if loop.time() - answered > _PATIENCE_S:
                    raise
                self._say(f"{error}: this step waits")
            step = max(step + 1, math.floor(self._now().timestamp() / task.step_s))
            await asyncio.sleep(max(0.0, step * task.step_s - self._now().timestamp()))

    async def _look(self, scene: Scene, seen: Look, trial: Trial, step: int) -> Report | None:
        """Take a step in, and end where it is a breach or proven to be none."""
        now = self._now()
        if by := scene.condemned(seen):
            verdict = Verdict(Word.BREACH, f"it was condemned by incident {by}", cause="condemned-image")
            return await self._breach(scene, verdict, trial)
        condition = self._condition(scene, seen, now)
        if condition and condition.word is Word.BREACH:
            return await self._breach(scene, condition, trial)
        await self._feed(scene, seen, trial, step)
        verdict = trial.verdict()
        if verdict.word is Word.BREACH:
            return await self._breach(scene, verdict, trial)
        return self._report(verdict, scene, trial) if verdict.word is Word.HEALTHY and not trial.over else None

    async def _feed(self, scene: Scene, seen: Look, trial: Trial, step: int) -> None:
        """Read every step that the trial has not had, as one question per signal, and feed them in order."""
        task, first = self._task, trial.next_step
        if step < first:
            return
        owners, named = scene.sides(seen)
        now = self._now().timestamp()
        self._pods = facts.update(self._pods, seen.pods, owners, since=first, step=step, step_s=task.step_s, now=now)
        names = sorted({pod.name for pod in self._pods})
        few = names if first == step and len(names) < _FEW_PODS else ()
        found: dict[str, Sequence[Reading]] = {}
        for name, signal in task.signals.items():
            query = query_of(signal, {task.workload.namespace}, () if signal.join else few)
            if first == step:
                found[name] = (await self._ports.signals.read(query, step=step, timeout_s=self._ports.query_s),)
            else:
                found[name] = await self._ports.signals.read_past(query, first=first, last=step, timeout_s=_PAST_S)
        pods: tuple[PodFact, ...] = self._pods
        if first < step:
            past = next(iter(found.values()))
            begun = first * task.step_s
            pods = facts.by_name(pods, past, named, namespace=task.workload.namespace, begun=begun, step_s=task.step_s)
            there = {pod.metadata.name for pod in seen.pods}
            gone = {pod.name for pod in pods} - {pod.name for pod in self._pods} - there
            self._pods = pods = tuple(
                replace(pod, gone=now, gone_step=step) if pod.name in gone else pod for pod in pods
            )
        for index in range(step - first + 1):
            trial.feed({name: readings[index] for name, readings in found.items()}, pods)
            if trial.over or trial.verdict().word is Word.BREACH:
                break
        self._tell(trial.numbers())

    def _condition(self, scene: Scene, seen: Look, now: dt.datetime) -> Verdict | None:
        rule = self._task.policy.conditions
        if not rule.enabled:
            return None
        candidate = scene.pods(seen, Track.CANDIDATE)
        begun = dt.datetime.fromtimestamp(began(scene, seen, now=now.timestamp()), tz=dt.UTC)
        shown = conditions.Seen(
            deployment=seen.deployment,
            candidate=candidate,
            stable=scene.pods(seen, Track.STABLE),
            stable_template=scene.stable_template(seen),
            begun=begun,
            pulls_fail_elsewhere=False,
        )
        settings = conditions.Settings(
            crash_restarts=rule.crash_restarts,
            crash_share=rule.crash_share,
            image_pull_s=float(rule.image_pull),
        )
        return conditions.judge(shown, settings, now=now)

    def _last_word(self, scene: Scene, seen: Look, trial: Trial) -> Verdict:
        """The verdict when the time is up."""
        condition = self._condition(scene, seen, self._now())
        verdict = trial.verdict(over=True)
        if condition and verdict.word is not Word.HEALTHY:
            return condition
        status = rollout_status(seen.deployment)
        if verdict.word is Word.HEALTHY and status.progress is not Progress.COMPLETE:
            self._notes.append(f"the rollout is not complete: {status.detail}")
        return verdict

    # -- beside others -------------------------------------------------------------------------------------------------

    async def _record(self, scene: Scene) -> Record | None:
        """What the running service keeps of this version; nothing where we may not read it."""
        if not self._reads_records:
            return None
        try:
            return await self._ports.store.get(scene.rollout.incident, timeout_s=self._ports.request_s)
        except Denied:
            self._reads_records = False
            self._notes.append("the service's records may not be read: what it does is seen by its marks only")
        return None

    def _gone(self, scene: Scene, seen: Look, record: Record | None, trial: Trial | None) -> Report | None:
        """Whether this version is over: by the service, or because somebody else replaced it."""
        rollout, live = scene.rollout, seen.live
        if record and record.state is State.ENDED:
            if record.outcome in _ACTED:
                return self._by_service(scene, record.outcome, record.detail, trial)
            if record.outcome is Outcome.FAILED:
                verdict = Verdict(Word.BREACH, record.detail, cause="service")
                return self._report(verdict, scene, trial, outcome=Outcome.FAILED, detail=record.detail, service=True)
            if record.people and record.people[-1].answer == "dismiss":
                verdict = Verdict(Word.BREACH, record.detail, cause="service")
                return self._report(verdict, scene, trial, outcome=Outcome.REFUSED, detail=record.detail, service=True)
        if scene.condemned(seen) == rollout.incident:
            detail = f"incident {rollout.incident} has condemned it"
            return self._by_service(scene, None, detail, trial)
        mark = marks.read_last_rollback(seen.deployment.metadata.annotations)
        mine = mark is not None and mark.incident == rollout.incident
        replaced = seen.deployment.metadata.uid != rollout.uid or (not isinstance(live, Refused) and live != rollout)
        waiting = isinstance(live, Refused) and scene.replicaset(seen) is not seen.history.live
        if mark and mine and mark.by == MANAGER:
            return self._by_service(scene, Outcome.ROLLED_BACK, f"the service acted: {mark.cause}", trial)
        if not replaced and not waiting:
            return None
        by = f"{mark.by} rolled it back" if mark and mine else "someone else replaced it"
        what = f"revision {live.revision} ({live.hash})" if not isinstance(live, Refused) else "a newer version"
        detail = f"{by}: {what} is live now"
        return self._report(
            Verdict(Word.INSUFFICIENT, detail), scene, trial, outcome=Outcome.SUPERSEDED, detail="nothing was changed"
        )

    def _by_service(self, scene: Scene, outcome: Outcome | None, detail: str, trial: Trial | None) -> Report:
        verdict = Verdict(Word.BREACH, f"condemned in incident {scene.rollout.incident}", cause="service")
        return self._report(verdict, scene, trial, outcome=outcome, detail=detail, service=True)

    # -- ends ----------------------------------------------------------------------------------------------------------

    async def _breach(self, scene: Scene, verdict: Verdict, trial: Trial) -> Report:
        """Act, where that is asked for; whoever changed the workload meanwhile has won."""
        task, actor, ref = self._task, self._ports.actor, self._task.workload
        if task.action is None:
            return self._report(verdict, scene, trial, detail="no action was asked for")
        if verdict.doubts:
            doubt = verdict.doubts[0]
            return self._report(verdict, scene, trial, detail=f"nothing was changed, {doubt.guard}: {doubt.detail}")
        why = f"gate: {verdict.detail}"
        request = Request(
            cause=Cause(task.cause.by, f"{task.cause.reason} ({why})" if task.cause.reason else why),
            rollout=scene.rollout,
            gitops_act=task.policy.gitops is GitOps.ACT,
        )
        try:
            match task.action:
                case Action.UNDO:
                    result = await actor.undo(ref, request, dry_run=task.dry_run, condemned=True)
                case Action.SCALE_DOWN:
                    result = await actor.scale_down(ref, request, dry_run=task.dry_run)
                case _:
                    result = await actor.pause(ref, request, dry_run=task.dry_run)
        except ClusterError as error:
            result = Result(outcome=Outcome.FAILED, detail=str(error))
        if result.refused and result.refused.guard in (Guard.SUPERSEDED, Guard.NOTHING_TO_UNDO):
            seen = await look(self._ports.cluster, ref, task.stable, timeout_s=self._ports.request_s)
            if report := self._gone(scene, seen, await self._record(scene), trial):
                return report
        detail = f"dry run, nothing was changed: {result.detail}" if task.dry_run else result.detail
        return self._report(verdict, scene, trial, outcome=result.outcome, detail=detail, result=result)

    @staticmethod
    def _blind(reason: BlindReason, detail: str) -> Verdict:
        return Verdict(Word.BLIND, detail, blind=Blind(reason, detail))

    def _report(
        self,
        verdict: Verdict,
        scene: Scene | None,
        trial: Trial | None = None,
        *,
        outcome: Outcome | None = None,
        detail: str = "",
        service: bool = False,
        result: Result | None = None,
    ) -> Report:
        first = trial.first if trial else None
        return Report(
            workload=self._task.workload,
            verdict=verdict,
            rollout=scene.rollout if scene else None,
            outcome=outcome or (Outcome.PASSED if verdict.word is Word.HEALTHY else None),
            detail=detail,
            service=service,
            result=result,
            numbers=trial.numbers() if trial else (),
            images=scene.images if scene else {},
            notes=tuple(self._notes),
            began=dt.datetime.fromtimestamp(first * self._task.step_s, tz=dt.UTC) if first else None,
            ended=self._now(),
        )
