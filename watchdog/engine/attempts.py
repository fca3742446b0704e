"""One write on something that others write, too: read, decide, write, and find out what became of it.

    read ──► decide (pure) ──► guarded write and what follows it
      ▲                             │
      └──── not done, or no answer ─┘

Nothing here depends on being alone. Whoever changed the object since it was read makes a `test` of the patch fail; then
it is read and decided again. Where it is what it was, nobody came in between: then the write was refused, and the
refusal is raised. A write that got no answer may have happened: then our very mark says that it did. From the write to
the end of what follows it, being cancelled waits.
"""

import asyncio
import logging
from typing import Generic, Protocol, TypeVar

from watchdog.engine import wording
from watchdog.engine.verify import Patience
from watchdog.engine.writes import given_up, unbroken
from watchdog.errors import ClusterError, NotFound, ServerError, Throttled, Unanswered
from watchdog.model import Guard, Objection, Plan

_log = logging.getLogger(__name__)

OBSERVE_EVERY_S = 0.1
_READ_AGAIN_AFTER_S = 1.0

Seen = TypeVar("Seen")
Done = TypeVar("Done")
Done_co = TypeVar("Done_co", covariant=True)


class WriteTarget(Protocol[Seen, Done_co]):
    """What a write is about: how it is read, decided, written, and found again."""

    name: str

    async def read(self) -> Seen:
        """Read everything that the decision needs. Raises `ClusterError`."""

    async def decide(self, seen: Seen) -> Plan | Objection:
        """Plan the write, or say what speaks against it."""

    async def write(self, plan: Plan, seen: Seen) -> Done_co:
        """Write, and do what follows a write. Raises `ClusterError`, where nothing is known to be written."""

    async def found(self, plan: Plan, seen: Seen, tried: Seen) -> Done_co:
        """Do what follows a write that had no answer, and was found written."""

    def marked(self, plan: Plan, seen: Seen) -> bool:
        """Whether a plan without an answer is seen to be written: by our very mark, or by what it changes."""

    def tested(self, seen: Seen, failure: ClusterError) -> object:
        """All that can fail the patch: where it differs from what was tried, somebody else came in between."""

    def deleted(self, error: NotFound) -> str:
        """What is said where somebody has deleted it."""


class Attempt(Generic[Seen, Done]):
    """Writes once, however many tries it takes.

    Args:
        deadline: when looking for a write in doubt ends, on the event loop's clock.
        attempts: how often a write is made that gets no answer, or is put off.
        observed_s: how long the controller may take to see a change that was made just before.
        dry_run: nothing is written, and so nothing is ever in doubt.
    """

    def __init__(
        self,
        target: WriteTarget[Seen, Done],
        *,
        patience: Patience,
        deadline: float,
        attempts: int,
        observed_s: float = 0.0,
        dry_run: bool = False,
    ) -> None:
        self._target = target
        self._patience = patience
        self._deadline = deadline
        self._attempts = attempts
        self._observed_s = observed_s
        self._dry_run = dry_run
        self._in_doubt: Plan | None = None
        self._failures: list[ClusterError] = []
        self._tried: Seen | None = None

    async def run(self) -> tuple[Done | Objection, Seen]:
        """Give what was done, or what speaks against it, and how everything was last seen.

        Raises:
            NotFound: it was not there in the first place.
            Unanswered: it is not known whether the write happened, or nothing could be read in the first place.
            ClusterError: nothing was written; its cure says how a person does it.
        """
        loop, seen = asyncio.get_running_loop(), None
        observed_by = loop.time() + self._observed_s
        while True:
            try:
                seen = await self._read()
                if self._in_doubt and self._tried is not None and self._target.marked(self._in_doubt, seen):
                    work = self._target.found(self._in_doubt, seen, self._tried)
                    return await unbroken(work, patience_s=2 * self._patience.request_s), seen
                self._raise_what_was_answered(seen)
                plan = await self._target.decide(seen)
                if not isinstance(plan, Objection):
                    self._tried = seen
                    if (done := await self._try(plan, seen)) is not None:
                        return done, seen
                elif plan.guard is not Guard.NOT_OBSERVED or loop.time() > observed_by:
                    return plan, seen
                else:
                    await asyncio.sleep(OBSERVE_EVERY_S)
            except NotFound as error:
                if seen is None:
                    raise
                return Objection(Guard.SUPERSEDED, self._target.deleted(error)), seen
            except ClusterError as error:
                if (doubtful := self._doubtful(error)) is None:
                    raise
                raise doubtful from None

    async def _read(self) -> Seen:
        """Read; after a write in doubt until the deadline again and again, since then we must know."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await self._target.read()
            except (Unanswered, Throttled):
                if self._in_doubt is None or loop.time() > self._deadline:
                    raise
                await asyncio.sleep(_READ_AGAIN_AFTER_S)

    def _raise_what_was_answered(self, seen: Seen) -> None:
        if self._failures and self._tried is not None:
            failure, target = self._failures[-1], self._target
            changed = target.tested(self._tried, failure) != target.tested(seen, failure)
            if given_up(self._failures, attempts=self._attempts, changed=changed):
                raise failure

    async def _try(self, plan: Plan, seen: Seen) -> Done | None:
        """Write; None where it was not accepted, or had no answer. Raises what never passes."""
        loop = asyncio.get_running_loop()
        try:
            work = self._target.write(plan, seen)
            return await unbroken(work, patience_s=2 * self._patience.request_s)
        except NotFound:
            raise
        except ClusterError as error:
            error.cure = wording.by_hand(plan)
            if not error.may_pass:
                raise
            self._failures.append(error)
            fields = {"event": "write-not-done", "workload": self._target.name}
            _log.info("write not done: %s", error, extra=fields)
            if isinstance(error, Unanswered):
                self._in_doubt = None if self._dry_run else plan
            elif isinstance(error, Throttled) and self._attempts > 1:
                if loop.time() + error.retry_after_s > self._deadline:
                    raise
                await asyncio.sleep(error.retry_after_s)
        return None

    def _doubtful(self, error: ClusterError) -> Unanswered | None:
        """The error that says that nobody knows whether the write happened; None where that is known."""
        # Whatever only answered that it failed, and was then read without our mark, was not written.
        answered = not any(
            isinstance(each, Unanswered) and not isinstance(each, ServerError) for each in self._failures
        )
        if self._in_doubt is None or (answered and self._failures[-1:] == [error]):
            return None
        unknown = "it is not known whether this was written: see the history"
        doubtful = Unanswered(error.operation, f"{error.reason}; {unknown}")
        doubtful.cure = error.cure
        return doubtful
