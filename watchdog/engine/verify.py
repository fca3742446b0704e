"""The proof of an action: watching until its rollout is complete, has failed, or is somebody else's.

How long a rollout may take, only its controller knows: surge, `minReadySeconds` and slow pods add up to hours. So the
service goes on for as long as the controller says that it progresses; a command, which a person waits for, does not.
"""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import msgspec

from watchdog.decide import pods, templates
from watchdog.decide.status import (
    Progress,
    gives_up_after,
    progressed_at,
    rollout_status,
    scale_down_status,
    steps,
)
from watchdog.engine import wording
from watchdog.errors import ClusterError
from watchdog.model import Outcome, Result, ScaleDown, Undo
from watchdog.objects import HASH_LABEL, Deployment, Pod, WorkloadRef, revision_number
from watchdog.ports import Cluster

_STUCK_S = 60.0
_LOOK_AGAIN_S = 15.0

Stuck = Callable[[tuple[str, ...]], Awaitable[None]]


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long an action waits, in seconds.

    Args:
        request_s: for each answer of the API server.
        observed_s: for the controller to see a change that was made just before.
        verify_s: from the first look to the verified end of what a person waits for.
    """

    request_s: float
    observed_s: float
    verify_s: float


class Verifier:
    """Proves actions.

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
        progress: Callable[[str], None],
    ) -> None:
        self._cluster = cluster
        self._patience = patience
        self._now = now
        self._progress = progress

    async def verify(
        self,
        plan: Undo | ScaleDown,
        result: Result,
        *,
        template: msgspec.Raw,
        before: Deployment,
        written_at: float,
        deadline: float | None,
        stuck: Stuck | None = None,
    ) -> Result:
        """Follow the workload by the rules of `kubectl rollout status`.

        Args:
            result: what has been said of it so far.
            template: the pod template after the write, which an admission webhook may have changed.
            before: the Deployment with its status of before the write, whose exceeded deadline is not the target's.
            written_at: when the write was accepted, on the event loop's clock.
            deadline: when to stop waiting, on the same clock; the rollout is then under way and goes on. None goes on
                until the controller gives up, or shows no progress for longer than it would take to.
            stuck: told once why pods of the target have not been ready for a minute.
        """
        looking = asyncio.create_task(self._look_after_pods(plan, before, stuck)) if stuck else None
        try:
            return await self._follow(
                plan, result, template=template, before=before, written_at=written_at, deadline=deadline
            )
        finally:
            if looking:
                looking.cancel()
                await asyncio.gather(looking, return_exceptions=True)

    async def _follow(
        self,
        plan: Undo | ScaleDown,
        result: Result,
        *,
        template: msgspec.Raw,
        before: Deployment,
        written_at: float,
        deadline: float | None,
    ) -> Result:
        loop, ref, replace = asyncio.get_running_loop(), plan.rollout.workload, msgspec.structs.replace
        detail, state, outcome = "nothing was read since the write", None, Outcome.FAILED
        gives_up_s, seen = gives_up_after(before, least_s=self._patience.verify_s), steps(before)
        until = loop.time() + gives_up_s if deadline is None else deadline
        try:
            async with asyncio.timeout_at(until) as limit, aclosing(self._cluster.follow(ref)) as states:
                async for state in states:
                    if state is None or state.metadata.uid != plan.rollout.uid or state.metadata.deletion_timestamp:
                        return wording.replaced(result, how="deleted")
                    if deadline is None and steps(state) != seen:
                        seen = steps(state)
                        limit.reschedule(loop.time() + gives_up_s)
                    if not _as_written(plan, state, template):
                        return wording.replaced(result)
                    status = scale_down_status(state) if isinstance(plan, ScaleDown) else rollout_status(state)
                    if status.detail != detail:
                        detail = status.detail
                        self._progress(detail)
                    if status.progress is Progress.COMPLETE:
                        return replace(
                            result,
                            detail=f"{result.detail}, {detail}",
                            revision=revision_number(state.metadata),
                            elapsed_s=loop.time() - written_at,
                        )
                    if status.progress is Progress.DEADLINE_EXCEEDED and not _stale(state, before):
                        break
        except TimeoutError:
            if deadline is None:
                detail = f"no progress for {gives_up_s:g} s: {detail}"
            else:
                outcome, detail = (
                    Outcome.UNDER_WAY,
                    f"under way, not complete after {self._patience.verify_s:g} s: {detail}",
                )
        return replace(
            result,
            outcome=outcome,
            detail=f"{result.detail}, {'but ' if outcome is Outcome.FAILED else ''}{detail}",
            elapsed_s=loop.time() - written_at,
            pods=await self._why_not_ready(ref, plan, state),
        )

    async def _look_after_pods(self, plan: Undo | ScaleDown, deployment: Deployment, stuck: Stuck) -> None:
        """Say it once where pods of the target have not been ready for a minute: people may be able to help."""
        while isinstance(plan, Undo):
            await asyncio.sleep(_LOOK_AGAIN_S)
            try:
                found = await self._pods(plan, deployment)
            except ClusterError:
                continue
            if late := pods.stuck(found, since=self._now() - dt.timedelta(seconds=_STUCK_S)):
                await stuck(pods.explain(late))
                return

    async def _pods(self, plan: Undo, deployment: Deployment) -> tuple[Pod, ...]:
        """The pods of the target, or of what admission made of it."""
        selector, namespace, timeout_s = deployment.spec.selector, deployment.ref.namespace, self._patience.request_s
        found = await self._cluster.replicasets(namespace, selector, timeout_s=timeout_s)
        live = next((each.hash for each in found if templates.same(each.spec.template, plan.template)), None)
        labels = {**selector.match_labels, HASH_LABEL: live or plan.target.hash}
        narrowed = msgspec.structs.replace(selector, match_labels=labels)
        return await self._cluster.pods(namespace, narrowed, timeout_s=timeout_s)

    async def _why_not_ready(
        self, ref: WorkloadRef, plan: Undo | ScaleDown, state: Deployment | None
    ) -> tuple[str, ...]:
        if isinstance(plan, ScaleDown) or state is None:
            return ()
        try:
            found = await self._pods(plan, state)
        except ClusterError as error:
            return (f"its pods could not be read: {error}",)
        failing = [c.reason for c in state.status.conditions if c.type == "ReplicaFailure" and c.status == "True"]
        where = f"kubectl describe replicaset {plan.target.replicaset} -n {ref.namespace}"
        return (*(f"pods cannot be created: {reason}; see {where}" for reason in failing), *pods.explain(found))


def _stale(deployment: Deployment, before: Deployment) -> bool:
    """Whether the progress condition is still the one of before the write, in spite of the new observedGeneration."""
    then, now = progressed_at(before), progressed_at(deployment)
    return then is not None and then == now


def _as_written(plan: Undo | ScaleDown, deployment: Deployment, template: msgspec.Raw) -> bool:
    if isinstance(plan, ScaleDown):
        return deployment.spec.replicas == 0
    return templates.same(deployment.spec.template, template)
