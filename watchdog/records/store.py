"""The store of records: ConfigMaps or Secrets in the service's own namespace."""

import asyncio
import base64
import datetime as dt
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Protocol

import msgspec

from watchdog.config import RecordKind
from watchdog.decide.record import Record, State
from watchdog.errors import AlreadyExists, NotFound, Rejected, Unanswered
from watchdog.model import MANAGER, IncidentId
from watchdog.objects import ConfigMap, LabelSelector, WorkloadRef, is_name
from watchdog.records.form import NoRecord, read, write

KEY = "record.json"
PREFIX = "rollback-watchdog-"
MANAGED_BY = "app.kubernetes.io/managed-by"
STATE = "rollback-watchdog.io/state"

_INCIDENTS = 200
_WORKLOADS = 1000
_CONDEMNED = dt.timedelta(hours=24)

log = logging.getLogger(__name__)


class ConfigMaps(Protocol):
    """Where ConfigMaps are kept, and Secrets, whose values are in base64; `watchdog.kube.KubeCluster` is one.

    A `resource` is ``configmaps`` or ``secrets``. Every method raises a `watchdog.errors.ClusterError`, `Unanswered`
    after at most `timeout_s` seconds.
    """

    async def config_map(self, namespace: str, name: str, *, resource: str, timeout_s: float) -> ConfigMap:
        """Read one; raises `NotFound`."""

    async def config_maps(
        self, namespace: str, selector: LabelSelector, *, resource: str, timeout_s: float
    ) -> tuple[ConfigMap, ...]:
        """List those that a selector finds."""

    async def create_config_map(
        self,
        namespace: str,
        name: str,
        *,
        labels: Mapping[str, str],
        data: Mapping[str, str],
        resource: str,
        timeout_s: float,
    ) -> None:
        """Create one; raises `AlreadyExists`."""

    async def patch_config_map(
        self, namespace: str, name: str, patch: bytes, *, resource: str, timeout_s: float
    ) -> None:
        """Apply one JSON patch; raises `NotFound`."""

    async def delete_config_map(self, namespace: str, name: str, *, resource: str, timeout_s: float) -> None:
        """Delete one; raises `NotFound`."""


class RecordStore:
    """Records in one namespace; implements `watchdog.ports.Store`.

    What cannot be read, because it is malformed or was written by a newer version, is logged and never deleted.

    Args:
        objects: the cluster.
        kind: ConfigMap or Secret.
        now: the time, for what may be deleted.
    """

    def __init__(
        self, objects: ConfigMaps, *, namespace: str, kind: RecordKind, now: Callable[[], dt.datetime]
    ) -> None:
        self._objects = objects
        self._namespace = namespace
        self._secret = kind is RecordKind.SECRET
        self._resource = "secrets" if self._secret else "configmaps"
        self._now = now
        self._existing: set[IncidentId] = set()

    async def all(self, *, timeout_s: float) -> tuple[Record, ...]:
        """Every record that can be read. Raises `ClusterError`."""
        selector = LabelSelector({MANAGED_BY: MANAGER})
        found = await self._objects.config_maps(self._namespace, selector, resource=self._resource, timeout_s=timeout_s)
        return tuple(record for item in found if (record := self._read(item)))

    async def get(self, incident: IncidentId, *, timeout_s: float) -> Record | None:
        """One record; None where there is none that can be read. Raises `ClusterError`."""
        if not is_name(incident):
            return None  # it may come from a URL
        try:
            found = await self._objects.config_map(
                self._namespace, PREFIX + incident, resource=self._resource, timeout_s=timeout_s
            )
        except NotFound:
            return None
        return self._read(found)

    async def save(self, record: Record, *, timeout_s: float) -> None:
        """Create or replace a record, thinned to 64 KiB.

        Raises:
            ClusterError: it could not be saved; `Rejected`, without a request, where its id can be no object's name.
        """
        if not is_name(record.id):  # it may come from an annotation, and goes into a path
            raise Rejected(f"save {self._resource} {self._namespace}", f"{record.id[:60]!r} is no name for a record")
        text = write(record)
        data = {KEY: base64.b64encode(text.encode()).decode() if self._secret else text}
        state = "ended" if record.state is State.ENDED else "open"
        ways = [self._create, self._replace]
        if record.id in self._existing:
            ways.reverse()
        async with self._within(timeout_s, f"save {self._resource} {self._namespace}/{PREFIX}{record.id}"):
            try:
                await ways[0](record.id, data, state, timeout_s)
            except (AlreadyExists, NotFound):
                await ways[1](record.id, data, state, timeout_s)
        self._existing.add(record.id)

    async def prune(self, records: Sequence[Record], *, timeout_s: float) -> tuple[IncidentId, ...]:
        """Delete what need not be kept any more, and say what; what the deadline leaves is for the next time.

        Raises:
            ClusterError: not all of it could be deleted.
        """
        async with self._within(timeout_s, f"delete {self._resource} {self._namespace}"):
            gone = [record for record in expendable(records, now=self._now()) if is_name(record.id)]
            for record in gone:
                with suppress(NotFound):
                    await self._objects.delete_config_map(
                        self._namespace, PREFIX + record.id, resource=self._resource, timeout_s=timeout_s
                    )
                self._existing.discard(record.id)
        return tuple(record.id for record in gone)

    async def _create(self, incident: IncidentId, data: Mapping[str, str], state: str, timeout_s: float) -> None:
        await self._objects.create_config_map(
            self._namespace,
            PREFIX + incident,
            labels={MANAGED_BY: MANAGER, STATE: state},
            data=data,
            resource=self._resource,
            timeout_s=timeout_s,
        )

    async def _replace(self, incident: IncidentId, data: Mapping[str, str], state: str, timeout_s: float) -> None:
        label = "/metadata/labels/" + STATE.replace("/", "~1")
        patch = [
            {"op": "add", "path": "/data", "value": data},
            {"op": "add", "path": label, "value": state},
        ]
        await self._objects.patch_config_map(
            self._namespace,
            PREFIX + incident,
            msgspec.json.encode(patch),
            resource=self._resource,
            timeout_s=timeout_s,
        )

    def _read(self, item: ConfigMap) -> Record | None:
        name = item.metadata.name
        try:
            text = item.data.get(KEY, "")
            record = read(base64.b64decode(text, validate=True).decode() if self._secret else text)
            if PREFIX + record.id != name:
                raise NoRecord(f"it is the record of {record.id}")
        except ValueError as error:  # of base64 and UTF-8, too
            log.warning("record left alone", extra={"record": f"{self._namespace}/{name}", "problem": str(error)})
            return None
        self._existing.add(record.id)
        return record

    @asynccontextmanager
    async def _within(self, timeout_s: float, operation: str) -> AsyncIterator[None]:
        """Hold several requests to one deadline."""
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError as error:
            raise Unanswered(operation, f"not done within {timeout_s:g} s") from error


def expendable(records: Sequence[Record], *, now: dt.datetime) -> list[Record]:
    """Which records need not be kept any more.

    Kept are all open ones, the newest 200 incidents, those that condemned images within 24 hours, and the newest other
    one of each workload, 1,000 at most.
    """
    ended = sorted((record for record in records if record.state is State.ENDED), key=_end, reverse=True)
    incidents = [record for record in ended if record.incident]
    since = (now - _CONDEMNED).timestamp()
    going = [record for record in incidents[_INCIDENTS:] if record.plan is None or _end(record)[0] < since]
    kept: set[WorkloadRef] = set()
    for record in (record for record in ended if not record.incident):
        if record.workload in kept or len(kept) == _WORKLOADS:
            going.append(record)
        else:
            kept.add(record.workload)
    return going


def _end(record: Record) -> tuple[float, str]:
    return ((record.ended or record.started).timestamp(), record.id)
