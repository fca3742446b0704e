"""What every write has in common: it is not cut in two, and the fields that it made ours are given up."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from watchdog.decide.patches import release_ownership
from watchdog.errors import ClusterError, Conflict, PreconditionFailed, Throttled, Unanswered
from watchdog.model import Event, Plan, Restore
from watchdog.objects import Metadata, WorkloadRef
from watchdog.ports import Cluster

_log = logging.getLogger(__name__)

_ATTEMPTS = 3

T = TypeVar("T")


def given_up(failures: Sequence[ClusterError], *, attempts: int, changed: bool) -> bool:
    """Whether the last failure of a write is the answer to it, now that the object was read again.

    Args:
        failures: of this action so far.
        attempts: how often a write is made that gets no answer, or is put off.
        changed: whether the object is another than the one that was written to: then a race was lost, and is run again.
    """
    if len(failures) >= _ATTEMPTS:
        return True
    if isinstance(failures[-1], Unanswered | Throttled):
        return sum(isinstance(each, Unanswered | Throttled) for each in failures) >= attempts
    return not changed


async def unbroken(work: Coroutine[Any, Any, T], *, patience_s: float) -> T:
    """Let a write and what follows it come to an end, even if we are cancelled meanwhile."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=patience_s)
        if not task.done():
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise


class Aftermath:
    """What follows a write on a Deployment or a Service; nothing of it may fail what has been done.

    Args:
        request_s: deadline of each request.
    """

    def __init__(self, cluster: Cluster, *, request_s: float) -> None:
        self._cluster = cluster
        self._request_s = request_s

    async def post(self, event: Event | None) -> bool:
        """Put an Event on a workload, where there is one; whether it is there."""
        try:
            if event:
                await self._cluster.post_event(event, timeout_s=self._request_s)
        except ClusterError as error:
            fields = {"event": "event-not-written", "workload": str(event.regarding) if event else ""}
            _log.warning("Event not written: %s", error, extra=fields)
            return False
        return True

    async def mark(self, plan: Plan, patch: bytes, done: str) -> None:
        """Patch the ReplicaSet that is left: it is `condemned`, or its mark is `cleared`."""
        ref, name = plan.rollout.workload, plan.live.replicaset
        try:
            await self._cluster.patch_replicaset(ref.namespace, name, patch, timeout_s=self._request_s)
        except ClusterError as error:
            if isinstance(plan, Restore) and isinstance(error, PreconditionFailed):
                return  # the controller never copied the mark there
            fields = {"event": f"not-{done}", "workload": str(ref), "incident": plan.rollout.incident}
            _log.warning("ReplicaSet %s not %s: %s", name, done, error, extra=fields)

    async def release(self, ref: WorkloadRef, metadata: Metadata) -> None:
        """Give up the fields of a Deployment that a write made ours."""

        async def again() -> Metadata:
            return (await self._cluster.deployment(ref, timeout_s=self._request_s)).metadata

        async def patch(operations: bytes) -> object:
            return await self._cluster.patch_deployment(ref, operations, dry_run=False, timeout_s=self._request_s)

        await release(str(ref), metadata, patch=patch, again=again)


async def release(
    what: str,
    metadata: Metadata,
    *,
    patch: Callable[[bytes], Awaitable[object]],
    again: Callable[[], Awaitable[Metadata]],
) -> None:
    """Give up the fields that a write made ours, so that the next server-side apply meets no conflict; never raises.

    Args:
        what: the object, for the log.
        metadata: as the write left it.
        again: reads its metadata anew, where the entries have moved because a controller wrote a status.
    """
    try:
        for _ in range(_ATTEMPTS):
            operations = release_ownership(metadata)
            if operations is None:
                return
            try:
                await patch(operations)
            except (Conflict, PreconditionFailed):
                metadata = await again()
            else:
                return
        reason = "the object changed too often"
    except ClusterError as error:
        reason = str(error)
    _log.warning("field ownership kept: %s", reason, extra={"event": "ownership-kept", "workload": what})
