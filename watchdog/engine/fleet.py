"""Which Deployments are ours: policies against what is there, kept up to date by a watch per namespace.

A policy names workloads, or selects them by labels of their pod template. Never matched unless named are the watchdog
itself and `kube-*` namespaces; never at all what Argo Rollouts or Flagger drive, since they undo by themselves.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from itertools import islice

import msgspec

from watchdog.config import Policy
from watchdog.decide import marks, templates
from watchdog.model import MANAGER, Topology
from watchdog.objects import Deployment, Service, WorkloadRef
from watchdog.ports import Changed, Deleted, Listed

_log = logging.getLogger(__name__)

_POLICY = f"{marks.PREFIX}/policy"
_ARGO_ROLLOUTS = "rollout.argoproj.io/workload-generation"
_APP = "app.kubernetes.io/name"


class WorkloadRole(StrEnum):
    """Which part a workload plays in its policy."""

    CANDIDATE = "candidate"
    STABLE = "stable"
    ALONE = "alone"
    COLOUR = "colour"


class Match(msgspec.Struct, frozen=True):
    """A workload's policy, and the part that it plays there.

    Args:
        policy: the one policy that matches it.
        other: of a canary's candidate: the stable Deployment; of the stable one: the candidate; of a colour: the other.
    """

    policy: Policy
    side: WorkloadRole
    other: WorkloadRef | None = None

    @property
    def topology(self) -> Topology:
        """How its rollouts are compared. A canary's stable Deployment is itself watched as rolling."""
        return _TOPOLOGIES.get(self.side, Topology.ROLLING)


_OPPOSITE = {WorkloadRole.CANDIDATE: WorkloadRole.STABLE, WorkloadRole.STABLE: WorkloadRole.CANDIDATE}
_TOPOLOGIES = {WorkloadRole.CANDIDATE: Topology.CANARY, WorkloadRole.COLOUR: Topology.BLUE_GREEN}


class Fleet:
    """The Deployments of all watched namespaces, and whose they are."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.policies = policies
        self.namespaces = tuple(sorted({name for policy in policies for name in policy.namespaces}))
        self.deployments: dict[WorkloadRef, Deployment] = {}
        self.denied: set[str] = set()
        self.service_namespaces = tuple(sorted({name for each in policies if each.service for name in each.namespaces}))
        self.services: dict[WorkloadRef, Service] = {}
        self.services_listed: set[str] = set()
        self.services_denied: set[str] = set()
        self._listed: set[str] = set()
        self._places = _places(policies)
        self._matched: dict[WorkloadRef, Match] | None = None
        self.problems: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every namespace has been listed, but for those that may not be."""
        services = self.services_listed | self.services_denied
        return (self._listed | self.denied).issuperset(self.namespaces) and services.issuperset(self.service_namespaces)

    def unlisted(self) -> tuple[str, ...]:
        """Namespaces that nobody has listed or given up yet."""
        workloads = set(self.namespaces) - self._listed - self.denied
        services = set(self.service_namespaces) - self.services_listed - self.services_denied
        return tuple(sorted(workloads | services))

    def give_up(self, namespace: str) -> tuple[WorkloadRef, ...]:
        """Go on without a namespace that may not be watched, as it was last seen."""
        self.denied.add(namespace)
        self._tell_problems()
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
            place = self._places[namespace] = _Place(namespace, self.policies)
            for item in change.items:
                place.put(item)
            touched = {*gone, *(item.ref for item in change.items)}
        else:
            item, home = change.item, self._places.get(namespace)
            touched = {item.ref}
            before = self.deployments.pop(item.ref, None)
            if isinstance(change, Changed):
                self.deployments[item.ref] = item
                if before is not None and _identity(before) == _identity(item):
                    return (item.ref,)
            if home is not None:
                home.drop(item.ref)
                if isinstance(change, Changed):
                    home.put(item)
        self._matched = None
        self._tell_problems()
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
        place = self._places.get(namespace)
        return place.colours() if place else ()

    def has_traffic(self, ref: WorkloadRef) -> bool:
        """Whether a workload gets traffic as far as policies tell: a colour only from its Service."""
        match, deployment = self.match(ref), self.deployments.get(ref)
        if match is None or match.side is not WorkloadRole.COLOUR or deployment is None:
            return True
        service = self.services.get(WorkloadRef(ref.namespace, match.policy.service))
        return service is not None and service.selects(templates.labels(deployment.spec.template))

    def match(self, ref: WorkloadRef) -> Match | None:
        """The one policy that is about a workload."""
        place = self._places.get(ref.namespace)
        return place.match(ref) if place else None

    def matched(self) -> Mapping[WorkloadRef, Match]:
        """Every matched workload."""
        if self._matched is None:
            self._matched = _matches(self._places)
        return self._matched

    def _tell_problems(self) -> None:
        problems = _problems(self.policies, self._places) if self.complete else self.problems
        if problems != self.problems:
            self.problems = problems
            for problem in problems:
                _log.warning("%s", problem, extra={"event": "policy-problem"})


def match_all(
    policies: Sequence[Policy], deployments: Iterable[Deployment]
) -> tuple[dict[WorkloadRef, Match], tuple[str, ...]]:
    """Which policy is about which Deployment, and what is wrong with that: nothing matched, two matched, refused."""
    places = _places(policies)
    for item in sorted(deployments, key=lambda item: item.ref):
        if place := places.get(item.ref.namespace):
            place.put(item)
    return _matches(places), _problems(policies, places)


class _Place:
    """Who is meant in one namespace, kept up to date Deployment by Deployment.

    A change costs one look by each policy for the namespace, however many Deployments are there.

    Args:
        policies: of all namespaces.
    """

    def __init__(self, namespace: str, policies: Sequence[Policy]) -> None:
        self._namespace = namespace
        self._policies = {each.name: each for each in policies if namespace in each.namespaces}
        self._by_labels = any("=" in text for each in self._policies.values() for text in (each.candidate, each.stable))
        self._groups: defaultdict[tuple[str, WorkloadRole], dict[WorkloadRef, None]] = defaultdict(dict)
        self._parts: dict[WorkloadRef, tuple[tuple[str, WorkloadRole], ...]] = {}
        self._several: dict[WorkloadRef, None] = {}
        self._driven: dict[WorkloadRef, str] = {}

    def put(self, item: Deployment) -> None:
        """Take a Deployment in."""
        labels = templates.labels(item.spec.template) if self._by_labels else {}
        policies = self._policies.values()
        parts = tuple((policy.name, side) for policy in policies for side in _sides(policy, item, labels))
        if parts and (refusal := _driven_by_others(item)):
            self._driven[item.ref] = refusal
        elif parts:
            self._parts[item.ref] = parts
            for part in parts:
                self._groups[part][item.ref] = None
            if len(parts) > 1:
                self._several[item.ref] = None

    def drop(self, ref: WorkloadRef) -> None:
        """Forget a Deployment."""
        for part in self._parts.pop(ref, ()):
            del self._groups[part][ref]
        for memory in (self._several, self._driven):
            memory.pop(ref, None)

    def match(self, ref: WorkloadRef) -> Match | None:
        """The one policy that is about a workload."""
        found = self._all(ref)
        return found[0] if len(found) == 1 else None

    def matches(self) -> dict[WorkloadRef, Match]:
        """Every matched workload."""
        return {ref: match for ref in self._parts if (match := self.match(ref))}

    def colours(self) -> tuple[WorkloadRef, ...]:
        """The matched workloads that are one of two colours."""
        refs = (ref for (_, side), group in self._groups.items() if side is WorkloadRole.COLOUR for ref in group)
        return tuple(sorted(ref for ref in refs if self.match(ref)))

    def means(self, policy: Policy) -> bool:
        """Whether a policy is about anything here."""
        return any(self._match(policy, side, ref) for side in WorkloadRole for ref in self._some(policy, side))

    def problems(self, policy: Policy) -> list[str]:
        """What is wrong with a policy here."""
        if policy.service:
            there = self._groups[policy.name, WorkloadRole.COLOUR]
            missing = ", ".join(sorted({*policy.workloads} - {ref.name for ref in there}))
            absent = f"policy {policy.name!r}: there is no Deployment {missing} in {self._namespace}"
            return [absent] if len(there) == 1 else []
        if not policy.candidate:
            return []
        problems, counts = list[str](), dict[WorkloadRole, int]()
        for side, text in ((WorkloadRole.CANDIDATE, policy.candidate), (WorkloadRole.STABLE, policy.stable)):
            group = self._groups[policy.name, side]
            counts[side] = len(group)
            if len(group) > 1:
                names = ", ".join(ref.name for ref in sorted(group))
                where = f"{names} in {self._namespace}"
                problems.append(f"policy {policy.name!r}: {side} = {text!r} matches {where}; must be one")
        if sorted(each == 1 for each in counts.values()) == [False, True]:
            missing = next(side for side, count in counts.items() if count != 1)
            problems.append(f"policy {policy.name!r}: there is no {missing} Deployment in {self._namespace}")
        return problems

    def left_alone(self) -> list[str]:
        """What is meant and yet not watched: another tool undoes it, or two policies are about it."""
        problems = [f"{ref}: {why}" for ref, why in sorted(self._driven.items())]
        for ref in sorted(self._several):
            if len(found := self._all(ref)) > 1:
                one, other = found[0].policy.name, found[1].policy.name
                problems.append(
                    f"{ref} matches two policies, {one!r} and {other!r}, and is left alone; narrow one of them"
                )
        return problems

    def _all(self, ref: WorkloadRef) -> list[Match]:
        """What each policy makes of a workload."""
        found = {
            name: match
            for name, side in self._parts.get(ref, ())
            if (match := self._match(self._policies[name], side, ref))
        }
        return list(found.values())

    def _match(self, policy: Policy, side: WorkloadRole, ref: WorkloadRef) -> Match | None:
        if side is WorkloadRole.ALONE:
            return Match(policy, side)
        if side is WorkloadRole.COLOUR:
            others = [each for each in self._groups[policy.name, side] if each != ref]
            return Match(policy, side, others[0]) if len(others) == 1 else None
        mine, theirs = self._groups[policy.name, side], self._groups[policy.name, _OPPOSITE[side]]
        return Match(policy, side, next(iter(theirs))) if len(mine) == len(theirs) == 1 else None

    def _some(self, policy: Policy, side: WorkloadRole) -> Iterable[WorkloadRef]:
        """One of a group suffices to know whether it is complete."""
        return islice(self._groups.get((policy.name, side), ()), 1)


def _places(policies: Sequence[Policy]) -> dict[str, _Place]:
    names = dict.fromkeys(name for policy in policies for name in policy.namespaces)
    return {name: _Place(name, policies) for name in names}


def _matches(places: Mapping[str, _Place]) -> dict[WorkloadRef, Match]:
    return {ref: match for place in places.values() for ref, match in place.matches().items()}


def _problems(policies: Sequence[Policy], places: Mapping[str, _Place]) -> tuple[str, ...]:
    problems = [each for place in places.values() for each in place.left_alone()]
    for policy in policies:
        mine = [places[name] for name in dict.fromkeys(policy.namespaces)]
        for place in mine:
            problems += place.problems(policy)
        if not any(place.means(policy) for place in mine):
            problems.append(f"policy {policy.name!r} matches nothing in {', '.join(policy.namespaces)}")
    return tuple(problems)


def _sides(policy: Policy, item: Deployment, labels: Mapping[str, str]) -> tuple[WorkloadRole, ...]:
    """Which parts of a policy a Deployment may play, by itself."""
    if policy.opt_in and item.metadata.annotations.get(_POLICY) != policy.name:
        return ()
    if policy.candidate and not policy.service:
        texts = ((WorkloadRole.CANDIDATE, policy.candidate), (WorkloadRole.STABLE, policy.stable))
        return tuple(side for side, text in texts if _is(text, item, labels))
    if policy.workloads:
        meant = item.ref.name in policy.workloads
    else:
        meant = item.metadata.labels.get(_APP) != MANAGER and item.ref.name != MANAGER
    side = WorkloadRole.COLOUR if policy.service else WorkloadRole.ALONE
    return (side,) if meant else ()


def _is(text: str, item: Deployment, labels: Mapping[str, str]) -> bool:
    """Whether a name or a selector on pod-template labels means a Deployment."""
    if "=" not in text:
        return item.ref.name == text
    wanted = dict(part.strip().split("=", 1) for part in text.split(","))
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
