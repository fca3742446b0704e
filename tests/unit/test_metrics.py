"""The service's metrics, as Prometheus reads them."""

import os
import shutil
import subprocess
import time

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from watchdog.judge.blocks import BlindReason, Status
from watchdog.metrics import PREFIX, AlertOutcome, Channel, Delivery, Metrics
from watchdog.model import Action, Guard, Outcome

# As docs/metrics.md has them.
AGREED = {
    "verdicts_total": {"policy", "verdict"},
    "actions_total": {"action", "outcome", "cause"},
    "refusals_total": {"guard"},
    "faults_total": {"part"},
    "alert_to_write_seconds": set(),
    "sample_to_write_seconds": set(),
    "poll_seconds": set(),
    "queries_total": {"outcome"},
    "alerts_total": {"outcome"},
    "notifications_total": {"channel", "outcome"},
    "blind": {"reason"},
    "leader": set(),
    "heartbeat_timestamp_seconds": set(),
    "rollouts_watched": set(),
    "evidence_log": {"namespace", "workload", "signal", "control"},
    "evidence_threshold_log": {"namespace", "workload", "signal", "control"},
}


def families(metrics: Metrics) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(metrics.exposition()[0].decode())}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    samples = [sample for family in families(metrics).values() for sample in family.samples]
    return next((each.value for each in samples if (each.name, each.labels) == (f"{PREFIX}_{name}", labels)), None)


def used() -> Metrics:
    """Metrics after everything has happened once."""
    metrics = Metrics()
    metrics.verdict("web", Status.BREACH)
    metrics.action(Action.UNDO, Outcome.ROLLED_BACK, cause="threshold")
    metrics.refusal(Guard.PAUSED)
    metrics.query()
    metrics.query(BlindReason.PARTIAL)
    metrics.alert(AlertOutcome.AMBIGUOUS)
    metrics.notification(Channel.SLACK, Delivery.FAILED)
    metrics.alert_to_write_seconds.observe(0.7)
    metrics.sample_to_write_seconds.observe(7)
    with metrics.poll_seconds.time():
        pass
    metrics.evidence({("shop", "web", "errors", "concurrent"): (5.4, 5.3)})
    metrics.beat()
    return metrics


def test_the_metrics_are_the_agreed_ones_with_the_agreed_labels() -> None:
    found = {}
    for family in families(used()).values():
        for sample in family.samples:
            if sample.name.startswith(PREFIX) and not sample.name.endswith(("_bucket", "_sum")):
                found[sample.name.removeprefix(f"{PREFIX}_").removesuffix("_count")] = set(sample.labels)
    assert found == AGREED


def test_what_happened_is_counted() -> None:
    metrics = used()
    assert value(metrics, "verdicts_total", policy="web", verdict="breach") == 1
    assert value(metrics, "actions_total", action="undo", outcome="rolled-back", cause="threshold") == 1
    assert value(metrics, "refusals_total", guard="paused") == 1
    assert value(metrics, "queries_total", outcome="good") == 1
    assert value(metrics, "queries_total", outcome="partial") == 1
    assert value(metrics, "alerts_total", outcome="ambiguous") == 1
    assert value(metrics, "notifications_total", channel="slack", outcome="failed") == 1
    assert value(metrics, "alert_to_write_seconds_bucket", le="0.5") == 0
    assert value(metrics, "alert_to_write_seconds_bucket", le="1.0") == 1
    assert value(metrics, "sample_to_write_seconds_sum") == 7
    assert value(metrics, "poll_seconds_count") == 1


def test_the_rollouts_under_watch_are_those_of_now() -> None:
    metrics = Metrics()
    metrics.watching([None, BlindReason.STALE, BlindReason.STALE, BlindReason.SKEW])
    metrics.watching([None, None, BlindReason.STALE])
    assert value(metrics, "rollouts_watched") == 3
    assert value(metrics, "blind", reason="stale") == 1
    assert value(metrics, "blind", reason="skew") == 0


def test_a_heartbeat_is_the_time_of_the_last_beat() -> None:
    metrics = Metrics()
    assert value(metrics, "heartbeat_timestamp_seconds") == 0
    metrics.beat()
    assert value(metrics, "heartbeat_timestamp_seconds") == pytest.approx(time.time(), abs=60)


def test_what_an_alert_waits_for_is_there_before_it_happens() -> None:
    metrics = Metrics()
    assert value(metrics, "leader") == 1
    for guard in Guard:
        assert value(metrics, "refusals_total", guard=guard) == 0
    assert value(metrics, "notifications_total", channel="slack", outcome="failed") == 0
    assert value(metrics, "queries_total", outcome="unreachable") == 0


def test_the_memory_of_the_process_is_told_and_two_services_share_nothing() -> None:
    assert families(Metrics())["process_resident_memory_bytes"].samples[0].value > 1e6
    used()
    assert value(Metrics(), "queries_total", outcome="good") == 0


def test_prometheus_finds_nothing_to_say_against_them() -> None:
    if not shutil.which("promtool") and os.environ.get("WATCHDOG_TESTS_REQUIRE_ALL") != "1":
        pytest.skip("NO LINT OF METRICS without promtool: install your distribution's package prometheus")
    text, content_type = used().exposition()
    assert content_type.startswith("text/plain")
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
