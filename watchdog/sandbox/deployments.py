"""The Deployment controller: one look at a Deployment, as Kubernetes' own takes it (pkg/controller/deployment, v1.36).

It keeps what can be seen from outside, above all the order of its writes: a ReplicaSet is renumbered first, then the
revision goes to the Deployment, then observedGeneration (b2), but for a paused one (k2). That order comes from
working on what was read at the beginning: a second write of the same object is a conflict, and the next look goes on.
"""

import copy
import datetime as dt
from collections.abc import Callable
from typing import Any

from watchdog.objects import HASH_LABEL, REVISION
from watchdog.sandbox import rollout
from watchdog.sandbox.refusals import ApiError
from watchdog.sandbox.revisions import (
    DESIRED,
    annotate,
    annotate_sizes,
    count,
    created,
    number,
    revision,
    same_template,
    template_hash,
)
from watchdog.sandbox.selecting import matches_labels
from watchdog.sandbox.store import Store, controller_uid, stamp

Json = dict[str, Any]

_TIMED_OUT = "ProgressDeadlineExceeded"
_AVAILABLE = "NewReplicaSetAvailable"


class DeploymentSync:
    """Brings one Deployment a step further.

    Args:
        store: the objects.
        deployment: as it was read.
        now: the time.
        look_again: called with seconds after which another look is due.
    """

    def __init__(
        self, store: Store, deployment: Json, *, now: dt.datetime, look_again: Callable[[float], None]
    ) -> None:
        self._store = store
        self._now = now
        self._look_again = look_again
        self._d = copy.deepcopy(deployment)
        self._d.setdefault("status", {})
        self._namespace: str = deployment["metadata"]["namespace"]
        self._name: str = deployment["metadata"]["name"]
        self._all = sorted(self._claim(), key=created)

    def run(self) -> None:
        """Take one look. Raises `ApiError` 409 where what was read is no longer so: look again soon."""
        self._note_pause()
        if self._d["spec"].get("paused") or self._is_scaling():
            self._scale_only()
        elif rollout.is_rolling(self._d):
            self._roll()
        else:
            self._recreate()

    # -- what there is -------------------------------------------------------------------------------------------------

    def _claim(self) -> list[Json]:
        """The ReplicaSets that are its own, after adopting those that nobody owns and its selector finds."""
        uid, claimed = self._d["metadata"]["uid"], []
        for item in self._store.list("replicasets", self._namespace):
            owner = controller_uid(item)
            if owner is None and matches_labels(self._d["spec"]["selector"], item):
                adopted = copy.deepcopy(item)
                adopted["metadata"].setdefault("ownerReferences", []).append(owner_reference(self._d))
                item = self._update(adopted)
            elif owner != uid:
                continue
            claimed.append(item)
        return claimed

    def _find_new(self) -> Json | None:
        """The oldest ReplicaSet with the live template."""
        template = self._d["spec"]["template"]
        return next((item for item in self._all if same_template(item["spec"]["template"], template)), None)

    def _sync_revision(self, *, create: bool) -> tuple[Json | None, list[Json]]:
        """The new ReplicaSet, numbered, and the old ones."""
        found = self._find_new()
        old = [item for item in self._all if item is not found]
        newest = max((revision(item) or 0 for item in old), default=0) + 1
        if found is None:
            return (self._create(old, newest) if create else None), old
        draft = copy.deepcopy(found)
        changed = annotate(self._d, draft, newest)
        ready_s = self._d["spec"].get("minReadySeconds", 0)
        if changed or draft["spec"].get("minReadySeconds", 0) != ready_s:
            draft["spec"]["minReadySeconds"] = ready_s
            return self._update(draft), old
        told = self._tell_revision(found["metadata"]["annotations"].get(REVISION, ""))
        if rollout.has_deadline(self._d) and self._condition("Progressing") is None:
            message = f'Found new replica set "{found["metadata"]["name"]}"'
            self._set_condition("Progressing", "True", "FoundNewReplicaSet", message)
            told = True
        if told:
            self._write_status()
        return found, old

    def _create(self, old: list[Json], newest: int) -> Json:
        spec, template = self._d["spec"], copy.deepcopy(self._d["spec"]["template"])
        hashed = template_hash(template, count(self._d, "collisionCount"))
        template["metadata"].setdefault("labels", {})[HASH_LABEL] = hashed
        selector = copy.deepcopy(spec["selector"])
        selector.setdefault("matchLabels", {})[HASH_LABEL] = hashed
        new: Json = {
            "metadata": {
                "name": f"{self._name}-{hashed}",
                "labels": dict(template["metadata"]["labels"]),
                "ownerReferences": [owner_reference(self._d)],
            },
            "spec": {"replicas": 0, "selector": selector, "template": template},
        }
        if spec.get("minReadySeconds"):
            new["spec"]["minReadySeconds"] = spec["minReadySeconds"]
        new["spec"]["replicas"] = rollout.new_size(self._d, [*old, new], new)
        annotate(self._d, new, newest)
        annotate_sizes(new, spec["replicas"], spec["replicas"] + rollout.max_surge(self._d))
        try:
            made = self._store.create("replicasets", new, namespace=self._namespace)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                self._d["status"]["collisionCount"] = count(self._d, "collisionCount") + 1
                self._write_status()
            raise
        self._tell_revision(str(newest))
        if rollout.has_deadline(self._d):
            message = f'Created new replica set "{made["metadata"]["name"]}"'
            self._set_condition("Progressing", "True", "NewReplicaSetCreated", message)
        self._write_status()
        return made

    def _tell_revision(self, text: str) -> bool:
        annotations = self._d["metadata"].setdefault("annotations", {})
        changed = bool(annotations.get(REVISION) != text)
        annotations[REVISION] = text
        return changed

    # -- what is done about it -----------------------------------------------------------------------------------------

    def _is_scaling(self) -> bool:
        new, old = self._sync_revision(create=False)
        wanted = self._d["spec"]["replicas"]
        desired = [number(item, DESIRED) for item in _active(old, new)]
        return any(each is not None and each != wanted for each in desired)

    def _scale_only(self) -> None:
        new, old = self._sync_revision(create=False)
        self._scale(new, old)
        if self._d["spec"].get("paused"):
            self._clean_up(old)
        status = self._calculate(new, old)
        if status != self._d["status"]:
            self._d["status"] = status
            self._write_status()

    def _scale(self, new: Json | None, old: list[Json]) -> None:
        active, wanted = _active(old, new), self._d["spec"]["replicas"]
        if len(active) < 2:
            newest = new or (max(old, key=created) if old else None)
            if only := next(iter(active), newest):
                self._resize(only, wanted)
        elif rollout.is_saturated(self._d, new):
            for item in _active(old, None):
                self._resize(item, 0)
        elif rollout.is_rolling(self._d):
            sizes = rollout.proportional(self._d, active)
            for item in active:
                self._resize(item, sizes[item["metadata"]["name"]], always=True)

    def _roll(self) -> None:
        new, old = self._sync_revision(create=True)
        assert new is not None  # noqa: S101  (created where there was none)
        moved = False
        if new["spec"]["replicas"] != (wanted := self._d["spec"]["replicas"]):
            size = wanted if new["spec"]["replicas"] > wanted else rollout.new_size(self._d, [*old, new], new)
            new, moved = self._resize(new, size)
        if not moved:
            for item in _active(old, None) if (sizes := rollout.old_sizes(self._d, _active(old, None), new)) else ():
                size = sizes.get(item["metadata"]["name"], item["spec"]["replicas"])
                resized, changed = self._resize(item, size)
                old[old.index(item)] = resized
                moved = moved or changed
        if not moved and rollout.is_complete(self._d, self._d["status"]):
            self._clean_up(old)
        self._write_progress(new, old)

    def _recreate(self) -> None:
        new, old = self._sync_revision(create=False)
        moved = False
        for item in _active(old, None):
            resized, changed = self._resize(item, 0)
            old[old.index(item)] = resized
            moved = moved or changed
        if not moved and not self._old_pods_run(new, old):
            if new is None:
                new, old = self._sync_revision(create=True)
            assert new is not None  # noqa: S101  (created where there was none)
            new, _ = self._resize(new, self._d["spec"]["replicas"])
            if rollout.is_complete(self._d, self._d["status"]):
                self._clean_up(old)
        self._write_progress(new, old)

    def _old_pods_run(self, new: Json | None, old: list[Json]) -> bool:
        if any(count(item, "replicas") for item in old):
            return True
        uids = {item["metadata"]["uid"] for item in self._all if new is None or item is not new}
        return any(
            controller_uid(pod) in uids and (pod.get("status") or {}).get("phase") not in ("Failed", "Succeeded")
            for pod in self._store.list("pods", self._namespace)
        )

    def _clean_up(self, old: list[Json]) -> None:
        for item in rollout.surplus(self._d, old):
            self._store.delete("replicasets", self._namespace, item["metadata"]["name"])

    def _resize(self, item: Json, size: int, *, always: bool = False) -> tuple[Json, bool]:
        resized = item["spec"]["replicas"] != size
        if not resized and not always:
            return item, False
        draft, wanted = copy.deepcopy(item), self._d["spec"]["replicas"]
        draft["spec"]["replicas"] = size
        if not annotate_sizes(draft, wanted, wanted + rollout.max_surge(self._d)) and not resized:
            return item, False
        return self._update(draft), resized

    # -- what is said of it --------------------------------------------------------------------------------------------

    def _note_pause(self) -> None:
        condition = self._condition("Progressing") or {}
        if not rollout.has_deadline(self._d) or condition.get("reason") == _TIMED_OUT:
            return
        paused, said = bool(self._d["spec"].get("paused")), condition.get("reason") == "DeploymentPaused"
        if paused != said:
            words = (
                ("DeploymentPaused", "Deployment is paused")
                if paused
                else ("DeploymentResumed", "Deployment is resumed")
            )
            self._set_condition("Progressing", "Unknown", *words)
            self._write_status()
            # The real one goes on with the object that this write gave back.
            self._d["metadata"]["resourceVersion"] = self._fresh_version()

    def _calculate(self, new: Json | None, old: list[Json]) -> Json:
        every = [*old, *([new] if new else [])]
        counted = {field: sum(count(item, field) for item in every) for field in ("replicas", "readyReplicas")}
        available = sum(count(item, "availableReplicas") for item in every)
        counts = {
            "replicas": counted["replicas"],
            "updatedReplicas": count(new, "replicas") if new else 0,
            "readyReplicas": counted["readyReplicas"],
            "availableReplicas": available,
            "unavailableReplicas": max(0, sum(item["spec"]["replicas"] for item in every) - available),
        }
        before = self._d["status"]
        status: Json = {"observedGeneration": self._d["metadata"]["generation"]}
        status |= {field: value for field, value in counts.items() if value}
        status["terminatingReplicas"] = sum(count(item, "terminatingReplicas") for item in every)
        if "collisionCount" in before:
            status["collisionCount"] = before["collisionCount"]
        status["conditions"] = copy.deepcopy(before.get("conditions", []))
        enough = available >= self._d["spec"]["replicas"] - rollout.max_unavailable(self._d)
        words = (
            ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
            if enough
            else ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        )
        self._set_condition("Available", *words, status=status)
        return status

    def _write_progress(self, new: Json | None, old: list[Json]) -> None:
        status, before = self._calculate(new, old), self._d["status"]
        current = self._condition("Progressing")
        if not rollout.has_deadline(self._d):
            _drop_condition(status, "Progressing")
        else:
            ended = status.get("replicas", 0) == status.get("updatedReplicas", 0)
            if not (ended and (current or {}).get("reason") == _AVAILABLE):
                self._judge_progress(status, current, new)
        if status != before:
            self._d["status"] = status
            self._write_status()
        elif self._may_be_late(current, status):
            self._look_again(max(0.0, self._deadline_s(current or {})) + 1)

    def _may_be_late(self, current: Json | None, status: Json) -> bool:
        waiting = current is not None and current["reason"] != _TIMED_OUT
        return waiting and rollout.has_deadline(self._d) and not rollout.is_complete(self._d, status)

    def _judge_progress(self, status: Json, current: Json | None, new: Json | None) -> None:
        what = f'ReplicaSet "{new["metadata"]["name"]}"' if new else f'Deployment "{self._name}"'
        if rollout.is_complete(self._d, status):
            words = ("True", _AVAILABLE, f"{what} has successfully progressed.")
            self._set_condition("Progressing", *words, status=status)
        elif rollout.is_progressing(self._d["status"], status):
            since = current["lastTransitionTime"] if current and current["status"] == "True" else None
            _drop_condition(status, "Progressing")
            words = ("True", "ReplicaSetUpdated", f"{what} is progressing.")
            self._set_condition("Progressing", *words, status=status, since=since)
        elif current and (current["reason"] == _TIMED_OUT or self._is_late(current)):
            words = ("False", _TIMED_OUT, f"{what} has timed out progressing.")
            self._set_condition("Progressing", *words, status=status)

    def _is_late(self, condition: Json) -> bool:
        return condition["reason"] != _AVAILABLE and self._deadline_s(condition) < 0

    def _deadline_s(self, condition: Json) -> float:
        """Seconds from now to the deadline for the next progress."""
        updated = dt.datetime.fromisoformat(condition["lastUpdateTime"])
        allowed = dt.timedelta(seconds=self._d["spec"]["progressDeadlineSeconds"])
        return (updated + allowed - self._now).total_seconds()

    def _condition(self, kind: str, status: Json | None = None) -> Json | None:
        conditions = (self._d["status"] if status is None else status).get("conditions", ())
        return next((condition for condition in conditions if condition["type"] == kind), None)

    def _set_condition(
        self, kind: str, value: str, reason: str, message: str, *, status: Json | None = None, since: str | None = None
    ) -> None:
        """Say something new; what is already said, with this status and reason, keeps its times."""
        status = self._d["status"] if status is None else status
        current, now = self._condition(kind, status), stamp(self._now)
        if current and (current["status"], current["reason"]) == (value, reason):
            return
        if current and current["status"] == value:
            since = current["lastTransitionTime"]
        _drop_condition(status, kind)
        status.setdefault("conditions", []).append(
            {
                "type": kind,
                "status": value,
                "lastUpdateTime": now,
                "lastTransitionTime": since or now,
                "reason": reason,
                "message": message,
            }
        )

    # -- writes, each of what was read ---------------------------------------------------------------------------------

    def _update(self, draft: Json) -> Json:
        name = draft["metadata"]["name"]
        draft["metadata"].pop("managedFields", None)
        return self._store.modify("replicasets", self._namespace, name, lambda old: draft)

    def _write_status(self) -> None:
        written = copy.deepcopy(self._d)
        written["metadata"].pop("managedFields", None)
        self._store.modify("deployments", self._namespace, self._name, lambda old: written, subresource="status")

    def _fresh_version(self) -> str:
        return str(self._store.get("deployments", self._namespace, self._name)["metadata"]["resourceVersion"])


def owner_reference(owner: Json) -> Json:
    """The reference of what an object controls."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _active(old: list[Json], new: Json | None) -> list[Json]:
    return [item for item in (*old, *([new] if new else [])) if item["spec"]["replicas"] > 0]


def _drop_condition(status: Json, kind: str) -> None:
    if "conditions" in status:
        status["conditions"] = [each for each in status["conditions"] if each["type"] != kind]
