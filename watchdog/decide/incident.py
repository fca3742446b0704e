"""The life of a rollout under watch, as a table of transitions. Whatever is not in it cannot happen.

    watching ──breach──► breach ──allowed──► acting ──written──► verifying ──► ended
        ▲                 │  │                 ▲  │                            recovered, ineffective,
        └────cleared──────┘  └──lowered──► asking └─refused, failed──► ended   rolled-back, failed, superseded

In mode `observe` a breach ends `observed`, with the plan that would have been carried out.

A record is saved after every transition and before the next one's work begins. Acting alone is different: the patch
itself carries the mark `last-rollback`, so a process that finds `acting` in a record asks the Deployment whether it was
written. So an incident may be cut anywhere and is finished by whoever comes next.
"""

import datetime as dt
from enum import StrEnum

import msgspec

from watchdog.decide.record import Record, State, Tried
from watchdog.errors import ClusterError, NotAdmitted
from watchdog.model import Mode, Objection, Outcome

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_NOES = 2


class Happening(StrEnum):
    """What moves a rollout from one state to the next."""

    BREACH = "breach"
    CLEARED = "cleared"
    ALLOWED = "allowed"
    LOWERED = "lowered"
    APPROVED = "approved"
    WRITTEN = "written"
    WAIT = "wait"
    END = "end"


TRANSITIONS = {
    (State.WATCHING, Happening.BREACH): State.BREACH,
    (State.WATCHING, Happening.END): State.ENDED,
    (State.BREACH, Happening.CLEARED): State.WATCHING,
    (State.BREACH, Happening.ALLOWED): State.ACTING,
    (State.BREACH, Happening.LOWERED): State.ASKING,
    (State.BREACH, Happening.END): State.ENDED,
    (State.ASKING, Happening.APPROVED): State.ACTING,
    (State.ASKING, Happening.END): State.ENDED,
    (State.ACTING, Happening.WAIT): State.BREACH,
    (State.ACTING, Happening.WRITTEN): State.VERIFYING,
    (State.ACTING, Happening.END): State.ENDED,
    (State.VERIFYING, Happening.END): State.ENDED,
}

ENDS = {
    State.WATCHING: {Outcome.PASSED, Outcome.UNJUDGED, Outcome.SUPERSEDED, Outcome.UNPROVEN},
    State.BREACH: {Outcome.REFUSED, Outcome.OBSERVED, Outcome.SUPERSEDED, Outcome.UNPROVEN},
    State.ASKING: {Outcome.REFUSED, Outcome.SUPERSEDED, Outcome.UNPROVEN},
    State.ACTING: {Outcome.REFUSED, Outcome.SUPERSEDED, Outcome.UNPROVEN, Outcome.FAILED},
    State.VERIFYING: {
        Outcome.RECOVERED,
        Outcome.INEFFECTIVE,
        Outcome.ROLLED_BACK,
        Outcome.SCALED_DOWN,
        Outcome.SWITCHED_BACK,
        Outcome.PAUSED,
        Outcome.SUPERSEDED,
        Outcome.FAILED,
        Outcome.UNPROVEN,
    },
}
"""The outcomes that each state may end with."""


def advance(record: Record, happening: Happening, *, now: dt.datetime) -> Record:
    """The record after something that does not end it.

    Raises:
        ValueError: that cannot happen in its state.
    """
    state = _next(record, happening)
    asked = now if state is State.ASKING else record.asked
    return msgspec.structs.replace(record, state=state, asked=asked)


def end(record: Record, outcome: Outcome, detail: str, *, now: dt.datetime) -> Record:
    """The record of an ended watch.

    Raises:
        ValueError: this state cannot end so.
    """
    if outcome not in ENDS.get(record.state, ()):
        raise ValueError(f"{record.id}: {record.state} does not end {outcome}")
    state = _next(record, Happening.END)
    return msgspec.structs.replace(record, state=state, outcome=outcome, detail=detail, ended=now)


def try_again(
    record: Record, error: ClusterError, *, now: dt.datetime, limit: dt.timedelta
) -> tuple[Tried, float | None]:
    """What is known of a write after another failure, and the seconds until it is tried again; None gives it up.

    The pauses double from a second to a minute and the last try comes at the end of the time: eleven writes in the
    default 5 minutes, which no API server notices, and within a minute of the moment at which the refuser gives way.
    What rarely passes (a 403, a validation error) is tried once more, since rights and policies are replaced in two
    steps.

    Args:
        record: with what became of the tries before, which a next process goes on from.
        limit: how long a write is tried.
    """
    before = record.tried or Tried(now, now + limit, 0, 0)
    refuser = error.refuser if isinstance(error, NotAdmitted) else ""
    tried = Tried(before.since, before.until, before.times + 1, before.noes + (not error.may_pass), refuser)
    left_s = (tried.until - now).total_seconds()
    if tried.noes >= _NOES or left_s <= 0:
        return tried, None
    pause_s = min(_LONGEST_PAUSE_S, max(_FIRST_PAUSE_S * 2.0 ** min(before.times, 10), error.retry_after_s))
    return tried, min(pause_s, left_s)


def with_objections(record: Record, *objections: Objection, now: dt.datetime) -> Record:
    """The record with the guards that objected, each once and with its time."""
    known = {each.guard for each in record.objections}
    new = [msgspec.structs.replace(each, at=each.at or now, also=()) for each in objections if each.guard not in known]
    return msgspec.structs.replace(record, objections=(*record.objections, *new))


def lower(record: Record, mode: Mode) -> Record:
    """The record with the lower of two modes: a rollout's mode never rises."""
    order = list(Mode)
    return msgspec.structs.replace(record, mode=min(record.mode, mode, key=order.index))


def _next(record: Record, happening: Happening) -> State:
    state = TRANSITIONS.get((record.state, happening))
    if state is None:
        raise ValueError(f"{record.id}: {happening} cannot happen while {record.state}")
    return state
