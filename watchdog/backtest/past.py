"""What the time before a rollout says: the reference share of failures, the size of error clusters, whether to believe.

The same quantities that the service freezes at a rollout's start (`judge.calibration`), of the 24 hours before; pods of
versions that were undone are no pattern of what is usual.
"""

import math
from collections.abc import Mapping, Sequence

import msgspec
from msgspec.structs import replace

from watchdog.judge import calibration, counters, historical, vetoes
from watchdog.judge.blocks import Blind, Counts, Row
from watchdog.judge.calibration import Reference
from watchdog.judge.sequential import Settings
from watchdog.judge.vetoes import Vetoed

WINDOW_S = 300.0
DAY_S = 24 * 3600.0
BLOCKS_S = 6 * 3600.0
_HOUR_S = 3600.0
_BEFORE_WINDOWS = 2
_NEWEST_OUT = 3

Points = Mapping[float, float]
"""Values of a counter by time; NaN where it is no number."""

Target = tuple[Points, Points]
"""What a pod's container showed: requests, and those of them that failed."""


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """What is frozen of the past of one signal.

    Args:
        reference: the reference share and cluster sizes.
        usual: the share that failed in those hours, for labels.
        incident_first: why the old pods were failing before.
        sawtooth: why the counters cannot be believed.
    """

    reference: Reference
    usual: float = 0.0
    incident_first: Vetoed | None = None
    sawtooth: Blind | None = None

    def holds(self, settings: Settings) -> Settings:
        """Give the settings of the rule with what was found."""
        found = self.reference
        return replace(
            settings,
            base=found.base,
            phi_concurrent=found.phi_concurrent,
            phi_historical=found.phi_historical,
            m_cap=found.m_cap,
            known=found.known,
            incident_first=self.incident_first,
        )


NOTHING = Past(reference=calibration.unknown())


def past(coarse: Mapping[Row, Target], fine: Mapping[Row, Target], *, began: float, fine_s: float) -> Past:
    """Give what the past of a signal says.

    Args:
        coarse: points every five minutes, for a day.
        fine: points every `fine_s` seconds, for six hours.
        began: when the rollout did.
        fine_s: seconds between those points.
    """
    end = began // WINDOW_S * WINDOW_S
    windows = _windows(coarse, [end - DAY_S + index * WINDOW_S for index in range(round(DAY_S / WINDOW_S) + 1)])
    whole = [each for each in windows if each is not None]
    last = began // fine_s * fine_s
    times = [last - BLOCKS_S + index * fine_s for index in range(round(BLOCKS_S / fine_s) + 1)]
    deltas = {row: _deltas(target, times) for row, target in fine.items()}
    pods = [[each or Counts() for each in found] for found in deltas.values()]
    left_out = len(windows) - len(whole)
    reference = calibration.reference(whole, pods, left_out=left_out)
    earlier = calibration.reference(whole, pods, left_out=left_out, newest_out=_NEWEST_OUT)
    before = sum(whole[-_BEFORE_WINDOWS:], Counts())
    limit = historical.limit(earlier.base)
    hour = round(_HOUR_S / fine_s)
    falls = {row: float(sum(each is None for each in found[-hour:])) for row, found in deltas.items()}
    return Past(
        reference=reference,
        usual=sum(whole, Counts()).ratio,
        incident_first=vetoes.incident_first(before, limit=limit, phi=earlier.phi_historical),
        sawtooth=counters.not_monotonic(falls, {row.pod: 0 for row in falls}),
    )


def targets(total: Sequence[tuple[Row, Points]], bad: Sequence[tuple[Row, Points]], *, good: bool) -> dict[Row, Target]:
    """Put requests and failures of each target together.

    Args:
        total: of requests.
        bad: of failures, or of successes.
        good: they are successes.
    """
    failed = dict(bad)
    found: dict[Row, Target] = {}
    for row, points in total:
        beside = failed.get(row, {})
        found[row] = (points, {at: value - beside.get(at, 0.0) for at, value in points.items()} if good else beside)
    return found


def _windows(found: Mapping[Row, Target], times: Sequence[float]) -> list[Counts | None]:
    """Give the sums over all targets between the times; None where a counter fell."""
    columns = zip(*(_deltas(target, times) for target in found.values()), strict=True)
    return [
        None if any(each is None for each in column) else sum((each for each in column if each), Counts())
        for column in columns
    ]


def _deltas(target: Target, times: Sequence[float]) -> list[Counts | None]:
    """Give what a target counted between the times; None where a counter fell. Its first value counts nothing."""
    total, bad = target
    found: list[Counts | None] = []
    last: tuple[float, float] | None = None
    for index, at in enumerate(times):
        value = total.get(at)
        delta: Counts | None = Counts()
        if value is not None and not math.isnan(value):
            failed = bad.get(at, last[1] if last else 0.0)
            failed = 0.0 if math.isnan(failed) else failed
            if last is not None:
                fell = value < last[0] or failed < last[1]
                delta = None if fell else Counts(value - last[0], failed - last[1])
            last = value, failed
        if index:
            found.append(delta)
    return found
