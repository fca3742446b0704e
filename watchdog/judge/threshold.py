"""The rule `threshold`: too large a share of requests fails over a window, several steps in a row.

Where the window has stable requests, the share must also be a multiple of theirs. A window that spans a blindness is
judged on what it has: the first block after a blindness carries the counts of the gap.
"""

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from watchdog.judge.blocks import MOST_BLIND, Block, Counts, Status, Verdict, steps


class ThresholdSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The rule's settings as the configuration explains them, and the step of the grid."""

    step_s: float
    max_ratio: float
    max_times_stable: float
    window_s: float
    consecutive: int
    min_requests: int
    min_bad: int

    @property
    def looked_at(self) -> int:
        """How many of the newest blocks say whether it is a breach."""
        return self.steps(self.window_s) + self.consecutive

    def steps(self, seconds: float) -> int:
        """How many steps a time takes, rounded up."""
        return steps(seconds, step_s=self.step_s)


def judge(
    blocks: Sequence[Block],
    settings: ThresholdSettings,
    *,
    signal: str,
    urgent: bool = False,
    baked_s: float | None = None,
    earlier: bool | None = None,
) -> Verdict:
    """Judge one signal as it stands after the newest block.

    Args:
        blocks: since the rollout began, one per step, oldest first.
        settings: of the rule.
        urgent: an attributable alert is firing, so that one step suffices.
        baked_s: how long the bake was, once it is over; only then can the verdict be healthy.
        earlier: it was in breach at a step before; None where that is to be seen from the blocks.
    """
    end = len(blocks)
    candidate, stable = _window(blocks, end, settings)
    found = Verdict(
        Status.INSUFFICIENT,
        _numbers(candidate, stable, settings),
        candidate=candidate,
        stable=stable,
        shared=_fails(stable, settings),
        signal=signal,
    )
    if _breach(blocks, end, settings, consecutive=1 if urgent else settings.consecutive):
        return replace(found, status=Status.BREACH, cause="threshold")
    doubt = "" if baked_s is None else _doubt(blocks, settings, bake=settings.steps(baked_s), earlier=earlier)
    if baked_s is not None and not doubt:
        return replace(found, status=Status.HEALTHY)
    if blocks and (blind := blocks[-1].blind):
        return replace(found, status=Status.BLIND, detail=blind.detail, blind=blind)
    return replace(found, detail=f"{found.detail}; {doubt}") if doubt else found


def breach(blocks: Sequence[Block], settings: ThresholdSettings) -> bool:
    """Say whether the newest windows are a breach."""
    return _breach(blocks, len(blocks), settings, consecutive=settings.consecutive)


def failed_before(blocks: Sequence[Block], settings: ThresholdSettings) -> str:
    """Say how the stable pods failed the limit in a window of the time before; empty where they did not."""
    for end in range(len(blocks), 0, -1):
        stable = _window(blocks, end, settings)[1]
        if _fails(stable, settings):
            return f"{share(stable)} failed before the rollout began, limit {_percent(settings.max_ratio)}"
    return ""


def _window(blocks: Sequence[Block], end: int, settings: ThresholdSettings) -> tuple[Counts, Counts]:
    window = blocks[max(0, end - settings.steps(settings.window_s)) : end]
    return sum((block.candidate for block in window), Counts()), sum((block.stable for block in window), Counts())


def _fails(counts: Counts, settings: ThresholdSettings) -> bool:
    enough = counts.total >= settings.min_requests and counts.bad >= settings.min_bad
    return enough and counts.ratio > settings.max_ratio


def _breach(blocks: Sequence[Block], end: int, settings: ThresholdSettings, *, consecutive: int) -> bool:
    """Whether the windows that end in each of the last steps fail, and none of these steps is blind."""
    if any(block.blind for block in blocks[max(0, end - consecutive) : end]):
        return False
    windows = (_window(blocks, last, settings) for last in range(end, end - consecutive, -1))
    return all(
        _fails(candidate, settings) and candidate.ratio > settings.max_times_stable * stable.ratio
        for candidate, stable in windows
    )


def _doubt(blocks: Sequence[Block], settings: ThresholdSettings, *, bake: int, earlier: bool | None) -> str:
    """Say why a rollout whose bake is over is not healthy; empty where it is."""
    seen = [block for block in blocks[-bake:] if not block.blind]
    requests = sum(block.candidate.total for block in seen)
    if bake - len(seen) >= MOST_BLIND * bake:
        return f"blind in {bake - len(seen)} of the bake's {bake} steps"
    if requests < settings.min_requests:
        return f"{requests:.0f} requests in the bake, {settings.min_requests} are needed"
    if earlier is None:
        earlier = any(_breach(blocks, end, settings, consecutive=settings.consecutive) for end in range(len(blocks)))
    if earlier:
        return "it was in breach earlier"
    if _breach(blocks, len(blocks), settings, consecutive=1):
        return "this may be the beginning of a breach"
    if _fails(_window(blocks, len(blocks), settings)[0], settings):
        return "it fails the limit, and so do the stable pods"
    return ""


def _numbers(candidate: Counts, stable: Counts, settings: ThresholdSettings) -> str:
    """``8.3 % of 735, limit 5.0 %; stable 0.4 % of 6610``."""
    lacks = ""
    if candidate.total < settings.min_requests:
        lacks = f" from {settings.min_requests} requests on"
    elif candidate.ratio > settings.max_ratio and candidate.bad < settings.min_bad:
        lacks = f" from {settings.min_bad} failures on"
    beside = f"stable {share(stable)}" if stable.total else "no stable requests"
    return f"{share(candidate)}, limit {_percent(settings.max_ratio)}{lacks}; {beside}"


def share(counts: Counts) -> str:
    """Write a share of failures for people: ``8.3 % of 735``."""
    return f"{_percent(counts.ratio)} of {counts.total:.0f}"


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.1f} %"
