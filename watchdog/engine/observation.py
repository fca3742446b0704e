"""A workload as the API server shows it at one moment, read by itself; `observer` reads many together."""

import msgspec

from watchdog.objects import Pod, Snapshot, WorkloadRef
from watchdog.ports import Cluster


class Observation(msgspec.Struct, frozen=True):
    """A Deployment, its ReplicaSets, and the pods that its selector finds."""

    snapshot: Snapshot
    pods: tuple[Pod, ...]


async def read_snapshot(cluster: Cluster, ref: WorkloadRef, *, timeout_s: float) -> Snapshot:
    """Read a Deployment and the ReplicaSets that its selector finds. Raises `ClusterError`."""
    deployment = await cluster.deployment(ref, timeout_s=timeout_s)
    found = await cluster.replicasets(ref.namespace, deployment.spec.selector, timeout_s=timeout_s)
    return Snapshot(deployment, found)


async def observe(cluster: Cluster, ref: WorkloadRef, *, timeout_s: float) -> Observation:
    """The same, with the pods. Raises `ClusterError`."""
    snapshot = await read_snapshot(cluster, ref, timeout_s=timeout_s)
    selector = snapshot.deployment.spec.selector
    return Observation(snapshot, await cluster.pods(ref.namespace, selector, timeout_s=timeout_s))
