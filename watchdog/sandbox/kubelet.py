"""A kubelet that only plays: it makes pods ready, or not, as the annotations of their template say.

    sim/ready-after: 2s        time to Ready (100ms)
    sim/mode: never-ready      Running, never Ready
    sim/mode: crash-loop       CrashLoopBackOff, five restarts, last exit code 1
    sim/mode: image-pull       Pending, ImagePullBackOff
    sim/mode: crash-later      Ready first, CrashLoopBackOff after sim/crash-after (10s)
    sim/terminate-after: 1s    time from deletion to gone (100ms)

The fake kubelet of the test control plane (tests/controlplane/stages.yaml) follows the same ones.
"""

import asyncio
import datetime as dt
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from watchdog.sandbox.refusals import ApiError
from watchdog.sandbox.store import Change, Store, stamp

Json = dict[str, Any]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m)")


class ScriptedKubelet:
    """Plays the kubelet of every node, and the scheduler of pods that name none.

    Args:
        ready_after_s: of pods that do not say.
        terminate_after_s: of pods that do not say.
        now: the time.
    """

    def __init__(
        self,
        *,
        ready_after_s: float = 0.1,
        terminate_after_s: float = 0.1,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._ready_after_s = ready_after_s
        self._terminate_after_s = terminate_after_s
        self._now = now
        self._pods: dict[str, asyncio.Task[None]] = {}

    async def run(self, store: Store) -> None:
        """Work until cancelled."""
        with store.watch("pods", since=store.oldest) as watch:
            async with asyncio.TaskGroup() as group:
                async for change in watch:
                    uid = change.object["metadata"]["uid"]
                    if change.type == "ADDED":
                        self._pods[uid] = group.create_task(self._start(store, change.object))
                    elif change.type == "DELETED":
                        self._stop(uid)
                    elif _is_new_end(change):
                        self._stop(uid)
                        self._pods[uid] = group.create_task(self._end(store, change.object))

    def _stop(self, uid: str) -> None:
        if task := self._pods.pop(uid, None):
            task.cancel()

    async def _start(self, store: Store, pod: Json) -> None:
        # A pod may be gone before its turn comes.
        with suppress(ApiError):
            if not pod["spec"].get("nodeName"):
                _change(store, pod, lambda item: item["spec"].update(nodeName="node-0"))
            match _script(pod, "mode", ""):
                case "never-ready" | "crash-loop" | "image-pull" as mode:
                    self._say(store, pod, mode)
                case mode:
                    await asyncio.sleep(_seconds(_script(pod, "ready-after", ""), self._ready_after_s))
                    self._say(store, pod, "ready")
                    if mode == "crash-later":
                        await asyncio.sleep(_seconds(_script(pod, "crash-after", ""), 10.0))
                        self._say(store, pod, "crash-loop")

    async def _end(self, store: Store, pod: Json) -> None:
        await asyncio.sleep(_seconds(_script(pod, "terminate-after", ""), self._terminate_after_s))
        metadata = pod["metadata"]
        with suppress(ApiError):
            store.delete("pods", metadata["namespace"], metadata["name"], grace_s=0, uid=metadata["uid"])

    def _say(self, store: Store, pod: Json, mode: str) -> None:
        now = stamp(self._now())

        def write(item: Json) -> None:
            item["status"] = {**item.get("status", {}), **status_of(item, mode=mode, now=now)}

        _change(store, pod, write, subresource="status")


def status_of(pod: Json, *, mode: str, now: str) -> Json:
    """The status of a pod that is ``ready``, ``never-ready``, ``crash-loop`` or ``image-pull`` from now on."""
    ready = mode == "ready"
    unready = {} if ready else {"reason": "ContainersNotReady", "message": "containers with unready status"}
    conditions = [{"type": "Initialized", "status": "True", "lastTransitionTime": now}]
    conditions += [
        {"type": kind, "status": str(ready), "lastTransitionTime": now, **unready}
        for kind in ("Ready", "ContainersReady")
    ]
    containers = []
    for container in pod["spec"]["containers"]:
        entry = {"name": container["name"], "image": container["image"], "imageID": f"sim/{container['image']}"}
        entry |= {"ready": ready, "started": mode in ("ready", "never-ready"), "restartCount": 0}
        entry["state"] = {"running": {"startedAt": now}}
        if mode == "crash-loop":
            entry["restartCount"] = 5
            message = f"back-off 5m0s restarting failed container={container['name']}"
            entry["state"] = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
            ended = {"exitCode": 1, "reason": "Error", "startedAt": now, "finishedAt": now}
            entry["lastState"] = {"terminated": ended}
        elif mode == "image-pull":
            entry["imageID"] = ""
            message = f'Back-off pulling image "{container["image"]}"'
            entry["state"] = {"waiting": {"reason": "ImagePullBackOff", "message": message}}
        containers.append(entry)
    return {
        "phase": "Pending" if mode == "image-pull" else "Running",
        "conditions": conditions,
        "containerStatuses": containers,
        "startTime": now,
    }


def _is_new_end(change: Change) -> bool:
    before = (change.previous or change.object)["metadata"]
    return "deletionTimestamp" in change.object["metadata"] and "deletionTimestamp" not in before


def _change(store: Store, pod: Json, write: Callable[[Json], None], *, subresource: str = "") -> None:
    metadata = pod["metadata"]
    found = store.get("pods", metadata["namespace"], metadata["name"])
    if found["metadata"]["uid"] == metadata["uid"]:
        store.modify("pods", metadata["namespace"], metadata["name"], write, subresource=subresource, manager="kubelet")


def _script(pod: Json, key: str, default: str) -> str:
    return str((pod["metadata"].get("annotations") or {}).get(f"sim/{key}", default))


def _seconds(text: str, default_s: float) -> float:
    """A duration such as ``1m30s``; the default where it is none."""
    parts = _DURATION.findall(text)
    return sum(float(number) * _UNITS[unit] for number, unit in parts) if parts else default_s
