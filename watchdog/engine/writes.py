"""What every write has in common: it is not cut in two, and the fields that it made ours are given up."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from watchdog.decide.patches import release_ownership
from watchdog.errors import ClusterError, Conflict, PreconditionFailed, Throttled, Unanswered
from watchdog.objects import Metadata

_log = logging.getLogger(__name__)

_ATTEMPTS = 3

T = TypeVar("T")


def given_up(failures: Sequence[ClusterError], *, attempts: int, changed: bool) -> bool:
    """Whether the last failure of a write is the answer to it, now that the object was read again.

    Args:
        failures: of this action so far.
        attempts: how often a write is made that gets no answer, or is put off.
        changed: whether the object is another than the one that was written to: then a race was lost, and is run again.
    """
    if len(failures) >= _ATTEMPTS:
        return True
    if isinstance(failures[-1], Unanswered | Throttled):
        return sum(isinstance(each, Unanswered | Throttled) for each in failures) >= attempts
    return not changed


async def unbroken(work: Coroutine[Any, Any, T], *, patience_s: float) -> T:
    """Let a write and what follows it come to an end, even if we are cancelled meanwhile."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=patience_s)
        if not task.done():
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise


async def release(
    what: str,
    metadata: Metadata,
    *,
    patch: Callable[[bytes], Awaitable[object]],
    again: Callable[[], Awaitable[Metadata]],
) -> None:
    """Give up the fields that a write made ours, so that the next server-side apply meets no conflict; never raises.

    Args:
        what: the object, for the log.
        metadata: as the write left it.
        patch: patches it.
        again: reads its metadata anew, where the entries have moved because a controller wrote a status.
    """
    try:
        for _ in range(_ATTEMPTS):
            operations = release_ownership(metadata)
            if operations is None:
                return
            try:
                await patch(operations)
            except (Conflict, PreconditionFailed):
                metadata = await again()
            else:
                return
        reason = "the object changed too often"
    except ClusterError as error:
        reason = str(error)
    _log.warning("field ownership kept: %s", reason, extra={"event": "ownership-kept", "workload": what})
