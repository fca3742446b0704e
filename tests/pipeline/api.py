"""The API server for those who follow it all the time: an asyncio client, and the writer of a pod's status."""

import datetime as dt
import json
import ssl
from collections.abc import AsyncIterator

import aiohttp

from tests.controlplane.plane import ControlPlane, Json

_MERGE = {"Content-Type": "application/merge-patch+json"}


class Api:
    """The API server, as the administrator."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    async def __aenter__(self) -> "Api":
        tls = ssl.create_default_context(cafile=str(self._plane.ca_file))
        self._session = aiohttp.ClientSession(
            self._plane.url,
            headers={"Authorization": f"Bearer {self._plane.token}"},
            connector=aiohttp.TCPConnector(ssl=tls, limit=0),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def ask(self, method: str, path: str, body: Json | None = None) -> Json | None:
        """Make a request; None where there is nothing."""
        headers = _MERGE if method == "PATCH" else None
        async with self._session.request(method, path, json=body, headers=headers) as response:
            answer: Json = await response.json()
            if response.status in (404, 409):
                return None
            assert response.status < 300, f"{method} {path}: {answer}"
            return answer

    async def follow(self, path: str) -> AsyncIterator[tuple[str, Json]]:
        """Yield what there is and every change to come, as a type and an object."""
        while True:
            listed = await self.ask("GET", path)
            assert listed
            for item in listed["items"]:
                yield "ADDED", item
            version = listed["metadata"]["resourceVersion"]
            timeout = aiohttp.ClientTimeout(total=None)
            query = f"{path}?watch=1&resourceVersion={version}"
            async with self._session.get(query, timeout=timeout, read_bufsize=2**22) as response:
                async for line in response.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        break
                    yield event["type"], event["object"]


class Status:
    """Writes a pod's status."""

    def __init__(self, api: Api, path: str, container: Json) -> None:
        self._api = api
        self._path = path
        self._container = container
        self._status: Json = {"startTime": _now()}
        self._state: Json = {}
        self._restarts = 0
        self._last: Json = {}
        self._was: bool | None = None

    async def waiting(self, reason: str) -> None:
        """The container cannot be made."""
        self._state = {"waiting": {"reason": reason}}
        await self._write("Pending", ready=False)

    async def running(self, address: str, *, restarts: int) -> None:
        """The process runs, and is not ready yet."""
        self._status |= {"podIP": address, "podIPs": [{"ip": address}], "hostIP": "10.0.0.1"}
        self._state, self._restarts, self._was = {"running": {"startedAt": _now()}}, restarts, False
        await self._write("Running", ready=False)

    async def ready(self, ready: bool) -> None:
        """It takes requests, or no more."""
        if ready is not self._was:
            self._was = ready
            await self._write("Running", ready=ready)

    async def crashed(self, *, restarts: int, code: int) -> None:
        """The process ended by itself, and is begun anew after a while."""
        self._state, self._restarts, self._was = {"waiting": {"reason": "CrashLoopBackOff"}}, restarts + 1, False
        self._last = {"terminated": {"exitCode": code, "reason": "Error", "finishedAt": _now()}}
        await self._write("Running", ready=False)

    async def _write(self, phase: str, *, ready: bool) -> None:
        now, yes = _now(), {"status": "True"}
        able = {"status": "True" if ready else "False"}
        kinds: dict[str, Json] = {"PodScheduled": yes, "Initialized": yes, "ContainersReady": able, "Ready": able}
        conditions = [{"type": kind, "lastTransitionTime": now, **about} for kind, about in kinds.items()]
        container = {
            "name": self._container["name"],
            "image": self._container["image"],
            "imageID": self._container["image"],
            "ready": ready,
            "started": ready,
            "restartCount": self._restarts,
            "state": self._state,
            "lastState": self._last,
        }
        status = {**self._status, "phase": phase, "conditions": conditions, "containerStatuses": [container]}
        await self._api.ask("PATCH", f"{self._path}/status", {"status": status})


def _now() -> str:
    return f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"
