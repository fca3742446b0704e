"""Takes evaluations that pipelines post, and keeps them in the records of the rollouts that they are about."""

import logging
import math
from collections.abc import Callable

from watchdog.config import Policy
from watchdog.decide import evaluations
from watchdog.decide.evaluations import BatchSide, Posted, Taken
from watchdog.decide.revisions import read_history
from watchdog.engine.context import Context
from watchdog.errors import NotFound, UsageError
from watchdog.judge.evaluations import Evaluation, freeze_settings
from watchdog.judge.sequential import SequentialSettings
from watchdog.model import IncidentId
from watchdog.objects import WorkloadRef

_log = logging.getLogger(__name__)


class EvaluationIntake:
    """Takes batches.

    Args:
        next_step: the first step of a rollout that has not been judged yet; 0 where nobody has looked at it.
    """

    def __init__(self, context: Context, *, next_step: Callable[[IncidentId], int]) -> None:
        self._context = context
        self._next_step = next_step

    async def take(self, ref: WorkloadRef, posted: Posted) -> Taken:
        """Take a batch; it is judged with the block in which it arrives, and kept before this comes back.

        Raises:
            ClusterError: the ReplicaSets cannot be read; `NotFound` where no policy matches such a Deployment.
            UsageError: its policy takes no evaluations, or the version is not live.
        """
        context = self._context
        match, deployment = context.fleet.match(ref), context.deployment(ref)
        if match is None or deployment is None:
            raise NotFound(f"evaluations of {ref}", "no policy matches a Deployment of this name")
        if not match.policy.evaluations.enabled:
            raise UsageError(
                f"policy {match.policy.name!r} takes no evaluations: write enabled = true in [policies.evaluations]"
            )
        snapshot = await context.observer.snapshot(deployment)
        compared = evaluations.sides(ref, context.records.values())
        about = evaluations.version(posted, ref, read_history(snapshot), compared)
        whys = {side: await self._keep(side, posted) for side in compared.get(about, ())}
        counted = tuple(side for side, why in whys.items() if not why)
        detail = "; ".join(why for why in whys.values() if why)
        if not whys:
            detail = f"{ref} runs {about}, and no rollout that takes evaluations is under watch there: nothing to judge"
        elif counted:
            detail = ", ".join(f"{side.track} of {side.incident}" for side in counted)
        fields = {"event": "evaluations", "workload": str(ref), "incident": counted[0].incident if counted else None}
        _log.info("%d of %d evaluations failed: %s", posted.bad, posted.total, detail, extra=fields)
        return Taken(hash=about, counted=bool(counted), rollouts=counted, detail=detail)

    async def _keep(self, side: BatchSide, posted: Posted) -> str:
        """Count a batch on one side of a rollout; give why not, where that is so."""
        context = self._context
        now = math.floor(context.now().timestamp() / context.config.step_s) + 1
        batch = Evaluation(
            id=posted.id,
            step=max(now, self._next_step(side.incident)),  # a clock that went back must not reach into the past
            track=side.track,
            total=posted.total,
            bad=posted.bad,
        )
        record = evaluations.count(context.records[side.incident], batch)
        if isinstance(record, str):
            return record
        context.put(record)
        await context.save(record.id)
        return ""


def settings_of(policy: Policy, step_s: float) -> SequentialSettings | None:
    """What evaluations of a rollout are held to; None where its policy takes none."""
    if not policy.evaluations.enabled:
        return None
    return freeze_settings(
        step_s=step_s,
        baseline=policy.evaluations.baseline,
        alpha=policy.sequential.alpha,
        alpha_alert=policy.alerts.alpha_alert,
        signals=policy.judged,
        bake_s=float(policy.bake),
    )
