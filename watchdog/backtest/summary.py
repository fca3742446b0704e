"""Caught, missed, false: each rule against what the rollouts were."""

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from watchdog.backtest.competitors import PEERS
from watchdog.backtest.labels import FLOOR, LEAST_BAD, LEAST_REQUESTS, TIMES, Label
from watchdog.backtest.replay import Finding, Replayed
from watchdog.config import RuleName

CONFIGURED = "configured policies"

NOTES = (
    "Bad: undone during its watch (last-rollback mark, revision numbers, or pods of an older version that came back); "
    f"or at least {LEAST_BAD} failures, and a share beyond doubt (Wilson, z = 3) above {100 * FLOOR:g} % and above "
    f"{TIMES:g} times that of the worst 5 min of the day before and of the stable pods in the same minutes. Fewer than "
    f"{LEAST_REQUESTS} requests: unknown.",
    "Saved: from the rollback to the undo, and the failed requests of the new version in that time; where nobody undid "
    "it, to the end of the replay, so at least so much. How long an undo takes is left out on both sides.",
    "Approximate: a pod is Ready at its first sample and gone after its last; an undo is seen when its first pod is; a "
    "counter that falls in fewer than one step of ten has restarted. Alerts, conditions (crash loops, image pulls), "
    "posted evaluations, holds, modes, budgets and bystanders are not replayed.",
    "Others: their rules on the same counts, from the first Ready pod to the end of our watch (a bake after the end). "
    "rate() would miss the first sample of each new series; and Flagger and Argo shift traffic, Deployments do not.",
)
"""What is to be known about the numbers."""


class FindingOutcome(StrEnum):
    """What a rule's finding is worth."""

    CAUGHT = "caught"
    ASKED = "asked"
    MISSED = "missed"
    FALSE = "false"
    FALSE_ASKED = "false-asked"
    PASSED = "passed"
    UNKNOWN = "unknown"


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule did in all rollouts.

    Args:
        caught: bad ones that it would have rolled back before they were undone.
        asked: bad ones for which it would only have asked a person.
        missed: bad ones that it let be.
        false: good ones that it would have rolled back.
        false_asked: good ones for which it would have asked.
        saved_s: seconds from its rollbacks to the undo, summed over what it caught.
        saved_errors: failed requests in that time.
        open: caught ones that nobody undid, for which both numbers end with the replay.
    """

    rule: str
    caught: int
    asked: int
    missed: int
    false: int
    false_asked: int
    saved_s: float
    saved_errors: float
    open: int


def tallies(replayed: Sequence[Replayed]) -> tuple[Tally, ...]:
    """Give the tally of the configured policies, of each rule of ours, and of those of others."""
    rules = (*map(str, RuleName), *(each.name for each in PEERS))
    return (_tally(CONFIGURED, replayed), *(_tally(rule, replayed) for rule in rules))


def finding_of(replayed: Replayed, rule: str) -> Finding | None:
    """Give what a rule did; None where nothing could be replayed."""
    name = str(replayed.rule) if rule == CONFIGURED else rule
    return next((each for each in (*replayed.ours, *replayed.peers) if each.rule == name), None)


def outcome(replayed: Replayed, rule: str) -> FindingOutcome:
    """Say what a rule's finding is worth."""
    finding, bad = finding_of(replayed, rule), replayed.was.label is Label.BAD
    if replayed.was.label is Label.UNKNOWN or finding is None:
        return FindingOutcome.UNKNOWN
    if finding.acted is not None:
        return FindingOutcome.CAUGHT if bad else FindingOutcome.FALSE
    if finding.asked is not None:
        return FindingOutcome.ASKED if bad else FindingOutcome.FALSE_ASKED
    return FindingOutcome.MISSED if bad else FindingOutcome.PASSED


def _tally(rule: str, replayed: Sequence[Replayed]) -> Tally:
    counts = Counter(outcome(each, rule) for each in replayed)
    caught = [each for each in replayed if outcome(each, rule) is FindingOutcome.CAUGHT]
    findings = [found for each in caught if (found := finding_of(each, rule))]
    return Tally(
        rule=rule,
        caught=counts[FindingOutcome.CAUGHT],
        asked=counts[FindingOutcome.ASKED],
        missed=counts[FindingOutcome.MISSED],
        false=counts[FindingOutcome.FALSE],
        false_asked=counts[FindingOutcome.FALSE_ASKED],
        saved_s=sum(each.saved_s for each in findings),
        saved_errors=sum(each.saved_errors for each in findings),
        open=sum(each.undone is None for each in caught),
    )
