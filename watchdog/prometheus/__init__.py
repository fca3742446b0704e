"""Prometheus and what speaks its query API: Thanos, Mimir, VictoriaMetrics.

http      one form posted, one answer read: TLS, credentials, size
client    one question within one deadline: repetitions, typed series, clocks, and why an answer cannot be used
signals   the questions of the judge: rows of counters at steps of the grid
"""

from watchdog.prometheus.answers import Series
from watchdog.prometheus.client import PrometheusClient, connect
from watchdog.prometheus.http import HttpAnswer, Send, Unreachable
from watchdog.prometheus.signals import PrometheusSignals

__all__ = ["HttpAnswer", "PrometheusClient", "PrometheusSignals", "Send", "Series", "Unreachable", "connect"]
