"""`backtest`, as whoever calls it sees it where there is little to replay, or nobody waits for the end."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from tests.component import test_cli
from tests.component.fake_api import FakeApi, hang, page, status
from tests.component.fake_prometheus import QUERY, QUERY_RANGE, forms, matrix, refused, vector
from tests.component.test_cli import SETS, SHOP, Run, configure, runner, start
from tests.unit.builders import history

elsewhere = test_cli.elsewhere

CONFIG = """
prometheus.url = "{url}"
[[policies]]
name = "shop"
namespaces = ["shop"]
[policies.signals.errors]
bad = "bad_total"
total = "all_total"
"""


@pytest.fixture
def run(kubeconfig: Path) -> Run:
    return runner(kubeconfig)


@pytest.fixture
def shop(api: FakeApi) -> FakeApi:
    """A Deployment with two rollouts of two and of one day ago, and a Prometheus that knows nothing of them."""
    scene = history("v1", "v2", "v3")
    for version, days in (("v1", 3), ("v2", 2), ("v3", 1)):
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - days * 86400))
        scene.replicaset(version)["metadata"]["creationTimestamp"] = created
        if version == "v1":
            scene.deployment["metadata"]["creationTimestamp"] = created
    api.answer("GET", SHOP, page(scene.deployment))
    api.answer("GET", SETS, page(*scene.replicasets))
    api.answer("POST", QUERY, vector())
    api.answer("POST", QUERY_RANGE, matrix())
    configure(CONFIG.format(url=api.url))
    return api


async def test_rollouts_that_left_no_data_are_unknown_and_end_with_3(run: Run, shop: FakeApi) -> None:
    ran = await run("backtest")
    assert ran.code == 3
    assert ran.out.startswith("2 rollouts (0 bad, 0 good, 2 unknown) since ")
    assert "unknown: no pod of it has a series" in ran.out
    assert ran.err == ""


async def test_every_range_is_bounded_and_names_the_workload(run: Run, shop: FakeApi) -> None:
    await run("backtest")
    asked = forms(shop, QUERY_RANGE)
    points = [(float(form["end"]) - float(form["start"])) / float(form["step"]) for form in asked]
    assert len(asked) == 2 * 3 * 3  # rollouts; readings of the watch, the day and the six hours; bad, total and times
    assert max(points) <= 1440
    assert all('pod=~"web-[^-]+-[^-]+"' in form["query"] for form in asked)


async def test_a_prometheus_that_refuses_makes_them_unknown_with_its_reason(run: Run, shop: FakeApi) -> None:
    for path in (QUERY, QUERY_RANGE):
        shop.answer("POST", path, refused(422, "execution", "query processing would load too many samples"))
    ran = await run("backtest", "--output", "json")
    assert ran.code == 3
    assert [each["was"] for each in ran.json["rollouts"]] == ["unknown", "unknown"]
    assert "would load too many samples" in ran.json["rollouts"][0]["why"]
    assert ran.json["problems"][0].startswith("ReplicaSets that are gone, by kube-state-metrics: unreachable: ")


async def test_without_rollouts_it_says_so_and_is_good(run: Run, shop: FakeApi) -> None:
    ran = await run("backtest", "--since", "1h")
    assert (ran.code, len(ran.out.splitlines())) == (0, 1)
    assert ran.out.startswith("0 rollouts ")


async def test_what_cannot_be_replayed_is_named(run: Run, shop: FakeApi) -> None:
    joined = 'join = "deployment"\ncandidate = "canary"\nstable = "stable"\n'
    configure(CONFIG.format(url=shop.url) + joined)
    ran = await run("backtest")
    assert "Not replayed: shop/web: series joined by a label do not tell which pods there were" in ran.out
    configure(CONFIG.format(url=shop.url).partition("[policies.signals")[0])
    assert "Not replayed: shop/web: policy 'shop' has no signal" in (await run("backtest")).out
    shop.answer("GET", SHOP, status(403, "Forbidden"))
    assert "Not replayed: list deployments shop: Forbidden" in (await run("backtest")).out


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (CONFIG, ["--html", "nowhere/report.html"], "--html nowhere/report.html: there is no directory nowhere"),
        (CONFIG, ["--since", "long"], "is not a duration"),
        ('prometheus.url = "{url}"', [], "there is no policy to replay by"),
        ("", [], "prometheus.url: missing"),
    ],
    ids=["html", "since", "policy", "prometheus"],
)
async def test_a_mistake_ends_with_2_before_anything_is_asked(
    run: Run, api: FakeApi, text: str, options: list[str], said: str
) -> None:
    configure(text.format(url=api.url))
    ran = await run("backtest", *options)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert api.seen == []


async def test_a_page_that_cannot_be_written_is_a_mistake(run: Run, shop: FakeApi, tmp_path: Path) -> None:
    os.mkdir(tmp_path / "report.html")
    ran = await run("backtest", "--html", str(tmp_path / "report.html"))
    assert ran.code == 2
    assert ran.err.startswith(f"Error: --html {tmp_path / 'report.html'}: ")
    assert sorted(os.listdir(tmp_path)) == ["config.toml", "kubeconfig", "report.html", "token"]


async def test_interrupted_it_ends_with_130_and_leaves_nothing_half_written(
    shop: FakeApi, kubeconfig: Path, tmp_path: Path
) -> None:
    shop.answer("POST", QUERY_RANGE, hang)
    target = tmp_path / "report.html"
    process = await start("backtest", f"--kubeconfig={kubeconfig}", "--html", str(target))
    async with asyncio.timeout(20):
        await shop.reached(1, "POST", QUERY_RANGE)
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
    assert (process.returncode, out) == (130, b"")
    assert b"interrupted" in err
    assert sorted(os.listdir(tmp_path)) == ["config.toml", "kubeconfig", "token"]
