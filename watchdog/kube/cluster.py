"""The operations on a cluster, each decoded into `watchdog.objects` at once."""

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec

from watchdog.errors import AlreadyExists, Denied, NotFound, Throttled, Unanswered
from watchdog.kube.reading import decode, read_list, read_object
from watchdog.kube.transport import JSON_PATCH, REPLICA, Transport
from watchdog.kube.watching import WatchSettings, watch_deployments, watch_services
from watchdog.model import MANAGER, Event
from watchdog.objects import (
    Autoscaler,
    ConfigMap,
    Deployment,
    LabelSelector,
    Pod,
    ReplicaSet,
    Service,
    WorkloadRef,
)
from watchdog.ports import Changed, Deleted, Listed

T = TypeVar("T")

_APPS = "/apis/apps/v1"
_CORE = "/api/v1"
_PATCHING = {"fieldManager": MANAGER, "fieldValidation": "Strict"}
_POLL_EVERY_S = 1.0
_LONGEST_NOTE_BYTES = 1024


class KubeCluster:
    """One cluster; implements `watchdog.ports.Cluster`, `Fleet` and `Services`.

    Reads are repeated twice within their deadline where no answer came, or the API asks to come back. Writes never are:
    only the caller knows whether a second one does harm.

    Args:
        watching: the durations of watches.
    """

    def __init__(self, transport: Transport, *, watching: WatchSettings) -> None:
        self._transport = transport
        self._watching = watching

    async def deployment(self, ref: WorkloadRef, *, timeout_s: float) -> Deployment:
        """Read one Deployment, not from a cache."""
        path = f"{_APPS}/namespaces/{ref.namespace}/deployments/{ref.name}"
        return await self._get(path, Deployment, operation=f"get deployments {ref}", timeout_s=timeout_s)

    async def replicasets(self, namespace: str, selector: LabelSelector, *, timeout_s: float) -> tuple[ReplicaSet, ...]:
        """List the ReplicaSets that a selector finds, whoever owns them."""
        path = f"{_APPS}/namespaces/{namespace}/replicasets"
        return await self._list(path, ReplicaSet, selector=selector, timeout_s=timeout_s)

    async def pods(self, namespace: str, selector: LabelSelector, *, timeout_s: float) -> tuple[Pod, ...]:
        """List the pods that a selector finds."""
        path = f"{_CORE}/namespaces/{namespace}/pods"
        return await self._list(path, Pod, selector=selector, timeout_s=timeout_s)

    async def autoscalers(self, namespace: str, *, timeout_s: float) -> tuple[Autoscaler, ...]:
        """List the HorizontalPodAutoscalers of a namespace."""
        path = f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers"
        return await self._list(path, Autoscaler, timeout_s=timeout_s)

    async def patch_deployment(self, ref: WorkloadRef, patch: bytes, *, dry_run: bool, timeout_s: float) -> Deployment:
        """Apply one JSON patch and give the Deployment as it is then; with `dry_run` as it would be."""
        operation = f"patch deployments {ref}"
        raw = await self._transport.request(
            "PATCH",
            f"{_APPS}/namespaces/{ref.namespace}/deployments/{ref.name}",
            operation=operation,
            timeout_s=timeout_s,
            query={**_PATCHING, "dryRun": "All"} if dry_run else _PATCHING,
            body=patch,
            content_type=JSON_PATCH,
        )
        return decode(raw, Deployment, operation=operation)

    async def patch_replicaset(self, namespace: str, name: str, patch: bytes, *, timeout_s: float) -> None:
        """Apply one JSON patch to a ReplicaSet."""
        await self._transport.request(
            "PATCH",
            f"{_APPS}/namespaces/{namespace}/replicasets/{name}",
            operation=f"patch replicasets {namespace}/{name}",
            timeout_s=timeout_s,
            query=_PATCHING,
            body=patch,
            content_type=JSON_PATCH,
        )

    async def post_event(self, event: Event, *, timeout_s: float) -> None:
        """Put an Event on a Deployment; one that is there already is no error."""
        namespace = event.regarding.namespace
        try:
            await self._transport.request(
                "POST",
                f"/apis/events.k8s.io/v1/namespaces/{namespace}/events",
                operation=f"create events {namespace}/{event.name}",
                timeout_s=timeout_s,
                body=msgspec.json.encode(_event_body(event, now=dt.datetime.now(dt.UTC))),
            )
        except AlreadyExists:
            return

    async def follow(self, ref: WorkloadRef) -> AsyncGenerator[Deployment | None, None]:
        """Give the Deployment as it is, then after every change; None where it does not exist.

        Whoever may not list and watch is given what a GET finds, every second.
        """
        try:
            async with aclosing(self._watch(ref)) as states:
                async for state in states:
                    yield state
        except Denied:
            while True:
                try:
                    yield await self.deployment(ref, timeout_s=self._watching.request_s)
                except NotFound:
                    yield None
                except (Unanswered, Throttled):
                    pass
                await asyncio.sleep(_POLL_EVERY_S)

    def watch(self, namespace: str) -> AsyncGenerator[Listed | Changed | Deleted, None]:
        """Give all Deployments of a namespace, then every change; raises `Denied` where that is not allowed."""
        return watch_deployments(self._transport, namespace=namespace, settings=self._watching)

    async def _watch(self, ref: WorkloadRef) -> AsyncGenerator[Deployment | None, None]:
        changes = watch_deployments(
            self._transport,
            namespace=ref.namespace,
            settings=self._watching,
            field_selector=f"metadata.name={ref.name}",
        )
        async with aclosing(changes):
            async for change in changes:
                match change:
                    case Listed(items):
                        yield items[0] if items else None
                    case Changed(item):
                        yield item
                    case _:
                        yield None

    # -- Services ------------------------------------------------------------------------------------------------------

    async def service(self, ref: WorkloadRef, *, timeout_s: float) -> Service:
        """Read one Service, not from a cache."""
        path = f"{_CORE}/namespaces/{ref.namespace}/services/{ref.name}"
        return await self._get(path, Service, operation=f"get services {ref}", timeout_s=timeout_s)

    async def patch_service(self, ref: WorkloadRef, patch: bytes, *, timeout_s: float) -> Service:
        """Apply one JSON patch and give the Service as it is then."""
        operation = f"patch services {ref}"
        raw = await self._transport.request(
            "PATCH",
            f"{_CORE}/namespaces/{ref.namespace}/services/{ref.name}",
            operation=operation,
            timeout_s=timeout_s,
            query=_PATCHING,
            body=patch,
            content_type=JSON_PATCH,
        )
        return decode(raw, Service, operation=operation)

    def watch_services(self, namespace: str) -> AsyncGenerator[Mapping[str, Service], None]:
        """Give all Services of a namespace by name, as they are and after every change; raises `Denied`."""
        return watch_services(self._transport, namespace=namespace, settings=self._watching)

    # -- ConfigMaps and Secrets: the store of records ------------------------------------------------------------------
    # The values of a Secret are in base64 here, as they are in the API.

    async def config_map(
        self, namespace: str, name: str, *, resource: str = "configmaps", timeout_s: float
    ) -> ConfigMap:
        """Read one ConfigMap; with `resource` secrets a Secret, here and below."""
        operation = f"get {resource} {namespace}/{name}"
        return await self._get(_stored(namespace, resource, name), ConfigMap, operation=operation, timeout_s=timeout_s)

    async def config_maps(
        self, namespace: str, selector: LabelSelector, *, resource: str = "configmaps", timeout_s: float
    ) -> tuple[ConfigMap, ...]:
        """List the ConfigMaps that a selector finds, without those that cannot be read."""
        path = _stored(namespace, resource)
        return await self._list(path, ConfigMap, selector=selector, timeout_s=timeout_s, lenient=True)

    async def create_config_map(
        self,
        namespace: str,
        name: str,
        *,
        labels: Mapping[str, str],
        data: Mapping[str, str],
        resource: str = "configmaps",
        timeout_s: float,
    ) -> None:
        """Create a ConfigMap.

        Raises:
            AlreadyExists: there is one of that name.
        """
        await self._transport.request(
            "POST",
            _stored(namespace, resource),
            operation=f"create {resource} {namespace}/{name}",
            timeout_s=timeout_s,
            query={"fieldManager": MANAGER},
            body=msgspec.json.encode({"metadata": {"name": name, "labels": labels}, "data": data}),
        )

    async def patch_config_map(
        self, namespace: str, name: str, patch: bytes, *, resource: str = "configmaps", timeout_s: float
    ) -> None:
        """Apply one JSON patch to a ConfigMap."""
        await self._transport.request(
            "PATCH",
            _stored(namespace, resource, name),
            operation=f"patch {resource} {namespace}/{name}",
            timeout_s=timeout_s,
            query=_PATCHING,
            body=patch,
            content_type=JSON_PATCH,
        )

    async def delete_config_map(
        self, namespace: str, name: str, *, resource: str = "configmaps", timeout_s: float
    ) -> None:
        """Delete a ConfigMap."""
        await self._transport.request(
            "DELETE",
            _stored(namespace, resource, name),
            operation=f"delete {resource} {namespace}/{name}",
            timeout_s=timeout_s,
        )

    async def _get(self, path: str, kind: type[T], *, operation: str, timeout_s: float) -> T:
        return await read_object(self._transport, path, kind, operation=operation, timeout_s=timeout_s)

    async def _list(
        self,
        path: str,
        kind: type[T],
        *,
        timeout_s: float,
        selector: LabelSelector | None = None,
        lenient: bool = False,
    ) -> tuple[T, ...]:
        namespace, resource = path.split("/")[-2:]
        query = {"labelSelector": str(selector)} if selector else {}
        operation = f"list {resource} {namespace}"
        items, _ = await read_list(
            self._transport, path, kind, operation=operation, timeout_s=timeout_s, query=query, lenient=lenient
        )
        return items


def _stored(namespace: str, resource: str, name: str = "") -> str:
    return f"{_CORE}/namespaces/{namespace}/{resource}" + (f"/{name}" if name else "")


def _event_body(event: Event, *, now: dt.datetime) -> dict[str, Any]:
    """An Event of events.k8s.io/v1, which is strict about what must be there (docs/design g1, g2)."""
    note = event.note.encode()
    if len(note) > _LONGEST_NOTE_BYTES:
        note = note[: _LONGEST_NOTE_BYTES - 3] + b"..."
    return {
        "metadata": {"name": event.name, "namespace": event.regarding.namespace},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": MANAGER,
        "reportingInstance": REPLICA,
        "action": event.action,
        "reason": event.reason,
        "type": "Warning" if event.warning else "Normal",
        "note": note.decode(errors="ignore"),
        "regarding": {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "namespace": event.regarding.namespace,
            "name": event.regarding.name,
            "uid": event.uid,
        },
    }
