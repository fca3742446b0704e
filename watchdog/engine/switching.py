"""Decide, act, verify for blue-green: as `act`, but the write goes to a Service, and pods may have to come first.

A switch-back that must wait for pods ends `no-capacity`; it is asked again at the next step, while the breach lasts.
"""

import asyncio
import datetime as dt
import logging
from collections.abc import Callable

import msgspec

from watchdog.decide import pods as explaining
from watchdog.decide.patches import condemn
from watchdog.decide.record import Record
from watchdog.decide.switch import (
    Colours,
    marked_by,
    plan_switch_back,
    ready_pods,
    stands,
    written_switch,
)
from watchdog.engine import wording
from watchdog.engine.attempts import Attempt
from watchdog.engine.observation import observe
from watchdog.engine.verify import Patience
from watchdog.engine.writes import Aftermath, release, unbroken
from watchdog.errors import ClusterError, NotFound, Throttled, Unanswered
from watchdog.model import Cause, Guard, Objection, Outcome, Plan, Result, ScaleUp, SwitchBack
from watchdog.objects import Metadata, Service, WorkloadRef
from watchdog.ports import Cluster, Services

_log = logging.getLogger(__name__)

_AGAIN_S = 1.0


class Switcher:
    """Takes switches back.

    Args:
        services: where the Services are.
        cluster: where everything else is.
        now: the wall clock, with a time zone.
    """

    def __init__(
        self, services: Services, cluster: Cluster, *, patience: Patience, now: Callable[[], dt.datetime]
    ) -> None:
        self._services = services
        self._cluster = cluster
        self._patience = patience
        self._now = now
        self._after = Aftermath(cluster, request_s=patience.request_s)

    async def switch_back(self, record: Record, cause: Cause, *, nonce: str, gitops_act: bool) -> Result:
        """Give the traffic back to the colour of before, or begin to make room for it.

        A lost race is run again; whoever calls tries again after anything else.

        Raises:
            Unanswered: it is not known whether the write happened, or nothing could be read in the first place.
            ClusterError: nothing was written; its cure says how a person does it.
        """
        deadline = asyncio.get_running_loop().time() + self._patience.verify_s
        target = _OnService(self, record, cause, nonce=nonce, gitops_act=gitops_act, now=self._now)
        try:
            end, _ = await Attempt(target, patience=self._patience, deadline=deadline, attempts=1).run()
        except NotFound as error:
            return wording.refused(Objection(Guard.SUPERSEDED, target.deleted(error)))
        return wording.refused(end) if isinstance(end, Objection) else end

    async def foresee(self, record: Record, cause: Cause, *, gitops_act: bool) -> SwitchBack | ScaleUp | Objection:
        """What would be written now, or which guard would refuse it; nothing is written. Raises `ClusterError`."""
        seen = await self.read(record)
        return plan_switch_back(seen, record, cause, nonce="", gitops_act=gitops_act, now=self._now())

    async def written(self, record: Record) -> SwitchBack | None:
        """What this incident wrote, by this process or by one before, if it still stands. Raises `ClusterError`."""
        try:
            return written_switch(await self.read(record), record, now=self._now())
        except NotFound:
            return None

    async def finish(self, record: Record, plan: SwitchBack, cause: Cause, *, resumed: bool) -> Result:
        """Prove that the colour of before serves. Raises `ClusterError`.

        Args:
            resumed: another process wrote it, so that it is not known what followed the write; it is done again.
        """
        loop, result = asyncio.get_running_loop(), wording.planned(plan)
        begun = loop.time()
        seen = await self._read(record, deadline=begun + self._patience.verify_s)
        if resumed:
            work = self._follow_up(plan, seen.service, seen, cause)
            await unbroken(work, patience_s=2 * self._patience.request_s)
        while stands(seen.service, record, now=self._now()):
            ready = ready_pods(seen, plan.target.hash, plan.selector)
            detail = f"{result.detail}, {ready} of {seen.old.deployment.spec.replicas} pods ready"
            if seen.service.metadata.deletion_timestamp or seen.old.deployment.metadata.deletion_timestamp:
                return wording.replaced(result, how="deleted")
            if ready:
                return msgspec.structs.replace(result, detail=detail, elapsed_s=loop.time() - begun)
            if loop.time() - begun > self._patience.verify_s:
                why = explaining.explain(
                    pod for pod in seen.pods if plan.selector.items() <= pod.metadata.labels.items()
                )
                return msgspec.structs.replace(result, outcome=Outcome.FAILED, detail=detail, pods=why)
            await asyncio.sleep(_AGAIN_S)
            seen = await self._read(record, deadline=begun + self._patience.verify_s)
        return wording.replaced(result)

    # -- reading and writing -------------------------------------------------------------------------------------------

    async def _read(self, record: Record, *, deadline: float) -> Colours:
        """Read everything; until `deadline` again and again, since after a write in doubt we must know."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await self.read(record)
            except (Unanswered, Throttled):
                if loop.time() > deadline:
                    raise
                await asyncio.sleep(_AGAIN_S)

    async def read(self, record: Record) -> Colours:
        """Read everything. Raises `ClusterError`."""
        namespace, timeout_s = record.workload.namespace, self._patience.request_s
        name = record.switched.service if record.switched else ""
        service = await self._services.service(WorkloadRef(namespace, name), timeout_s=timeout_s)
        live = await observe(self._cluster, record.workload, timeout_s=timeout_s)
        old = await observe(self._cluster, record.stable or record.workload, timeout_s=timeout_s)
        pods = {pod.metadata.uid: pod for pod in (*live.pods, *old.pods)}  # two selectors may find the same pod
        return Colours(service=service, live=live.snapshot, old=old.snapshot, pods=tuple(pods.values()))

    async def write(self, plan: SwitchBack | ScaleUp, seen: Colours, cause: Cause) -> Result:
        """Write a plan, and do what follows. Raises `ClusterError`."""
        if isinstance(plan, ScaleUp):
            return await self._scale_up(plan, seen, cause)
        service = await self._services.patch_service(seen.service.ref, plan.patch, timeout_s=self._patience.request_s)
        await self._follow_up(plan, service, seen, cause)
        return wording.planned(plan)

    async def found(self, seen: Colours, record: Record, cause: Cause) -> Result:
        """Do what follows a write without an answer that has happened; perhaps somebody has switched again since."""
        plan = written_switch(seen, record, now=self._now())
        if plan is None:
            return wording.refused(Objection(Guard.SUPERSEDED, "switched back, then switched again by someone else"))
        await self._follow_up(plan, seen.service, seen, cause)
        return wording.planned(plan)

    async def _scale_up(self, plan: ScaleUp, seen: Colours, cause: Cause) -> Result:
        timeout_s = self._patience.request_s
        patched = await self._cluster.patch_deployment(plan.colour, plan.patch, dry_run=False, timeout_s=timeout_s)
        result = wording.planned(plan)
        _log.info("%s", result.detail, extra={"event": "write-accepted", "workload": str(plan.rollout.workload)})
        await self._after.release(plan.colour, patched.metadata)
        await self._after.post(wording.started_event(plan, seen.live.deployment, cause))
        return result

    # -- after the write: nothing below may fail what has been done ----------------------------------------------------

    async def _follow_up(self, plan: SwitchBack, service: Service, seen: Colours, cause: Cause) -> None:
        detail, ref = wording.planned(plan).detail, plan.rollout.workload
        _log.info("write accepted: %s", detail, extra={"event": "write-accepted", "workload": str(ref)})
        async with asyncio.TaskGroup() as group:
            group.create_task(self._release_service(service))
            group.create_task(self._after.post(wording.started_event(plan, seen.live.deployment, cause)))
            group.create_task(self._after.mark(plan, condemn(plan.rollout), "condemned"))

    async def _release_service(self, service: Service) -> None:
        ref, timeout_s = service.ref, self._patience.request_s

        async def again() -> Metadata:
            return (await self._services.service(ref, timeout_s=timeout_s)).metadata

        await release(
            f"service {ref}",
            service.metadata,
            patch=lambda operations: self._services.patch_service(ref, operations, timeout_s=timeout_s),
            again=again,
        )


class _OnService:
    """A switch-back's write on a Service, or on the Deployment that needs its pods first."""

    def __init__(
        self,
        switcher: Switcher,
        record: Record,
        cause: Cause,
        *,
        nonce: str,
        gitops_act: bool,
        now: Callable[[], dt.datetime],
    ) -> None:
        self.name = str(record.workload)
        self._switcher = switcher
        self._record = record
        self._cause = cause
        self._nonce = nonce
        self._gitops_act = gitops_act
        self._now = now

    async def read(self) -> Colours:
        return await self._switcher.read(self._record)

    async def decide(self, seen: Colours) -> Plan | Objection:
        return plan_switch_back(
            seen, self._record, self._cause, nonce=self._nonce, gitops_act=self._gitops_act, now=self._now()
        )

    async def write(self, plan: Plan, seen: Colours) -> Result:
        assert isinstance(plan, SwitchBack | ScaleUp)  # noqa: S101  (nothing else is decided here)
        return await self._switcher.write(plan, seen, self._cause)

    async def found(self, plan: Plan, seen: Colours, tried: Colours) -> Result:
        return await self._switcher.found(seen, self._record, self._cause)

    def marked(self, plan: Plan, seen: Colours) -> bool:
        return marked_by(seen.service, self._record, now=self._now()) is not None

    def tested(self, seen: Colours, failure: ClusterError) -> object:
        service, sides = seen.service, (seen.live.deployment, seen.old.deployment)
        return (
            (service.metadata.uid, service.spec.selector, service.metadata.annotations),
            *((side.metadata.uid, side.metadata.generation, side.metadata.annotations) for side in sides),
        )

    def deleted(self, error: NotFound) -> str:
        return f"{error.operation}: deleted by someone else"
