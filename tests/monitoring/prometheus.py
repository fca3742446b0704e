"""A real Prometheus that scrapes the exporter's pods and evaluates a test's alert rules."""

import json
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from tests.controlplane.plane import Json
from tests.monitoring.exporter import SHARDS
from tests.monitoring.server import Server


class Exposed(Protocol):
    """Where pods are found: their discovery at /sd, or all of them behind this one address."""

    @property
    def address(self) -> str:
        """HOST:PORT."""
        ...


class PrometheusServer(Server):
    """One Prometheus.

    Prometheus takes up new targets every five seconds, which is little in life and much where a step is a second. So
    pods stand in eight targets that are always there, and a new one is seen at the next scrape. With `http_sd` each
    pod is a target of its own: with its own `up`, and late. After a start the first scrape takes five seconds as well.

    Args:
        directory: for its configuration, data and log.
        exporter: whose pods it scrapes.
        scrape_interval: how often.
        http_sd: whether pods are discovered.
        rules: alert rules, as in a rule file; evaluated every second.
        alertmanagers: URLs of those that are told; `reload` changes both.
    """

    program = "prometheus"

    def __init__(
        self,
        directory: Path,
        *,
        exporter: Exposed,
        scrape_interval: str = "1s",
        http_sd: bool = False,
        rules: Sequence[Json] = (),
        alertmanagers: Sequence[str] = (),
    ) -> None:
        super().__init__(directory)
        self._interval = scrape_interval
        if http_sd:
            self._job: Json = {"http_sd_configs": [{"url": f"http://{exporter.address}/sd", "refresh_interval": "1s"}]}
        else:
            shards = [
                {"targets": [exporter.address], "labels": {"__metrics_path__": f"/shards/{shard}"}}
                for shard in range(SHARDS)
            ]
            self._job = {"static_configs": shards, "honor_labels": True}
        self._configure(rules, alertmanagers)

    def arguments(self) -> list[str]:
        """The command line: alerts are sent anew every second, so a restarted Alertmanager soon knows them."""
        return [
            "--config.file=prometheus.json",
            "--storage.tsdb.path=data",
            f"--web.listen-address=127.0.0.1:{self._port}",
            "--web.enable-lifecycle",
            "--rules.alert.resend-delay=1s",
            "--log.level=warn",
        ]

    def reload(self, rules: Sequence[Json] = (), *, alertmanagers: Sequence[str] = ()) -> None:
        """Replace the rules and the Alertmanagers."""
        self._configure(rules, alertmanagers)
        self.api("POST", "/-/reload")

    def query(self, expr: str, *, at: float | None = None) -> list[Json]:
        """Evaluate an expression now or then; return the samples of the vector."""
        parameters = {"query": expr} | ({} if at is None else {"time": str(at)})
        answer: list[Json] = self.api("GET", f"/api/v1/query?{urllib.parse.urlencode(parameters)}")["data"]["result"]
        return answer

    def _configure(self, rules: Sequence[Json], alertmanagers: Sequence[str]) -> None:
        targets = [url.removeprefix("http://") for url in alertmanagers]
        config: dict[str, Any] = {
            "global": {
                "scrape_interval": self._interval,
                "scrape_timeout": self._interval,
                "evaluation_interval": "1s",
            },
            "rule_files": ["rules.json"],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": targets}]}]},
            "scrape_configs": [{"job_name": "pods", "params": {"by": [str(self._port)]}, **self._job}],
        }
        groups = [{"name": "test", "rules": list(rules)}]
        (self._dir / "rules.json").write_text(json.dumps({"groups": groups}))  # JSON is YAML
        (self._dir / "prometheus.json").write_text(json.dumps(config))


def agent_errors(namespace: str, deployment: str, *, above: float = 0.05, hold: str = "0s") -> Json:
    """The alert rule AgentErrors for one Deployment, with the labels by which it is routed and attributed."""
    pods = f'namespace="{namespace}",pod=~"{deployment}-.+"'
    bad, total = (f"sum(rate({metric}{{{pods}}}[5s]))" for metric in ("agent_errors_total", "agent_requests_total"))
    return {
        "alert": "AgentErrors",
        "expr": f"{bad} / {total} > {above}",
        "for": hold,
        "labels": {"namespace": namespace, "deployment": deployment, "rollback_watchdog": "true"},
    }
