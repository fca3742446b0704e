"""``evaluate``: judges a file of blocks by the rule `sequential`, without objections; one row at a time."""

import csv
import datetime as dt
import gzip
import io
import math
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, cast

import click
import msgspec

from watchdog.cli.options import Common, common, runs
from watchdog.cli.output import BREACH, GOOD, Form, echo, print_json
from watchdog.errors import UsageError
from watchdog.judge import concurrent, historical
from watchdog.judge.blocks import Counts, Status
from watchdog.judge.calibration import M_CAP_UNKNOWN, PHI_UNKNOWN
from watchdog.judge.concurrent import ConcurrentSettings, ConcurrentState
from watchdog.judge.eprocess import HORIZON, Design, Evidence, bar, bets
from watchdog.judge.historical import HistoricalSettings
from watchdog.judge.sequential import Control, Controls

_NEEDED = ("time", "candidate_total", "candidate_bad", "stable_total", "stable_bad")
_READY = "stable_ready"
_GZIP = b"\x1f\x8b"


class TraceRow(msgspec.Struct, frozen=True):
    """One block of a trace; its time as it was written."""

    time: float | str
    candidate: Counts
    stable: Counts
    old_live: bool


class JudgePlan(msgspec.Struct, frozen=True, kw_only=True):
    """How to judge: `historical` only where there is a baseline."""

    controls: Controls
    bar: float
    concurrent: ConcurrentSettings
    historical: HistoricalSettings | None


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A row and what was thought after it."""

    time: float | str
    log_e: float = 0.0
    log_e_historical: float | None = None
    onset: float | str | None = None
    verdict: Status = Status.INSUFFICIENT


@click.command(short_help="Judge a file of blocks.")
@click.argument("trace", metavar="TRACE.csv")
@click.option("--control", type=click.Choice([each.value for each in Controls]), help="Which controls judge.")
@click.option("--baseline", type=click.FloatRange(0, 1), metavar="b", help="Reference share of failures of the past.")
@click.option("--phi", type=click.FloatRange(min=1), metavar="F", help="Size of error clusters [default: 3].")
@click.option("--m-cap", type=click.FloatRange(min=0, min_open=True), metavar="M", help="Requests that count in full.")
@click.option("--blocks", type=click.FloatRange(min=1), default=4.0, metavar="B", help="Blocks for full evidence.")
@click.option("--tolerance", type=float, default=concurrent.TOLERANCE, metavar="P0", help="Share that is forgiven.")
@click.option("--ratio", type=click.FloatRange(min=0), default=concurrent.RATIO, metavar="R", help="Times the stable.")
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.01,
    metavar="A",
    help="False breaches.",
)
@click.option("--n-min", type=click.FloatRange(min=0), default=concurrent.LEAST, metavar="N", help="Stable, merged.")
@click.option("--horizon", type=click.IntRange(min=2), default=HORIZON, metavar="T", help="Blocks with onset weight.")
@common
@runs
async def evaluate(
    shared: Common,
    *,
    trace: str,
    control: str | None,
    baseline: float | None,
    phi: float | None,
    m_cap: float | None,
    blocks: float,
    tolerance: float,
    ratio: float,
    alpha: float,
    n_min: float,
    horizon: int,
) -> int:
    """Judge blocks of a CSV file (also .gz, or - for standard input) as `run` would, without objections."""
    controls = Controls(control or (Controls.CONCURRENT if baseline is None else Controls.BOTH))
    if baseline is None and controls is not Controls.CONCURRENT:
        raise UsageError(f"--control {controls} needs a reference: give --baseline, such as 0.005")
    if not math.isfinite(tolerance) or tolerance < 0:
        raise UsageError(f"--tolerance {tolerance:g} is no share: give 0 or more")
    try:
        bets(tolerance)
    except ValueError as error:
        raise UsageError(f"--tolerance: {error}") from error
    if phi is None and m_cap is None:
        m_cap = M_CAP_UNKNOWN
    at_bar = bar(alpha, share=1 / len(controls.each))
    design = Design(bar=at_bar, blocks=blocks, phi=PHI_UNKNOWN if phi is None else phi, m_cap=m_cap, horizon=horizon)
    plan = JudgePlan(
        controls=controls,
        bar=at_bar,
        concurrent=ConcurrentSettings(design=design, tolerance=tolerance, ratio=ratio, least=n_min),
        historical=None if baseline is None else HistoricalSettings(design=design, base=baseline),
    )
    first: Judged | None = None
    if shared.form is Form.TEXT:
        echo(f"{'TIME':<26} {'LOG E':>12} {'HISTORICAL':>12} {'ONSET':<26} VERDICT")
    with _opened(trace) as lines:
        for judged in judge(read(lines), plan):
            first = first or (judged if judged.verdict is Status.BREACH else None)
            _print(judged, shared.form)
    if shared.form is Form.JSON:
        print_json("evaluate", {"first_breach": first.time if first else None})
    else:
        echo(f"First breach: {first.time if first else 'none'}")
    return BREACH if first else GOOD


def judge(rows: Iterator[TraceRow], plan: JudgePlan) -> Iterator[Judged]:
    """Judge row by row; from the first crossing on the verdict is a breach."""
    beside, alone = ConcurrentState(), Evidence()
    times: dict[int, float | str] = {}
    started, breach = False, False
    for index, row in enumerate(rows, start=1):
        started = started or row.candidate.total > 0
        beside = concurrent.step(
            beside, row.candidate, row.stable, plan.concurrent, index=index, old_live=row.old_live, started=started
        )
        if plan.historical:
            alone = historical.step(alone, row.candidate, plan.historical, index=index, started=started)
        crossed = alone if plan.historical else beside.evidence
        times[index] = row.time
        times = {each: times[each] for each in {*crossed.onsets, index} if each in times}
        said = {Control.CONCURRENT: beside.evidence.log_e, Control.HISTORICAL: alone.log_e}
        breach = breach or any(said[each] >= plan.bar for each in plan.controls.each)
        yield Judged(
            time=row.time,
            log_e=beside.evidence.log_e,
            log_e_historical=alone.log_e if plan.historical else None,
            onset=None if crossed.onset is None else times[crossed.onset],
            verdict=Status.BREACH if breach else Status.INSUFFICIENT,
        )


def read(lines: Iterator[str]) -> Iterator[TraceRow]:
    """Read blocks; columns beyond those that are named are passed over.

    Raises:
        UsageError: a line cannot be read; it names the line, the field and the cure.
    """
    table = csv.DictReader(lines, strict=True)
    try:
        missing = [name for name in _NEEDED if name not in (table.fieldnames or ())]
        if missing:
            raise UsageError(f"line 1: no column {missing[0]}: begin with the line {','.join(_NEEDED)}")
        before: float | None = None
        for fields in table:
            time, at = _time(fields["time"], table.line_num)
            if before is not None and at <= before:
                raise _bad(table.line_num, "time", fields["time"], "sort the rows by time, one each")
            before = at
            candidate, stable = _counts(fields, "candidate", table.line_num), _counts(fields, "stable", table.line_num)
            ready = fields.get(_READY, "1")
            if ready not in ("0", "1"):
                raise _bad(table.line_num, _READY, ready, "write 0 or 1")
            yield TraceRow(time, candidate, stable, ready == "1")
    except (csv.Error, UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        raise UsageError(f"line {table.line_num + 1}: {error}: write CSV in UTF-8, or that with gzip") from error


def _time(text: str | None, line: int) -> tuple[float | str, float]:
    """Give a time as it was written, and in seconds."""
    try:
        at = float(text or "")
    except ValueError:
        try:
            when = dt.datetime.fromisoformat(text or "")
        except ValueError:
            raise _bad(line, "time", text, "write seconds since the epoch or RFC 3339") from None
        return text or "", (when if when.tzinfo else when.replace(tzinfo=dt.UTC)).timestamp()
    if not math.isfinite(at):
        raise _bad(line, "time", text, "write seconds since the epoch or RFC 3339")
    return int(at) if at.is_integer() else at, at


def _counts(fields: dict[str, str], track: str, line: int) -> Counts:
    found = []
    for name in (f"{track}_total", f"{track}_bad"):
        try:
            value = float(fields[name])
        except (TypeError, ValueError):
            value = math.nan
        if not 0 <= value < math.inf:
            raise _bad(line, name, fields[name], "write the requests of this block alone, 0 or more")
        found.append(value)
    if found[1] > found[0]:
        raise _bad(line, f"{track}_bad", fields[f"{track}_bad"], f"at most {track}_total can be bad")
    return Counts(*found)


def _bad(line: int, field: str, value: str | None, cure: str) -> UsageError:
    return UsageError(f"line {line}, {field}: {'nothing' if value is None else repr(value)}: {cure}")


@contextmanager
def _opened(trace: str) -> Iterator[Iterator[str]]:
    """Open a file or standard input, whether it is packed or not."""
    with ExitStack() as stack:
        try:
            given = 0 if trace == "-" else trace
            raw = stack.enter_context(open(given, "rb", closefd=trace != "-"))
            packed = raw.peek(2)[:2] == _GZIP
        except OSError as error:
            raise UsageError(f"{trace}: {error.strerror}: name a readable file, or - for standard input") from error
        found = cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if packed else raw
        yield io.TextIOWrapper(cast(io.BufferedReader, found), encoding="utf-8-sig", newline="")


def _print(judged: Judged, form: Form) -> None:
    if form is Form.JSON:
        print_json("evaluate", msgspec.to_builtins(judged))
        return
    beside = "-" if judged.log_e_historical is None else f"{judged.log_e_historical:.6f}"
    onset = "-" if judged.onset is None else judged.onset
    echo(f"{judged.time!s:<26} {judged.log_e:>12.6f} {beside:>12} {onset!s:<26} {judged.verdict}")
