"""`gate`, as whoever calls it sees it: its lines, the files it writes, the exit codes, and what was asked of whom."""

import copy
import datetime as dt
import math
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from tests.component import test_cli
from tests.component.fake_api import FakeApi, good, page
from tests.component.fake_prometheus import QUERY_RANGE
from tests.component.test_cli import PODS, SETS, SHOP, Ran, Run, configure, runner
from tests.component.test_once import POD, PROXY, SELECTORS, patches, pod, traffic
from tests.unit.builders import Scene, hash_of, history, template
from watchdog.decide import marks

scene, elsewhere = test_cli.scene, test_cli.elsewhere
VERSION = f"shop/web revision 3 ({hash_of('v3')})"
SERVICE = "service://monitoring/prometheus:9090/prefix"

Gate = Callable[..., Awaitable[Ran]]


@pytest.fixture
def run(kubeconfig: Path) -> Run:
    return runner(kubeconfig)


@pytest.fixture
def gate(run: Run, scene: Scene, api: FakeApi) -> Gate:
    """Run `gate shop/web` with these options, where hours ago 20 requests a second began to come, of which 1 % fail."""
    api.answer("GET", PODS, page(pod(POD)))
    traffic(api, failing=0.01)
    configure(f'prometheus.url = "{api.url}"\n')

    async def gate(*options: str) -> Ran:
        return await run("gate", "shop/web", *options)

    return gate


def written(name: str) -> str:
    """What a file holds."""
    return Path(name).read_text()


async def test_a_good_version_that_has_been_live_for_long_passes_at_once_by_its_past(gate: Gate, api: FakeApi) -> None:
    ran = await gate(*SELECTORS)
    assert (ran.code, ran.err) == (0, "")
    pinned, past, block, verdict, *rest = ran.out.splitlines()
    assert pinned == f"{VERSION}: registry.example/web:v3"
    assert past.startswith("the usual share of failures is not known, ")
    shown = r"\d\d:\d\d:\d\d  7\d+ of 300 s  candidate 1\d+/1\d+ bad 1\.0 %  no stable requests  evidence .+"
    assert re.fullmatch(shown, block), block
    assert verdict.startswith(f"{VERSION} is healthy: candidate ")
    assert rest == ["note: the rollout is not complete: 1 of 3 pods run the target's template"]
    assert patches(api) == []


async def test_a_bad_version_is_undone_and_the_mark_says_by_whom_and_why(
    gate: Gate, api: FakeApi, scene: Scene
) -> None:
    traffic(api, failing=0.2)
    ran = await gate(*SELECTORS, "--baseline", "0.004", "--reason", "release 7")
    assert ran.code == 1, ran
    assert ran.out.splitlines()[3].startswith(f"{VERSION} is bad: sequential: candidate ")
    assert "this gate: rolled-back, rolled back 3 → 2, 3 of 3 pods available" in ran.out.splitlines()
    assert scene.spec["template"] == template("v2")
    mark = marks.read_last_rollback(scene.annotations, now=dt.datetime.now(dt.UTC))
    assert mark is not None
    assert mark.by == "jane@example.com"
    assert mark.cause.startswith("release 7 (gate: candidate ")


async def test_a_bad_version_without_a_known_past_is_reported_and_stays(gate: Gate, api: FakeApi, scene: Scene) -> None:
    traffic(api, failing=0.2)
    ran = await gate(*SELECTORS)
    assert ran.code == 1, ran
    assert "nothing was changed, no-history: " in ran.out
    assert patches(api) == []


async def test_a_version_that_runs_another_image_ends_with_2_and_nothing_is_read(gate: Gate, api: FakeApi) -> None:
    ran = await gate(*SELECTORS, "--image", "registry.example/web:v4")
    assert (ran.code, ran.out) == (2, "")
    runs = "registry.example/web:v3"
    assert ran.err == f"Error: revision 3 of shop/web runs {runs}, not registry.example/web:v4\n"
    assert api.asked("POST", QUERY_RANGE) == []


async def test_selectors_that_find_nothing_cannot_be_judged_and_end_with_3(gate: Gate) -> None:
    ran = await gate("--bad=nobody_bad_total", "--total=nobody_all_total", "--for=1s", "--config", fast(Path("f.toml")))
    assert ran.code == 3, ran
    assert f"{VERSION} cannot be judged: stale: no pod has a series" in ran.out


def fast(file: Path) -> str:
    """Write a configuration whose steps are of a second, beside the one that is there."""
    url = Path("config.toml").read_text()
    file.write_text(f'{url}prometheus.step = "1s"\n[[policies]]\nname = "w"\nnamespaces = ["shop"]\ngrace = "0s"\n')
    return str(file)


async def test_a_bare_runner_reads_through_the_api_server_and_needs_no_configuration(gate: Gate, api: FakeApi) -> None:
    configure("")
    traffic(api, failing=0.01, at=PROXY)
    ran = await gate(*SELECTORS, "--prometheus", SERVICE)
    assert ran.code == 0, ran
    asked = api.asked("POST", PROXY + QUERY_RANGE)
    assert {each.headers["Authorization"] for each in asked} == {"Bearer first-token"}
    assert api.asked("POST", QUERY_RANGE) == []


async def test_counters_are_read_from_the_pods_where_the_configuration_says_so(
    gate: Gate, api: FakeApi, scene: Scene
) -> None:
    began = time.monotonic()

    async def metrics(_: web.Request) -> web.StreamResponse:
        count = 1000 + int(100 * (time.monotonic() - began))
        return web.Response(text=f"all_total {count}\nbad_total {count // 2}\n")

    there = pod(POD)
    there["metadata"]["annotations"] = {"prometheus.io/port": api.url.rpartition(":")[2]}
    there["status"]["podIP"] = "127.0.0.1"
    api.answer("GET", PODS, page(there))
    api.answer("GET", "/metrics", metrics)
    configure(
        'source = "pods"\nscrape.step = "1s"\nscrape.timeout = "500ms"\n'
        '[[policies]]\nname = "web"\nnamespaces = ["shop"]\ngrace = "0s"\n'
        'sensitivity = "quick"\n[policies.signals.errors]\nbad = "bad_total"\ntotal = "all_total"\n'
    )
    ran = await gate("--for", "20s", "--baseline", "0.004", "--on-breach", "undo")
    assert ran.code == 1, ran
    assert scene.spec["template"] == template("v2")
    assert time.monotonic() - began < 15
    assert len(ran.out.splitlines()) < 12


async def test_json_is_one_object_and_the_exit_code_is_in_it(gate: Gate, api: FakeApi) -> None:
    traffic(api, failing=0.2)
    ran = await gate(*SELECTORS, "--baseline", "0.004", "--dry-run", "--output", "json")
    found = ran.json
    assert (ran.code, found["exit_code"], found["schema"], found["command"]) == (1, 1, 1, "gate")
    assert (found["verdict"], found["outcome"], found["cause"]) == ("breach", "rolled-back", "sequential")
    assert (found["revision"], found["hash"]) == (3, hash_of("v3"))
    assert (found["dry_run"], found["on_breach"], found["for_seconds"], found["by_service"]) == (
        True,
        "undo",
        300,
        False,
    )
    signal = found["signals"]["given"]
    assert signal["candidate"]["bad"] == pytest.approx(0.2 * signal["candidate"]["total"], rel=0.01)
    assert signal["log_evidence"] >= signal["log_threshold"]
    assert signal["control"] == "historical"
    assert patches(api) == ["All"]


async def test_summary_and_outputs_are_added_to_what_a_pipeline_has_written(gate: Gate, api: FakeApi) -> None:
    traffic(api, failing=0.2)
    configure("# Before\n", name="summary.md")
    files = ("--summary", "summary.md", "--outputs", "outputs")
    ran = await gate(*SELECTORS, "--baseline", "0.004", *files)
    assert ran.code == 1, ran
    text = written("summary.md")
    assert text.startswith(f"# Before\n### ❌ shop/web revision 3 ({hash_of('v3')}) is bad\n")
    assert "| verdict | `breach` |\n" in text
    assert "| image | `registry.example/web:v3` (web) |\n" in text
    assert "| outcome | `rolled-back` |\n" in text
    lines = written("outputs").splitlines()
    found = dict(line.split("=", 1) for line in lines)
    assert len(found) == len(lines)
    assert (found["verdict"], found["outcome"], found["exit-code"]) == ("breach", "rolled-back", "1")
    assert (found["revision"], found["back-to-revision"]) == ("3", "2")
    assert found["incident"].startswith("web-3-")


async def test_what_the_cluster_says_cannot_break_out_of_summary_or_outputs(gate: Gate, scene: Scene) -> None:
    image = "x`|<img src=//evil>\nverdict=healthy"
    scene.spec["template"]["spec"]["containers"][0]["image"] = image
    scene.replicaset("v3")["spec"]["template"]["spec"]["containers"][0]["image"] = image
    ran = await gate(*SELECTORS, "--summary", "summary.md", "--outputs", "outputs")
    assert ran.code == 0, ran
    (row,) = [line for line in written("summary.md").splitlines() if line.startswith("| image |")]
    assert row == "| image | `x'¦<img src=//evil> verdict=healthy` (web) |"
    assert written("outputs").count("verdict=") == 1


async def test_a_summary_that_cannot_be_written_changes_no_verdict(gate: Gate) -> None:
    ran = await gate(*SELECTORS, "--summary", "no/such/place")
    assert ran.code == 0
    assert ran.err == "Error: no/such/place cannot be written: No such file or directory\n"


def policy(api: FakeApi, text: str) -> None:
    """Configure a policy for the namespace, with these lines of its own."""
    configure(f'prometheus.url = "{api.url}"\n[[policies]]\nname = "p"\nnamespaces = ["shop"]\n{text}\n')


@pytest.mark.parametrize(
    ("text", "options", "action"),
    [
        ("", (), "undo"),
        ("", ("--stable", "old"), "scale-down"),
        ('action = "pause"', ("--stable", "old"), "pause"),
        ('action = "pause"', ("--on-breach", "undo"), "undo"),
        ('action = "scale-down"\nstable = "web"\ncandidate = "web-canary"', (), "undo"),
        ("", ("--on-breach", "none"), None),
    ],
)
async def test_a_breach_leads_to_what_is_asked_for_else_the_policys_word_else_what_undoes_such_a_rollout(
    gate: Gate, api: FakeApi, scene: Scene, text: str, options: tuple[str, ...], action: str | None
) -> None:
    policy(api, text)
    beside(api, scene)
    ran = await gate(*SELECTORS, *options, "--output", "json")
    assert ran.code in (0, 3), ran
    assert ran.json["on_breach"] == action


def beside(api: FakeApi, scene: Scene) -> None:
    """Let there be a Deployment `old`, complete and without traffic."""
    old = history("v0")
    for document in (old.deployment, *old.replicasets):
        document["metadata"]["name"] = document["metadata"]["name"].replace("web", "old")
    old.deployment["metadata"]["uid"] = "uid-of-old"
    old.replicasets[0]["metadata"]["ownerReferences"][0]["uid"] = "uid-of-old"
    api.answer("GET", f"{SHOP}/old", good(old.deployment))
    api.answer("GET", SETS, page(*scene.replicasets, *old.replicasets))


async def test_a_colour_is_switched_back_by_the_service_and_not_by_a_gate(
    gate: Gate, api: FakeApi, scene: Scene
) -> None:
    policy(api, 'service = "web"\nworkloads = ["web", "web-green"]')
    green = copy.deepcopy(scene.deployment)
    green["metadata"]["name"] = "web-green"
    api.answer("GET", SHOP, page(scene.deployment, green))
    ran = await gate(*SELECTORS)
    assert ran.code == 2, ran
    assert "its service switches back; --on-breach none" in ran.err


async def test_selectors_of_the_policy_are_judged_one_by_one(gate: Gate, api: FakeApi) -> None:
    signals = "".join(
        f'[policies.signals.{name}]\nbad = "{bad}"\ntotal = "all_total"\n'
        for name, bad in (("errors", "bad_total"), ("slow", "slow_total"))
    )
    policy(api, signals)
    ran = await gate("--output", "json")
    assert sorted(ran.json["signals"]) == ["errors", "slow"]
    assert ran.json["signals"]["errors"]["log_threshold"] == pytest.approx(math.log(400))


async def test_scaling_down_without_a_stable_deployment_is_a_mistake(gate: Gate) -> None:
    ran = await gate(*SELECTORS, "--on-breach", "scale-down")
    assert ran.code == 2
    assert "would take every pod away" in ran.err
