"""Reading a workload: its ReplicaSets, and its pods, for everybody who looks at one.

Whoever asks within the same moment is read together. A namespace in which many workloads are looked at is listed once
as a whole, in pages; a single workload is listed by its selector. So a look at k workloads of a namespace takes at most
k requests per kind, and never more than the pages of the namespace; 16 requests are under way at most, so that a write
never waits for a connection.
"""

import asyncio
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Generic, TypeVar

from watchdog.engine.fleet import Fleet
from watchdog.engine.observation import Observation
from watchdog.errors import TooLong, Unreadable
from watchdog.objects import Deployment, LabelSelector, Pod, ReplicaSet, Snapshot, WorkloadRef
from watchdog.ports import Cluster

_GATHER_S = 0.02
_AT_ONCE = 16
_FEW = 4
_PAGE = 500
_RESUMED_AT_ONCE = 50

T = TypeVar("T", Pod, ReplicaSet)


class Observer:
    """Reads workloads, many in one request.

    Args:
        fleet: the Deployments as they were last seen.
        request_s: deadline of each answer.
    """

    def __init__(self, cluster: Cluster, fleet: Fleet, *, request_s: float) -> None:
        self._fleet = fleet
        turns = asyncio.Semaphore(_AT_ONCE)

        async def replicasets(namespace: str, selector: LabelSelector) -> tuple[ReplicaSet, ...]:
            async with turns:
                return await cluster.replicasets(namespace, selector, timeout_s=request_s)

        async def pods(namespace: str, selector: LabelSelector) -> tuple[Pod, ...]:
            async with turns:
                return await cluster.pods(namespace, selector, timeout_s=request_s)

        self._replicasets = _Together[ReplicaSet](replicasets, self._pages_of_replicasets)
        self._pods = _Together[Pod](pods, self._pages_of_pods)

    async def snapshot(self, deployment: Deployment) -> Snapshot:
        """A Deployment, as it was seen, with the ReplicaSets of now. Raises `ClusterError`."""
        return Snapshot(deployment, await self._replicasets.of(deployment))

    async def observe(self, deployment: Deployment) -> Observation:
        """The same, with its pods. Raises `ClusterError`."""
        snapshot, pods = await asyncio.gather(self.snapshot(deployment), self._pods.of(deployment))
        return Observation(snapshot, pods)

    def _pages_of_replicasets(self, namespace: str) -> int:
        there = (item for ref, item in self._fleet.deployments.items() if ref.namespace == namespace)
        return _pages(min(item.spec.revision_history_limit, 10) + 1 for item in there)

    def _pages_of_pods(self, namespace: str) -> int:
        there = (item for ref, item in self._fleet.deployments.items() if ref.namespace == namespace)
        return _pages(item.status.replicas for item in there)


class _Together(Generic[T]):
    """One kind of object, read for everybody who asks within the same moment.

    Args:
        read: lists what a selector finds in a namespace.
        pages: about how many pages the whole namespace has.
    """

    def __init__(
        self, read: Callable[[str, LabelSelector], Awaitable[tuple[T, ...]]], pages: Callable[[str], int]
    ) -> None:
        self._read: Callable[[str, LabelSelector], Awaitable[tuple[T, ...]]] = read
        self._pages = pages
        self._asked: dict[WorkloadRef, tuple[Deployment, asyncio.Future[tuple[T, ...]]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def of(self, deployment: Deployment) -> tuple[T, ...]:
        """What a Deployment's selector finds. Raises `ClusterError`."""
        loop = asyncio.get_running_loop()
        if not self._asked:
            loop.call_later(_GATHER_S, self._begin)
        known = self._asked.get(deployment.ref)
        future = known[1] if known else loop.create_future()
        self._asked[deployment.ref] = deployment, future
        return await asyncio.shield(future)

    def _begin(self) -> None:
        asked, self._asked = self._asked, {}
        spaces: dict[str, list[tuple[Deployment, asyncio.Future[tuple[T, ...]]]]] = defaultdict(list)
        for ref, each in asked.items():
            spaces[ref.namespace].append(each)
        for namespace, those in spaces.items():
            if _FEW < len(those) >= self._pages(namespace):
                self._task(self._all(namespace, those))
            else:
                for deployment, future in those:
                    self._task(self._one(deployment, future))

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _one(self, deployment: Deployment, future: asyncio.Future[tuple[T, ...]]) -> None:
        try:
            found = await self._read(deployment.metadata.namespace, deployment.spec.selector)
        except Exception as error:
            _fail([future], error)
        else:
            _answer(future, found)

    async def _all(self, namespace: str, those: Sequence[tuple[Deployment, asyncio.Future[tuple[T, ...]]]]) -> None:
        try:
            everything = _ByLabels(await self._read(namespace, LabelSelector()))
            for number, (deployment, future) in enumerate(those, 1):
                _answer(future, everything.selected(deployment.spec.selector))
                if number % _RESUMED_AT_ONCE == 0:
                    await asyncio.sleep(0)  # thousands that go on at once would hold up everybody else
        except (Unreadable, TooLong):
            for deployment, future in those:  # somebody's odd or huge object shall cost nobody else anything
                self._task(self._one(deployment, future))
        except Exception as error:
            _fail([future for _, future in those], error)


class _ByLabels(Generic[T]):
    """Objects by each of their labels, so that a selector need not look at all of them."""

    def __init__(self, items: Sequence[T]) -> None:
        self._items: Sequence[T] = items
        self._by_label: dict[tuple[str, str], list[T]] = defaultdict(list)
        for item in items:
            for label in item.metadata.labels.items():
                self._by_label[label].append(item)

    def selected(self, selector: LabelSelector) -> tuple[T, ...]:
        """What a selector finds."""
        named = (self._by_label.get(label, []) for label in selector.match_labels.items())
        fewest = min(named, key=len, default=self._items)
        return tuple(item for item in fewest if selector.matches(item.metadata.labels))


def _answer(future: asyncio.Future[tuple[T, ...]], found: tuple[T, ...]) -> None:
    if not future.done():
        future.set_result(found)


def _fail(futures: Iterable[asyncio.Future[Any]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
            future.exception()  # whoever waited may be gone


def _pages(counts: Iterable[int]) -> int:
    return math.ceil(sum(counts) / _PAGE)
