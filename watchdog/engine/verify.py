"""The proof of an action: watching until its rollout is complete, has failed, or is somebody else's."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import msgspec

from watchdog.decide import pods, templates
from watchdog.decide.status import Progress, progressed_at, rollout_status, scale_down_status
from watchdog.engine import wording
from watchdog.errors import ClusterError
from watchdog.model import Outcome, Result, ScaleDown, Undo
from watchdog.objects import HASH_LABEL, Deployment, WorkloadRef, revision_number
from watchdog.ports import Cluster


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long an action waits, in seconds.

    Args:
        request_s: for each answer of the API server.
        observed_s: for the controller to see a change that was made just before.
        verify_s: from the first look to the verified end.
    """

    request_s: float
    observed_s: float
    verify_s: float


class Verifier:
    """Proves actions.

    Args:
        cluster: where.
        patience: how long to wait for what.
        progress: told how far a rollout is, whenever that changes.
    """

    def __init__(self, cluster: Cluster, *, patience: Patience, progress: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._patience = patience
        self._progress = progress

    async def verify(
        self,
        plan: Undo | ScaleDown,
        result: Result,
        *,
        template: msgspec.Raw,
        before: Deployment,
        written_at: float,
        deadline: float,
    ) -> Result:
        """Follow the workload by the rules of `kubectl rollout status`.

        Args:
            plan: what was written.
            result: what has been said of it so far.
            template: the pod template after the write, which an admission webhook may have changed.
            before: the Deployment with its status of before the write, whose exceeded deadline is not the target's.
            written_at: when the write was accepted, on the event loop's clock.
            deadline: when to give up, on the same clock.
        """
        loop, ref, replace = asyncio.get_running_loop(), plan.rollout.workload, msgspec.structs.replace
        detail, state = "nothing was read since the write", None
        try:
            async with asyncio.timeout_at(deadline), aclosing(self._cluster.follow(ref)) as states:
                async for state in states:
                    if state is None or state.metadata.uid != plan.rollout.uid:
                        return wording.replaced(result, how="deleted")
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
            detail = f"not complete after {self._patience.verify_s:g} s: {detail}"
        return replace(
            result,
            outcome=Outcome.FAILED,
            detail=f"{result.detail}, but {detail}",
            elapsed_s=loop.time() - written_at,
            pods=await self._why_not_ready(ref, plan, state),
        )

    async def _why_not_ready(
        self, ref: WorkloadRef, plan: Undo | ScaleDown, state: Deployment | None
    ) -> tuple[str, ...]:
        if isinstance(plan, ScaleDown) or state is None:
            return ()
        selector = state.spec.selector
        labels = {**selector.match_labels, HASH_LABEL: plan.target.hash}
        narrowed = msgspec.structs.replace(selector, match_labels=labels)
        try:
            found = await self._cluster.pods(ref.namespace, narrowed, timeout_s=self._patience.request_s)
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
