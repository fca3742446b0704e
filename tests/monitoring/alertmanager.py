"""A real Alertmanager with the route that the documentation recommends, at the pace of tests."""

import datetime as dt
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.controlplane.plane import Json, free_ports
from tests.monitoring.server import Server


class AlertmanagerServer(Server):
    """One Alertmanager; alerts with the label `rollback_watchdog="true"` go to the webhooks.

    Args:
        directory: for its configuration, data and log; each peer has its own.
        webhooks: URLs that are told.
        token_file: file with the bearer token that they get.
        group_interval: how often a group may be told of, and how long a delivery is tried.
        clustered: whether it gossips, with `peers`.
        peers: clustered ones that run already.
    """

    program = "alertmanager"

    def __init__(
        self,
        directory: Path,
        *,
        webhooks: Sequence[str] = (),
        token_file: Path | None = None,
        group_interval: str = "1s",
        clustered: bool = False,
        peers: Iterable["AlertmanagerServer"] = (),
    ) -> None:
        super().__init__(directory)
        self.gossip = f"127.0.0.1:{free_ports(1)[0]}" if clustered else ""
        self._peers = [peer.gossip for peer in peers]
        self._group_interval = group_interval
        self._configure(webhooks, token_file)

    def arguments(self) -> list[str]:
        """The command line: peers wait for each other for a second instead of 15."""
        return [
            "--config.file=alertmanager.json",
            "--storage.path=data",
            f"--web.listen-address=127.0.0.1:{self._port}",
            f"--cluster.listen-address={self.gossip}",
            "--cluster.peer-timeout=1s",
            "--cluster.gossip-interval=20ms",  # a cluster has settled after 50 of them
            "--cluster.reconnect-interval=1s",
            *(f"--cluster.peer={peer}" for peer in self._peers),
        ]

    def reload(self, webhooks: Sequence[str], *, token_file: Path | None = None) -> None:
        """Tell other webhooks."""
        self._configure(webhooks, token_file)
        self.api("POST", "/-/reload")

    def post_alerts(self, alerts: Iterable[Json]) -> None:
        """Make alerts as Prometheus does: `labels` and, where wanted, `startsAt`, `endsAt` and others."""
        self.api("POST", "/api/v2/alerts", list(alerts))

    def alerts(self) -> list[Json]:
        """All alerts that it holds, silenced ones too."""
        answer: list[Json] = self.api("GET", "/api/v2/alerts")
        return answer

    def silence(self, matchers: Mapping[str, str], comment: str, *, minutes: float = 60) -> str:
        """Silence what has all of these labels; a value that begins with `~` is a regular expression. Return its id."""
        now = dt.datetime.now(dt.UTC)
        body = {
            "matchers": [
                {"name": name, "value": value.removeprefix("~"), "isRegex": value.startswith("~"), "isEqual": True}
                for name, value in matchers.items()
            ],
            "startsAt": now.isoformat(),
            "endsAt": (now + dt.timedelta(minutes=minutes)).isoformat(),
            "createdBy": "tests",
            "comment": comment,
        }
        return str(self.api("POST", "/api/v2/silences", body)["silenceID"])

    def expire(self, silence: str) -> None:
        """End a silence."""
        self.api("DELETE", f"/api/v2/silence/{silence}")

    def _configure(self, webhooks: Sequence[str], token_file: Path | None) -> None:
        credentials = {"authorization": {"credentials_file": str(token_file)}} if token_file else {}
        hooks = [{"url": url, "http_config": {"follow_redirects": False, **credentials}} for url in webhooks]
        route = {
            "matchers": ['rollback_watchdog="true"'],
            "receiver": "rollback-watchdog",
            "group_by": ["alertname", "namespace", "deployment"],
            "group_wait": "0s",
            "group_interval": self._group_interval,
            "repeat_interval": "5m",
            "continue": True,
        }
        config = {
            "route": {"receiver": "people", "routes": [route]},
            "receivers": [{"name": "people"}, {"name": "rollback-watchdog", "webhook_configs": hooks}],
        }
        (self._dir / "alertmanager.json").write_text(json.dumps(config))  # JSON is YAML
