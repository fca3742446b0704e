"""How long it would take to see a failure, before anything fails: the judge itself, on the counts one would expect.

Method: a version that fails a given share of its requests from its first one on is played to `sequential.step` at a
steady rate, each block with exactly the mean of what it would count (fractions too), and the stable side with its usual
share. That is one run without chance, not a mean of many: half of all real ones are a little sooner, half a little
later. Where no stable pods stay beside it, the candidate has all of the traffic, as it has soon after a rolling update
began. Guards are not asked, except that a control without history is known only to ask.
"""

import math

import msgspec

from watchdog.judge import sequential
from watchdog.judge.blocks import Block, Counts
from watchdog.judge.sequential import SequentialSettings, SequentialState


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Requests per second of both sides, and the share of the stable one's that fails."""

    candidate_rps: float
    stable_rps: float = 0.0
    usual: float = 0.0


def seconds_to_see(
    bad: float, traffic: Traffic, settings: SequentialSettings, *, grace_s: float, most_s: float = 7200.0
) -> float | None:
    """Give the time from the candidate's being Ready to the breach, in seconds; None where there is none in time.

    Args:
        bad: share of the candidate's requests that fail.
        traffic: expected.
        settings: what the rollout would be held to.
        grace_s: for so long nothing is judged; whole blocks, so up to one more.
        most_s: for so long it is watched.
    """
    step_s = settings.step_s
    total, stable = traffic.candidate_rps * step_s, traffic.stable_rps * step_s
    judged = Counts(total, total * bad)
    beside = Counts(stable, stable * traffic.usual)
    state = SequentialState()
    for index in range(1, math.floor(most_s / step_s) + 1):
        graced = index * step_s <= math.ceil(round(grace_s / step_s, 9)) * step_s
        counts = Counts() if graced else judged
        block = Block(index, candidate=counts, stable=beside, ready=True, old_live=stable > 0)
        state = sequential.step(state, block, settings)
        if state.crossed:
            return index * step_s
    return None
