"""The rule `sequential`: both controls, their bars and what speaks against acting, one block at a time.

`SequentialState` is a frozen value that follows from `SequentialSettings` and the blocks alone, so a replay reaches the
same decision. A control reaches its bar once. If nothing speaks against it the service acts on the rollout; else it
asks a person, and that control never acts in this rollout.

An attributable alert lowers the bar, also for the evidence that is in when it comes: `with_alert`. That the evidence
ever reaches the lower bar has a probability of at most `alpha_alert`, whenever the alert comes.

Source: docs/design/statistics.md §1.
"""

from collections.abc import Mapping
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from watchdog.judge import concurrent, historical, objections
from watchdog.judge.blocks import Block, Counts, PodCounts, steps
from watchdog.judge.concurrent import ConcurrentSettings, ConcurrentState
from watchdog.judge.eprocess import HORIZON, Design, Evidence, bar
from watchdog.judge.historical import HistoricalSettings
from watchdog.judge.objections import Bystander
from watchdog.model import Guard, Objection

_ONLY_HISTORICAL = frozenset({Guard.BYSTANDERS, Guard.LATE, Guard.NO_HISTORY})


class Control(StrEnum):
    """What the candidate is compared with."""

    CONCURRENT = "concurrent"
    HISTORICAL = "historical"


class Controls(StrEnum):
    """Which controls a topology has: rolling both, canary the concurrent one, Recreate and blue-green the other."""

    BOTH = "both"
    CONCURRENT = "concurrent"
    HISTORICAL = "historical"

    @property
    def each(self) -> tuple[Control, ...]:
        """One by one, in the order in which they speak."""
        return tuple(Control) if self is Controls.BOTH else (Control(self),)


class Decision(StrEnum):
    """What the evidence asks for."""

    NONE = "none"
    APPROVE = "approve"
    ACT = "act"


class SequentialSettings(msgspec.Struct, frozen=True, kw_only=True):
    """All that is frozen at the rollout's start.

    Args:
        blocks: B, of the sensitivity.
        base: reference share of failures.
        phi_concurrent: size of error clusters between pods of one block.
        phi_historical: the same between blocks.
        m_cap: requests of a block that count in full, where no history gave these sizes.
        known: there is enough history to act by it.
        past: where that history comes from, or why there is none, for people.
        incident_first: why the old pods were failing before, where they were.
        alpha: probability of a false rollback per rollout, over all signals and controls.
        alpha_alert: the same once an attributable alert fires.
        signals: among how many signals alpha is shared.
        bake_s: how long the version is watched after completion.
        completed_s: when it took all traffic, where that is not the end of coexistence (blue-green: the switch).
        bystanders: other workloads.
    """

    step_s: float
    controls: Controls = Controls.BOTH
    blocks: float = 4.0
    base: float
    phi_concurrent: float
    phi_historical: float
    m_cap: float | None = None
    known: bool = True
    past: str = ""
    incident_first: Objection | None = None
    alpha: float = 0.01
    alpha_alert: float = 0.05
    signals: int = 1
    bake_s: float = 900.0
    completed_s: float | None = None
    bystanders: tuple[Bystander, ...] = ()

    @property
    def share(self) -> float:
        """The share of alpha that one control of one signal owns."""
        return 1 / (len(self.controls.each) * self.signals)

    @property
    def bar(self) -> float:
        """The bar without alerts; caps always use it."""
        return bar(self.alpha, share=self.share)

    @property
    def alert_bar(self) -> float:
        """The bar while an attributable alert fires; never above the other."""
        return min(self.bar, bar(self.alpha_alert, share=self.share))

    @property
    def limit(self) -> float:
        """The share of failures that the historical control allows."""
        return historical.limit(self.base)

    @property
    def concurrent(self) -> ConcurrentSettings:
        """Of the concurrent control."""
        return ConcurrentSettings(design=self._design(self.phi_concurrent))

    @property
    def historical(self) -> HistoricalSettings:
        """Of the historical control."""
        return HistoricalSettings(design=self._design(self.phi_historical), base=self.base)

    def steps(self, seconds: float) -> int:
        """How many steps a time takes, rounded up."""
        return steps(seconds, step_s=self.step_s)

    def _design(self, phi: float) -> Design:
        return Design(bar=self.bar, blocks=self.blocks, phi=phi, m_cap=self.m_cap, horizon=HORIZON)


class Crossed(msgspec.Struct, frozen=True):
    """A control that reached its bar.

    Args:
        step: in which block.
        log_e: its evidence then.
        bar: the bar that it reached.
        onset_s: when the failure seems to have begun.
        objections: why this is not acted upon; empty if it is.
    """

    control: Control
    step: int
    log_e: float
    bar: float
    onset_s: float
    objections: tuple[Objection, ...] = ()


class SequentialState(msgspec.Struct, frozen=True):
    """Where the judgement of one signal stands.

    Args:
        newest: the newest block that was taken.
        concurrent: the control of that name.
        historical: the other one's evidence.
        begun: a candidate pod has been Ready.
        started: a judged candidate request has been seen.
        completed_s: end of coexistence, as far as it is known.
        stable: the old pods' newest counts, for `shared`.
        others: those of each bystander that is still one, by name.
        pods: what judged pods counted from each onset that a bet still builds on until the next one, with the step
            of that onset: few parts, however long ago the first began.
        objections: those that stay for the rollout.
        spoken: controls that reached their bar.
    """

    newest: int = 0
    concurrent: ConcurrentState = ConcurrentState()
    historical: Evidence = Evidence()
    begun: bool = False
    started: bool = False
    completed_s: float | None = None
    stable: tuple[Counts, ...] = ()
    others: Mapping[str, tuple[Counts, ...]] | None = None
    pods: tuple[tuple[int, tuple[PodCounts, ...]], ...] = ()
    objections: tuple[Objection, ...] = ()
    crossed: tuple[Crossed, ...] = ()

    def evidence(self, control: Control) -> Evidence:
        """Where one control stands."""
        return self.concurrent.evidence if control is Control.CONCURRENT else self.historical

    @property
    def decision(self) -> Decision:
        """What the evidence asks for; it never goes back."""
        if not self.crossed:
            return Decision.NONE
        return Decision.APPROVE if self.deciding and self.deciding.objections else Decision.ACT

    @property
    def deciding(self) -> Crossed | None:
        """The control that decided: the first that may act, else the first that spoke."""
        return next((each for each in self.crossed if not each.objections), self.crossed[0] if self.crossed else None)


def step(
    state: SequentialState,
    block: Block,
    settings: SequentialSettings,
    *,
    bystanders: Mapping[str, Counts] | None = None,
    alert: bool = False,
) -> SequentialState:
    """Take one block further: counts, both controls, objections, decision, in this order.

    A block that is blind is taken like one without requests: the counts of the gap come with the next that sees.

    Args:
        state: after the block before.
        block: the next one.
        settings: frozen at the rollout's start.
        bystanders: counts of the other workloads in this block; one that is missing drops out for good.
        alert: an attributable alert is firing, and has been since the block before was taken.
    """
    state = with_alert(state, settings) if alert else state
    state = _seen(state, block, settings, bystanders or {})
    if not state.begun:
        return state
    candidate, stable = _whole(block.candidate), _whole(block.stable)
    started, index = state.started or candidate.total > 0, block.step
    controls = settings.controls.each
    state = replace(state, started=started)
    if Control.CONCURRENT in controls:
        found = concurrent.step(
            state.concurrent,
            candidate,
            stable,
            settings.concurrent,
            index=index,
            old_live=block.old_live,
            started=started,
        )
        state = replace(state, concurrent=found)
    if Control.HISTORICAL in controls:
        evidence = historical.step(state.historical, candidate, settings.historical, index=index, started=started)
        state = replace(state, historical=evidence)
    state = replace(state, pods=_pods(state, block, controls))
    return _decided(state, settings, at_bar=settings.alert_bar if alert else settings.bar)


def with_alert(state: SequentialState, settings: SequentialSettings) -> SequentialState:
    """Judge the evidence that is in against the lower bar, since an attributable alert speaks for a breach, too.

    Args:
        state: after the newest block.
        settings: frozen at the rollout's start.
    """
    return _decided(state, settings, at_bar=settings.alert_bar) if state.begun else state


def _pods(
    state: SequentialState, block: Block, controls: tuple[Control, ...]
) -> tuple[tuple[int, tuple[PodCounts, ...]], ...]:
    """Add a block to what judged pods counted; parts between which no onset lies any more become one."""
    stands = [state.evidence(control) for control in controls]
    earliest = min((each for stand in stands if (each := stand.earliest)), default=block.step + 1)
    onsets = {onset for stand in stands for onset in stand.onsets}
    found: list[tuple[int, tuple[PodCounts, ...]]] = []
    for begin, pods in (*state.pods, (block.step, block.pods)):
        if found and begin not in onsets:
            found[-1] = found[-1][0], objections.together((found[-1][1], pods))
        elif begin >= earliest:
            found.append((begin, pods))
    return tuple(found)


def _seen(
    state: SequentialState, block: Block, settings: SequentialSettings, bystanders: Mapping[str, Counts]
) -> SequentialState:
    """Take what the objections need from a block, and find the one that does not wait for a crossing."""
    window, time = settings.steps(objections.WINDOW_S), block.step * settings.step_s
    names = [each.name for each in settings.bystanders] if state.others is None else list(state.others)
    before = state.others or {}
    others = {name: (*before.get(name, ()), bystanders[name])[-window:] for name in names if name in bystanders}
    stable = (*state.stable, _whole(block.stable))[-window:]
    found = state.objections
    if settings.incident_first and settings.incident_first not in found:
        found = (*found, settings.incident_first)
    there = block.old_live or block.stable.total > 0
    if there and all(each.guard is not Guard.SHARED for each in found):
        shared = objections.shared(stable, limit=settings.limit, phi=settings.phi_historical)
        found = (*found, shared) if shared else found
    begun = state.begun or block.ready
    completed = state.completed_s
    if block.old_live:
        completed = None
    elif begun and completed is None:
        completed = time - settings.step_s
    return replace(
        state,
        newest=block.step,
        others=others,
        stable=stable,
        objections=found,
        begun=begun,
        completed_s=completed,
    )


def _decided(state: SequentialState, settings: SequentialSettings, *, at_bar: float) -> SequentialState:
    """Let each control that reaches its bar for the first time speak, the concurrent one first."""
    for control in settings.controls.each:
        evidence = state.evidence(control)
        if evidence.log_e < at_bar or any(each.control is control for each in state.crossed):
            continue
        onset = evidence.onset or state.newest
        onset_s = (onset - 1) * settings.step_s
        found = _objections(state, settings, control, onset=onset, onset_s=onset_s)
        lasting = tuple(each for each in found if each not in state.objections and each.guard not in _ONLY_HISTORICAL)
        crossed = Crossed(control, state.newest, evidence.log_e, at_bar, onset_s, found)
        state = replace(state, objections=(*state.objections, *lasting), crossed=(*state.crossed, crossed))
    return state


def _objections(
    state: SequentialState, settings: SequentialSettings, control: Control, *, onset: int, onset_s: float
) -> tuple[Objection, ...]:
    """Give all reasons not to act on a control that reached its bar."""
    pods = [found for step, found in state.pods if step >= onset]
    found = [objections.one_pod(pods, limit=settings.limit, phi=settings.phi_concurrent)]
    if control is Control.HISTORICAL:
        recent = state.others or {}
        others = [(each, recent[each.name]) for each in settings.bystanders if each.name in recent]
        completed = state.completed_s if settings.completed_s is None else settings.completed_s
        allowed = objections.attribution_s(others, bake_s=settings.bake_s)
        found.append(objections.bystanders(others))
        found.append(objections.late(onset_s, completed_s=completed, allowed_s=allowed))
        if not settings.known:
            detail = f"too little history to act without old pods beside ({settings.past or 'none'})"
            found.append(Objection(Guard.NO_HISTORY, detail, asks=True))
    return (*state.objections, *(each for each in found if each))


def _whole(counts: Counts) -> Counts:
    """Mend a torn read: there are at least as many requests as failures."""
    return counts if counts.bad <= counts.total else Counts(counts.bad, counts.bad)
