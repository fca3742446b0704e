"""`check --online`: what every policy sees, and who else is reached."""

import datetime as dt
import json
import time
from pathlib import Path

import pytest
from aiohttp import web

from tests.component import test_cli
from tests.component.fake_api import Answer, FakeApi, good, page, status
from tests.component.fake_prometheus import QUERY, QUERY_RANGE, by_query, forms, matrix, refused, vector
from tests.component.test_cli import PODS, RIGHTS, SETS, SHOP, Run, configure, grant_all_but, runner
from tests.unit.builders import Json, history

elsewhere = test_cli.elsewhere


@pytest.fixture
def run(kubeconfig: Path) -> Run:
    return runner(kubeconfig)


def deployment(name: str) -> Json:
    item = history("v1").deployment
    item["metadata"] |= {"name": name, "uid": f"uid-of-{name}"}
    return item


def pod(name: str, owner: str, *, leaving: bool = False) -> Json:
    owners = [{"uid": f"set-of-{owner}", "kind": "ReplicaSet", "name": owner, "controller": True}]
    left = {"deletionTimestamp": "2026-03-01T12:00:00Z"} if leaving else {}
    return {"metadata": {"name": name, "namespace": "shop", "ownerReferences": owners, **left}}


def replicaset(owner: str) -> Json:
    owners = [{"uid": f"uid-of-{owner}", "kind": "Deployment", "name": owner, "controller": True}]
    metadata = {"name": f"{owner}-1", "namespace": "shop", "uid": f"set-of-{owner}", "ownerReferences": owners}
    return {"metadata": metadata, "spec": {"template": {}}}


def row(pod: str) -> Json:
    return {"namespace": "shop", "pod": pod, "container": "app", "instance": "10.0.0.1:80", "job": "pods"}


@pytest.fixture
def shop(api: FakeApi) -> FakeApi:
    """Two Deployments, web with nine pods and web-canary with one; one more is going, and one is nobody's."""
    grant_all_but(api)
    names = [f"web-{index}" for index in range(9)]
    pods = [*(pod(name, "web") for name in names), pod("web-canary-0", "web-canary"), pod("other", "nobody")]
    api.answer("GET", SHOP, page(deployment("web"), deployment("web-canary")))
    api.answer("GET", SETS, page(replicaset("web"), replicaset("web-canary")))
    api.answer("GET", PODS, page(*pods, pod("web-9", "web", leaving=True)))
    shows(api, rows=[*names, "web-canary-0"])
    configure(CANARY.format(url=api.url))
    return api


def shows(api: FakeApi, *, rows: list[str], age_s: float = 3 * 3600, bad: float = 4, spacing: float = 15) -> None:
    """Let Prometheus have these pods, and so many failures among 1,000 requests of the day."""
    now = time.time()
    numbers: dict[str, Answer] = {
        "sum by (namespace,pod,container,instance,job) (t": vector(*((row(name), 100) for name in rows), at=now),
        "sum by (namespace,pod,container,instance,job) (b": vector(*((row(name), 1) for name in rows), at=now),
        "max by (namespace,pod,container,instance,job) (timestamp(t": vector(*((row(n), now) for n in rows), at=now),
        "max(timestamp(b": vector(({}, now - age_s)) if age_s >= 0 else vector(),
        "sum(increase(b": vector(({}, bad)) if age_s >= 0 else vector(),
        "sum(increase(t": vector(({}, 1000)),
    }
    api.answer("POST", QUERY, by_query(numbers))
    scrapes = {now - 60 + second: now - 60 + second // spacing * spacing for second in range(60)}
    api.answer("POST", QUERY_RANGE, matrix((row("web-0"), scrapes)))


CANARY = """
prometheus.url = "{url}"
[[policies]]
name = "agent-api"
namespaces = ["shop"]
stable = "web"
candidate = "web-canary"
[policies.signals.errors]
bad = "bad_total"
total = "total_total"
"""


def seen(out: str) -> list[str]:
    """What stands below the table of rights."""
    lines = out.splitlines()
    return lines[next(index for index, line in enumerate(lines) if line.startswith("jane@example.com: ")) + 1 :]


async def test_each_policy_is_told_in_one_line_of_numbers(run: Run, shop: FakeApi) -> None:
    ran = await run("check", "--online")
    assert ran.code == 0
    assert seen(ran.out) == [
        "agent-api: 9 stable + 1 canary pods, 10/10 export total, bad last seen 3 h ago (0.4 %), no history, "
        "scrape 15 s, without requests 8.3 % is not seen",
        "  watches shop/web, shop/web-canary",
    ]


async def test_the_same_in_json(run: Run, shop: FakeApi) -> None:
    found = (await run("check", "--online", "--output", "json")).json
    (sight,) = found["sees"]
    assert sight.pop("bad_age_s") == pytest.approx(3 * 3600, abs=30)
    assert sight.pop("foreseen")["history"].startswith("no history: ")
    assert sight == {
        "policy": "agent-api",
        "workloads": ["shop/web", "shop/web-canary"],
        "stable": 9,
        "canary": 1,
        "exporting": 10,
        "bad_ratio": 0.004,
        "scrape_s": 15,
    }
    assert (found["problems"], found["reached"]) == ([], [])


def remembers(api: FakeApi, *names: str, rps: float, since_s: float = 86400 * 2) -> None:
    """Let Prometheus have the past of these pods, too, of each of whose requests 0.4 % fail."""
    now = time.time()

    async def give(request: web.Request) -> web.StreamResponse:
        form = await request.post()
        start, end, step = (float(str(form[key])) for key in ("start", "end", "step"))
        times = [start + index * step for index in range(round((end - start) / step) + 1)]
        query, rows = str(form["query"]), []
        for name in names:
            points = {at: at // 15 * 15 for at in times if at > now - since_s}
            if not query.startswith("max"):
                share = 0.004 if "bad_total" in query else 1.0
                points = {at: share * rps * (at - now + since_s) for at in points}
            rows.append((row(name), points))
        return await matrix(*rows)(request)

    api.answer("POST", QUERY_RANGE, give)


STABLE, CANDIDATE = [f"web-5d9-abcd{index}" for index in range(9)], "web-canary-7f4-abcd0"


async def test_the_past_and_the_time_to_see_a_failure_are_told_of_a_canary(run: Run, shop: FakeApi) -> None:
    remembers(shop, *STABLE, CANDIDATE, rps=10)
    (line, _) = seen((await run("check", "--online")).out)
    assert line.endswith("(0.4 %), phi 1.5, scrape 15 s, about 90 s to see 8.3 %")


async def test_of_a_rolling_update_the_reference_is_told_and_the_busiest_workload_is_looked_at(
    run: Run, shop: FakeApi
) -> None:
    configure(CANARY.format(url=shop.url).replace('stable = "web"\ncandidate = "web-canary"\n', ""))
    remembers(shop, *STABLE, CANDIDATE, rps=10)
    (sight,) = (await run("check", "--online", "--output", "json")).json["sees"]
    found = sight["foreseen"]
    assert (found["workload"], found["rps"]) == ("shop/web", pytest.approx(90))
    assert "288 windows of 5 min" in found["history"]
    (line, _) = seen((await run("check", "--online")).out)
    assert line.endswith(", phi 1.5, reference 0.4 %, scrape 15 s, about 90 s to see 8.3 %")


async def test_with_little_traffic_it_takes_longer_and_with_little_past_it_is_asked_about(
    run: Run, shop: FakeApi
) -> None:
    remembers(shop, *STABLE, CANDIDATE, rps=0.5)
    (line, _) = seen((await run("check", "--online")).out)
    assert line.endswith(" min to see 8.3 %")
    configure(CANARY.format(url=shop.url).replace('stable = "web"\ncandidate = "web-canary"\n', ""))
    remembers(shop, *STABLE, rps=0.033, since_s=650)
    (line, _) = seen((await run("check", "--online")).out)
    assert "phi 3, reference 1 %" in line
    assert line.endswith(" min to ask about 8.3 %")


async def test_a_policy_with_the_rule_threshold_is_told_nothing_of_that(run: Run, shop: FakeApi) -> None:
    configure(CANARY.format(url=shop.url).replace("candidate =", 'rule = "threshold"\ncandidate ='))
    (line, _) = seen((await run("check", "--online")).out)
    assert line.endswith("(0.4 %), scrape 15 s")


async def test_pods_that_export_nothing_are_missing_in_the_count(run: Run, shop: FakeApi) -> None:
    shows(shop, rows=["web-0", "web-1", "other"], age_s=30)
    (line, _) = seen((await run("check", "--online")).out)
    assert line.startswith("agent-api: 9 stable + 1 canary pods, 2/10 export total, bad last seen now (0.4 %)")


async def test_of_successes_the_share_that_failed_is_told(run: Run, shop: FakeApi) -> None:
    shows(shop, rows=["web-0"], bad=990)
    configure(CANARY.format(url=shop.url).replace("bad = ", "good = "))
    (line, _) = seen((await run("check", "--online")).out)
    assert "(1 %)" in line


async def test_a_bad_that_was_never_seen_is_told(run: Run, shop: FakeApi) -> None:
    shows(shop, rows=["web-0"], age_s=-1)
    (line, _) = seen((await run("check", "--online")).out)
    assert "bad never seen (0 %)" in line


async def test_no_series_at_all_are_a_problem_with_a_cure(run: Run, shop: FakeApi) -> None:
    shows(shop, rows=[])
    ran = await run("check", "--online")
    assert ran.code == 0
    problem = "no pod has a series of `total`: correct it, or let the pods be scraped"
    assert seen(ran.out) == [f"PROBLEM: agent-api: stale: {problem}"]


async def test_a_query_that_prometheus_refuses_is_a_problem_with_a_cure(run: Run, shop: FakeApi) -> None:
    shop.answer("POST", QUERY, refused(422, "execution", "too many samples"))
    (problem,) = seen((await run("check", "--online")).out)
    assert problem.startswith("PROBLEM: agent-api: unreachable: ")
    assert "too many samples" in problem
    assert "look at the selectors" in problem


async def test_failures_of_pods_that_are_gone_are_looked_for_too(run: Run, shop: FakeApi) -> None:
    await run("check", "--online")
    (asked,) = (form["query"] for form in forms(shop) if form["query"].startswith("max(timestamp(bad"))
    assert 'namespace=~"shop",pod=~"web-.+|web-canary-.+"' in asked


async def test_a_policy_that_matches_nothing_is_a_problem(run: Run, shop: FakeApi) -> None:
    shop.answer("GET", SHOP, page())
    assert seen((await run("check", "--online")).out) == ["PROBLEM: policy 'agent-api' matches nothing in shop"]


async def test_a_namespace_that_cannot_be_listed_is_a_problem(run: Run, shop: FakeApi) -> None:
    shop.answer("GET", SHOP, status(403, "Forbidden"))
    found = (await run("check", "--online", "--output", "json")).json
    assert found["problems"][0] == "list deployments shop: Forbidden"


async def test_without_signals_the_pods_are_counted_and_prometheus_is_not_asked(run: Run, shop: FakeApi) -> None:
    configure('[[policies]]\nname = "all"\nnamespaces = ["shop"]\n')
    ran = await run("check", "--online")
    assert seen(ran.out) == ["all: 10 pods", "  watches shop/web, shop/web-canary"]
    assert forms(shop) == []


async def test_the_rights_of_the_service_itself_are_asked_for(run: Run, shop: FakeApi) -> None:
    configure('records.namespace = "own"\nrecords.kind = "secret"\n')
    grant_all_but(shop, "create tokenreviews", "delete secrets")
    ran = await run("check", "--online", "-n", "shop")
    rows = [" ".join(line.split()) for line in ran.out.splitlines() if " NO " in line]
    assert (ran.code, rows) == (
        0,
        [
            "own delete secrets NO no records: a restart forgets",
            "create tokenreviews.authentication.k8s.io NO only callers with a static token",
        ],
    )
    asked = [json.loads(each.body)["spec"]["resourceAttributes"] for each in shop.asked("POST", RIGHTS)]
    own = {each["verb"] for each in asked if (each["namespace"], each["resource"]) == ("own", "secrets")}
    assert own == {"get", "list", "create", "patch", "delete"}


# -- other servers -----------------------------------------------------------------------------------------------------

PEER = "/api/v1/namespaces/monitoring/services/alertmanager:9093/proxy"


async def test_the_alertmanagers_are_asked_also_through_the_service_proxy(run: Run, shop: FakeApi) -> None:
    configure(f'alertmanager.urls = ["{shop.url}", "service://monitoring/alertmanager:9093", "http://127.0.0.1:9"]\n')
    uptime = (dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)).isoformat()
    for prefix in ("", PEER):
        shop.answer("GET", f"{prefix}/api/v2/alerts", raw_list)
        shop.answer("GET", f"{prefix}/api/v2/status", good({"cluster": {"status": "ready"}, "uptime": uptime}))
    ran = await run("check", "--online", "-n", "shop")
    assert seen(ran.out) == [
        "Alertmanager: 2 of 3 peers answer; not all of them, and for 5 minutes, so absent alerts prove nothing yet",
        "PROBLEM: Alertmanager http://127.0.0.1:9 gave no usable answer: see the log",
    ]
    (asked,) = shop.asked("GET", f"{PEER}/api/v2/alerts")
    assert asked.query["filter"] == 'rollback_watchdog="true"'
    configure(f'alertmanager.urls = ["{shop.url}"]\n')
    assert seen((await run("check", "--online", "-n", "shop")).out) == ["Alertmanager: 1 of 1 peers answer"]


async def raw_list(_: web.Request) -> web.StreamResponse:
    return web.json_response([])


async def test_slack_says_who_we_are_or_what_is_wrong(run: Run, shop: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-secret")
    configure(f'slack.channel = "C01234567"\nslack.api_url = "{shop.url}/slack/"\n')
    shop.answer("GET", "/slack/auth.test", good({"ok": True, "user": "watchdog", "team": "Acme"}))
    shop.answer("GET", "/slack/conversations.history", good({"ok": True, "messages": []}))
    ran = await run("check", "--online", "-n", "shop")
    assert seen(ran.out) == ["Slack: watchdog in Acme; finds its messages in C01234567"]
    shop.answer("GET", "/slack/auth.test", good({"ok": False, "error": "invalid_auth"}))
    ran = await run("check", "--online", "-n", "shop")
    (problem,) = seen(ran.out)
    assert problem.startswith("PROBLEM: Slack says invalid_auth: put a valid bot token")
    assert "xoxb-secret" not in ran.out + ran.err
