"""Telling people: the newest record of each incident, never on the way to a write, one call at a time per incident.

A channel that does not take a message tries that incident again by itself: no other incident and no other channel waits
for it.
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

_Message = tuple[Channel, IncidentId]


class Notifications:
    """Has every channel told of every record that changed; of several changes in a row, of the last only."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._due: dict[_Message, None] = {}
        self._at_work: set[_Message] = set()

    def _again(self, message: _Message) -> None:
        self._due[message] = None
        self._context.news.set()

    async def run(self) -> None:
        """Tell of whatever is due, for ever; what an earlier process may have left unsaid first."""
        context = self._context
        for incident in context.records:
            context.untold[incident] = None
        context.news.set()
        while True:
            await context.news.wait()
            context.news.clear()
            self._due |= {
                (channel, incident): None for incident in context.untold for channel in context.ports.channels
            }
            context.untold.clear()
            for message in [each for each in self._due if each not in self._at_work]:
                del self._due[message]
                self._at_work.add(message)
                context.spawn(Part.NOTIFY, self._tell_newest(message), about=message[1])

    async def _tell_newest(self, message: _Message) -> None:
        try:
            await self._context.settled(message[1])
            if record := self._context.records.get(message[1]):
                await self._tell(message[0], record)
        finally:
            self._at_work.discard(message)
            if message in self._due:
                self._context.news.set()

    async def _tell(self, channel: Channel, record: Record) -> None:
        context = self._context
        if record.id == record.rollout.gate_incident:
            return  # whoever ran the gate was told by it
        try:
            told = await context.ports.channels[channel].tell(record)
        except NotificationError as error:
            context.metrics.notification(channel, Delivery.FAILED)
            fields = {"event": "not-told", "incident": record.id}
            _log.warning("people were not told in %s: %s", channel, error, extra=fields)
            return
        except Exception as error:
            context.metrics.notification(channel, Delivery.FAILED)
            pause_s = context.faults.note(Part.NOTIFY, error, about=f"{channel} {record.id}")
            asyncio.get_running_loop().call_later(pause_s, self._again, (channel, record.id))
            return
        context.faults.over(Part.NOTIFY, f"{channel} {record.id}")
        latest = context.records.get(record.id)
        if told and latest and told != latest.notified:
            context.metrics.notification(channel, Delivery.SENT)
            context.put(msgspec.structs.replace(latest, notified=told), notify=False)
