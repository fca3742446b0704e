"""What is asked of Prometheus in a step: one question per selector set and first step, for all rollouts together."""

from collections.abc import Sequence

import msgspec

from watchdog.engine.polled import Polled
from watchdog.engine.watch import FEW_PODS, Key, group_of
from watchdog.engine.watch_start import namespaces
from watchdog.objects import Pod, WorkloadRef
from watchdog.ports import SignalQuery

Slice = tuple[SignalQuery, int]
"""What is asked for a signal, and the first step that is wanted."""


def ask_for(seen: Sequence[Polled], step: int) -> tuple[dict[Slice, SignalQuery], dict[Key, dict[str, Slice]]]:
    """What has to be asked, and which of it each signal of each rollout needs."""
    places: dict[Slice, set[str]] = {}
    others: dict[Slice, set[WorkloadRef]] = {}
    targets: dict[Slice, dict[str, Pod]] = {}
    asked: dict[Key, dict[str, Slice]] = {item.key: {} for item in seen}
    few = _few_pods(seen)
    for item in seen:
        for name, signal in item.watch.policy.signals.items():
            key = (group_of(signal), item.watch.next_step)
            places.setdefault(key, set()).update(namespaces(item.record))
            others.setdefault(key, set()).update(() if key[0].join else _read_whole(item, step))
            pods_of = {pod.metadata.uid: pod for pod in (*item.candidates, *item.stables)}
            targets.setdefault(key, {}).update(pods_of)
            asked[item.key][name] = key
    queries = {
        key: msgspec.structs.replace(
            key[0],
            namespaces=tuple(sorted(names | {ref.namespace for ref in others[key]})),
            pods=() if key[0].join else few,
            workloads=tuple(sorted({ref.name for ref in others[key]})) if few else (),
            targets=tuple(targets[key].values()),
        )
        for key, names in places.items()
    }
    return queries, asked


def _read_whole(item: Polled, step: int) -> set[WorkloadRef]:
    """Workloads that are read as a whole: bystanders, and of the past its own, since not every pod of it is known."""
    record, refs = item.record, set(item.watch.bystanders)
    if item.watch.next_step < step:
        refs |= {record.workload, record.stable or record.workload}
    return refs


def _few_pods(seen: Sequence[Polled]) -> tuple[str, ...]:
    names = {pod.metadata.name for item in seen for pod in (*item.candidates, *item.stables)}
    names |= {pod.name for item in seen for pod in item.record.pods}
    return tuple(sorted(names)) if len(names) < FEW_PODS else ()
