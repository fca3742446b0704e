"""An image that was pulled: its code is imported once, and every pod is a fork of that process."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.controlplane.plane import _DIE_WITH_PARENT as DIE_WITH_PARENT


class Image:
    """The process that forks the pods of one image."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._pids: dict[str, asyncio.Future[int]] = {}
        self._exits: dict[str, asyncio.Future[int]] = {}

    @classmethod
    async def load(cls, python: Path, directory: Path) -> "Image":
        """Import the image's code."""
        launcher = [sys.executable, "-I", "-S", "-c", DIE_WITH_PARENT, str(os.getpid())]
        zygote = [str(python), str(Path(__file__).with_name("zygote.py"))]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*launcher, *zygote, cwd=directory, stdin=pipe, stdout=pipe)
        assert process.stdout
        assert await process.stdout.readline(), f"{directory} cannot be imported"
        return cls(process)

    async def start(self, pod: str, env: Mapping[str, str], log: Path) -> tuple[int, "asyncio.Future[int]"]:
        """Fork a pod's process; its pid, and later its exit code."""
        assert self._process.stdin
        loop = asyncio.get_running_loop()
        self._pids[pod], self._exits[pod] = loop.create_future(), loop.create_future()
        self._process.stdin.write(json.dumps({"pod": pod, "env": dict(env), "log": str(log)}).encode() + b"\n")
        return await self._pids[pod], self._exits[pod]

    async def listen(self) -> None:
        """Hear of beginnings and ends until the process ends."""
        assert self._process.stdout
        async for line in self._process.stdout:
            told = json.loads(line)
            found = self._pids if "pid" in told else self._exits
            found[told["pod"]].set_result(told.get("pid", told.get("exit")))

    async def end(self) -> None:
        """End it, and with it every pod of the image."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
