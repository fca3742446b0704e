"""What the rule of a gate is held to: calibrated as in the service, by the day before, and by what its caller tells."""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from watchdog.decide.marks import condemned_by
from watchdog.decide.revisions import read_history
from watchdog.engine import baselines, rules
from watchdog.engine.baselines import BaselineQuery
from watchdog.engine.watch import group_of
from watchdog.gate.pinned import Look, Pinned
from watchdog.gate.request import GatePorts, GateRequest
from watchdog.judge.blocks import PodTimeline, Track
from watchdog.judge.sequential import Controls, SequentialSettings
from watchdog.model import Topology


async def freeze_settings(
    task: GateRequest, ports: GatePorts, scene: Pinned, seen: Look, pods: Sequence[PodTimeline], *, first: int
) -> dict[str, SequentialSettings]:
    """Read the past, 30 s at most, and freeze what follows from it; by signal.

    What the version itself did before is none of its past. Other workloads are not looked at.
    """
    names, old = _replicasets(scene, seen)
    asked = [
        BaselineQuery(
            query=group_of(signal),
            first=first,
            workloads=tuple(dict.fromkeys((task.workload, scene.stable))),
            label=signal.stable if signal.join else "",
            old=old,
            condemned=names - old,
            restarts={pod.name: tuple(each.at for each in pod.restarts) for pod in pods if pod.restarts},
        )
        for signal in task.policy.signals.values()
    ]
    pasts = await baselines.read(ports.signals, asked, step_s=task.step_s)
    topology = Topology.CANARY if scene.canary else Topology.ROLLING
    controls = rules.controls_of(topology, seen.deployment.spec.strategy.type)
    if not scene.stable_hash:
        controls = Controls.HISTORICAL
    found = {}
    for name, past in zip(task.policy.signals, pasts, strict=True):
        found[name] = rules.freeze_settings(task.policy, past, controls=controls, step_s=task.step_s)
        if task.baseline is not None:
            found[name] = replace(found[name], base=task.baseline, known=True)
    return found


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


def _replicasets(scene: Pinned, seen: Look) -> tuple[frozenset[str], frozenset[str]]:
    """The names of the version's ReplicaSet, of those that are condemned and of the old ones; and of the last."""
    _, named = scene.sides(seen)
    sets = [item for snapshot, _ in seen.found.values() for item in read_history(snapshot).all]
    condemned = {item.metadata.name for item in sets if condemned_by(item)}
    old = frozenset(name for name, (track, _) in named.items() if track is Track.STABLE)
    return frozenset(named) | condemned, old
