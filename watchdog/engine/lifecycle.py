"""Where a watch begins, and where it ends because its version is live no more; the same for every topology."""

from collections.abc import Callable

from watchdog.decide import incident
from watchdog.decide.record import Record, State
from watchdog.engine.claims import Claims
from watchdog.engine.context import Context
from watchdog.model import Outcome


class Lifecycle:
    """Begins and ends watches.

    Args:
        changed: told of a record that was changed by what the watch of objects showed, such as an answer.
        began: told of a rollout that is under watch from now on.
    """

    def __init__(self, context: Context, *, changed: Callable[[Record], None], began: Callable[[Record], None]) -> None:
        self._context = context
        self._began = began
        self.changed = changed
        self.claims = Claims(context, changed=changed)

    def begin(self, record: Record) -> Record:
        """Take a rollout under watch."""
        self._context.put(record)
        self._context.nonce(record.id)
        self._began(record)
        return self._context.records[record.id]

    def supersede(self, record: Record, why: str) -> None:
        """End a watch whose version somebody else has replaced."""
        if record.state is State.ENDED:
            return
        writing = record.state is State.ACTING and not record.tried
        if writing or (record.state is State.VERIFYING and not record.verified):
            return  # whoever carries the action out sees it, too
        if record.verified:
            why = f"{record.verified}, then {why}"
        self._context.put(incident.end(record, Outcome.SUPERSEDED, why, now=self._context.now()))

    def over(self, record: Record, why: str) -> None:
        """End a watch whose workload is gone; whoever carries an action out is to find that out, if nobody does yet."""
        self.supersede(record, why)
        if self._context.records[record.id].state is not State.ENDED:
            self.changed(record)
