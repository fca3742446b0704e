"""From verdicts to the verified end: what each step's numbers do to the rollouts under watch (DESIGN §5, §6).

Breaches of one step are all noted before the first is acted on, so that the breaker sees them together. Nothing waits
for a record, an Event or Slack on the way to the write: the patch itself carries the mark.
"""

import asyncio
import datetime as dt
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

import msgspec

from watchdog.config import Confirm, Policy
from watchdog.decide import guards, incident, limits, marks, templates
from watchdog.decide.incident import Happening
from watchdog.decide.limits import Facts, SafetyLimits
from watchdog.decide.patches import add, annotation, encode, test
from watchdog.decide.plan import Request
from watchdog.decide.record import DecisionCounts, Planned, Record, State, VerdictSeen
from watchdog.decide.revisions import read_history
from watchdog.decide.target import service_target
from watchdog.engine import recovery, wording
from watchdog.engine.context import Context, wrote
from watchdog.engine.polling import Polled
from watchdog.engine.switching import Switcher
from watchdog.engine.verify import Stuck
from watchdog.engine.watch import judge_conditions
from watchdog.errors import ClusterError, NotFound
from watchdog.judge import conditions
from watchdog.judge.blocks import BlindReason, Status, Verdict
from watchdog.judge.conditions import Observed
from watchdog.judge.verdict import combine
from watchdog.metrics import Part
from watchdog.model import (
    MANAGER,
    Action,
    Cause,
    EventReason,
    Guard,
    IncidentId,
    Mode,
    Objection,
    Outcome,
    Plan,
    Result,
    ScaleDown,
    ScaleUp,
    SwitchBack,
    Undo,
)
from watchdog.objects import HASH_LABEL, Pod, ReplicaSet, Snapshot, TemplateHash

_log = logging.getLogger(__name__)

_ACTED = {Outcome.ROLLED_BACK, Outcome.SCALED_DOWN, Outcome.SWITCHED_BACK}


class Incidents:
    """Takes verdicts and carries incidents to their end.

    Args:
        context: what the loops share.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._busy: set[str] = set()
        self._alerted: dict[str, float] = {}
        self._pulls_fail: set[str] = set()
        self._blind: dict[str, BlindReason | None] = {}
        self._shown: dict[str, dict[tuple[str, str, str, str], tuple[float, float]]] = {}
        settings = context.config.limits
        self._limits = SafetyLimits(
            budget=settings.budget,
            cool_down=dt.timedelta(seconds=settings.cool_down),
            breaker=settings.breaker,
            breaker_all=settings.breaker_all,
            breaker_window=dt.timedelta(seconds=settings.breaker_window),
        )

    # -- a step --------------------------------------------------------------------------------------------------------

    def judge(self, seen: Sequence[Polled]) -> None:
        """Take in what a step showed of some rollouts; nothing here waits for anything."""
        context = self._context
        for item in seen:
            self._note_pulls(item)
        breaches = [(item, verdict) for item in seen if (verdict := self._judged(item))]
        going = {record.id for record in context.open()}
        self._pulls_fail &= going
        for memory in (self._blind, self._shown):
            for ended in memory.keys() - going:
                memory.pop(ended, None)
        context.metrics.watching(tuple(self._blind.values()))
        context.metrics.evidence({key: value for each in self._shown.values() for key, value in each.items()})
        for item, verdict in breaches:
            self._start(item.record.id, self._decide(item, verdict))

    def _note_pulls(self, item: Polled) -> None:
        """Remember whether images cannot be pulled, before others are judged by that, too."""
        try:
            fails = any(map(conditions.failing_pull, item.candidates))
        except Exception as error:
            self._context.faults.note(Part.JUDGE, error, about=item.record.id)
        else:
            (self._pulls_fail.add if fails else self._pulls_fail.discard)(item.record.id)

    def _judged(self, item: Polled) -> Verdict | None:
        """The breach of a rollout, where it is one; a fault costs this rollout this step, and no other one anything."""
        name, faults = item.record.id, self._context.faults
        try:
            found = self._judge_one(item)
        except Exception as error:
            faults.note(Part.JUDGE, error, about=name)
            return None
        faults.over(Part.JUDGE, name)
        return found

    def _judge_one(self, item: Polled) -> Verdict | None:
        record, ref = self._context.records[item.record.id], item.watch.ref
        if record.id in self._busy:
            return None
        self._blind[record.id] = None
        self._shown[record.id] = {
            (ref.namespace, ref.name, name, each.control): (each.log_e, each.bar)
            for name, stands in item.watch.evidence().items()
            for each in stands
        }
        if record.state not in (State.WATCHING, State.BREACH):
            self._go_on(item)
            return None
        verdict = self.verdict(item)
        self._blind[record.id] = verdict.blind.reason if verdict.blind else None
        self._note(record, verdict, item)
        return verdict if verdict.status is Status.BREACH else None

    def verdict(self, item: Polled) -> Verdict:
        """What is to be thought of a rollout now."""
        context, record = self._context, self._context.records[item.record.id]
        deployment = context.deployment(record.workload)
        policy, now = item.watch.policy, context.now()
        match = context.fleet.match(record.workload)
        linked = [ref for ref in (record.workload, match.other if match else None) if ref]
        others = (each for ref in linked for each in context.about(ref) if each.id != record.id)
        found = limits.condemned_images(others, linked, now=now)
        images = [
            f"{name}: {image} ({found[name, image]})" for name, image in record.images.items() if (name, image) in found
        ]
        condition = None
        if deployment:
            seen = Observed(
                deployment=deployment,
                candidate=item.candidates,
                stable=item.stables,
                stable_template=item.stable_template,
                begun=record.started,
                pulls_fail_elsewhere=bool(self._pulls_fail - {record.id}),
            )
            condition = judge_conditions(policy, seen, now=now)
        over = record.completed is not None and now - record.completed >= dt.timedelta(seconds=policy.bake)
        alerts = ", ".join(alert.name or alert.fingerprint for alert in record.alerts if alert.what == "attributed")
        trusted = policy.alerts.confirm is Confirm.TRUST or not policy.signals
        return combine(
            condition,
            item.watch.verdicts(urgent=record.urgent, baked=over),
            condemned_image="; ".join(images),
            alert_trusted=f"alert {alerts} fires since the rollout began" if alerts and trusted else "",
            bake_over=over,
        )

    def _note(self, record: Record, verdict: Verdict, item: Polled) -> None:
        """Keep a verdict that differs from the one before, and end what is over."""
        context, now = self._context, self._context.now()
        record = context.remember(_numbered(context.records[record.id], item))
        last = record.verdicts[-1] if record.verdicts else None
        shown = verdict.blind.detail if verdict.blind else verdict.detail
        about = str(verdict.blind.reason) if verdict.blind else verdict.cause
        if last is None or (last.status, last.cause, last.signal) != (str(verdict.status), about, verdict.signal):
            seen = VerdictSeen(now, str(verdict.status), shown, about, verdict.signal)
            record = context.put(msgspec.structs.replace(record, verdicts=(*record.verdicts, seen)))
            context.metrics.verdict(record.policy, verdict.status)
            fields = _fields(record, "verdict") | {"verdict": str(verdict.status)}
            _log.info("%s: %s", verdict.status, shown, extra=fields)
            if verdict.blind:
                why = f"{verdict.blind.reason}: {shown}"
                context.note(record, EventReason.BLIND, why, suffix=f"-{verdict.blind.reason}")
        if verdict.status is Status.BREACH:
            if record.state is State.WATCHING:
                context.put(incident.advance(record, Happening.BREACH, now=now), notify=False)
            return
        if (note := item.watch.note) and all(note != each.detail for each in record.verdicts):
            noted = VerdictSeen(now, str(verdict.status), note, about, verdict.signal)
            record = context.put(msgspec.structs.replace(record, verdicts=(*record.verdicts, noted)))
            _log.info("%s", note, extra=_fields(record, "note"))
        if record.state is State.BREACH:
            record = context.put(incident.advance(record, Happening.CLEARED, now=now))
        self._maybe_end(record, verdict, item)

    def _maybe_end(self, record: Record, verdict: Verdict, item: Polled) -> None:
        context, policy, now = self._context, item.watch.policy, self._context.now()
        over = record.completed is not None and now - record.completed >= dt.timedelta(seconds=policy.bake)
        if verdict.status is Status.HEALTHY:
            record = context.put(incident.end(record, Outcome.PASSED, verdict.detail, now=now))
            if record.mode is not Mode.OBSERVE:
                context.spawn(Part.INCIDENT, self._mark_passed(record, item, now), about=record.id)
            context.note(record, EventReason.PASSED, verdict.detail, warning=False)
        elif over or now - record.started >= dt.timedelta(seconds=policy.max_watch):
            why = verdict.blind.detail if verdict.blind else verdict.detail
            if not over:
                why = f"not complete within max_watch; {why}"
            record = context.put(incident.end(record, Outcome.UNJUDGED, why, now=now))
            context.note(record, EventReason.UNJUDGED, why, warning=False)

    async def _mark_passed(self, record: Record, item: Polled, now: dt.datetime) -> None:
        name = next((each.metadata.name for each in item.replicasets if each.hash == record.rollout.hash), None)
        if name is None:
            return
        value = marks.write_about(record.rollout.hash, f"{now:%Y-%m-%dT%H:%M:%SZ}")
        patch = encode(
            (test(f"/metadata/labels/{HASH_LABEL}", record.rollout.hash), add(annotation(marks.PASSED), value))
        )
        try:
            await self._context.ports.cluster.patch_replicaset(
                record.workload.namespace, name, patch, timeout_s=self._context.request_s
            )
        except ClusterError as error:
            _log.warning("not marked as passed: %s", error, extra=_fields(record, "not-marked"))

    def _start(self, name: IncidentId, work: Coroutine[Any, Any, None]) -> None:
        """Have one thing at a time done about a rollout."""
        if name in self._busy:
            work.close()
            return
        self._busy.add(name)
        self._context.spawn(Part.INCIDENT, self._finally(name, work), about=name)

    async def _finally(self, name: IncidentId, work: Coroutine[Any, Any, None]) -> None:
        """Do it; a fault is tried again at a later step, with growing pauses."""
        pause_s = 0.0
        try:
            await work
            self._context.faults.over(Part.INCIDENT, name)
        except ClusterError as error:
            fields = {"event": "incident-waits", "incident": name}
            _log.warning("incident waits for the next step: %s", error, extra=fields)
        except Exception as error:
            pause_s = self._context.faults.note(Part.INCIDENT, error, about=name)
        finally:
            if pause_s:
                asyncio.get_running_loop().call_later(pause_s, self._busy.discard, name)
            else:
                self._busy.discard(name)

    # -- alerts and answers --------------------------------------------------------------------------------------------

    def evaluate_now(self, item: Polled, *, arrived: float) -> None:
        """Judge a rollout now, with the evidence that is already in, since an alert speaks for it."""
        record = self._context.records[item.record.id]
        if record.state not in (State.WATCHING, State.BREACH) or record.id in self._busy:
            return
        verdict = self.verdict(item)
        if verdict.status is Status.BREACH:
            self._alerted[record.id] = arrived
            if record.state is State.WATCHING:
                seen = VerdictSeen(self._context.now(), "breach", verdict.detail, verdict.cause, verdict.signal)
                record = msgspec.structs.replace(_numbered(record, item), verdicts=(*record.verdicts, seen))
                self._context.metrics.verdict(record.policy, verdict.status)
                self._context.put(incident.advance(record, Happening.BREACH, now=self._context.now()), notify=False)
            self._start(record.id, self._decide(item, verdict))

    def answered(self, record: Record) -> None:
        """A person has answered, or a record was rebuilt: go on with it."""
        if record.state is State.ASKING and record.people:
            self._start(record.id, self._answer(record))
        elif record.state in (State.ACTING, State.VERIFYING):
            self._start(record.id, self._resume(record))

    async def _answer(self, record: Record) -> None:
        context, record = self._context, self._context.records[record.id]
        if record.state is not State.ASKING:
            return  # superseded meanwhile
        said = record.people[-1]
        if said.answer == "dismiss":
            await self._refuse(record, f"dismissed by {said.by}")
        else:
            context.put(incident.advance(record, Happening.APPROVED, now=context.now()))
            await self._act(context.records[record.id], by=said.by)

    def _go_on(self, item: Polled) -> None:
        """What a rollout in one of the later states needs in a step."""
        record = self._context.records[item.record.id]
        match record.state:
            case State.ASKING if record.people:
                self._start(record.id, self._answer(record))
            case State.ASKING:
                self._context.remember(_numbered(record, item))
                limit = dt.timedelta(seconds=self._context.config.limits.approval)
                if record.asked and self._context.now() - record.asked >= limit:
                    self._start(record.id, self._refuse(record, f"nobody answered within {limit}"))
            case State.ACTING:
                self._start(record.id, self._resume(record))
            case State.VERIFYING if not record.verified:
                self._start(record.id, self._resume(record))
            case State.VERIFYING:
                self._start(record.id, self._recover(record, item))

    # -- deciding ------------------------------------------------------------------------------------------------------

    async def _decide(self, item: Polled, verdict: Verdict) -> None:
        """Ask the judgement guards; then act, ask a person, wait, or refuse where nothing may be done."""
        context = self._context
        record = context.records[item.record.id]
        facts = self._facts(record, verdict, item)
        if record.state is not State.BREACH:
            return  # superseded meanwhile, or found acted upon
        objections = limits.objections(record, facts, self._limits, now=context.now())
        record = incident.with_objections(record, *objections, now=context.now())
        context.note(record, EventReason.BREACH, verdict.detail)
        record = context.put(msgspec.structs.replace(record, plan=self._proposal(record, verdict, item)), notify=False)
        if record.mode is Mode.OBSERVE:
            context.metrics.refusal(Guard.MODE)
            await self._observe(record)
        elif not objections:
            context.put(incident.advance(record, Happening.ALLOWED, now=context.now()))
            await self._act(context.records[record.id], verdict=verdict, by="")
        elif all(objection.asks for objection in objections):
            for objection in objections:
                context.metrics.refusal(objection.guard)
            await self._ask(record, "; ".join(str(objection) for objection in objections))
        elif objections[0].guard in limits.WAITING:
            context.put(record)
        else:
            context.metrics.refusal(objections[0].guard)
            await self._refuse(record, str(objections[0]))

    def _proposal(self, record: Record, verdict: Verdict, item: Polled) -> Planned:
        """What is proposed, with the target that an undo would have by what the step showed."""
        proposed, deployment = _proposed(record, verdict), self._context.deployment(record.workload)
        if record.action is not Action.UNDO or deployment is None:
            return proposed
        target = self._target(record, Snapshot(deployment, item.replicasets))
        return proposed if isinstance(target, Objection) else _aimed(proposed, record, target[0])

    async def _observe(self, record: Record) -> None:
        """End a breach in mode `observe` with what would have been done; nothing is written, not even as a dry run."""
        context = self._context
        try:
            foreseen = await self._foreseen(record)
        except ClusterError as error:
            _log.warning("what would be written is not known: %s", error, extra=_fields(record, "not-foreseen"))
            foreseen = None
        record, now = context.records[record.id], context.now()
        if record.state is not State.BREACH:
            return  # superseded meanwhile
        if isinstance(foreseen, Undo | ScaleDown | SwitchBack):
            record = msgspec.structs.replace(record, plan=self._planned(record, foreseen))
        elif isinstance(foreseen, Objection) and foreseen.guard is Guard.SUPERSEDED:
            await self._end(record, Outcome.SUPERSEDED, str(foreseen))
            return
        elif isinstance(foreseen, Objection):
            asks = foreseen.guard is Guard.TARGET_NOT_PASSED
            record = incident.with_objections(record, msgspec.structs.replace(foreseen, asks=asks), now=now)
        why = _would(record)
        await self._end(record, Outcome.OBSERVED, why)
        context.note(context.records[record.id], EventReason.REFUSED, why, suffix=f"-{Guard.MODE}")

    async def _foreseen(self, record: Record) -> Plan | SwitchBack | ScaleUp | Objection:
        """What the action would write now, or which guard of the action itself would refuse it."""
        cause = Cause(MANAGER, record.plan.cause if record.plan else "")
        gitops_act = self._policy(record).gitops.value == "act"
        if record.action is Action.SWITCH_BACK:
            return await self._switcher.foresee(record, cause, gitops_act=gitops_act)
        request = Request(cause=cause, rollout=record.rollout, gitops_act=gitops_act)
        choose = self._chooser(record, approved=False)
        return await self._context.ports.actor.foresee(record.action, record.workload, request, choose=choose)

    async def _ask(self, record: Record, why: str) -> None:
        """Ask a person, about one target: an approval holds for no other (DESIGN §6).

        Raises:
            ClusterError: the target is not known; the incident stays in breach, and is decided anew with the next step.
        """
        context = self._context
        record = context.put(record, notify=False)
        if record.action is Action.UNDO:
            target = self._target(record, await context.ports.actor.look(record.workload))
            record = context.records[record.id]
            if record.state is not State.BREACH:
                return  # superseded meanwhile
            if isinstance(target, Objection):
                await self._end(record, Outcome.REFUSED, str(target))
                return
            plan = _aimed(record.plan or _proposed(record, Verdict(Status.BREACH, "")), record, target[0])
            record = msgspec.structs.replace(record, plan=plan)
        asking = incident.advance(record, Happening.LOWERED, now=context.now())
        context.put(msgspec.structs.replace(asking, detail=why))

    def _facts(self, record: Record, verdict: Verdict, item: Polled) -> Facts:
        context, policy = self._context, item.watch.policy
        silences = context.silences
        if context.ports.alerts and silences is None:
            _log.warning("no Alertmanager tells of silences; going on", extra=_fields(record, "silences-unknown"))
        live = next((each for each in item.replicasets if each.hash == record.rollout.hash), None)
        condemned = marks.condemned_by(live) if live else None
        deployment = context.deployment(record.workload)
        blind = [each.blind for each in item.watch.verdicts(urgent=False) if each.blind]
        objections = tuple(_on_node(each, item.candidates) for each in verdict.objections)
        return Facts(
            verdict=msgspec.structs.replace(verdict, objections=objections),
            others=context.others(record),
            claimed=self._claimed(record),
            silences=tuple(each for each in silences or () if each.until > context.now()),
            condemned_by=condemned if condemned and condemned != record.id else "",
            gitops=deployment is not None and guards.gitops(deployment) is not None,
            signals_blind=blind[0].detail if blind and verdict.cause == "alert" else "",
            confirmed=verdict.cause != "alert" or policy.alerts.confirm is Confirm.TRUST,
            target_passed=not self._doubtful(record),
        )

    def _claimed(self, record: Record) -> dt.datetime | None:
        """When a mark says that the service acted here last, if no record does: it counts like one."""
        deployment, now = self._context.deployment(record.workload), self._context.now()
        mark = deployment and marks.read_last_rollback(deployment.metadata.annotations, now=now)
        unknown = mark and mark.by_us and mark.incident != record.id and mark.incident not in self._context.records
        return mark.at if mark and unknown else None

    def _doubtful(self, record: Record) -> bool:
        """Whether the colour of before is not known to be good: it was switched to as well, and that did not pass."""
        about = (record.stable, record.stable_hash)
        mine = [each for each in self._context.others(record) if (each.workload, each.rollout.hash) == about]
        newest = max(mine, key=lambda each: each.started, default=None)
        return record.switched is not None and newest is not None and newest.outcome is not Outcome.PASSED

    async def _refuse(self, record: Record, why: str) -> None:
        context, objections = self._context, record.objections
        record = context.records[record.id]
        if record.state is State.ENDED:
            return  # superseded meanwhile
        record = incident.with_objections(record, *objections, now=context.now())
        guard = next((objection.guard for objection in record.objections), "")
        why = why if not guard or why.startswith(guard) else f"{guard}: {why}"
        record = context.put(incident.end(record, Outcome.REFUSED, why, now=context.now()))
        context.metrics.action(record.action, Outcome.REFUSED, cause=record.plan.cause if record.plan else "")
        context.note(record, EventReason.REFUSED, why, suffix=f"-{guard}" if guard else "")

    # -- acting --------------------------------------------------------------------------------------------------------

    async def _act(self, record: Record, *, by: str, verdict: Verdict | None = None) -> None:
        """Carry the action out. `by` is who approved it; the physical and policy guards bind all the same."""
        context, actor = self._context, self._context.ports.actor
        if record.mode is Mode.OBSERVE:
            await self._end(record, Outcome.REFUSED, f"{Guard.MODE}: it was lowered to observe before the write")
            return
        cause = record.plan.cause if record.plan else ""
        reason = verdict.detail if verdict else (record.verdicts[-1].detail if record.verdicts else cause)
        request = Request(
            cause=Cause(MANAGER, f"{reason}{f'; approved by {by}' if by else ''}"),
            rollout=record.rollout,
            gitops_act=self._policy(record).gitops.value == "act",
            nonce=context.nonce(record.id),
        )
        record = context.records[record.id]
        ref = record.workload
        try:
            if record.action is Action.SCALE_DOWN:
                result = await actor.scale_down(ref, request, verify=False, attempts=1)
            elif record.action is Action.PAUSE:
                result = await actor.pause(ref, request, attempts=1)
            elif record.action is Action.SWITCH_BACK:
                result = await self._switcher.switch_back(
                    record, request.cause, nonce=request.nonce, gitops_act=request.gitops_act
                )
            else:
                choose = self._chooser(record, approved=bool(by))
                result = await actor.undo(ref, request, verify=False, condemned=True, choose=choose, attempts=1)
        except NotFound as error:
            await self._deleted(record, error)
            return
        except ClusterError as error:
            if error.may_pass and not error.writing:
                raise  # nothing was asked of the workload yet: the next step looks again
            await self._try_again(context.records[record.id], error)
            return
        await self._written(context.records[record.id], result, request)

    async def _try_again(self, record: Record, error: ClusterError) -> None:
        """After a write that was not accepted: wait and go on, or end `failed` where it has been tried long enough."""
        context, now = self._context, self._context.now()
        limit = dt.timedelta(seconds=context.config.rollback.timeout)
        tried, pause_s = incident.try_again(record, error, now=now, limit=limit)
        record = msgspec.structs.replace(record, tried=tried)
        if pause_s is None:
            took = (
                f"{tried.times} tries in {(now - tried.since).total_seconds():.0f} s" if tried.times > 1 else "one try"
            )
            await self._end(record, Outcome.FAILED, f"not done after {took}: {error}")
            return
        detail = f"{error.reason}; tried again until {tried.until:%H:%M:%S} UTC"
        record = context.put(msgspec.structs.replace(record, detail=detail))
        _log.warning("%s; again in %.0f s", error, pause_s, extra=_fields(record, "write-refused"))
        await asyncio.sleep(pause_s)
        record = context.records[record.id]
        if record.state is not State.ACTING:
            return  # superseded meanwhile
        await self._resume(record)

    async def _written(self, record: Record, result: Result, request: Request) -> None:
        context, now = self._context, self._context.now()
        if record.state is State.ENDED:
            return  # superseded meanwhile
        if result.refused:
            if isinstance(result.plan, ScaleUp):
                record = context.put(wrote(record, result.detail, at=now), notify=False)
            await self._not_written(record, result.refused)
            return
        if arrived := self._alerted.pop(record.id, None):
            context.metrics.alert_to_write_seconds.observe(asyncio.get_running_loop().time() - arrived)
        newest = max(
            (pod_step for blocks in record.blocks.values() for pod_step in [blocks[-1].step] if blocks), default=0
        )
        if newest:
            delay = now.timestamp() - newest * context.config.step_s
            context.metrics.sample_to_write_seconds.observe(max(0.0, delay))
        written = incident.advance(record, Happening.WRITTEN, now=now)
        written = wrote(msgspec.structs.replace(written, write_at=now, detail=result.detail), result.detail, at=now)
        plan = result.plan
        if isinstance(plan, Undo | ScaleDown | SwitchBack):
            written = msgspec.structs.replace(written, plan=self._planned(record, plan))
        record = context.put(written)
        if not isinstance(plan, Undo | ScaleDown | SwitchBack):
            await self._end(record, Outcome.PAUSED, result.detail)
        elif result.outcome is Outcome.SUPERSEDED:
            await self._end(record, Outcome.SUPERSEDED, result.detail)
        else:
            await self._verify(record, plan, request, resumed=False)

    async def _not_written(self, record: Record, refused: Objection) -> None:
        context, now = self._context, self._context.now()
        record = incident.with_objections(record, refused, now=now)
        context.metrics.refusal(refused.guard)
        if refused.guard in (Guard.NOT_OBSERVED, Guard.NO_CAPACITY):
            context.put(incident.advance(record, Happening.WAIT, now=now))
        elif refused.guard is Guard.TARGET_NOT_PASSED:
            await self._ask(incident.advance(record, Happening.WAIT, now=now), str(refused))
        elif refused.guard is Guard.SUPERSEDED:
            await self._end(record, Outcome.SUPERSEDED, str(refused))
        else:
            await self._end(record, Outcome.REFUSED, str(refused))

    def _target(self, record: Record, snapshot: Snapshot) -> tuple[ReplicaSet, bool] | Objection:
        """Where an undo of this rollout goes, and whether that is known to be good."""
        context = self._context
        doubtful = {
            each.rollout.hash
            for each in context.about(record.workload)
            if each.id != record.id and each.outcome not in (Outcome.PASSED, Outcome.SUPERSEDED)
        }
        cut_short = {each.rollout.hash for each in context.about(record.workload) if each.outcome is Outcome.SUPERSEDED}
        return service_target(
            snapshot.deployment,
            read_history(snapshot),
            begun_from=record.stable_hash,
            doubtful=doubtful,
            cut_short=cut_short,
            bake=dt.timedelta(seconds=self._policy(record).bake),
            began=record.started,
            now=context.now(),
        )

    def _chooser(self, record: Record, *, approved: bool) -> Callable[[Snapshot], int | Objection]:
        def choose(snapshot: Snapshot) -> int | Objection:
            if approved and record.plan and record.plan.to_hash:
                agreed = [item for item in read_history(snapshot).numbered if item.hash == record.plan.to_hash]
                gone = f"revision {record.plan.to_revision}, which was approved, is gone"
                return agreed[0].revision or 0 if agreed else Objection(Guard.NO_TARGET, gone)
            found = self._target(record, snapshot)
            if isinstance(found, Objection):
                return found
            target, passed = found
            if not passed:
                why = f"revision {target.revision}, which was live before, is not known to be good"
                return Objection(Guard.TARGET_NOT_PASSED, why)
            return target.revision or 0

        return choose

    # -- after the write -----------------------------------------------------------------------------------------------

    async def _resume(self, record: Record) -> None:
        """Find out what an earlier process, or a lost answer, left behind, and finish it."""
        context = self._context
        if context.fleet.match(record.workload) is None and all(
            each.name != record.policy for each in context.config.policies
        ):
            await self._end(record, Outcome.SUPERSEDED, "no policy matches the Deployment any more")
            return
        try:
            plan = await self._found(record)
        except NotFound as error:
            await self._deleted(record, error)
            return
        request = Request(cause=Cause(MANAGER, record.plan.cause if record.plan else ""), rollout=record.rollout)
        record = context.records[record.id]
        if plan is not None:
            if record.state is State.ACTING:
                mark = marks.read_last_rollback({marks.LAST_ROLLBACK: plan.mark}, now=context.now())
                now = mark.at if mark else context.now()
                written = incident.advance(record, Happening.WRITTEN, now=now)
                done = wording.switched_back(plan) if isinstance(plan, SwitchBack) else wording.planned(plan)
                written = msgspec.structs.replace(
                    written, write_at=now, plan=self._planned(record, plan), detail=done.detail
                )
                record = context.put(wrote(written, "found written after an interruption", at=now))
            await self._verify(record, plan, request, resumed=True)
        elif record.action is Action.PAUSE and self._paused_by(record):
            written = incident.advance(record, Happening.WRITTEN, now=context.now())
            await self._end(context.put(written), Outcome.PAUSED, "paused, found so after an interruption")
        elif record.state is State.ACTING and not record.write_at:
            await self._act(record, by=record.people[-1].by if record.people else "")
        else:
            what = "Service" if record.switched else "Deployment"
            why = f"the {what} was changed by someone else after the action"
            await self._end(record, Outcome.SUPERSEDED, why)

    async def _found(self, record: Record) -> Undo | ScaleDown | SwitchBack | None:
        """What this incident's action wrote, if it still stands."""
        if record.action is Action.SWITCH_BACK:
            return await self._switcher.written(record)
        return await self._context.ports.actor.written(record.rollout, proofs=record.proofs)

    @property
    def _switcher(self) -> Switcher:
        switcher = self._context.ports.switcher
        assert switcher is not None  # noqa: S101  (whoever watches Services has one)
        return switcher

    def _paused_by(self, record: Record) -> bool:
        deployment = self._context.deployment(record.workload)
        mark = deployment and marks.read_pause(deployment.metadata.annotations, record.rollout.hash)
        return bool(
            deployment
            and deployment.spec.paused
            and mark
            and mark[0] == record.id
            and marks.proves(mark[1], record.rollout, record.proofs)
        )

    async def _verify(
        self, record: Record, plan: Undo | ScaleDown | SwitchBack, request: Request, *, resumed: bool
    ) -> None:
        if isinstance(plan, SwitchBack):
            result = await self._switcher.finish(record, plan, request.cause, resumed=resumed)
        else:
            result = await self._context.ports.actor.finish(plan, request, resumed=resumed, stuck=self._stuck(record))
        record = self._context.records[record.id]
        if result.outcome not in _ACTED:
            await self._end(record, result.outcome, "; ".join((result.detail, *result.pods)))
            return
        now = self._context.now()
        if isinstance(plan, Undo):
            record = await self._as_admitted(record, plan)
        record = self._context.put(
            msgspec.structs.replace(record, verified=result.detail, detail=result.detail, verified_at=now)
        )
        live = self._context.open_of(record.workload)
        if live and live.id != record.id:  # nobody polls two rollouts of one workload
            why = f"{result.detail}, then revision {live.rollout.revision} ({live.rollout.hash}) went live"
            await self._end(record, Outcome.SUPERSEDED, why)
            return
        if not self._policy(record).signals:
            await self._end(record, Outcome.RECOVERED, f"{result.detail}; no signal is configured to prove more")

    async def _as_admitted(self, record: Record, plan: Undo) -> Record:
        """The record with the hash of what an undo made live, which is not the target's where admission changed it.

        Without it nobody would find the restored pods, and the proof of recovery would never come.
        """
        try:
            snapshot = await self._context.ports.actor.look(record.workload)
        except ClusterError as error:
            _log.warning("the restored pods may not be found: %s", error, extra=_fields(record, "not-looked-at"))
            return record
        record, live = self._context.records[record.id], read_history(snapshot).live
        ours = live is not None and templates.same(live.spec.template, plan.template)
        if live is None or record.plan is None or not ours:
            return record
        return msgspec.structs.replace(record, plan=msgspec.structs.replace(record.plan, to_hash=live.hash))

    def _stuck(self, record: Record) -> Stuck | None:
        """Whom to tell, once in an incident, that pods of the target do not get ready."""
        context, about = self._context, record.id

        async def tell(pods: tuple[str, ...]) -> None:
            where = f"kubectl -n {record.workload.namespace} describe pods"
            why = f"not ready for a minute, still waited for: {'; '.join(pods) or 'no pods'}; look with: {where}"
            newest = context.put(msgspec.structs.replace(context.records[about], stuck="; ".join(pods), detail=why))
            _log.warning("%s", why, extra=_fields(newest, "stuck"))
            context.note(newest, EventReason.STUCK, why)

        return None if record.stuck else tell

    async def _recover(self, record: Record, item: Polled) -> None:
        """Is the signal healthy again?"""
        context = self._context
        waited = context.now() - (record.verified_at or record.write_at or record.started)
        patience = dt.timedelta(seconds=context.config.limits.recovery)
        found = recovery.proof(record, item, waited=waited, patience=patience)
        if found is None:
            return
        outcome, why = found
        if outcome is Outcome.INEFFECTIVE:
            await recovery.absolve_if_only_the_past_spoke(context, record, item)
        await self._end(record, outcome, why)
        if outcome is Outcome.INEFFECTIVE:
            context.note(context.records[record.id], EventReason.INEFFECTIVE, why)

    async def _deleted(self, record: Record, error: NotFound) -> None:
        await self._end(
            self._context.records[record.id], Outcome.SUPERSEDED, f"{error.operation}: deleted by someone else"
        )

    async def _end(self, record: Record, outcome: Outcome, why: str) -> None:
        context = self._context
        if context.records[record.id].state is State.ENDED:
            return  # superseded meanwhile
        record = context.put(incident.end(record, outcome, why, now=context.now()))
        self._alerted.pop(record.id, None)
        context.metrics.action(record.action, outcome, cause=record.plan.cause if record.plan else "")
        if outcome is Outcome.FAILED:
            context.note(record, EventReason.FAILED, why)  # where the action has told already, this is the same one

    def _planned(self, record: Record, plan: Undo | ScaleDown | SwitchBack) -> Planned:
        """What was written, and the images by which the bad version differs from the good one."""
        proposed = record.plan or _proposed(record, Verdict(Status.BREACH, ""))
        if isinstance(plan, Undo | SwitchBack):
            good = plan.target.images
            proposed = msgspec.structs.replace(
                proposed, to_revision=plan.target.number, to_hash=plan.target.hash, target_images=good
            )
        else:
            stable = self._context.deployment(record.stable) if record.stable else None
            good = templates.images(stable.spec.template) if stable else {}
        bad = {name: image for name, image in plan.live.images.items() if good.get(name) != image}
        condemned = {name: record.images.get(name, image) for name, image in bad.items()}
        return msgspec.structs.replace(proposed, condemned=condemned)

    def _policy(self, record: Record) -> Policy:
        match = self._context.fleet.match(record.workload)
        if match:
            return match.policy
        return next(each for each in self._context.config.policies if each.name == record.policy)


def _numbered(record: Record, item: Polled) -> Record:
    """The record with the evidence of the newest step; the blocks join it where it is saved."""
    return msgspec.structs.replace(record, blocks={}, evidence=item.watch.evidence(urgent=record.urgent))


def _on_node(objection: Objection, pods: Iterable[Pod]) -> Objection:
    """The objection about one pod, with its node: what people look at next."""
    nodes = {pod.metadata.name: pod.spec.node_name for pod in pods}
    pod = objection.detail.rpartition(" ")[2]
    if objection.guard != Guard.ONE_POD or not nodes.get(pod):
        return objection
    return msgspec.structs.replace(objection, detail=f"{objection.detail} on node {nodes[pod]}")


def _proposed(record: Record, verdict: Verdict) -> Planned:
    """What is proposed, before anybody has looked where an undo or a switch-back goes."""
    goes = record.action in (Action.UNDO, Action.SWITCH_BACK)
    return Planned(
        action=record.action,
        from_revision=record.rollout.revision,
        from_hash=record.rollout.hash,
        to_revision=0 if goes else record.rollout.revision,
        to_hash=TemplateHash("") if goes else record.rollout.hash,
        cause=verdict.cause,
        numbers=DecisionCounts(
            verdict.candidate.bad, verdict.candidate.total, verdict.stable.bad, verdict.stable.total
        ),
    )


def _aimed(proposed: Planned, record: Record, target: ReplicaSet) -> Planned:
    """What is proposed, with its target; never the version that is to be left."""
    if target.hash == record.rollout.hash:
        return proposed
    images = templates.images(target.spec.template)
    return msgspec.structs.replace(
        proposed, to_revision=target.revision or 0, to_hash=target.hash, target_images=images
    )


def _would(record: Record) -> str:
    """What would have come of a breach in another mode."""
    objections = [objection for objection in record.objections if objection.guard != Guard.MODE]
    waits = [objection for objection in objections if objection.guard in limits.WAITING]
    asks = [objection for objection in objections if objection.asks]
    refuses = [objection for objection in objections if objection not in (*waits, *asks)]
    plan = record.plan
    step = f" {plan.from_revision} → {plan.to_revision}" if plan and plan.action is Action.UNDO and plan.to_hash else ""
    for verb, objections in (("refused", refuses), ("asked before", asks), ("waited with", waits)):
        if objections:
            return f"would have {verb} this: {record.action}{step}; {objections[0]}"
    return f"would have done this: {record.action}{step}"


def _fields(record: Record, event: str) -> dict[str, str]:
    return {"event": event, "incident": record.id, "workload": str(record.workload)}
