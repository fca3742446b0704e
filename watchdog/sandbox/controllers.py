"""Runs the controllers: whatever happens to an object leads to a look at what it belongs to."""

import asyncio
import datetime as dt
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from watchdog.sandbox.deployments import DeploymentSync
from watchdog.sandbox.queue import Queue
from watchdog.sandbox.refusals import ApiError
from watchdog.sandbox.replicasets import sync_replicaset
from watchdog.sandbox.selecting import matches_labels
from watchdog.sandbox.store import Change, Key, Store

Json = dict[str, Any]
log = logging.getLogger(__name__)


class Controllers:
    """The Deployment and ReplicaSet controllers; `pause` stops them as a stopped controller manager stands still.

    Args:
        now: the time.
    """

    def __init__(self, *, now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)) -> None:
        self._now = now
        self._queue: Queue[Key] = Queue()
        self._running = asyncio.Event()
        self._running.set()

    def pause(self) -> None:
        """Do nothing until `resume`; what happens meanwhile is looked at then."""
        self._running.clear()

    def resume(self) -> None:
        """Go on."""
        self._running.set()

    async def run(self, store: Store) -> None:
        """Work until cancelled."""
        with store.watch("deployments", "replicasets", "pods", since=store.oldest) as watch:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._work(store))
                    async for change in watch:
                        self._note(store, change)
            finally:
                self._queue.close()

    def _note(self, store: Store, change: Change) -> None:
        metadata = change.object["metadata"]
        namespace = metadata["namespace"]
        if change.resource != "pods":
            self._queue.add((change.resource, namespace, metadata["name"]))
        references = metadata.get("ownerReferences") or ()
        before = change.previous["metadata"].get("ownerReferences") or () if change.previous else ()
        for reference in (*references, *before):
            owner = {"Deployment": "deployments", "ReplicaSet": "replicasets"}.get(reference["kind"])
            if owner and reference.get("controller"):
                self._queue.add((owner, namespace, reference["name"]))
        if change.resource != "deployments" and not references and change.type != "DELETED":
            owner = "deployments" if change.resource == "replicasets" else "replicasets"
            for item in store.list(owner, namespace):
                if matches_labels(item["spec"]["selector"], change.object):
                    self._queue.add((owner, namespace, item["metadata"]["name"]))
        if change.resource == "pods" and change.type == "DELETED":
            self._wake_recreated(store, namespace, references)

    def _wake_recreated(self, store: Store, namespace: str, references: Any) -> None:
        """A Deployment that recreates waits for the last old pod, which only its ReplicaSet hears of."""
        for reference in references:
            owner = store.find("replicasets", namespace, reference["name"])
            for above in (owner or {"metadata": {}})["metadata"].get("ownerReferences", ()):
                self._queue.add(("deployments", namespace, above["name"]))

    async def _work(self, store: Store) -> None:
        while True:
            key = await self._queue.get()
            await self._running.wait()
            await asyncio.sleep(0)  # whoever else is ready comes first, and hears of what was done last
            try:
                self._sync(store, key)
            except ApiError as error:
                if error.code not in (404, 409):
                    log.warning(
                        "the controller could not write", extra={"object": "/".join(key), "problem": str(error)}
                    )
                self._queue.failed(key)
            else:
                self._queue.done(key)

    def _sync(self, store: Store, key: Key) -> None:
        item = store.find(*key)
        if item is None or "deletionTimestamp" in item["metadata"]:
            return
        look_again = partial(self._queue.add_after, key)
        if key[0] == "deployments":
            DeploymentSync(store, item, now=self._now(), look_again=look_again).run()
        else:
            sync_replicaset(store, item, now=self._now(), look_again=look_again)
