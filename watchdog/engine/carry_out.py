"""From a decision to the write: the action is carried out, tried again, or found done by an earlier process.

Nothing waits for a record, an Event or Slack on the way to the write: the patch itself carries the mark.
"""

import asyncio
import datetime as dt
import logging
from collections.abc import Callable

import msgspec

from watchdog.decide import incident, marks, templates
from watchdog.decide.incident import Happening
from watchdog.decide.plan import Request
from watchdog.decide.record import Planned, Record, State
from watchdog.decide.revisions import read_history
from watchdog.decide.target import service_target
from watchdog.engine import wording
from watchdog.engine.context import Context, wrote
from watchdog.engine.settle import Settler, log_fields, proposal
from watchdog.errors import ClusterError, NotFound
from watchdog.judge.blocks import Status, Verdict
from watchdog.model import (
    MANAGER,
    Action,
    Cause,
    Guard,
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
from watchdog.objects import ReplicaSet, Snapshot

_log = logging.getLogger(__name__)


class Executor:
    """Carries out what was decided.

    Args:
        settle: takes what was written to its end.
    """

    def __init__(self, context: Context, settle: Settler) -> None:
        self._context = context
        self._settle = settle

    async def act(self, record: Record, *, by: str, verdict: Verdict | None = None) -> None:
        """Carry the action out. `by` is who approved it; the physical and policy guards bind all the same."""
        context, actor = self._context, self._context.ports.actor
        if record.mode is Mode.OBSERVE:
            self._settle.end(record, Outcome.REFUSED, f"{Guard.MODE}: it was lowered to observe before the write")
            return
        cause = record.plan.cause if record.plan else ""
        reason = verdict.detail if verdict else (record.verdicts[-1].detail if record.verdicts else cause)
        request = Request(
            cause=Cause(MANAGER, f"{reason}{f'; approved by {by}' if by else ''}"),
            rollout=record.rollout,
            gitops_act=self._settle.policy(record).gitops.value == "act",
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
                result = await self._settle.switcher.switch_back(
                    record, request.cause, nonce=request.nonce, gitops_act=request.gitops_act
                )
            else:
                choose = self._chooser(record, approved=bool(by))
                result = await actor.undo(ref, request, verify=False, condemned=True, choose=choose, attempts=1)
        except NotFound as error:
            self._settle.deleted(record, error)
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
            self._settle.end(record, Outcome.FAILED, f"not done after {took}: {error}")
            return
        detail = f"{error.reason}; tried again until {tried.until:%H:%M:%S} UTC"
        record = context.put(msgspec.structs.replace(record, detail=detail))
        _log.warning("%s; again in %.0f s", error, pause_s, extra=log_fields(record, "write-refused"))
        await asyncio.sleep(pause_s)
        record = context.records[record.id]
        if record.state is not State.ACTING:
            return  # superseded meanwhile
        await self.resume(record)

    async def _written(self, record: Record, result: Result, request: Request) -> None:
        context, now = self._context, self._context.now()
        if record.state is State.ENDED:
            return  # superseded meanwhile
        if result.refused:
            if isinstance(result.plan, ScaleUp):
                record = context.put(wrote(record, result.detail, at=now), notify=False)
            await self._not_written(record, result.refused)
            return
        if arrived := self._settle.alerted.pop(record.id, None):
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
            written = msgspec.structs.replace(written, plan=self._settle.planned(record, plan))
        record = context.put(written)
        if not isinstance(plan, Undo | ScaleDown | SwitchBack):
            self._settle.end(record, Outcome.PAUSED, result.detail)
        elif result.outcome is Outcome.SUPERSEDED:
            self._settle.end(record, Outcome.SUPERSEDED, result.detail)
        else:
            await self._settle.verify(record, plan, request, resumed=False)

    async def _not_written(self, record: Record, refused: Objection) -> None:
        context, now = self._context, self._context.now()
        record = incident.with_objections(record, refused, now=now)
        context.metrics.refusal(refused.guard)
        if refused.guard in (Guard.NOT_OBSERVED, Guard.NO_CAPACITY):
            context.put(incident.advance(record, Happening.WAIT, now=now))
        elif refused.guard is Guard.TARGET_NOT_PASSED:
            await self.ask(incident.advance(record, Happening.WAIT, now=now), str(refused))
        elif refused.guard is Guard.SUPERSEDED:
            self._settle.end(record, Outcome.SUPERSEDED, str(refused))
        else:
            self._settle.end(record, Outcome.REFUSED, str(refused))

    async def resume(self, record: Record) -> None:
        """Find out what an earlier process, or a lost answer, left behind, and finish it."""
        context = self._context
        if context.fleet.match(record.workload) is None and all(
            each.name != record.policy for each in context.config.policies
        ):
            self._settle.end(record, Outcome.SUPERSEDED, "no policy matches the Deployment any more")
            return
        try:
            plan = await self._found(record)
        except NotFound as error:
            self._settle.deleted(record, error)
            return
        request = Request(cause=Cause(MANAGER, record.plan.cause if record.plan else ""), rollout=record.rollout)
        record = context.records[record.id]
        if plan is not None:
            if record.state is State.ACTING:
                mark = marks.read_last_rollback({marks.LAST_ROLLBACK: plan.mark}, now=context.now())
                now = mark.at if mark else context.now()
                written = incident.advance(record, Happening.WRITTEN, now=now)
                done = wording.planned(plan)
                written = msgspec.structs.replace(
                    written, write_at=now, plan=self._settle.planned(record, plan), detail=done.detail
                )
                record = context.put(wrote(written, "found written after an interruption", at=now))
            await self._settle.verify(record, plan, request, resumed=True)
        elif record.action is Action.PAUSE and self._paused_by(record):
            written = incident.advance(record, Happening.WRITTEN, now=context.now())
            self._settle.end(context.put(written), Outcome.PAUSED, "paused, found so after an interruption")
        elif record.state is State.ACTING and not record.write_at:
            await self.act(record, by=record.people[-1].by if record.people else "")
        else:
            what = "Service" if record.switched else "Deployment"
            why = f"the {what} was changed by someone else after the action"
            self._settle.end(record, Outcome.SUPERSEDED, why)

    async def _found(self, record: Record) -> Undo | ScaleDown | SwitchBack | None:
        """What this incident's action wrote, if it still stands."""
        if record.action is Action.SWITCH_BACK:
            return await self._settle.switcher.written(record)
        return await self._context.ports.actor.written(record.rollout, proofs=record.proofs)

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

    async def foresee(self, record: Record) -> Plan | Objection:
        """What the action would write now, or which guard of the action itself would refuse it."""
        cause = Cause(MANAGER, record.plan.cause if record.plan else "")
        gitops_act = self._settle.policy(record).gitops.value == "act"
        if record.action is Action.SWITCH_BACK:
            return await self._settle.switcher.foresee(record, cause, gitops_act=gitops_act)
        request = Request(cause=cause, rollout=record.rollout, gitops_act=gitops_act)
        choose = self._chooser(record, approved=False)
        return await self._context.ports.actor.foresee(record.action, record.workload, request, choose=choose)

    async def ask(self, record: Record, why: str) -> None:
        """Ask a person, about one target: an approval holds for no other.

        Raises:
            ClusterError: the target is not known; the incident stays in breach, and is decided anew with the next step.
        """
        context = self._context
        record = context.put(record, notify=False)
        if record.action is Action.UNDO:
            target = self.target(record, await context.ports.actor.look(record.workload))
            record = context.records[record.id]
            if record.state is not State.BREACH:
                return  # superseded meanwhile
            if isinstance(target, Objection):
                self._settle.end(record, Outcome.REFUSED, str(target))
                return
            plan = aimed(record.plan or proposal(record, Verdict(Status.BREACH, "")), record, target[0])
            record = msgspec.structs.replace(record, plan=plan)
        asking = incident.advance(record, Happening.LOWERED, now=context.now())
        context.put(msgspec.structs.replace(asking, detail=why))

    def target(self, record: Record, snapshot: Snapshot) -> tuple[ReplicaSet, bool] | Objection:
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
            bake=dt.timedelta(seconds=self._settle.policy(record).bake),
            began=record.started,
            now=context.now(),
        )

    def _chooser(self, record: Record, *, approved: bool) -> Callable[[Snapshot], int | Objection]:
        def choose(snapshot: Snapshot) -> int | Objection:
            if approved and record.plan and record.plan.to_hash:
                agreed = [item for item in read_history(snapshot).numbered if item.hash == record.plan.to_hash]
                gone = f"revision {record.plan.to_revision}, which was approved, is gone"
                return agreed[0].revision or 0 if agreed else Objection(Guard.NO_TARGET, gone)
            found = self.target(record, snapshot)
            if isinstance(found, Objection):
                return found
            target, passed = found
            if not passed:
                why = f"revision {target.revision}, which was live before, is not known to be good"
                return Objection(Guard.TARGET_NOT_PASSED, why)
            return target.revision or 0

        return choose


def aimed(proposed: Planned, record: Record, target: ReplicaSet) -> Planned:
    """What is proposed, with its target; never the version that is to be left."""
    if target.hash == record.rollout.hash:
        return proposed
    images = templates.images(target.spec.template)
    return msgspec.structs.replace(
        proposed, to_revision=target.revision or 0, to_hash=target.hash, target_images=images
    )
