"""``init``: a policy proposed from what a workload really is and exports, with reasons and doubts as comments."""

import json
import re
import time
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from statistics import median

import click
import msgspec

from watchdog.app import assemble
from watchdog.cli.options import Common, Workload, common, runs
from watchdog.cli.output import CANNOT, GOOD, Form, echo, print_error, print_json, printable
from watchdog.decide import guards
from watchdog.judge.blocks import Blind
from watchdog.objects import Deployment, WorkloadRef
from watchdog.prometheus import PrometheusClient
from watchdog.selectors import Selector, in_list

Metrics = Mapping[str, Mapping[str, Collection[str]]]
"""Names of metrics; of each its labels, with values where they matter."""

_TOTALS = (
    "agent_requests_total",
    "http_requests_total",
    "http_server_requests_seconds_count",
    "http_server_request_duration_seconds_count",
    "http_request_duration_seconds_count",
    "grpc_server_handled_total",
    "istio_requests_total",
)
"""The usual names of what counts requests, the best first; after them any `…_requests_total`."""

_STATUS = ("code", "status", "status_code", "http_status_code", "http_response_status_code", "response_code")
_GRPC = ("grpc_code", "Unknown|DeadlineExceeded|Unimplemented|Internal|Unavailable|DataLoss")
_HTTP = re.compile(r"[1-5](\d\d|xx)")
_MOST_PODS = 20
_SPACING_S = 300.0
_SUFFIX = re.compile(r"_(requests_total|seconds_count|total|count)$")


class SignalProposal(msgspec.Struct, frozen=True):
    """A pair of selectors that could be a signal, and why."""

    bad: str
    total: str
    why: str


def candidates(metrics: Metrics) -> tuple[SignalProposal, ...]:
    """What could be a signal, the best first."""
    totals = sorted(filter(_counts_requests, metrics), key=lambda name: ((*_TOTALS, name).index(name), name))
    return tuple(found for name in totals if (found := _candidate(name, metrics)))


def _counts_requests(name: str) -> bool:
    return name in _TOTALS or name.endswith("_requests_total")


def _candidate(total: str, metrics: Metrics) -> SignalProposal | None:
    prefix = _SUFFIX.sub("", total)
    for bad in (f"{prefix}_errors_total", f"{prefix}_failures_total", f"{prefix}_requests_failed_total"):
        if bad in metrics:
            return SignalProposal(bad, total, f"{bad} counts the failures among {total}")
    labels = metrics[total]
    label, expression = _GRPC if _GRPC[0] in labels else (next((name for name in _STATUS if name in labels), ""), "5..")
    if not label:
        return None
    seen = sorted(labels[label])
    if expression == "5.." and seen and not any(_HTTP.fullmatch(value) for value in seen):
        return None  # such as status="ok": the selector would never find a failure, and count that as none
    why = f"the label {label} of {total} tells what failed; seen: {', '.join(seen[:8]) or 'no value yet'}"
    return SignalProposal(Selector(total, ((label, "=~", expression),)).text(), total, why)


def propose(
    deployment: Deployment,
    *,
    beside: Collection[str],
    metrics: Metrics | None,
    url: str,
    step_s: float | None,
) -> str:
    """The text of a configuration with one policy.

    Args:
        beside: names of all Deployments in its namespace.
        metrics: what its pods export; None where no Prometheus was asked.
        url: of Prometheus; empty where there is none.
        step_s: the scrape interval; None where it is not known.
    """
    name = deployment.metadata.name
    stable, candidate = _tracks(name, beside)
    lines = [f"# Proposed for {deployment.ref}; what it would see: rollback-watchdog check --online"]
    if url:
        lines.append(f"prometheus.url = {_text(url)}")
    if step_s:
        lines.append(f'prometheus.step = "{step_s:g}s"  # how often its pods are scraped')
    elif url:
        lines.append('prometheus.step = "15s"  # it is not known how often its pods are scraped: correct this')
    lines += ["", "[[policies]]", f"name = {_text(stable)}", f"namespaces = [{_text(deployment.metadata.namespace)}]"]
    if candidate:
        lines += [
            _comment(f"{candidate} looks like a canary of {stable}; if it is none: workloads = [{_text(name)}]"),
            f"stable = {_text(stable)}",
            f"candidate = {_text(candidate)}",
        ]
    else:
        lines.append(f"workloads = [{_text(name)}]")
    lines.append('mode = "observe"  # says what it would do; then "approve" asks a person, and "enforce" acts')
    refusals = (guards.recreate(deployment), guards.gitops(deployment))
    lines += [_comment(f"an undo would be refused, {refusal}") for refusal in refusals if refusal]
    return "\n".join([*lines, "", *_signals(metrics)])


def _tracks(name: str, beside: Collection[str]) -> tuple[str, str]:
    """The stable and the candidate Deployment, by their names; the candidate is empty where there is none."""
    for suffix in ("-canary", "-candidate"):
        if name.endswith(suffix) and name.removesuffix(suffix) in beside:
            return name.removesuffix(suffix), name
        if f"{name}{suffix}" in beside:
            return name, f"{name}{suffix}"
    return name, ""


def _signals(metrics: Metrics | None) -> list[str]:
    lines: list[str] = []
    for index, each in enumerate(candidates(metrics or {})):
        table = ["[policies.signals.errors]", f"bad = {_text(each.bad)}", f"total = {_text(each.total)}"]
        why = f"or, less usual: {each.why}" if index else each.why
        lines += [_comment(why), *(map(_comment, table) if index else table), ""]
    return lines or [_comment(_lacking(metrics)), ""]


def _lacking(metrics: Metrics | None) -> str:
    """Why there are only conditions, and what would help."""
    only = "so only crash loops, missing images and a stuck rollout are seen"
    if metrics is None:
        return f"no Prometheus was asked, {only}; give --prometheus URL to have signals proposed"
    totals = sorted(filter(_counts_requests, metrics))
    if totals:
        wanted = f"{_SUFFIX.sub('', totals[0])}_errors_total that begins at 0"
        return f"nothing tells which of {totals[0]} failed, {only}; a label code would help, or a counter {wanted}"
    wanted = "http_requests_total with a label code, or agent_requests_total and agent_errors_total"
    return f"none of {len(metrics)} metrics of its pods counts requests, {only}; what would help: {wanted}"


def _text(value: str) -> str:
    """A text in TOML."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", r"\u007f")


def _comment(text: str) -> str:
    """One line of comment: values of labels are foreign and could hold a line of their own."""
    return f"# {printable(text)}"


@click.command(short_help="Propose a configuration for a workload.")
@click.argument("workload", type=Workload())
@click.option("--prometheus", "url", metavar="URL", default="", help="Where its metrics are, if not as configured.")
@common
@runs
async def init(shared: Common, *, workload: WorkloadRef, url: str) -> int:
    """Print a configuration for a Deployment, made of what it is and what its pods export.

    The policy only observes. Write it to a file, read its comments, and try it: rollback-watchdog --config FILE check.
    """
    url = url or shared.config.prometheus.url
    metrics, step_s = None, None
    async with assemble(shared.config, kubeconfig=shared.kubeconfig, context=shared.context) as parts:
        deployment = await parts.cluster.deployment(workload, timeout_s=parts.request_s)
        beside = {item.ref.name for item in await parts.deployments(workload.namespace)}
        if url:
            selector = deployment.spec.selector
            pods = await parts.cluster.pods(workload.namespace, selector, timeout_s=parts.request_s)
            names = sorted(pod.metadata.name for pod in pods)[:_MOST_PODS]
            found = await _read(await parts.prometheus(url), workload.namespace, names, timeout_s=parts.request_s)
            if isinstance(found, Blind):
                print_error(f"{found.reason}: {found.detail}")
                return CANNOT
            metrics, step_s = found
    text = propose(deployment, beside=beside, metrics=metrics, url=url, step_s=step_s)
    if shared.form is Form.JSON:
        print_json("init", {"namespace": workload.namespace, "deployment": workload.name, "config": text})
    else:
        for line in text.splitlines():
            echo(line)
    return GOOD


async def _read(
    client: PrometheusClient, namespace: str, pods: Sequence[str], *, timeout_s: float
) -> tuple[Metrics, float | None] | Blind:
    """What pods export, with the values of the labels that may tell what failed; and how often they are scraped."""
    if not pods:
        return {}, None
    found = await client.metrics_of(namespace, pods, timeout_s=timeout_s)
    if isinstance(found, Blind):
        return found
    metrics: dict[str, dict[str, Collection[str]]] = {name: dict.fromkeys(found[name], ()) for name in found}
    step_s = None
    matchers = (("namespace", "=", namespace), in_list("pod", pods))
    for name in filter(_counts_requests, metrics):
        selector = Selector(name).text(*matchers)
        step_s = step_s or await scrape_interval(client, selector, timeout_s=timeout_s)
        for label in set(metrics[name]).intersection((*_STATUS, _GRPC[0])):
            series = await client.query(f"group by ({label}) ({selector})", timeout_s=timeout_s)
            if isinstance(series, Blind):
                return series
            metrics[name][label] = tuple(each.labels.get(label, "") for each in series)
    return metrics, step_s


async def scrape_interval(client: PrometheusClient, selector: str, *, timeout_s: float) -> float | None:
    """How many seconds lie between two samples of a target of the last five minutes; None where that is not known."""
    now = time.time()
    found = await client.query_range(
        f"max by (namespace, pod, container, instance, job) (timestamp({selector}))",
        start=now - _SPACING_S,
        end=now,
        step_s=1,
        timeout_s=timeout_s,
    )
    if isinstance(found, Blind):
        return None
    targets = (sorted(set(series.points.values())) for series in found)
    gaps = [after - before for times in targets for before, after in pairwise(times)]
    return round(median(gaps), 0 if median(gaps) > 0.9 else 1) if gaps else None
