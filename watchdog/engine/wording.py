"""What is said of an action: one sentence per outcome, the same in the terminal, the log and the Event."""

import hashlib

import msgspec

from watchdog.decide.record import Record
from watchdog.decide.switch import selector_text
from watchdog.model import (
    Cause,
    Event,
    EventReason,
    Guard,
    Mode,
    Objection,
    Outcome,
    Pause,
    Plan,
    Restore,
    Result,
    Rollout,
    ScaleDown,
    ScaleUp,
    SwitchBack,
    Undo,
)
from watchdog.objects import Deployment

_ENDS = {
    Outcome.ROLLED_BACK: EventReason.COMPLETED,
    Outcome.FAILED: EventReason.FAILED,
    Outcome.REFUSED: EventReason.REFUSED,
    Outcome.SUPERSEDED: EventReason.SUPERSEDED,
}
_WITHOUT_A_NO = {Guard.SUPERSEDED: Outcome.SUPERSEDED, Guard.ALREADY: Outcome.ALREADY}


def planned(plan: Plan) -> Result:
    """The result of a write that was accepted and is not yet verified; a switch-back that waits for pods is refused."""
    match plan:
        case Undo():
            return Result(outcome=Outcome.ROLLED_BACK, detail=f"rolled back {_step(plan)}", plan=plan)
        case ScaleDown():
            detail = f"scaled down {plan.replicas} → 0 (revision {plan.live.number})"
            return Result(outcome=Outcome.SCALED_DOWN, detail=detail, plan=plan)
        case Pause():
            return Result(outcome=Outcome.PAUSED, detail=f"paused at revision {plan.live.number}", plan=plan)
        case Restore(replicas=None):
            return Result(outcome=Outcome.RESTORED, detail="scaled by someone else: mark removed", plan=plan)
        case Restore():
            return Result(outcome=Outcome.RESTORED, detail=f"restored 0 → {plan.replicas}", plan=plan)
        case SwitchBack():
            detail = f"switched {plan.service} back {plan.rollout.workload.name} → {plan.colour}"
            return Result(outcome=Outcome.SWITCHED_BACK, detail=detail, plan=plan)
        case ScaleUp():
            to = f"{plan.before} → {plan.replicas}, to switch back when its pods are ready"
            detail = f"scaled {plan.colour.name} {to}"
            return Result(outcome=Outcome.REFUSED, detail=detail, refused=plan.refused, plan=plan)
    raise TypeError(type(plan))


def replaced(result: Result, *, how: str = "changed") -> Result:
    """The result of a write after which somebody else changed or deleted the workload."""
    detail = f"{result.detail}, then {how} by someone else"
    return msgspec.structs.replace(result, outcome=Outcome.SUPERSEDED, detail=detail)


def refused(refusal: Objection) -> Result:
    """The result of a guard's no."""
    outcome = _WITHOUT_A_NO.get(refusal.guard, Outcome.REFUSED)
    detail = refusal.detail if outcome is Outcome.ALREADY else str(refusal)
    return Result(outcome=outcome, detail=detail, refused=refusal)


def by_hand(plan: Plan) -> str:
    """How a person does what was not done: kubectl's command, since ours has failed."""
    ref, live = plan.rollout.workload, plan.rollout.revision
    kubectl = f"revision {live} stays live, by hand: kubectl -n {ref.namespace}"
    match plan:
        case Undo():
            return f"{kubectl} rollout undo deployment/{ref.name} --to-revision={plan.target.number}"
        case ScaleDown():
            return f"{kubectl} scale deployment/{ref.name} --replicas=0"
        case Pause():
            return f"{kubectl} rollout pause deployment/{ref.name}"
        case SwitchBack():
            return f"{kubectl} set selector service/{plan.service} '{selector_text(plan.selector)}'"
        case ScaleUp():
            return f"{kubectl} scale deployment/{plan.colour.name} --replicas={plan.replicas}"
    return ""  # nobody waits for a restore, and it is tried again


def started_event(plan: Plan, deployment: Deployment, cause: Cause) -> Event | None:
    """The Event of an accepted write."""
    why = f" (by {cause.by}: {cause.reason or 'no reason given'})"
    match plan:
        case Undo():
            changed = f"; {', '.join(plan.changes)}" if plan.changes else ""
            note = f"Rolling back {_step(plan)}{why}{changed}"
            return _event(EventReason.STARTED, plan.rollout, deployment, note, action="Rollback")
        case ScaleDown():
            note = f"Scaled down {plan.replicas} → 0, revision {plan.live.number}{why}"
            return _event(EventReason.SCALED_DOWN, plan.rollout, deployment, note, action="ScaleDown")
        case Pause():
            note = f"Paused at revision {plan.live.number}{why}"
            return _event(EventReason.PAUSED, plan.rollout, deployment, note, action="Pause")
        case SwitchBack():
            note = f"Switched {planned(plan).detail.partition(' ')[2]}{why}"
            return _event(EventReason.SWITCHED_BACK, plan.rollout, deployment, note, action="SwitchBack")
        case ScaleUp():
            note = f"Scaled {planned(plan).detail.partition(' ')[2]}: {plan.refused}{why}"
            return _event(EventReason.STARTED, plan.rollout, deployment, note, action="SwitchBack")
    return None


def ended_event(result: Result, rollout: Rollout | None, deployment: Deployment) -> Event | None:
    """The Event of an action's end, where it has one that the start did not tell already."""
    reason = _ENDS.get(result.outcome)
    note = "; ".join((result.detail, *result.pods))
    return _event(reason, rollout, deployment, note, refusal=result.refused) if reason else None


def rollout_event(
    record: Record, reason: EventReason, note: str, *, uid: str, warning: bool, suffix: str = ""
) -> Event:
    """The Event of what was found of a rollout; in mode `observe` it says that nothing is done."""
    observed = "OBSERVE " if record.mode is Mode.OBSERVE else ""
    return Event(
        name=f"{record.id}.{reason.lower()}{suffix}",
        regarding=record.workload,
        uid=uid,
        reason=reason,
        action="Watch",
        note=f"{observed}{note}",
        warning=warning,
    )


def _event(
    reason: EventReason,
    rollout: Rollout | None,
    deployment: Deployment,
    note: str,
    *,
    action: str = "Rollback",
    refusal: Objection | None = None,
) -> Event:
    metadata = deployment.metadata
    subject = rollout.incident if rollout else f"{metadata.name[:40].rstrip('.')}-{metadata.uid[:8]}"
    # An incident can be refused for one reason after the other; everything else happens to it once.
    suffix = f"-{refusal.guard}-{hashlib.sha256(note.encode()).hexdigest()[:6]}" if refusal else ""
    return Event(
        name=f"{subject}.{reason.lower()}{suffix}",
        regarding=deployment.ref,
        uid=metadata.uid,
        reason=reason,
        action=action,
        note=note,
        warning=reason is not EventReason.COMPLETED,
    )


def _step(plan: Undo) -> str:
    return f"{plan.live.number} → {plan.target.number}"
