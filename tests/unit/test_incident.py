"""The transition table: what is not in it cannot happen."""

import msgspec
import pytest
from msgspec.structs import replace

from tests.unit.builders import NOW
from watchdog.decide.incident import ENDS, TRANSITIONS, Happening, advance, end, lower, with_objections
from watchdog.decide.record import Record, State
from watchdog.model import Action, Guard, IncidentId, Mode, Objection, Outcome, Rollout, Topology
from watchdog.objects import TemplateHash, WorkloadRef

RECORD = Record(
    id=IncidentId("web-9"),
    rollout=Rollout(WorkloadRef("shop", "web"), "uid", 9, TemplateHash("hash")),
    policy="web",
    policy_digest="d",
    topology=Topology.ROLLING,
    mode=Mode.APPROVE,
    action=Action.UNDO,
    started=NOW,
)


def standing(state: State) -> Record:
    return msgspec.structs.replace(RECORD, state=state)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("happening", [each for each in Happening if each is not Happening.END])
def test_only_what_is_in_the_table_happens(state: State, happening: Happening) -> None:
    if (state, happening) in TRANSITIONS:
        assert advance(standing(state), happening, now=NOW).state is TRANSITIONS[state, happening]
    else:
        with pytest.raises(ValueError, match=f"{happening} cannot happen while {state}"):
            advance(standing(state), happening, now=NOW)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("outcome", Outcome)
def test_each_state_ends_only_as_it_may(state: State, outcome: Outcome) -> None:
    if outcome in ENDS.get(state, ()):
        ended = end(standing(state), outcome, "why", now=NOW)
        assert (ended.state, ended.outcome, ended.detail, ended.ended) == (State.ENDED, outcome, "why", NOW)
    else:
        with pytest.raises(ValueError, match="does not end"):
            end(standing(state), outcome, "why", now=NOW)


def test_every_state_but_the_last_has_an_end_and_can_be_reached() -> None:
    assert ENDS.keys() == set(State) - {State.ENDED}
    assert {State.WATCHING, *TRANSITIONS.values()} == set(State)
    assert not any(state is State.ENDED for state, _ in TRANSITIONS)


def test_a_person_is_asked_at_a_time() -> None:
    assert advance(standing(State.BREACH), Happening.LOWERED, now=NOW).asked == NOW


def test_a_guard_speaks_once() -> None:
    first, again, other = Objection(Guard.MODE, "one", NOW), Objection(Guard.MODE, "two"), Objection(Guard.SHARED, "x")
    found = with_objections(with_objections(RECORD, first, now=NOW), again, other, now=NOW)
    assert found.objections == (first, replace(other, at=NOW))


def test_a_mode_is_lowered_and_never_raised() -> None:
    assert lower(RECORD, Mode.ENFORCE).mode is Mode.APPROVE
    assert lower(RECORD, Mode.OBSERVE).mode is Mode.OBSERVE
