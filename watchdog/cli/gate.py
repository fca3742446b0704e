"""``gate``: the step of a pipeline that waits for evidence, instead of five minutes and one look."""

import datetime as dt
import sys
import time
from pathlib import Path

import click
from msgspec.structs import replace

from watchdog.app import Parts, assemble
from watchdog.cli import signal_options
from watchdog.cli.lines import Lines, LiveLine
from watchdog.cli.options import Common, Duration, Words, Workload, common, runs
from watchdog.cli.output import (
    BREACH,
    CANNOT,
    GOOD,
    NOT_DONE,
    Form,
    echo,
    print_error,
    print_json,
    print_progress,
    printable,
)
from watchdog.config import Policy, Seconds, Sensitivity, Source
from watchdog.engine.fleet import Match, WorkloadRole
from watchdog.errors import UsageError
from watchdog.gate import Gate, GatePorts, GateRequest, Report
from watchdog.gate.report import markdown, outputs
from watchdog.judge.blocks import Status
from watchdog.model import Action, Cause, Outcome
from watchdog.objects import WorkloadRef, is_name
from watchdog.ports import Signals


@click.command(short_help="Judge what is live until there is evidence; undo it if it is bad.")
@click.argument("workload", type=Workload())
@click.option(
    "--for", "bake", type=Duration(), default="5m", show_default=True, metavar="DURATION", help="How long is judged."
)
@click.option("--on-breach", type=click.Choice(["undo", "scale-down", "none"]), help="What a breach leads to.")
@click.option("--bad", type=Words(), default="", metavar="SELECTOR", help="What failed; goes with --total.")
@click.option("--total", type=Words(), default="", metavar="SELECTOR", help="All requests; goes with --bad.")
@click.option("--stable", type=Words(), default="", metavar="NAME", help="The stable Deployment beside a canary.")
@click.option("--image", type=Words(), default="", metavar="IMAGE", help="Judge nothing but a version that runs this.")
@click.option(
    "--baseline", type=click.FloatRange(0, 0.14), metavar="SHARE", help="Usual share of failures, such as 0.004."
)
@click.option("--early", is_flag=True, help="End as soon as it is proven not to be worse than the stable pods.")
@click.option("--allow-insufficient", is_flag=True, help="End with 0 where there was too little traffic to judge.")
@click.option(
    "--sensitivity",
    type=click.Choice([each.value for each in Sensitivity]),
    help="Speed against patience with short failures [default: the policy's, else balanced].",
)
@click.option(
    "--prometheus", "url", type=Words(), default="", metavar="URL", help="Prometheus, or service://NS/NAME:PORT."
)
@click.option("--reason", type=Words(), default="", metavar="TEXT", help="Why; shown in the audit trail.")
@click.option("--summary", type=Words(), default="", metavar="FILE", help="Add a Markdown summary to this file.")
@click.option("--outputs", "outputs_file", type=Words(), default="", metavar="FILE", help="Add key=value lines to it.")
@click.option("--namespace", type=Words(), default="", metavar="NAME", help="Where the service keeps its records.")
@click.option("--dry-run", is_flag=True, help="Let the API server check the write, and do nothing.")
@common
@runs
async def gate(
    shared: Common,
    *,
    workload: WorkloadRef,
    bake: float,
    on_breach: str | None,
    bad: str,
    total: str,
    stable: str,
    image: str,
    baseline: float | None,
    early: bool,
    allow_insufficient: bool,
    sensitivity: str | None,
    url: str,
    reason: str,
    summary: str,
    outputs_file: str,
    namespace: str,
    dry_run: bool,
) -> int:
    """Pin the version that is live now and judge it until the time is over or it is proven to be bad.

    Ends with 0 if that version is still live and was judged good, 1 if it is bad (undone, or no action asked for), 3 if
    it cannot be judged, 4 if somebody replaced it or the action was refused or failed.
    """
    given = signal_options.given(bad, total)
    if stable and (not is_name(stable) or stable == workload.name):
        raise UsageError("--stable names another Deployment of the same namespace")
    async with assemble(
        shared.config, kubeconfig=shared.kubeconfig, context=shared.context, progress=print_progress
    ) as parts:
        match = await parts.match(workload) if shared.config.policies else None
        signals = given or signal_options.of_policy(workload, match)
        other = match.other if match and match.side is WorkloadRole.CANDIDATE else None
        beside = WorkloadRef(workload.namespace, stable) if stable else other or workload
        action = _action(on_breach, match, workload, beside)
        policy = match.policy if match else Policy(name="gate", namespaces=(workload.namespace,))
        if sensitivity:
            rule = replace(policy.sequential, blocks=None)
            policy = replace(policy, sensitivity=Sensitivity(sensitivity), sequential=rule)
        by_pods = parts.config.source is Source.PODS and not url
        task = GateRequest(
            workload=workload,
            stable=beside,
            image=image,
            policy=replace(policy, signals=dict(signals), bake=Seconds(bake)),
            step_s=float(parts.config.scrape.step if by_pods else parts.config.prometheus.step),
            action=action,
            early=early,
            baseline=baseline,
            dry_run=dry_run,
            cause=Cause(by=await parts.caller(), reason=reason),
        )
        report = await _run(parts, task, url=url, namespace=namespace, form=shared.form)
    code = exit_code(report, allow_insufficient=allow_insufficient)
    _write(summary, markdown(report, action=task.action, dry_run=dry_run, undo=_undo(task, report)))
    _write(outputs_file, "".join(f"{key}={printable(value)}\n" for key, value in outputs(report, code=code).items()))
    _show(report, task, code, form=shared.form)
    return code


def _show(report: Report, task: GateRequest, code: int, *, form: Form) -> None:
    if form is Form.JSON:
        print_json("gate", _fields(report, task, code))
        return
    for sentence in report.sentences:
        echo(sentence)


def _action(on_breach: str | None, match: Match | None, workload: WorkloadRef, beside: WorkloadRef) -> Action | None:
    """What a breach leads to: what is asked for, else the policy's own word, else what undoes this kind of rollout.

    Raises:
        UsageError: that would do harm, or is not a gate's to do.
    """
    if on_breach == "none":
        return None
    alone = beside == workload
    action = Action.UNDO if alone else Action.SCALE_DOWN
    if on_breach:
        action = Action(on_breach)
    elif match and match.policy.action and not (alone and match.policy.action is Action.SCALE_DOWN):
        action = match.policy.action
    if match and match.side is WorkloadRole.COLOUR and not on_breach:
        raise UsageError(f"{workload} is a colour of {match.policy.name}: its service switches back; --on-breach none")
    if action is Action.SCALE_DOWN and alone:
        raise UsageError("--on-breach scale-down would take every pod away: name the Deployment beside it, --stable")
    return action


async def _run(parts: Parts, task: GateRequest, *, url: str, namespace: str, form: Form) -> Report:
    limits, settings = parts.config.limits, parts.config
    by_pods = settings.source is Source.PODS and not url
    signals: Signals
    if by_pods:
        signals = await parts.pods(signals=task.policy.signals.values())
    else:
        signals = parts.signals(await parts.prometheus(url))
    ports = GatePorts(
        cluster=parts.cluster,
        signals=signals,
        store=parts.records(namespace),
        actor=parts.actor,
        request_s=parts.request_s,
        read_s=task.step_s if by_pods else float(settings.prometheus.timeout),
        observed_s=float(settings.rollback.observed_within),
        held_s=float(limits.approval + settings.rollback.timeout + limits.recovery),
    )
    show = LiveLine if form is Form.TEXT and sys.stdout.isatty() else Lines
    with show(task, quiet=form is Form.JSON) as shown:
        return await Gate(task, ports, now=_now, tell=shown.tell, say=shown.say).run()


_NOT_DONE = (Outcome.SUPERSEDED, Outcome.REFUSED, Outcome.FAILED, Outcome.UNDER_WAY, Outcome.ALREADY, Outcome.UNPROVEN)


def exit_code(report: Report, *, allow_insufficient: bool) -> int:
    """What a pipeline is told."""
    if report.outcome in _NOT_DONE:
        return NOT_DONE
    if report.verdict.status is Status.BREACH:
        return BREACH
    if report.verdict.status is Status.HEALTHY or (allow_insufficient and report.verdict.status is Status.INSUFFICIENT):
        return GOOD
    return CANNOT


def _now() -> dt.datetime:
    return dt.datetime.fromtimestamp(time.time(), tz=dt.UTC)


def _undo(task: GateRequest, report: Report) -> str:
    """The command that really does it: one that only repeats an undo would change nothing."""
    if task.stable == task.workload:
        further = report.outcome is Outcome.ALREADY and report.rollout
        live = f" --expected-current-revision {further.revision}" if further else ""
        return f"rollback-watchdog rollback {task.workload}{live}"
    return f"kubectl scale deployment/{task.workload.name} -n {task.workload.namespace} --replicas=0"


def _write(file: str, text: str) -> None:
    """Add to a file; a verdict is not lost because its summary cannot be written."""
    if not file:
        return
    try:
        with Path(file).open("a", encoding="utf-8") as target:
            target.write(text)
    except OSError as error:
        print_error(f"{file} cannot be written: {error.strerror}")


def _fields(report: Report, task: GateRequest, code: int) -> dict[str, object]:
    return {
        "namespace": task.workload.namespace,
        "deployment": task.workload.name,
        "stable": task.stable.name,
        "for_seconds": float(task.policy.bake),
        "on_breach": str(task.action) if task.action else None,
        "dry_run": task.dry_run,
        "exit_code": code,
        "revision": report.rollout.revision if report.rollout else None,
        "hash": report.rollout.hash if report.rollout else None,
        "incident": report.rollout.incident if report.rollout else None,
        "verdict": str(report.verdict.status),
        "cause": report.verdict.cause or None,
        "blind": str(report.verdict.blind.reason) if report.verdict.blind else None,
        "why": report.verdict.detail,
        "outcome": str(report.outcome) if report.outcome else None,
        "detail": report.detail or None,
        "by_service": report.service,
        "past": list(report.past),
        "notes": list(report.notes),
        "signals": {
            each.signal: {
                "candidate": {"bad": each.candidate.bad, "total": each.candidate.total},
                "stable": {"bad": each.stable.bad, "total": each.stable.total},
                "control": str(each.control),
                "log_evidence": each.log_e,
                "log_threshold": each.bar,
            }
            for each in report.numbers
        },
    }
