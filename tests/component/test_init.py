"""`init`: what it proposes passes `check`, and says why."""

import tomllib
from collections.abc import Collection

import pytest

from tests.unit.builders import decoded, history
from watchdog import config
from watchdog.cli.init import Metrics, propose
from watchdog.config import Config
from watchdog.model import Mode
from watchdog.objects import Deployment

URL = "http://prometheus.monitoring:9090"
HTTP: Metrics = {"http_requests_total": {"code": ["200", "500"], "method": ["GET"]}}
AGENT: Metrics = {"agent_requests_total": {}, "agent_errors_total": {}, "up": {}}


def proposed(
    metrics: Metrics | None, *, name: str = "web", beside: Collection[str] = (), step_s: float | None = 15
) -> tuple[str, Config]:
    document = history("v1", "v2").deployment
    document["metadata"]["name"] = name
    url = "" if metrics is None else URL
    text = propose(decoded(document, Deployment), beside={name, *beside}, metrics=metrics, url=url, step_s=step_s)
    return text, config.parse(text)


def selectors(found: Config) -> tuple[str, str]:
    (policy,) = found.policies
    return policy.signals["errors"].bad, policy.signals["errors"].total


@pytest.mark.parametrize(
    ("metrics", "bad", "total"),
    [
        (HTTP, 'http_requests_total{code=~"5.."}', "http_requests_total"),
        (AGENT, "agent_errors_total", "agent_requests_total"),
        (
            {"http_server_requests_seconds_count": {"status": ["200"], "uri": ["/"]}},
            'http_server_requests_seconds_count{status=~"5.."}',
            "http_server_requests_seconds_count",
        ),
        (
            {"grpc_server_handled_total": {"grpc_code": ["OK", "Internal"]}},
            'grpc_server_handled_total{grpc_code=~"Unknown|DeadlineExceeded|Unimplemented|Internal|Unavailable|DataLoss"}',
            "grpc_server_handled_total",
        ),
        (
            {"istio_requests_total": {"response_code": ["200"]}},
            'istio_requests_total{response_code=~"5.."}',
            "istio_requests_total",
        ),
        (
            {"checkout_requests_total": {}, "checkout_errors_total": {}, "cart_total": {}},
            "checkout_errors_total",
            "checkout_requests_total",
        ),
    ],
    ids=["http", "agent", "spring", "grpc", "istio", "own prefix"],
)
def test_the_usual_counters_become_a_signal_that_passes_check(metrics: Metrics, bad: str, total: str) -> None:
    text, found = proposed(metrics)
    assert selectors(found) == (bad, total)
    assert found.prometheus.url == URL
    assert f"# {bad} counts" in text or "tells what failed" in text


def test_a_proposal_only_observes_and_says_how_to_go_on() -> None:
    text, found = proposed(HTTP)
    assert [(each.name, each.namespaces, each.workloads, each.mode) for each in found.policies] == [
        ("web", ("shop",), ("web",), Mode.OBSERVE)
    ]
    assert 'mode = "observe"  # says what it would do; then "approve" asks a person, and "enforce" acts' in text


def test_of_several_candidates_the_usual_one_is_active_and_the_others_are_comments() -> None:
    text, found = proposed({"a_requests_total": {"code": []}, **HTTP, **AGENT})
    assert selectors(found) == ("agent_errors_total", "agent_requests_total")
    assert '# bad = "http_requests_total{code=~\\"5..\\"}"' in text
    assert '# bad = "a_requests_total{code=~\\"5..\\"}"' in text
    assert text.count("# or, less usual: ") == 2
    activated = text.replace("[policies.signals.errors]", "[x]", 1).replace("# [policies", "[policies", 1)
    assert "policies" in tomllib.loads(activated)


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (None, "no Prometheus was asked"),
        ({}, "none of 0 metrics"),
        ({"up": {}, "process_cpu_seconds_total": {}}, "what would help: http_requests_total with a label code"),
        ({"agent_requests_total": {"job": ["x"]}}, "a counter agent_errors_total that begins at 0"),
        ({"job_requests_total": {"status": ["ok", "failed"]}}, "nothing tells which of job_requests_total failed"),
    ],
)
def test_without_a_signal_there_are_conditions_only_and_a_comment_says_what_would_help(
    metrics: Metrics | None, said: str
) -> None:
    text, found = proposed(metrics)
    assert [policy.signals for policy in found.policies] == [{}]
    assert said in text


@pytest.mark.parametrize(("name", "other"), [("web", "web-canary"), ("web-canary", "web"), ("web", "web-candidate")])
def test_a_canary_beside_it_is_seen_by_its_name(name: str, other: str) -> None:
    _, found = proposed(HTTP, name=name, beside=[other, "api-canary", "canary"])
    (policy,) = found.policies
    assert {policy.stable, policy.candidate} == {name, other}
    assert (policy.name, policy.stable, policy.workloads) == ("web", "web", ())


def test_a_canary_without_a_stable_deployment_is_a_workload_like_any_other() -> None:
    _, found = proposed(HTTP, name="web-canary", beside=["api"])
    assert found.policies[0].workloads == ("web-canary",)


def test_values_of_labels_cannot_write_a_line_of_their_own() -> None:
    evil = '200\nmode = "enforce"\x1b[31m'
    text, found = proposed({"http_requests_total": {"code": ["200", evil]}, 'x"\\_requests_total': {"code": []}})
    assert found.policies[0].mode is Mode.OBSERVE
    assert "\x1b" not in text


@pytest.mark.parametrize(("step_s", "step"), [(5.0, 5), (0.5, 0.5), (None, 15)])
def test_the_grid_is_the_scrape_interval_where_that_is_known(step_s: float | None, step: float) -> None:
    text, found = proposed(HTTP, step_s=step_s)
    assert found.prometheus.step == step
    assert ("correct this" in text) == (step_s is None)


def test_what_would_refuse_an_undo_is_said() -> None:
    document = history("v1", "v2").deployment
    document["spec"]["strategy"] = {"type": "Recreate"}
    document["metadata"]["labels"] = {"argocd.argoproj.io/instance": "shop\nmode = 'enforce'"}
    text = propose(decoded(document, Deployment), beside=["web"], metrics=None, url="", step_s=None)
    assert "# an undo would be refused, recreate: " in text
    assert "# an undo would be refused, gitops: managed by Argo CD" in text
    assert config.parse(text).policies[0].mode is Mode.OBSERVE
