"""The monitoring that other tests stand on: it shows what the pods' annotations say, at once, and can be broken."""

import time
from pathlib import Path

import pytest

from tests.controlplane.cluster import Cluster
from tests.controlplane.plane import ControlPlane
from tests.monitoring.alertmanager import AlertmanagerServer
from tests.monitoring.exporter import Exporter
from tests.monitoring.prometheus import PrometheusServer, agent_errors

pytest_plugins = ["tests.monitoring.fixtures"]


def values(prometheus: PrometheusServer, cluster: Cluster, expr: str) -> list[float]:
    """The values of an expression over this test's pods; `%` stands for their matcher."""
    found = prometheus.query(expr.replace("%", f'{{namespace="{cluster.namespace}"}}'))
    return [float(sample["value"][1]) for sample in found]


def deploy(cluster: Cluster, *, replicas: int = 2, **annotations: str) -> None:
    told = {f"sim/{name.replace('_', '-')}": value for name, value in annotations.items()}
    cluster.create_deployment("web", replicas=replicas, template_annotations=told)
    cluster.wait_complete("web")


def test_a_pod_counts_at_the_rate_and_the_share_that_its_template_says(
    cluster: Cluster, prometheus: PrometheusServer
) -> None:
    deploy(cluster, rps="100", errors="0.25")
    cluster.wait(lambda: values(prometheus, cluster, "count_over_time(agent_requests_total%[5s])") == [5, 5])
    slopes = values(prometheus, cluster, "deriv(agent_requests_total%[5s])")  # rate() would extrapolate to the edges
    assert slopes == pytest.approx([100, 100], rel=0.05)
    shares = values(prometheus, cluster, "agent_errors_total% / agent_requests_total%")
    assert shares == pytest.approx([0.25, 0.25], abs=0.005)
    shares = values(prometheus, cluster, "http_requests_total% / ignoring(code) group_left agent_requests_total%")
    assert sorted(shares) == pytest.approx([0.25, 0.25, 0.75, 0.75], abs=0.01)


def test_a_new_version_shows_within_two_scrapes_and_the_old_pods_go(
    cluster: Cluster, prometheus: PrometheusServer
) -> None:
    deploy(cluster, rps="50")
    cluster.wait(lambda: values(prometheus, cluster, "count(agent_requests_total%)") == [2])
    cluster.set_image("web", "v2", template_annotations={"sim/errors": "1"})
    cluster.wait_complete("web")
    begun = time.monotonic()
    cluster.wait(lambda: values(prometheus, cluster, "count(agent_errors_total% > 0)") == [2])
    assert time.monotonic() - begun < 2.5
    cluster.wait(lambda: values(prometheus, cluster, "count(agent_requests_total%)") == [2])


def test_a_series_of_errors_may_be_absent_until_the_first_error(
    cluster: Cluster, exporter: Exporter, prometheus: PrometheusServer
) -> None:
    deploy(cluster, rps="50", bad_absent="true")
    cluster.wait(lambda: values(prometheus, cluster, "count(agent_requests_total% > 10)") == [2])
    assert not values(prometheus, cluster, "agent_errors_total%")
    exporter.set(f"{cluster.namespace}/web-", errors=0.5)
    cluster.wait(lambda: values(prometheus, cluster, "count(agent_errors_total%)") == [2])


def test_counters_can_be_made_unusable_in_every_way_that_happens(
    cluster: Cluster, exporter: Exporter, prometheus: PrometheusServer
) -> None:
    deploy(cluster, rps="50")
    pods = f"{cluster.namespace}/web-"
    cluster.wait(lambda: values(prometheus, cluster, "count(agent_requests_total% > 10)") == [2])
    exporter.saw_tooth(pods)
    cluster.wait(lambda: values(prometheus, cluster, "min(resets(agent_requests_total%[5s]))") >= [2])
    exporter.saw_tooth(pods, on=False)
    exporter.twice(pods)
    cluster.wait(lambda: values(prometheus, cluster, "count by (pod) (agent_requests_total%)") == [2, 2])
    exporter.twice(pods, on=False)
    exporter.nan(pods)
    cluster.wait(lambda: [str(each) for each in values(prometheus, cluster, "agent_requests_total%")] == ["nan", "nan"])
    exporter.nan(pods, on=False)
    exporter.stop_serving(pods)
    cluster.wait(lambda: not values(prometheus, cluster, "agent_requests_total%"))
    exporter.stop_serving(pods, on=False)
    exporter.set(pods, rps=0)
    cluster.wait(lambda: values(prometheus, cluster, "sum(rate(agent_requests_total%[3s]))") == [0])


def test_pods_may_be_discovered_as_targets_of_their_own(cluster: Cluster, exporter: Exporter, tmp_path: Path) -> None:
    deploy(cluster, rps="50")
    with PrometheusServer(tmp_path, exporter=exporter, http_sd=True) as prometheus:
        cluster.wait(lambda: values(prometheus, cluster, "count(agent_requests_total%)") == [2])
        (one, other) = prometheus.query(f'agent_requests_total{{namespace="{cluster.namespace}"}}')
        assert one["metric"].keys() == {"__name__", "namespace", "pod", "container", "instance", "job"}
        exporter.stop_serving(f"{cluster.namespace}/{one['metric']['pod']}")
        cluster.wait(lambda: sorted(values(prometheus, cluster, "up%")) == [0, 1])
        (left,) = prometheus.query(f'agent_requests_total{{namespace="{cluster.namespace}"}}')
        assert left["metric"] == other["metric"]


def test_a_prometheus_that_was_killed_or_frozen_still_knows_the_past(
    cluster: Cluster, exporter: Exporter, tmp_path: Path
) -> None:
    deploy(cluster, rps="50")
    with PrometheusServer(tmp_path, exporter=exporter) as prometheus:
        cluster.wait(lambda: values(prometheus, cluster, "count(agent_requests_total%)") == [2])
        prometheus.kill()
        prometheus.start()
        prometheus.freeze()
        with pytest.raises(TimeoutError):
            prometheus.api("GET", "/-/ready", timeout_s=0.2)
        prometheus.thaw()
        prometheus.stop()
        prometheus.start()
        assert values(prometheus, cluster, "count(agent_requests_total%)") == [2]


def test_an_alert_fires_by_its_rule_and_reaches_the_alertmanager(
    cluster: Cluster, plane: ControlPlane, prometheus: PrometheusServer, alertmanager: AlertmanagerServer
) -> None:
    deploy(cluster, rps="50", errors="0.2")
    prometheus.reload([agent_errors(cluster.namespace, "web")], alertmanagers=[alertmanager.url])
    (alert,) = cluster.wait(alertmanager.alerts)
    assert alert["labels"] == {
        "alertname": "AgentErrors",
        "namespace": cluster.namespace,
        "deployment": "web",
        "rollback_watchdog": "true",
    }
    alertmanager.kill()
    alertmanager.start()
    cluster.wait(alertmanager.alerts, what="the alert sent anew to a restarted Alertmanager")
