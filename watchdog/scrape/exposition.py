"""What a pod exposes, reduced to what the signals select. Nothing else of it is parsed.

An exposition has thousands of lines, of which two metrics are wanted: their lines are found as bytes, and only they
reach prometheus-client's parsers.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec
from prometheus_client import Metric
from prometheus_client import parser as text
from prometheus_client.openmetrics import parser as openmetrics

from watchdog.config import Signal
from watchdog.judge.blocks import MOST
from watchdog.scrape.http import Exposition
from watchdog.selectors import parse, tester

Key = tuple[str, str]
"""A selector as it is written, and the label that its series are told apart by; that is empty without a join."""

# One sample without its exemplar, which the strict parser admits only where it knows the metric's type.
_SAMPLE = re.compile(r'[^{\s]+\s*(?:\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})?[^#]*')
_LONGEST_LINE = 1 << 14
_MOST_LINES = 5000
"""Of one pod, of what is wanted: parsing them takes a good part of a second, in which nothing else is done."""

_SUFFIXES = {"_total": "counter", "_bucket": "histogram", "_count": "histogram|summary", "_sum": "histogram|summary"}


class Wanted(msgspec.Struct, frozen=True):
    """What is looked for in every exposition.

    Args:
        metrics: the names.
        tests: by key: the metric, and whether a series of it is selected.
    """

    metrics: frozenset[str]
    tests: Mapping[Key, tuple[str, Callable[[Mapping[str, str]], bool]]]


class Exposed(msgspec.Struct, frozen=True):
    """What a pod showed.

    Args:
        sums: by key and value of the joined label, empty without one: the sum of what is selected; NaN where it is no
            finite number.
        metrics: the wanted metrics that it has, with or without a series.
        problem: why nothing of it can be believed; then `sums` is empty.
    """

    sums: Mapping[Key, Mapping[str, float]] = {}
    metrics: frozenset[str] = frozenset()
    problem: str = ""


def wanted(signals: Iterable[Signal]) -> Wanted:
    """Give what has to be looked for.

    Raises:
        ValueError: a selector that only Prometheus evaluates.
    """
    keys = {(written, signal.join) for signal in signals for written in (signal.bad or signal.good, signal.total)}
    found = {key: parse(key[0]) for key in keys}
    metrics = frozenset(selector.metric for selector in found.values())
    return Wanted(metrics, {key: (selector.metric, tester(selector)) for key, selector in found.items()})


def read(exposition: Exposition, want: Wanted, labels: Mapping[str, str]) -> Exposed:
    """Sum up what is wanted.

    Args:
        exposition: what the pod answered.
        want: what is wanted.
        labels: of the target; a series' own label of such a name becomes `exported_...`, as in Prometheus.
    """
    body = b"\n" + exposition.body
    if exposition.openmetrics and not body.rstrip(b"\n").endswith(b"\n# EOF"):
        return Exposed(problem="the exposition is cut off: it does not end with # EOF")
    series: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    parsed = 0
    for metric in want.metrics:
        for line in _lines(body, metric.encode()):
            parsed += 1
            if len(line) > _LONGEST_LINE or parsed > _MOST_LINES:
                most = f"{_MOST_LINES:,} series, or one of more than {_LONGEST_LINE >> 10} KiB"
                return Exposed(problem=f"{metric} has more than {most}: select a metric with fewer")
            try:
                name, own, value = _parse(line.decode(), strict=exposition.openmetrics)
            except Exception:  # the parsers raise whatever a malformed line leads them to
                return Exposed(problem=f"a line of {metric} cannot be read: {line[:120].decode(errors='replace')!r}")
            key = (name, frozenset(_labels(own, labels).items()))
            if key in series:
                return Exposed(problem=f"{metric} has the same labels twice: {line[:120].decode(errors='replace')!r}")
            series[key] = value
    return Exposed(_sums(series, want), frozenset(metric for metric in want.metrics if _has(body, metric, series)))


def _sums(series: Mapping[tuple[str, frozenset[tuple[str, str]]], float], want: Wanted) -> dict[Key, dict[str, float]]:
    sums: dict[Key, dict[str, float]] = {}
    for (name, pairs), value in series.items():
        found = dict(pairs)
        for key, (metric, test) in want.tests.items():
            if metric == name and test(found):
                by, label = sums.setdefault(key, {}), found.get(key[1], "") if key[1] else ""
                by[label] = by.get(label, 0.0) + (value if abs(value) <= MOST else math.nan)
    return sums


def _lines(body: bytes, start: bytes) -> Iterator[bytes]:
    """The lines that begin with a name."""
    begin = b"\n" + start
    at = body.find(begin)
    while at >= 0:
        end = body.find(b"\n", at + 1)
        end = len(body) if end < 0 else end
        after = at + len(begin)
        if body[after : after + 1] in (b" ", b"\t", b"{"):
            yield body[at + 1 : end]
        at = body.find(begin, end)


def _parse(line: str, *, strict: bool) -> tuple[str, Mapping[str, str], float]:
    """Read one sample, by itself, so that no other line can hide or rename it."""
    families: Iterable[Metric]
    if strict:
        sample = _SAMPLE.match(line)
        alone = f"{(sample[0] if sample else line).rstrip()}\n# EOF\n"
        families = openmetrics.text_string_to_metric_families(alone)  # type: ignore[no-untyped-call]
    else:
        families = text.text_string_to_metric_families(line)
    ((found,),) = ([each for each in family.samples] for family in families)
    return found.name, found.labels, float(found.value)


def _labels(own: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The labels of a series: the target's, and its own, which give way (``honor_labels: false``)."""
    found = {**{name: value for name, value in own.items() if value}, **given}
    for name in sorted(own.keys() & given.keys()):
        if own[name]:
            moved = f"exported_{name}"
            while moved in own or moved in given:
                moved = f"exported_{moved}"
            found[moved] = own[name]
    return {name: value for name, value in found.items() if value}


def _has(body: bytes, metric: str, series: Iterable[tuple[str, object]]) -> bool:
    """Whether a metric is there, be it without a series: its failures then are none."""
    if any(name == metric for name, _ in series):
        return True
    families = [(metric, "")] + [
        (metric.removesuffix(suffix), kinds) for suffix, kinds in _SUFFIXES.items() if metric.endswith(suffix)
    ]
    for family, kinds in families:
        for line in _lines(body, f"# TYPE {family}".encode()):
            if not kinds or line.rstrip().rpartition(b" ")[2].decode(errors="replace") in kinds.split("|"):
                return True
    return any(True for _ in _lines(body, f"# HELP {metric}".encode()))
