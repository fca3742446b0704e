"""`once` on a real control plane, with a real Prometheus that scrapes the pods."""

import re
from pathlib import Path

import pytest

from tests.cluster.command import Command, Done
from tests.controlplane.cluster import Cluster
from tests.monitoring.prometheus import PrometheusServer
from watchdog.objects import WorkloadRef

SELECTORS = ("--bad", "agent_errors_total", "--total", "agent_requests_total")


class Shop:
    """A workload under traffic, and the command that looks at it."""

    def __init__(self, cluster: Cluster, watchdog: Command, prometheus: PrometheusServer, config: Path) -> None:
        self.cluster = cluster
        self._watchdog = watchdog
        self._prometheus = prometheus
        self._config = config

    def roll_out(self, *, rps: str = "50", errors: str) -> None:
        """Bring v1 without failures, then v2 with such a share of them, and wait until its requests are seen."""
        self.cluster.create_deployment("web", image="v1", template_annotations={"sim/rps": rps})
        self.cluster.wait_complete("web")
        self.cluster.set_image("web", "v2", template_annotations={"sim/rps": rps, "sim/errors": errors})
        self.cluster.wait_complete("web")
        live = self.cluster.replicasets("web")[-1]["metadata"]["name"]
        matchers = f'namespace="{self.cluster.namespace}",pod=~"{live}-.+"'
        enough = f"sum(agent_requests_total{{{matchers}}} offset 2s) > 3 * {rps}"
        self.cluster.wait(lambda: self._prometheus.query(enough), what="traffic of v2")

    def once(self, *options: str) -> Done:
        """Run the command with a window of a few seconds."""
        about = ("once", f"{self.cluster.namespace}/web", "--config", str(self._config), "--window=4s")
        return self._watchdog(*about, *options)

    @property
    def image(self) -> str:
        """What the Deployment asks for."""
        template = self.cluster.get("deployments", "web")["spec"]["template"]
        image: str = template["spec"]["containers"][0]["image"]
        return image


@pytest.fixture
def shop(cluster: Cluster, web: WorkloadRef, watchdog: Command, prometheus: PrometheusServer, tmp_path: Path) -> Shop:
    config = tmp_path / "config.toml"
    config.write_text(f'[prometheus]\nurl = "{prometheus.url}"\nstep = "1s"\ndelay = "1s"\n')
    return Shop(cluster, watchdog, prometheus, config)


def test_a_healthy_version_is_left_alone(shop: Shop) -> None:
    shop.roll_out(errors="0.01")
    done = shop.once(*SELECTORS)
    assert done.code == 0, done
    assert re.fullmatch(r"Current error rate: 0\.0[01]\d\d\nError rate is within acceptable range\.\n", done.out), done
    assert shop.image == "v2"


def test_a_bad_version_is_undone(shop: Shop) -> None:
    shop.roll_out(errors="0.3")
    done = shop.once(*SELECTORS)
    assert done.code == 1, done
    lines = done.out.splitlines()
    assert float(lines[0].removeprefix("Current error rate: ")) == pytest.approx(0.3, abs=0.02)
    assert lines[1:] == [f"Rolling back web in {shop.cluster.namespace}...", "Rollback complete."]
    assert shop.image == "v1"
    assert shop.cluster.wait_complete("web")


def test_a_dry_run_lets_a_bad_version_be(shop: Shop) -> None:
    shop.roll_out(errors="0.3")
    done = shop.once(*SELECTORS, "--dry-run")
    assert done.code == 1, done
    assert done.out.splitlines()[-1] == "Dry run: nothing was changed."
    assert shop.image == "v2"


def test_selectors_that_find_nothing_are_unknown(shop: Shop) -> None:
    shop.roll_out(errors="0.3")
    done = shop.once("--bad=nobody_errors_total", "--total=nobody_requests_total")
    assert (done.code, done.out) == (3, "Current error rate: unknown\n"), done
    assert "Error: stale: " in done.err
    assert shop.image == "v2"
