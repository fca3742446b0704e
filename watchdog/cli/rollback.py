"""``rollback``: a manual, guarded, audited undo with the caller's own rights."""

import click

from watchdog.app import assemble
from watchdog.cli.options import Common, Duration, Words, Workload, common, runs
from watchdog.cli.output import GOOD, NOT_DONE, Form, echo, print_json, print_progress, refusal_fields, revision_fields
from watchdog.config import GitOps
from watchdog.decide.plan import Request
from watchdog.errors import UsageError
from watchdog.model import (
    Cause,
    GuardClass,
    Outcome,
    Result,
    Undo,
)
from watchdog.objects import WorkloadRef


@click.command(short_help="Undo a rollout by hand.")
@click.argument("workload", type=Workload())
@click.option(
    "--to-revision", type=click.IntRange(min=1), metavar="N", help="Go to this revision, not to the one before."
)
@click.option("--reason", type=Words(), default="", metavar="TEXT", help="Why; shown in the audit trail.")
@click.option(
    "--expected-current-revision", type=click.IntRange(min=1), metavar="N", help="Do nothing unless this one is live."
)
@click.option("--dry-run", is_flag=True, help="Let the API server check the write, and do nothing.")
@click.option("--force", is_flag=True, help="Pass the policy guards; needs --reason.")
@click.option("--timeout", type=Duration(), metavar="DURATION", help="How long it may take [default: 300s].")
@click.option("--no-wait", is_flag=True, help="Return when the write is accepted.")
@common
@runs
async def rollback(
    shared: Common,
    *,
    workload: WorkloadRef,
    to_revision: int | None,
    reason: str,
    expected_current_revision: int | None,
    dry_run: bool,
    force: bool,
    timeout: float | None,
    no_wait: bool,
) -> int:
    """Go back to the revision before, as `kubectl rollout undo` does, or to a named one.

    Revisions that an incident condemned are passed over. Whoever changes the Deployment at the same time wins, and
    nothing is done. Where a rollback of the last hour put there what is live, a second one does not bring back what
    that left: it changes nothing and says how to go further. Restored is the pod template; what a ConfigMap, a Secret
    or a database holds is not.
    """
    if force and not reason:
        raise UsageError("--force passes guards that protect somebody: say why with --reason")
    policy = shared.config.policy_for(workload)
    async with assemble(
        shared.config,
        kubeconfig=shared.kubeconfig,
        context=shared.context,
        verify_s=timeout,
        progress=print_progress,
    ) as parts:
        request = Request(
            cause=Cause(by=await parts.caller(), reason=reason),
            to_revision=to_revision,
            expected_revision=expected_current_revision,
            force=force,
            gitops_act=policy is not None and policy.gitops is GitOps.ACT,
        )
        result = await parts.actor.undo(workload, request, dry_run=dry_run, verify=not no_wait)
    _print(result, workload, shared.form, dry_run=dry_run)
    return GOOD if result.outcome in (Outcome.ROLLED_BACK, Outcome.ALREADY) else NOT_DONE


def _print(result: Result, workload: WorkloadRef, form: Form, *, dry_run: bool) -> None:
    plan = result.plan if isinstance(result.plan, Undo) else None
    if form is Form.JSON:
        print_json("rollback", {**_fields(result, workload, plan), "dry_run": dry_run})
        return
    if result.outcome is Outcome.ALREADY:
        echo(f"{workload}: {result.outcome}, {result.detail}")
        echo("Nothing was changed.")
        return
    if result.refused:
        for refusal in (result.refused, *result.refused.also):
            echo(f"{workload}: {result.outcome}, {refusal.guard}: {refusal.detail}")
        if result.refused.guard.guard_class is GuardClass.POLICY:
            echo("Nothing was changed. To pass this: --force --reason TEXT")
        else:
            echo("Nothing was changed.")
        return
    assert plan is not None  # noqa: S101  (whatever is not refused was planned)
    if dry_run:
        echo(f"{workload}: would go back {plan.live.number} → {plan.target.number}. Nothing was changed.")
    else:
        took = f" after {result.elapsed_s:.1f} s" if result.elapsed_s is not None else "; not waited for"
        now = f" (now revision {result.revision})" if result.revision else ""
        echo(f"{workload}: {result.detail}{took}{now}.")
    for line in (*(f"forced past {passed}" for passed in plan.forced), *plan.changes, *result.pods):
        echo(f"  {line}")
    if result.outcome in (Outcome.FAILED, Outcome.UNDER_WAY):
        where = f"deployment/{workload.name} -n {workload.namespace}"
        echo(f"The write stands. Go on watching with: kubectl rollout status {where}")


def _fields(result: Result, workload: WorkloadRef, plan: Undo | None) -> dict[str, object]:
    return {
        "namespace": workload.namespace,
        "deployment": workload.name,
        "outcome": str(result.outcome),
        "detail": result.detail,
        "guard": str(result.refused.guard) if result.refused else None,
        "refusals": refusal_fields(result.refused) if result.refused else [],
        "incident": plan.rollout.incident if plan else None,
        "from": revision_fields(plan.live) if plan else None,
        "to": revision_fields(plan.target) if plan else None,
        "changes": list(plan.changes) if plan else [],
        "forced": [str(each.guard) for each in plan.forced] if plan else [],
        "revision": result.revision,
        "elapsed_seconds": round(result.elapsed_s, 3) if result.elapsed_s is not None else None,
        "pods": list(result.pods),
    }
