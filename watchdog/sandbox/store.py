"""The objects, each as the JSON the API shows, and everyone who wants to hear of their changes.

Everything happens at once and in one thread: a method that returns has done it, and nothing came between. What is read
is shared, so nobody may change it: `modify` gives a copy to change.
"""

import asyncio
import copy
import datetime as dt
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Self

import msgspec

from watchdog.sandbox.ownership import track
from watchdog.sandbox.refusals import (
    ApiError,
    already_exists,
    bad_request,
    conflict,
    expired,
    invalid,
    not_found,
)
from watchdog.sandbox.resources import RESOURCES, Resource

Json = dict[str, Any]
Key = tuple[str, str, str]
"""A resource's plural name, a namespace (empty where there is none) and a name."""

Admit = Callable[[Resource, Json, Json | None], None]
"""Given a resource, an object to be stored and what it replaces: fills in defaults, or raises `ApiError`."""

CONTROLLER = "kube-controller-manager"
"""Who writes where nobody else says so."""

_HISTORY = 10_000
_FIRST = 1000
_FIXED = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")


class Change(msgspec.Struct, frozen=True):
    """What happened to an object.

    Args:
        type: ADDED, MODIFIED or DELETED.
        resource: the plural name of its kind.
        object: as it is now; of a deleted one its last state, with the resourceVersion of its deletion.
        previous: as it was before; None for an added one.
        version: the resourceVersion of this change.
    """

    type: str
    resource: str
    object: Json
    previous: Json | None
    version: int

    @property
    def namespace(self) -> str:
        """Of the object; empty where it has none."""
        return str(self.object["metadata"].get("namespace", ""))


class Watch:
    """Changes, in their order, for as long as the context lasts. An endless async iterator."""

    def __init__(self, watches: set["Watch"], *, resources: frozenset[str], namespace: str | None, since: int) -> None:
        self._watches = watches
        self._resources = resources
        self._namespace = namespace
        self._since = since
        self._queue: asyncio.Queue[Change] = asyncio.Queue()

    def __enter__(self) -> Self:
        self._watches.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._watches.discard(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        return await self._queue.get()

    def offer(self, change: Change) -> None:
        """Take a change, if it is one of ours."""
        if change.version <= self._since or change.resource not in self._resources:
            return
        if self._namespace in (None, change.namespace):
            self._queue.put_nowait(change)


class Store:
    """All objects of one cluster.

    Args:
        admit: called before an object is stored.
        now: the time.
        history: how many changes are remembered for watches that begin in the past.
    """

    def __init__(
        self,
        *,
        admit: Admit = lambda resource, new, old: None,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        history: int = _HISTORY,
    ) -> None:
        self.version = _FIRST
        """The resourceVersion of the newest change; there is one counter for all kinds."""
        self._admit = admit
        self._now = now
        self._objects: dict[str, dict[tuple[str, str], Json]] = {name: {} for name in RESOURCES}
        self._history: deque[Change] = deque(maxlen=history)
        self._watches: set[Watch] = set()
        self.oldest = _FIRST
        """The resourceVersion from which on every change is remembered."""

    # -- reading -------------------------------------------------------------------------------------------------------

    def get(self, resource: str, namespace: str, name: str) -> Json:
        """One object, not to be changed. Raises `ApiError` 404."""
        found = self.find(resource, namespace, name)
        if found is None:
            raise not_found(resource, RESOURCES[resource].group, name)
        return found

    def find(self, resource: str, namespace: str, name: str) -> Json | None:
        """One object, not to be changed; None where there is none."""
        return self._objects[resource].get((namespace, name))

    def list(self, resource: str, namespace: str | None = None) -> list[Json]:
        """All objects of a kind, by namespace and name; not to be changed."""
        kept = self._objects[resource].items()
        return [item for (place, _), item in sorted(kept, key=_key) if namespace in (None, place)]

    def owned(self, resource: str, owner: Json) -> Iterator[Json]:
        """The objects of a kind in the owner's namespace that it controls."""
        metadata = owner["metadata"]
        for item in self.list(resource, metadata["namespace"]):
            if controller_uid(item) == metadata["uid"]:
                yield item

    def watch(self, *resources: str, namespace: str | None = None, since: int | None = None) -> Watch:
        """Hear of changes, from now or from a resourceVersion on; enter what this returns before the next await.

        Raises:
            ApiError: 410, `since` is further back than the history goes.
        """
        if since is not None and since < self.oldest:
            raise expired(since, self.oldest)
        begin = self.version if since is None else since
        watch = Watch(self._watches, resources=frozenset(resources), namespace=namespace, since=begin)
        for change in self._history if since is not None else ():
            watch.offer(change)
        return watch

    def forget(self) -> None:
        """Drop the history, as a restarted API server does: every watch from the past gets a 410."""
        self._history.clear()
        self.oldest = self.version

    # -- writing -------------------------------------------------------------------------------------------------------

    def create(
        self, resource: str, body: Json, *, namespace: str = "", dry_run: bool = False, manager: str = CONTROLLER
    ) -> Json:
        """Store a new object, with a name made from `generateName` where it has none, and return it.

        Args:
            resource: the plural name.
            body: the object.
            namespace: where; empty where the kind has none.
            dry_run: whether to keep nothing.
            manager: who owns the fields.

        Raises:
            ApiError: 409 there is one of that name; 404 no such namespace; 422 it is not valid.
        """
        kind = RESOURCES[resource]
        new = copy.deepcopy(body)
        new["kind"], new["apiVersion"] = kind.kind, kind.api_version
        metadata = new.setdefault("metadata", {})
        if kind.namespaced:
            if metadata.setdefault("namespace", namespace) != namespace:
                raise bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
            self.get("namespaces", "", namespace)
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = f"{metadata['generateName']}{suffix()}"
        name = metadata.get("name", "")
        if not name:
            raise invalid(
                kind.kind, kind.group, "", ("metadata.name", "Required value: name or generateName is required")
            )
        if self.find(resource, metadata.get("namespace", ""), name):
            raise already_exists(resource, kind.group, name)
        for field in ("resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
            metadata.pop(field, None)
        metadata["uid"], metadata["creationTimestamp"] = str(uuid.uuid4()), self._stamp()
        if kind.bumps:
            metadata["generation"] = 1
        if "status" in kind.subresources:
            new.pop("status", None)
        self._admit(kind, new, None)
        track(new, None, manager=manager, subresource="", at=self._stamp())
        return new if dry_run else self._put(kind, new, None)

    def modify(
        self,
        resource: str,
        namespace: str,
        name: str,
        change: Callable[[Json], Json | None],
        *,
        subresource: str = "",
        dry_run: bool = False,
        manager: str = CONTROLLER,
    ) -> Json:
        """Change an object by the API's rules and return it as it is then.

        What may not change is kept: status through the object itself, all but status and metadata through ``status``.
        The generation rises with what counts for this kind. A change of nothing is none.

        Args:
            resource: the plural name.
            namespace: empty where the kind has none.
            name: of the object.
            change: gets a copy; changes it in place, or returns another.
            subresource: empty, ``status`` or ``scale``.
            dry_run: whether to keep nothing.
            manager: who owns the fields that change.

        Raises:
            ApiError: 404; 409 where the changed copy has another uid or resourceVersion; 422 it is not valid.
        """
        kind, old = RESOURCES[resource], self.get(resource, namespace, name)
        draft = copy.deepcopy(old)
        new = change(draft) or draft
        metadata, before = new.setdefault("metadata", {}), old["metadata"]
        if metadata.get("resourceVersion", before["resourceVersion"]) != before["resourceVersion"]:
            raise conflict(resource, kind.group, name)
        if (uid := metadata.get("uid", before["uid"])) != before["uid"]:
            problem = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {before['uid']}"
            raise conflict(resource, kind.group, name, problem)
        if metadata.get("name", name) != name or metadata.get("namespace", namespace) != namespace:
            raise bad_request("the name of the object does not match the name on the URL")
        for field in (*_FIXED, "generation", "resourceVersion"):
            metadata.pop(field, None)
            if field in before:
                metadata[field] = before[field]
        new["kind"], new["apiVersion"] = old["kind"], old["apiVersion"]
        if subresource == "status":
            new = {**old, "metadata": metadata, "status": new.get("status", {})}
        elif "status" in kind.subresources:
            new.pop("status", None)
            if "status" in old:
                new["status"] = old["status"]
        self._admit(kind, new, old)
        track(new, old, manager=manager, subresource=subresource, at=self._stamp())
        if subresource != "status" and any(_part(new, field) != _part(old, field) for field in kind.bumps):
            metadata["generation"] = before["generation"] + 1
        if new == old:
            return old
        if dry_run:
            return new
        if "deletionTimestamp" in metadata and not metadata.get("finalizers") and before.get("finalizers"):
            return self._remove(kind, new)
        return self._put(kind, new, old)

    def delete(
        self,
        resource: str,
        namespace: str,
        name: str,
        *,
        grace_s: int | None = None,
        uid: str | None = None,
        orphan: bool = False,
        dry_run: bool = False,
    ) -> Json:
        """Delete an object and what it owns; a pod with a node is only marked, until its kubelet deletes it with 0 s.

        Args:
            resource: the plural name.
            namespace: empty where the kind has none.
            name: of the object.
            grace_s: of a pod, instead of its own terminationGracePeriodSeconds.
            uid: refuse unless it is this one.
            orphan: whether what it owns stays.
            dry_run: whether to keep everything.

        Raises:
            ApiError: 404; 409 where it is another `uid`.
        """
        kind, old = RESOURCES[resource], self.get(resource, namespace, name)
        if uid is not None and old["metadata"]["uid"] != uid:
            problem = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old['metadata']['uid']}"
            raise conflict(resource, kind.group, name, problem)
        if dry_run:
            return old
        grace_s = self._grace_s(kind, old, grace_s)
        if grace_s > 0 or old["metadata"].get("finalizers"):
            if "deletionTimestamp" in old["metadata"]:
                return old
            new = copy.deepcopy(old)
            new["metadata"]["deletionTimestamp"] = self._stamp(dt.timedelta(seconds=grace_s))
            new["metadata"]["deletionGracePeriodSeconds"] = grace_s
            if kind.bumps:
                new["metadata"]["generation"] += 1
            return self._put(kind, new, old)
        gone = self._remove(kind, copy.copy(old))
        self._collect(gone, orphan=orphan)
        return gone

    def _grace_s(self, kind: Resource, item: Json, asked_s: int | None) -> int:
        if kind.name != "pods" or not item.get("spec", {}).get("nodeName"):
            return 0
        if item.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            return 0
        return asked_s if asked_s is not None else int(item["spec"].get("terminationGracePeriodSeconds", 30))

    def _collect(self, owner: Json, *, orphan: bool) -> None:
        """What the garbage collector does when an owner is gone."""
        uid, namespace = owner["metadata"]["uid"], owner["metadata"].get("namespace", "")
        if owner["kind"] == "Namespace":
            for resource, kind in RESOURCES.items():
                for item in self.list(resource, owner["metadata"]["name"]) if kind.namespaced else ():
                    if self.find(resource, item["metadata"]["namespace"], item["metadata"]["name"]):
                        self.delete(resource, item["metadata"]["namespace"], item["metadata"]["name"])
            return

        def disown(item: Json) -> None:
            item["metadata"]["ownerReferences"] = [
                reference for reference in item["metadata"]["ownerReferences"] if reference["uid"] != uid
            ]

        for resource in ("replicasets", "pods", "configmaps", "secrets"):
            for item in self.list(resource, namespace):
                owners = [reference["uid"] for reference in item["metadata"].get("ownerReferences", ())]
                if uid not in owners:
                    continue
                if orphan or len(owners) > 1:
                    self.modify(resource, namespace, item["metadata"]["name"], disown)
                elif self.find(resource, namespace, item["metadata"]["name"]):
                    self.delete(resource, namespace, item["metadata"]["name"])

    def _remove(self, kind: Resource, item: Json) -> Json:
        metadata = item["metadata"]
        self.version += 1
        item = {**item, "metadata": {**metadata, "resourceVersion": str(self.version)}}
        previous = self._objects[kind.name].pop((metadata.get("namespace", ""), metadata["name"]))
        self._tell(Change("DELETED", kind.name, item, previous, self.version))
        return item

    def _put(self, kind: Resource, new: Json, old: Json | None) -> Json:
        self.version += 1
        metadata = new["metadata"]
        metadata["resourceVersion"] = str(self.version)
        self._objects[kind.name][metadata.get("namespace", ""), metadata["name"]] = new
        self._tell(Change("MODIFIED" if old else "ADDED", kind.name, new, old, self.version))
        return new

    def _tell(self, change: Change) -> None:
        if len(self._history) == self._history.maxlen:
            self.oldest = self._history[0].version
        self._history.append(change)
        for watch in self._watches:
            watch.offer(change)

    def _stamp(self, later: dt.timedelta = dt.timedelta()) -> str:
        return stamp(self._now() + later)


def stamp(time: dt.datetime) -> str:
    """A time as the API writes it, to the second."""
    return f"{time.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


def suffix() -> str:
    """Five characters that make a generated name, none of which forms a word."""
    alphabet = "bcdfghjklmnpqrstvwxz2456789"
    number, letters = uuid.uuid4().int, ""
    for _ in range(5):
        number, rest = divmod(number, len(alphabet))
        letters += alphabet[rest]
    return letters


def controller_uid(item: Json) -> str | None:
    """The uid of the object that controls this one."""
    references = item["metadata"].get("ownerReferences", ())
    return next((str(reference["uid"]) for reference in references if reference.get("controller")), None)


def _key(item: tuple[tuple[str, str], Json]) -> tuple[str, str]:
    return item[0]


def _part(item: Json, field: str) -> Any:
    return item["metadata"].get(field) or {} if field == "annotations" else item.get(field)


__all__ = ["ApiError", "Change", "Json", "Key", "Store", "Watch", "controller_uid", "stamp", "suffix"]
