"""One HTML page that needs nothing else: the table, and per rollout the evidence and both tracks' error rates."""

import datetime as dt
import math
from collections.abc import Sequence
from html import escape

from watchdog.backtest.labels import percent
from watchdog.backtest.replay import Point, Replayed
from watchdog.backtest.summary import CONFIGURED, NOTES, FindingOutcome, Tally, finding_of, outcome
from watchdog.judge.blocks import Counts

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 720.0, 136.0, 46.0, 18.0, 16.0
_HIGHEST = 1.3
"""Evidence is drawn up to a little above its bar: what it says beyond is not needed."""

_ORDER = (
    FindingOutcome.MISSED,
    FindingOutcome.FALSE,
    FindingOutcome.ASKED,
    FindingOutcome.FALSE_ASKED,
    FindingOutcome.CAUGHT,
    FindingOutcome.PASSED,
    FindingOutcome.UNKNOWN,
)

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --dim: #667085; --line: #d5dae1; --paper: #fff;
  --new: #c2410c; --old: #2563eb; --bar: #b91c1c; --undo: #7c3aed; --good: #15803d }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --dim: #98a2b3; --line: #39424f; --paper: #14181e;
  --new: #fb923c; --old: #60a5fa; --bar: #f87171; --undo: #c4b5fd; --good: #4ade80 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.05rem; margin: 2.2rem 0 .2rem; border-top: 1px solid var(--line);
  padding-top: 1rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line) }
th:first-child, td:first-child { text-align: left } th { color: var(--dim); font-weight: 600 }
tr.ours td { font-weight: 600 } p { margin: .2rem 0 } .dim, small { color: var(--dim) }
.caught, .passed { color: var(--good) } .missed, .false, .false-asked { color: var(--bar) }
.asked { color: var(--undo) }
svg { width: 100%; height: auto; display: block; margin-top: .6rem }
svg text { font-size: 11px; fill: var(--dim) } path { fill: none; stroke-width: 1.6 }
.axis { stroke: var(--line) } .new { stroke: var(--new) } .old { stroke: var(--old) }
.bar { stroke: var(--bar); stroke-dasharray: 5 4 } .act { stroke: var(--good); stroke-width: 1.6 }
.undo { stroke: var(--undo); stroke-width: 1.6 } ol { padding-left: 1.2rem } li { margin: .3rem 0 }
"""


def page(title: str, rules: Sequence[Tally], replayed: Sequence[Replayed], problems: Sequence[str]) -> str:
    """Draw the page.

    Args:
        replayed: the rollouts, oldest first; what is worth a look comes before what passed.
        problems: what was not replayed, and why.
    """
    return "\n".join(
        [
            '<!doctype html><html lang="en"><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style>",
            f"<h1>{escape(title)}</h1>",
            _table(rules),
            *(f"<p><small>Not replayed: {escape(each)}</small></p>" for each in problems),
            *(_rollout(each) for each in sorted(replayed, key=lambda each: _ORDER.index(outcome(each, CONFIGURED)))),
            "<h2>How to read this</h2><ol>",
            *(f"<li><small>{escape(each)}</small></li>" for each in NOTES),
            "</ol></html>\n",
        ]
    )


def saved(seconds: float, *, at_least: bool) -> str:
    """Write a time that was saved in minutes."""
    return f"{'≥ ' if at_least else ''}{seconds / 60:.1f}"


def clock(time: float) -> str:
    """Write a time as a person reads it, in UTC."""
    return f"{dt.datetime.fromtimestamp(time, dt.UTC):%Y-%m-%d %H:%M:%S}"


def _table(rules: Sequence[Tally]) -> str:
    heads = ("", "caught", "only asked", "missed", "false", "falsely asked", "minutes saved", "errors saved")
    lines = ["<table><tr>", *(f"<th>{head}</th>" for head in heads), "</tr>"]
    for each in rules:
        least = each.open > 0
        cells = (each.caught, each.asked, each.missed, each.false, each.false_asked)
        numbers = "".join(f"<td>{cell}</td>" for cell in cells)
        errors = f"{'≥ ' if least else ''}{each.saved_errors:,.0f}"
        ours = ' class="ours"' if each.rule == CONFIGURED else ""
        minutes = saved(each.saved_s, at_least=least)
        lines.append(f"<tr{ours}><td>{escape(each.rule)}</td>{numbers}<td>{minutes}</td><td>{errors}</td></tr>")
    return "".join([*lines, "</table>"])


def _rollout(replayed: Replayed) -> str:
    word, finding = outcome(replayed, CONFIGURED), finding_of(replayed, CONFIGURED)
    began = replayed.rollout.started
    parts = [
        f'<h2>{escape(replayed.rollout.name)} <span class="{word}">{word}</span></h2>',
        f'<p class="dim">{clock(began)} UTC · {replayed.was.label}: {escape(replayed.was.why)}</p>',
    ]
    if finding and (time := finding.acted or finding.asked):
        what = "rolled back" if finding.acted else "a person asked"
        parts.append(f"<p>rule {finding.rule}: {what} after {(time - began) / 60:.1f} min: {escape(finding.why)}</p>")
    others = [f"{escape(each.rule)} after {(each.acted - began) / 60:.1f} min" for each in replayed.peers if each.acted]
    if replayed.points:
        parts.append(
            f"<p><small>Others: {'; '.join(others) or 'none rolls back'}. Past: {escape(replayed.past)}.</small></p>"
        )
        act = finding.acted if finding else None
        parts += [_evidence(replayed, act), _rates(replayed, act)]
    return "\n".join(parts)


def _evidence(replayed: Replayed, acted: float | None) -> str:
    """Draw the evidence of each control as a share of its bar."""
    points = replayed.points
    lines = [
        _path(points, [max(0.0, each.evidence[index]) / _HIGHEST for each in points], kind)
        for index, kind in zip(range(len(replayed.controls)), ("new", "old"), strict=False)
    ]
    bar = _y(1 / _HIGHEST)
    marks = [
        f'<path class="bar" d="M{_LEFT} {bar}H{_WIDTH}"/>',
        f'<text x="{_LEFT - 6}" y="{bar + 4}" {_END}>bar</text>',
    ]
    legend = [
        (kind, f"evidence, {name} control") for kind, name in zip(("new", "old"), replayed.controls, strict=False)
    ]
    return _plot(points, replayed, [*marks, *lines], legend, acted)


def _rates(replayed: Replayed, acted: float | None) -> str:
    """Draw the error rates of both tracks."""
    points = replayed.points
    tracks = [("new", [each.candidate for each in points]), ("old", [each.stable for each in points])]
    top = max((each.ratio for _, counts in tracks for each in counts), default=0.0)
    top = min(1.0, max(0.01, 1.15 * top))
    lines = [_path(points, [_share(each, top) for each in counts], kind) for kind, counts in tracks]
    scale = f'<text x="{_LEFT - 6}" y="{_TOP + 8}" {_END}>{percent(top)}</text>'
    legend = [("new", f"new version, {replayed.signal}"), ("old", "stable pods")]
    return _plot(points, replayed, [scale, *lines], legend, acted)


_END = 'text-anchor="end"'


def _share(counts: Counts, top: float) -> float | None:
    return counts.ratio / top if counts.total else None


def _plot(
    points: Sequence[Point],
    replayed: Replayed,
    inside: Sequence[str],
    legend: Sequence[tuple[str, str]],
    acted: float | None,
) -> str:
    floor, marks = _HEIGHT - _BOTTOM, []
    for kind, time in (("act", acted), ("undo", replayed.undone)):
        if time is not None:
            x = _x(min(time, points[-1].time), points)
            marks.append(f'<path class="{kind}" d="M{x} {_TOP}V{floor}"/>')
    shown = [*legend, *([("act", "rolled back")] if acted else []), *([("undo", "undone")] if replayed.undone else [])]
    keys, at = [], _LEFT + 4
    for kind, text in shown:
        keys.append(f'<path class="{kind}" d="M{at:.0f} 5h14"/><text x="{at + 18:.0f}" y="9">{escape(text)}</text>')
        at += 34 + 6.2 * len(text)
    minutes = (points[-1].time - replayed.rollout.started) / 60
    ends = (
        f'<text x="{_LEFT}" y="{_HEIGHT - 4}">0</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 4}" {_END}>{minutes:.0f} min after it began</text>'
    )
    axis = f'<path class="axis" d="M{_LEFT} {_TOP}V{floor}H{_WIDTH}"/>'
    return f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}">{axis}{"".join([*inside, *marks, *keys])}{ends}</svg>'


def _path(points: Sequence[Point], values: Sequence[float | None], kind: str) -> str:
    """Draw a line; it is broken where there is no value."""
    steps, drawn = [], False
    for point, value in zip(points, values, strict=True):
        if value is None:
            drawn = False
            continue
        steps.append(f"{'L' if drawn else 'M'}{_x(point.time, points)} {_y(min(1.0, value))}")
        drawn = True
    return f'<path class="{kind}" d="{"".join(steps)}"/>' if steps else ""


def _x(time: float, points: Sequence[Point]) -> float:
    span = max(1.0, points[-1].time - points[0].time)
    return round(_LEFT + (_WIDTH - _LEFT) * (time - points[0].time) / span, 1)


def _y(share: float) -> float:
    height = _HEIGHT - _BOTTOM - _TOP
    return round(_TOP + height * (1 - (share if math.isfinite(share) else 0.0)), 1)
