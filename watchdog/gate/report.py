"""How a gate ended, and what is said of it: a line per block, a summary in Markdown, outputs for the next step."""

import datetime as dt
from collections.abc import Mapping

import msgspec

from watchdog.gate.tally import SignalNumbers, describe, odds
from watchdog.judge.blocks import Counts, Status, Verdict
from watchdog.model import Action, Outcome, Result, Rollout, Undo
from watchdog.objects import WorkloadRef


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How a gate ended.

    Args:
        verdict: what is thought of it.
        rollout: the version that was pinned; None where none could be.
        outcome: what became of it; None where nothing was to be done.
        detail: one sentence about that.
        service: the running service found it bad, and not this gate.
        result: the action of this gate, where there was one.
        numbers: by signal, as they stood at the end.
        images: of the version, by container.
        past: what share of failures is usual, and where that is known from.
        notes: what limits the verdict.
        began: when its first block ended.
        ended: when the gate did.
    """

    workload: WorkloadRef
    verdict: Verdict
    rollout: Rollout | None = None
    outcome: Outcome | None = None
    detail: str = ""
    service: bool = False
    result: Result | None = None
    numbers: tuple[SignalNumbers, ...] = ()
    images: Mapping[str, str] = {}
    past: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    began: dt.datetime | None = None
    ended: dt.datetime

    @property
    def title(self) -> str:
        """The version and the verdict in a few words."""
        version = f" revision {self.rollout.revision} ({self.rollout.hash})" if self.rollout else ""
        if self.outcome in (Outcome.SUPERSEDED,):
            return f"{self.workload}{version} is not what is live any more"
        word = {
            Status.HEALTHY: "is healthy",
            Status.BREACH: "is bad",
            Status.INSUFFICIENT: "cannot be judged: too little was seen",
            Status.BLIND: "cannot be judged",
        }
        return f"{self.workload}{version} {word[self.verdict.status]}"

    @property
    def sentences(self) -> list[str]:
        """The end, line by line: verdict, what was done, what limits it."""
        by = "the service" if self.service else "this gate"
        done = f"{by}: {self.outcome}, {self.detail}" if self.outcome and self.detail else self.detail
        cause = self.verdict.blind.reason if self.verdict.blind else self.verdict.cause
        why = f"{cause}: {self.verdict.detail}" if cause else self.verdict.detail
        pods = self.result.pods if self.result else ()
        return [f"{self.title}: {why}", *([done] if done else []), *pods, *(f"note: {each}" for each in self.notes)]


def line(numbers: SignalNumbers, *, step_s: float, bake_s: float, named: bool) -> str:
    """One block on a log; its time is UTC.

    Args:
        numbers: where a signal stands after it.
        step_s: the grid, in seconds.
        bake_s: how long is judged, in seconds.
        named: there are several signals.
    """
    at = dt.datetime.fromtimestamp(numbers.step * step_s, tz=dt.UTC)
    name = f"{numbers.signal}: " if named else ""
    what = f"blind, {numbers.blind.reason}: {numbers.blind.detail}" if numbers.blind else describe(numbers)
    return f"{at:%H:%M:%S}  {numbers.judged * step_s:3.0f} of {bake_s:.0f} s  {name}{what}"


def markdown(report: Report, *, action: Action | None, dry_run: bool, undo: str) -> str:
    """The summary of a pipeline's page.

    Args:
        action: what a breach was to lead to.
        dry_run: nothing was to be changed.
        undo: the command that undoes it by hand.
    """
    sign = {Status.HEALTHY: "✅", Status.BREACH: "❌"}.get(report.verdict.status, "⚠️")
    rows = [
        ("workload", _code(str(report.workload))),
        ("revision", f"{report.rollout.revision} ({_code(report.rollout.hash)})" if report.rollout else "unknown"),
        *(("image", f"{_code(image)} ({_cell(name)})") for name, image in sorted(report.images.items())),
        ("verdict", _code(str(report.verdict.status))),
    ]
    for each in report.numbers:
        name = f" of {_cell(each.signal)}" if len(report.numbers) > 1 else ""
        candidate, stable = each.candidate, each.stable
        rows += [
            (f"candidate{name}", _counted(candidate)),
            (f"stable{name}", _counted(stable)),
            (f"evidence{name}", f"{odds(each.log_e)} of {odds(each.bar)} ({each.control})"),
        ]
    if action and report.verdict.status is Status.BREACH and not report.service:
        rows.append(("on a breach", _code(str(action)) + (", dry run: nothing was changed" if dry_run else "")))
    if report.outcome:
        rows.append(("outcome", f"{_code(str(report.outcome))}{' by the service' if report.service else ''}"))
    table = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    text = [f"### {sign} {_cell(report.title)}", "", *table, ""]
    text += [f"- {_cell(sentence)}" for sentence in (*report.sentences, *report.past)]
    if dry_run or report.outcome not in _OVER:
        text += ["", "To undo it by hand:", "```", undo, "```"]
    return "\n".join([*text, ""])


def outputs(report: Report, *, code: int) -> dict[str, str]:
    """What the next step of a pipeline may ask for, each a single line."""
    rollout, first = report.rollout, report.numbers[0] if report.numbers else None
    plan = report.result.plan if report.result else None
    return {
        "verdict": str(report.verdict.status),
        "outcome": str(report.outcome or ""),
        "exit-code": str(code),
        "revision": str(rollout.revision) if rollout else "",
        "hash": rollout.hash if rollout else "",
        "incident": rollout.incident if rollout else "",
        "candidate-total": f"{first.candidate.total:.0f}" if first else "",
        "candidate-bad": f"{first.candidate.bad:.0f}" if first else "",
        "stable-total": f"{first.stable.total:.0f}" if first else "",
        "stable-bad": f"{first.stable.bad:.0f}" if first else "",
        "log-evidence": f"{first.log_e:.6f}" if first else "",
        "back-to-revision": str(plan.target.number) if isinstance(plan, Undo) else "",
        "reason": " ".join("; ".join(report.sentences).split()),
    }


def _counted(counts: Counts) -> str:
    share = f"{counts.bad:.0f} of {counts.total:.0f} bad, {100 * counts.ratio:.1f} %"
    return share if counts.total else "no requests"


def _code(text: str) -> str:
    """Text from the cluster in a code span: it cannot end the span, nor the table's cell."""
    return f"`{text.translate(_CODE)}`"


def _cell(text: str) -> str:
    """Text from the cluster outside a code span: no markup of its, no new line, no new cell."""
    return "".join(f"\\{c}" if c in _MARKUP else c for c in " ".join(text.split()))


_OVER = frozenset({Outcome.SUPERSEDED, Outcome.ROLLED_BACK, Outcome.SCALED_DOWN, Outcome.PAUSED, Outcome.RECOVERED})
"""Where the version is not live any more, or is stopped."""

_MARKUP = frozenset("\\`*_[]<>#|&~")
_CODE = str.maketrans({"`": "'", "|": "¦", "\n": " ", "\r": " "})
