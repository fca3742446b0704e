"""One past rollout, judged once more: by the watch of the service, and by the checkers of others.

Nothing here is a copy of the judge: the readings go through the same `Watch` that the service feeds, with the settings
that it would have frozen. What only the API server knew then is not replayed: conditions, alerts, holds, limits.
"""

import math
from collections.abc import Mapping, Sequence

import msgspec

from watchdog.backtest.competitors import PEERS, Checker, rollback_s
from watchdog.backtest.labels import Label, LabelledRollout, labelled
from watchdog.backtest.rollouts import PastRollout
from watchdog.backtest.scene import PastPods
from watchdog.config import RuleName
from watchdog.engine.baselines import Baseline
from watchdog.engine.rules import freeze_settings
from watchdog.engine.topologies import TRAITS
from watchdog.engine.watch import Watch, rule_of
from watchdog.judge import starved, threshold
from watchdog.judge.blocks import MOST_BLIND, Blind, Block, Counts, Reading, Status, Verdict

"""A rollout that was blind for longer is not called good, as it would not have passed."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule did in one rollout.

    Args:
        acted: when it would have rolled back, in seconds since the epoch.
        asked: when it would have asked a person, before or instead.
        why: its words, or what made it ask.
        saved_s: seconds from then to the undo, or to the end of what was replayed.
        saved_errors: failed requests of the candidate in that time.
    """

    rule: str
    acted: float | None = None
    asked: float | None = None
    why: str = ""
    saved_s: float = 0.0
    saved_errors: float = 0.0


class Point(msgspec.Struct, frozen=True):
    """One block for the plots: its end, both tracks, and the evidence of each control over its bar."""

    time: float
    candidate: Counts
    stable: Counts
    evidence: tuple[float, ...]


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout after its replay.

    Args:
        rule: the one that its policy has.
        undone: when it was undone.
        over: the end of what was counted.
        lived: requests of the candidate.
        past: where its reference comes from, or why there is none.
        controls: names of the controls, as in `Point.evidence`.
        ours: of both rules of ours, by name.
        peers: of the checkers of others.
    """

    rollout: PastRollout
    rule: RuleName
    was: LabelledRollout
    undone: float | None
    over: float
    lived: Counts = Counts()
    signal: str = ""
    past: str = ""
    controls: tuple[str, ...] = ()
    points: tuple[Point, ...] = ()
    ours: tuple[Finding, ...] = ()
    peers: tuple[Finding, ...] = ()


def steps_of(rollout: PastRollout, *, step_s: float) -> tuple[int, int]:
    """Give the first and the last step of a rollout."""
    first = math.ceil(rollout.started / step_s)
    return first, max(first, math.floor(rollout.until / step_s))


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What the service would have frozen of one signal when the rollout began.

    Args:
        past: of the time before.
        bad_known: an absent `bad` is 0.
        sawtooth: why the counters cannot be believed.
    """

    past: Baseline
    bad_known: bool
    sawtooth: Blind | None = None


def replay(
    rollout: PastRollout,
    there: PastPods,
    readings: Mapping[str, Sequence[Reading]],
    known: Mapping[str, Known],
    *,
    step_s: float,
) -> Replayed:
    """Judge a rollout once more.

    Args:
        there: its pods and times.
        readings: by signal, of every step from the rollout's first to its last.
        known: by signal, what was known at the start.
    """
    rule = rollout.subject.policy.rule
    if there.ready is None:
        blind = next((each.blind for every in readings.values() for each in every if each.blind), None)
        why = f"{blind.reason}: {blind.detail}" if blind else "no pod of it has a series"
        was = LabelledRollout(Label.UNKNOWN, why)
        return Replayed(rollout=rollout, rule=rule, was=was, undone=rollout.undone, over=there.over)
    watch, sequential, evidence = _watched(rollout, there, readings, known, step_s=step_s)
    by_threshold = _by_threshold(watch, known, there, step_s=step_s)
    signal = max(readings, key=lambda name: max((max(each, default=0.0) for each in evidence[name]), default=0.0))
    blocks = watch.blocks[signal]
    lived = sum((each.candidate + each.grace for each in blocks), Counts())
    was = _was(rollout, there, blocks, lived, known[signal])
    ours = [_saved(each, blocks, there, step_s=step_s) for each in (sequential, by_threshold)]
    return Replayed(
        rollout=rollout,
        rule=rule,
        was=was,
        undone=there.undone,
        over=there.over,
        lived=lived,
        signal=signal,
        past=known[signal].past.told,
        controls=tuple(stand.control for stand in watch.evidence()[signal]),
        points=tuple(
            Point(block.step * step_s, block.candidate + block.grace, block.stable, stands)
            for block, stands in zip(blocks, evidence[signal], strict=True)
            if block.step * step_s <= there.watched + step_s
        ),
        ours=tuple(ours),
        peers=tuple(
            _saved(_checked(each, watch, there, step_s=step_s), blocks, there, step_s=step_s) for each in PEERS
        ),
    )


def _was(
    rollout: PastRollout, there: PastPods, blocks: Sequence[Block], lived: Counts, known: Known
) -> LabelledRollout:
    """Say what it was; a good one that could not be seen for long is unknown."""
    beside = sum((each.stable for each in blocks if (each.candidate + each.grace).total > 0), Counts())
    after_s = None if there.undone is None else there.undone - rollout.started
    was = labelled(undone_after_s=after_s, lived=lived, beside=beside, past=known.past.reference)
    dark = [each.blind for each in blocks if each.blind]
    long = len(dark) > MOST_BLIND * len(blocks)
    if not dark or was.label is Label.BAD or (was.label is Label.GOOD and not long):
        return was
    of = f"blind in {len(dark)} of {len(blocks)} steps"
    return LabelledRollout(Label.UNKNOWN, f"{was.why}; {of}: {dark[0].reason}: {dark[0].detail}")


def _watched(
    rollout: PastRollout,
    there: PastPods,
    readings: Mapping[str, Sequence[Reading]],
    known: Mapping[str, Known],
    *,
    step_s: float,
) -> tuple[Watch, Finding, dict[str, list[tuple[float, ...]]]]:
    """Feed a watch up to the undo, and say what the rule `sequential` did and where it stood after each block."""
    subject, first = rollout.subject, steps_of(rollout, step_s=step_s)[0]
    controls = TRAITS[subject.topology].controls_with(subject.strategy)
    lowest = {name: each.past.lowest for name, each in known.items() if each.past.lowest is not None}
    watch = Watch(
        subject.workload,
        subject.policy,
        step_s=step_s,
        first=first,
        begun=rollout.started,
        bad_known={name: each.bad_known for name, each in known.items()},
        sawtooth={name: each.sawtooth for name, each in known.items() if each.sawtooth},
        test_settings={
            name: freeze_settings(subject.policy, each.past, controls=controls, step_s=step_s)
            for name, each in known.items()
        },
        lowest=lowest,
    )
    finding = Finding(rule=RuleName.SEQUENTIAL)
    evidence: dict[str, list[tuple[float, ...]]] = {name: [] for name in readings}
    for index in range(math.floor(there.over / step_s) - first + 1):
        watch.feed({name: each[index] for name, each in readings.items()}, there.pods)
        reached = any(
            starved.judge(watch.blocks[name], usual, step_s=step_s, alone=False, signal=name)
            for name, usual in lowest.items()
        )
        for name, stands in watch.evidence().items():
            shares = tuple(stand.log_e / stand.bar for stand in stands)
            evidence[name].append(shares)
            reached = reached or max(shares) >= 1
        time = (first + index) * step_s
        if time <= there.watched and finding.acted is None and (reached or finding.asked is not None):
            finding = _said(finding, watch.verdicts(urgent=False), time, ask="")
    return watch, finding, evidence


def _by_threshold(watch: Watch, known: Mapping[str, Known], there: PastPods, *, step_s: float) -> Finding:
    """Say what the rule `threshold` did."""
    limits = rule_of(watch.policy, step_s)
    finding = Finding(rule=RuleName.THRESHOLD)
    for index in range(len(next(iter(watch.blocks.values())))):
        for name, blocks in watch.blocks.items():
            time = blocks[index].step * step_s
            if finding.acted is None and time <= there.watched:
                first = known[name].past.incident_first
                verdict = threshold.judge(blocks[: index + 1], limits, signal=name)
                finding = _said(finding, (verdict,), time, ask=str(first.guard) if first else "")
    return finding


def _said(finding: Finding, verdicts: Sequence[Verdict], time: float, *, ask: str) -> Finding:
    """Take in what was said after a block."""
    for verdict in verdicts:
        if verdict.status is not Status.BREACH:
            continue
        objections = [
            *([ask] if ask else []),
            *(["shared"] if verdict.shared else []),
            *(d.guard for d in verdict.objections),
        ]
        if not objections:
            return msgspec.structs.replace(finding, acted=time, why=verdict.detail)
        if finding.asked is None:
            finding = msgspec.structs.replace(finding, asked=time, why=f"{', '.join(objections)}: {verdict.detail}")
    return finding


def _checked(checker: Checker, watch: Watch, there: PastPods, *, step_s: float) -> Finding:
    """Say what a checker of others did: it looks from the block of the first Ready pod on, as long as we do."""
    times = []
    for blocks in watch.blocks.values():
        mine = [each for each in blocks if each.step * step_s <= there.watched]
        begin = next((index for index, each in enumerate(mine) if each.ready), len(mine))
        counts = [each.candidate + each.grace for each in mine[begin:]]
        found = rollback_s(checker, counts, step_s=step_s)
        if found is not None:
            times.append((mine[begin].step - 1) * step_s + found)
    return Finding(rule=checker.name, acted=min(times, default=None))


def _saved(finding: Finding, blocks: Sequence[Block], there: PastPods, *, step_s: float) -> Finding:
    """Say how much sooner it was than the undo."""
    if finding.acted is None:
        return finding
    later = [each for each in blocks if each.step * step_s > finding.acted]
    return msgspec.structs.replace(
        finding,
        saved_s=there.over - finding.acted,
        saved_errors=sum((each.candidate + each.grace).bad for each in later),
    )
