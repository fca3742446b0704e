"""A real `kubectl set image` between our read and our write: the hotfix always stays."""

import asyncio
import datetime as dt
import random
from collections import Counter
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from tests.cluster.interference import Interfered
from tests.controlplane.cluster import Cluster
from watchdog.app import Parts
from watchdog.decide.plan import Request
from watchdog.engine.act import Actor
from watchdog.engine.verify import Patience
from watchdog.model import Cause, Guard, Outcome
from watchdog.objects import WorkloadRef

DETERMINISTIC, AT_RANDOM, UNGUARDED = 100, 100, 20
REQUEST = Request(cause=Cause(by="test", reason="race"))


def actor(parts: Parts, interfere: Callable[[], Awaitable[object]], *, guarded: bool = True) -> Actor:
    """An actor that somebody gets in the way of."""
    patience = Patience(request_s=10, observed_s=5, verify_s=20)
    cluster = Interfered(parts.cluster, interfere, guarded=guarded)
    return Actor(cluster, patience=patience, now=lambda: dt.datetime.now(dt.UTC))


def image(cluster: Cluster, name: str) -> str:
    """The live image."""
    found: str = cluster.get("deployments", name)["spec"]["template"]["spec"]["containers"][0]["image"]
    return found


@pytest.fixture
def names(cluster: Cluster) -> list[str]:
    """Four Deployments with a bad v2, so that the races run side by side."""
    names = [f"web-{index}" for index in range(4)]
    for name in names:
        cluster.create_deployment(name, image="v1", replicas=1)
        cluster.wait_complete(name)
        cluster.set_image(name, "v2")
    for name in names:
        cluster.wait_complete(name)
    return names


async def side_by_side(names: list[str], rounds: int, race: Callable[[str, int], Awaitable[str]]) -> Counter[str]:
    """Run races, each Deployment's own one after the other, and count how they ended."""

    async def on(name: str) -> list[str]:
        return [await race(name, number) for number in range(rounds // len(names))]

    return Counter(end for ends in await asyncio.gather(*map(on, names)) for end in ends)


async def test_a_hotfix_between_read_and_write_always_stays(cluster: Cluster, parts: Parts, names: list[str]) -> None:
    async def race(name: str, number: int) -> str:
        hotfix = f"hotfix-{number}"

        async def push() -> None:
            await asyncio.to_thread(cluster.kubectl, "set", "image", f"deployment/{name}", f"app={hotfix}")

        result = await actor(parts, push).undo(WorkloadRef(cluster.namespace, name), REQUEST)
        assert result.refused is not None
        assert result.refused.guard is Guard.SUPERSEDED
        assert image(cluster, name) == hotfix
        return result.outcome

    assert await side_by_side(names, DETERMINISTIC, race) == {Outcome.SUPERSEDED: DETERMINISTIC}


async def test_without_our_tests_the_same_race_reverts_every_hotfix(
    cluster: Cluster, parts: Parts, names: list[str]
) -> None:
    async def race(name: str, number: int) -> str:
        hotfix = f"hotfix-{number}"

        async def push() -> None:
            await asyncio.to_thread(cluster.kubectl, "set", "image", f"deployment/{name}", f"app={hotfix}")

        await actor(parts, push, guarded=False).undo(WorkloadRef(cluster.namespace, name), REQUEST, verify=False)
        return "stays" if image(cluster, name) == hotfix else "reverted"

    assert await side_by_side(names, UNGUARDED, race) == {"reverted": UNGUARDED}


async def test_a_hotfix_at_any_moment_stays(cluster: Cluster, parts: Parts, names: list[str]) -> None:
    chance = random.Random(20)

    async def race(name: str, number: int) -> str:
        hotfix = f"hotfix-{number}"
        judged = msgspec.structs.replace(
            REQUEST, expected_revision=await asyncio.to_thread(live_revision, cluster, name)
        )
        push = asyncio.to_thread(cluster.kubectl, "set", "image", f"deployment/{name}", f"app={hotfix}")

        async def undo() -> str:
            # kubectl needs about this long to start, so that either may be first.
            await asyncio.sleep(chance.uniform(0, 0.2))
            return (await parts.actor.undo(WorkloadRef(cluster.namespace, name), judged, verify=False)).outcome

        ended, _ = await asyncio.gather(undo(), push)
        assert image(cluster, name) == hotfix
        return ended

    ends = await side_by_side(names, AT_RANDOM, race)
    assert ends.keys() == {Outcome.ROLLED_BACK, Outcome.SUPERSEDED}, ends


def live_revision(cluster: Cluster, name: str) -> int:
    """The revision of the newest template, once the controller has seen it."""

    def observed() -> int:
        deployment = cluster.get("deployments", name)
        current = deployment["status"]["observedGeneration"] == deployment["metadata"]["generation"]
        return int(deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"]) if current else 0

    return cluster.wait(observed)
