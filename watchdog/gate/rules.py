"""What the rule of a gate is held to: calibrated as in the service, by the day before, and by what its caller tells."""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from watchdog.decide.revisions import read_history
from watchdog.engine import baselines, rules
from watchdog.engine.topologies import TRAITS
from watchdog.engine.watch import baseline_query
from watchdog.gate.pinned import Look, Pinned
from watchdog.gate.request import GateRequest
from watchdog.judge.blocks import PodTimeline, Track
from watchdog.judge.sequential import Controls, SequentialSettings
from watchdog.model import Topology
from watchdog.objects import WorkloadRef
from watchdog.ports import Signals


async def calibrate(
    task: GateRequest,
    signals: Signals,
    scene: Pinned,
    seen: Look,
    pods: Sequence[PodTimeline],
    *,
    first: int,
    others: tuple[WorkloadRef, ...],
) -> tuple[dict[str, SequentialSettings], dict[str, float]]:
    """Read the past, 30 s at most; by signal what is frozen, and the requests of the quietest two minutes.

    What the version itself did before is none of its past.
    """
    topology = Topology.CANARY if scene.canary else Topology.ROLLING
    controls = TRAITS[topology].controls_with(seen.deployment.spec.strategy.type)
    if not scene.stable_hash:
        controls = Controls.HISTORICAL
    named = scene.tracks(seen).named
    sets = [item for each in seen.found.values() for item in read_history(each.snapshot).all]
    mine = {name for name, (track, _) in named.items() if track is Track.CANDIDATE}
    asked = [
        baseline_query(
            signal,
            first=first,
            workloads=(task.workload, scene.stable),
            others=() if controls is Controls.CONCURRENT else others,
            named=named,
            replicasets=sets,
            pods=pods,
        )
        for signal in task.policy.signals.values()
    ]
    pasts = await baselines.read(
        signals, [replace(each, condemned=each.condemned | mine) for each in asked], step_s=task.step_s
    )
    found, lowest = {}, {}
    for name, past in zip(task.policy.signals, pasts, strict=True):
        found[name] = rules.freeze_settings(task.policy, past, controls=controls, step_s=task.step_s)
        if task.baseline is not None:
            found[name] = replace(found[name], base=task.baseline, known=True)
        if past.lowest is not None and TRAITS[topology].whole:
            lowest[name] = past.lowest
    return found, lowest


def past(found: Mapping[str, SequentialSettings], *, told: bool) -> list[str]:
    """Say what the version is compared with, one line for each signal.

    Args:
        found: what the rule is held to.
        told: the caller has said what share of failures is usual.
    """
    lines = []
    for name, rule in found.items():
        alone = rule.controls is Controls.CONCURRENT
        if alone:
            text = f"calibrated by {rule.past}" if rule.m_cap is None else f"not calibrated, {rule.past}"
        elif told:
            text = f"usual share of failures {rule.base:.2%}, as --baseline says"
        elif rule.known:
            text = f"usual share of failures {rule.base:.2%}, by {rule.past}"
        else:
            text = f"the usual share of failures is not known, {rule.past}"
        size = f"clusters of {rule.phi_concurrent if alone else rule.phi_historical:.1f}"
        slow = f"the evidence grows slowly, as if failures came in {size}"
        text += f"; failures come in {size}" if rule.m_cap is None else f"; {slow}"
        lines.append(f"{name}: {text}" if len(found) > 1 else text)
    return lines
