"""List and watch against what really happens to an API server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from tests.controlplane.cluster import Cluster
from tests.controlplane.plane import ControlPlane
from watchdog.kube import connect
from watchdog.kube.transport import Transport
from watchdog.kube.watching import WatchSettings, watch_deployments
from watchdog.ports import Changed, Deleted, Listed

SETTINGS = WatchSettings(request_s=5, watch_s=60, inactivity_s=70)
IMPATIENT = WatchSettings(request_s=1, watch_s=60, inactivity_s=1)


@pytest.fixture
async def transport(kubeconfig: Path) -> AsyncIterator[Transport]:
    """The way to the API server, under the service's own account."""
    async with connect(kubeconfig=str(kubeconfig)) as transport:
        yield transport


class Seen:
    """What a watch has given so far, taken by a task of its own."""

    def __init__(self, transport: Transport, namespace: str, settings: WatchSettings) -> None:
        self.lists = 0
        self.names: set[str] = set()
        self.images: list[str] = []
        self._task = asyncio.create_task(self._take(transport, namespace, settings))

    async def _take(self, transport: Transport, namespace: str, settings: WatchSettings) -> None:
        async with aclosing(watch_deployments(transport, namespace=namespace, settings=settings)) as changes:
            async for change in changes:
                match change:
                    case Listed(items):
                        self.lists += 1
                        self.names = {item.metadata.name for item in items}
                    case Changed(item):
                        self.names.add(item.metadata.name)
                    case Deleted(item):
                        self.names.discard(item.metadata.name)

    async def until(self, cluster: Cluster, *names: str, lists: int = 1) -> None:
        """Wait for exactly these Deployments, after at least so many lists."""
        await cluster.eventually(lambda: self.lists >= lists and self.names == set(names), 20)

    async def stop(self) -> None:
        """End the watch, and let the server answer what TLS still asks it for connections that were given up."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.sleep(0.5)


async def test_everything_is_listed_once_and_then_watched(cluster: Cluster, transport: Transport) -> None:
    cluster.create_deployment("old")
    seen = Seen(transport, cluster.namespace, SETTINGS)
    await seen.until(cluster, "old")
    cluster.create_deployment("new")
    await seen.until(cluster, "old", "new")
    cluster.delete("deployments", "old")
    await seen.until(cluster, "new")
    assert seen.lists == 1
    await seen.stop()


async def test_a_killed_api_server_is_listed_anew_because_the_position_has_expired(
    plane: ControlPlane, cluster: Cluster, transport: Transport
) -> None:
    seen = Seen(transport, cluster.namespace, SETTINGS)
    await seen.until(cluster)
    plane.restart("kube-apiserver")  # not in another thread: the server would die with it
    cluster.create_deployment("web")
    await seen.until(cluster, "web", lists=2)
    await seen.stop()


async def test_a_frozen_api_server_is_noticed_by_its_silence(
    plane: ControlPlane, cluster: Cluster, transport: Transport
) -> None:
    seen = Seen(transport, cluster.namespace, IMPATIENT)
    await seen.until(cluster)
    with plane.frozen("kube-apiserver"):
        await asyncio.sleep(2.5)
    cluster.create_deployment("web")
    await seen.until(cluster, "web", lists=2)
    await seen.stop()
