"""What people are told of a rollout: one wording for each end, all of them listed in docs/messages.md. Pure.

Names, images, alerts and reasons are foreign text: cut, brought onto one line, escaped and never parsed as markup, so
that none can forge a mention or a link.
"""

import datetime as dt
import re
from collections.abc import Iterator, Mapping

import msgspec

from watchdog.decide.limits import WAITING
from watchdog.decide.record import DecisionCounts, Record, State, VerdictSeen
from watchdog.decide.switch import selector_text
from watchdog.model import Action, Guard, GuardClass, Mode, Objection, Outcome

_LINE, _SECTION, _PIECE = 300, 2900, 130
_NOTHING = "Nothing to do."
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_VERBS = {
    Action.UNDO: ("rolled back", "rolling back", "roll back"),
    Action.SCALE_DOWN: ("scaled down", "scaling down", "scale down"),
    Action.PAUSE: ("paused", "pausing", "pause"),
    Action.SWITCH_BACK: ("switched back", "switching back", "switch back"),
}
_CAUSES = {
    "progress-deadline": "no progress",
    "crash-loop": "crashing pods",
    "image-pull": "an image that cannot be pulled",
    "condemned-image": "an image that was found bad before",
}
_CURES: Mapping[str, str] = {
    Guard.GITOPS: "Revert the commit in Git.",
    Guard.NO_TARGET: "Deploy a version that works.",
    Guard.NOTHING_TO_UNDO: "Deploy a version that works.",
}


class Message(msgspec.Struct, frozen=True):
    """What is said of one record, as plain text; the properties are the same, fit for Slack.

    Args:
        first_line: what happened, and what the reader has to do.
        body: why, where the first line does not say it all.
        footer: the incident, its policy and mode.
        details: each is said once, in this order.
    """

    first_line: str
    body: str
    footer: str
    details: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What notifications show."""
        return _escaped(self.first_line)

    @property
    def blocks(self) -> list[Mapping[str, object]]:
        """What the channel shows."""
        sections = [{"type": "section", "text": _plain_text(part)} for part in (self.first_line, self.body) if part]
        return [*sections, {"type": "context", "elements": [_plain_text(self.footer)]}]

    @property
    def thread(self) -> tuple[str, ...]:
        """What its thread shows."""
        return tuple(_escaped(detail) for detail in self.details)


def render(record: Record, *, approval_s: float = 1800) -> Message | None:
    """What there is to say of a record; None while it is merely being watched.

    Args:
        record: its `told` says whether anything was said before.
        approval_s: seconds for which an approval is waited for.
    """
    said = _said(record, approval_s)
    if said is None:
        return None
    what, to_do = _observed(record, said) if _only_observed(record) else said
    first_line = _plain(f"{what.rstrip('.')}. {to_do}", _LINE)
    reasons = [str(objection) for objection in _objections(record)] if record.state is not State.WATCHING else []
    known = dict.fromkeys(_plain(text, 900) for text in (*reasons[-3:], record.verified, record.detail))
    body = "\n".join(text for text in known if text and text not in first_line)
    footer = f"{record.id} · policy {_plain(record.policy, _PIECE)} · mode {record.mode}"
    return Message(first_line, body, footer, tuple(_details(record)) if _breach(record) else ())


def _said(record: Record, approval_s: float) -> tuple[str, str] | None:
    """What happened, and what the reader has to do."""
    bad, revision = _evidence(record), f"revision {record.rollout.revision}"
    name = f"{record.workload}: "
    verb, doing, do = (f"{verb} {_object(record)}" for verb in _VERBS[_action(record)])
    done, written = f"{name}{verb}{bad}", record.write_at is not None
    kubectl, workload = f"kubectl -n {record.workload.namespace} rollout", f"deployment/{record.workload.name}"
    match record.outcome or record.state:
        case State.WATCHING if record.notified:
            return f"{name}{revision} no longer looks bad, it is still watched", _NOTHING
        case State.BREACH if objections := _objections(record, asks=False):
            return f"{name}{revision} is bad{bad}; cannot {do} yet ({objections[-1].guard})", "Nothing to do yet."
        case State.BREACH:
            return f"{name}{revision} is bad{bad}; about to {do}, if nothing speaks against it", "Nothing to do yet."
        case State.ASKING:
            until = (record.asked or record.started) + dt.timedelta(seconds=approval_s)
            approve = f"Approve with: rollback-watchdog approve {record.id} (expires {until:%H:%M} UTC)."
            return f"{name}APPROVAL NEEDED to {do}{bad}", approve
        case State.ACTING if tried := record.tried:
            so_far = f"{_refused_by(record) or 'not accepted'} so far, tried again until {tried.until:%H:%M} UTC"
            return f"{name}{doing}{bad}; {so_far}", f"Or by hand: {_by_hand(record)}"
        case State.ACTING:
            return f"{name}{doing}{bad}", "How it ends is told here."
        case State.VERIFYING if record.stuck:
            pods = _plain(record.stuck, 60)
            return f"{done}, but its pods are NOT READY: {pods}", f"Look now: {kubectl} status {workload}"
        case State.VERIFYING:
            return f"{done}, being verified", _NOTHING
        case Outcome.RECOVERED:
            return f"{done}, recovered", _NOTHING
        case Outcome.INEFFECTIVE:
            return f"{done}, but it STILL FAILS", f"Look for another cause now: {_history(record)}"
        case Outcome.ROLLED_BACK | Outcome.SCALED_DOWN | Outcome.SWITCHED_BACK:
            return f"{done}; whether it recovered is NOT KNOWN", f"See for yourself: {_history(record)}"
        case Outcome.PAUSED:
            undo = f"rollback-watchdog rollback {record.workload}"
            return done, f"Undo it: {undo}, or let it go on: {kubectl} resume {workload}"
        case Outcome.REFUSED:
            why, to_do = _refusal(record)
            return f"{name}NOT {verb}{why}{bad}", to_do
        case Outcome.OBSERVED:
            return f"{name}would {do}{bad}", f"To do it yourself: {_by_hand(record)}"
        case Outcome.UNPROVEN:
            why = f"a mark says that the service acted on {revision}, NO RECORD proves it"
            return f"{name}{why}", f"Look for yourself: {_history(record)}"
        case Outcome.SUPERSEDED if written:
            return f"{done}, then changed by someone else", _NOTHING
        case Outcome.SUPERSEDED if record.notified or _breach(record):
            return f"{name}{revision} is bad{bad}; someone else replaced it first", _NOTHING
        case Outcome.FAILED if written:
            return f"{done}, but that FAILED", f"Look now: {kubectl} status {workload}"
        case Outcome.FAILED:
            by = f" ({refused})" if (refused := _refused_by(record)) else ""
            return f"{name}{doing} FAILED{by}{bad}", f"Do it by hand: {_by_hand(record)}"
        case Outcome.PASSED:
            return f"{name}{revision} passed{_why(record, ', ')}", _NOTHING
        case Outcome.UNJUDGED:
            return f"{name}{revision} was NOT JUDGED{_why(record)}", "It stays live: look at it yourself."
    return None


def _observed(record: Record, said: tuple[str, str]) -> tuple[str, str]:
    """The same where nothing may be done."""
    what, to_do = said
    if (record.outcome or record.state) in {State.BREACH, State.ASKING, Outcome.REFUSED, Outcome.OBSERVED}:
        do, to_do = f"{_VERBS[_action(record)][2]} {_object(record)}", f"To do it yourself: {_by_hand(record)}"
        if _final(record):
            why, to_do = _refusal(record)
            do = f"NOT {do}{why}"
        elif lowered := _objections(record, asks=True):
            do = f"ask for approval to {do} ({lowered[-1].guard})"
        what = f"{record.workload}: would {do}{_evidence(record)}"
    return f"OBSERVE: {what}; nothing was done", to_do


def _only_observed(record: Record) -> bool:
    """Whether nothing was done for sure: a mode may be lowered when a write is on its way."""
    begun = record.write_at or record.state in {State.ACTING, State.VERIFYING} or record.outcome is Outcome.FAILED
    return record.mode is Mode.OBSERVE and not begun


def _refusal(record: Record) -> tuple[str, str]:
    """The guard's word in brackets, and the way out; a person's no is the last word."""
    if record.people and record.people[-1].answer == "dismiss":
        return f" (dismissed by {_plain(record.people[-1].by, _PIECE)})", f"It stays live. {_NOTHING}"
    guards = _final(record) or _objections(record)
    guard = guards[-1].guard if guards else Guard.MODE
    unanswered = ", nobody answered" if record.asked and not record.people else ""
    policy = guard.guard_class is GuardClass.POLICY
    cure = _CURES.get(guard) or f"To do it yourself: {_by_hand(record, forced=policy)}"
    return f" ({guard}{unanswered})", f"Revision {record.rollout.revision} stays live. {cure}"


def _by_hand(record: Record, *, forced: bool = False) -> str:
    """The command that does what the service did not; kubectl's, where ours has failed."""
    kubectl, name = f"kubectl -n {record.workload.namespace}", record.workload.name
    match _action(record):
        case Action.SCALE_DOWN:
            return f"{kubectl} scale deployment/{name} --replicas=0"
        case Action.PAUSE:
            return f"{kubectl} rollout pause deployment/{name}"
        case Action.SWITCH_BACK if record.switched:
            before = selector_text(record.switched.before)
            return f"{kubectl} set selector service/{record.switched.service} '{before}'"
    if record.outcome is Outcome.FAILED or record.tried:
        to = f" --to-revision={record.plan.to_revision}" if record.plan and record.plan.to_hash else ""
        return f"{kubectl} rollout undo deployment/{name}{to}"
    return f"rollback-watchdog rollback {record.workload}{' --force --reason TEXT' if forced else ''}"


def _refused_by(record: Record) -> str:
    """Who refuses the action's write, where that is known."""
    by = record.tried.by if record.tried else ""
    return f"refused by {_plain(by, 80)}" if by else ""


def _evidence(record: Record) -> str:
    """What was found, after a comma: `, 8.3 % vs 0.4 % errors (61/735)`."""
    breach, plan = _breach(record), record.plan
    cause = plan.cause if plan else breach.cause if breach else ""
    if cause in _CAUSES:
        return f", {_CAUSES[cause]}"
    if plan and (numbers := plan.numbers) and numbers.candidate_total > 0:
        stable = f" vs {_share(numbers.stable_bad, numbers.stable_total)}" if numbers.stable_total > 0 else ""
        signal = _plain(breach.signal if breach and breach.signal else "errors", 40)
        counts = f"({numbers.candidate_bad:.0f}/{numbers.candidate_total:.0f})"
        return f", {_share(numbers.candidate_bad, numbers.candidate_total)}{stable} {signal} {counts}"
    if cause == "alert":
        names = dict.fromkeys(alert.name for alert in record.alerts if alert.what == "attributed")
        return f", alert {_plain(', '.join(names) or 'without a name', 60)}"
    return f", {_plain(breach.detail, _PIECE)}" if breach and breach.detail else ""


def _details(record: Record) -> Iterator[str]:
    """What the thread says: each text stays as it is once it is said, news are texts of their own."""
    if breach := _breach(record):
        asked = [f"{each.name}: bad {each.bad} of total {each.total}" for each in record.signals]
        yield _lines(f"Evidence at {_time(breach.at)}: {breach.detail}", *asked)
    for alert in record.alerts:
        if alert.what == "attributed":
            yield _lines(f"Alert {alert.name}, firing since {_time(alert.starts_at)}")
    if plan := record.plan:
        undo = plan.action is Action.UNDO and plan.to_hash
        to = f" to revision {plan.to_revision} ({plan.to_hash})" if undo else ""
        yield _lines(
            f"Plan: {plan.action} of revision {plan.from_revision} ({plan.from_hash}){to}, cause {plan.cause}",
            _counts(plan.numbers),
            *(f"{name}: {record.images.get(name, 'none')} -> {image}" for name, image in plan.target_images.items()),
        )
    for objection in record.objections:
        effect = "asks instead of acting" if objection.asks else "refuses"
        yield _lines(f"Guard {objection.guard} {effect}, {_time(objection.at or record.started)}: {objection.detail}")
    if record.asked:
        commands = (f"rollback-watchdog {answer} {record.id}" for answer in ("approve", "dismiss"))
        yield _lines(f"A person was asked at {_time(record.asked)}. To answer:", *commands)
    for answer in record.people:
        yield _lines(f"{answer.by} said {answer.answer} ({answer.via}) at {_time(answer.at)}")
    if tried := record.tried:
        yield _lines(f"The write was {_refused_by(record) or 'not accepted'}, tried from {_time(tried.since)} on")
    for write in record.writes:
        yield _lines(f"Written at {_time(write.at)}: {write.what}")
    if record.verified:
        yield _lines(f"Verified: {record.verified}")
    if record.ended:
        history, look = _history(record), f"kubectl -n {record.workload.namespace} describe deployment"
        yield _lines(
            f"Ended {record.outcome} at {_time(record.ended)}: {record.detail}",
            f"More: {history}, {look}/{record.workload.name}",
        )


def _breach(record: Record) -> VerdictSeen | None:
    """The first breach: the one that never changes."""
    return next((verdict for verdict in record.verdicts if verdict.status == "breach"), None)


def _objections(record: Record, *, asks: bool | None = None) -> list[Objection]:
    """The guards that spoke, or those with this effect; `mode` is told by the wording."""
    return [
        objection for objection in record.objections if objection.guard != Guard.MODE and asks in (None, objection.asks)
    ]


def _final(record: Record) -> list[Objection]:
    """The guards that said no for good."""
    return [objection for objection in _objections(record, asks=False) if objection.guard not in WAITING]


def _action(record: Record) -> Action:
    return record.plan.action if record.plan else record.action


def _object(record: Record) -> str:
    match record.plan:
        case plan if plan and plan.action is Action.UNDO and plan.to_hash:
            return f"{plan.from_revision} → {plan.to_revision}"
    return f"revision {record.rollout.revision}{' to 0 pods' if _action(record) is Action.SCALE_DOWN else ''}"


def _why(record: Record, join: str = ": ") -> str:
    detail = record.detail or (record.verdicts[-1].detail if record.verdicts else "")
    return f"{join}{_plain(detail, _PIECE)}" if detail else ""


def _history(record: Record) -> str:
    return f"rollback-watchdog history {record.workload}"


def _counts(numbers: DecisionCounts | None) -> str:
    if numbers is None:
        return ""
    candidate = f"{numbers.candidate_bad:.0f} of {numbers.candidate_total:.0f}"
    return f"candidate {candidate}, stable {numbers.stable_bad:.0f} of {numbers.stable_total:.0f}"


def _share(bad: float, total: float) -> str:
    return f"{100 * bad / total:.1f} %"


def _time(at: dt.datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _lines(*lines: str) -> str:
    return "\n".join(_plain(line, 600) for line in lines[:20] if line)


def _plain(text: str, limit: int) -> str:
    """On one line, without what cannot be seen, such as marks that turn the direction of writing."""
    seen = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return seen if len(seen) <= limit else f"{seen[: limit - 1]}…"


def _plain_text(text: str) -> dict[str, object]:
    return {"type": "plain_text", "text": _escaped(text), "emoji": False}


def _escaped(text: str) -> str:
    """As Slack wants it, and within what it takes; no entity is cut in two."""
    escaped = text.translate(_ENTITIES)
    return escaped if len(escaped) <= _SECTION else re.sub("&[a-z]*$", "", escaped[: _SECTION - 1]) + "…"
