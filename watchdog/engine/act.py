"""Decide, act, verify: one action on one Deployment, from reading it to proving that it worked; see `attempts`."""

import asyncio
import datetime as dt
import logging
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from watchdog.decide.patches import condemn, forget_replicas
from watchdog.decide.plan import (
    Request,
    landed,
    marked,
    plan_pause,
    plan_restore,
    plan_scale_down,
    plan_undo,
    written_plan,
)
from watchdog.decide.revisions import live_rollout, read_history
from watchdog.engine import wording
from watchdog.engine.attempts import OBSERVE_EVERY_S, Attempt
from watchdog.engine.observation import read_snapshot
from watchdog.engine.verify import Patience, Stuck, Verifier
from watchdog.engine.writes import Aftermath, unbroken
from watchdog.errors import (
    ClusterError,
    Conflict,
    NotFound,
)
from watchdog.model import Action, Guard, Objection, Plan, Restore, Result, Rollout, ScaleDown, Undo
from watchdog.objects import Deployment, Snapshot, WorkloadRef
from watchdog.ports import Cluster

_log = logging.getLogger(__name__)

_ATTEMPTS = 3

Choose = Callable[[Snapshot], int | Objection]
Decide = Callable[[Snapshot, Request], Awaitable[Plan | Objection]]


class _Written(msgspec.Struct, frozen=True):
    """A write that happened; `replaced` if somebody changed the workload again before it could be read."""

    plan: Plan
    deployment: Deployment
    at: float
    replaced: bool = False


class _Answer(msgspec.Struct, frozen=True):
    """What became of deciding and writing: of which rollout, where one was found, and how the workload looked."""

    end: _Written | Objection
    deployment: Deployment
    rollout: Rollout | None


class Actor:
    """Carries out actions.

    Args:
        now: the wall clock, with a time zone.
        progress: told how far a rollout is, whenever that changes.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        patience: Patience,
        now: Callable[[], dt.datetime],
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._cluster = cluster
        self._patience = patience
        self._now = now
        self._after = Aftermath(cluster, request_s=patience.request_s)
        self._verifier = Verifier(cluster, patience=patience, now=now, progress=progress)

    async def undo(
        self,
        ref: WorkloadRef,
        request: Request,
        *,
        dry_run: bool = False,
        verify: bool = True,
        condemned: bool = False,
        choose: Choose | None = None,
        attempts: int = _ATTEMPTS,
    ) -> Result:
        """Go back to an earlier revision.

        Args:
            dry_run: let the API server check the write and do nothing.
            verify: wait until the rollout is complete.
            condemned: an incident found the live version bad, so mark its ReplicaSet.
            choose: gives the revision number to go to, instead of `request`.
            attempts: how often a write is made that gets no answer, or is put off; whoever tries again takes 1.

        Raises:
            Unanswered: it is not known whether the write happened, or nothing could be read in the first place.
            ClusterError: nothing was written; its cure says how a person does it.
        """
        decide = self._undoing(choose)
        return await self._act(
            ref, request, decide, dry_run=dry_run, verify=verify, condemned=condemned, attempts=attempts
        )

    async def scale_down(
        self,
        ref: WorkloadRef,
        request: Request,
        *,
        dry_run: bool = False,
        verify: bool = True,
        attempts: int = _ATTEMPTS,
    ) -> Result:
        """Take every pod of a canary away that an incident found bad. Raises as `undo` does."""
        decide = self._scaling_down(ref)
        return await self._act(ref, request, decide, dry_run=dry_run, verify=verify, condemned=True, attempts=attempts)

    async def foresee(
        self, action: Action, ref: WorkloadRef, request: Request, *, choose: Choose | None = None
    ) -> Plan | Objection:
        """What an action would write now, or which guard would refuse it; nothing is written. Raises `ClusterError`."""
        decide = self._undoing(choose)
        if action is not Action.UNDO:
            decide = self._scaling_down(ref) if action is Action.SCALE_DOWN else self._pausing()
        return await decide(await self.look(ref), request)

    async def look(self, ref: WorkloadRef) -> Snapshot:
        """Read a workload as an action would. Raises `ClusterError`."""
        return await read_snapshot(self._cluster, ref, timeout_s=self._patience.request_s)

    async def written(self, rollout: Rollout, *, proofs: Iterable[str]) -> Undo | ScaleDown | None:
        """What an action of this rollout's incident wrote, by this process or by one before, if it still stands.

        What has just been written is judged once the controller has seen it: its revision tells it from a later change.

        Args:
            rollout: what the incident is about.
            proofs: digests of the nonces that the service's writes may carry.

        Raises:
            ClusterError: the workload could not be read.
        """
        loop = asyncio.get_running_loop()
        observed_by = loop.time() + self._patience.observed_s
        while True:
            try:
                snapshot = await self.look(rollout.workload)
            except NotFound:
                return None
            plan, deployment = written_plan(snapshot, rollout, proofs=proofs, now=self._now()), snapshot.deployment
            seen = deployment.metadata.generation <= deployment.status.observed_generation
            if plan or seen or loop.time() > observed_by:
                return plan
            await asyncio.sleep(OBSERVE_EVERY_S)

    async def finish(
        self, plan: Undo | ScaleDown, request: Request, *, resumed: bool, stuck: Stuck | None = None
    ) -> Result:
        """Verify an action that was written, for as long as its rollout progresses. Raises as `undo` does.

        Args:
            resumed: another process wrote it, so that it is not known what followed the write; it is done again.
            stuck: told once why pods of the target have not been ready for a minute.
        """
        loop = asyncio.get_running_loop()
        try:
            deployment = await self._cluster.deployment(plan.rollout.workload, timeout_s=self._patience.request_s)
        except NotFound:
            return wording.replaced(wording.planned(plan), how="deleted")
        if resumed:
            work = self.follow_up(plan, deployment, request, condemned=True)
            await unbroken(work, patience_s=2 * self._patience.request_s)
        answer = _Answer(_Written(plan, deployment, loop.time()), deployment, plan.rollout)
        result = await self._verifier.verify(
            plan,
            wording.planned(plan),
            template=plan.template if isinstance(plan, Undo) else deployment.spec.template,
            before=deployment,
            written_at=loop.time(),
            deadline=None,
            stuck=stuck,
        )
        return await self._end(result, answer, dry_run=False)

    async def restore(
        self, ref: WorkloadRef, request: Request, *, condemned_images: frozenset[tuple[str, str]]
    ) -> Result:
        """Give a scaled-down workload its replicas back, if a good template has arrived. Raises as `undo` does."""

        async def decide(snapshot: Snapshot, request: Request) -> Plan | Objection:
            plan = plan_restore(snapshot, condemned_images=condemned_images)
            return plan or Objection(Guard.NOTHING_TO_UNDO, "no replicas are to be restored")

        return await self._act(ref, request, decide)

    async def pause(
        self, ref: WorkloadRef, request: Request, *, dry_run: bool = False, attempts: int = _ATTEMPTS
    ) -> Result:
        """Stop a rolling update where it stands. Raises as `undo` does."""
        return await self._act(ref, request, self._pausing(), dry_run=dry_run, attempts=attempts)

    # -- deciding ------------------------------------------------------------------------------------------------------

    def _undoing(self, choose: Choose | None) -> Decide:
        now = self._now()

        async def decide(snapshot: Snapshot, request: Request) -> Plan | Objection:
            if choose:
                chosen = choose(snapshot)
                if isinstance(chosen, Objection):
                    return chosen
                request = msgspec.structs.replace(request, to_revision=chosen)
            return plan_undo(snapshot, request, now=now)

        return decide

    def _scaling_down(self, ref: WorkloadRef) -> Decide:
        now = self._now()

        async def decide(snapshot: Snapshot, request: Request) -> Plan | Objection:
            autoscalers = await self._cluster.autoscalers(ref.namespace, timeout_s=self._patience.request_s)
            return plan_scale_down(snapshot, request, autoscalers=autoscalers, now=now)

        return decide

    def _pausing(self) -> Decide:
        now = self._now()

        async def decide(snapshot: Snapshot, request: Request) -> Plan | Objection:
            return plan_pause(snapshot, request, now=now)

        return decide

    async def _act(
        self,
        ref: WorkloadRef,
        request: Request,
        decide: Decide,
        *,
        dry_run: bool = False,
        verify: bool = False,
        condemned: bool = False,
        attempts: int = _ATTEMPTS,
    ) -> Result:
        deadline = asyncio.get_running_loop().time() + self._patience.verify_s
        target = _OnDeployment(self, ref, request, decide, dry_run=dry_run, condemned=condemned)
        attempt = Attempt(
            target,
            patience=self._patience,
            deadline=deadline,
            attempts=attempts,
            observed_s=self._patience.observed_s,
            dry_run=dry_run,
        )
        end, seen = await attempt.run()
        rollout = target.request.rollout or _live(seen)
        answer = _Answer(end, seen.deployment, rollout)
        if isinstance(answer.end, Objection):
            return await self._end(wording.refused(answer.end), answer, dry_run=dry_run)
        written, result = answer.end, wording.planned(answer.end.plan)
        if written.replaced:
            return await self._end(wording.replaced(result), answer, dry_run=False)
        if dry_run:
            return await self._end(result, answer, dry_run=True)
        if not verify or not isinstance(written.plan, Undo | ScaleDown):
            return result
        result = await self._verifier.verify(
            written.plan,
            result,
            template=written.deployment.spec.template,
            before=written.deployment,
            written_at=written.at,
            deadline=deadline,
        )
        return await self._end(result, answer, dry_run=False)

    # -- after the write: nothing below may fail what has been done ----------------------------------------------------

    async def patch(self, plan: Plan, *, dry_run: bool) -> Deployment:
        """Send a plan's patch. Raises `ClusterError`."""
        ref, timeout_s = plan.rollout.workload, self._patience.request_s
        return await self._cluster.patch_deployment(ref, plan.patch, dry_run=dry_run, timeout_s=timeout_s)

    async def follow_up(self, plan: Plan, deployment: Deployment, request: Request, *, condemned: bool) -> None:
        """Do what follows a write: give up ownership, post the Event, mark the ReplicaSet that is left."""
        ref = plan.rollout.workload
        detail = wording.planned(plan).detail
        _log.info("write accepted: %s", detail, extra=_fields("write-accepted", ref, plan.rollout))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._after.release(ref, deployment.metadata))
            group.create_task(self._after.post(wording.started_event(plan, deployment, request.cause)))
            if condemned and not isinstance(plan, Restore):
                group.create_task(self._after.mark(plan, condemn(plan.rollout), "condemned"))
            if isinstance(plan, Restore):
                group.create_task(self._after.mark(plan, forget_replicas(plan), "cleared"))

    async def _end(self, result: Result, answer: _Answer, *, dry_run: bool) -> Result:
        event = f"dry-run-{result.outcome}" if dry_run else str(result.outcome)
        guard = result.refused.guard if result.refused else None
        _log.info("%s", result.detail, extra=_fields(event, answer.deployment.ref, answer.rollout, guard=guard))
        if not dry_run:
            await self._after.post(wording.ended_event(result, answer.rollout, answer.deployment))
        return result


class _OnDeployment:
    """An action's write on a Deployment; from the first plan on the request names the rollout that was judged."""

    def __init__(
        self, actor: Actor, ref: WorkloadRef, request: Request, decide: Decide, *, dry_run: bool, condemned: bool
    ) -> None:
        self.name = str(ref)
        self.request = request
        self._actor = actor
        self._ref = ref
        self._decide = decide
        self._dry_run = dry_run
        self._condemned = condemned

    async def read(self) -> Snapshot:
        return await self._actor.look(self._ref)

    async def decide(self, seen: Snapshot) -> Plan | Objection:
        plan = await self._decide(seen, self.request)
        if isinstance(plan, Plan):
            self.request = msgspec.structs.replace(self.request, rollout=plan.rollout)
        return plan

    async def write(self, plan: Plan, seen: Snapshot) -> _Written:
        patched = await self._actor.patch(plan, dry_run=self._dry_run)
        return await self._follow(plan, patched)

    async def found(self, plan: Plan, seen: Snapshot, tried: Snapshot) -> _Written:
        written = await self._follow(plan, seen.deployment)
        there = landed(plan, seen.deployment) or _next(tried.deployment, seen.deployment)
        return msgspec.structs.replace(written, replaced=not there)

    async def _follow(self, plan: Plan, patched: Deployment) -> _Written:
        if isinstance(plan, Undo):
            plan = msgspec.structs.replace(plan, template=patched.spec.template)
        if not self._dry_run:
            await self._actor.follow_up(plan, patched, self.request, condemned=self._condemned)
        return _Written(plan, patched, asyncio.get_running_loop().time())

    def marked(self, plan: Plan, seen: Snapshot) -> bool:
        return landed(plan, seen.deployment) or marked(plan, seen.deployment)

    def tested(self, seen: Snapshot, failure: ClusterError) -> object:
        """For the API server's own conflict the whole object."""
        metadata = seen.deployment.metadata
        version = metadata.resource_version if isinstance(failure, Conflict) else ""
        return metadata.uid, metadata.generation, metadata.annotations, metadata.deletion_timestamp, version

    def deleted(self, error: NotFound) -> str:
        return "it was deleted by someone else"


def _next(tried: Deployment, now: Deployment) -> bool:
    """Whether the spec was changed once since, which was our write, whatever admission has made of it."""
    return now.metadata.uid == tried.metadata.uid and now.metadata.generation == tried.metadata.generation + 1


def _live(snapshot: Snapshot) -> Rollout | None:
    found = live_rollout(snapshot.deployment, read_history(snapshot))
    return None if isinstance(found, Objection) else found[0]


def _fields(
    event: str, ref: WorkloadRef, rollout: Rollout | None, *, guard: Guard | None = None
) -> dict[str, str | None]:
    return {"event": event, "workload": str(ref), "incident": rollout.incident if rollout else None, "guard": guard}
