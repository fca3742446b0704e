"""What the configured policies would see now: the part of ``check --online`` that looks at Prometheus."""

import math
import time
from collections.abc import Mapping, Set

import msgspec

from watchdog.app import Parts
from watchdog.cli.detection_time import DetectionTime, foresee
from watchdog.cli.init import scrape_interval
from watchdog.config import Signal
from watchdog.engine.fleet import WorkloadRole, match_all
from watchdog.engine.watch import FEW_PODS, query_of
from watchdog.errors import ClusterError
from watchdog.judge.blocks import Blind, BlindReason
from watchdog.objects import Deployment, LabelSelector, Metadata, OwnerReference, WorkloadRef
from watchdog.prometheus import PrometheusClient
from watchdog.selectors import in_list, parse

Pod = tuple[str, str]
"""Namespace and name."""

_MOST_WORKLOADS_NAMED = 5


class PolicyPreview(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy sees of one of its signals.

    Args:
        policy: its name, and the signal's where there are several.
        workloads: what the policy is about.
        stable: pods on the stable track; where there is no canary, all of them.
        canary: pods of the candidate; None where there is none.
        exporting: pods that have a series of `total`; None where that is not known.
        bad_age_s: how long ago there was a series of `bad`; None where there was none for a week.
        bad_ratio: of the last day; None without requests.
        scrape_s: the scrape interval.
        foreseen: what the rule `sequential` would make of its busiest workload; None under another rule.
    """

    policy: str
    workloads: tuple[str, ...]
    stable: int
    canary: int | None
    exporting: int | None = None
    bad_age_s: float | None = None
    bad_ratio: float | None = None
    scrape_s: float | None = None
    foreseen: DetectionTime | None = None

    def lines(self) -> list[str]:
        """The same for a person."""
        pods = f"{self.stable} pods" if self.canary is None else f"{self.stable} stable + {self.canary} canary pods"
        parts = [pods]
        if self.exporting is not None:
            seen = "never seen" if self.bad_age_s is None else f"last seen {_ago(self.bad_age_s)}"
            ratio = "" if self.bad_ratio is None else f" ({100 * self.bad_ratio:.2g} %)"
            parts += [f"{self.exporting}/{self.stable + (self.canary or 0)} export total", f"bad {seen}{ratio}"]
        if self.foreseen:
            parts.append(self.foreseen.known)
        if self.scrape_s:
            parts.append(f"scrape {self.scrape_s:g} s")
        if self.foreseen:
            parts.append(self.foreseen.time)
        others = len(self.workloads) - _MOST_WORKLOADS_NAMED
        more = f" and {others} more" if others > 0 else ""
        about = ", ".join(self.workloads[:_MOST_WORKLOADS_NAMED])
        return [f"{self.policy}: {', '.join(parts)}", f"  watches {about}{more}"]


async def look(parts: Parts) -> tuple[list[PolicyPreview], list[str]]:
    """What every policy sees, and what is wrong with that; never raises for what cannot be read."""
    policies = parts.config.policies
    deployments: list[Deployment] = []
    pods: dict[WorkloadRef, Set[Pod]] = {}
    problems: list[str] = []
    for namespace in sorted({name for policy in policies for name in policy.namespaces}):
        try:
            deployments += await parts.deployments(namespace)
            pods |= await _pods(parts, namespace)
        except ClusterError as error:
            problems.append(str(error))
    matches, wrong = match_all(policies, deployments)
    problems += wrong
    client = await parts.prometheus() if parts.config.prometheus.url else None
    sights = []
    for policy in policies:
        mine = {ref: pods.get(ref, set()) for ref, match in matches.items() if match.policy is policy}
        canary = [len(mine[ref]) for ref in mine if matches[ref].side is WorkloadRole.CANDIDATE]
        base = PolicyPreview(
            policy=policy.name,
            workloads=tuple(str(ref) for ref in sorted(mine)),
            stable=sum(map(len, mine.values())) - sum(canary),
            canary=sum(canary) if policy.candidate else None,
        )
        if mine and (client is None or not policy.signals):
            sights.append(base)
        for name, signal in policy.signals.items():
            if client is None or not mine:
                break
            title = f"{policy.name}.{name}" if len(policy.signals) > 1 else policy.name
            found = await _see(parts, client, signal, mine, msgspec.structs.replace(base, policy=title))
            if isinstance(found, Blind):
                problems.append(f"{title}: {found.reason}: {found.detail}")
                continue
            foreseen = await foresee(
                parts.signals(client),
                policy,
                signal,
                {ref: matches[ref] for ref in mine},
                {item.ref: item for item in deployments},
                mine,
                step_s=parts.config.prometheus.step,
                usual=found.bad_ratio or 0.0,
            )
            sights.append(msgspec.structs.replace(found, foreseen=foreseen))
    return sights, problems


async def _see(
    parts: Parts, client: PrometheusClient, signal: Signal, pods: Mapping[WorkloadRef, Set[Pod]], base: PolicyPreview
) -> PolicyPreview | Blind:
    timeout_s = parts.config.prometheus.timeout
    everything = set().union(*pods.values())
    namespaces = {ref.namespace for ref in pods}
    named = [name for _, name in everything] if len(everything) < FEW_PODS and not signal.join else ()
    now = time.time()
    reading = await parts.signals(client).read(
        query_of(signal, namespaces, named), step=math.floor(now / parts.config.prometheus.step), timeout_s=timeout_s
    )
    if reading.blind:
        return reading.blind
    rows = [sample.row for sample in reading.samples if sample.total is not None]
    if signal.join:
        exporting = len({row.instance for row in rows if row.label in (signal.candidate, signal.stable)})
    else:
        exporting = len({(row.namespace, row.pod) for row in rows} & everything)
    if everything and not exporting:
        return Blind(BlindReason.STALE, "no pod has a series of `total`: correct it, or let the pods be scraped")
    near = [in_list("namespace", sorted(namespaces))]
    if not signal.join:  # of pods that are gone, too
        near.append(("pod", "=~", "|".join(f"{ref.name.replace('.', '[.]')}-.+" for ref in sorted(pods))))
    bad, total = (parse(text).text(*near) for text in (signal.bad or signal.good, signal.total))
    values = []
    for expression in (
        f"max(timestamp({bad}) or max_over_time(timestamp({bad})[7d:5m]))",
        f"sum(increase({bad}[1d]))",
        f"sum(increase({total}[1d]))",
    ):
        found = await client.query(expression, timeout_s=timeout_s)
        if isinstance(found, Blind):
            return found
        values.append(found[0].value if found else None)
    seen_at, counted, requests = values
    share = (counted or 0.0) / requests if requests else None
    return msgspec.structs.replace(
        base,
        exporting=exporting,
        bad_age_s=None if seen_at is None else max(0.0, now - seen_at),
        bad_ratio=1 - share if share is not None and signal.good else share,
        scrape_s=await scrape_interval(client, total, timeout_s=timeout_s),
    )


async def _pods(parts: Parts, namespace: str) -> dict[WorkloadRef, Set[Pod]]:
    """The pods of every Deployment of a namespace, by who owns them."""
    everything = LabelSelector()
    sets = await parts.cluster.replicasets(namespace, everything, timeout_s=parts.request_s)
    names = {item.metadata.uid: _owner(item.metadata).name for item in sets}
    found: dict[WorkloadRef, set[Pod]] = {}
    for pod in await parts.cluster.pods(namespace, everything, timeout_s=parts.request_s):
        name = names.get(_owner(pod.metadata).uid)
        if name and not pod.metadata.deletion_timestamp:
            found.setdefault(WorkloadRef(namespace, name), set()).add((namespace, pod.metadata.name))
    return dict(found)


def _owner(metadata: Metadata) -> OwnerReference:
    return next((owner for owner in metadata.owner_references if owner.controller), OwnerReference(uid=""))


def _ago(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 10 * 60 and seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return "now"
