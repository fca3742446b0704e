"""Decide, act, verify: one action on one workload, from reading it to proving that it worked.

    read ──► decide (pure) ──► guarded write ──► give up field ownership, mark, Event ──► verify
      ▲                             │
      └──── not done, or no answer ─┘

Nothing here depends on being alone. Whoever changed the workload since it was read makes a `test` of the patch fail;
then it is read and decided again, against the rollout that was judged first. Where it is what it was, nobody came in
between: then the write was refused, and the refusal is raised. A write that got no answer may have
happened: then our very mark, together with what the action was to change, says that it did
(reference/kubernetes.md §2.2). From the write to the end of what follows it, being cancelled waits.
"""

import asyncio
import datetime as dt
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

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
from watchdog.engine.verify import Patience, Stuck, Verifier
from watchdog.engine.writes import given_up, release, unbroken
from watchdog.errors import (
    ClusterError,
    Conflict,
    NotFound,
    PreconditionFailed,
    ServerError,
    Throttled,
    Unanswered,
)
from watchdog.model import Action, Event, Guard, Objection, Plan, Restore, Result, Rollout, ScaleDown, Undo
from watchdog.objects import Deployment, Metadata, Snapshot, WorkloadRef
from watchdog.ports import Cluster

_log = logging.getLogger(__name__)

_ATTEMPTS = 3
_OBSERVE_EVERY_S = 0.1
_READ_AGAIN_AFTER_S = 1.0

T = TypeVar("T")
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


Commit = Callable[[Plan, Deployment | None], Coroutine[Any, Any, _Written]]


class Actor:
    """Carries out actions.

    Args:
        cluster: where.
        patience: how long to wait for what.
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
            ref: the workload.
            request: who asks for what.
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
        return await self._read(ref, deadline=0.0)

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
            await asyncio.sleep(_OBSERVE_EVERY_S)

    async def finish(
        self, plan: Undo | ScaleDown, request: Request, *, resumed: bool, stuck: Stuck | None = None
    ) -> Result:
        """Verify an action that was written, for as long as its rollout progresses. Raises as `undo` does.

        Args:
            plan: what was written.
            request: who asked for it.
            resumed: another process wrote it, so that it is not known what followed the write; it is done again.
            stuck: told once why pods of the target have not been ready for a minute.
        """
        loop = asyncio.get_running_loop()
        try:
            deployment = await self._cluster.deployment(plan.rollout.workload, timeout_s=self._patience.request_s)
        except NotFound:
            return wording.replaced(wording.planned(plan), how="deleted")
        if resumed:
            await self._unbroken(self._follow_up(plan, deployment, request, condemned=True))
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
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience.verify_s

        async def commit(plan: Plan, found: Deployment | None) -> _Written:
            """Write, unless it was found written, and do what follows a write."""
            patched = found or await self._cluster.patch_deployment(
                ref, plan.patch, dry_run=dry_run, timeout_s=self._patience.request_s
            )
            if isinstance(plan, Undo):
                plan = msgspec.structs.replace(plan, template=patched.spec.template)
            if not dry_run:
                await self._follow_up(plan, patched, request, condemned=condemned)
            return _Written(plan, patched, loop.time())

        answer = await self._write(ref, request, decide, commit, dry_run=dry_run, deadline=deadline, attempts=attempts)
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

    # -- writing -------------------------------------------------------------------------------------------------------

    async def _write(
        self,
        ref: WorkloadRef,
        request: Request,
        decide: Decide,
        commit: Commit,
        *,
        dry_run: bool,
        deadline: float,
        attempts: int,
    ) -> _Answer:
        """Decide and write until one of the two comes to an end.

        Args:
            ref: the workload.
            request: what is asked; from the first plan on it names the rollout that was judged.
            decide: gives the plan.
            commit: writes it, unless it was found written, and does what follows a write.
            dry_run: nothing is written, and so nothing is ever in doubt.
            deadline: when looking for a write in doubt ends, on the event loop's clock.
            attempts: how often a write is made that gets no answer, or is put off.
        """
        loop = asyncio.get_running_loop()
        observed_by = loop.time() + self._patience.observed_s
        in_doubt: Plan | None = None
        failures: list[ClusterError] = []
        seen: Deployment | None = None
        tried: Deployment | None = None
        while True:
            try:
                snapshot = await self._read(ref, deadline=deadline if in_doubt else 0.0)
                seen = snapshot.deployment
                if in_doubt and (landed(in_doubt, seen) or marked(in_doubt, seen)):
                    written = await self._unbroken(commit(in_doubt, seen))
                    replaced = not landed(in_doubt, seen) and not (tried and _next(tried, seen))
                    return _Answer(msgspec.structs.replace(written, replaced=replaced), seen, request.rollout)
                if failures and tried:
                    changed = _changed(tried, seen, failure=failures[-1])
                    if given_up(failures, attempts=attempts, changed=changed):
                        raise failures[-1]
                plan = await decide(snapshot, request)
                if isinstance(plan, Objection):
                    if plan.guard is not Guard.NOT_OBSERVED or loop.time() > observed_by:
                        return _Answer(plan, seen, request.rollout or _live(snapshot))
                    await asyncio.sleep(_OBSERVE_EVERY_S)
                    continue
                request = msgspec.structs.replace(request, rollout=plan.rollout)
                tried = seen
                try:
                    written = await self._unbroken(commit(plan, None))
                except ClusterError as error:
                    error.cure = wording.by_hand(plan)
                    if not error.may_pass:
                        raise
                    failures.append(error)
                    _log.info("write not done: %s", error, extra={"event": "write-not-done", "workload": str(ref)})
                    if isinstance(error, Unanswered):
                        in_doubt = None if dry_run else plan
                    elif isinstance(error, Throttled) and attempts > 1:
                        if loop.time() + error.retry_after_s > deadline:
                            raise
                        await asyncio.sleep(error.retry_after_s)
                else:
                    return _Answer(written, seen, plan.rollout)
            except NotFound:
                if seen is None:
                    raise
                return _Answer(Objection(Guard.SUPERSEDED, "it was deleted by someone else"), seen, request.rollout)
            except ClusterError as error:
                # Whatever only answered that it failed, and was then read without our mark, was not written.
                answered = not any(
                    isinstance(failure, Unanswered) and not isinstance(failure, ServerError) for failure in failures
                )
                if in_doubt is None or (answered and failures[-1:] == [error]):
                    raise
                unknown = "it is not known whether this was written: see the history"
                doubtful = Unanswered(error.operation, f"{error.reason}; {unknown}")
                doubtful.cure = error.cure
                raise doubtful from None

    async def _read(self, ref: WorkloadRef, *, deadline: float) -> Snapshot:
        """Read the workload; until `deadline` again and again, since after a write in doubt we must know."""
        loop, timeout_s = asyncio.get_running_loop(), self._patience.request_s
        while True:
            try:
                deployment = await self._cluster.deployment(ref, timeout_s=timeout_s)
                found = await self._cluster.replicasets(ref.namespace, deployment.spec.selector, timeout_s=timeout_s)
            except (Unanswered, Throttled):
                if loop.time() > deadline:
                    raise
                await asyncio.sleep(_READ_AGAIN_AFTER_S)
            else:
                return Snapshot(deployment, found)

    async def _unbroken(self, work: Coroutine[Any, Any, T]) -> T:
        return await unbroken(work, patience_s=2 * self._patience.request_s)

    # -- after the write: nothing below may fail what has been done ----------------------------------------------------

    async def _follow_up(self, plan: Plan, deployment: Deployment, request: Request, *, condemned: bool) -> None:
        ref = plan.rollout.workload
        detail = wording.planned(plan).detail
        _log.info("write accepted: %s", detail, extra=_fields("write-accepted", ref, plan.rollout))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._release(ref, deployment))
            group.create_task(self._post(wording.started_event(plan, deployment, request.cause)))
            if condemned and not isinstance(plan, Restore):
                group.create_task(self._mark(plan, condemn(plan.rollout), "condemned"))
            if isinstance(plan, Restore):
                group.create_task(self._mark(plan, forget_replicas(plan), "cleared"))

    async def _release(self, ref: WorkloadRef, deployment: Deployment) -> None:
        """Give up the fields that the write made ours, so that the next server-side apply meets no conflict."""
        timeout_s = self._patience.request_s

        async def again() -> Metadata:
            return (await self._cluster.deployment(ref, timeout_s=timeout_s)).metadata

        await release(
            str(ref),
            deployment.metadata,
            patch=lambda patch: self._cluster.patch_deployment(ref, patch, dry_run=False, timeout_s=timeout_s),
            again=again,
        )

    async def _mark(self, plan: Plan, patch: bytes, done: str) -> None:
        namespace, name = plan.rollout.workload.namespace, plan.live.replicaset
        try:
            await self._cluster.patch_replicaset(namespace, name, patch, timeout_s=self._patience.request_s)
        except ClusterError as error:
            if isinstance(plan, Restore) and isinstance(error, PreconditionFailed):
                return  # the controller never copied the mark there
            fields = _fields(f"not-{done}", plan.rollout.workload, plan.rollout)
            _log.warning("ReplicaSet %s not %s: %s", name, done, error, extra=fields)

    async def _end(self, result: Result, answer: _Answer, *, dry_run: bool) -> Result:
        event = f"dry-run-{result.outcome}" if dry_run else str(result.outcome)
        guard = result.refused.guard if result.refused else None
        _log.info("%s", result.detail, extra=_fields(event, answer.deployment.ref, answer.rollout, guard=guard))
        if not dry_run:
            await self._post(wording.ended_event(result, answer.rollout, answer.deployment))
        return result

    async def _post(self, event: Event | None) -> None:
        if event is None:
            return
        try:
            await self._cluster.post_event(event, timeout_s=self._patience.request_s)
        except ClusterError as error:
            fields = {"event": "event-not-written", "workload": str(event.regarding)}
            _log.warning("Event not written: %s", error, extra=fields)


def _changed(tried: Deployment, now: Deployment, *, failure: ClusterError) -> bool:
    """Whether anything that could fail a patch has changed since it was made, so that it lost a race.

    That is what it tests, and for the API server's own conflict the whole object.
    """

    def tested(deployment: Deployment) -> tuple[object, ...]:
        metadata = deployment.metadata
        version = metadata.resource_version if isinstance(failure, Conflict) else ""
        return metadata.uid, metadata.generation, metadata.annotations, metadata.deletion_timestamp, version

    return tested(tried) != tested(now)


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
