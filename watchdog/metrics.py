"""The service's own metrics, and the only place that makes collectors.

Every label is a policy's, a signal's or a watched workload's name, or a member of a closed set: never an alert's
label or a pod's name.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from watchdog.judge.blocks import BlindReason, Status
from watchdog.model import Action, Guard, Outcome

PREFIX = "rollback_watchdog"

# A time of creation beside each counter would double their number, and nothing here reads it.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


class AlertOutcome(StrEnum):
    """What became of an alert that came in; `unmatched` is about no workload under watch."""

    ATTRIBUTED = "attributed"
    BEFORE_ROLLOUT = "before-rollout"
    RESOLVED = "resolved"
    UNMATCHED = "unmatched"
    AMBIGUOUS = "ambiguous"


class Delivery(StrEnum):
    """What became of a message to people."""

    SENT = "sent"
    FAILED = "failed"


class Channel(StrEnum):
    """Where people are told."""

    SLACK = "slack"
    EVENT = "event"


class Part(StrEnum):
    """Where a fault arose that nobody foresaw."""

    WATCH = "watch"
    ROLLOUTS = "rollouts"
    POLL = "poll"
    JUDGE = "judge"
    INCIDENT = "incident"
    ALERTS = "alerts"
    RECORDS = "records"
    NOTIFY = "notify"


class Metrics:
    """All metrics, in a registry of their own.

    Attributes:
        alert_to_write_seconds: from an alert's arrival to the accepted write of the action; call `observe`.
        sample_to_write_seconds: from the newest sample that decided to that write; call `observe`.
        poll_seconds: one step of polling, all queries; call `observe`, or `time` in a `with`.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._verdicts = self._counter("verdicts", "Verdicts, counted when they change.", "policy", "verdict")
        self._actions = self._counter("actions", "Actions that ended.", "action", "outcome", "cause")
        self._refusals = self._counter("refusals", "Actions that a guard refused.", "guard")
        self._faults = self._counter("faults", "Faults that nobody foresaw, contained where they arose.", "part")
        self._queries = self._counter("queries", "Queries to Prometheus; 'good', or why not.", "outcome")
        self._alerts = self._counter("alerts", "Alerts that came in, and what became of them.", "outcome")
        self._notifications = self._counter("notifications", "Messages to people.", "channel", "outcome")
        self.alert_to_write_seconds = self._histogram(
            "alert_to_write_seconds",
            "From the arrival of an alert to the accepted write of the action.",
            (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300),
        )
        self.sample_to_write_seconds = self._histogram(
            "sample_to_write_seconds",
            "From the newest sample that decided to the accepted write of the action.",
            (1, 2.5, 5, 7.5, 10, 15, 20, 30, 45, 60, 120, 300),
        )
        self.poll_seconds = self._histogram(
            "poll_seconds",
            "One step of polling Prometheus for all rollouts under watch.",
            (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        )
        self._blind = self._gauge("blind", "Rollouts under watch that cannot be judged now.", "reason")
        self._watched = self._gauge("rollouts_watched", "Rollouts under watch.")
        self._heartbeat = self._gauge("heartbeat_timestamp_seconds", "When the loop that judges last came round.")
        labels = ("namespace", "workload", "signal", "control")
        self._evidence = self._gauge("evidence_log", "Evidence against a rollout under watch, natural log.", *labels)
        self._bar = self._gauge("evidence_threshold_log", "The evidence at which it is a breach.", *labels)
        self._shown: set[tuple[str, str, str, str]] = set()
        self._leader = self._gauge("leader", "Whether this replica is the one that acts.")
        self._leader.set(1)
        # A counter that begins with 1 has no increase(): what alerts ask for begins with 0.
        for guard in Guard:
            self._refusals.labels(guard)
        for reason in ("good", BlindReason.UNREACHABLE):
            self._queries.labels(reason)
        for part in Part:
            self._faults.labels(part)
        for alert in AlertOutcome:
            self._alerts.labels(alert)
        for channel in Channel:
            for delivery in Delivery:
                self._notifications.labels(channel, delivery)
        self.watching(())

    def verdict(self, policy: str, word: Status) -> None:
        """Count a verdict that differs from the one before."""
        self._verdicts.labels(policy, word).inc()

    def action(self, action: Action, outcome: Outcome, *, cause: str) -> None:
        """Count an action that ended; `cause` as in `watchdog.judge.blocks.Verdict`, or `person`."""
        self._actions.labels(action, outcome, cause).inc()

    def refusal(self, guard: Guard) -> None:
        """Count an action that a guard refused."""
        self._refusals.labels(guard).inc()

    def fault(self, part: Part) -> None:
        """Count a fault that nobody foresaw."""
        self._faults.labels(part).inc()

    def query(self, blind: BlindReason | None = None) -> None:
        """Count a query to Prometheus; `blind` is why its answer cannot be used."""
        self._queries.labels(blind or "good").inc()

    def alert(self, outcome: AlertOutcome) -> None:
        """Count an alert."""
        self._alerts.labels(outcome).inc()

    def notification(self, channel: Channel, delivery: Delivery) -> None:
        """Count a message, after all of its repetitions."""
        self._notifications.labels(channel, delivery).inc()

    def watching(self, rollouts: Sequence[BlindReason | None]) -> None:
        """Say which rollouts are under watch: one entry each, the reason where it is blind now."""
        self._watched.set(len(rollouts))
        for reason in BlindReason:
            self._blind.labels(reason).set(rollouts.count(reason))

    def evidence(self, found: Mapping[tuple[str, str, str, str], tuple[float, float]]) -> None:
        """Show the evidence against every rollout under watch; what is no longer watched goes.

        Args:
            found: log evidence and its bar, by namespace, workload, signal and control.
        """
        for labels in self._shown - found.keys():
            self._evidence.remove(*labels)
            self._bar.remove(*labels)
        self._shown = set(found)
        for labels, (log_e, bar) in found.items():
            self._evidence.labels(*labels).set(log_e)
            self._bar.labels(*labels).set(bar)

    def beat(self) -> None:
        """Say that the loop that judges has come round; to be called also while nothing is under watch."""
        self._heartbeat.set_to_current_time()

    def exposition(self) -> tuple[bytes, str]:
        """Everything in Prometheus' text format, and its content type."""
        return prometheus_client.generate_latest(self._registry), prometheus_client.CONTENT_TYPE_LATEST

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(name, documentation, labels, namespace=PREFIX, registry=self._registry)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(name, documentation, labels, namespace=PREFIX, registry=self._registry)

    def _histogram(self, name: str, documentation: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, documentation, namespace=PREFIX, registry=self._registry, buckets=buckets)
