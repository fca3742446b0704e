"""The configuration file: what is read, and what is said of mistakes."""

import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from watchdog.config import (
    ENVIRONMENT,
    PLACES,
    Config,
    GitOps,
    Kubernetes,
    LogFormat,
    PauseDuration,
    Policy,
    Prometheus,
    Seconds,
    Sequential,
    Signal,
    duration,
    find,
    load,
    parse,
)
from watchdog.errors import ConfigError
from watchdog.model import Action, Mode
from watchdog.objects import WorkloadRef

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"
WEB = 'name = "web"\nnamespaces = ["shop"]\n'


def policies(*tables: str) -> str:
    return "\n".join(f"[[policies]]\n{table}" for table in tables)


def wrong(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return caught.value


# -- the example -------------------------------------------------------------------------------------------------------


def example() -> str:
    """The example file with its commented policy in force: `#` before a setting, `# ` before prose."""
    return re.sub(r"^#(?=[^ \n])", "", EXAMPLE.read_text(), flags=re.MULTILINE)


def sections(kind: type[msgspec.Struct], table: Any, path: str = "") -> list[tuple[str, type[msgspec.Struct], Any]]:
    """Every table that there can be, each with its struct and with what the example says of it."""
    found: list[tuple[str, type[msgspec.Struct], Any]] = [(path, kind, table)]
    for field in msgspec.structs.fields(kind):
        inner = next((part for part in (field.type, *get_args(field.type)) if is_section(part)), None)
        if inner:
            value = table[field.name]
            if field.name == "signals":
                value = value["errors"]
            found += sections(inner, value[0] if isinstance(value, list) else value, f"{path}.{field.name}".strip("."))
    return found


def is_section(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def test_the_example_as_it_is_changes_nothing() -> None:
    assert load(EXAMPLE) == Config()


def test_the_example_shows_every_setting_and_no_other() -> None:
    shown = {path: set(table) for path, _, table in sections(Config, tomllib.loads(example()))}
    assert shown == {
        path: {field.name for field in msgspec.structs.fields(kind)}
        for path, kind, _ in sections(Config, tomllib.loads(example()))
    }


def test_the_example_shows_every_setting_with_its_default() -> None:
    config = parse(example().replace('url = ""', 'url = "http://prometheus:9090"', 1))
    there = msgspec.structs.replace(Prometheus(), url="http://prometheus:9090")
    signal = Signal(bad='http_requests_total{code=~"5.."}', total="http_requests_total")
    policy = Policy(
        name="web",
        namespaces=("shop",),
        action=Action.UNDO,
        signals={"errors": signal},
        grace=PauseDuration(30),  # these two are what the sensitivity `balanced` says at 15-s steps
        sequential=Sequential(blocks=4),
    )
    assert config == Config(prometheus=there, policies=(policy,))


def test_the_example_says_of_every_setting_what_it_is() -> None:
    settings = [line for line in example().splitlines() if re.match(r"\w+ = |\[\w+\]", line)]
    assert settings
    assert [line for line in settings if not re.search(r" # \w+", line)] == []


# -- values ------------------------------------------------------------------------------------------------------------


def test_without_a_file_all_defaults_hold() -> None:
    assert load(None) == parse("") == Config()


def test_settings_are_read() -> None:
    config = parse('kubernetes.request_timeout = "250ms"\nlog.format = "json"\n' + policies(WEB + 'gitops = "act"'))
    assert config.kubernetes == Kubernetes(request_timeout=Seconds(0.25))
    assert config.log.format is LogFormat.JSON
    assert config.policies == (Policy(name="web", namespaces=("shop",), gitops=GitOps.ACT),)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("1m30s", 90),
        ("1m 30s", 90),
        ("0.5s", 0.5),
        ("1.5h", 5400),
        ("250ms", 0.25),
        ("7d", 604800),
        ("1d2h3m4s5ms", 93784.005),
    ],
)
def test_a_duration_is_a_number_with_a_unit_or_several(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "30", "s", "-1s", "1 minute", "1e3s", "30s later", "1,5s", 5, 1.5, None, True])
def test_anything_else_is_no_duration_and_the_error_shows_one(text: object) -> None:
    with pytest.raises(ValueError, match=r'is not a duration; write .* such as "30s"'):
        duration(text)


@pytest.mark.parametrize("text", ["0s", "0m0s", "0.0h"])
def test_no_time_at_all_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="write more than 0"):
        duration(text)


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "cure"),
    [
        ("kubernets = {}", "kubernets", "did you mean 'kubernetes'?"),
        ("[kubernetes]\nrequest_timout = '1s'", "kubernetes.request_timout", "did you mean 'request_timeout'?"),
        ("[rollback]\ncolour = 1", "rollback.colour", "known here: timeout, observed_within"),
        (policies(WEB, WEB + "gitop = 'act'"), "policies[1].gitop", "did you mean 'gitops'?"),
        ("kubernetes.request_timeout = 10", "kubernetes.request_timeout", "write a number with ms, s, m, h or d"),
        ("kubernetes.request_timeout = 'soon'", "kubernetes.request_timeout", "write a number with ms, s, m, h or d"),
        ("rollback.timeout = '0s'", "rollback.timeout", "write more than 0"),
        ("kubernetes.watch_inactivity = '60s'", "kubernetes.watch_inactivity", 'write more than "60s"'),
        ("log.level = 'loud'", "log.level", "write one of debug, info, warning, error"),
        ("log.format = 3", "log.format", "write one of auto, json, text"),
        (policies(WEB + "gitops = 'fight'"), "policies[0].gitops", "write one of refuse, act"),
        ("log = 'json'", "log", "Expected a table, got a text"),
        ("policies = {}", "policies", "[[policies]]"),
        ("policies = [1]", "policies[0]", "Expected a table, got a number"),
        (policies("name = 'web'\nnamespaces = 'shop'"), "policies[0].namespaces", "Expected a list, got a text"),
        (policies("name = 'web'\nnamespaces = [1]"), "policies[0].namespaces[0]", "Expected a text, got a number"),
        (policies("name = 'web'"), "policies[0]", "write the setting `namespaces`"),
        (policies("namespaces = ['shop']"), "policies[0]", "write the setting `name`"),
        (policies("name = ''\nnamespaces = ['shop']"), "policies[0].name", "give the policy a name"),
        (policies("name = 'web'\nnamespaces = []"), "policies[0].namespaces", "name at least one namespace"),
        (policies("name = 'web'\nnamespaces = ['Shop']"), "policies[0].namespaces", "not a name that Kubernetes"),
        (policies(WEB + "workloads = ['a/b']"), "policies[0].workloads", "not a name that Kubernetes allows"),
        (policies("name = 'x'\nnamespaces = ['kube-system']"), "policies[0].namespaces", "workloads = [...]"),
        (policies(WEB, "name = 'web'\nnamespaces = ['other']"), "policies[1].name", "two policies; rename one"),
    ],
)
def test_a_mistake_is_named_by_its_place_and_its_cure(text: str, path: str, cure: str) -> None:
    error = wrong(text)
    assert error.path == path
    assert cure in error.problem
    assert str(error).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("second", "what"),
    [
        ("", "shop/*"),
        ("workloads = ['cart']", "shop/cart"),
        ("workloads = ['web', 'cart']", "shop/cart"),
    ],
)
def test_no_workload_may_match_two_policies(second: str, what: str) -> None:
    first = WEB + ("workloads = ['cart', 'search']" if second else "")
    error = wrong(policies(first, f"name = 'all'\nnamespaces = ['other', 'shop']\n{second}"))
    assert error.path == "policies[1]"
    assert f"'all' and 'web' both match {what}; narrow one" in error.problem


def test_policies_of_other_workloads_or_namespaces_may_stand_side_by_side() -> None:
    config = parse(
        policies(
            WEB + "workloads = ['cart']",
            "name = 'search'\nnamespaces = ['shop']\nworkloads = ['search']",
            "name = 'other'\nnamespaces = ['other']",
        )
    )
    named = {name: config.policy_for(WorkloadRef(*name.split("/"))) for name in ("shop/cart", "shop/web", "other/x")}
    assert {name: policy and policy.name for name, policy in named.items()} == {
        "shop/cart": "web",
        "shop/web": None,
        "other/x": "other",
    }


SMALLEST_CANARY = """
prometheus.url = "http://prometheus.production:9090"
slack.channel = "#deploys"
[[policies]]
name = "agent-api"
namespaces = ["production"]
stable = "agent-api"
candidate = "agent-api-canary"
mode = "enforce"
[policies.signals.errors]
bad = "agent_errors_total"
total = "agent_requests_total"
"""
SMALLEST_ROLLING = """
prometheus.url = "http://prometheus.monitoring:9090"
[[policies]]
name = "web"
namespaces = ["shop"]
mode = "enforce"
[policies.signals.errors]
bad = 'http_requests_total{code=~"5.."}'
total = "http_requests_total"
"""


@pytest.mark.parametrize("text", [SMALLEST_CANARY, SMALLEST_ROLLING])
def test_the_two_smallest_configurations_work(text: str) -> None:
    policy = parse(text).policies[0]
    assert policy.mode is Mode.ENFORCE
    assert set(policy.signals) == {"errors"}


def with_signal(signal: str, policy: str = WEB) -> str:
    head = 'prometheus.url = "http://p:9090"\n'
    return head + policies(policy) + "\n[policies.signals.errors]\n" + signal


@pytest.mark.parametrize(
    ("text", "path", "cure"),
    [
        (with_signal("bad = 'e'"), "policies[0].signals.errors.total", "errors per second cannot be judged"),
        (with_signal("total = 't'"), "policies[0].signals.errors.bad", "one of the two"),
        (with_signal("total = 't'\nbad = 'e'\ngood = 'g'"), "policies[0].signals.errors.bad", "one of the two"),
        (with_signal("total = 'rate(t[5m])'\nbad = 'e'"), "policies[0].signals.errors.total", "differences itself"),
        (with_signal("total = 't'\nbad = 'e{'"), "policies[0].signals.errors.bad", ""),
        (with_signal("total = 't'\nbad = 'e'\njoin = 'x'"), "policies[0].signals.errors.join", "write join, candidate"),
        (with_signal("total = 't'\nbda = 'e'"), "policies[0].signals.errors.bda", "did you mean 'bad'?"),
        (policies(WEB + "[policies.threshold]\nmax_ratio = 2.0"), "policies[0].threshold.max_ratio", "< 1"),
        (policies(WEB + "[policies.threshold]\nmax_ration = 2.0"), "policies[0].threshold.max_ration", "'max_ratio'?"),
        (policies(WEB + "[policies.signals.e]\ntotal='t'\nbad='b'"), "prometheus.url", "has signals"),
        (policies(WEB + "candidate = 'web-canary'"), "policies[0].stable", "write both"),
        (policies(WEB + "candidate = 'web'\nstable = 'web'"), "policies[0].candidate", "name the other one"),
        (policies(WEB + "candidate = 'a=b,'\nstable = 'web'"), "policies[0].candidate", "no selector"),
        (policies(WEB + "candidate = 'a'\nstable = 'b'\nworkloads = ['c']"), "policies[0].workloads", "does not go"),
        (policies(WEB + "action = 'scale-down'"), "policies[0].action", "write undo or pause"),
        (
            policies(WEB + "evaluations.enabled = true\nsignals.evaluations = {bad = 'b', total = 't'}"),
            "policies[0].signals.evaluations",
            "give this signal another",
        ),
        (policies(WEB + "mode = 'loud'"), "policies[0].mode", "write one of observe, approve, enforce"),
        ("limits.budget = -1", "limits.budget", ">= 0"),
        ("limits.breaker_window = '0s'", "limits.breaker_window", "write more than 0"),
        ("prometheus.url = 'prometheus:9090'", "prometheus.url", "http://"),
        ("prometheus.cert_file = 'x'", "prometheus.cert_file", "write both or neither"),
        ("alertmanager.urls = ['http://a:9093', 'b']", "alertmanager.urls[1]", "no URL"),
        ("server.listen = '8080'", "server.listen", "host:port"),
        ("server.listen = '0.0.0.0:80800'", "server.listen", "host:port"),
        ("server.client_ca_file = 'x'", "server.client_ca_file", "write server.tls_cert_file too"),
        ("server.tls_key_file = 'x'", "server.tls_cert_file", "write both or neither"),
    ],
)
def test_a_mistake_of_the_service_is_named_by_its_place_and_its_cure(text: str, path: str, cure: str) -> None:
    error = wrong(text)
    assert error.path == path
    assert cure in error.problem


def test_a_limit_may_be_off() -> None:
    limits = parse('limits = {budget = 0, cool_down = "0s", breaker = 0, breaker_all = 0}').limits
    assert (limits.budget, float(limits.cool_down), limits.breaker, limits.breaker_all) == (0, 0.0, 0, 0)


def test_what_is_not_toml_is_an_error_of_the_whole_file(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[kubernetes\n")
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/config.toml is not TOML: .*line 1") as caught:
        load(tmp_path / "config.toml")
    assert caught.value.path == ""


def test_a_file_that_is_not_utf_8_is_an_error_of_the_whole_file(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes('# für alle\n[log]\nlevel = "info"\n'.encode("latin-1"))
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/config.toml"):
        load(tmp_path / "config.toml")


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_file_that_cannot_be_read_is_an_error_that_names_it_and_the_option(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(.+\); name another with --config") as caught:
        load(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


# -- which file --------------------------------------------------------------------------------------------------------


def test_the_file_that_is_named_goes_before_the_environment() -> None:
    assert find("named.toml", {ENVIRONMENT: "other.toml"}) == Path("named.toml")


def test_the_environment_goes_before_the_usual_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.toml").touch()
    assert find(None, {ENVIRONMENT: "/somewhere/else.toml"}) == Path("/somewhere/else.toml")
    assert find(None, {ENVIRONMENT: ""}) == Path("config.toml")


def test_the_usual_places_are_etc_and_then_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [str(place) for place in PLACES] == ["/etc/rollback-watchdog/config.toml", "config.toml"]
    monkeypatch.chdir(tmp_path)
    assert find(None, {}) is None
    Path("config.toml").mkdir()
    assert find(None, {}) is None
    Path("config.toml").rmdir()
    Path("config.toml").touch()
    assert find(None, {}) == Path("config.toml")
