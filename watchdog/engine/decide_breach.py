"""A breach is decided: the judgement guards are asked; then the service acts, asks a person, waits, or refuses."""

import datetime as dt
import logging
from collections.abc import Iterable

import msgspec

from watchdog.config import Confirm
from watchdog.decide import guards, incident, limits, marks
from watchdog.decide.incident import Happening
from watchdog.decide.limits import Facts, SafetyLimits
from watchdog.decide.record import Planned, Record, State
from watchdog.engine.carry_out import Executor, aimed
from watchdog.engine.context import Context
from watchdog.engine.polled import Polled
from watchdog.engine.settle import Settler, log_fields, proposal
from watchdog.errors import ClusterError
from watchdog.judge.blocks import Verdict
from watchdog.model import (
    Action,
    EventReason,
    Guard,
    Mode,
    Objection,
    Outcome,
    ScaleDown,
    SwitchBack,
    Undo,
)
from watchdog.objects import Pod, Snapshot

_log = logging.getLogger(__name__)


class Decider:
    """Decides breaches.

    Args:
        carry_out: does what was decided.
        settle: ends what nothing is to be done about.
    """

    def __init__(self, context: Context, carry_out: Executor, settle: Settler) -> None:
        self._context = context
        self._carry_out = carry_out
        self._settle = settle
        settings = context.config.limits
        self._limits = SafetyLimits(
            budget=settings.budget,
            cool_down=dt.timedelta(seconds=settings.cool_down),
            breaker=settings.breaker,
            breaker_all=settings.breaker_all,
            breaker_window=dt.timedelta(seconds=settings.breaker_window),
        )

    async def decide(self, item: Polled, verdict: Verdict) -> None:
        """Ask the judgement guards; then act, ask a person, wait, or refuse where nothing may be done."""
        context = self._context
        record = context.records[item.record.id]
        facts = self._facts(record, verdict, item)
        if record.state is not State.BREACH:
            return  # superseded meanwhile, or found acted upon
        objections = limits.objections(record, facts, self._limits, now=context.now())
        record = incident.with_objections(record, *objections, now=context.now())
        context.note(record, EventReason.BREACH, verdict.detail)
        record = context.put(msgspec.structs.replace(record, plan=self._proposed(record, verdict, item)), notify=False)
        if record.mode is Mode.OBSERVE:
            context.metrics.refusal(Guard.MODE)
            await self._observe(record)
        elif not objections:
            context.put(incident.advance(record, Happening.ALLOWED, now=context.now()))
            await self._carry_out.act(context.records[record.id], verdict=verdict, by="")
        elif all(objection.asks for objection in objections):
            for objection in objections:
                context.metrics.refusal(objection.guard)
            await self._carry_out.ask(record, "; ".join(str(objection) for objection in objections))
        elif objections[0].guard in limits.WAITING:
            context.put(record)
        else:
            context.metrics.refusal(objections[0].guard)
            self._settle.refuse(record, str(objections[0]))

    def _proposed(self, record: Record, verdict: Verdict, item: Polled) -> Planned:
        """What is proposed, with the target that an undo would have by what the step showed."""
        proposed, deployment = proposal(record, verdict), self._context.deployment(record.workload)
        if record.action is not Action.UNDO or deployment is None:
            return proposed
        target = self._carry_out.target(record, Snapshot(deployment, item.snapshot.replicasets))
        return proposed if isinstance(target, Objection) else aimed(proposed, record, target[0])

    async def _observe(self, record: Record) -> None:
        """End a breach in mode `observe` with what would have been done; nothing is written, not even as a dry run."""
        context = self._context
        try:
            foreseen = await self._carry_out.foresee(record)
        except ClusterError as error:
            _log.warning("what would be written is not known: %s", error, extra=log_fields(record, "not-foreseen"))
            foreseen = None
        record, now = context.records[record.id], context.now()
        if record.state is not State.BREACH:
            return  # superseded meanwhile
        if isinstance(foreseen, Undo | ScaleDown | SwitchBack):
            record = msgspec.structs.replace(record, plan=self._settle.planned(record, foreseen))
        elif isinstance(foreseen, Objection) and foreseen.guard is Guard.SUPERSEDED:
            self._settle.end(record, Outcome.SUPERSEDED, str(foreseen))
            return
        elif isinstance(foreseen, Objection):
            asks = foreseen.guard is Guard.TARGET_NOT_PASSED
            record = incident.with_objections(record, msgspec.structs.replace(foreseen, asks=asks), now=now)
        why = _would(record)
        self._settle.end(record, Outcome.OBSERVED, why)
        context.note(context.records[record.id], EventReason.REFUSED, why, suffix=f"-{Guard.MODE}")

    def _facts(self, record: Record, verdict: Verdict, item: Polled) -> Facts:
        context, policy = self._context, item.watch.policy
        silences = context.silences
        if context.ports.alerts and silences is None:
            _log.warning("no Alertmanager tells of silences; going on", extra=log_fields(record, "silences-unknown"))
        live = next((each for each in item.snapshot.replicasets if each.hash == record.rollout.hash), None)
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


def _on_node(objection: Objection, pods: Iterable[Pod]) -> Objection:
    """The objection about one pod, with its node: what people look at next."""
    nodes = {pod.metadata.name: pod.spec.node_name for pod in pods}
    node = nodes.get(objection.pod)
    return msgspec.structs.replace(objection, detail=f"{objection.detail} on node {node}") if node else objection


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
