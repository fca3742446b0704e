"""The judgement guards: what makes the service ask, or refuse."""

import datetime as dt
from typing import Any

import msgspec
import pytest

from tests.unit.builders import NOW
from watchdog.decide import limits
from watchdog.decide.limits import Facts, SafetyLimits, condemned_images, objections
from watchdog.decide.record import Planned, Record, VerdictSeen
from watchdog.judge.blocks import Status, Verdict
from watchdog.model import Action, Guard, IncidentId, Mode, Outcome, Rollout, Silence, Topology
from watchdog.objects import TemplateHash, WorkloadRef

WEB = WorkloadRef("shop", "web")
MINUTE = dt.timedelta(minutes=1)
LIMITS = SafetyLimits(budget=2, cool_down=30 * MINUTE, breaker=3, breaker_all=5, breaker_window=10 * MINUTE)
OFF = SafetyLimits(budget=0, cool_down=0 * MINUTE, breaker=0, breaker_all=0, breaker_window=10 * MINUTE)
BREACH = Verdict(Status.BREACH, "30.0 % of 100", cause="threshold")


def record(number: int = 9, *, ref: WorkloadRef = WEB, image: str = "web:9", **changes: Any) -> Record:
    rollout = Rollout(ref, f"uid-{ref.name}", number, TemplateHash(f"hash{number}"))
    made = Record(
        id=IncidentId(f"{ref.name}-{number}"),
        rollout=rollout,
        policy="web",
        policy_digest="d",
        topology=Topology.ROLLING,
        mode=Mode.ENFORCE,
        action=Action.UNDO,
        started=NOW,
        images={"app": image},
    )
    return msgspec.structs.replace(made, **changes)


def acted(number: int, minutes_ago: float, **changes: Any) -> Record:
    return record(number, image=f"web:{number}", write_at=NOW - minutes_ago * MINUTE, **changes)


def breached(
    number: int, minutes_ago: float, *, image: str = "", namespace: str = "shop", mode: Mode = Mode.ENFORCE
) -> Record:
    seen, ref = VerdictSeen(NOW - minutes_ago * MINUTE, "breach", "bad"), WorkloadRef(namespace, f"app-{number}")
    return record(number, ref=ref, image=image or f"app:{number}", verdicts=(seen,), mode=mode)


def spoken(
    mine: Record, *, settings: SafetyLimits = LIMITS, others: tuple[Record, ...] = (), **facts: object
) -> list[str]:
    asked = msgspec.structs.replace(Facts(verdict=BREACH, others=others), **facts)
    return [f"{each.guard}{' asks' if each.asks else ''}" for each in objections(mine, asked, settings, now=NOW)]


def test_a_breach_that_nothing_speaks_against_may_act() -> None:
    assert spoken(record()) == []


@pytest.mark.parametrize(("mode", "guards"), [("observe", ["mode"]), ("approve", ["mode asks"]), ("enforce", [])])
def test_the_mode_refuses_asks_or_lets_act(mode: str, guards: list[str]) -> None:
    assert spoken(record(mode=Mode(mode))) == guards


def test_the_budget_counts_this_workloads_actions_of_a_day() -> None:
    two = (acted(7, 60 * 23), acted(8, 60))
    assert spoken(record(), others=two) == ["budget asks"]
    assert spoken(record(), others=(acted(7, 60 * 25), acted(8, 60))) == []
    assert spoken(record(ref=WorkloadRef("shop", "other")), others=two) == []
    assert spoken(record(), settings=OFF, others=two) == []


def test_the_cool_down_begins_with_the_last_action() -> None:
    assert spoken(record(), others=(acted(8, 29),)) == ["cool-down asks"]
    assert spoken(record(), others=(acted(8, 30),)) == []
    assert spoken(record(), settings=OFF, others=(acted(8, 1),)) == []


def test_three_different_images_in_breach_at_once_ask_people() -> None:
    assert spoken(record(), others=(breached(1, 9), breached(2, 1))) == ["breaker asks"]
    assert spoken(record(), others=(breached(1, 11), breached(2, 1))) == []
    assert spoken(record(), others=(breached(1, 1, image="web:9"), breached(2, 1))) == []
    assert spoken(record(), settings=OFF, others=(breached(1, 1), breached(2, 1), breached(3, 1))) == []


def test_what_fails_in_a_namespace_that_is_only_observed_stops_nobody_elsewhere() -> None:
    for namespace in ("shop", "other"):
        seen = [breached(number, 1, namespace=namespace, mode=Mode.OBSERVE) for number in range(1, 20)]
        assert spoken(record(), others=tuple(seen)) == []
    asked = (breached(1, 1, mode=Mode.APPROVE), breached(2, 1, mode=Mode.OBSERVE), breached(3, 1, mode=Mode.APPROVE))
    assert spoken(record(), others=asked) == ["breaker asks"], "with a person's yes they may act"


def test_one_namespace_stops_another_only_when_very_many_fail() -> None:
    elsewhere = tuple(breached(number, 1, namespace=f"team-{number % 2}") for number in range(1, 5))
    assert spoken(record(), others=elsewhere[:3]) == []
    assert spoken(record(), others=elsewhere) == ["breaker asks"]
    assert spoken(record(), settings=msgspec.structs.replace(LIMITS, breaker_all=0), others=elsewhere) == []
    [objection] = objections(record(), Facts(verdict=BREACH, others=elsewhere), LIMITS, now=NOW)
    assert "5 different images in breach within 0:10:00 in all namespaces: shop/web, team-0/app-2" in objection.detail


def test_the_breaker_of_a_namespace_goes_on_where_that_of_all_is_off() -> None:
    settings = msgspec.structs.replace(LIMITS, breaker_all=0)
    [objection] = objections(
        record(), Facts(verdict=BREACH, others=(breached(1, 1), breached(2, 1))), settings, now=NOW
    )
    assert "in namespace shop: shop/app-1, shop/app-2, shop/web" in objection.detail


def test_a_condemned_version_that_comes_back_is_asked_about_and_how_it_came_is_said() -> None:
    before = acted(4, 40)
    late, soon = record(), record(started=NOW - 20 * MINUTE)
    for mine, gitops, how in (
        (late, False, "live again;"),
        (soon, False, "soon;"),
        (late, True, "by a GitOps controller;"),
    ):
        facts = Facts(verdict=BREACH, others=(before,), condemned_by="web-4", gitops=gitops)
        [objection] = objections(mine, facts, LIMITS, now=NOW)
        assert (objection.guard, objection.asks) == ("loop", True)
        assert how in objection.detail


def test_after_an_undo_that_did_not_help_people_decide_for_a_day() -> None:
    failed = record(4, outcome=Outcome.INEFFECTIVE, ended=NOW - 23 * 60 * MINUTE)
    assert spoken(record(), others=(failed,)) == ["loop asks"]
    assert spoken(record(), others=(msgspec.structs.replace(failed, ended=NOW - 24 * 60 * MINUTE),)) == []


def test_what_both_tracks_share_is_no_reason_to_undo_but_one_to_scale_a_canary_down() -> None:
    shared = msgspec.structs.replace(BREACH, shared=True)
    assert spoken(record(), verdict=shared) == ["shared asks"]
    assert spoken(record(action=Action.SCALE_DOWN), verdict=shared) == []


def test_what_failed_before_may_be_fixed_by_this() -> None:
    assert spoken(record(incident_first="30 % failed before")) == ["incident-first asks"]


def test_an_alert_alone_asks_and_waits_while_the_signal_is_blind() -> None:
    assert spoken(record(), confirmed=False) == ["unconfirmed asks"]
    assert spoken(record(), signals_blind="stale") == ["blind"]
    assert Guard.BLIND in limits.WAITING


@pytest.mark.parametrize(
    ("matchers", "covers"),
    [
        ((), True),
        ((("namespace", "shop", False, True),), True),
        ((("namespace", "shop", False, True), ("deployment", "we.", True, True)), True),
        ((("namespace", "other", False, True),), False),
        ((("deployment", "we", True, True),), False),
        ((("namespace", "shop", False, False),), False),
        ((("deployment", "api.*", True, False),), True),
        ((("team", "a", False, True),), False),
        ((("deployment", "(", True, True),), True),
    ],
)
def test_a_silence_covers_what_it_matches(matchers: tuple[tuple[str, str, bool, bool], ...], *, covers: bool) -> None:
    silence = Silence(id="s", matchers=matchers, by="jane", comment="quiet", until=NOW + MINUTE)
    assert spoken(record(), silences=(silence,)) == (["silence asks"] if covers else [])


def test_an_alertmanager_that_does_not_answer_stops_nothing() -> None:
    assert spoken(record(), silences=None) == []


def test_refusals_come_before_what_only_asks() -> None:
    guards = spoken(record(incident_first="x", mode=Mode.OBSERVE), others=(acted(8, 1),), signals_blind="stale")
    assert guards == ["mode", "blind", "cool-down asks", "incident-first asks"]


def test_images_are_condemned_for_a_day_on_the_workloads_that_are_linked() -> None:
    plan = Planned(Action.UNDO, 4, TemplateHash("a"), 3, TemplateHash("b"), "threshold", condemned={"app": "web:4"})
    bad = acted(4, 60, plan=plan)
    assert condemned_images((bad,), (WEB,), now=NOW) == {("app", "web:4"): "web-4"}
    assert condemned_images((bad,), (WorkloadRef("shop", "other"),), now=NOW) == {}
    assert condemned_images((acted(4, 60 * 24, plan=plan),), (WEB,), now=NOW) == {}
    assert condemned_images((acted(4, 60, plan=plan, outcome=Outcome.INEFFECTIVE),), (WEB,), now=NOW) == {}
    assert condemned_images((record(4, plan=plan),), (WEB,), now=NOW) == {}
