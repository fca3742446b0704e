"""`backtest` against a real Prometheus with days of written-back history, and the API server's ReplicaSets."""

import datetime as dt
import os
import re
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.component import test_cli
from tests.component.fake_api import FakeApi, page, running, write_kubeconfig
from tests.component.test_cli import SETS, SHOP, Ran, configure, runner
from tests.monitoring.fixtures import MISSING, REASON, REQUIRED
from tests.monitoring.past import PastServer, Sample
from tests.unit.builders import Json

pytestmark = pytest.mark.skipif(not REQUIRED and "promtool" in MISSING, reason=REASON)

elsewhere = test_cli.elsewhere

STEP_S = 15
LAG_S = 9
"""A target is scraped 4 s before the instant that is asked about, which is 5 s before the grid's."""

BEGAN = int(time.time()) // 3600 * 3600 - 4 * 3600
"""When the healthy rollout began."""

RPS = 10
MINUTE = 60
USUAL = 0.004


class Pod(NamedTuple):
    """One pod: its name, from when and until when it serves, and the share that fails."""

    name: str
    ready: int
    gone: int
    share: float


def rolled(name: str, at: int, *, share: float, undone: int | None = None, prefix: str = "") -> list[Pod]:
    """Two pods of v1, which two of v2 replace at `at`, until v1 comes back with pods of other names."""
    day, end = at - 26 * 3600, at + 3 * 3600
    old = [Pod(f"{name}-1a1a1-old0{n}", day, at + 40 + 20 * n, USUAL) for n in range(2)]
    new = [Pod(f"{name}-2b2b2-new0{n}", at + 20 + 20 * n, undone + 20 if undone else end, share) for n in range(2)]
    back = [Pod(f"{name}-1a1a1-bak0{n}", undone + 10, end, USUAL) for n in range(2)] if undone else []
    return [*old, *new, *back]


HEALTHY, UNDONE, LEFT, SILENT = (BEGAN + index * 600 for index in range(4))
"""When each workload rolled out."""

UNDONE_AT = UNDONE + 12 * MINUTE
PODS = {
    "web": rolled("web", HEALTHY, share=USUAL),
    "api": rolled("api", UNDONE, share=0.3, undone=UNDONE_AT),
    "pay": rolled("pay", LEFT, share=0.2),
}


def counted(pod: Pod, at: float) -> tuple[int, int]:
    """Requests and failures of a pod at a time."""
    total = int(RPS * max(0, min(at, pod.gone) - pod.ready))
    return total, int(total * pod.share)


def new(deployment: str) -> list[Pod]:
    """The pods of v2."""
    return [pod for pod in PODS[deployment] if "-2b2b2-" in pod.name]


def failed(pods: list[Pod], at: float) -> int:
    """What pods had counted at the scrape of the block that ends at `at`."""
    return sum(counted(pod, at - LAG_S)[1] for pod in pods)


def first_scrape(ready: int) -> int:
    """When a pod that is Ready at a time was scraped first."""
    return -((-ready - LAG_S) // STEP_S) * STEP_S - LAG_S


def samples() -> Iterator[Sample]:
    """Everything there is; of the oldest ReplicaSets of pay kube-state-metrics has seen two hours."""
    for pods in PODS.values():
        for pod in pods:
            labels = {"namespace": "shop", "pod": pod.name, "container": "app", "instance": pod.name, "job": "shop"}
            for code in ("200", "500"):
                for at in range(first_scrape(pod.ready), pod.gone, STEP_S):
                    total, bad = counted(pod, at)
                    yield "http_requests_total", {**labels, "code": code}, bad if code == "500" else total - bad, at
    for name, created in (("pay-0c0c0", LEFT - 2 * 86400), ("pay-1a1a1", LEFT - 30 * 3600)):
        labels = {"namespace": "shop", "replicaset": name}
        owner = {**labels, "owner_kind": "Deployment", "owner_name": "pay"}
        for at in range(created, created + 7200, 60):
            yield "kube_replicaset_created", labels, created, at
            yield "kube_replicaset_owner", owner, 1, at


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that has only the past."""
    with PastServer(tmp_path_factory.mktemp("prometheus"), samples()) as server:
        yield server.url


def stamp(at: float) -> str:
    return f"{dt.datetime.fromtimestamp(at, dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


def deployment(name: str, at: int) -> Json:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "app", "image": "a:2"}]}}
    metadata = {"name": name, "namespace": "shop", "uid": name, "creationTimestamp": stamp(at - 5 * 86400)}
    spec = {"selector": {"matchLabels": {"app": name}}, "template": template}
    return {"metadata": {**metadata, "annotations": {"deployment.kubernetes.io/revision": "2"}}, "spec": spec}


def replicaset(name: str, about: str, created: int, revision: str, before: str = "") -> Json:
    annotations = {"deployment.kubernetes.io/revision": revision}
    if before:
        annotations["deployment.kubernetes.io/revision-history"] = before
    owner = {"uid": name, "kind": "Deployment", "name": name, "controller": True}
    labels = {"app": name, "pod-template-hash": about}
    metadata: Json = {"name": f"{name}-{about}", "namespace": "shop", "uid": f"{name}-{about}", "labels": labels}
    metadata |= {"creationTimestamp": stamp(created), "annotations": annotations, "ownerReferences": [owner]}
    image = {"1a1a1": "a:1", "2b2b2": "a:2"}[about]
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "app", "image": image}]}}
    return {"metadata": metadata, "spec": {"template": template}}


CONFIG = """
prometheus.url = "{url}"
[[policies]]
name = "shop"
namespaces = ["shop"]
rule = "sequential"
[policies.signals.errors]
bad = 'http_requests_total{{code=~"5.."}}'
total = "http_requests_total"
"""


@pytest.fixture
async def api(tmp_path: Path, prometheus: str) -> AsyncIterator[FakeApi]:
    """An API server with four Deployments; their oldest ReplicaSets are gone."""
    starts = {"web": HEALTHY, "api": UNDONE, "pay": LEFT, "idle": SILENT}
    async with running(FakeApi()) as api:
        api.answer("GET", SHOP, page(*(deployment(name, at) for name, at in starts.items())))
        sets = [replicaset(name, "2b2b2", at, "2") for name, at in starts.items()]
        sets += [
            replicaset("web", "1a1a1", HEALTHY - 4 * 86400, "1"),
            replicaset("api", "1a1a1", UNDONE - 4 * 86400, "3", before="1"),
            replicaset("idle", "1a1a1", SILENT - 4 * 86400, "1"),
        ]
        api.answer("GET", SETS, page(*sets))
        write_kubeconfig(tmp_path, api.url)
        configure(CONFIG.format(url=prometheus))
        yield api


async def run(tmp_path: Path, *options: str) -> Ran:
    return await runner(tmp_path / "kubeconfig")("backtest", "--since", "3d", *options)


@pytest.fixture
async def found(api: FakeApi, tmp_path: Path) -> Json:
    """What the command says in JSON."""
    ran = await run(tmp_path, "--json")
    assert ran.code == 0, ran
    return ran.json


def of(found: Json, deployment: str) -> Json:
    """The rollout of revision 2 of a Deployment."""
    (mine,) = (each for each in found["rollouts"] if (each["deployment"], each["revision"]) == (deployment, 2))
    return dict(mine)


def did(rollout: Json, rule: str = "sequential") -> Json:
    (finding,) = (each for each in rollout["findings"] if each["rule"] == rule)
    return dict(finding)


async def test_a_healthy_rollout_passes_under_every_rule(found: Json) -> None:
    web = of(found, "web")
    assert (web["was"], web["outcome"], web["undone"]) == ("good", "passed", None)
    assert [each["rule"] for each in web["findings"] if each["acted"] or each["asked"]] == []
    assert (web["began"], web["requests"]) == (
        HEALTHY,
        sum(counted(pod, web["replayed_until"] - LAG_S)[0] for pod in new("web")),
    )


async def test_what_a_person_undid_after_12_minutes_is_caught_with_what_that_saves(found: Json) -> None:
    shop, mine = of(found, "api"), did(of(found, "api"))
    back = first_scrape(UNDONE_AT + 10)
    assert (shop["was"], shop["outcome"], shop["undone"]) == ("bad", "caught", back)
    assert shop["why"].startswith("undone after 12 min, 30 % of ")
    assert UNDONE + 60 <= mine["acted"] <= UNDONE + 180
    assert mine["saved_s"] == back - mine["acted"]
    last_block = back // STEP_S * STEP_S
    assert mine["saved_errors"] == failed(new("api"), last_block) - failed(new("api"), mine["acted"])
    assert mine["saved_errors"] > 3000


async def test_the_usual_pipeline_step_looks_once_after_five_minutes(found: Json) -> None:
    finding = did(of(found, "api"), "sleep 300, one look, over 5 %")
    begin = first_scrape(UNDONE + 20) // STEP_S * STEP_S  # of the block in which the first pod was Ready
    assert finding["acted"] == begin + 300


async def test_what_nobody_undid_is_bad_by_its_errors_and_saves_at_least_the_rest(found: Json) -> None:
    pay, mine = of(found, "pay"), did(of(found, "pay"))
    assert (pay["was"], pay["outcome"], pay["undone"]) == ("bad", "caught", None)
    assert pay["why"] == f"20 % of {pay['requests']:.0f} failed, at most 0.4 % is usual"
    assert mine["saved_s"] == pay["replayed_until"] - mine["acted"]
    assert mine["saved_errors"] == failed(new("pay"), pay["replayed_until"]) - failed(new("pay"), mine["acted"])


async def test_a_rollout_without_data_is_counted_by_no_rule(found: Json) -> None:
    idle = of(found, "idle")
    assert (idle["was"], idle["outcome"], idle["findings"]) == ("unknown", "unknown", [])
    ours = found["rules"][0]
    assert ours["rule"] == "configured policies"
    assert [ours[key] for key in ("caught", "asked", "missed", "false", "false_asked", "open")] == [2, 0, 0, 0, 0, 1]
    assert ours["saved_s"] == did(of(found, "api"))["saved_s"] + did(of(found, "pay"))["saved_s"]


async def test_replicasets_that_are_gone_are_found_where_kube_state_metrics_is_scraped(found: Json) -> None:
    lost = {each["replicaset"]: each["began"] for each in found["rollouts"] if each["revision"] is None}
    assert lost == {"pay-0c0c0": LEFT - 2 * 86400, "pay-1a1a1": LEFT - 30 * 3600}


async def test_the_table_says_it_in_words(api: FakeApi, tmp_path: Path) -> None:
    ran = await run(tmp_path)
    assert ran.out.startswith("6 rollouts (2 bad, 1 good, 3 unknown) since ")
    rows = [re.split(r"  +", line.strip()) for line in ran.out.splitlines()]
    (ours,) = (row for row in rows if row[0] == "configured policies")
    assert ours[1:6] == ["2", "0", "0", "0", "0"]
    (shop,) = (row for row in rows if row[0] == "shop/api revision 2 (2b2b2)")
    assert shop[2].startswith("bad: undone after 12 min")
    assert re.fullmatch(r"rolls back after \d\.\d min, saves \d+\.\d min and [\d,]+ errors", shop[4])
    (pay,) = (row for row in rows if row[0] == "shop/pay revision 2 (2b2b2)")
    assert "saves ≥ " in pay[4]


async def test_the_page_needs_nothing_else_and_has_plots_for_each_rollout_that_has_data(
    api: FakeApi, tmp_path: Path
) -> None:
    target = tmp_path / "report.html"
    target.write_text("old")
    ran = await run(tmp_path, "--html", str(target))
    assert ran.code == 0
    text = target.read_text()
    assert not re.search(r"https?:|src=|href=|@import|url\(", text)
    sections = text.split("<h2>")[1:]
    assert [section.count("<svg") for section in sections] == [2, 2, 2, 0, 0, 0, 0]
    assert "shop/api" in sections[0]
    assert 'class="act"' in sections[0]
    assert 'class="undo"' in sections[0]
    assert "shop/web" in sections[2]  # what passed comes after what did not
    assert [name for name in os.listdir(tmp_path) if "report" in name] == ["report.html"]


async def test_a_rule_that_asks_for_more_than_there_is_misses_what_was_bad(
    api: FakeApi, prometheus: str, tmp_path: Path
) -> None:
    text = CONFIG.format(url=prometheus).replace('"sequential"', '"threshold"')
    configure(f"{text}\n[policies.threshold]\nmax_ratio = 0.25\n")
    found = (await run(tmp_path, "--json")).json
    assert (of(found, "api")["outcome"], of(found, "pay")["outcome"]) == ("caught", "missed")
    assert did(of(found, "pay"))["acted"]  # the other rule, which is shown beside it, would have caught it
