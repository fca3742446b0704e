"""The nouns of judging: readings of counters, facts about pods, blocks of deltas, and blindness. All frozen.

Times are seconds since the epoch, in UTC; a step is a whole number `k` whose time is `k * step_s`.
"""

import math
from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from enum import StrEnum
from functools import cached_property
from typing import overload

import msgspec

from watchdog.model import Objection
from watchdog.objects import TemplateHash

MOST = 2.0**63
"""No counter counts further; what is larger is no number to reckon with, as sums and squares of it end in infinity."""

_LONGEST_PREFIX = 58
"""So much of a ReplicaSet's name the API server takes into the names of its pods."""

_AFTER_ALL = "\U0010ffff"

_WITH_PODS = 40
"""Of so many blocks what single pods counted is kept: ten minutes at steps of 15 s."""

_AT_ONCE = 64
"""So many old blocks go at a time."""

MOST_BLIND = 0.2
"""A bake is seen where less than this share of its steps is blind."""

FRESH_STEPS = 2.5
"""So many steps after its last sample a target counts as there."""


_NUMBERS = 6


class BlindReason(StrEnum):
    """Why nothing can be judged; the value is the word in records, metrics, Events, Slack and logs."""

    NOT_MONOTONIC = "not-monotonic"
    SCRAPED_TWICE = "scraped-twice"
    BAD_NEVER_SEEN = "bad-never-seen"
    STALE = "stale"
    PARTIAL = "partial"
    SKEW = "skew"
    UNREACHABLE = "unreachable"
    PENDING = "pending"


class Blind(msgspec.Struct, frozen=True):
    """Nothing can be judged, why, and what cures it."""

    reason: BlindReason
    detail: str


class Track(StrEnum):
    """One side of a comparison; `other` pods count on neither."""

    CANDIDATE = "candidate"
    STABLE = "stable"
    OTHER = "other"


class ScrapeTarget(msgspec.Struct, frozen=True, order=True):
    """One scrape target. `label` is the value of the joined label, where the policy joins by one; else empty."""

    namespace: str = ""
    pod: str = ""
    container: str = ""
    instance: str = ""
    job: str = ""
    label: str = ""


class Sample(msgspec.Struct, frozen=True):
    """What one row showed at one instant: cumulative counts, None where there is no such series.

    Args:
        total: requests since the process began.
        bad: those of them that failed.
        at: time of the newest sample of the total's series.
    """

    row: ScrapeTarget
    total: float | None
    bad: float | None
    at: float | None = None


class Reading(msgspec.Struct, frozen=True, dict=True):
    """All rows of a signal at one step of the grid, of every workload that shares the question.

    Args:
        blind: why the answer cannot be used, where it cannot; then `samples` is empty.
    """

    step: int
    samples: tuple[Sample, ...] = ()
    blind: Blind | None = None

    @cached_property
    def _ordered(self) -> tuple[list[ScrapeTarget], list[Sample]]:
        samples = sorted(self.samples, key=lambda sample: sample.row)
        return [sample.row for sample in samples], samples

    def of(self, namespace: str, workloads: Collection[str] = ()) -> Sequence[Sample]:
        """Give the samples of a namespace in order of their rows, of some workloads' pods alone if they are named.

        The rows are put in order once, however many watches ask: with hundreds of rollouts under watch each may look
        at its own rows only. Pods are told by the beginning of their names, so that those of a workload whose name
        begins with this one's may be among them.
        """
        rows, samples = self._ordered
        prefixes = {f"{name}-"[:_LONGEST_PREFIX] for name in workloads} or {""}
        bounds = [
            (ScrapeTarget(namespace, prefix), ScrapeTarget(namespace, prefix + _AFTER_ALL)) for prefix in prefixes
        ]
        found = {index for first, last in bounds for index in range(bisect_left(rows, first), bisect_left(rows, last))}
        return [samples[index] for index in sorted(found)]


class Restart(msgspec.Struct, frozen=True):
    """A container of a pod began anew: its restart count since, when, and the first step that knows it."""

    count: int
    at: float
    step: int


class PodTimeline(msgspec.Struct, frozen=True):
    """What the API server showed of one pod, as far as counters need it and Prometheus does not know it.

    Each fact carries the first step that may use it, so that a replay uses exactly what the live run used.

    Args:
        track: its side, by the ReplicaSet that owns it.
        hash: that ReplicaSet's pod-template-hash.
        created: when it was created.
        step: the first step that knows it.
        ready: when it was first Ready.
        ready_step: the first step that knows this.
        restarts: containers that began anew, oldest first.
        gone: when it was gone, or first seen terminating.
        gone_step: the first step that knows this.
    """

    name: str
    track: Track
    hash: TemplateHash
    created: float
    step: int
    ready: float | None = None
    ready_step: int | None = None
    restarts: tuple[Restart, ...] = ()
    gone: float | None = None
    gone_step: int | None = None


class Counts(msgspec.Struct, frozen=True, omit_defaults=True):
    """Requests, and those of them that failed, in one block or window."""

    total: float = 0.0
    bad: float = 0.0

    @property
    def ratio(self) -> float:
        """The share that failed; 0 without requests."""
        return self.bad / self.total if self.total > 0 else 0.0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.total + other.total, self.bad + other.bad)


class PodCounts(msgspec.Struct, frozen=True):
    """What one judged candidate pod counted in a block."""

    pod: str
    counts: Counts


class Block(msgspec.Struct, frozen=True, omit_defaults=True):
    """The deltas of one step of the grid.

    Args:
        step: the step that ends it.
        candidate: of judged candidate pods.
        stable: of stable pods.
        grace: of candidate pods in their grace: counted and shown, not judged.
        blind: why this block says nothing, where it does not; then its counts are 0.
        pods: `candidate` by pod, in order of their names; pods that counted nothing are left out.
        ready: a candidate pod was Ready at some time in the block.
        old_live: a stable pod was.
    """

    step: int
    candidate: Counts = Counts()
    stable: Counts = Counts()
    grace: Counts = Counts()
    blind: Blind | None = None
    pods: tuple[PodCounts, ...] = ()
    ready: bool = False
    old_live: bool = False


class Trace(Sequence[Block]):
    """The blocks of one signal as they came, one for each step; the newest of them, in a form that weighs little.

    A day of blocks is 5,760 at steps of 15 s, and as objects each weighs as much as a page. What single pods counted
    is kept of the newest only, where people look at it.

    Args:
        most: so many blocks are kept at least; the oldest go.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._last = 0
        self._numbers = array("d")
        self._flags = bytearray()
        self._blind: dict[int, Blind] = {}
        self._pods: dict[int, tuple[PodCounts, ...]] = {}

    def append(self, block: Block) -> None:
        """Take the next block."""
        step = self._last = block.step
        for counts in (block.candidate, block.stable, block.grace):
            self._numbers.extend((counts.total, counts.bad))
        self._flags.append(block.ready | block.old_live << 1)
        if block.blind:
            before = self._blind.get(step - 1)
            self._blind[step] = before if before == block.blind else block.blind
        if block.pods:
            self._pods[step] = block.pods
        self._pods.pop(step - _WITH_PODS, None)
        if len(self) >= self._most + _AT_ONCE:
            del self._numbers[: _NUMBERS * _AT_ONCE], self._flags[:_AT_ONCE]
            first = step - len(self) + 1
            self._blind = {each: blind for each, blind in self._blind.items() if each >= first}

    def __len__(self) -> int:
        return len(self._flags)

    @overload
    def __getitem__(self, index: int) -> Block: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Block]: ...

    def __getitem__(self, index: int | slice) -> Block | Sequence[Block]:
        at = range(len(self))[index]
        return self._block(at) if isinstance(at, int) else [self._block(each) for each in at]

    def __iter__(self) -> Iterator[Block]:
        return map(self._block, range(len(self)))

    def _block(self, at: int) -> Block:
        step = self._last - len(self) + 1 + at
        numbers, flags = self._numbers[_NUMBERS * at : _NUMBERS * (at + 1)], self._flags[at]
        return Block(
            step,
            candidate=Counts(*numbers[:2]),
            stable=Counts(*numbers[2:4]),
            grace=Counts(*numbers[4:]),
            blind=self._blind.get(step),
            pods=self._pods.get(step, ()),
            ready=bool(flags & 1),
            old_live=bool(flags & 2),
        )


def steps(seconds: float, *, step_s: float) -> int:
    """Give how many steps a time takes, rounded up; at least one."""
    return max(1, math.ceil(round(seconds / step_s, 9)))


class Status(StrEnum):
    """A verdict in one word."""

    HEALTHY = "healthy"
    BREACH = "breach"
    INSUFFICIENT = "insufficient"
    BLIND = "blind"


class Verdict(msgspec.Struct, frozen=True):
    """What is to be thought of a rollout now.

    Args:
        detail: one sentence with the numbers against their limits.
        cause: what found a breach: `sequential`, `threshold`, `starved`, `progress-deadline`, `crash-loop`,
            `image-pull`, `condemned-image`, `alert`; empty without a breach.
        blind: why it is blind.
        candidate: the window's counts, for messages.
        stable: the same of the other track.
        shared: the stable track fails the same limit.
        signal: the signal that speaks.
        objections: why a person is to decide about a breach.
        doubt: why it is not healthy though the bake is over; it stands in `detail`, too.
    """

    status: Status
    detail: str
    cause: str = ""
    blind: Blind | None = None
    candidate: Counts = Counts()
    stable: Counts = Counts()
    shared: bool = False
    signal: str = ""
    objections: tuple[Objection, ...] = ()
    doubt: str = ""
