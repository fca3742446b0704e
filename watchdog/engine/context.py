"""What the loops of the service share: its parts, its records, and the one way to change a record."""

import asyncio
import datetime as dt
import logging
from collections.abc import Callable, Iterable

import msgspec

from watchdog.config import Config
from watchdog.decide.record import Record, State, Written
from watchdog.engine import wording
from watchdog.engine.act import Actor
from watchdog.engine.fleet import Fleet
from watchdog.engine.switching import Switcher
from watchdog.errors import ClusterError
from watchdog.metrics import Channel, Delivery, Metrics
from watchdog.model import EventReason, IncidentId
from watchdog.objects import Deployment, WorkloadRef
from watchdog.ports import AlertSource, Cluster, Notifier, Signals, Store

_log = logging.getLogger(__name__)


class Ports(msgspec.Struct, frozen=True):
    """The outside. `signals`, `alerts` and `notifier` are None where nothing of the kind is configured.

    `switcher` is None where no policy is about a Service.
    """

    cluster: Cluster
    store: Store
    actor: Actor
    signals: Signals | None
    alerts: AlertSource | None
    notifier: Notifier | None
    switcher: Switcher | None = None


class Context:
    """The service's memory of records, and its parts.

    Every change of a record goes through `put`, which keeps the newest in memory and saves it. What could not be
    saved is saved again with the next step: nothing waits for the store that has to be quick.

    Args:
        config: the configuration.
        ports: the outside.
        metrics: what is counted.
        now: the wall clock, with a time zone.
    """

    def __init__(self, config: Config, ports: Ports, metrics: Metrics, *, now: Callable[[], dt.datetime]) -> None:
        self.config = config
        self.ports = ports
        self.metrics = metrics
        self.now = now
        self.fleet = Fleet(config.policies)
        self.records: dict[IncidentId, Record] = {}
        self.request_s = float(config.kubernetes.request_timeout)
        self.tell: Callable[[Record], None] = lambda _: None
        self._unsaved: set[IncidentId] = set()
        self._locks: dict[IncidentId, asyncio.Lock] = {}

    def keep(self, record: Record) -> Record:
        """Make a record the newest of its rollout in memory; it is saved with the next step, or the next `put`."""
        self._unsaved.add(record.id)
        return self.remember(record)

    def remember(self, record: Record) -> Record:
        """Make a record the newest in memory, without a reason to save it; its blocks can be read anew.

        What came from outside while somebody held an older state of it stays: the message, and posted evaluations.
        """
        before = self.records.get(record.id)
        if before and len(before.evaluations) > len(record.evaluations):
            record = msgspec.structs.replace(record, evaluations=before.evaluations)
        if before and before.told and not record.told:
            record = msgspec.structs.replace(record, told=before.told)
        self.records[record.id] = record
        if before is None or before.state is not record.state or before.outcome is not record.outcome:
            fields = {"incident": record.id, "workload": str(record.workload), "event": f"rollout-{record.state}"}
            _log.info("%s", record.detail or record.state, extra=fields)
        return record

    async def put(self, record: Record) -> Record:
        """Make a record the newest of its rollout, save it, and have people told of it."""
        record = self.keep(record)
        await self._save(record.id)
        self.tell(record)
        return record

    async def save(self, incident: IncidentId) -> None:
        """Save a record now."""
        self._unsaved.add(incident)
        await self._save(incident)

    def forget(self, incidents: Iterable[IncidentId]) -> None:
        """Drop records that are kept nowhere any more."""
        for incident in incidents:
            for memory in (self.records, self._locks):
                memory.pop(incident, None)
            self._unsaved.discard(incident)

    async def save_rest(self) -> None:
        """Save what could not be saved before."""
        for incident in tuple(self._unsaved):
            await self._save(incident)

    async def _save(self, incident: IncidentId) -> None:
        async with self._locks.setdefault(incident, asyncio.Lock()):
            record = self.records.get(incident)
            if record is None or incident not in self._unsaved:
                return
            self._unsaved.discard(incident)
            try:
                await self.ports.store.save(record, timeout_s=self.request_s)
            except ClusterError as error:
                self._unsaved.add(incident)
                fields = {"event": "record-not-saved", "incident": incident}
                _log.warning("record not saved, will be again: %s", error, extra=fields)

    async def note(
        self, record: Record, reason: EventReason, note: str, *, warning: bool = True, suffix: str = ""
    ) -> None:
        """Put an Event on the workload; it never stops anything."""
        deployment = self.fleet.deployments.get(record.workload)
        if deployment is None:
            return
        event = wording.rollout_event(record, reason, note, uid=record.rollout.uid, warning=warning, suffix=suffix)
        try:
            await self.ports.cluster.post_event(event, timeout_s=self.request_s)
            self.metrics.notification(Channel.EVENT, Delivery.SENT)
        except ClusterError as error:
            self.metrics.notification(Channel.EVENT, Delivery.FAILED)
            fields = {"event": "event-not-written", "workload": str(record.workload)}
            _log.warning("Event not written: %s", error, extra=fields)

    def others(self, record: Record) -> list[Record]:
        """Every other record."""
        return [other for other in self.records.values() if other.id != record.id]

    def open_of(self, ref: WorkloadRef) -> Record | None:
        """The record of the rollout of a workload that is under watch."""
        return next(
            (each for each in self.records.values() if each.workload == ref and each.state is not State.ENDED), None
        )

    def deployment(self, ref: WorkloadRef) -> Deployment | None:
        """A Deployment as it was last seen."""
        return self.fleet.deployments.get(ref)


def wrote(record: Record, what: str, *, at: dt.datetime) -> Record:
    """The record with one more write."""
    return msgspec.structs.replace(record, writes=(*record.writes, Written(at, what)))
