"""Telling people: the newest record of each incident, never on the way to a write, one call at a time per incident.

An incident whose message Slack does not take is tried again by itself: no other one waits for it.
"""

import asyncio
import logging

import msgspec

from watchdog.decide.record import Record
from watchdog.engine.context import Context
from watchdog.errors import NotificationError
from watchdog.metrics import Channel, Delivery, Part
from watchdog.model import IncidentId

_log = logging.getLogger(__name__)


class Notifications:
    """Has the notifier told of every record that changed; of several changes in a row, of the last only.

    Args:
        context: what the loops share; its `tell` is set to this.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._due: dict[IncidentId, None] = {}
        self._at_work: set[IncidentId] = set()
        self._some = asyncio.Event()
        if context.ports.notifier:
            context.tell = self._later

    def _later(self, record: Record) -> None:
        self._again(record.id)

    def _again(self, incident: IncidentId) -> None:
        self._due[incident] = None
        self._some.set()

    async def run(self) -> None:
        """Tell of whatever is due, for ever; what an earlier process may have left unsaid first."""
        if self._context.ports.notifier is None:
            return
        for incident in self._context.records:
            self._again(incident)
        while True:
            await self._some.wait()
            self._some.clear()
            for incident in [each for each in self._due if each not in self._at_work]:
                del self._due[incident]
                self._at_work.add(incident)
                self._context.spawn(Part.NOTIFY, self._tell_newest(incident), about=incident)

    async def _tell_newest(self, incident: IncidentId) -> None:
        try:
            await self._context.settled(incident)
            if record := self._context.records.get(incident):
                await self._tell(record)
        finally:
            self._at_work.discard(incident)
            if incident in self._due:
                self._some.set()

    async def _tell(self, record: Record) -> None:
        context, notifier = self._context, self._context.ports.notifier
        assert notifier is not None  # noqa: S101  (`run` has seen to it)
        if record.id == record.rollout.gate_incident:
            return  # whoever ran the gate was told by it
        try:
            told = await notifier.tell(record)
        except NotificationError as error:
            context.metrics.notification(Channel.SLACK, Delivery.FAILED)
            fields = {"event": "not-told", "incident": record.id}
            _log.warning("people were not told: %s", error, extra=fields)
            return
        except Exception as error:
            context.metrics.notification(Channel.SLACK, Delivery.FAILED)
            pause_s = context.faults.note(Part.NOTIFY, error, about=record.id)
            asyncio.get_running_loop().call_later(pause_s, self._again, record.id)
            return
        context.faults.over(Part.NOTIFY, record.id)
        latest = context.records.get(record.id)
        if told and latest and told != latest.notified:
            context.metrics.notification(Channel.SLACK, Delivery.SENT)
            context.put(msgspec.structs.replace(latest, notified=told), notify=False)
