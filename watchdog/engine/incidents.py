"""From verdicts to the verified end: what each step's numbers do to the rollouts under watch.

Breaches of one step are all noted before the first is acted on, so that the breaker sees them together. Nothing waits
for a record, an Event or Slack on the way to the write: the patch itself carries the mark.
"""

import asyncio
import datetime as dt
import logging
from collections.abc import Coroutine, Sequence
from typing import Any

import msgspec

from watchdog.config import Confirm
from watchdog.decide import incident, limits, marks
from watchdog.decide.incident import Happening
from watchdog.decide.patches import add, annotation, encode, test
from watchdog.decide.record import Record, State, VerdictSeen
from watchdog.engine.carry_out import Executor
from watchdog.engine.context import Context
from watchdog.engine.decide_breach import Decider
from watchdog.engine.polled import Polled
from watchdog.engine.settle import Settler, log_fields
from watchdog.engine.watch import judge_conditions
from watchdog.errors import ClusterError
from watchdog.judge import conditions
from watchdog.judge.blocks import BlindReason, Status, Verdict
from watchdog.judge.conditions import Observed
from watchdog.judge.verdict import combine
from watchdog.metrics import Part
from watchdog.model import (
    EventReason,
    IncidentId,
    Mode,
    Outcome,
)
from watchdog.objects import HASH_LABEL

_log = logging.getLogger(__name__)


class Incidents:
    """Takes verdicts and carries incidents to their end."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._busy: set[str] = set()
        self._pulls_fail: set[str] = set()
        self._blind: dict[str, BlindReason | None] = {}
        self._shown: dict[str, dict[tuple[str, str, str, str], tuple[float, float]]] = {}
        self._settle = Settler(context)
        self._carry_out = Executor(context, self._settle)
        self._decide = Decider(context, self._carry_out, self._settle)

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
            self._start(item.record.id, self._decide.decide(item, verdict))

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
        record = context.put(_numbered(context.records[record.id], item), save=False, notify=False)
        last = record.verdicts[-1] if record.verdicts else None
        shown = verdict.blind.detail if verdict.blind else verdict.detail
        about = str(verdict.blind.reason) if verdict.blind else verdict.cause
        if last is None or (last.status, last.cause, last.signal) != (str(verdict.status), about, verdict.signal):
            seen = VerdictSeen(now, str(verdict.status), shown, about, verdict.signal)
            record = context.put(msgspec.structs.replace(record, verdicts=(*record.verdicts, seen)))
            context.metrics.verdict(record.policy, verdict.status)
            fields = log_fields(record, "verdict") | {"verdict": str(verdict.status)}
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
            _log.info("%s", note, extra=log_fields(record, "note"))
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
        name = next(
            (each.metadata.name for each in item.snapshot.replicasets if each.hash == record.rollout.hash), None
        )
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
            _log.warning("not marked as passed: %s", error, extra=log_fields(record, "not-marked"))

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

    def evaluate_now(self, item: Polled, *, arrived: float) -> None:
        """Judge a rollout now, with the evidence that is already in, since an alert speaks for it."""
        record = self._context.records[item.record.id]
        if record.state not in (State.WATCHING, State.BREACH) or record.id in self._busy:
            return
        verdict = self.verdict(item)
        if verdict.status is Status.BREACH:
            self._settle.alerted[record.id] = arrived
            if record.state is State.WATCHING:
                seen = VerdictSeen(self._context.now(), "breach", verdict.detail, verdict.cause, verdict.signal)
                record = msgspec.structs.replace(_numbered(record, item), verdicts=(*record.verdicts, seen))
                self._context.metrics.verdict(record.policy, verdict.status)
                self._context.put(incident.advance(record, Happening.BREACH, now=self._context.now()), notify=False)
            self._start(record.id, self._decide.decide(item, verdict))

    def answered(self, record: Record) -> None:
        """A person has answered, or a record was rebuilt: go on with it."""
        if record.state is State.ASKING and record.people:
            self._start(record.id, self._answer(record))
        elif record.state in (State.ACTING, State.VERIFYING):
            self._start(record.id, self._carry_out.resume(record))

    async def _answer(self, record: Record) -> None:
        context, record = self._context, self._context.records[record.id]
        if record.state is not State.ASKING:
            return  # superseded meanwhile
        said = record.people[-1]
        if said.answer == "dismiss":
            self._settle.refuse(record, f"dismissed by {said.by}")
        else:
            context.put(incident.advance(record, Happening.APPROVED, now=context.now()))
            await self._carry_out.act(context.records[record.id], by=said.by)

    def _go_on(self, item: Polled) -> None:
        """What a rollout in one of the later states needs in a step."""
        record = self._context.records[item.record.id]
        match record.state:
            case State.ASKING if record.people:
                self._start(record.id, self._answer(record))
            case State.ASKING:
                self._context.put(_numbered(record, item), save=False, notify=False)
                limit = dt.timedelta(seconds=self._context.config.limits.approval)
                if record.asked and self._context.now() - record.asked >= limit:
                    self._settle.refuse(record, f"nobody answered within {limit}")
            case State.ACTING:
                self._start(record.id, self._carry_out.resume(record))
            case State.VERIFYING if not record.verified:
                self._start(record.id, self._carry_out.resume(record))
            case State.VERIFYING:
                self._start(record.id, self._settle.recover(record, item))


def _numbered(record: Record, item: Polled) -> Record:
    """The record with the evidence of the newest step; the blocks join it where it is saved."""
    return msgspec.structs.replace(record, blocks={}, evidence=item.watch.evidence(urgent=record.urgent))
