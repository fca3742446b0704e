"""The service `rollback-watchdog run`, as a process of its own under its own ServiceAccount's token."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import yaml

from tests.controlplane.cluster import TIMEOUT_S, Cluster
from tests.controlplane.plane import _DIE_WITH_PARENT as DIE_WITH_PARENT
from tests.controlplane.plane import ControlPlane, free_ports

_DEPLOY = Path(__file__).parents[2] / "deploy"

TOKEN = "alerts-token"
API_TOKEN = "api-token"

# Every duration in short: step and scrape 1 s. Limits are off unless a test sets them.
SETTINGS = """
[prometheus]
url = "{prometheus}"
step = "1s"
delay = "1s"
timeout = "3s"
[alertmanager]
urls = {alertmanagers}
resync = "{resync}"
timeout = "2s"
[slack]
channel = "{channel}"
api_url = "{slack}"
[server]
listen = "127.0.0.1:{port}"
metrics_listen = "127.0.0.1:{metrics}"
alerts_token_files = ["{directory}/alerts-token"]
api_token_files = ["{directory}/api-token"]
[limits]
{limits}
[records]
namespace = "{records}"
[rollback]
timeout = "20s"
[log]
format = "json"
"""
NO_LIMITS = 'budget = 0\ncool_down = "0s"\nbreaker = 0\nbreaker_all = 0\nrecovery = "12s"'

POLICY = """
[[policies]]
name = "{name}"
namespaces = ["{namespace}"]
mode = "{mode}"
rule = "{rule}"
grace = "1s"
bake = "{bake}"
{more}
[policies.threshold]
window = "3s"
consecutive = {consecutive}
{signal}
{after}
"""
SIGNAL = """
[policies.signals.errors]
bad = "agent_errors_total"
total = "agent_requests_total"
"""


def policy(
    namespace: str,
    *,
    more: str = "",
    after: str = "",
    mode: str = "enforce",
    bake: str = "10s",
    signal: str = SIGNAL,
    name: str = "",
    consecutive: int = 2,
    rule: str = "threshold",
) -> str:
    """One policy in short time: `more` goes into its table, `after` behind its tables."""
    return POLICY.format(
        name=name or namespace,
        namespace=namespace,
        mode=mode,
        bake=bake,
        more=more,
        after=after,
        signal=signal,
        consecutive=consecutive,
        rule=rule,
    )


class Service:
    """One process of the service; a context manager.

    Args:
        directory: for its configuration, tokens and log.
        kubeconfig: whose account.
        policies: texts of `policy`.
        prometheus: URL.
        records: namespace of its records.
        alertmanagers: URLs.
        slack: base URL of Slack's API; empty tells nobody.
        limits: the table `[limits]`.
        resync: how often the Alertmanagers are asked for what fires.
    """

    def __init__(
        self,
        directory: Path,
        *,
        kubeconfig: Path,
        policies: list[str],
        prometheus: str,
        records: str,
        alertmanagers: tuple[str, ...] = (),
        slack: str = "",
        limits: str = NO_LIMITS,
        resync: str = "1s",
    ) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.kubeconfig = kubeconfig
        self.port, self.metrics_port = free_ports(2)
        (directory / "alerts-token").write_text(TOKEN)
        (directory / "api-token").write_text(API_TOKEN)
        text = SETTINGS.format(
            prometheus=prometheus,
            alertmanagers=json.dumps(list(alertmanagers)),
            channel="#deploys" if slack else "",
            slack=slack or "https://slack.invalid/api/",
            port=self.port,
            metrics=self.metrics_port,
            directory=directory,
            limits=limits,
            resync=resync,
            records=records,
        )
        (directory / "config.toml").write_text(text + "".join(policies))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Of the API."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, *, environment: Mapping[str, str] | None = None, wait: bool = True) -> None:
        """Start it and wait until it takes alerts, or do not wait."""
        code = "from watchdog.cli import main; main()"
        arguments = ["run", f"--config={self.directory}/config.toml", f"--kubeconfig={self.kubeconfig}"]
        command = [sys.executable, "-c", DIE_WITH_PARENT, str(os.getpid()), sys.executable, "-c", code, *arguments]
        env = {**os.environ, "SLACK_BOT_TOKEN": "xoxb-test", "POD_NAME": "watchdog-0", **(environment or {})}
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(command, stderr=log, stdout=log, env=env, start_new_session=True)
        if wait:
            self.until(lambda: self.get("/readyz", metrics=True)[0] == 200, "ready")

    def stop(self) -> int:
        """End it as a kubelet does, and give its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without a word."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(how)
        return process.wait(timeout=40)

    @property
    def pid(self) -> int:
        """Its process; 0 when it does not run."""
        return self._process.pid if self._process and self.running else 0

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def cpu_s(self) -> float:
        """Seconds that it has computed so far."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def log_file(self) -> Path:
        """Its log."""
        return self.directory / "service.log"

    @property
    def log(self) -> list[dict[str, Any]]:
        """Its log lines so far."""
        lines = self.log_file.read_text().splitlines() if self.log_file.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def get(self, path: str, *, metrics: bool = False, token: str = API_TOKEN) -> tuple[int, Any]:
        """GET, as status and body."""
        return self._request("GET", path, None, metrics=metrics, token=token)

    def post(self, path: str, body: Any, *, token: str = API_TOKEN) -> tuple[int, Any]:
        """POST JSON, as status and body."""
        return self._request("POST", path, body, metrics=False, token=token)

    def metric(self, name: str) -> float:
        """One sample of /metrics, by its name with labels; 0 where there is none."""
        for line in str(self.get("/metrics", metrics=True)[1]).splitlines():
            if line.startswith(f"rollback_watchdog_{name} "):
                return float(line.rpartition(" ")[2])
        return 0.0

    def _request(self, method: str, path: str, body: Any, *, metrics: bool, token: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port if metrics else self.port, timeout=60)
        try:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read().decode()
            try:
                return response.status, json.loads(text)
            except ValueError:
                return response.status, text
        except OSError:
            return 0, None
        finally:
            connection.close()

    def until(self, condition: Callable[[], object], what: str, timeout_s: float = TIMEOUT_S) -> None:
        """Ask every 50 ms until it is true."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self._process and self._process.poll() is not None:
                raise AssertionError(f"the service ended with {self._process.returncode}: {self.log_file.read_text()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"not {what} within {timeout_s} s:\n{self.log_file.read_text()[-6000:]}")
            time.sleep(0.05)


def allow(plane: ControlPlane, namespace: str, *, records: bool = False) -> None:
    """Give the service's account its rights on the workloads of a namespace, or on the records that it keeps there."""
    directory = _DEPLOY / ("base" if records else "workload-namespace")
    for kind in ("role", "rolebinding"):
        for document in yaml.safe_load_all((directory / f"{kind}.yaml").read_text()):
            if document["kind"] in ("Role", "RoleBinding"):
                for subject in document.get("subjects", []):
                    subject["namespace"] = "rollback-watchdog"
                Cluster(plane, namespace).create(f"{document['kind'].lower()}s", document)
