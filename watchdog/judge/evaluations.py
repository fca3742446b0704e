"""Failed evaluations, which pipelines post in batches, judged by the rule `sequential`.

A batch belongs to the block in which it arrived. Those of the stable version are the concurrent control whether or not
its pods still run, and they wait for the candidate's: who evaluates both does so one after the other. That is a rule on
volumes alone, as the merging of polls is, and costs no validity (docs/design/statistics.md §1, process C). Without
them only the control from the past can speak; its reference is configured or unknown, so it never does more than ask.

A batch is a measurement somebody made on purpose, not what traffic happened to bring in a few seconds: one alone may
reach the bar, where errors of requests need several blocks, and no number of its cases is too many to count. That cases
fail together, such as one that is asked three times, is what phi is for; it is that of an unknown past.
"""

import math
from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from watchdog.judge import calibration, sequential
from watchdog.judge.blocks import Block, Counts, Status, Track, Verdict
from watchdog.judge.sequential import Control, Crossed, SequentialSettings, SequentialState
from watchdog.model import Guard, Objection

SIGNAL = "evaluations"
"""The name of the signal."""

MOST = 100
"""Batches that are kept of one rollout."""

_BLOCKS = 0.5
"""One block may bring twice the bar: the mean of ten bets has to reach it, and a single one may have to carry it."""


class Evaluation(msgspec.Struct, frozen=True):
    """One batch of evaluations of one version.

    Args:
        id: its name, by which it counts once.
        step: the step of the grid that ends the block in which it arrived.
        track: the side of the version that was evaluated.
        bad: those of them that failed.
    """

    id: str
    step: int
    track: Track
    total: int
    bad: int

    @property
    def counts(self) -> Counts:
        """Its numbers."""
        return Counts(self.total, self.bad)


class EvaluationState(msgspec.Struct, frozen=True):
    """Where the judgement stands.

    Args:
        judged: the rule's own state.
        held: evaluations of the stable version that wait for some of the candidate.
        candidate: all of the candidate's so far.
        stable: all of the stable version's.
    """

    judged: SequentialState = SequentialState()
    held: Counts = Counts()
    candidate: Counts = Counts()
    stable: Counts = Counts()


def freeze_settings(
    *, step_s: float, baseline: float, alpha: float, alpha_alert: float, signals: int, bake_s: float
) -> SequentialSettings:
    """Give what evaluations of a rollout are held to, fixed at its start.

    Args:
        baseline: the share of evaluations that fails as a rule.
        alpha: probability of a false rollback per rollout, over all signals.
        alpha_alert: the same once an attributable alert fires.
        signals: among how many signals it is shared, this one included.
        bake_s: how long the version is watched after completion.
    """
    past = calibration.unknown()
    return SequentialSettings(
        step_s=step_s,
        blocks=_BLOCKS,
        base=baseline,
        phi_concurrent=past.phi_concurrent,
        phi_historical=past.phi_historical,
        known=False,
        alpha=alpha,
        alpha_alert=alpha_alert,
        signals=signals,
        bake_s=bake_s,
    )


def step(
    state: EvaluationState, posted: Iterable[Evaluation], settings: SequentialSettings, *, at: int, alert: bool
) -> EvaluationState:
    """Take the next block.

    Args:
        state: after the block before.
        posted: of the rollout; what did not arrive in this block is passed over.
        settings: frozen at the rollout's start.
        at: the step that ends the block.
        alert: an attributable alert is firing.
    """
    sums = {track: Counts() for track in Track}
    for each in posted:
        if each.step == at:
            sums[each.track] += each.counts
    candidate, stable = sums[Track.CANDIDATE], sums[Track.STABLE]
    held = state.held + stable
    waiting = candidate.total > 0 or state.judged.concurrent.candidate.total > 0
    beside, held = (held, Counts()) if waiting else (Counts(), held)
    block = Block(at, candidate=candidate, stable=beside, ready=True, old_live=True)
    return EvaluationState(
        sequential.step(state.judged, block, settings, alert=alert),
        held,
        state.candidate + candidate,
        state.stable + stable,
    )


def verdict(
    state: EvaluationState, settings: SequentialSettings, *, alone: bool, baked: bool, least: int, urgent: bool = False
) -> Verdict | None:
    """Say what evaluations say; None where they are no reason for anything.

    Beside other signals they only ever speak of a breach: that nobody evaluates, or too few, is no fault of a version.

    Args:
        state: after the newest block.
        settings: frozen at the rollout's start.
        alone: there is no other signal.
        baked: the bake is over.
        least: with fewer evaluations a version is not called healthy.
        urgent: an attributable alert is firing, so that the lower bar suffices.
    """
    judged = sequential.with_alert(state.judged, settings) if urgent else state.judged
    counts = f"{_share(state.candidate)} evaluations failed, {_beside(state.stable)}"
    if deciding := judged.deciding:
        return Verdict(
            Status.BREACH,
            f"{counts}; evidence {_odds(deciding.log_e)} {_against(deciding)}, needed {_odds(deciding.bar)}",
            cause="sequential",
            candidate=state.candidate,
            stable=state.stable,
            signal=SIGNAL,
            objections=tuple(replace(each, detail=_reason(each, state.stable)) for each in deciding.objections),
        )
    if not alone:
        return None
    most = max(judged.evidence(control).log_e for control in Control)
    needed = settings.alert_bar if urgent else settings.bar
    found = Verdict(
        Status.INSUFFICIENT,
        f"{counts}; evidence {_odds(most)}, needed {_odds(needed)}",
        candidate=state.candidate,
        stable=state.stable,
        signal=SIGNAL,
    )
    if not baked:
        return found
    if state.candidate.total < least:
        return replace(found, detail=f"{found.detail}; {least} evaluations are needed to call it healthy")
    return replace(found, status=Status.HEALTHY)


def _against(deciding: Crossed) -> str:
    if deciding.control is Control.CONCURRENT:
        return "by those of the stable version"
    return "by the configured baseline"


def _reason(objection: Objection, stable: Counts) -> str:
    """What an objection says, in words of evaluations."""
    if objection.guard is Guard.NO_HISTORY:
        return "post evaluations of the stable version, too: without them a person is asked"
    return f"{_share(stable)} evaluations of the stable version failed, too"


def _beside(stable: Counts) -> str:
    return f"of the stable version {_share(stable)}" if stable.total else "none of the stable version were posted"


def _share(counts: Counts) -> str:
    return f"{counts.bad:.0f} of {counts.total:.0f}"


def _odds(log_e: float) -> str:
    return f"{math.exp(min(log_e, 20.0)):.3g} : 1"
