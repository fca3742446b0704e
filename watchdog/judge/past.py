"""What a workload counted before a rollout: readings of its counters, far apart, to counts by pod.

Unlike `counters` it knows of most pods nothing but their names, since they are gone. A counter that went down without a
restart that is known makes its time unusable. What a pod shows first, or after a gap, is left out: when that was
counted is not known.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from watchdog.judge.blocks import Counts, Reading, Sample, ScrapeTarget


class Span(msgspec.Struct, frozen=True):
    """The time between one reading and the next.

    Args:
        pods: what each pod counted in it.
        torn: counters that went down for no known reason.
    """

    pods: Mapping[str, Counts]
    torn: frozenset[str] = frozenset()

    @property
    def counts(self) -> Counts:
        """Of all pods."""
        return sum(self.pods.values(), Counts())


def spans(
    readings: Sequence[Reading],
    pod_of: Callable[[ScrapeTarget], str],
    *,
    step_s: float,
    restarts: Mapping[str, Sequence[float]],
) -> tuple[Span, ...]:
    """Give what was counted between readings: one span less than there are readings.

    Args:
        readings: oldest first, equally far apart.
        pod_of: whose a row is; empty where it is of another workload.
        step_s: the grid on which the readings' steps are.
        restarts: when containers are known to have begun anew, by pod.
    """
    found: list[Span] = []
    before: dict[tuple[str, str], tuple[float, Sample]] = {}
    for index, reading in enumerate(readings):
        now = newest(reading, pod_of, step_s)
        if index:
            pods: dict[str, Counts] = {}
            torn: set[str] = set()
            for key, (at, sample) in now.items():
                if key not in before:
                    continue  # what it shows was counted nobody knows when
                since, last = before[key]
                anew = any(since < each + 1 for each in restarts.get(key[0], ()) if each <= at)
                if (counted := delta(sample, None if anew else last)) is None:
                    torn.add(key[0])
                else:
                    pods[key[0]] = pods.get(key[0], Counts()) + counted
            found.append(Span(pods, frozenset(torn)))
        before = now
    return tuple(found)


def by_pod(found: Sequence[Span]) -> list[list[Counts]]:
    """Give each pod's counts in all spans; nothing in those in which it was not there, or went down."""
    names = sorted({name for span in found for name in span.pods})
    return [[span.pods.get(name, Counts()) for span in found] for name in names]


def newest(
    reading: Reading, pod_of: Callable[[ScrapeTarget], str], step_s: float
) -> dict[tuple[str, str], tuple[float, Sample]]:
    """Give the newest row of each container: where a target moves, its old row stays visible for some minutes."""
    found: dict[tuple[str, str], tuple[float, Sample]] = {}
    for sample in _counted(reading.samples):
        if pod := pod_of(sample.row):
            key, at = (pod, sample.row.container), reading.step * step_s if sample.at is None else sample.at
            if key not in found or at > found[key][0]:
                found[key] = at, sample
    return found


def _counted(samples: Iterable[Sample]) -> Iterable[Sample]:
    return (sample for sample in samples if sample.total is not None)


def delta(sample: Sample, last: Sample | None) -> Counts | None:
    """Give what was counted since; None where that is less than nothing. Failures that are absent are none."""
    total, bad = sample.total or 0.0, sample.bad or 0.0
    if last is not None:
        total, bad = total - (last.total or 0.0), bad - (last.bad or 0.0)
    return Counts(total, bad) if total >= 0 and bad >= 0 else None
