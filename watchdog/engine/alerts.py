"""Alerts: held at once, attributed afterwards, and never a proof alone.

A webhook is a lossy hint. What it lost, the resync of every Alertmanager brings back; what it brings twice, is told by
(fingerprint, startsAt).
"""

import asyncio
import datetime as dt
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import NamedTuple

import msgspec

from watchdog.decide.attribution import Nameable, attributable, workloads_of
from watchdog.decide.record import AlertSeen, Record, State
from watchdog.engine.context import Context
from watchdog.engine.watch import traffic_from
from watchdog.metrics import AlertOutcome, Part
from watchdog.model import Alert, IncidentId
from watchdog.objects import WorkloadRef

_log = logging.getLogger(__name__)

_MOST = 10_000
_MOST_KNOWN = 100_000
_OURS = "rollback_watchdog"
_REMEMBERED = dt.timedelta(hours=8)
_ONSET_S = 2.0
_AT_ONCE = 16
_SILENCES_HOLD_S = 120.0
_RESYNC_AGAIN_S = 1.0
_BEFORE = dt.timedelta(minutes=10)

Key = tuple[str, dt.datetime]


class Held(msgspec.Struct, frozen=True):
    """An alert that came in, the workload that it is about, and when it came on the event loop's clock."""

    alert: Alert
    ref: WorkloadRef
    arrived: float


class _Known(NamedTuple):
    """What an alert said last and when, and the one workload that it is about."""

    firing: bool
    at: dt.datetime
    ref: WorkloadRef | None


class _NamedWorkloads:
    """The workloads that alerts can name, looked up once for all of a webhook."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def candidates(self, alert: Alert) -> list[Nameable]:
        """Those that this alert may mean by its namespace, or all."""
        namespace = alert.labels.get("namespace", "")
        if namespace and alert.labels.get("deployment"):
            ref = WorkloadRef(namespace, alert.labels["deployment"])
            return [self._candidate(ref)] if ref in self._context.fleet.matched() else []
        spaces = [self._by_namespace.get(namespace, [])] if namespace else self._by_namespace.values()
        return [self._candidate(ref) for refs in spaces for ref in refs]

    @cached_property
    def _by_namespace(self) -> dict[str, list[WorkloadRef]]:
        """Those that an alert without the name of a Deployment may be about: by their pods, or by their policy."""
        found: dict[str, list[WorkloadRef]] = {}
        for ref, match in self._context.fleet.matched().items():
            if match.policy.alerts.match or self._context.open_of(ref):
                found.setdefault(ref.namespace, []).append(ref)
        return found

    @cached_property
    def _made(self) -> dict[WorkloadRef, Nameable]:
        return {}

    def _candidate(self, ref: WorkloadRef) -> Nameable:
        if ref not in self._made:
            fleet, record = self._context.fleet, self._context.open_of(ref)
            hashes = {pod.hash for pod in record.pods} | {record.rollout.hash, record.stable_hash} if record else set()
            names = frozenset(f"{ref.name}-{each}" for each in hashes)
            means = fleet.matched()[ref].policy.alerts.match if fleet.has_traffic(ref) else {}
            self._made[ref] = Nameable(ref, names, means)
        return self._made[ref]


class AlertIntake:
    """Takes alerts in.

    Args:
        hurry: is told of a rollout for which an alert has just spoken, and when that alert came.
        next_step: the first step of a rollout that has not been judged; 0 where nobody has looked at it yet.
    """

    def __init__(
        self, context: Context, *, evaluate_now: Callable[[Record, float], None], next_step: Callable[[IncidentId], int]
    ) -> None:
        self._context = context
        self._evaluate_now = evaluate_now
        self._next_step = next_step
        self._held: dict[WorkloadRef, deque[Held]] = {}
        self._room = _MOST
        self._some = asyncio.Event()
        self._at_work: set[WorkloadRef] = set()
        self._known: dict[Key, _Known] = {}
        self._asked = asyncio.Event()
        self._firing: dict[WorkloadRef, dict[Key, dt.datetime]] = {}

    @property
    def waiting(self) -> int:
        """How many alerts are held and not handled yet."""
        return _MOST - self._room

    def take(self, alerts: Sequence[Alert]) -> bool:
        """Attribute alerts to workloads from memory, and hold all of them; or none, and False, where there is no room.

        Room is taken up only by what is new and about a workload of ours. Where nothing is held, any number is: else
        what is too much at once would be too much again whenever it is repeated.
        """
        context, now = self._context, self._context.now()
        self._forget(now)
        named, known = _NamedWorkloads(context), self._known
        told: dict[Key, bool] = {}
        found: list[tuple[Key, Alert, tuple[WorkloadRef, ...]]] = []
        for alert in alerts:
            key = (alert.fingerprint, alert.starts_at)
            firing = told.get(key, known[key].firing if key in known else None)
            if firing is alert.firing or firing is False:
                continue  # said before; what is resolved does not fire again with the same start
            told[key] = alert.firing
            found.append((key, alert, workloads_of(alert, named.candidates(alert))))
        room = sum(len(refs) == 1 for _, _, refs in found)
        if self._held and room > self._room:
            return False
        arrived = asyncio.get_running_loop().time()
        for key, alert, refs in found:
            known.pop(key, None)
            known[key] = _Known(alert.firing, now, refs[0] if len(refs) == 1 else None)
            if len(refs) == 1:
                self._hold(key, Held(alert, refs[0], arrived), now)
            else:
                self._pass_over(alert, refs)
        return True

    def _hold(self, key: Key, held: Held, now: dt.datetime) -> None:
        firing_now = self._firing.setdefault(held.ref, {})
        if held.alert.firing and held.alert.labels.get(_OURS) == "true":  # the resync sees no other
            firing_now[key] = now
        else:
            firing_now.pop(key, None)
        self._put(held)

    def _put(self, held: Held) -> None:
        self._held.setdefault(held.ref, deque()).append(held)
        self._room -= 1
        self._some.set()

    def _pass_over(self, alert: Alert, refs: Sequence[WorkloadRef]) -> None:
        outcome = AlertOutcome.AMBIGUOUS if refs else AlertOutcome.UNMATCHED
        self._context.metrics.alert(outcome)
        fields = {"event": f"alert-{outcome}"}
        _log.info("alert %.100r is %s: %s", alert.name, outcome, [str(ref) for ref in refs][:5], extra=fields)

    def _forget(self, now: dt.datetime) -> None:
        """Forget what was said long ago, or before very much else; it stands in the order in which it was said."""
        while self._known:
            key, oldest = next(iter(self._known.items()))
            if len(self._known) <= _MOST_KNOWN and now - oldest.at <= _REMEMBERED:
                return
            del self._known[key]
            if oldest.ref:
                self._firing.get(oldest.ref, {}).pop(key, None)

    async def run(self) -> None:
        """Attribute what is held: of each workload one after the other, and no workload waits for another one's."""
        turns = asyncio.Semaphore(_AT_ONCE)
        while True:
            await self._some.wait()
            self._some.clear()
            for ref in [ref for ref in self._held if ref not in self._at_work]:
                self._at_work.add(ref)
                self._context.spawn(Part.ALERTS, self._handle_all(ref, turns), about=str(ref))

    async def _handle_all(self, ref: WorkloadRef, turns: asyncio.Semaphore) -> None:
        """Handle what is held about one workload; a fault costs one alert."""
        try:
            while (waiting := self._held.get(ref)) is not None:
                held = waiting[0]
                try:
                    async with turns:
                        await self._handle(held)
                except Exception as error:
                    self._context.faults.note(Part.ALERTS, error, about=str(ref))
                waiting.popleft()
                self._room += 1
                if not waiting:
                    del self._held[ref]
        finally:
            self._at_work.discard(ref)

    async def _handle(self, held: Held) -> None:
        record = self._context.open_of(held.ref)
        if record is None or record.state not in (State.WATCHING, State.BREACH):
            self._context.metrics.alert(AlertOutcome.UNMATCHED if held.alert.firing else AlertOutcome.RESOLVED)
        elif held.alert.firing:
            await self._attribute(record, held)
        else:
            self._resolve(record, held.alert)

    async def _attribute(self, record: Record, held: Held) -> None:
        context, alert = self._context, held.alert
        onset: float | None = alert.starts_at.timestamp()  # without Prometheus there is no better one
        if context.ports.signals:
            at = context.now().timestamp()
            onset = await context.ports.signals.onset(alert.labels, at=at, timeout_s=_ONSET_S)
        record = context.records[record.id]
        if record.state not in (State.WATCHING, State.BREACH):
            return
        began = dt.datetime.fromtimestamp(onset, dt.UTC) if onset is not None else None
        traffic = traffic_from(record)
        if traffic is None and began and began >= record.started:
            # The pods of a rollout are known from its first step on, and as Ready from a later one.
            asyncio.get_running_loop().call_later(context.config.step_s, self._again, held)
            return
        yes = attributable(onset, traffic_from=traffic)
        what = AlertOutcome.ATTRIBUTED if yes else AlertOutcome.BEFORE_ROLLOUT
        context.metrics.alert(what)
        changed = msgspec.structs.replace(record, alerts=self._heard(record, alert, what, began))
        if not yes and began and began < record.started and record.started - began <= _BEFORE:
            why = f"alert {alert.name[:100]} was firing before the rollout began"
            changed = msgspec.structs.replace(changed, incident_first=record.incident_first or why)
        context.put(changed, notify=False)
        fields = {"event": f"alert-{what}", "incident": record.id, "workload": str(record.workload)}
        _log.info("alert %.100r since %s: %s", alert.name, began or "an unknown time", what, extra=fields)
        if yes:
            self._evaluate_now(context.records[record.id], held.arrived)

    def _heard(
        self, record: Record, alert: Alert, what: AlertOutcome, began: dt.datetime | None
    ) -> tuple[AlertSeen, ...]:
        """Give a record's alerts with this one, which counts from the next step on, or from when it did before."""
        same = [each for each in record.alerts if each.fingerprint == alert.fingerprint]
        counted = [each for each in same if each.what == AlertOutcome.ATTRIBUTED]
        rest = [each for each in record.alerts if each not in same or (each.until_step and each not in counted)]
        step = min([self._step(record), *(each.from_step for each in counted)])
        step = step if what is AlertOutcome.ATTRIBUTED else 0
        seen = AlertSeen(alert.fingerprint, alert.name[:200], alert.starts_at, str(what), began, step)
        return (*rest[-49:], seen)

    def _step(self, record: Record) -> int:
        """Give the next step that is judged: of a rollout at which nobody has looked yet, that of now."""
        now, step_s = self._context.now().timestamp(), self._context.config.step_s
        return self._next_step(record.id) or math.floor(now / step_s) + 1

    def _again(self, held: Held) -> None:
        known = self._known.get((held.alert.fingerprint, held.alert.starts_at))
        if known and known.firing:
            self._put(held)

    def _resolve(self, record: Record, alert: Alert) -> None:
        self._context.metrics.alert(AlertOutcome.RESOLVED)
        step = self._step(record)
        resolved = tuple(
            msgspec.structs.replace(
                each, what="resolved", until_step=step if each.what == AlertOutcome.ATTRIBUTED else each.until_step
            )
            if (each.fingerprint, each.starts_at) == (alert.fingerprint, alert.starts_at)
            else each
            for each in record.alerts
        )
        self._context.put(msgspec.structs.replace(record, alerts=resolved), notify=False)

    async def resync(self) -> None:
        """Ask every Alertmanager for what fires, at once and then again and again, and when somebody asks for it."""
        source = self._context.ports.alerts
        if source is None:
            return
        settings = self._context.config.alertmanager
        while True:
            self._asked.clear()
            view = await source.alerts(timeout_s=float(settings.timeout))
            for peer in view.unreachable:
                _log.warning("Alertmanager %s does not answer", peer, extra={"event": "alertmanager-unreachable"})
            self.take(view.alerts)
            if view.trustworthy:
                self._take_absence(view.alerts)
            await asyncio.sleep(_RESYNC_AGAIN_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, settings.resync - _RESYNC_AGAIN_S)):
                    await self._asked.wait()

    def ask_now(self) -> None:
        """Let the resync come at once: a webhook was lost on the way here, and its sender will not repeat it."""
        self._asked.set()

    async def watch_silences(self) -> None:
        """Keep what the Alertmanagers say of silences: nothing that acts waits for them.

        They are asked at each resync, and at every step while anything is under watch. Where none of them answers, what
        was told last holds for two minutes.
        """
        context, source, loop = self._context, self._context.ports.alerts, asyncio.get_running_loop()
        if source is None:
            return
        settings, asked, told = context.config.alertmanager, -math.inf, -math.inf
        while True:
            if context.open() or loop.time() - asked >= settings.resync:
                asked = loop.time()
                found = await source.silences(timeout_s=float(settings.timeout))
                if found is not None:
                    context.silences, told = found, loop.time()
                elif loop.time() - told > _SILENCES_HOLD_S:
                    context.silences = None
            await asyncio.sleep(min(context.config.step_s, float(settings.resync)))

    def _take_absence(self, firing: Sequence[Alert]) -> None:
        """What every settled Alertmanager has stopped to tell of is resolved."""
        there = {alert.fingerprint for alert in firing}
        for ref, keys in self._firing.items():
            for fingerprint, starts_at in [key for key in keys if key[0] not in there]:
                alert = Alert(
                    fingerprint=fingerprint,
                    labels={"namespace": ref.namespace, "deployment": ref.name},
                    starts_at=starts_at,
                    firing=False,
                )
                self.take((alert,))

    def held_again(self, record: Record) -> None:
        """A watch has begun: what fires about its workload is looked at anew."""
        keys = self._firing.get(record.workload, {})
        for key in list(keys):
            self._known.pop(key, None)
