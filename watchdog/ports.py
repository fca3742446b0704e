"""What the engine needs from outside. The adapters implement it; tests may too, at this seam only."""

import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol

import msgspec

from watchdog.decide.record import Notified, Record
from watchdog.judge.blocks import Reading, Sample, ScrapeTarget
from watchdog.model import Alert, Event, IncidentId, Silence
from watchdog.objects import (
    Autoscaler,
    Deployment,
    LabelSelector,
    Pod,
    ReplicaSet,
    Service,
    WorkloadRef,
)
from watchdog.selectors import narrows, parse


class Cluster(Protocol):
    """A Kubernetes cluster, as far as acting on a workload needs it.

    Every method raises a `watchdog.errors.ClusterError`, `Unanswered` after at most `timeout_s` seconds.
    """

    async def deployment(self, ref: WorkloadRef, *, timeout_s: float) -> Deployment:
        """Read one Deployment, not from a cache."""

    async def replicasets(self, namespace: str, selector: LabelSelector, *, timeout_s: float) -> tuple[ReplicaSet, ...]:
        """List the ReplicaSets that a selector finds, whoever owns them."""

    async def pods(self, namespace: str, selector: LabelSelector, *, timeout_s: float) -> tuple[Pod, ...]:
        """List the pods that a selector finds."""

    async def autoscalers(self, namespace: str, *, timeout_s: float) -> tuple[Autoscaler, ...]:
        """List the HorizontalPodAutoscalers of a namespace."""

    async def patch_deployment(self, ref: WorkloadRef, patch: bytes, *, dry_run: bool, timeout_s: float) -> Deployment:
        """Apply one JSON patch and give the Deployment as it is then.

        Raises:
            Unanswered: it is not known whether the patch was applied.
            PreconditionFailed, Conflict: it was not, because something had changed.
        """

    async def patch_replicaset(self, namespace: str, name: str, patch: bytes, *, timeout_s: float) -> None:
        """Apply one JSON patch to a ReplicaSet."""

    async def post_event(self, event: Event, *, timeout_s: float) -> None:
        """Put an Event on a Deployment; one that is there already is no error."""

    def follow(self, ref: WorkloadRef) -> AsyncGenerator[Deployment | None, None]:
        """Give the Deployment as it is, then after every change; None where it does not exist.

        Goes on through every fault of the connection: the caller sets the deadline and closes the generator.
        """


class Listed(msgspec.Struct, frozen=True):
    """Everything there is: what is not in it is gone."""

    items: tuple[Deployment, ...]


class Changed(msgspec.Struct, frozen=True):
    """One Deployment is new or has changed."""

    item: Deployment


class Deleted(msgspec.Struct, frozen=True):
    """One Deployment is gone; this is how it was."""

    item: Deployment


class DeploymentWatch(Protocol):
    """Where Deployments are seen to change."""

    def watch(self, namespace: str) -> AsyncGenerator[Listed | Changed | Deleted, None]:
        """Give all Deployments of a namespace, then every change; raises `Denied` where that is not allowed."""


class Services(Protocol):
    """Services, as far as blue-green needs them. Every method but the watch has a deadline, and raises as `Cluster`."""

    async def service(self, ref: WorkloadRef, *, timeout_s: float) -> Service:
        """Read one Service, not from a cache."""

    async def patch_service(self, ref: WorkloadRef, patch: bytes, *, timeout_s: float) -> Service:
        """Apply one JSON patch and give the Service as it is then. Raises as `Cluster.patch_deployment`."""

    def watch_services(self, namespace: str) -> AsyncGenerator[Mapping[str, Service], None]:
        """Give all Services of a namespace by name, as they are and after every change; raises `Denied`."""


class SignalQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for one signal, of all workloads that share it.

    Args:
        bad: instant-vector selector of the failures; or of the successes, where `good` is set.
        total: instant-vector selector of the requests.
        good: `bad` selects what succeeded: the failures are the difference.
        join: label whose value tells the tracks apart, where series carry no pod label; empty otherwise.
        namespaces: where; sorted, never empty.
        pods: which pods; sorted; without them and `workloads` all of those namespaces.
        workloads: names of Deployments whose pods are meant as well, those of before too.
        targets: the pods of both tracks as they are now, for a source that reads from them directly.
    """

    bad: str
    total: str
    good: bool = False
    join: str = ""
    namespaces: tuple[str, ...]
    pods: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    targets: tuple[Pod, ...] = ()

    @property
    def within_total(self) -> bool:
        """Whether `bad` is `total` plus matchers: where it is absent beside `total`, it is none."""
        return narrows(parse(self.bad), parse(self.total))

    def sample(self, row: ScrapeTarget, *, total: float | None, bad: float | None, at: float | None) -> Sample:
        """What a row showed, as requests and failures; without a number where one of them is NaN.

        Args:
            total: what `total` selects; None where that is nothing.
            bad: what `bad` selects.
            at: when, in seconds since the epoch.
        """
        if any(value is not None and math.isnan(value) for value in (total, bad, at)):
            return Sample(row, None, None)  # blinds the workload of this row, and no other
        if self.good:
            # Successes that are absent are none, if they are the total's own series; else nobody knows.
            good = 0.0 if bad is None and self.within_total else bad
            bad = None if total is None or good is None else total - good
        return Sample(row, total, bad, at)


class Signals(Protocol):
    """Where counters are read. Nothing here raises for a bad answer: it comes back as `Blind`, typed."""

    async def read(self, query: SignalQuery, *, step: int, timeout_s: float) -> Reading:
        """Read all rows at one step of the grid."""

    async def read_past(
        self, query: SignalQuery, *, first: int, last: int, every: int = 1, timeout_s: float
    ) -> tuple[Reading, ...]:
        """Read the same at steps from `first` to `last`, both included, with one query per selector.

        Of `every` so many steps one is read, `first` being one of them. What it gives for a past step is what `read`
        gave at that step. One blind Reading per step where the answer cannot be used, or where this source
        knows nothing of that step.
        """

    async def resets(
        self, query: SignalQuery, *, step: int, window_s: float, timeout_s: float
    ) -> Mapping[ScrapeTarget, float]:
        """How often each row's total went down in the window before a step; empty where that is not known."""

    async def bad_seen(self, query: SignalQuery, *, step: int, timeout_s: float) -> bool:
        """Whether `bad` may be taken for 0 where it is absent.

        True if it is `total` plus matchers, or its metric was seen in these namespaces in the 7 days before.
        """

    async def onset(self, labels: Mapping[str, str], *, at: float, timeout_s: float) -> float | None:
        """When an alert's expression began to hold, from ALERTS_FOR_STATE; None where that is not known."""


class AlertView(msgspec.Struct, frozen=True):
    """What the Alertmanagers say now.

    Args:
        alerts: the firing ones, of all peers together; of equal fingerprints the newest.
        unreachable: peers that did not answer.
        trustworthy: whether absence means resolved: every peer answered, is up for 5 minutes and settled.
    """

    alerts: tuple[Alert, ...]
    unreachable: tuple[str, ...] = ()
    trustworthy: bool = False


class AlertSource(Protocol):
    """The Alertmanagers."""

    async def alerts(self, *, timeout_s: float) -> AlertView:
        """Ask every peer for what fires; never raises."""

    async def silences(self, *, timeout_s: float) -> tuple[Silence, ...] | None:
        """The active silences that name the alert `RollbackWatchdog`; None where no peer answers."""


class Store(Protocol):
    """Where records are kept."""

    async def all(self, *, timeout_s: float) -> tuple[Record, ...]:
        """Every record that can be read; one that cannot is logged and left alone. Raises `ClusterError`."""

    async def get(self, incident: IncidentId, *, timeout_s: float) -> Record | None:
        """One record. Raises `ClusterError`."""

    async def save(self, record: Record, *, timeout_s: float) -> None:
        """Create or replace a record, thinned to 64 KiB. Raises `ClusterError`."""

    async def prune(self, records: Sequence[Record], *, timeout_s: float) -> tuple[IncidentId, ...]:
        """Delete what need not be kept any more, and say what. Raises `ClusterError`."""


class Notifier(Protocol):
    """Where people are told."""

    async def tell(self, record: Record) -> Notified | None:
        """Post or update the one message of this record; None where there is nothing new to say.

        It may take as long as it must, is cancelled at shutdown, and finds its own earlier message before it posts
        a first one. Raises `NotificationError` where it has given up.
        """
