"""All that is thought of a rollout in one verdict: what wins over what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog.judge.blocks import Blind, BlindReason, Counts, Status, Verdict
from watchdog.judge.verdict import combine

STALE = Blind(BlindReason.STALE, "no series")


def says(word: Status, *, signal: str = "errors", shared: bool = False) -> Verdict:
    cause = "threshold" if word is Status.BREACH else ""
    blind = STALE if word is Status.BLIND else None
    return Verdict(word, f"{signal} {word}", cause, blind, Counts(100, 6), Counts(1000, 1), shared, signal)


CRASHES = Verdict(Status.BREACH, "container web crashes", cause="crash-loop")
PENDING = Verdict(Status.BLIND, "no room", blind=Blind(BlindReason.PENDING, "no room"))
BREACH, HEALTHY, INSUFFICIENT, BLIND = map(says, (Status.BREACH, Status.HEALTHY, Status.INSUFFICIENT, Status.BLIND))


def of(
    *signals: Verdict, conditions: Verdict | None = None, image: str = "", alert: str = "", bake_over: bool = False
) -> Verdict:
    return combine(conditions, signals, condemned_image=image, alert_trusted=alert, bake_over=bake_over)


def test_breaches_win_in_their_order() -> None:
    found = of(BREACH, conditions=CRASHES, image="web:v2 was condemned", alert="HighErrorRate fires")
    assert (found.cause, found.detail) == ("condemned-image", "web:v2 was condemned")
    assert of(BREACH, conditions=CRASHES, alert="HighErrorRate fires") == CRASHES
    assert of(BREACH, alert="HighErrorRate fires") == BREACH
    found = of(INSUFFICIENT, alert="HighErrorRate fires")
    assert (found.status, found.cause, found.detail) == (Status.BREACH, "alert", "HighErrorRate fires")


@pytest.mark.parametrize("other", [BLIND, HEALTHY, INSUFFICIENT])
def test_a_breach_wins_over_everything_else(other: Verdict) -> None:
    assert of(other, BREACH, conditions=PENDING, bake_over=True) == BREACH
    assert of(other, conditions=PENDING, alert="HighErrorRate fires").status is Status.BREACH


def test_of_two_breaches_the_one_that_is_not_shared_speaks() -> None:
    shared, own = says(Status.BREACH, shared=True), says(Status.BREACH, signal="slow")
    assert of(shared, own) == own
    assert of(shared) == shared


def test_blindness_wins_over_health() -> None:
    assert of(HEALTHY, BLIND, bake_over=True) == BLIND
    assert of(HEALTHY, conditions=PENDING, bake_over=True) == PENDING


def test_health_takes_the_whole_bake_and_every_signal() -> None:
    slow = says(Status.HEALTHY, signal="slow")
    assert of(HEALTHY, slow, bake_over=True).status is Status.HEALTHY
    assert of(HEALTHY, slow).status is Status.INSUFFICIENT
    assert of(HEALTHY, INSUFFICIENT, bake_over=True).status is Status.INSUFFICIENT


def test_a_rollout_without_signals_is_never_called_healthy() -> None:
    found = of(bake_over=True)
    assert (found.status, found.detail) == (Status.INSUFFICIENT, "no signal to judge by")
    assert of(conditions=PENDING, bake_over=True) == PENDING


def test_an_open_verdict_names_every_signal_and_shows_the_first_ones_counts() -> None:
    found = of(INSUFFICIENT, says(Status.HEALTHY, signal="slow"))
    assert found.detail == "errors: errors insufficient; slow: slow healthy"
    assert (found.candidate, found.stable) == (Counts(100, 6), Counts(1000, 1))
    assert (found.signal, of(INSUFFICIENT).signal) == ("", "errors")


@given(
    st.lists(st.sampled_from(Status).map(says), max_size=4),
    st.none() | st.sampled_from([CRASHES, PENDING]),
    st.sampled_from(["", "web:v2 was condemned"]),
    st.sampled_from(["", "HighErrorRate fires"]),
    st.booleans(),
)
def test_the_verdict_is_the_strongest_word_and_a_breach_has_a_cause(
    signals: list[Verdict], conditions: Verdict | None, image: str, alert: str, bake_over: bool
) -> None:
    found = of(*signals, conditions=conditions, image=image, alert=alert, bake_over=bake_over)
    words = [each.status for each in signals] + ([conditions.status] if conditions else [])
    assert (found.status is Status.BREACH) == bool(image or alert or Status.BREACH in words)
    assert (found.status is Status.BREACH) == bool(found.cause)
    assert (found.status is Status.BLIND) == bool(found.blind)
    if found.status is Status.HEALTHY:
        assert bake_over
        assert set(words) == {Status.HEALTHY}
