"""What people are told: one wording for each end, all of them in the documentation."""

import datetime as dt
import re
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from watchdog.decide.record import (
    AlertSeen,
    Answer,
    DecisionCounts,
    Notified,
    Planned,
    Record,
    SignalUsed,
    State,
    Tried,
    VerdictSeen,
    Written,
)
from watchdog.model import Action, Guard, Mode, Objection, Outcome, Rollout, Topology
from watchdog.notify.wording import Message, render
from watchdog.objects import TemplateHash, WorkloadRef

DOCUMENT = Path(__file__).parents[2] / "docs" / "messages.md"
NOW = dt.datetime(2026, 3, 1, 13, 35, tzinfo=dt.UTC)
OLD, BAD = TemplateHash("78ddb67599"), TemplateHash("55945cbcf6")
ROLLOUT = Rollout(WorkloadRef("production", "agent-api"), "5f2f7b9e", 7, BAD)
BREACH = VerdictSeen(NOW, "breach", "8.3 % of 735 requests failed, allowed are 5.0 %", "threshold", "errors")
TOLD = Notified("C0123456789", "1.1")
replace = msgspec.structs.replace

PLAN = Planned(
    action=Action.UNDO,
    from_revision=7,
    from_hash=BAD,
    to_revision=5,
    to_hash=OLD,
    cause="threshold",
    numbers=DecisionCounts(61, 735, 12, 3010),
    target_images={"app": "agent-api:v5"},
)
BASE = Record(
    id=ROLLOUT.incident,
    rollout=ROLLOUT,
    policy="agent-api",
    policy_digest="0",
    topology=Topology.ROLLING,
    mode=Mode.ENFORCE,
    action=Action.UNDO,
    started=NOW,
    images={"app": "agent-api:v7"},
    signals=(SignalUsed("errors", "agent_errors_total", "agent_requests_total"),),
    verdicts=(BREACH,),
    plan=PLAN,
)


def ended(outcome: Outcome, detail: str = "", *, written: bool = False, record: Record = BASE) -> Record:
    write_at = NOW if written else None
    return replace(record, state=State.ENDED, outcome=outcome, ended=NOW, detail=detail, write_at=write_at)


def objections(record: Record, guard: Guard, detail: str = "", *, asks: bool = False) -> Record:
    return replace(record, objections=(*record.objections, Objection(guard, detail, NOW, asks)))


def observed(record: Record) -> Record:
    return replace(objections(record, Guard.MODE, "the mode is observe"), mode=Mode.OBSERVE)


def planned(**changes: object) -> Record:
    return replace(BASE, plan=replace(PLAN, **changes))


REFUSED, OBSERVED = ended(Outcome.REFUSED), ended(Outcome.OBSERVED)
TRIED = Tried(NOW, NOW + dt.timedelta(minutes=5), 3, 0, 'admission webhook "images.example.test"')
UNSEEN = replace(BASE, verdicts=(), plan=None)
UNPLANNED = replace(BASE, plan=None)
FEW = "12 requests in 15 min, 20 are needed"
CLEAN = "0.3 % vs 0.4 % errors"

SAMPLES = {
    "cleared": replace(UNPLANNED, notified=TOLD),
    "breach": replace(UNPLANNED, state=State.BREACH),
    "waiting": objections(replace(BASE, state=State.BREACH), Guard.NOT_OBSERVED),
    "asking": objections(replace(BASE, state=State.ASKING, asked=NOW), Guard.SHARED, "stable fails too", asks=True),
    "acting": replace(BASE, state=State.ACTING),
    "acting-refused": replace(BASE, state=State.ACTING, tried=TRIED),
    "acting-again": replace(BASE, state=State.ACTING, tried=replace(TRIED, by="")),
    "verifying": replace(BASE, state=State.VERIFYING, write_at=NOW),
    "verifying-stuck": replace(BASE, state=State.VERIFYING, write_at=NOW, stuck="2 pods: app: ImagePullBackOff"),
    "recovered": ended(Outcome.RECOVERED, written=True),
    "recovered-condition": ended(Outcome.RECOVERED, written=True, record=planned(cause="crash-loop", numbers=None)),
    "ineffective": ended(Outcome.INEFFECTIVE, written=True),
    "rolled-back": ended(Outcome.ROLLED_BACK, written=True),
    "scaled-down": ended(Outcome.SCALED_DOWN, written=True, record=planned(action=Action.SCALE_DOWN)),
    "switched-back": ended(Outcome.SWITCHED_BACK, written=True, record=planned(action=Action.SWITCH_BACK)),
    "paused": ended(Outcome.PAUSED, written=True, record=planned(action=Action.PAUSE)),
    "refused-gitops": objections(REFUSED, Guard.GITOPS, "managed by Argo CD"),
    "refused-no-target": objections(REFUSED, Guard.NO_TARGET),
    "refused-hold": objections(REFUSED, Guard.HOLD),
    "refused-unanswered": objections(replace(REFUSED, asked=NOW), Guard.SHARED, asks=True),
    "refused-dismissed": replace(REFUSED, asked=NOW, people=(Answer("dismiss", "jane@example.com", NOW, "cli"),)),
    "superseded": ended(Outcome.SUPERSEDED),
    "superseded-after": ended(Outcome.SUPERSEDED, written=True),
    "failed": ended(Outcome.FAILED),
    "failed-refused": ended(Outcome.FAILED, record=replace(BASE, tried=TRIED)),
    "failed-unplanned": ended(Outcome.FAILED, record=planned(to_revision=0, to_hash="")),
    "unproven": ended(Outcome.UNPROVEN, record=UNSEEN),
    "failed-after": ended(Outcome.FAILED, written=True),
    "passed": ended(Outcome.PASSED, CLEAN, record=UNSEEN),
    "unjudged": ended(Outcome.UNJUDGED, FEW, record=UNSEEN),
    "observe": observed(OBSERVED),
    "observe-refused": objections(observed(OBSERVED), Guard.GITOPS, "managed by Argo CD"),
    "observe-asking": objections(observed(OBSERVED), Guard.SHARED, asks=True),
    "observe-cleared": observed(replace(UNPLANNED, notified=TOLD)),
    "observe-superseded": observed(ended(Outcome.SUPERSEDED)),
    "observe-passed": observed(ended(Outcome.PASSED, CLEAN, record=UNSEEN)),
    "observe-unjudged": observed(ended(Outcome.UNJUDGED, FEW, record=UNSEEN)),
}


def said(record: Record) -> Message:
    message = render(record)
    assert message is not None
    return message


# -- the table ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLES)
def test_the_documentation_lists_each_wording(name: str) -> None:
    assert f"`{said(SAMPLES[name]).first_line}`" in DOCUMENT.read_text(encoding="utf-8")


def test_the_documentation_lists_nothing_else() -> None:
    lines = {said(record).first_line for record in SAMPLES.values()}
    listed = re.findall(
        r"^\| `(.*production/agent-api: .+?)` \|", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert sorted(listed) == sorted(lines)


def test_each_end_has_its_wording() -> None:
    ends = {record.outcome for record in SAMPLES.values() if record.outcome}
    persons = {Outcome.RESTORED, Outcome.ALREADY, Outcome.UNDER_WAY}  # of actions that have no record
    assert ends == set(Outcome) - persons
    assert {record.state for record in SAMPLES.values()} == set(State)


def test_the_first_line_of_a_recovery_is_the_one_that_was_asked_for() -> None:
    line = "production/agent-api: rolled back 7 → 5, 8.3 % vs 0.4 % errors (61/735), recovered. Nothing to do."
    assert said(SAMPLES["recovered"]).first_line == line


@pytest.mark.parametrize("name", [name for name in SAMPLES if "not-" not in name])
def test_each_first_line_ends_with_what_the_reader_has_to_do(name: str) -> None:
    line = said(SAMPLES[name]).first_line
    assert re.search(
        r"(Nothing to do( yet)?\.|told here\.|Git\.|works\.|yourself\.|UTC\)\.|(rollback-watchdog|kubectl) [^.]+)$",
        line,
    )


# -- saying nothing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", Mode)
def test_a_rollout_that_is_merely_watched_is_not_told(mode: Mode) -> None:
    assert render(replace(UNSEEN, mode=mode)) is None


@pytest.mark.parametrize("mode", Mode)
def test_a_rollout_that_was_replaced_while_it_was_watched_is_not_told(mode: Mode) -> None:
    assert render(replace(ended(Outcome.SUPERSEDED, record=UNSEEN), mode=mode)) is None


def test_a_breach_that_was_replaced_before_anybody_was_told_is_told() -> None:
    assert "someone else replaced it first" in said(ended(Outcome.SUPERSEDED, record=UNPLANNED)).first_line


# -- observe -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in SAMPLES if name.startswith("observe")])
def test_observe_shouts_and_says_that_nothing_was_done(name: str) -> None:
    assert re.match(r"OBSERVE: production/agent-api: .+; nothing was done\. ", said(SAMPLES[name]).first_line)


@pytest.mark.parametrize("state", [State.BREACH, State.ASKING])
def test_observe_says_from_the_start_what_it_would_do(state: State) -> None:
    line = said(observed(replace(UNPLANNED, state=state))).first_line
    assert line.startswith("OBSERVE: production/agent-api: would roll back revision 7, 8.3 % of 735 requests failed")


@pytest.mark.parametrize("name", ["acting", "verifying", "recovered", "failed", "failed-after", "superseded-after"])
def test_a_mode_that_was_lowered_too_late_does_not_deny_the_write(name: str) -> None:
    assert "nothing was done" not in said(replace(SAMPLES[name], mode=Mode.OBSERVE)).first_line


def test_a_rollout_without_a_judgement_is_never_called_passed() -> None:
    for name in ("unjudged", "observe-unjudged"):
        assert "pass" not in str(said(SAMPLES[name]))


# -- numbers and causes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "evidence"),
    [
        (BASE, ", 8.3 % vs 0.4 % errors (61/735)"),
        (planned(numbers=DecisionCounts(61, 735, 0, 0)), ", 8.3 % errors (61/735)"),
        (planned(numbers=None), ", 8.3 % of 735 requests failed, allowed are 5.0 %"),
        (planned(cause="image-pull"), ", an image that cannot be pulled"),
        (replace(BASE, verdicts=(replace(BREACH, signal="slow"),)), ", 8.3 % vs 0.4 % slow (61/735)"),
        (
            replace(
                planned(cause="alert", numbers=None), alerts=(AlertSeen("f", "AgentErrors", NOW, "attributed", None),)
            ),
            ", alert AgentErrors",
        ),
    ],
)
def test_the_evidence_is_the_numbers_or_the_cause(record: Record, evidence: str) -> None:
    line = said(replace(record, state=State.ACTING)).first_line
    assert line == f"production/agent-api: rolling back 7 → 5{evidence}. How it ends is told here."


@pytest.mark.parametrize(
    ("action", "command"),
    [
        (Action.SCALE_DOWN, "kubectl -n production scale deployment/agent-api --replicas=0"),
        (Action.PAUSE, "kubectl -n production rollout pause deployment/agent-api"),
    ],
)
def test_the_command_does_what_the_service_did_not(action: Action, command: str) -> None:
    assert said(ended(Outcome.FAILED, record=planned(action=action))).first_line.endswith(command)


def test_an_approval_expires_when_the_configuration_says_so() -> None:
    message = render(SAMPLES["asking"], approval_s=600)
    assert message is not None
    assert "(expires 13:45 UTC)" in message.first_line


def test_the_body_says_why_and_nothing_that_the_first_line_says() -> None:
    assert said(SAMPLES["passed"]).body == ""
    assert said(SAMPLES["refused-gitops"]).body == "gitops: managed by Argo CD"
    assert said(SAMPLES["asking"]).body == "shared: stable fails too"


def test_a_refusal_after_an_answer_does_not_say_that_nobody_answered() -> None:
    approved = replace(REFUSED, asked=NOW, people=(Answer("approve", "jane@example.com", NOW, "cli"),))
    line = said(objections(approved, Guard.NOTHING_TO_UNDO)).first_line
    assert line.startswith("production/agent-api: NOT rolled back 7 → 5 (nothing-to-undo), 8.3 %")


@pytest.mark.parametrize("record", [observed(REFUSED), objections(REFUSED, Guard.NOTHING_TO_UNDO)])
def test_a_guard_that_gave_way_in_the_end_is_not_named(record: Record) -> None:
    waited = replace(record, objections=(*record.objections, Objection(Guard.NOT_OBSERVED, "", NOW)))
    assert said(waited).first_line == said(record).first_line


# -- details -----------------------------------------------------------------------------------------------------------


def test_the_thread_tells_the_whole_story_in_order() -> None:
    record = replace(
        SAMPLES["recovered"],
        objections=(Objection(Guard.SHARED, "stable fails too", NOW, asks=True),),
        alerts=(AlertSeen("f", "AgentErrors", NOW, "attributed"), AlertSeen("g", "Other", NOW, "resolved")),
        asked=NOW,
        people=(Answer("approve", "jane@example.com", NOW, "cli"),),
        writes=(Written(NOW, "rolled back 7 → 5"),),
        verified="5 of 5 pods",
    )
    begins = [detail.partition(" ")[0] for detail in said(record).details]
    assert begins == ["Evidence", "Alert", "Plan:", "Guard", "A", "jane@example.com", "Written", "Verified:", "Ended"]
    assert said(record).details[2].splitlines() == [
        "Plan: undo of revision 7 (55945cbcf6) to revision 5 (78ddb67599), cause threshold",
        "candidate 61 of 735, stable 12 of 3010",
        "app: agent-api:v7 -> agent-api:v5",
    ]
    assert f"rollback-watchdog approve {record.id}" in said(record).details[4]
    assert "rollback-watchdog history production/agent-api" in said(record).details[-1]


def test_a_detail_stays_as_it_is_once_it_is_said() -> None:
    """Else the thread would say it again: details are known by their text."""
    story = [SAMPLES[name] for name in ("breach", "acting", "verifying", "recovered")]
    for before, after in pairwise(story):
        assert said(after).details[: len(said(before).details)] == said(before).details


def test_a_rollout_that_ends_well_has_no_thread() -> None:
    assert said(SAMPLES["passed"]).details == said(SAMPLES["unjudged"]).details == ()


# -- foreign text ------------------------------------------------------------------------------------------------------

EVIL = "<!channel> & <https://evil.example|click>\n*bold*\x1b[31m\u202eesrever"


def evil(text: str) -> Record:
    record = objections(ended(Outcome.REFUSED, text, record=planned(numbers=None)), Guard.HOLD, text)
    return replace(
        record,
        policy=text,
        verdicts=(replace(BREACH, detail=text, signal=text),),
        images={text: text},
        people=(Answer("dismiss", text, NOW, text),),
        alerts=(AlertSeen("f", text, NOW, "attributed"),),
        verified=text,
        signals=(SignalUsed(text, text, text),),
        writes=(Written(NOW, text),),
    )


def shown(message: Message) -> list[str]:
    parts = [block.get("text") or block["elements"][0] for block in msgspec.to_builtins(message.blocks)]
    assert all(part["type"] == "plain_text" for part in parts)  # where markup is never read
    return [message.text, *message.thread, *(part["text"] for part in parts)]


def test_foreign_text_is_escaped_wherever_it_is_shown() -> None:
    texts = shown(said(evil(EVIL)))
    assert "&lt;!channel&gt; &amp;" in texts[0]
    for text in texts:
        assert not re.search(r"[<>\x1b\u202e]|&(?!amp;|lt;|gt;)", text)


@pytest.mark.parametrize("text", ["<" * 100_000, "& " * 100_000, "word " * 100_000])
def test_long_texts_are_cut_and_no_entity_in_two(text: str) -> None:
    message = said(evil(text))
    assert len(message.first_line) <= 300
    for part in shown(message):
        assert len(part) <= 2900
        assert not re.search(r"&(?!amp;|lt;|gt;)", part)
