"""The manifests agree with the program, with each other, and with what reads them. Clusters are for tests/cluster."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.test_metrics import families, used
from watchdog import __version__, config
from watchdog.config import Config, Records
from watchdog.model import Mode

Json = dict[str, Any]

DEPLOY = Path(__file__).parents[2] / "deploy"
BASE = DEPLOY / "base"
APP = "app.kubernetes.io/name"
RULES = DEPLOY / "prometheus-rules" / "prometheusrule.yaml"
RECEIVER = DEPLOY / "alertmanager" / "alertmanager.yaml"


def document(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.fixture
def settings() -> Config:
    return config.load(BASE / "config.toml")


@pytest.fixture
def template() -> Json:
    found: Json = document(BASE / "deployment.yaml")["spec"]["template"]
    return found


@pytest.fixture
def container(template: Json) -> Json:
    (found,) = template["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def run(program: str, *arguments: str, cwd: Path | None = None) -> str:
    """Run a program of a monitoring package; without it the test is skipped, or fails where nothing may be."""
    if not shutil.which(program) and os.environ.get("WATCHDOG_TESTS_REQUIRE_ALL") != "1":
        pytest.skip(f"NO CHECK OF MANIFESTS without {program}: install your distribution's packages of Prometheus")
    done = subprocess.run([program, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# -- the service -------------------------------------------------------------------------------------------------------


def test_the_configuration_that_is_shipped_is_good_and_changes_nothing(settings: Config) -> None:
    assert settings.policies
    assert {policy.mode for policy in settings.policies} == {Mode.OBSERVE}
    assert {name for policy in settings.policies for name in policy.namespaces} == {
        document(BASE / "kustomization.yaml")["namespace"]
    }, "the base has no rights elsewhere"


def test_the_image_is_the_one_of_this_version_and_names_no_registry(container: Json) -> None:
    assert container["image"] == f"rollback-watchdog:{__version__}"


def test_the_configuration_is_mounted_where_it_is_looked_for(template: Json, container: Json) -> None:
    mounts = {mount["name"]: Path(mount["mountPath"]) for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    (generated,) = document(BASE / "kustomization.yaml")["configMapGenerator"]
    assert volumes["config"]["configMap"]["name"] == generated["name"]
    assert {mounts["config"] / name for name in generated["files"]} <= set(config.PLACES)


def test_the_secrets_are_mounted_where_the_configuration_says_and_may_be_missing(
    template: Json, container: Json, settings: Config
) -> None:
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    secrets = {volume["name"]: volume["secret"] for volume in template["spec"]["volumes"] if "secret" in volume}
    assert {f"{mounts[name]}/token" for name in secrets} == {
        settings.slack.token_file,
        *settings.server.alerts_token_files,
    }
    assert all(secret["optional"] for secret in secrets.values())
    parents = {Path(path).parent for path in mounts.values()}
    assert not parents & {Path(path) for path in mounts.values()}, "a mount in a read-only mount cannot be made"


def test_the_ports_are_the_programs_own_everywhere(container: Json, settings: Config) -> None:
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    listening = {"api": settings.server.listen, "metrics": settings.server.metrics_listen}
    assert {name: f"0.0.0.0:{port}" for name, port in ports.items()} == listening
    service = document(BASE / "service.yaml")["spec"]
    assert {port["name"]: port["port"] for port in service["ports"]} == ports
    assert all(port["targetPort"] == port["name"] for port in service["ports"])
    policy = document(BASE / "networkpolicy.yaml")["spec"]
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == set(ports)
    (endpoint,) = document(DEPLOY / "service-monitor" / "servicemonitor.yaml")["spec"]["endpoints"]
    assert endpoint["port"] in ports
    probes = [container["livenessProbe"]["httpGet"], container["readinessProbe"]["httpGet"]]
    assert probes == [{"path": "/healthz", "port": "metrics"}, {"path": "/readyz", "port": "metrics"}]


def test_prometheus_and_alertmanager_of_the_configuration_are_let_through(settings: Config) -> None:
    policy = document(BASE / "networkpolicy.yaml")["spec"]
    ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    for url in (settings.prometheus.url, *settings.alertmanager.urls, "https://slack.example:443"):
        assert int(url.rpartition(":")[2]) in ports


def test_everything_selects_the_pods_of_the_deployment(template: Json) -> None:
    labels = {APP: "rollback-watchdog"}
    assert template["metadata"]["labels"] == labels
    assert document(BASE / "deployment.yaml")["spec"]["selector"]["matchLabels"] == labels
    assert document(BASE / "service.yaml")["spec"]["selector"] == labels
    assert document(BASE / "poddisruptionbudget.yaml")["spec"]["selector"]["matchLabels"] == labels
    assert document(BASE / "networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"] == labels
    monitor = document(DEPLOY / "service-monitor" / "servicemonitor.yaml")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= document(BASE / "service.yaml")["metadata"]["labels"].items()


def test_a_node_can_be_drained() -> None:
    replicas = document(BASE / "deployment.yaml")["spec"]["replicas"]
    assert replicas == document(BASE / "poddisruptionbudget.yaml")["spec"]["maxUnavailable"] == 1


def test_the_records_may_be_kept_where_they_are_by_default() -> None:
    role = next(yaml.safe_load_all((BASE / "role.yaml").read_text()))
    assert role["rules"] == [
        {
            "apiGroups": [""],
            "resources": [f"{Records().kind}s"],
            "verbs": ["get", "list", "create", "patch", "delete"],
        }
    ]


# -- alerts about the service ------------------------------------------------------------------------------------------


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """The rules as a plain Prometheus takes them, made by the line that the file tells."""
    line = next(line for line in RULES.read_text().splitlines() if "sed " in line).removeprefix("#   ")
    shutil.copy(RULES, tmp_path)
    subprocess.run(["sh", "-c", line], cwd=tmp_path, check=True)
    return tmp_path / line.rpartition(" ")[2]


def alerts() -> Iterator[Json]:
    for group in document(RULES)["spec"]["groups"]:
        yield from group["rules"]


def test_prometheus_takes_the_rules(rules: Path) -> None:
    assert f"{len(list(alerts()))} rules found" in run("promtool", "check", "rules", str(rules))


def test_the_rules_ask_for_metrics_that_there_are() -> None:
    names = {sample.name for family in families(used()).values() for sample in family.samples}
    words = "".join(character if character.isalnum() or character == "_" else " " for character in RULES.read_text())
    asked = {word for word in words.split() if word.startswith("rollback_watchdog_")}
    assert asked
    assert asked <= names


def test_no_rule_has_the_name_by_which_the_watchdog_is_silenced() -> None:
    assert "RollbackWatchdog" not in {rule["alert"] for rule in alerts()}


@pytest.mark.parametrize(
    ("alert", "minute", "series", "fires"),
    [
        ("RollbackWatchdogDown", 6, {}, True),
        ("RollbackWatchdogDown", 6, {"heartbeat_timestamp_seconds": "0+60x10"}, False),
        ("RollbackWatchdogStuck", 6, {"heartbeat_timestamp_seconds": "0+60x10"}, False),
        ("RollbackWatchdogStuck", 9, {"heartbeat_timestamp_seconds": "0+60x3 180x10"}, True),
        ("RollbackWatchdogBlind", 12, {'blind{reason="stale"}': "2x15"}, True),
        ("RollbackWatchdogBlind", 12, {'blind{reason="stale"}': "2x5 0x10"}, False),
        ("RollbackWatchdogBlind", 12, {'blind{reason="pending"}': "2x15"}, False),
        (
            "RollbackWatchdogQueriesFailing",
            20,
            {'queries_total{outcome="good"}': "0+1x30", 'queries_total{outcome="unreachable"}': "0+4x30"},
            True,
        ),
        (
            "RollbackWatchdogQueriesFailing",
            20,
            {'queries_total{outcome="good"}': "0+4x30", 'queries_total{outcome="unreachable"}': "0+1x30"},
            False,
        ),
        ("RollbackWatchdogActionFailed", 25, {'actions_total{outcome="failed"}': "_x20 1x10"}, True),
        ("RollbackWatchdogActionFailed", 45, {'actions_total{outcome="failed"}': "_x20 1x30"}, False),
        ("RollbackWatchdogActionFailed", 25, {'actions_total{outcome="ineffective"}': "1x20 2x10"}, True),
        ("RollbackWatchdogActionFailed", 25, {'actions_total{outcome="rolled-back"}': "_x20 1x10"}, False),
        ("RollbackWatchdogNotificationsFailing", 25, {'notifications_total{outcome="failed"}': "0x20 1x10"}, True),
        ("RollbackWatchdogNotificationsFailing", 25, {'notifications_total{outcome="sent"}': "0x20 1x10"}, False),
    ],
)
def test_a_rule_speaks_when_it_should(
    rules: Path, alert: str, minute: int, series: dict[str, str], *, fires: bool
) -> None:
    inputs = [{"series": f"rollback_watchdog_{name}", "values": values} for name, values in series.items()]
    seen = {"eval_time": f"{minute}m", "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})'}
    expected = [{"labels": "{}", "value": 1}] if fires else []
    case = {"interval": "1m", "input_series": inputs, "promql_expr_test": [{**seen, "exp_samples": expected}]}
    test = rules.with_name("test.yaml")
    test.write_text(yaml.safe_dump({"rule_files": [rules.name], "evaluation_interval": "1m", "tests": [case]}))
    run("promtool", "test", "rules", test.name, cwd=rules.parent)


# -- alerts for the service --------------------------------------------------------------------------------------------


def test_alertmanager_takes_the_receiver() -> None:
    run("amtool", "check-config", str(RECEIVER))


def test_an_alert_for_the_watchdog_reaches_people_too_and_no_other_reaches_the_watchdog() -> None:
    def receivers(*labels: str) -> str:
        return run("amtool", "config", "routes", "test", f"--config.file={RECEIVER}", *labels).strip()

    assert receivers("alertname=High", 'rollback_watchdog="true"', "severity=critical") == "rollback-watchdog,people"
    assert receivers("alertname=High", "severity=critical") == "people"


def test_the_receiver_calls_the_service_as_it_is_deployed() -> None:
    (hook,) = document(RECEIVER)["receivers"][-1]["webhook_configs"]
    service = document(BASE / "service.yaml")
    namespace = document(BASE / "kustomization.yaml")["namespace"]
    port = next(port["port"] for port in service["spec"]["ports"] if port["name"] == "api")
    assert hook["url"] == f"http://{service['metadata']['name']}.{namespace}:{port}/alerts"
