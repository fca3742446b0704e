"""The sandbox's pods, their Service and its traffic: real HTTP on loopback."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from watchdog.sandbox.behaviour import Mode, Upstream, failures, read
from watchdog.sandbox.nodes import PORT_ANNOTATION, Kubelet
from watchdog.sandbox.store import Json, Store
from watchdog.sandbox.traffic import Load, Service

T = TypeVar("T")

SHOP = "shop"


def cluster() -> Store:
    """A store with a namespace, and a Service that finds the pods with `app=web`."""
    store = Store()
    store.create("namespaces", {"metadata": {"name": SHOP}})
    service = {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}}}
    store.create("services", service, namespace=SHOP)
    return store


def create(store: Store, name: str, *, image: str = "web:v1", **told: str) -> None:
    """Create a pod that behaves so."""
    annotations = {f"sim/{key.replace('_', '-')}": value for key, value in told.items()}
    pod = {
        "metadata": {"name": name, "labels": {"app": "web"}, "annotations": annotations},
        "spec": {"containers": [{"name": "app", "image": image}]},
    }
    store.create("pods", pod, namespace=SHOP)


@asynccontextmanager
async def running(store: Store, upstream: Upstream | None = None) -> AsyncIterator[None]:
    """Have a kubelet run the pods."""
    task = asyncio.create_task(Kubelet(upstream).run(store))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], T | None], timeout_s: float = 10) -> T:
    """Wait until it gives something."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.01)
    return found


def condition(pod: Json | None, kind: str) -> str:
    """The status of a pod's condition."""
    found = (pod or {}).get("status", {}).get("conditions", ())
    return next((str(each["status"]) for each in found if each["type"] == kind), "")


def ready(store: Store, name: str) -> Json | None:
    """The pod, if it is Ready."""
    pod = store.find("pods", SHOP, name)
    return pod if condition(pod, "Ready") == "True" else None


def container(store: Store, name: str) -> dict[str, Any]:
    """The status of the pod's container."""
    pod = store.find("pods", SHOP, name)
    return dict(((pod or {}).get("status", {}).get("containerStatuses") or [{}])[0])


def url_of(pod: Json) -> str:
    """Where the pod listens, as its object says."""
    return f"http://{pod['status']['podIP']}:{pod['metadata']['annotations'][PORT_ANNOTATION]}"


async def get(url: str) -> tuple[int, str]:
    """GET."""
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


async def counted(pod: Json) -> dict[str, float]:
    """The pod's own counts by code."""
    families = text_string_to_metric_families((await get(f"{url_of(pod)}/metrics"))[1])
    samples = [sample for family in families for sample in family.samples if sample.name == "http_requests_total"]
    return {sample.labels["code"]: sample.value for sample in samples}


async def test_a_pod_is_a_server_at_the_address_that_its_status_tells() -> None:
    store = cluster()
    create(store, "a", image="web:v7")
    create(store, "b")
    async with running(store):
        first, second = await until(lambda: ready(store, "a")), await until(lambda: ready(store, "b"))
        assert await get(f"{url_of(first)}/any/path") == (200, "web:v7\n")
        assert await counted(first) == {"200": 1, "500": 0, "503": 0}
        assert await counted(second) == {"200": 0, "500": 0, "503": 0}
        assert url_of(first) != url_of(second)


async def test_a_new_pod_waits_for_its_container_and_then_for_readiness() -> None:
    store, seen = cluster(), []
    with store.watch("pods") as changes:
        create(store, "a", ready_after="50ms")
        async with running(store), asyncio.timeout(5):
            async for change in changes:
                status = change.object.get("status", {})
                states = [next(iter(each["state"])) for each in status.get("containerStatuses", ())]
                seen.append((status.get("phase"), *states, condition(change.object, "Ready")))
                if ready(store, "a"):
                    break
    assert list(dict.fromkeys(seen)) == [
        (None, ""),
        ("Pending", "waiting", "False"),
        ("Running", "running", "False"),
        ("Running", "running", "True"),
    ]
    assert store.get("pods", SHOP, "a")["spec"]["nodeName"] == "node-0"


async def test_a_crashing_container_is_started_again_with_a_growing_pause() -> None:
    store = cluster()
    create(store, "a", mode="crash-loop", crash_after="50ms", ready_after="5s")
    async with running(store):
        await until(lambda: container(store, "a").get("restartCount") == 2)
        assert container(store, "a")["lastState"]["terminated"]["exitCode"] == 1
        await until(lambda: container(store, "a")["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff")
        assert ready(store, "a") is None


async def test_a_restarted_container_counts_from_zero_at_the_same_address() -> None:
    store = cluster()
    create(store, "a", mode="crash-later", crash_after="500ms", ready_after="10ms")
    async with running(store):
        before = await until(lambda: ready(store, "a"))
        await get(url_of(before))
        assert (await counted(before))["200"] == 1
        await until(lambda: container(store, "a").get("restartCount") == 1)
        after = await until(lambda: ready(store, "a"))
        assert url_of(after) == url_of(before)
        assert (await counted(after))["200"] == 0


@pytest.mark.parametrize(
    ("mode", "reason"), [(Mode.UNSCHEDULABLE, "Unschedulable"), (Mode.IMAGE_PULL, "ImagePullBackOff")]
)
async def test_a_pod_that_cannot_run_stays_pending_and_says_why(mode: Mode, reason: str) -> None:
    store = cluster()
    create(store, "a", mode=mode)
    async with running(store):

        def said() -> bool:
            status = store.get("pods", SHOP, "a").get("status", {})
            return reason in str(status)

        await until(said)
        assert store.get("pods", SHOP, "a")["status"]["phase"] == "Pending"
        store.delete("pods", SHOP, "a")
        await until(lambda: store.find("pods", SHOP, "a") is None)


async def test_a_deleted_pod_leaves_the_service_at_once_and_still_answers_for_a_while() -> None:
    store = cluster()
    create(store, "a", terminate_after="500ms")
    service = Service(store, namespace=SHOP, name="web")
    async with running(store):
        pod = await until(lambda: ready(store, "a"))
        assert [each.pod for each in service.endpoints] == ["a"]
        store.delete("pods", SHOP, "a")
        assert service.endpoints == ()
        assert (await get(url_of(pod)))[0] == 200
        await until(lambda: store.find("pods", SHOP, "a") is None)
        with pytest.raises(aiohttp.ClientConnectionError):
            await get(url_of(pod))


async def test_traffic_goes_to_the_ready_pods_alike_and_failures_are_counted_where_they_happen() -> None:
    store = cluster()
    create(store, "good")
    create(store, "bad", errors="0.25", image="web:v2")
    create(store, "late", mode="never-ready")
    load = Load(Service(store, namespace=SHOP, name="web"), rate=200)
    async with running(store):
        await until(lambda: ready(store, "good") and ready(store, "bad"))
        begun = time.time()
        sending = asyncio.create_task(load.run())
        await until(lambda: load.count(begun).total >= 200)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        by_pod = {name: [each.failed for each in load.between(begun) if each.pod == name] for name in ("good", "bad")}
        assert abs(len(by_pod["good"]) - len(by_pod["bad"])) <= 4
        assert sum(by_pod["good"]) == 0
        assert sum(by_pod["bad"]) == pytest.approx(0.25 * len(by_pod["bad"]), abs=2)
        counts = await counted(store.get("pods", SHOP, "bad"))
        assert counts["500"] == pytest.approx(sum(by_pod["bad"]), abs=2)
        halfway = load.between(begun)[100].at
        assert load.count(begun).total == load.count(begun, halfway).total + load.count(halfway).total
        assert {each.pod for each in load.between(begun)} == {"good", "bad"}


async def test_without_a_ready_pod_every_request_fails() -> None:
    load = Load(Service(cluster(), namespace=SHOP, name="web"), rate=100)
    sending = asyncio.create_task(load.run())
    await until(lambda: load.count(0).total >= 5)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert load.count(0).share == 1


async def test_an_outage_of_the_upstream_fails_every_version_that_needs_it() -> None:
    store, upstream = cluster(), Upstream()
    create(store, "a", upstream="true")
    create(store, "b")
    async with running(store, upstream):
        needs, does_not = await until(lambda: ready(store, "a")), await until(lambda: ready(store, "b"))
        upstream.down = True
        assert ((await get(url_of(needs)))[0], (await get(url_of(does_not)))[0]) == (503, 200)
        upstream.down = False
        assert (await get(url_of(needs)))[0] == 200


async def test_several_workers_behind_one_port_make_a_saw_tooth() -> None:
    store = cluster()
    create(store, "a", workers="2")
    async with running(store):
        pod = await until(lambda: ready(store, "a"))
        for _ in range(40):
            await get(url_of(pod))
        counts = [(await counted(pod))["200"] for _ in range(4)]
        assert counts == [30, 10, 30, 10]


async def test_two_hundred_pods_are_ready_within_seconds() -> None:
    store = cluster()
    for number in range(200):
        create(store, f"pod-{number}")
    service = Service(store, namespace=SHOP, name="web")
    async with running(store):
        await until(lambda: len(service.endpoints) == 200)
        assert len({endpoint.url for endpoint in service.endpoints}) == 200


@pytest.mark.parametrize("share", [0.0, 0.08, 0.3, 1.0])
def test_exactly_the_share_that_was_asked_for_fails(share: float) -> None:
    found = failures(share)
    assert sum(next(found) for _ in range(1000)) == pytest.approx(1000 * share, abs=1)


def test_a_behaviour_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(ValueError, match="sideways"):
        read({"sim/mode": "sideways"})
