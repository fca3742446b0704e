"""``once``: one look, one decision.

A person's action with the caller's rights: physical and policy guards bind, the mode and judgement guards do not.
"""

import math
import time
from collections.abc import Mapping, Sequence

import click
import msgspec

from watchdog.app import Parts, assemble
from watchdog.cli import signal_options
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
    revision_fields,
)
from watchdog.config import GitOps, Signal
from watchdog.decide.plan import Request
from watchdog.decide.revisions import live_rollout, read_history
from watchdog.engine import pod_timeline
from watchdog.engine.watch import FEW_PODS, PAST_S, query_of
from watchdog.judge import counters
from watchdog.judge.blocks import Counts, PodTimeline, Track
from watchdog.judge.counters import CounterSettings
from watchdog.model import Cause, Objection, Outcome, Result, Rollout, Undo
from watchdog.objects import WorkloadRef
from watchdog.ports import Signals

_LEAST_REQUESTS = 20


class SignalSeen(msgspec.Struct, frozen=True):
    """What a signal showed; `unknown` says why that is no error rate, where it is none."""

    signal: str = ""
    counts: Counts = Counts()
    unknown: str = ""


@click.command(short_help="Look at the error rate once, and undo a bad rollout.")
@click.argument("workload", type=Workload())
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.05,
    show_default=True,
    help="Highest good rate.",
)
@click.option("--window", type=Duration(), default="5m", show_default=True, help="How far to look back.")
@click.option("--bad", metavar="SELECTOR", default="", help="Failed requests, instead of the policy's signals.")
@click.option("--total", metavar="SELECTOR", default="", help="All requests; goes with --bad.")
@click.option("--prometheus", "url", metavar="URL", default="", help="Where they are read, if not as configured.")
@click.option("--reason", type=Words(), default="", metavar="TEXT", help="Why; shown in the audit trail.")
@click.option("--dry-run", is_flag=True, help="Let the API server check the write, and do nothing.")
@common
@runs
async def once(
    shared: Common,
    *,
    workload: WorkloadRef,
    threshold: float,
    window: float,
    bad: str,
    total: str,
    url: str,
    reason: str,
    dry_run: bool,
) -> int:
    """Judge the pods of the live revision by their error rate, and go back to the revision before if it is too high.

    Ends with 0 if it is acceptable, 1 if it was not and is undone, 3 if it is not known, 4 if it could not be undone.
    """
    given = signal_options.given(bad, total)
    say = echo if shared.form is Form.TEXT else lambda _: None
    result = None
    async with assemble(
        shared.config, kubeconfig=shared.kubeconfig, context=shared.context, progress=print_progress
    ) as parts:
        policy = shared.config.policy_for(workload)
        signals = given or signal_options.of_policy(workload, await parts.match(workload))
        rollout, seen = await _look(parts, workload, signals, window_s=window, url=url)
        worst = _worst(seen, threshold)
        rate = "unknown" if worst.unknown else f"{worst.counts.ratio:.4f}"
        say(f"Current error rate: {rate}")
        if worst.unknown:
            print_error(worst.unknown)
            code = CANNOT
        elif worst.counts.ratio <= threshold:
            say("Error rate is within acceptable range.")
            code = GOOD
        else:
            say(f"Rolling back {workload.name} in {workload.namespace}...")
            why = f"error rate {rate} of {worst.counts.total:g} requests, above {threshold:g}"
            request = Request(
                cause=Cause(by=await parts.caller(), reason=f"{reason} ({why})" if reason else why),
                rollout=rollout,
                gitops_act=policy is not None and policy.gitops is GitOps.ACT,
            )
            result = await parts.actor.undo(workload, request, dry_run=dry_run)
            code = BREACH if result.outcome is Outcome.ROLLED_BACK else NOT_DONE
            done = "Dry run: nothing was changed." if dry_run else "Rollback complete."
            say(done if code == BREACH else f"{workload}: {result.outcome}, {result.detail}")
    if shared.form is Form.JSON:
        about = {"namespace": workload.namespace, "deployment": workload.name}
        asked_for = {"threshold": threshold, "window_seconds": window, "dry_run": dry_run}
        print_json("once", {**about, **asked_for, **_fields(worst, result)})
    return code


async def _look(
    parts: Parts, workload: WorkloadRef, chosen: Mapping[str, Signal], *, window_s: float, url: str
) -> tuple[Rollout | None, list[SignalSeen]]:
    """What is live, and what its pods counted over the window, by the rows and counters of the service."""
    signals, step_s = parts.signals(await parts.prometheus(url)), parts.config.prometheus.step
    snapshot = await parts.snapshot(workload)
    live = live_rollout(snapshot.deployment, read_history(snapshot))
    if isinstance(live, Objection):
        return None, [SignalSeen(unknown=str(live))]
    rollout, replicaset = live
    selector = snapshot.deployment.spec.selector
    pods = await parts.cluster.pods(workload.namespace, selector, timeout_s=parts.request_s)
    now = time.time()
    last = math.floor(now / step_s)
    steps = range(last - math.ceil(window_s / step_s), last + 1)
    owners = {replicaset.metadata.uid: (Track.CANDIDATE, replicaset.hash)}
    known = pod_timeline.update((), pods, owners, since=steps[0], step=steps[0], step_s=step_s, now=now)
    if not known:
        return rollout, [SignalSeen(unknown=f"revision {rollout.revision} has no pods")]
    return rollout, [
        msgspec.structs.replace(
            await _count(signals, workload.namespace, signal, known, steps, step_s=step_s), signal=name
        )
        for name, signal in chosen.items()
    ]


async def _count(
    signals: Signals, namespace: str, signal: Signal, pods: Sequence[PodTimeline], steps: range, *, step_s: float
) -> SignalSeen:
    named = [pod.name for pod in pods] if len(pods) < FEW_PODS and not signal.join else ()
    query = query_of(signal, (namespace,), named)
    readings = await signals.read_past(query, first=steps[0], last=steps[-1], timeout_s=PAST_S)
    settings = CounterSettings(
        namespace=namespace,
        step_s=step_s,
        grace_s=0.0,
        begun=steps[0] * step_s,
        join=(signal.candidate, signal.stable) if signal.join else None,
        bad_known=await signals.bad_seen(query, step=steps[-1], timeout_s=PAST_S),
    )
    blocks = counters.blocks(settings, readings, pods)
    if blind := blocks[-1].blind:  # a block that sees spans the blind ones before it
        return SignalSeen(unknown=f"{blind.reason}: {blind.detail}")
    counts = sum((block.candidate + block.grace for block in blocks), Counts())
    few = f"{counts.total:g} requests in {len(steps) * step_s - step_s:g} s, fewer than {_LEAST_REQUESTS}"
    return SignalSeen(counts=counts, unknown=few if counts.total < _LEAST_REQUESTS else "")


def _worst(seen: Sequence[SignalSeen], threshold: float) -> SignalSeen:
    """The highest rate; what is not known is worse than a rate that is acceptable, and better than one that is not."""

    def order(each: SignalSeen) -> tuple[float, float]:
        return 0.5 if each.unknown else float(each.counts.ratio > threshold), each.counts.ratio

    return max(seen, key=order)


def _fields(worst: SignalSeen, result: Result | None) -> dict[str, object]:
    plan = result.plan if result and isinstance(result.plan, Undo) else None
    return {
        "rate": None if worst.unknown else round(worst.counts.ratio, 6),
        "bad": worst.counts.bad,
        "total": worst.counts.total,
        "signal": worst.signal,
        "unknown": worst.unknown or None,
        "outcome": str(result.outcome) if result else None,
        "detail": result.detail if result else None,
        "guard": str(result.refused.guard) if result and result.refused else None,
        "from": revision_fields(plan.live) if plan else None,
        "to": revision_fields(plan.target) if plan else None,
    }
