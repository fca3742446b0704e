"""What the loops of the service share: its parts, its records, and the one way to change a record."""

import asyncio
import datetime as dt
import logging
import secrets
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from watchdog.config import Config
from watchdog.decide import incident as life
from watchdog.decide import marks
from watchdog.decide.record import BEFORE_ACTING, Record, State, Written, restored, thinned
from watchdog.engine import wording
from watchdog.engine.act import Actor
from watchdog.engine.faults import Faults, growing
from watchdog.engine.fleet import Fleet
from watchdog.engine.observer import Observer
from watchdog.engine.switching import Switcher
from watchdog.engine.watch import Key, Watch
from watchdog.engine.writes import Aftermath
from watchdog.errors import ClusterError
from watchdog.metrics import Channel, Delivery, Metrics, Part
from watchdog.model import EventReason, IncidentId, Mode, Silence
from watchdog.objects import Deployment, WorkloadRef
from watchdog.ports import AlertSource, Cluster, Notifier, Signals, Store

_log = logging.getLogger(__name__)

_SAVED_AT_ONCE = 8
_LONGEST_PAUSE_S = 30.0
_SETTLES_S = 2.0
_ENDS_AGAIN_S = 0.5
_PROOFS = 8

T = TypeVar("T")


class Ports(msgspec.Struct, frozen=True):
    """The outside. `signals` and `alerts` are None where nothing of the kind is configured.

    `switcher` is None where no policy is about a Service.
    """

    cluster: Cluster
    store: Store
    actor: Actor
    signals: Signals | None
    alerts: AlertSource | None
    channels: Mapping[Channel, Notifier]
    switcher: Switcher | None = None


class Context:
    """The service's memory of records, and its parts.

    Every change of a record goes through `put`: the newest state is in memory at once, and is saved behind everybody's
    back, at most eight records at a time, again and again until the store takes it. Nothing waits for the store.

    Memory holds of a record what is decided by. The blocks of a rollout under watch stand in its watch alone, and join
    the record where it is saved; what is long of one that has ended stands in the store alone (`complete`).

    Args:
        now: the wall clock, with a time zone.
    """

    def __init__(self, config: Config, ports: Ports, metrics: Metrics, *, now: Callable[[], dt.datetime]) -> None:
        self.config = config
        self.ports = ports
        self.metrics = metrics
        self.faults = Faults(metrics)
        self.now = now
        self.fleet = Fleet(config.policies)
        self.request_s = float(config.kubernetes.request_timeout)
        self.observer = Observer(ports.cluster, self.fleet, request_s=self.request_s)
        self.records: dict[IncidentId, Record] = {}
        self.silences: tuple[Silence, ...] | None = None
        """The active silences that name the watchdog, as they were last told; None where nobody tells of them."""
        self.untold: dict[IncidentId, None] = {}
        """The records that people are to be told of."""
        self.news = asyncio.Event()
        """Set whenever `untold` has more."""
        self.watches: dict[Key, Watch] = {}
        """The numbers of the rollouts under watch; the poller makes and feeds them."""
        self._open: dict[WorkloadRef, IncidentId] = {}
        self._by_workload: dict[WorkloadRef, dict[IncidentId, None]] = {}
        self._nonces: dict[IncidentId, str] = {}
        self._claimed: set[IncidentId] = set()
        self._group: asyncio.TaskGroup | None = None
        self._unsaved: dict[IncidentId, None] = {}
        self._some = asyncio.Event()
        self._locks: dict[IncidentId, asyncio.Lock] = {}
        self._thin: set[IncidentId] = set()
        self._failures: dict[IncidentId, int] = {}

    # -- tasks ---------------------------------------------------------------------------------------------------------

    def works_in(self, group: asyncio.TaskGroup) -> None:
        """Say which group owns the tasks that are begun from now on."""
        self._group = group

    def spawn(self, part: Part, work: Coroutine[Any, Any, object], *, about: str = "") -> None:
        """Have something done that nobody waits for; a fault in it stays there."""
        self._begin(self._contained(part, work, about), work)

    def _begin(self, run: Coroutine[Any, Any, None], work: Coroutine[Any, Any, object]) -> None:
        assert self._group is not None  # noqa: S101  (only what runs in the group begins more)
        try:
            task = self._group.create_task(run)
            task.add_done_callback(lambda _: work.close())  # it may be cancelled before it begins
        except RuntimeError:  # the service is ending, and a timer has come late
            run.close()
            work.close()

    def ask(self, work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Begin something whose result is waited for, or not; what goes wrong comes out where it is taken."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            try:
                result = await work
            except asyncio.CancelledError:
                future.cancel()
                raise
            except Exception as error:
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # perhaps nobody takes it
            else:
                if not future.done():
                    future.set_result(result)

        self._begin(run(), work)
        return future

    async def _contained(self, part: Part, work: Coroutine[Any, Any, object], about: str) -> None:
        try:
            await work
        except ClusterError as error:
            _log.warning("not done: %s", error, extra={"event": f"{part}-not-done", "about": about or None})
        except Exception as error:
            self.faults.note(part, error, about=about)

    # -- records -------------------------------------------------------------------------------------------------------

    def put(self, record: Record, *, save: bool = True, notify: bool = True) -> Record:
        """Make a record the newest of its rollout: the one way to change a record.

        Args:
            record: what it is now.
            save: it is worth a write to the store by itself.
            notify: it is worth telling people.
        """
        record = self._merged(record)
        if save:
            self._save_soon(record.id)
        if notify:
            self.untold[record.id] = None
            self.news.set()
        return record

    def claim(self, record: Record) -> None:
        """Keep and tell what only a mark says. It is never saved: anybody could fill the store with marks."""
        self._claimed.add(record.id)
        self.put(record)

    def _merged(self, record: Record) -> Record:
        """Keep a record as the newest in memory.

        What came meanwhile, while somebody held an older state of it, stays: message, posted evaluations, proofs. When
        judging is over it keeps the blocks by which that was done.
        """
        before = self.records.get(record.id)
        if before and before.state is State.ENDED and record.state is not State.ENDED:
            return before  # it ended while somebody held an older state of it
        if before:
            record = life.lower(record, before.mode)
        if before and before.state in BEFORE_ACTING and record.state not in BEFORE_ACTING:
            record = self._with_blocks(record)
        if before and len(before.evaluations) > len(record.evaluations):
            record = msgspec.structs.replace(record, evaluations=before.evaluations)
        if before and before.notified and not record.notified:
            record = msgspec.structs.replace(record, notified=before.notified)
        if before and len(before.proofs) > len(record.proofs):
            record = msgspec.structs.replace(record, proofs=before.proofs)
        self._index(record)
        if record.state is State.ENDED and self._open.get(record.workload) == record.id:
            del self._open[record.workload]
            self._nonces.pop(record.id, None)
        if before is None or before.state is not record.state or before.outcome is not record.outcome:
            fields = {"incident": record.id, "workload": str(record.workload), "event": f"rollout-{record.state}"}
            _log.info("%s", record.detail or record.state, extra=fields)
        return record

    def read(self, records: Iterable[Record]) -> None:
        """Take in what an earlier process has saved."""
        for record in sorted(records, key=lambda each: each.started):
            self._index(record)
            if record.state is State.ENDED:
                self._thin_out(record)

    def _index(self, record: Record) -> None:
        self.records[record.id] = record
        self._by_workload.setdefault(record.workload, {})[record.id] = None
        if record.state is not State.ENDED:
            self._open[record.workload] = record.id

    def forget(self, incidents: Iterable[IncidentId]) -> None:
        """Drop records that are kept nowhere any more."""
        for incident in incidents:
            if record := self.records.get(incident):
                self._by_workload[record.workload].pop(incident, None)
            for memory in (self.records, self._locks, self._nonces, self._unsaved, self._failures):
                memory.pop(incident, None)
            self._thin.discard(incident)

    async def complete(self, record: Record) -> Record:
        """Give a record with all that is kept of it. Raises `ClusterError`."""
        if record.id not in self._thin:
            return self._with_blocks(record) if record.state in BEFORE_ACTING else record
        stored = await self.ports.store.get(record.id, timeout_s=self.request_s)
        return restored(record, stored) if stored else record

    def _with_blocks(self, record: Record) -> Record:
        watch = self.watches.get((record.id, record.rollout.hash))
        if watch is None or not watch.fed:
            return record
        return msgspec.structs.replace(record, blocks=watch.recorded(), evidence=watch.evidence(urgent=record.urgent))

    def _thin_out(self, record: Record) -> None:
        self.records[record.id] = thinned(record)
        self._thin.add(record.id)

    def others(self, record: Record) -> list[Record]:
        """Every other record."""
        return [other for other in self.records.values() if other.id != record.id]

    def about(self, ref: WorkloadRef) -> list[Record]:
        """Every record about a workload, the oldest first."""
        return [self.records[incident] for incident in self._by_workload.get(ref, ())]

    def open_of(self, ref: WorkloadRef) -> Record | None:
        """The record of the rollout of a workload that is under watch."""
        incident = self._open.get(ref)
        return self.records.get(incident) if incident else None

    def open(self) -> list[Record]:
        """The records of all rollouts under watch."""
        return [self.records[incident] for incident in self._open.values()]

    def deployment(self, ref: WorkloadRef) -> Deployment | None:
        """A Deployment as it was last seen."""
        return self.fleet.deployments.get(ref)

    # -- proof ---------------------------------------------------------------------------------------------------------

    def nonce(self, incident: IncidentId) -> str:
        """The nonce that a write of this incident carries; empty where none may be made.

        It stays in this process and in the write; the record holds its digest. A process that goes on with a record of
        another one's has a nonce of its own, and the record both digests: either may be found written.
        """
        record = self.records[incident]
        if incident not in self._nonces and record.mode is not Mode.OBSERVE:
            nonce = self._nonces[incident] = secrets.token_hex(16)
            digests = (*record.proofs[-_PROOFS + 1 :], marks.digest(nonce, record.rollout))
            self.put(msgspec.structs.replace(record, proofs=digests), notify=False)
        return self._nonces.get(incident, "")

    # -- saving --------------------------------------------------------------------------------------------------------

    def _save_soon(self, incident: IncidentId) -> None:
        if incident not in self._claimed and incident in self.records:
            self._unsaved[incident] = None
            self._some.set()

    async def run(self) -> None:
        """Save whatever is due, for ever."""
        turns = asyncio.Semaphore(_SAVED_AT_ONCE)
        while True:
            await self._some.wait()
            self._some.clear()
            for incident in tuple(self._unsaved):
                if self._lock(incident).locked():
                    continue  # whoever saves it now takes the newest, and looks again afterwards
                await turns.acquire()
                self.spawn(Part.RECORDS, self._save_in_turn(incident, turns), about=incident)

    async def _save_in_turn(self, incident: IncidentId, turns: asyncio.Semaphore) -> None:
        try:
            await self.save(incident)
        finally:
            turns.release()

    async def save(self, incident: IncidentId) -> bool:
        """Save the newest state of a record, unless it is saved; say whether it is. Never raises `ClusterError`."""
        async with self._lock(incident):
            record = self.records.get(incident)
            if record is None or incident not in self._unsaved:
                return True
            del self._unsaved[incident]
            try:
                await self.ports.store.save(await self.complete(record), timeout_s=self.request_s)
            except asyncio.CancelledError:
                self._unsaved[incident] = None
                raise
            except Exception as error:
                self._again(incident, error)
                return False
        self._failures.pop(incident, None)
        if record.state is State.ENDED and self.records.get(incident) is record:
            self._thin_out(record)
        if incident in self._unsaved:
            self._some.set()
        return True

    async def settled(self, incident: IncidentId) -> None:
        """Wait until the newest of a record is saved, or for two seconds: what is told outlives us."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _SETTLES_S
        while (incident in self._unsaved or self._lock(incident).locked()) and loop.time() < until:
            await asyncio.wait({self.ask(self.save(incident))}, timeout=until - loop.time())

    def _again(self, incident: IncidentId, error: Exception) -> None:
        """Have a record saved again after a pause that grows."""
        fields = {"event": "record-not-saved", "incident": incident}
        failures = self._failures[incident] = self._failures.get(incident, 0) + 1
        pause_s = growing(failures, longest_s=_LONGEST_PAUSE_S)
        if isinstance(error, ClusterError):
            _log.warning("record not saved, will be again in %g s: %s", pause_s, error, extra=fields)
        else:
            self.faults.note(Part.RECORDS, error, about=incident)
        asyncio.get_running_loop().call_later(pause_s, self._save_soon, incident)

    def _lock(self, incident: IncidentId) -> asyncio.Lock:
        return self._locks.setdefault(incident, asyncio.Lock())

    async def save_rest(self) -> None:
        """Save what is not saved yet, at the end of the service: again and again until a deadline."""
        loop, turns = asyncio.get_running_loop(), asyncio.Semaphore(_SAVED_AT_ONCE)
        until = loop.time() + self.request_s

        async def save(incident: IncidentId) -> None:
            async with turns:
                await self.save(incident)

        while waiting := {*self._unsaved, *self._failures} & self.records.keys():
            self._unsaved |= dict.fromkeys(waiting)
            await asyncio.gather(*map(save, waiting))
            if loop.time() >= until:
                return
            if self._unsaved or self._failures:
                await asyncio.sleep(_ENDS_AGAIN_S)

    # -- Events --------------------------------------------------------------------------------------------------------

    def note(self, record: Record, reason: EventReason, note: str, *, warning: bool = True, suffix: str = "") -> None:
        """Put an Event on the workload; nothing waits for it, and it never stops anything."""
        work = self._post(record, reason, note, warning=warning, suffix=suffix)
        self.spawn(Part.NOTIFY, work, about=record.id)

    async def _post(self, record: Record, reason: EventReason, note: str, *, warning: bool, suffix: str) -> None:
        if self.fleet.deployments.get(record.workload) is None:
            return
        event = wording.rollout_event(record, reason, note, uid=record.rollout.uid, warning=warning, suffix=suffix)
        there = await Aftermath(self.ports.cluster, request_s=self.request_s).post(event)
        self.metrics.notification(Channel.EVENT, Delivery.SENT if there else Delivery.FAILED)


def wrote(record: Record, what: str, *, at: dt.datetime) -> Record:
    """The record with one more write."""
    return msgspec.structs.replace(record, writes=(*record.writes, Written(at, what)))
