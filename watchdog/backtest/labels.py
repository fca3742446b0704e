"""Whether a past rollout was bad, with hindsight and by none of the rules that are compared."""

from enum import StrEnum

import msgspec

from watchdog.judge.blocks import Counts
from watchdog.judge.calibration import Reference, wilson_lower

LEAST_REQUESTS = 20
LEAST_BAD = 5
FLOOR = 0.01
TIMES = 2.0
_SURE = 3.0


class Label(StrEnum):
    """What a rollout was."""

    BAD = "bad"
    GOOD = "good"
    UNKNOWN = "unknown"


class LabelledRollout(msgspec.Struct, frozen=True):
    """What a rollout was, and why this is said."""

    label: Label
    why: str


def labelled(*, undone_after_s: float | None, lived: Counts, beside: Counts, past: Reference) -> LabelledRollout:
    """Say what a rollout was.

    Bad is what was undone during its watch; and what failed clearly more, over all of its watched life, than the
    version before did in the worst five minutes of the day before and the stable pods in the same minutes.

    Args:
        undone_after_s: after how many seconds it was.
        lived: all requests of the candidate.
        beside: those of the stable pods in blocks in which both had requests.
        past: the reference of the time before.
    """
    of = f"{percent(lived.ratio)} of {lived.total:.0f} failed"
    if lived.total < LEAST_REQUESTS:
        few = f"{lived.total:.0f} requests seen"
        return LabelledRollout(Label.UNKNOWN, few if undone_after_s is None else f"undone, {few}")
    if undone_after_s is not None:
        return LabelledRollout(Label.BAD, f"undone after {undone_after_s / 60:.0f} min, {of}")
    usual = max(past.base, beside.ratio if beside.total >= LEAST_REQUESTS else 0.0)
    phi = past.phi_historical
    lowest = wilson_lower(lived.total / phi, lived.bad / phi, z=_SURE)
    if lived.bad >= LEAST_BAD and lowest > max(FLOOR, TIMES * usual):
        return LabelledRollout(Label.BAD, f"{of}, at most {percent(usual)} is usual")
    return LabelledRollout(Label.GOOD, of)


def percent(ratio: float) -> str:
    """Write a share with two digits."""
    return f"{100 * ratio:{'.0f' if ratio >= 0.1 else '.2g'}} %"
