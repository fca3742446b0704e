"""Which Deployments are ours: policies against what is there, kept up to date by a watch per namespace.

A policy names workloads, or selects them by labels of their pod template. Never matched unless named are the watchdog
itself and `kube-*` namespaces; never at all what Argo Rollouts or Flagger drive, since they undo by themselves.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

import msgspec

from watchdog.config import Policy
from watchdog.decide import marks, templates
from watchdog.model import MANAGER, Topology
from watchdog.objects import Deployment, Service, ServiceRef, WorkloadRef
from watchdog.ports import Changed, Deleted, Listed

_log = logging.getLogger(__name__)

_POLICY = f"{marks.PREFIX}/policy"
_ARGO_ROLLOUTS = "rollout.argoproj.io/workload-generation"
_APP = "app.kubernetes.io/name"


class Side(StrEnum):
    """Which part a workload plays in its policy."""

    CANDIDATE = "candidate"
    STABLE = "stable"
    ALONE = "alone"
    COLOUR = "colour"


class Match(msgspec.Struct, frozen=True):
    """A workload's policy, and the part that it plays there.

    Args:
        policy: the one policy that matches it.
        side: its part.
        other: of a canary's candidate: the stable Deployment; of the stable one: the candidate; of a colour: the other.
    """

    policy: Policy
    side: Side
    other: WorkloadRef | None = None

    @property
    def topology(self) -> Topology:
        """How its rollouts are compared. A canary's stable Deployment is itself watched as rolling."""
        return _TOPOLOGIES.get(self.side, Topology.ROLLING)


_TOPOLOGIES = {Side.CANDIDATE: Topology.CANARY, Side.COLOUR: Topology.BLUE_GREEN}


class Fleet:
    """The Deployments of all watched namespaces, and whose they are.

    Args:
        policies: the policies.
    """

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.policies = policies
        self.namespaces = tuple(sorted({name for policy in policies for name in policy.namespaces}))
        self.deployments: dict[WorkloadRef, Deployment] = {}
        self.denied: set[str] = set()
        self.service_namespaces = tuple(sorted({name for each in policies if each.service for name in each.namespaces}))
        self.services: dict[ServiceRef, Service] = {}
        self.services_listed: set[str] = set()
        self.services_denied: set[str] = set()
        self._listed: set[str] = set()
        self._matches: dict[WorkloadRef, Match] = {}
        self.problems: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every namespace has been listed, but for those that may not be."""
        services = self.services_listed | self.services_denied
        return (self._listed | self.denied).issuperset(self.namespaces) and services.issuperset(self.service_namespaces)

    def give_up(self, namespace: str) -> tuple[WorkloadRef, ...]:
        """Go on without a namespace that may not be watched, as it was last seen."""
        self.denied.add(namespace)
        return ()

    def take(self, namespace: str, change: Listed | Changed | Deleted) -> tuple[WorkloadRef, ...]:
        """Take a change in, and give the workloads that may be affected."""
        if isinstance(change, Listed):
            gone = [ref for ref in self.deployments if ref.namespace == namespace]
            for ref in gone:
                del self.deployments[ref]
            self.deployments |= {item.ref: item for item in change.items}
            self._listed.add(namespace)
            self.denied.discard(namespace)
            touched = {*gone, *(item.ref for item in change.items)}
        else:
            touched = {change.item.ref}
            before = self.deployments.get(change.item.ref)
            if isinstance(change, Changed):
                self.deployments[change.item.ref] = change.item
            else:
                self.deployments.pop(change.item.ref, None)
            same = before is not None and isinstance(change, Changed) and _identity(before) == _identity(change.item)
            if same:
                return tuple(touched)
        self._match_all()
        return tuple(sorted(touched))

    def give_up_services(self, namespace: str) -> tuple[WorkloadRef, ...]:
        """Go on without the Services of a namespace that may not be watched."""
        self.services_denied.add(namespace)
        return ()

    def take_services(self, namespace: str, services: Mapping[str, Service]) -> tuple[WorkloadRef, ...]:
        """Take the Services of a namespace in, and give the workloads that may be affected."""
        rest = {ref: item for ref, item in self.services.items() if ref.namespace != namespace}
        self.services = rest | {item.ref: item for item in services.values()}
        self.services_listed.add(namespace)
        return tuple(
            sorted(
                ref for ref, each in self._matches.items() if each.side is Side.COLOUR and ref.namespace == namespace
            )
        )

    def has_traffic(self, ref: WorkloadRef) -> bool:
        """Whether a workload gets traffic as far as policies tell: a colour only from its Service."""
        match, deployment = self._matches.get(ref), self.deployments.get(ref)
        if match is None or match.side is not Side.COLOUR or deployment is None:
            return True
        service = self.services.get(ServiceRef(ref.namespace, match.policy.service))
        return service is not None and service.selects(templates.labels(deployment.spec.template))

    def match(self, ref: WorkloadRef) -> Match | None:
        """The one policy that is about a workload."""
        return self._matches.get(ref)

    def matched(self) -> Mapping[WorkloadRef, Match]:
        """Every matched workload."""
        return self._matches

    def _match_all(self) -> None:
        found, problems = match_all(self.policies, self.deployments.values())
        self._matches = found
        if self.complete and problems != self.problems:
            self.problems = problems
            for problem in problems:
                _log.warning("%s", problem, extra={"event": "policy-problem"})


def match_all(
    policies: Sequence[Policy], deployments: Iterable[Deployment]
) -> tuple[dict[WorkloadRef, Match], tuple[str, ...]]:
    """Which policy is about which Deployment, and what is wrong with that: nothing matched, two matched, refused."""
    there = sorted(deployments, key=lambda item: item.ref)
    found: dict[WorkloadRef, Match] = {}
    doubled: set[WorkloadRef] = set()
    problems: list[str] = []
    for policy in policies:
        matches, wrong = _match_one(policy, there)
        problems += wrong
        if not matches:
            problems.append(f"policy {policy.name!r} matches nothing in {', '.join(policy.namespaces)}")
        for ref, match in matches.items():
            if ref in found:
                doubled.add(ref)
                problems.append(
                    f"{ref} matches two policies, {found[ref].policy.name!r} and {policy.name!r}, and is left alone;"
                    " narrow one of them"
                )
            found[ref] = match
    return {ref: match for ref, match in found.items() if ref not in doubled}, tuple(problems)


def _match_one(policy: Policy, there: Sequence[Deployment]) -> tuple[dict[WorkloadRef, Match], list[str]]:
    problems: list[str] = []
    mine = []
    for item in there:
        if item.ref.namespace not in policy.namespaces or not _meant(policy, item):
            continue
        if refusal := _driven_by_others(item):
            problems.append(f"{item.ref}: {refusal}")
        else:
            mine.append(item)
    if policy.service:
        return _colours(policy, mine, problems)
    if not policy.candidate:
        return {item.ref: Match(policy, Side.ALONE) for item in mine}, problems
    found: dict[WorkloadRef, Match] = {}
    for namespace in policy.namespaces:
        sides = {}
        for side, text in ((Side.CANDIDATE, policy.candidate), (Side.STABLE, policy.stable)):
            items = [item for item in mine if item.ref.namespace == namespace and _is(text, item)]
            if len(items) == 1:
                sides[side] = items[0].ref
            elif items:
                names = ", ".join(item.ref.name for item in items)
                problems.append(
                    f"policy {policy.name!r}: {side} = {text!r} matches {names} in {namespace}; must be one"
                )
        if len(sides) == 2:
            candidate, stable = sides[Side.CANDIDATE], sides[Side.STABLE]
            found[candidate] = Match(policy, Side.CANDIDATE, stable)
            found[stable] = Match(policy, Side.STABLE, candidate)
        elif sides:
            missing = "stable" if Side.CANDIDATE in sides else "candidate"
            problems.append(f"policy {policy.name!r}: there is no {missing} Deployment in {namespace}")
    return found, problems


def _colours(
    policy: Policy, mine: Sequence[Deployment], problems: list[str]
) -> tuple[dict[WorkloadRef, Match], list[str]]:
    """Both colours of a blue-green policy, where both are there."""
    found: dict[WorkloadRef, Match] = {}
    for namespace in policy.namespaces:
        there = [item.ref for item in mine if item.ref.namespace == namespace]
        if len(there) == 2:
            found |= {ref: Match(policy, Side.COLOUR, other) for ref, other in (there, there[::-1])}
        elif there:
            missing = ", ".join(sorted({*policy.workloads} - {ref.name for ref in there}))
            problems.append(f"policy {policy.name!r}: there is no Deployment {missing} in {namespace}")
    return found, problems


def _meant(policy: Policy, item: Deployment) -> bool:
    """Whether a policy means a Deployment by name, by selector, or because it means all."""
    if policy.opt_in and item.metadata.annotations.get(_POLICY) != policy.name:
        return False
    if policy.candidate:
        return _is(policy.candidate, item) or _is(policy.stable, item)
    if policy.workloads:
        return item.ref.name in policy.workloads
    return item.metadata.labels.get(_APP) != MANAGER and item.ref.name != MANAGER


def _is(text: str, item: Deployment) -> bool:
    """Whether a name or a selector on pod-template labels means a Deployment."""
    if "=" not in text:
        return item.ref.name == text
    wanted = dict(part.strip().split("=", 1) for part in text.split(","))
    labels = templates.labels(item.spec.template)
    return all(labels.get(key) == value for key, value in wanted.items())


def _driven_by_others(item: Deployment) -> str:
    if _ARGO_ROLLOUTS in item.metadata.annotations:
        return "an Argo Rollout refers to it and does its own rollbacks; it is not watched"
    for owner in item.metadata.owner_references:
        if owner.kind in ("Canary", "Rollout"):
            return f"{owner.kind} {owner.name} drives it and does its own rollbacks; it is not watched"
    return ""


def _identity(item: Deployment) -> object:
    """What matching looks at; everything else may change without matching anew."""
    annotations = item.metadata.annotations
    return (
        item.metadata.labels.get(_APP),
        annotations.get(_POLICY),
        _ARGO_ROLLOUTS in annotations,
        item.metadata.owner_references,
        bytes(item.spec.template),
    )
