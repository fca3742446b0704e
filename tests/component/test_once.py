"""`once`, as whoever calls it sees it: the exact lines, the exit codes, and what was asked of whom."""

import copy
import datetime as dt
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from tests.component import test_cli
from tests.component.fake_api import FakeApi, good, page, status
from tests.component.fake_prometheus import QUERY, QUERY_RANGE, forms, matrix, refused, vector
from tests.component.memory import observe
from tests.component.test_cli import PODS, SHOP, WEB, Ran, Run, configure, runner
from tests.unit.builders import Json, Scene, hash_of, template
from tests.unit.json_patch import apply
from watchdog.decide import marks

scene, elsewhere = test_cli.scene, test_cli.elsewhere
UNKNOWN = "Current error rate: unknown\n"
HEALTHY = "Current error rate: 0.0100\nError rate is within acceptable range.\n"
UNDONE = "Current error rate: 0.0830\nRolling back web in shop...\nRollback complete.\n"
SELECTORS = ("--bad", "bad_total", "--total", "all_total")
POD = f"web-{hash_of('v3')}-abcde"
PROXY = "/api/v1/namespaces/monitoring/services/prometheus:9090/proxy/prefix"


Once = Callable[..., Awaitable[Ran]]


@pytest.fixture
def run(kubeconfig: Path) -> Run:
    return runner(kubeconfig)


@pytest.fixture
def once(run: Run, scene: Scene, api: FakeApi) -> Once:
    """Run `once shop/web` with these options, where 20 requests a second come to the one live pod and 1 % fail."""
    api.answer("GET", PODS, page(pod(POD)))
    traffic(api, failing=0.01)
    configure(f'prometheus.url = "{api.url}"\n')

    async def once(*options: str) -> Ran:
        return await run("once", "shop/web", *options)

    return once


def pod(name: str, *, version: str = "v3", created: str = "2026-01-01T00:00:00Z") -> Json:
    owner = {"uid": f"uid-of-{version}", "controller": True, "kind": "ReplicaSet"}
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": created}
    return {
        "metadata": {"name": name, "namespace": "shop", "creationTimestamp": created, "ownerReferences": [owner]},
        "status": {"phase": "Running", "conditions": [ready]},
    }


def traffic(api: FakeApi, *, failing: float, rps: float = 20, falls: bool = False, at: str = "") -> None:
    """Let Prometheus show counters of the pod: each step so many requests, of which a share fails."""

    async def answer(request: web.Request) -> web.StreamResponse:
        form = await request.post()
        start, end, step = (float(str(form[name])) for name in ("start", "end", "step"))
        times = [start + index * step for index in range(round((end - start) / step) + 1)]
        query = str(form["query"])

        def value(at: float) -> float:
            if query.startswith("max"):
                return at
            count = rps * (at - start) * (failing if "bad_total" in query else 1)
            return 1000 + (count if not falls or at < end - 2 * step else 0)

        labels = {"namespace": "shop", "pod": POD, "container": "web", "instance": "10.0.0.1:80", "job": "pods"}
        rows = [({**labels, "deployment": "stable"}, {at: value(at) for at in times})]
        return await matrix(*(rows if "nobody" not in query else []))(request)

    api.answer("POST", f"{at}{QUERY_RANGE}", answer)
    api.answer("POST", f"{at}{QUERY}", vector(({}, 1)))


def patches(api: FakeApi) -> list[str]:
    """The dryRun of every write."""
    return [seen.query.get("dryRun", "") for seen in api.seen if seen.method == "PATCH"]


async def test_a_healthy_version_is_left_alone(once: Once, api: FakeApi) -> None:
    ran = await once(*SELECTORS)
    assert (ran.code, ran.out, ran.err) == (0, HEALTHY, "")
    assert patches(api) == []


async def test_a_bad_version_is_undone_and_the_mark_says_why(once: Once, api: FakeApi, scene: Scene) -> None:
    traffic(api, failing=0.083)
    ran = await once(*SELECTORS, "--reason", "checkout fails")
    assert (ran.code, ran.out) == (1, UNDONE)
    assert scene.spec["template"] == template("v2")
    mark = marks.read_last_rollback(scene.annotations, now=dt.datetime.now(dt.UTC))
    assert mark is not None
    assert mark.cause == "checkout fails (error rate 0.0830 of 6000 requests, above 0.05)"
    assert mark.by == "jane@example.com"


async def test_a_dry_run_of_a_bad_version_changes_nothing_and_says_so(once: Once, api: FakeApi, scene: Scene) -> None:
    traffic(api, failing=0.083)
    ran = await once(*SELECTORS, "--dry-run")
    assert (ran.code, ran.out) == (1, UNDONE.replace("Rollback complete.", "Dry run: nothing was changed."))
    assert patches(api) == ["All"]
    assert scene.spec["template"] == template("v3")


@pytest.mark.parametrize(("threshold", "code"), [("0.083", 0), ("0.0829", 1), ("0", 1)])
async def test_only_a_rate_above_the_threshold_is_a_breach(once: Once, api: FakeApi, threshold: str, code: int) -> None:
    traffic(api, failing=0.083)
    assert (await once(*SELECTORS, "--threshold", threshold)).code == code


async def test_a_refused_undo_says_why_in_one_line_and_ends_with_4(once: Once, api: FakeApi, scene: Scene) -> None:
    traffic(api, failing=0.083)
    scene.pause()
    ran = await once(*SELECTORS)
    assert ran.code == 4
    lines = ran.out.splitlines()
    assert lines[:2] == UNDONE.splitlines()[:2]
    assert len(lines) == 3
    assert lines[2].startswith("shop/web: refused, paused: spec.paused is true")
    assert patches(api) == []


async def test_what_a_rollback_put_there_is_not_undone_to_what_that_left_and_ends_with_4(
    once: Once, api: FakeApi, scene: Scene
) -> None:
    traffic(api, failing=0.083)
    test_cli.put_there_by_a_rollback(scene)
    ran = await once(*SELECTORS)
    assert ran.code == 4
    assert ran.out.splitlines()[2].startswith("shop/web: already, revision 3 was put there by the rollback")
    assert patches(api) == []


async def test_an_undo_that_does_not_get_ready_is_not_called_complete(once: Once, api: FakeApi, scene: Scene) -> None:
    traffic(api, failing=0.083)

    async def patch(request: web.Request) -> web.StreamResponse:
        scene.deployment = apply(await request.read(), scene.deployment)
        observe(scene)
        return await good(scene.deployment)(request)

    api.answer("PATCH", WEB, patch)
    configure(f'rollback.timeout = "300ms"\nprometheus.url = "{api.url}"\n')
    ran = await once(*SELECTORS)
    assert ran.code == 4
    assert "Rollback complete." not in ran.out
    assert "not complete after 0.3 s" in ran.out.splitlines()[-1]


async def test_what_was_not_judged_is_not_undone(once: Once, api: FakeApi, scene: Scene) -> None:
    traffic(api, failing=0.083)

    async def pods(request: web.Request) -> web.StreamResponse:
        """Let somebody bring a hotfix while the pods of v3 are read."""
        scene.spec["template"] = template("v4")
        scene.deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "4"
        newest = json.loads(json.dumps(scene.replicaset("v3")).replace(hash_of("v3"), hash_of("v4")))
        newest["spec"]["template"] = template("v4")
        newest["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "4"
        scene.replicasets.append(newest)
        return await page(pod(POD))(request)

    api.answer("GET", PODS, pods)
    ran = await once(*SELECTORS)
    assert ran.code == 4
    assert "shop/web: superseded, superseded: " in ran.out
    assert scene.spec["template"] == template("v4")


async def test_too_few_requests_are_unknown(once: Once, api: FakeApi) -> None:
    traffic(api, failing=0.5, rps=19 / 300)
    ran = await once(*SELECTORS)
    assert (ran.code, ran.out) == (3, UNKNOWN)
    assert ran.err == "Error: 19 requests in 300 s, fewer than 20\n"
    traffic(api, failing=0.5, rps=20 / 300)
    assert (await once(*SELECTORS)).code == 1


async def test_a_counter_that_goes_down_without_a_restart_is_unknown(once: Once, api: FakeApi) -> None:
    traffic(api, failing=0.083, falls=True)
    ran = await once(*SELECTORS)
    assert (ran.code, ran.out) == (3, UNKNOWN)
    assert ran.err.startswith("Error: not-monotonic: ")
    assert patches(api) == []


async def test_no_series_at_all_are_unknown(once: Once, api: FakeApi) -> None:
    api.answer("POST", QUERY_RANGE, matrix())
    ran = await once(*SELECTORS)
    assert (ran.code, ran.out) == (3, UNKNOWN)
    assert ran.err.startswith("Error: stale: ")


async def test_a_prometheus_that_refuses_is_unknown_with_the_cure(once: Once, api: FakeApi) -> None:
    api.answer("POST", QUERY_RANGE, refused(422, "execution", "too many samples"))
    ran = await once(*SELECTORS)
    assert (ran.code, ran.out) == (3, UNKNOWN)
    assert "too many samples" in ran.err


async def test_pods_of_other_revisions_do_not_count(once: Once, api: FakeApi) -> None:
    traffic(api, failing=0.083)
    api.answer("GET", PODS, page(pod(POD, version="v2")))
    ran = await once(*SELECTORS)
    assert (ran.code, ran.out, ran.err) == (3, UNKNOWN, "Error: revision 3 has no pods\n")


async def test_a_version_that_the_controller_has_not_seen_is_unknown(once: Once, scene: Scene) -> None:
    scene.deploy("v4")
    ran = await once(*SELECTORS)
    assert (ran.code, ran.out) == (3, UNKNOWN)
    assert ran.err.startswith("Error: not-observed: ")


POLICY = """
prometheus.url = "{url}"
[[policies]]
name = "web"
namespaces = ["shop"]
mode = "observe"
[policies.signals.errors]
bad = "bad_total"
total = "all_total"
[policies.signals.slow]
bad = "slow_total"
total = "all_total"
"""


async def test_of_the_policys_signals_the_worst_decides_and_its_mode_does_not(
    once: Once, api: FakeApi, scene: Scene
) -> None:
    configure(POLICY.format(url=api.url))
    traffic(api, failing=0.083)
    slow_total_is_total = await once("--output", "json")  # the fake shows every request as slow
    assert slow_total_is_total.code == 1
    assert (slow_total_is_total.json["signal"], slow_total_is_total.json["rate"]) == ("slow", 1.0)


async def test_a_signal_that_is_not_known_is_worse_than_a_good_one_and_better_than_a_bad_one(
    once: Once, api: FakeApi
) -> None:
    text = POLICY.format(url=api.url).replace('"slow_total"\ntotal = "all_total"', '"nobody_bad"\ntotal = "nobody_all"')
    configure(text)
    ran = await once()
    assert (ran.code, ran.out) == (3, UNKNOWN)
    traffic(api, failing=0.083)
    assert (await once()).out == UNDONE


async def test_a_workload_is_judged_by_its_own_track_where_series_name_it(
    once: Once, api: FakeApi, scene: Scene
) -> None:
    canary = copy.deepcopy(scene.deployment)
    canary["metadata"]["name"] = "web-canary"
    api.answer("GET", SHOP, page(scene.deployment, canary))
    configure(
        f'''
        prometheus.url = "{api.url}"
        [[policies]]
        name = "web"
        namespaces = ["shop"]
        stable = "web"
        candidate = "web-canary"
        [policies.signals.errors]
        bad = "bad_total"
        total = "all_total"
        join = "deployment"
        candidate = "canary"
        stable = "stable"
        '''
    )
    ran = await once()
    assert (ran.code, ran.out, ran.err) == (0, HEALTHY, "")


async def test_without_a_policy_and_without_selectors_it_is_a_mistake(once: Once, api: FakeApi) -> None:
    ran = await once()
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(
        "Error: no policy has signals for shop/web: give --bad and --total, or have them proposed"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--bad", "bad_total"], "--bad goes with --total"),
        (["--total", "all_total"], "--bad goes with --total"),
        (["--bad", "rate(bad_total[1m])", "--total", "all_total"], "--bad is a calculation; write the bare counter"),
        ([*SELECTORS, "--threshold", "1"], "threshold"),
        ([*SELECTORS, "--threshold", "-0.1"], "threshold"),
        ([*SELECTORS, "--window", "long"], "is not a duration"),
    ],
    ids=str,
)
async def test_a_mistake_ends_with_2_before_anything_is_asked(
    once: Once, api: FakeApi, options: list[str], said: str
) -> None:
    ran = await once(*options)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert api.seen == []


async def test_without_a_url_it_is_a_mistake_that_names_both_ways(once: Once) -> None:
    configure("")
    ran = await once(*SELECTORS)
    assert ran.code == 2
    assert ran.err == "Error: prometheus.url: missing; set it, or give --prometheus URL\n"


async def test_the_window_is_asked_for_in_whole_steps_of_the_grid(once: Once, api: FakeApi) -> None:
    await once(*SELECTORS, "--window", "100s")
    ranges = {(float(form["end"]) - float(form["start"]), form["step"]) for form in forms(api, QUERY_RANGE)}
    assert ranges == {(105.0, "15.000")}
    assert all(f'pod=~"{POD}"' in form["query"] for form in forms(api, QUERY_RANGE))


async def test_json_is_one_object_with_everything(once: Once, api: FakeApi) -> None:
    traffic(api, failing=0.083)
    ran = await once(*SELECTORS, "--output", "json")
    found = ran.json
    assert ran.code == 1
    assert (found.pop("from")["revision"], found.pop("to")["revision"]) == (3, 2)
    assert found.pop("detail").startswith("rolled back 3 → 2")
    assert found == {
        "schema": 1,
        "command": "once",
        "namespace": "shop",
        "deployment": "web",
        "threshold": 0.05,
        "window_seconds": 300.0,
        "dry_run": False,
        "rate": 0.083,
        "bad": pytest.approx(498),
        "total": pytest.approx(6000),
        "signal": "given",
        "unknown": None,
        "outcome": "rolled-back",
        "guard": None,
    }
    api.answer("GET", PODS, page())
    unknown = await once(*SELECTORS, "--output", "json")
    assert (unknown.code, unknown.json["rate"], unknown.json["outcome"]) == (3, None, None)
    assert unknown.json["unknown"] == "revision 4 has no pods"


# -- through the API server --------------------------------------------------------------------------------------------


async def test_prometheus_is_reached_through_the_service_proxy_of_the_api_server(once: Once, api: FakeApi) -> None:
    traffic(api, failing=0.01, at=PROXY)
    ran = await once(*SELECTORS, "--prometheus", "service://monitoring/prometheus:9090/prefix/")
    assert (ran.code, ran.out) == (0, HEALTHY)
    (asked, *_) = api.asked("POST", PROXY + QUERY_RANGE)
    assert asked.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert asked.headers["Authorization"] == "Bearer first-token"
    assert api.asked("POST", QUERY_RANGE) == []


@pytest.mark.parametrize(
    ("code", "reason", "said"),
    [
        (403, "Forbidden", "(HTTP 403: proxy services monitoring/prometheus:9090: Forbidden)"),
        (404, "NotFound", "(HTTP 404: proxy services monitoring/prometheus:9090: NotFound)"),
    ],
)
async def test_a_proxy_that_is_denied_is_named_with_its_right(
    once: Once, api: FakeApi, code: int, reason: str, said: str
) -> None:
    api.answer("POST", PROXY + QUERY_RANGE, status(code, reason, message="secret"))
    ran = await once(*SELECTORS, "--prometheus", "service://monitoring/prometheus:9090/prefix")
    assert (ran.code, ran.out) == (3, UNKNOWN)
    assert said in ran.err.splitlines()[-1]
    assert "secret" not in ran.err


async def test_a_service_without_endpoints_is_asked_again_and_then_unknown(once: Once, api: FakeApi) -> None:
    traffic(api, failing=0.01, at=PROXY)
    api.answer("POST", PROXY + QUERY, status(503, "ServiceUnavailable"), vector(({}, 1)))
    ran = await once(*SELECTORS, "--prometheus", "service://monitoring/prometheus:9090/prefix")
    assert (ran.code, ran.out) == (0, HEALTHY)
    assert len(api.asked("POST", PROXY + QUERY)) == 2
