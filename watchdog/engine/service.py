"""The service: its tasks, their start and their end, and what the HTTP server asks of it.

Start: read all records, then watch, poll and take alerts; alerts are answered 503 until every namespace was listed.
End: no more alerts; a write that is under way, and what follows it, comes to its end; records are saved.
"""

import asyncio
import datetime as dt
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from typing import NamedTuple

import msgspec

from watchdog.config import GitOps
from watchdog.decide.evaluations import Posted, Taken
from watchdog.decide.plan import Request
from watchdog.decide.record import Answer, Record, State
from watchdog.engine.alerts import AlertIntake
from watchdog.engine.bluegreen import ServiceWatcher
from watchdog.engine.context import Context
from watchdog.engine.evaluations import EvaluationIntake
from watchdog.engine.incidents import Incidents
from watchdog.engine.lifecycle import Lifecycle
from watchdog.engine.notifications import Notifications
from watchdog.engine.polling import Poller
from watchdog.engine.rollouts import Rollouts
from watchdog.errors import ClusterError, Denied, KeyReused, NotFound, Unanswered, UsageError
from watchdog.metrics import Part
from watchdog.model import Alert, IncidentId, Result
from watchdog.objects import WorkloadRef
from watchdog.ports import DeploymentWatch, Services

_log = logging.getLogger(__name__)

_PRUNE_S = 600.0
_PRUNING_S = 60.0
_DENIED_S = 60.0
_AGAIN_S = 5.0
_KEYS = 1000
_LATE_STEPS = 4
_LISTED_WITHIN_S = 60.0


class _Key(NamedTuple):
    """What an idempotency key names: one action of one caller on one workload."""

    by: str
    ref: WorkloadRef
    key: str


class _Keyed(NamedTuple):
    """The action of a key, and everything that was asked with it."""

    asked: tuple[Request, bool]
    task: asyncio.Task[Result]

    @property
    def to_be_repeated(self) -> bool:
        """Whether it ended without a write, so that the same request is a new attempt."""
        if not self.task.done():
            return False
        return self.task.cancelled() or self.task.exception() is not None or self.task.result().plan is None


class WatchdogService:
    """Everything that runs.

    Args:
        context: the parts and the records.
        fleet: where Deployments are seen to change.
        services: where Services are; only blue-green needs them.
    """

    def __init__(self, context: Context, fleet: DeploymentWatch, services: Services | None = None) -> None:
        self.context = context
        self._port = fleet
        self._services = services
        self._accepting = False
        self._beat = 0.0
        self._keyed: OrderedDict[_Key, _Keyed] = OrderedDict()
        self.incidents = Incidents(context)
        self.poller = Poller(context, judge=self.incidents.judge)
        self.alerts = AlertIntake(context, evaluate_now=self._evaluate_now, next_step=self.poller.next_step)
        self._evaluations = EvaluationIntake(context, next_step=self.poller.next_step)
        life = Lifecycle(context, changed=self.incidents.answered, began=self.alerts.held_again)
        self._rollouts = Rollouts(context, life, ServiceWatcher(context, life))
        self.telling = Notifications(context)

    async def run(self) -> None:
        """Run until cancelled. A loop that fails begins again; none takes the others with it."""
        context = self.context
        try:
            async with asyncio.TaskGroup() as group:
                context.works_in(group)
                await context.faults.tried(Part.RECORDS, self._read_records)

                def keep(part: Part, run: Callable[[], Awaitable[None]], about: str = "") -> None:
                    group.create_task(context.faults.keep(part, run, about=about))

                for namespace in context.fleet.namespaces:
                    keep(Part.WATCH, partial(self._watch, namespace), namespace)
                for namespace in context.fleet.service_namespaces:
                    keep(Part.WATCH, partial(self._watch_services, namespace), f"services of {namespace}")
                keep(Part.RECORDS, context.run)
                keep(Part.POLL, self._poll)
                keep(Part.ALERTS, self.alerts.run)
                keep(Part.ALERTS, self._resync, "resync")
                keep(Part.ALERTS, self.alerts.watch_silences, "silences")
                keep(Part.NOTIFY, self.telling.run)
                keep(Part.RECORDS, self._prune, "prune")
        finally:
            self._accepting = False
            await context.save_rest()

    async def _read_records(self) -> None:
        context = self.context
        while True:
            try:
                context.read(await context.ports.store.all(timeout_s=context.request_s))
            except Denied as error:
                why = "the records may not be read: %s; see rollback-watchdog check --online"
                _log.error(why, error, extra={"event": "records-denied"})
            except ClusterError as error:
                _log.warning("records not read, asking again: %s", error, extra={"event": "records-not-read"})
            else:
                break
            await asyncio.sleep(_AGAIN_S)
        there, going = len(context.records), len(context.open())
        _log.info("%d records, %d of rollouts under watch", there, going, extra={"event": "started"})

    async def _watch(self, namespace: str) -> None:
        """Watch a namespace for ever. One that may not be watched is told of again and again; the others go on."""
        while True:
            try:
                await self._follow(namespace)
            except Denied as error:
                _log.error(
                    "namespace %s is not watched: %s; see rollback-watchdog check --online",
                    namespace,
                    error,
                    extra={"event": "namespace-denied"},
                )
                self._refresh(lambda: self.context.fleet.give_up(namespace))
            await asyncio.sleep(_DENIED_S)

    async def _follow(self, namespace: str) -> None:
        async with aclosing(self._port.watch(namespace)) as changes:
            async for change in changes:
                self._refresh(partial(self.context.fleet.take, namespace, change))

    async def _watch_services(self, namespace: str) -> None:
        """Watch the Services of a namespace for ever, as `_watch` does its Deployments."""
        while self._services is not None:
            try:
                async with aclosing(self._services.watch_services(namespace)) as states:
                    async for state in states:
                        self._refresh(partial(self.context.fleet.take_services, namespace, state))
            except Denied as error:
                why = "Services of namespace %s are not watched, nothing is switched back: %s"
                _log.error(why, namespace, error, extra={"event": "namespace-denied"})
                self._refresh(lambda: self.context.fleet.give_up_services(namespace))
            await asyncio.sleep(_DENIED_S)

    def _refresh(self, take: Callable[[], Iterable[WorkloadRef]]) -> None:
        was_complete = self.context.fleet.complete
        for ref in take():
            self._rollouts.look_at(ref)
        if self.context.fleet.complete and not was_complete:
            self._accepting = True
            for record in self.context.open():
                self._rollouts.look_at(record.workload)

    async def _listed(self) -> None:
        """Wait until every workload is listed; a namespace that cannot be listed for long holds up no other."""
        loop, fleet = asyncio.get_running_loop(), self.context.fleet
        until = loop.time() + _LISTED_WITHIN_S
        while not fleet.complete:
            self.context.metrics.beat()
            self.poller.beat()
            if loop.time() >= until:
                for namespace in fleet.unlisted():
                    why = "namespace %s cannot be listed; the others go on without"
                    _log.error(why, namespace, extra={"event": "namespace-unlisted"})
                    self._refresh(partial(self._give_up, namespace))
            await asyncio.sleep(0.05)

    def _give_up(self, namespace: str) -> tuple[WorkloadRef, ...]:
        fleet = self.context.fleet
        return (*fleet.give_up(namespace), *fleet.give_up_services(namespace))

    async def _poll(self) -> None:
        await self._listed()
        await self.poller.run()

    async def _resync(self) -> None:
        await self._listed()  # an alert about a workload that is not listed yet would be taken for nobody's, for good
        await self.alerts.resync()

    async def _prune(self) -> None:
        context = self.context
        while True:
            await asyncio.sleep(_PRUNE_S)
            try:
                context.forget(await context.ports.store.prune(list(context.records.values()), timeout_s=_PRUNING_S))
            except ClusterError as error:
                _log.warning("records not pruned: %s", error, extra={"event": "records-not-pruned"})

    def _evaluate_now(self, record: Record, arrived: float) -> None:
        if seen := self.poller.last(record.id):
            self.incidents.evaluate_now(seen, arrived=arrived)

    # -- what the HTTP server asks -------------------------------------------------------------------------------------

    def accepting(self) -> bool:
        """Whether alerts are taken: every namespace was listed, and we are not stopping."""
        return self._accepting

    def ready(self) -> bool:
        """Whether the service is of use."""
        return self._accepting

    def alive(self) -> bool:
        """Whether the loop that judges comes round."""
        return self.poller.late_s() < _LATE_STEPS * self.poller.step_s + 30

    def take(self, alerts: Sequence[Alert]) -> bool:
        """Attribute alerts and hold them; False where there is no room."""
        return self.alerts.take(alerts)

    def resync(self) -> None:
        """Ask every Alertmanager at once."""
        self.alerts.ask_now()

    async def rollback(self, ref: WorkloadRef, request: Request, *, dry_run: bool, key: str) -> Result:
        """A person's undo; a key gives the same result, and one action. Raises as `web.backend.Backend.rollback`."""
        if not key:
            return await self._rolled_back(ref, request, dry_run=dry_run)
        name, asked = _Key(request.cause.by, ref, key), (request, dry_run)
        known = self._keyed.get(name)
        if known and known.asked != asked:
            raise KeyReused(f"{ref}: write another key for another action, or repeat all fields of the first")
        if known is None or known.to_be_repeated:
            self._keyed.pop(name, None)
            self._forget_keys()
            known = _Keyed(asked, asyncio.create_task(self._rolled_back(ref, request, dry_run=dry_run)))
            self._keyed[name] = known
        return await asyncio.shield(known.task)

    async def _rolled_back(self, ref: WorkloadRef, request: Request, *, dry_run: bool) -> Result:
        match = self.context.fleet.match(ref)
        gitops_act = match is not None and match.policy.gitops is GitOps.ACT
        request = msgspec.structs.replace(request, gitops_act=gitops_act)
        return await self.context.ports.actor.undo(ref, request, dry_run=dry_run)

    def _forget_keys(self) -> None:
        """Make room for one more key; that of an action under way is never forgotten, since it would act twice."""
        over = len(self._keyed) - _KEYS + 1
        done = [name for name, keyed in self._keyed.items() if keyed.task.done()] if over > 0 else []
        if over > len(done):
            raise Unanswered("rollback", "too many rollbacks with a key are under way")
        for name in done[: max(0, over)]:
            del self._keyed[name]

    async def evaluated(self, ref: WorkloadRef, posted: Posted) -> Taken:
        """Take evaluations of a version. Raises as `EvaluationIntake.take` does."""
        return await self._evaluations.take(ref, posted)

    async def records(self) -> tuple[Record, ...]:
        """Every record."""
        return tuple(self.context.records.values())

    async def record(self, incident: IncidentId) -> Record | None:
        """One record, whole. Raises `ClusterError` where the store has what is long of it, and does not answer."""
        record = self.context.records.get(incident)
        return await self.context.complete(record) if record else None

    def rollouts(self) -> tuple[Record, ...]:
        """The records of rollouts under watch."""
        return tuple(self.context.open())

    async def answer(self, incident: IncidentId, answer: Answer) -> Record:
        """Take a person's answer.

        Raises:
            NotFound: there is no such incident.
            UsageError: nobody is being asked.
        """
        record = self.context.records.get(incident)
        if record is None:
            raise NotFound(f"answer {incident}", "there is no such incident")
        if record.state is not State.ASKING or record.people:
            raise UsageError(f"{incident} is not being asked about: it is {record.outcome or record.state}")
        record = self.context.put(msgspec.structs.replace(record, people=(answer,)))
        await self.context.save(record.id)
        record = self.context.records[incident]
        self.incidents.answered(record)
        return record


def utc_now() -> dt.datetime:
    """The wall clock."""
    return dt.datetime.now(dt.UTC)
