"""What a pod of the sandbox does, told by annotations of its template: a bad version is bad by its template.

The words are those of the fake kubelet that the tests put beside a real control plane, and a few more:

    sim/errors: "0.3"          share of requests that it fails
    sim/latency: 20ms          how long a request takes
    sim/ready-after: 2s        time from its start to Ready
    sim/terminate-after: 1s    time from deletion to gone
    sim/workers: "2"           so many processes behind its one /metrics, each with counters of its own
    sim/upstream: "true"       it fails, too, while the upstream that all versions share is down
    sim/mode: never-ready | crash-loop | crash-later (sim/crash-after: 10s) | image-pull | unschedulable
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum

import msgspec

from watchdog.config import duration


class Mode(StrEnum):
    """What becomes of a pod."""

    SERVES = "serves"
    NEVER_READY = "never-ready"
    CRASH_LOOP = "crash-loop"
    CRASH_LATER = "crash-later"
    IMAGE_PULL = "image-pull"
    UNSCHEDULABLE = "unschedulable"


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """How a pod behaves.

    Args:
        mode: what becomes of it.
        errors: share of requests that it fails, 0 to 1.
        latency_s: how long a request takes.
        ready_after_s: from its start to Ready.
        crash_after_s: from its start to its crash, in the modes that crash.
        terminate_after_s: from its deletion to its end.
        workers: processes behind its one /metrics.
        upstream: whether it needs the upstream that all versions share.
    """

    mode: Mode = Mode.SERVES
    errors: float = 0.0
    latency_s: float = 0.002
    ready_after_s: float = 0.1
    crash_after_s: float = 10.0
    terminate_after_s: float = 0.1
    workers: int = 1
    upstream: bool = False


class Upstream:
    """What every version calls; `down` while it answers nobody."""

    down = False


_CRASHES_AT_ONCE_S = 0.2


def read(annotations: Mapping[str, str]) -> Behaviour:
    """What the annotations of a pod say.

    Raises:
        ValueError: one of them cannot be read; names it.
    """
    told = {key.removeprefix("sim/"): value for key, value in annotations.items() if key.startswith("sim/")}

    def seconds(name: str, otherwise: float) -> float:
        return float(duration(told[name])) if name in told else otherwise

    base = Behaviour()
    mode = Mode(told.get("mode", Mode.SERVES))
    crash = _CRASHES_AT_ONCE_S if mode is Mode.CRASH_LOOP else base.crash_after_s
    return Behaviour(
        mode=mode,
        errors=float(told.get("errors", 0)),
        latency_s=seconds("latency", base.latency_s),
        ready_after_s=seconds("ready-after", base.ready_after_s),
        crash_after_s=seconds("crash-after", crash),
        terminate_after_s=seconds("terminate-after", base.terminate_after_s),
        workers=int(told.get("workers", 1)),
        upstream=told.get("upstream") == "true",
    )


def failures(share: float) -> Iterator[bool]:
    """Whether the next request fails, again and again: exactly this share does, spread evenly, nothing is random."""
    owed = 0.5
    while True:
        owed += share
        failed = owed >= 1
        owed -= failed
        yield failed
