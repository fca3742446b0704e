"""The rules that judge counts, behind one small interface: what a block changes, and what is thought after it."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec.structs import replace

from watchdog.config import Policy
from watchdog.decide.record import EvidenceStatus
from watchdog.engine.baselines import Baseline
from watchdog.judge import sequential, threshold
from watchdog.judge.blocks import MOST_BLIND, Block, Counts, Status, Verdict
from watchdog.judge.sequential import Control, Controls, SequentialSettings, SequentialState
from watchdog.judge.threshold import ThresholdSettings

_SPEAKS = {
    Control.CONCURRENT: "by the stable pods of the same minutes",
    Control.HISTORICAL: "by the time before, which cannot tell the version from an outage that began with it",
}


class Rule(Protocol):
    """One rule, for all signals of a rollout."""

    def take(self, signal: str, block: Block, *, alert: bool, bystanders: Mapping[str, Counts]) -> None:
        """Take the next block of a signal.

        Args:
            block: what was counted.
            alert: an attributable alert was firing then.
            bystanders: what other workloads counted, by name.
        """

    def verdict(self, signal: str, blocks: Sequence[Block], *, urgent: bool, baked_s: float | None) -> Verdict:
        """Say what is thought of a signal now; the arguments are those of `threshold.judge`."""

    def evidence(self, signal: str, *, urgent: bool) -> tuple[EvidenceStatus, ...]:
        """Say where each control of a signal stands; nothing where the rule has no evidence."""


class ByThreshold:
    """The rule `threshold`, which looks at the newest blocks, and remembers whether it was ever in breach."""

    def __init__(self, settings: ThresholdSettings) -> None:
        self._settings = settings
        self._newest: dict[str, deque[Block]] = {}
        self._breach: set[str] = set()
        self._earlier: set[str] = set()

    def take(self, signal: str, block: Block, *, alert: bool, bystanders: Mapping[str, Counts]) -> None:
        """Remember whether the block before was a breach."""
        newest = self._newest.setdefault(signal, deque(maxlen=self._settings.looked_at))
        newest.append(block)
        if signal in self._breach:
            self._earlier.add(signal)
        (self._breach.add if threshold.breach(tuple(newest), self._settings) else self._breach.discard)(signal)

    def verdict(self, signal: str, blocks: Sequence[Block], *, urgent: bool, baked_s: float | None) -> Verdict:
        """Judge the newest windows."""
        earlier = signal in self._earlier
        return threshold.judge(blocks, self._settings, signal=signal, urgent=urgent, baked_s=baked_s, earlier=earlier)

    def evidence(self, signal: str, *, urgent: bool) -> tuple[EvidenceStatus, ...]:
        """Give nothing."""
        return ()


class BySequence:
    """The rule `sequential`: a fold over the blocks of each signal.

    Args:
        settings: by signal, frozen at the rollout's start.
        min_requests: fewer in the bake are not called healthy.
    """

    def __init__(self, settings: Mapping[str, SequentialSettings], *, min_requests: int) -> None:
        self._settings = settings
        self._least = min_requests
        self._states = {name: SequentialState() for name in settings}
        self._sums = {name: (Counts(), Counts()) for name in settings}
        self._crossed: dict[str, tuple[int, int, tuple[Counts, Counts]]] = {}

    def take(self, signal: str, block: Block, *, alert: bool, bystanders: Mapping[str, Counts]) -> None:
        """Step both controls."""
        state, settings = self._states[signal], self._settings[signal]
        self._states[signal] = sequential.step(state, block, settings, alert=alert, bystanders=bystanders)
        candidate, stable = self._sums[signal]
        self._sums[signal] = candidate + block.candidate, stable + block.stable

    def evidence(self, signal: str, *, urgent: bool) -> tuple[EvidenceStatus, ...]:
        """Give the controls of the signal."""
        return evidence_of(self._states[signal], self._settings[signal], urgent=urgent)

    def verdict(self, signal: str, blocks: Sequence[Block], *, urgent: bool, baked_s: float | None) -> Verdict:
        """Judge by the control that decided; an alert lowers the bar of the evidence that is in."""
        settings, state = self._settings[signal], self._states[signal]
        state = sequential.with_alert(state, settings) if urgent else state
        if deciding := state.deciding:
            candidate, stable = self._since(signal, blocks, deciding)
            evidence = f"evidence {_odds(deciding.log_e)} {_SPEAKS[deciding.control]}, needed {_odds(deciding.bar)}"
            return Verdict(
                Status.BREACH,
                f"{_against(candidate, stable)}; {evidence}",
                cause="sequential",
                candidate=candidate,
                stable=stable,
                signal=signal,
                objections=deciding.objections,
            )
        candidate, stable = self._sums[signal]
        most = max(state.evidence(control).log_e for control in settings.controls.each)
        needed = settings.alert_bar if urgent else settings.bar
        detail = f"{_against(candidate, stable)}; evidence {_odds(most)}, needed {_odds(needed)}"
        found = Verdict(Status.INSUFFICIENT, detail, candidate=candidate, stable=stable, signal=signal)
        doubt = "" if baked_s is None else self._doubt(blocks, settings, baked_s)
        if baked_s is not None and not doubt:
            return replace(found, status=Status.HEALTHY)
        if blocks and (blind := blocks[-1].blind):
            return replace(found, status=Status.BLIND, detail=blind.detail, blind=blind)
        return replace(found, detail=f"{detail}; {doubt}", doubt=doubt) if doubt else found

    def _since(self, signal: str, blocks: Sequence[Block], deciding: sequential.Crossed) -> tuple[Counts, Counts]:
        """Give what was counted from the onset to the crossing, as far as it is kept; it is added up once."""
        first = round(deciding.onset_s / self._settings[signal].step_s) + 1
        known = self._crossed.get(signal)
        if known is None or known[:2] != (first, deciding.step):
            newest = blocks[-max(1, blocks[-1].step - first + 1) :]
            sums = _sums([each for each in newest if each.step <= deciding.step])
            known = self._crossed[signal] = first, deciding.step, sums
        return known[2]

    def _doubt(self, blocks: Sequence[Block], settings: SequentialSettings, baked_s: float) -> str:
        """Say why a rollout whose bake is over is not healthy; empty where it is."""
        if Control.HISTORICAL in settings.controls.each and settings.historical.off:
            usual = f"{100 * settings.base:.1f} % failed in the worst 5 min of the day before"
            return f"no-reference: {usual}, too many to judge by"
        bake = settings.steps(baked_s)
        seen = [block for block in blocks[-bake:] if not block.blind]
        requests = sum(block.candidate.total for block in seen)
        if bake - len(seen) >= MOST_BLIND * bake:
            return f"blind in {bake - len(seen)} of the bake's {bake} steps"
        return "" if requests >= self._least else f"{requests:.0f} requests in the bake, {self._least} are needed"


def evidence_of(state: SequentialState, settings: SequentialSettings, *, urgent: bool) -> tuple[EvidenceStatus, ...]:
    """Say where each control of a signal stands, and which bar it has reached; with an alert the lower one counts."""
    state = sequential.with_alert(state, settings) if urgent else state
    return tuple(
        EvidenceStatus(
            control=control,
            log_e=state.evidence(control).log_e,
            bar=settings.bar,
            onset_step=state.evidence(control).onset,
            reached=next((each.bar for each in state.crossed if each.control is control), None),
        )
        for control in settings.controls.each
    )


def freeze_settings(
    policy: Policy, past: Baseline, *, controls: Controls, step_s: float, switched_s: float | None = None
) -> SequentialSettings:
    """Give what the rule `sequential` is held to in a rollout, for one signal.

    Args:
        controls: what the candidate is compared with.
        switched_s: when a Service was switched to the candidate, where that is the rollout.
    """
    reference = past.reference
    return SequentialSettings(
        step_s=step_s,
        controls=controls,
        blocks=float(policy.blocks(step_s)),
        base=reference.base,
        phi_concurrent=reference.phi_concurrent,
        phi_historical=reference.phi_historical,
        m_cap=reference.m_cap,
        known=reference.known,
        past=past.told,
        incident_first=past.incident_first,
        alpha=policy.sequential.alpha,
        alpha_alert=policy.alerts.alpha_alert,
        signals=policy.judged,
        bake_s=float(policy.bake),
        completed_s=switched_s,
        bystanders=() if controls is Controls.CONCURRENT else past.bystanders,
    )


def _sums(blocks: Sequence[Block]) -> tuple[Counts, Counts]:
    return sum((each.candidate for each in blocks), Counts()), sum((each.stable for each in blocks), Counts())


def _against(candidate: Counts, stable: Counts) -> str:
    beside = f"against {threshold.share(stable)}" if stable.total else "without stable requests"
    return f"{threshold.share(candidate)} {beside}"


def _odds(log_e: float) -> str:
    return f"{math.exp(min(log_e, 20.0)):.3g} : 1"
