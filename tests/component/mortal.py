"""A world in which the service is mortal: it dies after so many writes, and the next one goes on."""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any


class Mortal:
    """What outlives the service, and counts its writes.

    Attributes:
        writes: what was written, in order.
        dead: whether the process that lives, or lived last, has died: from then on nothing is ever answered.
    """

    def mortal(self, die_after: int | None) -> None:
        """Have the service die after so many writes; None lets it live."""
        self.writes: list[str] = []
        self.dead = asyncio.Event()
        self._die_after = die_after

    def revive(self) -> None:
        """Let the next process live."""
        self.dead.clear()
        self._die_after = None

    async def lives(self, process: Coroutine[Any, Any, None], *, seconds: float, end: Awaitable[object]) -> None:
        """Let a process run for some time, or until the end has come; it must not end by itself."""
        task, ended = asyncio.create_task(process), asyncio.ensure_future(end)
        await asyncio.wait({task, ended}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        while not task.done():  # the dead never answer, and whoever waits for them is cut off again
            task.cancel()
            await asyncio.wait({task}, timeout=5)
        results = await asyncio.gather(task, ended, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError), results[0]

    async def _wrote(self, what: str) -> None:
        """Count a write that has just happened; after the last one nothing is ever answered again."""
        self.writes.append(what)
        if self._die_after is not None and len(self.writes) >= self._die_after:
            self.dead.set()
        await self._alive()

    async def _alive(self) -> None:
        if self.dead.is_set():
            await asyncio.Event().wait()
