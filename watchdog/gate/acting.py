"""What a gate does about a bad version: a person's action, which no guard of the judgement class binds."""

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from watchdog.config import GitOps
from watchdog.decide.plan import Request
from watchdog.errors import ClusterError
from watchdog.gate.pinned import Pinned
from watchdog.gate.request import End, GatePorts, GateRequest
from watchdog.gate.tally import PROVE_NOTHING
from watchdog.judge.blocks import Verdict
from watchdog.model import Action, Cause, Guard, Outcome, Result, ScaleDown, Undo

Condemn = Callable[[Result], Awaitable[None]]
"""Keeps an undo or a scale-down that was written in a record, which condemns the version."""


async def act(scene: Pinned, verdict: Verdict, task: GateRequest, ports: GatePorts, *, condemn: Condemn) -> End:
    """Carry out what a breach leads to.

    Two judgement guards keep a gate from acting all the same, since what they speak about is no proof: `no-history`, a
    comparison with a share of failures that nobody knows, which whoever runs the gate can tell; and `unconfirmed`,
    requests that stay away.
    """
    if task.action is None:
        return End(verdict=verdict, detail="no action was asked for")
    if unproven := next((each for each in verdict.objections if each.guard in PROVE_NOTHING), None):
        cure = "look at it yourself"
        cure += ", or say what is usual with --baseline" if unproven.guard is Guard.NO_HISTORY else ""
        return End(verdict=verdict, detail=f"nothing was changed, {unproven}; {cure}")
    why = f"gate: {verdict.detail}"
    request = Request(
        cause=Cause(task.cause.by, f"{task.cause.reason} ({why})" if task.cause.reason else why),
        rollout=scene.rollout,
        gitops_act=task.policy.gitops is GitOps.ACT,
    )
    try:
        match task.action:
            case Action.UNDO:
                result = await ports.actor.undo(
                    task.workload, request, dry_run=task.dry_run, verify=False, condemned=True
                )
            case Action.SCALE_DOWN:
                result = await ports.actor.scale_down(task.workload, request, dry_run=task.dry_run, verify=False)
            case _:
                result = await ports.actor.pause(task.workload, request, dry_run=task.dry_run)
        if isinstance(result.plan, Undo | ScaleDown) and not task.dry_run:
            result = await _condemned(result, result.plan, request, ports, condemn=condemn)
    except ClusterError as error:
        result = Result(outcome=Outcome.FAILED, detail=str(error))
    detail = f"dry run, nothing was changed: {result.detail}" if task.dry_run else result.detail
    return End(verdict=verdict, outcome=result.outcome, detail=detail, result=result)


async def _condemned(
    written: Result, plan: Undo | ScaleDown, request: Request, ports: GatePorts, *, condemn: Condemn
) -> Result:
    """Keep what was written at once, since the service sees it at once, and then prove that it worked."""
    await condemn(written)
    if written.outcome is Outcome.SUPERSEDED:
        return written
    try:
        result = await ports.actor.finish(plan, request, resumed=False)
    except ClusterError as error:
        result = replace(written, outcome=Outcome.FAILED, detail=f"{written.detail}, not verified: {error}")
    if result.outcome is not written.outcome:
        await condemn(result)
    return result


def lost(end: End) -> bool:
    """Whether somebody changed the workload before the action could; whoever that was has won."""
    refused = end.result.refused if end.result else None
    return refused is not None and refused.guard in (Guard.SUPERSEDED, Guard.NOTHING_TO_UNDO)


def passed_over(verdict: Verdict) -> list[str]:
    """Tell of the guards that would have had the service ask, and that do not bind whoever runs a gate."""
    return [
        f"{each}; the service would have asked a person first"
        for each in verdict.objections
        if each.guard not in PROVE_NOTHING
    ]
