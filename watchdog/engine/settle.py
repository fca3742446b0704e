"""The end of an incident: what was written is verified, the signal recovers or not, and the record ends."""

import datetime as dt
import logging

import msgspec

from watchdog.config import Policy
from watchdog.decide import incident, templates
from watchdog.decide.plan import Request
from watchdog.decide.record import DecisionCounts, Planned, Record, State
from watchdog.decide.revisions import read_history
from watchdog.engine import recovery
from watchdog.engine.context import Context
from watchdog.engine.polled import Polled
from watchdog.engine.switching import Switcher
from watchdog.engine.verify import Stuck
from watchdog.errors import ClusterError, NotFound
from watchdog.judge.blocks import Status, Verdict
from watchdog.model import (
    Action,
    EventReason,
    Outcome,
    ScaleDown,
    SwitchBack,
    Undo,
)
from watchdog.objects import TemplateHash

_log = logging.getLogger(__name__)

_ACTED = {Outcome.ROLLED_BACK, Outcome.SCALED_DOWN, Outcome.SWITCHED_BACK}


class Settler:
    """Verifies actions and ends incidents."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.alerted: dict[str, float] = {}
        """When the alert came that an incident is acted on for, on the event loop's clock."""

    def refuse(self, record: Record, why: str) -> None:
        """End it with nothing done, unless it was superseded meanwhile."""
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

    def end(self, record: Record, outcome: Outcome, why: str) -> None:
        """End it, unless it was superseded meanwhile."""
        context = self._context
        if context.records[record.id].state is State.ENDED:
            return  # superseded meanwhile
        record = context.put(incident.end(record, outcome, why, now=context.now()))
        self.alerted.pop(record.id, None)
        context.metrics.action(record.action, outcome, cause=record.plan.cause if record.plan else "")
        if outcome is Outcome.FAILED:
            context.note(record, EventReason.FAILED, why)  # where the action has told already, this is the same one

    def deleted(self, record: Record, error: NotFound) -> None:
        """End it, since what it is about is gone."""
        self.end(self._context.records[record.id], Outcome.SUPERSEDED, f"{error.operation}: deleted by someone else")

    async def verify(
        self, record: Record, plan: Undo | ScaleDown | SwitchBack, request: Request, *, resumed: bool
    ) -> None:
        """Wait until the action's rollout is complete; the pods' counters prove the rest, see `recover`."""
        if isinstance(plan, SwitchBack):
            result = await self.switcher.finish(record, plan, request.cause, resumed=resumed)
        else:
            result = await self._context.ports.actor.finish(plan, request, resumed=resumed, stuck=self._stuck(record))
        record = self._context.records[record.id]
        if result.outcome not in _ACTED:
            self.end(record, result.outcome, "; ".join((result.detail, *result.pods)))
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
            self.end(record, Outcome.SUPERSEDED, why)
            return
        if not self.policy(record).signals:
            self.end(record, Outcome.RECOVERED, f"{result.detail}; no signal is configured to prove more")

    async def _as_admitted(self, record: Record, plan: Undo) -> Record:
        """The record with the hash of what an undo made live, which is not the target's where admission changed it.

        Without it nobody would find the restored pods, and the proof of recovery would never come.
        """
        try:
            snapshot = await self._context.ports.actor.look(record.workload)
        except ClusterError as error:
            _log.warning("the restored pods may not be found: %s", error, extra=log_fields(record, "not-looked-at"))
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
            _log.warning("%s", why, extra=log_fields(newest, "stuck"))
            context.note(newest, EventReason.STUCK, why)

        return None if record.stuck else tell

    async def recover(self, record: Record, item: Polled) -> None:
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
        self.end(record, outcome, why)
        if outcome is Outcome.INEFFECTIVE:
            context.note(context.records[record.id], EventReason.INEFFECTIVE, why)

    def planned(self, record: Record, plan: Undo | ScaleDown | SwitchBack) -> Planned:
        """What was written, and the images by which the bad version differs from the good one."""
        proposed = record.plan or proposal(record, Verdict(Status.BREACH, ""))
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

    def policy(self, record: Record) -> Policy:
        """The policy of its workload, or the one that it began under."""
        match = self._context.fleet.match(record.workload)
        if match:
            return match.policy
        return next(each for each in self._context.config.policies if each.name == record.policy)

    @property
    def switcher(self) -> Switcher:
        """What acts on Services."""
        switcher = self._context.ports.switcher
        assert switcher is not None  # noqa: S101  (whoever watches Services has one)
        return switcher


def proposal(record: Record, verdict: Verdict) -> Planned:
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


def log_fields(record: Record, event: str) -> dict[str, str]:
    """What a log line about it carries."""
    return {"event": event, "incident": record.id, "workload": str(record.workload)}
