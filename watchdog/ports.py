"""What the engine needs from outside. The adapters implement it; tests may too, at this seam only."""

from collections.abc import AsyncGenerator
from typing import Protocol

from watchdog.model import Event
from watchdog.objects import (
    Autoscaler,
    Deployment,
    LabelSelector,
    Pod,
    ReplicaSet,
    WorkloadRef,
)


class Cluster(Protocol):
    """A Kubernetes cluster, as far as acting on a workload needs it.

    Every method raises a `watchdog.errors.ClusterError`, `Unanswered` after at most `timeout_s` seconds.
    """

    async def deployment(self, ref: WorkloadRef, *, timeout_s: float) -> Deployment:
        """Read one Deployment, not from a cache."""

    async def replicasets(self, namespace: str, selector: LabelSelector, *, timeout_s: float) -> tuple[ReplicaSet, ...]:
        """List the ReplicaSets that a selector finds, whoever owns them."""

    async def pods(self, namespace: str, selector: LabelSelector, *, timeout_s: float) -> tuple[Pod, ...]:
        """List the pods that a selector finds."""

    async def autoscalers(self, namespace: str, *, timeout_s: float) -> tuple[Autoscaler, ...]:
        """List the HorizontalPodAutoscalers of a namespace."""

    async def patch_deployment(self, ref: WorkloadRef, patch: bytes, *, dry_run: bool, timeout_s: float) -> Deployment:
        """Apply one JSON patch and give the Deployment as it is then.

        Raises:
            Unanswered: it is not known whether the patch was applied.
            PreconditionFailed, Conflict: it was not, because something had changed.
        """

    async def patch_replicaset(self, namespace: str, name: str, patch: bytes, *, timeout_s: float) -> None:
        """Apply one JSON patch to a ReplicaSet."""

    async def post_event(self, event: Event, *, timeout_s: float) -> None:
        """Put an Event on a Deployment; one that is there already is no error."""

    def follow(self, ref: WorkloadRef) -> AsyncGenerator[Deployment | None, None]:
        """Give the Deployment as it is, then after every change; None where it does not exist.

        Goes on through every fault of the connection: the caller sets the deadline and closes the generator.
        """
