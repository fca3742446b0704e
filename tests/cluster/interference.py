"""Somebody else at work between our read and our write, as an adapter around the real one."""

from collections.abc import Awaitable, Callable

import msgspec

from watchdog.kube import KubeCluster
from watchdog.objects import Deployment, WorkloadRef


class Interfered(KubeCluster):
    """The real cluster, but before each write of a plan somebody else acts first.

    Args:
        real: the adapter that is shared with the test.
        interfere: what the other one does.
        guarded: leave the patch's `test` operations in; without them it is the patch that kubectl would send.
    """

    def __init__(self, real: KubeCluster, interfere: Callable[[], Awaitable[object]], *, guarded: bool = True) -> None:
        super().__init__(real._transport, watching=real._watching)
        self._interfere = interfere
        self._guarded = guarded

    async def patch_deployment(self, ref: WorkloadRef, patch: bytes, *, dry_run: bool, timeout_s: float) -> Deployment:
        """Let the other one act, then write."""
        if b"managedFields" not in patch:
            await self._interfere()
        if not self._guarded:
            operations = msgspec.json.decode(patch)
            patch = msgspec.json.encode([operation for operation in operations if operation["op"] != "test"])
        return await super().patch_deployment(ref, patch, dry_run=dry_run, timeout_s=timeout_s)
