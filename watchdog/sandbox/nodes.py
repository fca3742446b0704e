"""The kubelet of every node, and the scheduler before it: a real HTTP server for each Pod object, and the pod's status.

A pod is bound at once, created after a moment, Ready when its behaviour says so, started again after a crash with a
growing pause, and let go of as in life: it still answers for a while after it was deleted.
"""

import asyncio
import datetime as dt
import itertools
import socket
from collections.abc import Callable
from typing import Any

from watchdog.sandbox.behaviour import Behaviour, Mode, Upstream, read
from watchdog.sandbox.serving import Place, addresses, listen, serving
from watchdog.sandbox.store import Change, Json, Store, stamp

NODE = "node-0"
PORT_ANNOTATION = "prometheus.io/port"

_CREATING_S = 0.2
_BACK_OFF_S = 0.5
_LONGEST_BACK_OFF_S = 4.0


class Kubelet:
    """Runs the pods of a store.

    Args:
        upstream: what the pods call.
    """

    def __init__(self, upstream: Upstream | None = None) -> None:
        self._upstream = upstream or Upstream()
        self._addresses = addresses()
        self._endings: dict[str, asyncio.Event] = {}

    async def run(self, store: Store) -> None:
        """Run every pod that there is and every one to come, until cancelled; all servers end with it."""
        async with asyncio.TaskGroup() as group:
            with store.watch("pods") as changes:
                for pod in store.list("pods"):
                    self._take(store, pod, group)
                async for change in changes:
                    self._heed(store, change, group)

    def _heed(self, store: Store, change: Change, group: asyncio.TaskGroup) -> None:
        if change.type == "DELETED":
            if ending := self._endings.pop(change.object["metadata"]["uid"], None):
                ending.set()
        else:
            self._take(store, change.object, group)

    def _take(self, store: Store, pod: Json, group: asyncio.TaskGroup) -> None:
        uid = pod["metadata"]["uid"]
        if uid not in self._endings:
            self._endings[uid] = asyncio.Event()
            group.create_task(self._live(_Status(store, pod), read(pod["metadata"].get("annotations", {})), uid))
        if "deletionTimestamp" in pod["metadata"]:
            self._endings[uid].set()

    async def _live(self, status: "_Status", behaviour: Behaviour, uid: str) -> None:
        """One pod from its first to its last moment."""
        ending = self._endings[uid]
        if behaviour.mode is Mode.UNSCHEDULABLE:
            status.unschedulable()
            await ending.wait()
            return
        status.bound()
        if not await _ends(ending, _CREATING_S):
            if behaviour.mode is Mode.IMAGE_PULL:
                status.waiting("ImagePullBackOff", "Back-off pulling image", phase="Pending")
                await ending.wait()
            else:
                await self._containers(status, behaviour, ending)
        status.gone()

    async def _containers(self, status: "_Status", behaviour: Behaviour, ending: asyncio.Event) -> None:
        """Its container, again and again."""
        place: Place | None = None
        for restarts in itertools.count():
            listener = self._listen(place)
            running = serving(listener, version=status.image, behaviour=behaviour, upstream=self._upstream)
            async with running as place:
                status.running(place, restarts=restarts)
                if not await self._until_it_crashes(status, behaviour, ending):
                    await asyncio.sleep(behaviour.terminate_after_s)
                    return
            status.crashed(restarts=restarts)
            if await _ends(ending, min(_BACK_OFF_S * 2**restarts, _LONGEST_BACK_OFF_S)):
                return

    def _listen(self, place: Place | None) -> socket.socket:
        """A socket for a container: a restarted one stays at its pod's address, if nobody has taken the port."""
        if place is not None:
            try:
                return socket.create_server((place.address, place.port), backlog=256)
            except OSError:
                return listen(iter((place.address,)))
        return listen(self._addresses)

    async def _until_it_crashes(self, status: "_Status", behaviour: Behaviour, ending: asyncio.Event) -> bool:
        """Wait for the container's end; whether it is a crash, and not the end of its pod."""
        crashes = behaviour.mode in (Mode.CRASH_LOOP, Mode.CRASH_LATER)
        ready_s = behaviour.ready_after_s
        if behaviour.mode is Mode.NEVER_READY or (crashes and behaviour.crash_after_s <= ready_s):
            ready_s = 0.0
        elif await _ends(ending, ready_s):
            return False
        else:
            status.ready()
        if crashes:
            return not await _ends(ending, behaviour.crash_after_s - ready_s)
        await ending.wait()
        return False


async def _ends(ending: asyncio.Event, within_s: float) -> bool:
    """Wait, and say whether the pod was deleted meanwhile."""
    try:
        async with asyncio.timeout(within_s):
            await ending.wait()
    except TimeoutError:
        return False
    return True


class _Status:
    """Writes a pod's status, as long as the pod is there."""

    def __init__(self, store: Store, pod: Json) -> None:
        metadata = pod["metadata"]
        self._store = store
        self._at = (metadata["namespace"], metadata["name"])
        self._uid = metadata["uid"]
        self._containers: list[tuple[str, str]] = [
            (each["name"], each.get("image", "")) for each in pod["spec"]["containers"]
        ]
        self._place: Place | None = None
        self._last: Json = {}
        self._state: Json = {}
        self._restarts = 0

    @property
    def image(self) -> str:
        """Of its first container."""
        return self._containers[0][1]

    def unschedulable(self) -> None:
        """No node has room."""
        message = "0/1 nodes are available: 1 Insufficient cpu."
        self._conditions("Pending", [], PodScheduled=("False", "Unschedulable", message))

    def bound(self) -> None:
        """It has a node, which creates its containers."""

        def bind(pod: Json) -> None:
            pod["spec"].setdefault("nodeName", NODE)

        self._modify(bind)
        self.waiting("ContainerCreating", "", phase="Pending")

    def waiting(self, reason: str, message: str, *, phase: str, restarts: int = 0) -> None:
        """Its containers wait for something."""
        state: Json = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        self._containers_are(phase, state, ready=False, restarts=restarts)

    def running(self, place: Place, *, restarts: int) -> None:
        """Its containers run, and are not ready yet."""
        self._place = place

        def annotate(pod: Json) -> None:
            pod["metadata"].setdefault("annotations", {})[PORT_ANNOTATION] = str(place.port)

        self._modify(annotate)
        self._restarts, self._state = restarts, {"running": {"startedAt": self._now()}}
        self._containers_are("Running", self._state, ready=False, restarts=restarts)

    def ready(self) -> None:
        """It takes traffic."""
        self._containers_are("Running", self._state, ready=True, restarts=self._restarts)

    def crashed(self, *, restarts: int) -> None:
        """Its container ended with an error and waits for its next start."""
        started = self._state["running"]["startedAt"]
        ended = {"exitCode": 1, "reason": "Error", "startedAt": started, "finishedAt": self._now()}
        self._last = {"terminated": ended}
        self.waiting("CrashLoopBackOff", "back-off restarting failed container", phase="Running", restarts=restarts)

    def gone(self) -> None:
        """It has ended: the API may forget it."""
        if self._there():
            self._store.delete("pods", *self._at, grace_s=0, uid=self._uid)

    def _containers_are(self, phase: str, state: Json, *, ready: bool, restarts: int) -> None:
        started = "running" in state
        statuses = [
            {
                "name": name,
                "image": image,
                "imageID": f"sandbox/{image}" if self._place else "",
                "ready": ready,
                "started": started,
                "restartCount": restarts,
                "state": state,
                "lastState": self._last,
            }
            for name, image in self._containers
        ]
        yes = ("True", "", "")
        now = yes if ready else ("False", "ContainersNotReady", "containers with unready status: [app]")
        self._conditions(phase, statuses, PodScheduled=yes, Initialized=yes, ContainersReady=now, Ready=now)

    def _conditions(self, phase: str, statuses: list[Json], **conditions: tuple[str, str, str]) -> None:
        def change(pod: Json) -> None:
            old: Json = pod.get("status", {})
            before = {each["type"]: each for each in old.get("conditions", ())}
            new: Json = {"phase": phase, "conditions": [], "startTime": old.get("startTime", self._now())}
            for kind, (status, reason, message) in conditions.items():
                since = before.get(kind, {})
                turned = since["lastTransitionTime"] if since.get("status") == status else self._now()
                condition: Json = {"type": kind, "status": status, "lastTransitionTime": turned}
                condition |= {"reason": reason, "message": message} if reason else {}
                new["conditions"].append(condition)
            if statuses:
                new["containerStatuses"] = statuses
            if self._place:
                new |= {"podIP": self._place.address, "podIPs": [{"ip": self._place.address}], "hostIP": "127.0.0.1"}
            pod["status"] = new

        self._modify(change, subresource="status")

    def _modify(self, change: Callable[[Json], Any], *, subresource: str = "") -> None:
        if self._there():
            self._store.modify("pods", *self._at, lambda pod: change(pod), subresource=subresource)

    def _there(self) -> bool:
        pod = self._store.find("pods", *self._at)
        return pod is not None and pod["metadata"]["uid"] == self._uid

    @staticmethod
    def _now() -> str:
        return stamp(dt.datetime.now(dt.UTC))
