"""The judgement guards: what makes the service ask where a person could act.

Mode `observe` alone refuses. Where an alert alone speaks and the policy's own signals are blind, each step asks again.
Each looks at records, which are all that a next process knows. They bind the service and never a person.
"""

import datetime as dt
from collections.abc import Iterable, Sequence

import msgspec

from watchdog.decide.record import Record
from watchdog.expressions import BadExpression, matches
from watchdog.judge.blocks import Verdict
from watchdog.model import Action, Guard, Mode, Objection, Outcome, Silence
from watchdog.objects import WorkloadRef

_DAY = dt.timedelta(days=1)


class SafetyLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The settings; 0 is off.

    Args:
        budget: actions per workload and day.
        cool_down: between two actions on one workload.
        breaker: breaches of different images in one namespace that stop everybody there.
        breaker_all: the same in all namespaces together, for everybody.
        breaker_window: how far back they count.
    """

    budget: int
    cool_down: dt.timedelta
    breaker: int
    breaker_all: int
    breaker_window: dt.timedelta


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the guards look at, beside the record.

    Args:
        others: every other record.
        silences: active silences that name the watchdog; None where no Alertmanager answered.
        condemned_by: the incident that condemned the live ReplicaSet before this rollout; empty if none.
        gitops: a GitOps controller wrote the live template.
        target_passed: the revision that the undo goes to lived through its bake.
        signals_blind: why the policy's own signals say nothing, where only an alert speaks; else empty.
        confirmed: whether more than an alert alone speaks for the breach, or the policy trusts alerts.
        claimed: when the service acted on the workload, by a mark that no record knows; it may only withhold.
    """

    verdict: Verdict
    others: Sequence[Record]
    silences: tuple[Silence, ...] | None = ()
    condemned_by: str = ""
    gitops: bool = False
    target_passed: bool = True
    signals_blind: str = ""
    confirmed: bool = True
    claimed: dt.datetime | None = None


WAITING = frozenset({Guard.NOT_OBSERVED, Guard.NO_CAPACITY, Guard.BLIND})
"""Refusals that are asked again at each step while the breach lasts."""


def objections(record: Record, facts: Facts, limits: SafetyLimits, *, now: dt.datetime) -> tuple[Objection, ...]:
    """Every judgement guard that speaks, refusals before those that turn acting into asking."""
    found = [
        _mode(record),
        _silence(record, facts),
        _budget(record, facts, limits, now),
        _cool_down(record, facts, limits, now),
        _loop(record, facts, limits, now),
        _breaker(record, facts.others, limits, now),
        _ineffective(record, facts.others, now),
        *_of_verdict(record, facts),
    ]
    return tuple(sorted((each for each in found if each), key=lambda each: each.asks))


def _mode(record: Record) -> Objection | None:
    match record.mode:
        case Mode.OBSERVE:
            return Objection(Guard.MODE, "the mode is observe: nothing is ever written")
        case Mode.APPROVE:
            return Objection(Guard.MODE, "the mode is approve: a person decides", asks=True)
        case Mode.ENFORCE:
            return None


def _silence(record: Record, facts: Facts) -> Objection | None:
    for silence in facts.silences or ():
        if _covers(silence, record.workload):
            why = f"silence {silence.id} by {silence.by} until {silence.until:%H:%M} UTC: {silence.comment}"
            return Objection(Guard.SILENCE, why[:300], asks=True)
    return None


def _covers(silence: Silence, workload: WorkloadRef) -> bool:
    labels = {"namespace": workload.namespace, "deployment": workload.name}
    for label, value, is_regex, is_equal in silence.matchers:
        found = labels.get(label, "")
        try:
            same = matches(value, found) if is_regex else value == found
        except BadExpression:
            same = True  # nobody can read it, but somebody wanted quiet
        if same is not is_equal:
            return False
    return True


def _acted(record: Record, facts: Facts) -> list[dt.datetime]:
    """When the service acted on the workload, the newest last."""
    recorded = (
        other.write_at
        for other in facts.others
        if other.write_at and other.workload == record.workload and other.id != other.rollout.gate_incident
    )
    return sorted((*recorded, *((facts.claimed,) if facts.claimed else ())))


def _budget(record: Record, facts: Facts, limits: SafetyLimits, now: dt.datetime) -> Objection | None:
    today = [at for at in _acted(record, facts) if now - at < _DAY]
    if not limits.budget or len(today) < limits.budget:
        return None
    why = f"{len(today)} actions on {record.workload} within a day; limits.budget is that many"
    return Objection(Guard.BUDGET, why, asks=True)


def _cool_down(record: Record, facts: Facts, limits: SafetyLimits, now: dt.datetime) -> Objection | None:
    latest = max(_acted(record, facts), default=None)
    if latest is None or now - latest >= limits.cool_down:
        return None
    ends = latest + limits.cool_down
    why = f"the last action was at {latest:%H:%M:%S} UTC; limits.cool_down ends {ends:%H:%M}"
    return Objection(Guard.COOL_DOWN, why, asks=True)


def _loop(record: Record, facts: Facts, limits: SafetyLimits, now: dt.datetime) -> Objection | None:
    if not facts.condemned_by:
        return None
    before = next((other for other in facts.others if other.id == facts.condemned_by), None)
    at = before and (before.write_at or before.ended)
    again = f"{record.rollout.hash} was condemned by {facts.condemned_by} and is live again"
    absolve = f"rollback-watchdog history {record.workload} --absolve {record.rollout.revision}"
    soon = " soon" if at and record.started - at < limits.cool_down else ""
    who = ", written by a GitOps controller" if facts.gitops else ""
    return Objection(Guard.LOOP, f"{again}{soon}{who}; a person decides, or lifts it: {absolve}", asks=True)


def breached(record: Record) -> dt.datetime | None:
    """When a rollout was first found in breach."""
    return next((seen.at for seen in record.verdicts if seen.status == "breach"), None)


def _breaker(record: Record, others: Iterable[Record], limits: SafetyLimits, now: dt.datetime) -> Objection | None:
    """Whether so many fail at once that they may share the cause, in the workload's namespace or in all of them."""
    everywhere = [record, *(other for other in others if _counts(other, limits, now))]
    here = [each for each in everywhere if each.workload.namespace == record.workload.namespace]
    home = f"namespace {record.workload.namespace}"
    for most, where, recent in ((limits.breaker, home, here), (limits.breaker_all, "all namespaces", everywhere)):
        images = {tuple(sorted(each.images.items())) for each in recent}
        if most and len(images) >= most:
            names = ", ".join(sorted({str(each.workload) for each in recent})[:5])
            found = f"{len(images)} different images in breach within {limits.breaker_window} in {where}"
            return Objection(Guard.BREAKER, f"{found}: {names}; something they share?", asks=True)
    return None


def _counts(other: Record, limits: SafetyLimits, now: dt.datetime) -> bool:
    """Whether a rollout counts for the breaker: what is only observed stops nobody."""
    at = breached(other) if other.mode is not Mode.OBSERVE else None
    return at is not None and now - at <= limits.breaker_window


def _ineffective(record: Record, others: Iterable[Record], now: dt.datetime) -> Objection | None:
    for other in others:
        late = other.workload == record.workload and other.ended is not None and now - other.ended < _DAY
        if late and other.outcome is Outcome.INEFFECTIVE:
            why = f"the undo of {other.id} did not help; a person decides for a day"
            return Objection(Guard.LOOP, why, asks=True)
    return None


def _of_verdict(record: Record, facts: Facts) -> Iterable[Objection | None]:
    """What turns acting into asking."""
    if facts.verdict.shared and record.action is not Action.SCALE_DOWN:
        yield Objection(Guard.SHARED, "the stable pods fail the same limit", asks=True)
    if record.incident_first:
        yield Objection(Guard.INCIDENT_FIRST, f"{record.incident_first}: this may be the fix", asks=True)
    for objection in facts.verdict.objections:
        if objection.guard != Guard.SHARED or record.action is not Action.SCALE_DOWN:
            yield objection
    if not facts.target_passed and record.action in (Action.UNDO, Action.SWITCH_BACK):
        yield Objection(Guard.TARGET_NOT_PASSED, "the revision to go back to is not known to be good", asks=True)
    if facts.signals_blind:
        yield Objection(Guard.BLIND, f"an alert alone, while the policy's own signal is blind: {facts.signals_blind}")
    elif not facts.confirmed:
        yield Objection(Guard.UNCONFIRMED, "an alert alone; the policy's confirm is signal", asks=True)


def condemned_images(
    records: Iterable[Record], workloads: Iterable[WorkloadRef], *, now: dt.datetime
) -> dict[tuple[str, str], str]:
    """(container, image) pairs that an incident of the last 24 h found bad on these workloads, and which incident."""
    names, found = set(workloads), dict[tuple[str, str], str]()
    for record in records:
        if record.plan is None or not record.write_at or record.workload not in names:
            continue
        if record.outcome is Outcome.INEFFECTIVE or now - record.write_at >= _DAY:
            continue
        found |= dict.fromkeys(record.plan.condemned.items(), record.id)
    return found
