"""Many workloads are read in few requests, and each gets what its own selector finds."""

import asyncio

import pytest

from tests.unit.builders import decoded, history, replicaset
from watchdog.config import parse
from watchdog.engine.fleet import Fleet
from watchdog.engine.observer import Observer
from watchdog.errors import Denied
from watchdog.objects import Deployment, LabelSelector, Pod, ReplicaSet
from watchdog.ports import Listed

pytestmark = pytest.mark.looptime

CONFIG = parse('[[policies]]\nname = "all"\nnamespaces = ["shop"]\n')


class Api:
    """Counts requests, and answers with what a selector finds."""

    def __init__(self, names: list[str]) -> None:
        self.asked: list[str] = []
        self.under_way = self.most = 0
        self.denied = False
        self.sets = [_replicaset(name) for name in names]

    async def replicasets(self, namespace: str, selector: LabelSelector, *, timeout_s: float) -> tuple[ReplicaSet, ...]:
        self.asked.append(str(selector))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(1)
        self.under_way -= 1
        if self.denied:
            raise Denied("list replicasets", "Forbidden")
        return tuple(item for item in self.sets if selector.matches(item.metadata.labels))

    async def pods(self, namespace: str, selector: LabelSelector, *, timeout_s: float) -> tuple[Pod, ...]:
        return ()


def _replicaset(name: str) -> ReplicaSet:
    document = replicaset("v1", 1)
    document["metadata"]["labels"]["app"] = name
    return decoded(document, ReplicaSet)


def _deployment(name: str, namespace: str = "shop") -> Deployment:
    document = history("v1").deployment
    document["metadata"] |= {"name": name, "namespace": namespace}
    document["spec"]["selector"] = {"matchLabels": {"app": name}}
    return decoded(document, Deployment)


def observer(api: Api, there: list[Deployment]) -> Observer:
    fleet = Fleet(CONFIG.policies)
    fleet.take("shop", Listed(tuple(there)))
    return Observer(api, fleet, request_s=5)  # type: ignore[arg-type]


async def test_many_workloads_of_a_namespace_are_read_with_one_list() -> None:
    names = [f"web-{number}" for number in range(300)]
    api, there = Api(names), [_deployment(name) for name in names]
    found = await asyncio.gather(*map(observer(api, there).snapshot, there))
    assert api.asked == [""]
    assert [[item.metadata.labels["app"] for item in each.replicasets] for each in found] == [[name] for name in names]


async def test_a_few_workloads_are_read_by_their_selectors_and_one_that_is_asked_for_twice_once() -> None:
    api, there = Api(["a", "b"]), [_deployment("a"), _deployment("b")]
    reads = observer(api, there)
    await asyncio.gather(*(reads.snapshot(each) for each in (*there, *there)))
    assert sorted(api.asked) == ["app=a", "app=b"]


async def test_at_most_sixteen_requests_are_under_way() -> None:
    there = [_deployment("web", f"space-{number}") for number in range(100)]
    api = Api(["web"])
    await asyncio.gather(*map(observer(api, there).snapshot, there))
    assert (len(api.asked), api.most) == (100, 16)


async def test_everybody_who_waits_is_told_of_a_refusal() -> None:
    api, there = Api([]), [_deployment(f"web-{number}") for number in range(10)]
    api.denied = True
    found = await asyncio.gather(*map(observer(api, there).snapshot, there), return_exceptions=True)
    assert [type(each) for each in found] == [Denied] * 10


async def test_a_selector_finds_in_memory_what_the_api_server_would() -> None:
    document = {
        "matchLabels": {"app": "web"},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["a", "b"]},
            {"key": "old", "operator": "DoesNotExist"},
            {"key": "track", "operator": "NotIn", "values": ["canary"]},
            {"key": "team", "operator": "Exists"},
        ],
    }
    selector = decoded(document, LabelSelector)
    good = {"app": "web", "tier": "a", "team": "x"}
    assert selector.matches(good)
    assert not any(
        selector.matches(good | change) for change in ({"app": "api"}, {"tier": "c"}, {"old": ""}, {"track": "canary"})
    )
    assert not selector.matches({"app": "web", "tier": "a"})
