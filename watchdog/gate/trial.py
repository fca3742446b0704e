"""From readings to a verdict: the numbers of one gate, step by step, by the rule `sequential`."""

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from watchdog.judge import concurrent, counters, eprocess, historical
from watchdog.judge.blocks import Blind, Block, Counts, Doubt, PodFact, Reading, Verdict, Word

_ALPHA = 0.01
_MOST_BLIND = 0.2
_PHI, _M_CAP, _BASE = 3.0, 20.0, 0.01
"""What holds where no history was read (statistics-after.md §1)."""

_NO_HISTORY = Doubt("no-history", "no stable pods speak, and the usual share of failures is not known; give --baseline")


class Control(StrEnum):
    """What the candidate is measured by: the stable pods of the same time, or the time before."""

    CONCURRENT = "concurrent"
    HISTORICAL = "historical"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What is fixed before the first block.

    Args:
        step_s: the grid, in seconds.
        bake_s: how long is judged, from the first judged block.
        blocks: B, how many blocks of full evidence it takes.
        controls: what the candidate is measured by; they share alpha.
        min_requests: with fewer judged requests nothing is called healthy.
        early: end as soon as it is proven not to be worse.
        baseline: usual share of failures; None where nobody told, and then the time before alone moves nothing.
    """

    step_s: float
    bake_s: float
    blocks: float
    controls: tuple[Control, ...]
    min_requests: int
    early: bool = False
    baseline: float | None = None

    @property
    def bake(self) -> int:
        """How many blocks the bake has."""
        return max(1, math.ceil(round(self.bake_s / self.step_s, 9)))


class Numbers(msgspec.Struct, frozen=True, kw_only=True):
    """Where one signal stands.

    Args:
        signal: its name.
        step: the newest block.
        candidate: judged requests of the candidate so far.
        stable: requests of the stable pods in the same blocks.
        grace: requests of candidate pods in their grace, which are not judged.
        control: the one whose evidence is nearest to its bar.
        log_e: its evidence against the candidate; natural logarithm.
        bar: what it has to reach.
        blind: why the newest block says nothing.
    """

    signal: str
    step: int
    candidate: Counts = Counts()
    stable: Counts = Counts()
    grace: Counts = Counts()
    control: Control = Control.CONCURRENT
    log_e: float = 0.0
    bar: float = 0.0
    blind: Blind | None = None


class _Case(msgspec.Struct, frozen=True, kw_only=True):
    """One signal: the counters' fold, both processes, and the sums of what was judged."""

    counters: counters.State
    numbers: Numbers
    beside: concurrent.State = concurrent.State()
    before: eprocess.Evidence = eprocess.Evidence()
    mirrored: concurrent.State = concurrent.State()
    first: int | None = None
    seen: int = 0
    breach: Control | None = None
    proven: bool = False


class Trial:
    """Is fed every step of the grid in order, and says what is to be thought.

    Args:
        settings: of the rule.
        signals: of each signal how its counters are read.
        first: the first step.
    """

    def __init__(self, settings: Settings, signals: Mapping[str, counters.Settings], *, first: int) -> None:
        self.settings = settings
        self.next_step = first
        share = 1 / (len(settings.controls) * len(signals))
        self._design = eprocess.Design(
            bar=eprocess.bar(_ALPHA, share=share), blocks=settings.blocks, phi=_PHI, m_cap=_M_CAP
        )
        mirrored = replace(self._design, bar=eprocess.bar(_ALPHA, share=1 / len(signals)))
        self._concurrent = concurrent.Settings(design=self._design)
        self._mirrored = concurrent.Settings(design=mirrored, mirrored=True)
        base = _BASE if settings.baseline is None else settings.baseline
        self._historical = historical.Settings(design=self._design, base=base)
        self._cases = {
            name: _Case(
                counters=counters.initial(each),
                numbers=Numbers(signal=name, step=first - 1, control=settings.controls[0], bar=self._design.bar),
            )
            for name, each in signals.items()
        }

    def feed(self, readings: Mapping[str, Reading], pods: Sequence[PodFact]) -> None:
        """Take in the next step, one reading per signal."""
        for name, case in self._cases.items():
            state, block = counters.step(case.counters, readings[name], pods)
            self._cases[name] = self._advanced(replace(case, counters=state), block)
        self.next_step += 1

    def _advanced(self, case: _Case, block: Block) -> _Case:
        case = replace(case, numbers=replace(case.numbers, step=block.step, blind=block.blind))
        if case.first is None and block.candidate.total > 0:
            case = replace(case, first=block.step)
        if block.blind:
            return case
        index, started = block.step, case.first is not None
        beside, before, mirrored = case.beside, case.before, case.mirrored
        if Control.CONCURRENT in self.settings.controls:
            live = block.stable.total > 0
            beside, mirrored = (
                concurrent.step(state, block.candidate, block.stable, rule, index=index, old_live=live, started=started)
                for state, rule in ((beside, self._concurrent), (mirrored, self._mirrored))
            )
        if Control.HISTORICAL in self.settings.controls:
            before = historical.step(before, block.candidate, self._historical, index=index, started=started)
        evidence = {Control.CONCURRENT: beside.evidence.log_e, Control.HISTORICAL: before.log_e}
        control = max(self.settings.controls, key=lambda each: evidence[each])
        counted = block.stable if case.first is not None else Counts()
        return replace(
            case,
            beside=beside,
            before=before,
            mirrored=mirrored,
            seen=case.seen + (case.first is not None),
            breach=case.breach or (control if evidence[control] >= self._design.bar else None),
            proven=case.proven or mirrored.evidence.log_e >= self._mirrored.design.bar,
            numbers=replace(
                case.numbers,
                candidate=case.numbers.candidate + block.candidate,
                stable=case.numbers.stable + counted,
                grace=case.numbers.grace + block.grace,
                control=control,
                log_e=evidence[control],
            ),
        )

    @property
    def first(self) -> int | None:
        """The first block that was judged, of all signals."""
        return min((case.first for case in self._cases.values() if case.first is not None), default=None)

    @property
    def last(self) -> int | None:
        """The block that ends the bake; None before the first judged one."""
        return None if self.first is None else self.first + self.settings.bake - 1

    @property
    def over(self) -> bool:
        """Whether the bake is."""
        return self.last is not None and self.next_step > self.last

    def numbers(self) -> tuple[Numbers, ...]:
        """Where each signal stands, the nearest to its bar first; what is blind before what is not."""
        found = (case.numbers for case in self._cases.values())
        return tuple(sorted(found, key=lambda each: (each.log_e < each.bar, each.blind is None, -each.log_e)))

    def verdict(self, *, over: bool = False) -> Verdict:
        """What is to be thought now.

        Args:
            over: no more blocks will come.
        """
        verdicts = [self._verdict(case, over=over or self.over) for case in self._cases.values()]
        order = (Word.BREACH, Word.BLIND, Word.INSUFFICIENT, Word.HEALTHY)
        return min(verdicts, key=lambda each: order.index(each.word))

    def _verdict(self, case: _Case, *, over: bool) -> Verdict:
        numbers = case.numbers
        found = Verdict(
            Word.INSUFFICIENT,
            describe(numbers),
            candidate=numbers.candidate,
            stable=numbers.stable,
            signal=numbers.signal,
        )
        if case.breach:
            unknown = case.breach is Control.HISTORICAL and self.settings.baseline is None
            return replace(found, word=Word.BREACH, cause="sequential", doubts=(_NO_HISTORY,) if unknown else ())
        if numbers.blind and not over:
            return replace(found, word=Word.BLIND, detail=numbers.blind.detail, blind=numbers.blind)
        few = numbers.candidate.total < self.settings.min_requests
        if self.settings.early and case.proven and not few:
            return replace(found, word=Word.HEALTHY, detail=f"{found.detail}; proven not to be worse")
        if not over:
            return found
        blocks = 0 if case.first is None else case.counters.step - case.first + 1 if case.counters.step else 0
        if numbers.blind and (case.first is None or blocks - case.seen >= _MOST_BLIND * blocks):
            return replace(found, word=Word.BLIND, detail=numbers.blind.detail, blind=numbers.blind)
        if blocks - case.seen >= _MOST_BLIND * max(1, blocks):
            return replace(found, detail=f"{found.detail}; blind in {blocks - case.seen} of {blocks} blocks")
        if few:
            least = self.settings.min_requests
            detail = f"{numbers.candidate.total:.0f} judged requests, {least} are needed; {found.detail}"
            return replace(found, detail=detail)
        return replace(found, word=Word.HEALTHY)


def describe(numbers: Numbers) -> str:
    """The numbers in one line: ``candidate 8/92 bad 8.7 %  stable 3/810 0.4 %  evidence 41:1 of 100:1``."""
    candidate, stable = numbers.candidate, numbers.stable
    beside = f"stable {_counts(stable)} {_percent(stable)}" if stable.total else "no stable requests"
    said = f"evidence {odds(numbers.log_e)} of {odds(numbers.bar)} ({numbers.control})"
    waits = f"  ({numbers.grace.total:.0f} more in grace)" if numbers.grace.total and not candidate.total else ""
    return f"candidate {_counts(candidate)} bad {_percent(candidate)}  {beside}  {said}{waits}"


def odds(log_e: float) -> str:
    """Evidence as odds, such as ``41:1``; how many times likelier what was seen is if the candidate is worse."""
    if log_e < math.log(9.95):
        return f"{math.exp(log_e):.2g}:1"
    return f"{math.exp(log_e):.0f}:1" if log_e < math.log(1e6) else f"1e{log_e / math.log(10):.0f}:1"


def _counts(counts: Counts) -> str:
    return f"{counts.bad:.0f}/{counts.total:.0f}"


def _percent(counts: Counts) -> str:
    return f"{100 * counts.ratio:.1f} %"
