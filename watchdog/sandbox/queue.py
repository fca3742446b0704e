"""What a controller still has to look at: each key once, now or later, with growing pauses after failures."""

import asyncio
from typing import Generic, TypeVar

K = TypeVar("K")

_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 1.0


class Queue(Generic[K]):
    """Keys to be worked on, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: dict[K, None] = {}
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._news = asyncio.Event()

    def add(self, key: K) -> None:
        """Work on it as soon as possible."""
        self._waiting[key] = None
        self._news.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Work on it again after a time; the latest such wish counts."""
        if timer := self._timers.pop(key, None):
            timer.cancel()
        self._timers[key] = asyncio.get_running_loop().call_later(seconds, self.add, key)

    def failed(self, key: K) -> None:
        """Try again after a pause that doubles with each failure in a row."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(failures - 1, 10))
        asyncio.get_running_loop().call_later(pause_s, self.add, key)

    def done(self, key: K) -> None:
        """Forget its failures."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """The next key, once there is one."""
        while not self._waiting:
            self._news.clear()
            await self._news.wait()
        key = next(iter(self._waiting))
        del self._waiting[key]
        return key

    def close(self) -> None:
        """Stop the clocks."""
        for timer in self._timers.values():
            timer.cancel()
