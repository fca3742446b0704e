"""Telling people: the newest record of each incident, never on the way to a write, one call at a time per incident."""

import asyncio
import logging

import msgspec

from watchdog.decide.record import Record
from watchdog.engine.context import Context
from watchdog.errors import NotificationError
from watchdog.metrics import Channel, Delivery
from watchdog.model import IncidentId

_log = logging.getLogger(__name__)


class Telling:
    """Has the notifier told of every record that changed; of several changes in a row, of the last only.

    Args:
        context: what the loops share; its `tell` is set to this.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._due: dict[IncidentId, None] = {}
        self._some = asyncio.Event()
        if context.ports.notifier:
            context.tell = self._later

    def _later(self, record: Record) -> None:
        self._due[record.id] = None
        self._some.set()

    async def run(self) -> None:
        """Tell of whatever is due, for ever; what an earlier process may have left unsaid first."""
        context = self._context
        if context.ports.notifier is None:
            return
        for record in list(context.records.values()):
            self._later(record)
        while True:
            await self._some.wait()
            self._some.clear()
            while self._due:
                incident = next(iter(self._due))
                del self._due[incident]
                await self._tell(context.records[incident])

    async def _tell(self, record: Record) -> None:
        context, notifier = self._context, self._context.ports.notifier
        assert notifier is not None  # noqa: S101  (`run` has seen to it)
        try:
            told = await notifier.tell(record)
        except NotificationError as error:
            context.metrics.notification(Channel.SLACK, Delivery.FAILED)
            fields = {"event": "not-told", "incident": record.id}
            _log.warning("people were not told: %s", error, extra=fields)
            return
        if told and told != record.told:
            context.metrics.notification(Channel.SLACK, Delivery.SENT)
            latest = context.records[record.id]
            context.records[record.id] = msgspec.structs.replace(latest, told=told)
            await context.save(record.id)
