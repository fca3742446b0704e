"""The life of a rollout under watch, as a table of transitions. Whatever is not in it cannot happen.

    watching ──breach──► breach ──allowed──► acting ──written──► verifying ──► ended
        ▲                 │  │                 ▲  │                            recovered, ineffective,
        └────cleared──────┘  └──lowered──► asking └─refused, failed──► ended   rolled-back, failed, superseded

A record is saved after every transition and before the next one's work begins. Acting alone is different: the patch
itself carries the mark `last-rollback`, so a process that finds `acting` in a record asks the Deployment whether it was
written (reference/kubernetes.md §2.2). So an incident may be cut anywhere and is finished by whoever comes next.
"""

import datetime as dt
from enum import StrEnum

import msgspec

from watchdog.decide.record import Record, State, Veto
from watchdog.model import Mode, Outcome


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
    State.BREACH: {Outcome.REFUSED, Outcome.SUPERSEDED, Outcome.UNPROVEN},
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


def veto(record: Record, *vetoes: Veto) -> Record:
    """The record with guards that spoke, each once."""
    known = {each.guard for each in record.vetoes}
    return msgspec.structs.replace(
        record, vetoes=(*record.vetoes, *(each for each in vetoes if each.guard not in known))
    )


def lower(record: Record, mode: Mode) -> Record:
    """The record with the lower of two modes: a rollout's mode never rises."""
    order = list(Mode)
    return msgspec.structs.replace(record, mode=min(record.mode, mode, key=order.index))


def _next(record: Record, happening: Happening) -> State:
    state = TRANSITIONS.get((record.state, happening))
    if state is None:
        raise ValueError(f"{record.id}: {happening} cannot happen while {record.state}")
    return state
