"""What `check --online` says of the rule `sequential`: how the past was, and how soon a failure would be seen."""

import math
import time
from collections.abc import Mapping, Set

import msgspec

from watchdog.config import Policy, RuleName, Signal
from watchdog.engine import baselines
from watchdog.engine.fleet import Match, WorkloadRole
from watchdog.engine.rules import freeze_settings
from watchdog.engine.topologies import TRAITS
from watchdog.engine.watch import baseline_query
from watchdog.judge.detection_time import Traffic, seconds_to_see
from watchdog.judge.sequential import Control
from watchdog.objects import Deployment, WorkloadRef
from watchdog.ports import Signals

EXAMPLE = 0.083
"""The share of failures that is spoken of."""

MOST_WORKLOADS = 20
"""Of a policy with more workloads so many are looked at, those with the most pods."""


class DetectionTime(msgspec.Struct, frozen=True, kw_only=True):
    """What the rule would make of the workload with the most requests.

    Args:
        workload: which; with a canary the candidate.
        rps: requests per second, of both sides.
        history: where the numbers come from, or why there are none.
        phi: size of error clusters.
        reference: share of failures of the time before; None where only stable pods are compared with.
        seconds: from Ready to the breach at 8.3 %; None where it would not be seen.
        only_asks: the breach would be asked about, since too little is known of the past.
    """

    workload: str
    rps: float
    history: str
    phi: float
    reference: float | None
    seconds: float | None
    only_asks: bool

    @property
    def known(self) -> str:
        """The past, for a person."""
        if self.history.startswith("no history"):
            return "no history"
        usual = "" if self.reference is None else f", reference {100 * self.reference:.2g} %"
        return f"phi {self.phi:.2g}{usual}"

    @property
    def time(self) -> str:
        """How soon, for a person."""
        what = f"{100 * EXAMPLE:.1f} %"
        if not self.rps:
            return f"without requests {what} is not seen"
        if self.seconds is None:
            return f"{what} would not be seen at {self.rps:.2g} requests per second"
        soon = f"{self.seconds:.0f} s" if self.seconds < 120 else f"{self.seconds / 60:.0f} min"
        return f"about {soon} to {'ask about' if self.only_asks else 'see'} {what}"


async def foresee(
    signals: Signals,
    policy: Policy,
    signal: Signal,
    matches: Mapping[WorkloadRef, Match],
    deployments: Mapping[WorkloadRef, Deployment],
    pods: Mapping[WorkloadRef, Set[object]],
    *,
    step_s: float,
    usual: float,
) -> DetectionTime | None:
    """Read the past of a policy's workloads as a rollout that began now would, and look ahead.

    Args:
        pods: of each workload.
        usual: share of failures of the last day, which stable pods are expected to have.
    """
    if policy.rule is not RuleName.SEQUENTIAL:
        return None
    refs = [ref for ref, match in matches.items() if match.side is not WorkloadRole.STABLE or match.other is None]
    refs = sorted(refs, key=lambda ref: (-len(pods[ref]), ref))[:MOST_WORKLOADS]
    first = math.floor(time.time() / step_s)
    asked = [
        baseline_query(signal, first=first, workloads=[each for each in (ref, matches[ref].other) if each])
        for ref in refs
    ]
    pasts = dict(zip(refs, await baselines.read(signals, asked, step_s=step_s), strict=True))
    ref = max(refs, key=lambda each: pasts[each].rps, default=None)
    if ref is None:
        return None
    canary = len(pods[ref]) or 1
    beside = matches[ref].other if matches[ref].side is WorkloadRole.CANDIDATE else None
    share = canary / (canary + len(pods.get(beside, ()))) if beside else 1.0
    strategy = deployments[ref].spec.strategy.type
    controls = TRAITS[matches[ref].topology].controls_with(strategy)
    settings = freeze_settings(policy, pasts[ref], controls=controls, step_s=step_s)
    rps = pasts[ref].rps
    traffic = Traffic(candidate_rps=rps * share, stable_rps=rps * (1 - share), usual=usual)
    historical = Control.HISTORICAL in settings.controls.each
    return DetectionTime(
        workload=str(ref),
        rps=rps,
        history=settings.past,
        phi=settings.phi_historical if historical else settings.phi_concurrent,
        reference=settings.base if historical else None,
        seconds=seconds_to_see(EXAMPLE, traffic, settings, grace_s=policy.grace_s, most_s=float(policy.max_watch)),
        only_asks=historical and not settings.known,
    )
