"""``backtest``: the rollouts of the past under the policies of today, beside the rules of others."""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from watchdog.app import Parts, assemble
from watchdog.backtest.labels import Label
from watchdog.backtest.page import clock, page, saved
from watchdog.backtest.reading import batches, gone_replicasets, replay_all
from watchdog.backtest.replay import Finding, Replayed
from watchdog.backtest.rollouts import PastRollout, Subject, rollouts, versions
from watchdog.backtest.summary import CONFIGURED, NOTES, Tally, finding_of, outcome, tallies
from watchdog.cli.options import Common, Duration, common, runs
from watchdog.cli.output import CANNOT, GOOD, Form, echo, print_json, print_table
from watchdog.engine.fleet import Match, WorkloadRole, match_all
from watchdog.errors import ClusterError, UsageError
from watchdog.judge.blocks import Blind
from watchdog.objects import Deployment, LabelSelector, ReplicaSet, Snapshot, WorkloadRef
from watchdog.prometheus import PrometheusClient


@click.command(short_help="Judge the rollouts of the past.")
@click.option("--since", type=Duration(), default="30d", show_default=True, help="How far to look back.")
@click.option("--html", metavar="FILE", default="", help="Also write one page with a plot of each rollout.")
@click.option("--prometheus", "url", metavar="URL", default="", help="Where the past is read, if not as configured.")
@click.option("--json", "as_json", is_flag=True, help="The same as --output json.")
@common
@runs
async def backtest(shared: Common, *, since: float, html: str, url: str, as_json: bool) -> int:
    """Replay past rollouts under the configured policies, and under the rules of others.

    Ends with 0, or with 3 if there were rollouts and none of them could be judged.
    """
    target = Path(html) if html else None
    if target and not target.parent.is_dir():
        raise UsageError(f"--html {html}: there is no directory {target.parent}")
    now = time.time()
    async with assemble(shared.config, kubeconfig=shared.kubeconfig, context=shared.context) as parts:
        client = await parts.prometheus(url)
        found, problems = await _find(parts, client, since=now - since, now=now)
        replayed = await _replay(parts, client, found)
    rules = tallies(replayed)
    title = f"{_counted(replayed)} since {clock(now - since)} UTC"
    if target:
        _write(target, page(f"Backtest: {title}", rules, replayed, problems))
    if as_json or shared.form is Form.JSON:
        fields = {
            "since_seconds": since,
            "rollouts": [_fields(each) for each in replayed],
            "rules": msgspec.to_builtins(rules),
            "problems": problems,
            "notes": NOTES,
            "html": html or None,
        }
        print_json("backtest", fields)
    else:
        _print(title, rules, replayed, problems)
    return CANNOT if replayed and all(each.was.label is Label.UNKNOWN for each in replayed) else GOOD


async def _find(
    parts: Parts, client: PrometheusClient, *, since: float, now: float
) -> tuple[list[PastRollout], list[str]]:
    """Find the rollouts of every workload that a policy matches, and say what cannot be replayed."""
    policies = parts.config.policies
    if not policies:
        raise UsageError("there is no policy to replay by; write one, or have it proposed by init")
    deployments: list[Deployment] = []
    sets: dict[str, tuple[ReplicaSet, ...]] = {}
    problems: list[str] = []
    for namespace in sorted({name for policy in policies for name in policy.namespaces}):
        try:
            deployments += await parts.deployments(namespace)
            sets[namespace] = await parts.cluster.replicasets(namespace, LabelSelector(), timeout_s=parts.request_s)
        except ClusterError as error:
            problems.append(str(error))
    matches, wrong = match_all(policies, deployments)
    problems += wrong
    gone: Mapping[WorkloadRef, Mapping[str, float]] = {}
    if matches:
        answer = await gone_replicasets(client, list(sets), since=since, now=now)
        if isinstance(answer, Blind):
            problems.append(f"ReplicaSets that are gone, by kube-state-metrics: {answer.reason}: {answer.detail}")
        else:
            gone = answer
    found: list[PastRollout] = []
    for deployment in deployments:
        match = matches.get(deployment.ref)
        if match is None or deployment.ref.namespace not in sets:
            continue
        if why := _cannot(match):
            problems.append(f"{deployment.ref}: {why}")
            continue
        stable = match.other if match.side is WorkloadRole.CANDIDATE and match.other else deployment.ref
        subject = Subject(
            workload=deployment.ref,
            policy=match.policy,
            topology=match.topology,
            stable=stable,
            strategy=deployment.spec.strategy.type,
        )
        snapshot = Snapshot(deployment, sets[deployment.ref.namespace])
        known = versions(snapshot, gone.get(deployment.ref, {}))
        found += rollouts(subject, snapshot, known, since=since, now=now)
    return found, problems


def _cannot(match: Match) -> str:
    if match.side is WorkloadRole.COLOUR:
        return "the switches of a blue-green Service leave no trace to replay"
    if not match.policy.signals:
        return f"policy {match.policy.name!r} has no signal"
    if any(signal.join for signal in match.policy.signals.values()):
        return "series joined by a label do not tell which pods there were"
    return ""


async def _replay(parts: Parts, client: PrometheusClient, found: Sequence[PastRollout]) -> list[Replayed]:
    """Read and replay, oldest first, and show how far it is to whoever waits at a terminal."""
    groups = batches(found)
    replayed: list[Replayed] = []
    columns = (TextColumn("rollouts"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=len(found))

        def done(some: Sequence[Replayed]) -> None:
            replayed.extend(some)
            progress.advance(task, len(some))

        await replay_all(client, parts.config.prometheus, groups, done=done)
    return sorted(replayed, key=lambda each: (each.rollout.started, each.rollout.name))


def _write(target: Path, text: str) -> None:
    """Write a file whole or not at all."""
    try:
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with contextlib.ExitStack() as stack:
            stack.callback(lambda: Path(name).unlink(missing_ok=True))
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            Path(name).chmod(0o644)
            Path(name).replace(target)
    except OSError as error:
        raise UsageError(f"--html {target}: {error.strerror}") from error


def _counted(replayed: Sequence[Replayed]) -> str:
    said = [f"{sum(each.was.label is label for each in replayed)} {label}" for label in Label]
    plural = "rollout" if len(replayed) == 1 else "rollouts"
    return f"{len(replayed)} {plural} ({', '.join(said)})"


def _print(title: str, rules: Sequence[Tally], replayed: Sequence[Replayed], problems: Sequence[str]) -> None:
    echo(f"{title}.")
    for problem in problems:
        echo(f"Not replayed: {problem}")
    if not replayed:
        return
    echo("")
    heads = ("RULE", "CAUGHT", "ONLY ASKED", "MISSED", "FALSE", "FALSELY ASKED", "MINUTES SAVED", "ERRORS SAVED")
    print_table(heads, [[(cell, "bold" if each.rule == CONFIGURED else "") for cell in _row(each)] for each in rules])
    echo("")
    rows = []
    for each in replayed:
        finding, word = finding_of(each, CONFIGURED), outcome(each, CONFIGURED)
        cells = (each.rollout.name, clock(each.rollout.started), f"{each.was.label}: {each.was.why}", word, "")
        rows.append((*cells[:4], _did(each, finding)))
    print_table(("ROLLOUT", "BEGAN (UTC)", "WAS", "THE POLICY", ""), rows)
    echo("")
    for note in NOTES:
        echo(note)


def _row(tally: Tally) -> tuple[str, ...]:
    counts = (tally.caught, tally.asked, tally.missed, tally.false, tally.false_asked)
    errors = f"{'≥ ' if tally.open else ''}{tally.saved_errors:,.0f}"
    return (tally.rule, *map(str, counts), saved(tally.saved_s, at_least=tally.open > 0), errors)


def _did(replayed: Replayed, finding: Finding | None) -> str:
    time_ = None if finding is None else finding.acted or finding.asked
    if finding is None or time_ is None:
        return ""
    after = f"after {(time_ - replayed.rollout.started) / 60:.1f} min"
    if finding.acted is None:
        return f"asks {after}"
    least = replayed.undone is None
    return (
        f"rolls back {after}, saves {saved(finding.saved_s, at_least=least)} min"
        f" and {'≥ ' if least else ''}{finding.saved_errors:,.0f} errors"
    )


def _fields(replayed: Replayed) -> dict[str, object]:
    rollout = replayed.rollout
    return {
        "namespace": rollout.subject.workload.namespace,
        "deployment": rollout.subject.workload.name,
        "policy": rollout.subject.policy.name,
        "rule": str(replayed.rule),
        "replicaset": rollout.version.name,
        "revision": rollout.version.revisions[0] if rollout.version.revisions else None,
        "began": rollout.started,
        "undone": replayed.undone,
        "replayed_until": replayed.over,
        "was": str(replayed.was.label),
        "why": replayed.was.why,
        "requests": replayed.lived.total,
        "failed": replayed.lived.bad,
        "past": replayed.past,
        "outcome": str(outcome(replayed, CONFIGURED)),
        "findings": msgspec.to_builtins((*replayed.ours, *replayed.peers)),
    }
