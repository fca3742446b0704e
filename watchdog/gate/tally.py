"""What a gate adds to the service's own `Watch`: its clock, which begins at the first judged block, and its numbers."""

import math
from collections.abc import Iterable, Mapping

import msgspec
from msgspec.structs import replace

from watchdog.engine.watch import Watch
from watchdog.judge import concurrent
from watchdog.judge.blocks import Blind, Block, Counts, Status, Verdict
from watchdog.judge.concurrent import ConcurrentState
from watchdog.judge.eprocess import bar
from watchdog.judge.sequential import Control, SequentialSettings
from watchdog.model import Guard

PROVE_NOTHING = (Guard.NO_HISTORY, Guard.UNCONFIRMED)
"""A breach with one of these objections is no proof, for nobody: no gate acts on it."""

_WORST_FIRST = (Status.BREACH, Status.BLIND, Status.INSUFFICIENT, Status.HEALTHY)


class SignalNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """Where one signal stands.

    Args:
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
    step: int = 0
    candidate: Counts = Counts()
    stable: Counts = Counts()
    grace: Counts = Counts()
    judged: int = 0
    control: Control = Control.CONCURRENT
    log_e: float = 0.0
    bar: float = 0.0
    blind: Blind | None = None

    def after(self, block: Block, *, begun: bool) -> "SignalNumbers":
        """The numbers with one more block; before the first judged one, stable requests do not count."""
        return replace(
            self,
            step=block.step,
            candidate=self.candidate + block.candidate,
            stable=self.stable + (block.stable if begun else Counts()),
            grace=self.grace + block.grace,
            judged=self.judged + begun,
            blind=block.blind,
        )


class GateTally:
    """Follows a watch step by step.

    Args:
        watch: what judges.
        rules: by signal, what the rule is held to.
        bake: how many blocks are judged at least.
        early: it ends as soon as the version is proven not to be worse.
    """

    def __init__(self, watch: Watch, rules: Mapping[str, SequentialSettings], *, bake: int, early: bool) -> None:
        self.watch = watch
        self.rules = rules
        self.first: int | None = None
        """The first block that was judged, of all signals."""
        self._bake = bake
        self._early = early
        self._numbers = {name: SignalNumbers(signal=name, bar=rule.bar) for name, rule in rules.items()}
        self._mirrored = {name: ConcurrentState() for name in rules}
        self._proven: set[str] = set()

    def take(self) -> None:
        """Take in the step that the watch was fed last."""
        for name, rule in self.rules.items():
            block, numbers = self.watch.blocks[name][-1], self._numbers[name]
            begun = numbers.judged > 0 or block.candidate.total > 0
            if begun and self.first is None:
                self.first = block.step
            self._numbers[name] = numbers.after(block, begun=begun)
            if self._early and Control.CONCURRENT in rule.controls.each:
                mirrored = self._mirrored[name] = _mirrored(self._mirrored[name], block, rule, started=begun)
                if mirrored.evidence.log_e >= _healthy_bar(rule):
                    self._proven.add(name)

    @property
    def over(self) -> bool:
        """Whether the bake is."""
        return self.first is not None and self.watch.next_step >= self.first + self._bake

    def numbers(self) -> tuple[SignalNumbers, ...]:
        """Where each signal stands, the nearest to its bar first; what is blind before what is not."""
        found = map(self._shown, self._numbers.values())
        return tuple(sorted(found, key=lambda each: (each.log_e < each.bar, each.blind is None, -each.log_e)))

    def _shown(self, numbers: SignalNumbers) -> SignalNumbers:
        """The numbers with the control that reached its bar, or is nearest to it."""
        controls = self.watch.evidence().get(numbers.signal, ())
        if not controls:
            return numbers
        nearest = max(controls, key=lambda each: (each.reached is not None, each.log_e))
        return replace(numbers, control=Control(nearest.control), log_e=nearest.log_e)

    def verdict(self, *, over: bool = False) -> Verdict:
        """What is to be thought now.

        Args:
            over: no more blocks will come.
        """
        over = over or self.over
        said = self._waited(self.watch.verdicts(urgent=False, baked=over), over=over)
        found = min(map(self._described, said), key=lambda each: _WORST_FIRST.index(each.status))
        if found.status is Status.INSUFFICIENT and self._may_end(said):
            return replace(found, status=Status.HEALTHY, detail=f"{found.detail}; proven not to be worse")
        return found

    def _described(self, verdict: Verdict) -> Verdict:
        """A verdict of the rule in the gate's words; what else speaks has its own."""
        if verdict.blind or verdict.cause == "starved":
            return verdict
        numbers = describe(self._shown(self._numbers[verdict.signal]))
        return replace(verdict, detail=f"{numbers}; {verdict.doubt}" if verdict.doubt else numbers)

    def _may_end(self, said: Iterable[Verdict]) -> bool:
        """Whether every signal is proven not to be worse, by enough requests, and nothing speaks against it."""
        least = self.watch.policy.threshold.min_requests
        proven = self._proven == self._numbers.keys()
        return (
            proven
            and not any(each.objections for each in said)
            and all(each.candidate.total >= least for each in self._numbers.values())
        )

    def _waited(self, said: Iterable[Verdict], *, over: bool) -> list[Verdict]:
        """The verdicts, without a breach that proves nothing while something better may come.

        The time before proves nothing where nobody knows it (`no-history`): as long as old pods are there beside, their
        evidence is waited for, and it stands for itself. Missing requests (`unconfirmed`) are waited for to the end.
        """
        found = []
        for each in said:
            waits = {objection.guard for objection in each.objections} & set(PROVE_NOTHING)
            if Guard.NO_HISTORY in waits:
                beside = [at for at in self.watch.evidence()[each.signal] if at.control == Control.CONCURRENT]
                if any(at.reached is not None for at in beside):
                    rest = tuple(at for at in each.objections if at.guard is not Guard.NO_HISTORY)
                    each, waits = replace(each, objections=rest), set()
                elif not (beside and self.watch.blocks[each.signal][-1].old_live):
                    waits = set()
            found.append(replace(each, status=Status.INSUFFICIENT) if waits and not over else each)
        return found


def _mirrored(state: ConcurrentState, block: Block, rule: SequentialSettings, *, started: bool) -> ConcurrentState:
    """Bet on the candidate not being worse than the stable pods of the same block."""
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
    evidence = f"evidence {odds(numbers.log_e)} of {odds(numbers.bar)} ({numbers.control})"
    return f"candidate {_counts(candidate)} bad {_percent(candidate)}  {beside}  {evidence}"


def odds(log_e: float) -> str:
    """Evidence as odds, such as ``41:1``; how many times likelier what was seen is if the candidate is worse."""
    if log_e < math.log(9.95):
        return f"{math.exp(log_e):.2g}:1"
    return f"{math.exp(log_e):.0f}:1" if log_e < math.log(1e6) else f"1e{log_e / math.log(10):.0f}:1"


def _counts(counts: Counts) -> str:
    return f"{counts.bad:.0f}/{counts.total:.0f}"


def _percent(counts: Counts) -> str:
    return f"{100 * counts.ratio:.1f} %"
