"""Which rollouts there were: each ReplicaSet is one, at the time at which it was created.

Those that are there come from the API server, with every revision number they ever had; those that
`revisionHistoryLimit` has removed from kube-state-metrics, where it is scraped. An undo creates no ReplicaSet: it shows
as the end of the rollout that it undid.
"""

import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from watchdog.config import Policy
from watchdog.decide import marks
from watchdog.decide.revisions import read_history
from watchdog.model import Topology
from watchdog.objects import ReplicaSet, Snapshot, TemplateHash, WorkloadRef

REVISIONS_BEFORE = "deployment.kubernetes.io/revision-history"
"""Numbers that a ReplicaSet had before it was gone back to, with commas; the controller's own annotation."""

_HASH = re.compile(r"[0-9a-z]{1,10}")
_FIRST_S = 60.0
"""A ReplicaSet as old as its Deployment replaced nothing."""


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One ReplicaSet.

    Args:
        name: of the ReplicaSet.
        created: when, in seconds since the epoch.
        revisions: all numbers that it ever had; none where it is gone.
    """

    name: str
    created: float
    revisions: tuple[int, ...] = ()

    @property
    def hash(self) -> TemplateHash:
        """The pod-template-hash, with which the controller ends the name."""
        return TemplateHash(self.name.rpartition("-")[2])


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A workload, and how its rollouts are judged.

    Args:
        workload: whose rollouts.
        policy: the one policy that matches it.
        topology: what they are compared with.
        stable: the Deployment whose pods are the stable track; of a rolling update the workload itself.
        strategy: the Deployment's, as it is today.
    """

    workload: WorkloadRef
    policy: Policy
    topology: Topology
    stable: WorkloadRef
    strategy: str = "RollingUpdate"

    @property
    def refs(self) -> tuple[WorkloadRef, ...]:
        """Whose pods count."""
        return tuple(dict.fromkeys((self.workload, self.stable)))


class PastRollout(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout of the past.

    Args:
        version: what was rolled out.
        until: when it was over at the latest: the next rollout, the longest watch, or now.
        returned: the revision numbers say that the next rollout went back to an older version.
        undone: when a mark of the watchdog says that it was undone.
        condemned: versions of the workload that are known to have been undone: no pattern of what is usual.
    """

    subject: Subject
    version: Version
    until: float
    returned: bool = False
    undone: float | None = None
    condemned: frozenset[str] = frozenset()

    @property
    def started(self) -> float:
        """When it began."""
        return self.version.created

    @property
    def name(self) -> str:
        """What a person calls it."""
        number = f" revision {self.version.revisions[0]}" if self.version.revisions else ""
        return f"{self.subject.workload}{number} ({self.version.hash})"


def replicaset_of(pod: str, *refs: WorkloadRef) -> str:
    """Give the ReplicaSet that a pod's name tells, if it is of one of these Deployments; else nothing."""
    owner, _, suffix = pod.rpartition("-")
    deployment, _, about = owner.rpartition("-")
    mine = any(deployment == ref.name for ref in refs) and len(suffix) == 5 and _HASH.fullmatch(about)
    return owner if mine else ""


def versions(snapshot: Snapshot, gone: Mapping[str, float]) -> tuple[Version, ...]:
    """Give every version of a Deployment that is known, oldest first.

    Args:
        snapshot: what the API server has.
        gone: creation times by name, of kube-state-metrics, of all ReplicaSets of this Deployment.
    """
    there = {
        item.metadata.name: Version(
            name=item.metadata.name,
            created=item.metadata.creation_timestamp.timestamp(),
            revisions=_numbers(item),
        )
        for item in read_history(snapshot).all
        if item.metadata.creation_timestamp
    }
    lost = {name: Version(name=name, created=created) for name, created in gone.items() if name not in there}
    return tuple(sorted((there | lost).values(), key=lambda each: (each.created, each.name)))


def rollouts(
    subject: Subject, snapshot: Snapshot, found: Sequence[Version], *, since: float, now: float
) -> list[PastRollout]:
    """Give the rollouts that began since a time; the first version of a Deployment replaced none and is left out."""
    mark = marks.read_last_rollback(
        snapshot.deployment.metadata.annotations, now=dt.datetime.fromtimestamp(now, dt.UTC)
    )
    by_number = {number: version for version in found for number in version.revisions}
    born = snapshot.deployment.metadata.creation_timestamp
    result = []
    condemned = {each.metadata.name for each in snapshot.replicasets if marks.condemned_by(each)}
    returned = condemned | {version.name for version in found if _returned(version, by_number)}
    if mark:
        returned |= {version.name for version in found if version.hash == mark.from_hash}
    for index, version in enumerate(found):
        first = index == 0 and born is not None and version.created - born.timestamp() < _FIRST_S
        if first or version.created < since or version.created > now:
            continue
        following = min((each.created for each in found[index + 1 :]), default=now)
        undone = mark.at.timestamp() if mark and mark.from_hash == version.hash else None
        result.append(
            PastRollout(
                subject=subject,
                version=version,
                until=min(following, now, version.created + subject.policy.max_watch),
                returned=version.name in returned,
                undone=undone if undone is not None and undone > version.created else None,
                condemned=frozenset(returned - {version.name}),
            )
        )
    return result


def _numbers(item: ReplicaSet) -> tuple[int, ...]:
    before = item.metadata.annotations.get(REVISIONS_BEFORE, "").split(",")
    now = (item.revision,) if item.revision is not None else ()
    return tuple(sorted({*now, *(int(each) for each in before if each.isdecimal())}))


def _returned(version: Version, by_number: Mapping[int, Version]) -> bool:
    """Whether what followed a version was an older one."""
    following = (by_number.get(number + 1) for number in version.revisions[:1])
    return any(each is not None and each.created < version.created for each in following)


def gone(
    created: Iterable[tuple[Mapping[str, str], float]], owners: Iterable[Mapping[str, str]]
) -> dict[WorkloadRef, dict[str, float]]:
    """Give the ReplicaSets that kube-state-metrics knew, with their creation times, by Deployment.

    Args:
        created: labels and value of `kube_replicaset_created`.
        owners: labels of `kube_replicaset_owner`.
    """
    times = {(labels.get("namespace", ""), labels.get("replicaset", "")): at for labels, at in created}
    found: dict[WorkloadRef, dict[str, float]] = {}
    for labels in owners:
        key = labels.get("namespace", ""), labels.get("replicaset", "")
        if key in times:
            found.setdefault(WorkloadRef(key[0], labels.get("owner_name", "")), {})[key[1]] = times[key]
    return found
