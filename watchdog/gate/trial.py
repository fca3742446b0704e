"""From readings to a verdict: the numbers of one gate, step by step, by the rule `sequential` as the service has it."""

import math
from collections.abc import Mapping, Sequence

import msgspec
from msgspec.structs import replace

from watchdog.judge import concurrent, counters, sequential
from watchdog.judge.blocks import Blind, Block, Counts, PodTimeline, Reading, Status, Verdict
from watchdog.judge.concurrent import ConcurrentState
from watchdog.judge.counters import CounterSettings, CounterState
from watchdog.judge.eprocess import bar
from watchdog.judge.sequential import Control, Crossed, SequentialSettings, SequentialState
from watchdog.model import Guard

_MOST_BLIND = 0.2


class TrialSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is fixed before the first block.

    Args:
        rules: by signal, what the rule is held to.
        bake: how many blocks are judged at least.
        min_requests: with fewer judged requests nothing is called healthy.
        early: end as soon as it is proven not to be worse.
    """

    rules: Mapping[str, SequentialSettings]
    bake: int
    min_requests: int
    early: bool = False


class SignalNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """Where one signal stands.

    Args:
        signal: its name.
        step: the newest block.
        candidate: judged requests of the candidate so far.
        stable: requests of the stable pods in the same blocks.
        grace: requests of candidate pods in their grace, which are not judged.
        judged: blocks since the first judged one, and with it.
        control: the one that decides, or is nearest to it.
        log_e: its evidence against the candidate; natural logarithm.
        bar: what it has to reach.
        blind: why the newest block says nothing.
    """

    signal: str
    step: int
    candidate: Counts = Counts()
    stable: Counts = Counts()
    grace: Counts = Counts()
    judged: int = 0
    control: Control = Control.CONCURRENT
    log_e: float = 0.0
    bar: float = 0.0
    blind: Blind | None = None


class _Case(msgspec.Struct, frozen=True, kw_only=True):
    """One signal: the counters' fold, the rule's, that of the mirrored test, and the sums of what was judged."""

    counters: CounterState
    rule: SequentialState = SequentialState()
    mirrored: ConcurrentState = ConcurrentState()
    numbers: SignalNumbers
    first: int | None = None
    seen: int = 0
    old_live: bool = False
    proven: bool = False


class Trial:
    """Is fed every step of the grid in order, and says what is to be thought.

    Args:
        settings: of the rule.
        signals: of each signal how its counters are read.
        first: the first step.
    """

    def __init__(self, settings: TrialSettings, signals: Mapping[str, CounterSettings], *, first: int) -> None:
        self.settings = settings
        self.next_step = first
        self._cases = {}
        for name, each in signals.items():
            rule = settings.rules[name]
            numbers = SignalNumbers(signal=name, step=first - 1, control=rule.controls.each[0], bar=rule.bar)
            self._cases[name] = _Case(counters=counters.initial(each), numbers=numbers)

    def feed(self, readings: Mapping[str, Reading], pods: Sequence[PodTimeline]) -> None:
        """Take in the next step, one reading per signal."""
        for name, case in self._cases.items():
            state, block = counters.step(case.counters, readings[name], pods)
            self._cases[name] = self._advanced(replace(case, counters=state), block, self.settings.rules[name])
        self.next_step += 1

    def _advanced(self, case: _Case, block: Block, rule: SequentialSettings) -> _Case:
        """Take a block further; one that is blind counts nothing, and what it missed comes with the next that sees."""
        first = block.step if case.first is None and block.candidate.total > 0 else case.first
        state = sequential.step(case.rule, block, rule)
        mirrored = case.mirrored
        if self.settings.early and Control.CONCURRENT in rule.controls.each:
            mirrored = _mirrored(mirrored, block, rule, started=first is not None)
        return replace(
            case,
            rule=state,
            mirrored=mirrored,
            first=first,
            seen=case.seen + (first is not None and block.blind is None),
            old_live=block.old_live,
            proven=case.proven or mirrored.evidence.log_e >= _healthy_bar(rule),
            numbers=replace(
                case.numbers,
                step=block.step,
                candidate=case.numbers.candidate + block.candidate,
                stable=case.numbers.stable + (block.stable if first is not None else Counts()),
                grace=case.numbers.grace + block.grace,
                judged=0 if first is None else block.step - first + 1,
                blind=block.blind,
            ),
        )

    @property
    def first(self) -> int | None:
        """The first block that was judged, of all signals."""
        return min((case.first for case in self._cases.values() if case.first is not None), default=None)

    @property
    def over(self) -> bool:
        """Whether the bake is."""
        return self.first is not None and self.next_step >= self.first + self.settings.bake

    def numbers(self) -> tuple[SignalNumbers, ...]:
        """Where each signal stands, the nearest to its bar first; what is blind before what is not."""
        found = (self._shown(case) for case in self._cases.values())
        return tuple(sorted(found, key=lambda each: (each.log_e < each.bar, each.blind is None, -each.log_e)))

    def _shown(self, case: _Case) -> SignalNumbers:
        """The sums, and the evidence of the control that decides; before that of the nearest one that still may."""
        rule, deciding = self.settings.rules[case.numbers.signal], self._deciding(case, over=self.over)
        if deciding:
            control = deciding.control
        else:
            silent = [each for each in rule.controls.each if all(one.control is not each for one in case.rule.crossed)]
            control = max(silent, key=lambda each: case.rule.evidence(each).log_e)
        return replace(case.numbers, control=control, log_e=case.rule.evidence(control).log_e)

    def verdict(self, *, over: bool = False) -> Verdict:
        """What is to be thought now.

        Args:
            over: no more blocks will come.
        """
        verdicts = [self._verdict(case, over=over or self.over) for case in self._cases.values()]
        order = (Status.BREACH, Status.BLIND, Status.INSUFFICIENT, Status.HEALTHY)
        return min(verdicts, key=lambda each: order.index(each.status))

    def _verdict(self, case: _Case, *, over: bool) -> Verdict:
        numbers = self._shown(case)
        found = Verdict(
            Status.INSUFFICIENT,
            describe(numbers),
            candidate=numbers.candidate,
            stable=numbers.stable,
            signal=numbers.signal,
        )
        if deciding := self._deciding(case, over=over):
            return replace(found, status=Status.BREACH, cause="sequential", objections=deciding.objections)
        if numbers.blind and not over:
            return replace(found, status=Status.BLIND, detail=numbers.blind.detail, blind=numbers.blind)
        few = numbers.candidate.total < self.settings.min_requests
        if self.settings.early and case.proven and not few and not case.rule.crossed:
            return replace(found, status=Status.HEALTHY, detail=f"{found.detail}; proven not to be worse")
        if not over:
            return found
        blocks, missed = numbers.judged, numbers.judged - case.seen
        if numbers.blind and missed >= _MOST_BLIND * blocks:
            return replace(found, status=Status.BLIND, detail=numbers.blind.detail, blind=numbers.blind)
        if blocks and missed >= _MOST_BLIND * blocks:
            return replace(found, detail=f"{found.detail}; blind in {missed} of {blocks} blocks")
        if few:
            least = self.settings.min_requests
            detail = f"{numbers.candidate.total:.0f} judged requests, {least} are needed; {found.detail}"
            return replace(found, detail=detail)
        return replace(found, status=Status.HEALTHY)

    def _deciding(self, case: _Case, *, over: bool) -> Crossed | None:
        """The control that decides: the first whose word can be acted upon.

        The time before alone moves nothing where nobody knows it (`no-history`). As long as old pods are there beside,
        their word is waited for.
        """
        crossed = case.rule.crossed
        known = (
            each for each in crossed if all(objection.guard is not Guard.NO_HISTORY for objection in each.objections)
        )
        if (acts := next(known, None)) or not crossed:
            return acts
        both = Control.CONCURRENT in self.settings.rules[case.numbers.signal].controls.each
        return None if both and case.old_live and not over else crossed[0]


def _mirrored(state: ConcurrentState, block: Block, rule: SequentialSettings, *, started: bool) -> ConcurrentState:
    """Bet on the candidate not being worse than the stable pods of the same block (statistics.md §2.1)."""
    settings = replace(rule.concurrent, design=replace(rule.concurrent.design, bar=_healthy_bar(rule)), mirrored=True)
    candidate, stable = (Counts(max(each.total, each.bad), each.bad) for each in (block.candidate, block.stable))
    return concurrent.step(
        state, candidate, stable, settings, index=block.step, old_live=block.old_live, started=started
    )


def _healthy_bar(rule: SequentialSettings) -> float:
    """What the mirrored test has to reach: it is one for each signal, whichever controls there are."""
    return bar(rule.alpha, share=1 / rule.signals)


def describe(numbers: SignalNumbers) -> str:
    """The numbers in one line: ``candidate 8/92 bad 8.7 %  stable 3/810 0.4 %  evidence 41:1 of 100:1``."""
    candidate, stable = numbers.candidate, numbers.stable
    if not candidate.total:
        return (
            f"{numbers.grace.total:.0f} requests in grace, none is judged yet" if numbers.grace.total else "no requests"
        )
    beside = f"stable {_counts(stable)} {_percent(stable)}" if stable.total else "no stable requests"
    said = f"evidence {odds(numbers.log_e)} of {odds(numbers.bar)} ({numbers.control})"
    return f"candidate {_counts(candidate)} bad {_percent(candidate)}  {beside}  {said}"


def odds(log_e: float) -> str:
    """Evidence as odds, such as ``41:1``; how many times likelier what was seen is if the candidate is worse."""
    if log_e < math.log(9.95):
        return f"{math.exp(log_e):.2g}:1"
    return f"{math.exp(log_e):.0f}:1" if log_e < math.log(1e6) else f"1e{log_e / math.log(10):.0f}:1"


def _counts(counts: Counts) -> str:
    return f"{counts.bad:.0f}/{counts.total:.0f}"


def _percent(counts: Counts) -> str:
    return f"{100 * counts.ratio:.1f} %"
