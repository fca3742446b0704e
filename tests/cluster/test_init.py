"""`init` and `check --online` on a real control plane, with a real Prometheus that scrapes the pods."""

import re
import tomllib
from pathlib import Path

from tests.cluster.command import Command, Done
from tests.controlplane.cluster import Cluster
from tests.monitoring.prometheus import PrometheusServer
from watchdog.objects import WorkloadRef


def test_what_init_proposes_passes_check_and_sees_the_pods(
    cluster: Cluster, web: WorkloadRef, watchdog: Command, prometheus: PrometheusServer, tmp_path: Path
) -> None:
    for name, replicas in (("web", 3), ("web-canary", 1)):
        annotations = {"sim/rps": "50", "sim/errors": "0.1"}
        cluster.create_deployment(name, replicas=replicas, template_annotations=annotations)
        cluster.wait_complete(name)
    seen = f'count(agent_requests_total{{namespace="{cluster.namespace}"}} offset 4s) == 4'
    cluster.wait(lambda: prometheus.query(seen), what="four pods with some samples")

    done = watchdog("init", str(web), "--prometheus", prometheus.url)
    assert done.code == 0, done
    proposed = tomllib.loads(done.out)
    (policy,) = proposed["policies"]
    assert proposed["prometheus"] == {"url": prometheus.url, "step": "1s"}
    assert (policy["stable"], policy["candidate"], policy["mode"]) == ("web", "web-canary", "observe")
    assert policy["signals"] == {"errors": {"bad": "agent_errors_total", "total": "agent_requests_total"}}
    assert "# the label code of http_requests_total tells what failed; seen: 200, 500" in done.out.replace(
        "or, less usual: ", ""
    )

    config = tmp_path / "config.toml"
    config.write_text(done.out)
    assert watchdog("check", "--config", str(config)).code == 0

    def all_seen() -> Done | None:  # on a busy machine a scrape may come late
        done = watchdog("check", "--online", "--config", str(config))
        assert done.code == 0, done
        return done if "4/4 export total" in done.out else None

    online = cluster.wait(all_seen, what="samples of all four pods")
    lines = online.out.splitlines()
    line = next(line for line in lines if line.startswith("web: "))
    share = r"\((9\.\d|10) %\)"  # of 0.1; counters are whole numbers
    numbers = rf"3 stable \+ 1 canary pods, 4/4 export total, bad last seen now {share}, phi 3, scrape 1 s, .* 8.3 %.*"
    assert re.fullmatch(f"web: {numbers}", line), online
    assert f"  watches {web}, {web}-canary" in lines
    assert "PROBLEM" not in online.out
    assert "NO" not in online.out.split()


def test_a_policy_that_matches_nothing_is_a_problem_that_check_names(
    cluster: Cluster, watchdog: Command, prometheus: PrometheusServer, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        f'[[policies]]\nname = "web"\nnamespaces = ["{cluster.namespace}"]\n'
        f'[policies.signals.errors]\nbad = "b"\ntotal = "t"\n[prometheus]\nurl = "{prometheus.url}"\n'
    )
    online = watchdog("check", "--online", "--config", str(config))
    assert online.code == 0, online
    assert f"PROBLEM: policy 'web' matches nothing in {cluster.namespace}" in online.out
