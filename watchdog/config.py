"""Configuration: TOML into frozen structs, with errors that name the place and the cure.

Every setting has a default; `config.example.toml` shows them all and a test holds it to this file. A command works
without any configuration file.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import msgspec

from watchdog import selectors
from watchdog.errors import ConfigError
from watchdog.model import Action, Mode
from watchdog.objects import WorkloadRef, is_name

ENVIRONMENT = "ROLLBACK_WATCHDOG_CONFIG"
PLACES = (Path("/etc/rollback-watchdog/config.toml"), Path("config.toml"))

_URL = re.compile(r"(https?://[^\s/?#]+|service://[^\s/]+/[^\s/:]+:[^\s/]+)(/[^\s]*)?")
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[^\s:\[\]]*):[0-9]{1,5}")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_SELECTOR = re.compile(r"\s*[^\s=,!]+=[^\s=,]*(\s*,\s*[^\s=,!]+=[^\s=,]*)*\s*")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_SHORTEST_S = 0.001
_LONGEST_S = 3650 * 86400.0
_MOST = 2**31 - 1


class Seconds(float):
    """A duration; in the file a text such as ``30s``."""


class PauseDuration(float):
    """A duration that may be 0; in the file a text such as ``30s``."""


class LogFormat(StrEnum):
    """How log lines look: `auto` writes JSON, but short text on a terminal."""

    AUTO = "auto"
    JSON = "json"
    TEXT = "text"


class LogLevel(StrEnum):
    """The least important log line that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class GitOps(StrEnum):
    """What to do where a controller follows Git and would put the bad version back."""

    REFUSE = "refuse"
    ACT = "act"


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""


class Kubernetes(_Section, frozen=True):
    """How the API server is spoken to.

    Args:
        request_timeout: deadline of each request, its repetitions included.
        watch_timeout: the server ends a watch after 80 to 100 % of this, and it is opened again.
        watch_inactivity: silence after which a watch counts as dead; more than the 60 s between two bookmarks.
    """

    request_timeout: Seconds = Seconds(10)
    watch_timeout: Seconds = Seconds(300)
    watch_inactivity: Seconds = Seconds(90)


class Rollback(_Section, frozen=True):
    """How long an undo waits.

    Args:
        timeout: how long a command waits until it is complete, the default of `--timeout`; and how long the service
            tries a write again that is refused.
        observed_within: for the controller to see a change that was made just before.
    """

    timeout: Seconds = Seconds(300)
    observed_within: Seconds = Seconds(5)


class Log(_Section, frozen=True):
    """The log on standard error."""

    level: LogLevel = LogLevel.INFO
    format: LogFormat = LogFormat.AUTO


class Access(_Section, frozen=True):
    """How an HTTP server outside the cluster's API is spoken to. Secrets come from files, read anew at each request.

    Args:
        headers: sent with every request, such as `X-Scope-OrgID`.
        bearer_token_file: file with a bearer token.
        username: name for basic authentication.
        password_file: file with its password.
        ca_file: certificates to trust instead of the system's.
        cert_file: client certificate, with `key_file`.
        key_file: its key.
        timeout: deadline of each request, its repetitions included.
    """

    headers: dict[str, str] = {}
    bearer_token_file: str = ""
    username: str = ""
    password_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    timeout: Seconds = Seconds(10)


class Prometheus(Access, frozen=True):
    """Where counters are read.

    Args:
        url: base URL with its path prefix; `service://namespace/name:port` goes through the API server's proxy.
        params: extra query parameters, such as Thanos' `partial_response = "false"`.
        step: the grid; the scrape interval.
        delay: how far behind the grid is asked, so that scrapes are in.
    """

    url: str = ""
    params: dict[str, str] = {}
    step: Seconds = Seconds(15)
    delay: Seconds = Seconds(5)


class Source(StrEnum):
    """Where counters are read."""

    PROMETHEUS = "prometheus"
    PODS = "pods"


class Scheme(StrEnum):
    """How pods are spoken to."""

    HTTP = "http"
    HTTPS = "https"


class Scrape(_Section, frozen=True):
    """How pods are read where `source` is `pods`. Their own `prometheus.io/*` annotations come first.

    Args:
        step: the grid; how often every pod of a watched rollout is read.
        timeout: deadline of each pod.
        port: where metrics are, on pods without `prometheus.io/port`; 0 is the only port that the pod declares.
        path: of metrics, on pods without `prometheus.io/path`.
        scheme: on pods without `prometheus.io/scheme`; certificates are not checked, as pods have none for addresses.
        job: the label `job` that their series get.
        max_pods: with more at once nothing is judged.
        max_bytes: the longest that a pod may answer, unpacked.
        concurrency: so many pods are read at once.
    """

    step: Seconds = Seconds(5)
    timeout: Seconds = Seconds(3)
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    path: str = "/metrics"
    scheme: Scheme = Scheme.HTTP
    job: str = "pods"
    max_pods: Annotated[int, msgspec.Meta(ge=1, le=_MOST)] = 500
    max_bytes: Annotated[int, msgspec.Meta(ge=1024, le=_MOST)] = 16_777_216
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=_MOST)] = 50


class Alertmanager(Access, frozen=True):
    """Where alerts are read anew, since a webhook may be lost.

    Args:
        urls: every peer.
        resync: how often they are asked.
    """

    urls: tuple[str, ...] = ()
    resync: Seconds = Seconds(30)


class Slack(_Section, frozen=True):
    """Where people are told. The token is $SLACK_BOT_TOKEN or in `token_file`.

    Args:
        channel: name or id; empty tells nobody.
        token_file: file with a bot token.
        api_url: base URL of Slack's API.
        timeout: deadline of each call.
    """

    channel: str = ""
    token_file: str = ""
    api_url: str = "https://slack.com/api/"
    timeout: Seconds = Seconds(10)


class Server(_Section, frozen=True):
    """The HTTP server. Without a credential configured a route answers 401; while a file of tokens cannot be read, 503.

    Args:
        listen: address of the API.
        metrics_listen: address of health and metrics, the only open routes.
        alerts_token_files: files with tokens for `POST /alerts`; two at once while they are rotated.
        api_token_files: files with tokens for the other routes, beside tokens that the API server knows.
        tls_cert_file: certificate, with `tls_key_file`.
        tls_key_file: its key.
        client_ca_file: whose client certificates may post alerts.
    """

    listen: str = "0.0.0.0:8080"
    metrics_listen: str = "0.0.0.0:9102"
    alerts_token_files: tuple[str, ...] = ()
    api_token_files: tuple[str, ...] = ()
    tls_cert_file: str = ""
    tls_key_file: str = ""
    client_ca_file: str = ""


class LimitSettings(_Section, frozen=True):
    """What keeps the service from doing too much; 0 is off.

    Args:
        budget: actions per workload and day.
        cool_down: after an action, until the next of the same workload.
        breaker: so many breaches of different images in a namespace, and nobody acts there without a person.
        breaker_all: so many in all namespaces together, and nobody acts anywhere without one.
        breaker_window: how far back they count.
        approval: how long an approval is waited for.
        recovery: how long the signal may take to be healthy again after an action.
    """

    budget: Annotated[int, msgspec.Meta(ge=0, le=_MOST)] = 2
    cool_down: PauseDuration = PauseDuration(1800)
    breaker: Annotated[int, msgspec.Meta(ge=0, le=_MOST)] = 3
    breaker_all: Annotated[int, msgspec.Meta(ge=0, le=_MOST)] = 10
    breaker_window: Seconds = Seconds(600)
    approval: Seconds = Seconds(1800)
    recovery: Seconds = Seconds(300)


class RecordKind(StrEnum):
    """What a record is kept in."""

    CONFIG_MAP = "configmap"
    SECRET = "secret"  # noqa: S105  (a kind of object)


class Records(_Section, frozen=True):
    """Where records are kept.

    Args:
        kind: configmap or secret.
        namespace: empty for the service's own, $POD_NAMESPACE.
    """

    kind: RecordKind = RecordKind.CONFIG_MAP
    namespace: str = ""


class Signal(_Section, frozen=True):
    """Something that counts bad of total.

    Args:
        bad: selector of the failures.
        good: selector of the successes, instead of `bad`.
        total: selector of all of them; never empty.
        join: label that tells the tracks apart, where series carry no pod label.
        candidate: its value on the candidate.
        stable: its value on the stable track.
    """

    total: str = ""
    bad: str = ""
    good: str = ""
    join: str = ""
    candidate: str = ""
    stable: str = ""


class RuleName(StrEnum):
    """How counts are judged."""

    SEQUENTIAL = "sequential"
    THRESHOLD = "threshold"


class Sensitivity(StrEnum):
    """The trade between speed and the blips that are forgiven; the error probability is the same."""

    QUICK = "quick"
    BALANCED = "balanced"
    PATIENT = "patient"


_BLOCKS = {Sensitivity.QUICK: 2, Sensitivity.BALANCED: 4, Sensitivity.PATIENT: 8}
_GRACE_S = {Sensitivity.QUICK: 10.0, Sensitivity.BALANCED: 30.0, Sensitivity.PATIENT: 60.0}
_LONG_STEP_S = 15.0


class Sequential(_Section, frozen=True):
    """The rule `sequential`.

    Args:
        alpha: the probability that a rollout which is not worse is undone; all signals share it.
        blocks: full blocks of evidence that it takes at least, about; without it what `sensitivity` says.
    """

    alpha: Annotated[float, msgspec.Meta(gt=0, lt=0.5)] = 0.01
    blocks: Annotated[int, msgspec.Meta(ge=1, le=_MOST)] | None = None


class Threshold(_Section, frozen=True):
    """The rule `threshold`.

    Args:
        max_ratio: a higher share of failures is a breach.
        max_times_stable: and, where stable pods exist, a higher multiple of theirs.
        window: over which requests are counted.
        consecutive: steps in a row.
        min_requests: fewer in the window say nothing.
        min_bad: fewer failures in the window say nothing.
    """

    max_ratio: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.05
    max_times_stable: Annotated[float, msgspec.Meta(ge=1, le=_MOST)] = 2.0
    window: Seconds = Seconds(60)
    consecutive: Annotated[int, msgspec.Meta(ge=1, le=_MOST)] = 2
    min_requests: Annotated[int, msgspec.Meta(ge=1, le=_MOST)] = 20
    min_bad: Annotated[int, msgspec.Meta(ge=1, le=_MOST)] = 5


class Conditions(_Section, frozen=True):
    """The rule `conditions`.

    Args:
        enabled: whether it holds.
        crash_restarts: so many restarts with an error make a pod one that crashes.
        crash_share: such a share of candidate pods, and at least one, makes a breach.
        image_pull: so long without its image.
    """

    enabled: bool = True
    crash_restarts: Annotated[int, msgspec.Meta(ge=1, le=_MOST)] = 2
    crash_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.2
    image_pull: Seconds = Seconds(120)


class EvaluationSettings(_Section, frozen=True):
    """Evaluations that are posted to `POST /evaluations`, as a signal of that name.

    Args:
        enabled: whether they are taken.
        baseline: the share of them that fails as a rule, for versions with nothing to compare with.
    """

    enabled: bool = False
    baseline: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.01


class Confirm(StrEnum):
    """What an alert needs before it counts as a breach."""

    SIGNAL = "signal"
    TRUST = "trust"


class AlertSettings(_Section, frozen=True):
    """How alerts are taken.

    Args:
        match: labels that stand for this policy's workload, where an alert names no Deployment and no pod.
        confirm: `signal` waits for the policy's own signal; `trust` acts on the alert alone.
        alpha_alert: what `alpha` of the rule `sequential` becomes with an alert that began after the rollout.
    """

    match: dict[str, str] = {}
    confirm: Confirm = Confirm.SIGNAL
    alpha_alert: Annotated[float, msgspec.Meta(gt=0, lt=0.5)] = 0.05


class Policy(_Section, frozen=True):
    """Which workloads, and how they are treated: a `candidate` makes it a canary, a `service` blue-green, else rolling.

    Args:
        name: its name in messages.
        namespaces: where its workloads are.
        workloads: names of Deployments; none means all of those namespaces, except in `kube-*`, where they are named.
        stable: of a canary: name of the stable Deployment, or a selector on pod-template labels.
        candidate: of a canary: name of the candidate Deployment, or a selector.
        service: of blue-green: name of the Service whose selector says which of two workloads is live.
        opt_in: only Deployments that carry the annotation `rollback-watchdog.io/policy: <name>`.
        mode: how far the service may go.
        rule: how counts are judged.
        action: what a breach leads to; a canary's default is `scale-down`, else `undo`; blue-green has `switch-back`.
        gitops: what to do where a GitOps controller manages the workload.
        sensitivity: of the rule `sequential`, and the length of `grace`.
        grace: per candidate pod from Ready: counted, not judged; without it what `sensitivity` says.
        bake: after completion.
        max_watch: the longest a rollout is watched.
        signals: what is judged.
        sequential: the rule `sequential`.
        threshold: the rule `threshold`.
        conditions: the rule `conditions`.
        evaluations: what pipelines post, by the rule `sequential`.
        alerts: how alerts are taken.
    """

    name: str
    namespaces: tuple[str, ...]
    workloads: tuple[str, ...] = ()
    stable: str = ""
    candidate: str = ""
    service: str = ""
    opt_in: bool = False
    mode: Mode = Mode.OBSERVE
    rule: RuleName = RuleName.SEQUENTIAL
    sensitivity: Sensitivity = Sensitivity.BALANCED
    action: Action | None = None
    gitops: GitOps = GitOps.REFUSE
    grace: PauseDuration | None = None
    bake: Seconds = Seconds(900)
    max_watch: Seconds = Seconds(7200)
    signals: dict[str, Signal] = {}
    sequential: Sequential = Sequential()
    threshold: Threshold = Threshold()
    conditions: Conditions = Conditions()
    evaluations: EvaluationSettings = EvaluationSettings()
    alerts: AlertSettings = AlertSettings()

    @property
    def grace_s(self) -> float:
        """Seconds from Ready for which a candidate pod is not judged."""
        return _GRACE_S[self.sensitivity] if self.grace is None else float(self.grace)

    def blocks(self, step_s: float) -> int:
        """How many full blocks of evidence the rule `sequential` takes at least, on a grid."""
        if self.sequential.blocks is not None:
            return self.sequential.blocks
        return _BLOCKS[self.sensitivity] * (1 if step_s >= _LONG_STEP_S else 2)

    @property
    def judged(self) -> int:
        """Among how many signals `alpha` is shared."""
        return len(self.signals) + self.evaluations.enabled

    @property
    def selects(self) -> bool:
        """Whether a track is found by a selector, and so cannot be known by name."""
        return "=" in self.stable or "=" in self.candidate

    @property
    def named(self) -> tuple[str, ...] | None:
        """The workloads that are named; None where all are meant that there are."""
        if self.candidate:
            return tuple(name for name in (self.stable, self.candidate) if "=" not in name)
        return self.workloads or None

    def matches(self, ref: WorkloadRef) -> bool:
        """Whether this policy is about a workload, as far as its name tells."""
        return ref.namespace in self.namespaces and (self.named is None or ref.name in self.named)


class Config(_Section, frozen=True):
    """The whole file."""

    source: Source = Source.PROMETHEUS
    kubernetes: Kubernetes = Kubernetes()
    prometheus: Prometheus = Prometheus()
    scrape: Scrape = Scrape()
    alertmanager: Alertmanager = Alertmanager()
    slack: Slack = Slack()
    server: Server = Server()
    limits: LimitSettings = LimitSettings()
    records: Records = Records()
    rollback: Rollback = Rollback()
    log: Log = Log()
    policies: tuple[Policy, ...] = ()

    @property
    def step_s(self) -> float:
        """The grid of judging, in seconds."""
        return float(self.scrape.step if self.source is Source.PODS else self.prometheus.step)

    @property
    def read_s(self) -> float:
        """How long counters may take to be read at a step, in seconds."""
        return float(self.scrape.step if self.source is Source.PODS else self.prometheus.timeout)

    def policy_for(self, ref: WorkloadRef) -> Policy | None:
        """The first policy that may be about a workload, by name."""
        return next((policy for policy in self.policies if policy.matches(ref)), None)


def find(named: str | None, environment: Mapping[str, str] = os.environ) -> Path | None:
    """The file to read: the one named, else that of the environment, else the first that exists; None for none."""
    if named or environment.get(ENVIRONMENT):
        return Path(named or environment[ENVIRONMENT])
    return next((place for place in PLACES if place.is_file()), None)


def load(path: Path | None) -> Config:
    """Read and check a file; None gives the defaults.

    Raises:
        ConfigError: with the TOML path of the setting and what to write instead.
    """
    if path is None:
        return Config()
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError("", f"{path} cannot be read ({error.strerror}); name another with --config") from error
    except UnicodeDecodeError as error:
        raise ConfigError("", f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    return parse(text, source=str(path))


def parse(text: str, *, source: str = "configuration") -> Config:
    """Check the text of a file. Raises as `load` does."""
    try:
        raw = tomllib.loads(text)
    except RecursionError:
        raise ConfigError("", f"{source} is nested too deeply; write it as in config.example.toml") from None
    except ValueError as error:  # of numbers that Python does not read, too
        raise ConfigError("", f"{source} is not TOML: {error}; write it as in config.example.toml") from error
    _refuse_unknown(raw, Config, "")
    try:
        config = msgspec.convert(raw, Config, dec_hook=_decode)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$")
        raise _cured(problem, place.strip(".`")) from error
    _check(config)
    return config


def duration(text: object, *, zero: bool = False) -> Seconds:
    """Read a duration such as ``30s``, ``1m30s`` or ``7d``; 0 only where `zero` says so.

    Raises:
        ValueError: with the cure.
    """
    if not isinstance(text, str) or not _DURATION.fullmatch(text.replace(" ", "")):
        raise ValueError(f'{text!r} is not a duration; write a number with ms, s, m, h or d, such as "30s" or "1m30s"')
    found = sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(text.replace(" ", "")))
    if found <= 0 and not zero:
        raise ValueError(f"{text!r} is no time at all; write more than 0")
    if not (found == 0 or _SHORTEST_S <= found <= _LONGEST_S):
        raise ValueError(f'{text[:40]!r} is out of range; write a time from "1ms" to "3650d"')
    return Seconds(found)


def _decode(kind: type, value: object) -> object:
    if kind is Seconds:
        return duration(value)
    if kind is PauseDuration:
        return PauseDuration(duration(value, zero=True))
    raise NotImplementedError


def _cured(problem: str, path: str) -> ConfigError:
    """Say what to write instead, in TOML's words."""
    kind: Any = Config
    for key in re.findall(r"[a-z_]+|\.\.\.", path):
        kind = _inner(kind, key)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        problem = f"write one of {', '.join(kind)}"
    if path == "policies" and problem.startswith("Expected"):
        problem = "write each policy as a table [[policies]]"
    problem = problem.replace("Object missing required field", "missing; write the setting")
    for ours, theirs in (("a table", "`object`"), ("a list", "`array`"), ("a text", "`str`"), ("a number", "`int`")):
        problem = problem.replace(theirs, ours)
    return ConfigError(path, problem)


def _inner(kind: Any, key: str) -> Any:
    """The type of a key of a table; of whatever stands in it, where it is a list, a map or optional."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        kind = next((field.type for field in msgspec.structs.fields(kind) if field.encode_name == key), None)
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    arguments = [part for part in get_args(kind) if part not in (str, type(None), Ellipsis)]
    return arguments[0] if arguments else kind


def _refuse_unknown(raw: Mapping[str, Any], section: Any, path: str) -> None:
    """Unknown keys are errors with the nearest known name, before anything else is looked at."""
    fields = [field.encode_name for field in msgspec.structs.fields(section)]
    for key, value in raw.items():
        here = f"{path}.{key}" if path else key
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(fields)}"
            raise ConfigError(here, f"unknown setting; {hint}")
        inner = _inner(section, key)
        if not (isinstance(inner, type) and issubclass(inner, msgspec.Struct)):
            continue
        if key == "signals" and isinstance(value, dict):
            for name, item in value.items():
                if isinstance(item, dict):
                    _refuse_unknown(item, inner, f"{here}.{name}")
        elif isinstance(value, dict):
            _refuse_unknown(value, inner, here)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, dict):
                    _refuse_unknown(item, inner, f"{here}[{index}]")


def _check(config: Config) -> None:
    """What the types do not say."""
    if config.kubernetes.watch_inactivity <= 60:
        problem = 'bookmarks come every 60 s; a shorter limit would drop watches that live: write more than "60s"'
        raise ConfigError("kubernetes.watch_inactivity", problem)
    for path, url in (
        ("prometheus.url", config.prometheus.url),
        *((f"alertmanager.urls[{index}]", url) for index, url in enumerate(config.alertmanager.urls)),
        ("slack.api_url", config.slack.api_url),
    ):
        if url and not _URL.fullmatch(url):
            raise ConfigError(path, f"{url!r} is no URL; write http://…, https://… or service://namespace/name:port")
    for path, access, urls in (
        ("prometheus", config.prometheus, (config.prometheus.url,)),
        ("alertmanager", config.alertmanager, config.alertmanager.urls),
    ):
        if any(url.startswith("service://") for url in urls) and (
            access.headers or access.bearer_token_file or access.username
        ):
            problem = "is not sent through the API server's proxy, which service:// uses; write an http:// URL"
            raise ConfigError(f"{path}.headers", problem)
        for one, other in (("cert_file", "key_file"), ("username", "password_file")):
            if bool(getattr(access, one)) != bool(getattr(access, other)):
                raise ConfigError(f"{path}.{one}", f"goes with {path}.{other}; write both or neither")
    if bool(config.server.tls_cert_file) != bool(config.server.tls_key_file):
        raise ConfigError("server.tls_cert_file", "goes with server.tls_key_file; write both or neither")
    if config.server.client_ca_file and not config.server.tls_cert_file:
        raise ConfigError("server.client_ca_file", "client certificates need TLS; write server.tls_cert_file too")
    for path, address in (("listen", config.server.listen), ("metrics_listen", config.server.metrics_listen)):
        if not _ADDRESS.fullmatch(address) or int(address.rpartition(":")[2]) > 65535:
            raise ConfigError(f"server.{path}", f'{address!r} is no address; write host:port, such as "0.0.0.0:8080"')
    if config.scrape.timeout >= config.scrape.step:
        raise ConfigError(
            "scrape.timeout", "a pod must have answered before the next step: write less than scrape.step"
        )
    if not config.scrape.path.startswith("/"):
        raise ConfigError("scrape.path", f'{config.scrape.path!r} is no path; write one such as "/metrics"')
    if not config.scrape.job:
        raise ConfigError("scrape.job", "is empty; write what the label job shall be")
    for index, policy in enumerate(config.policies):
        path = f"policies[{index}]"
        _check_policy(policy, path)
        if policy.signals and config.source is Source.PROMETHEUS and not config.prometheus.url:
            problem = f'missing; {path} has signals, and Prometheus is where they are read, or write source = "pods"'
            raise ConfigError("prometheus.url", problem)
        if config.source is Source.PODS:
            for name, signal in policy.signals.items():
                _check_read_here(signal, f"{path}.signals.{name}")
        for earlier in config.policies[:index]:
            _check_apart(policy, earlier, path)


def _check_policy(policy: Policy, path: str) -> None:
    if not policy.name:
        raise ConfigError(f"{path}.name", "is empty; give the policy a name")
    if not policy.namespaces:
        raise ConfigError(f"{path}.namespaces", "is empty; name at least one namespace")
    tracks = tuple(name for name in (policy.stable, policy.candidate) if name)
    if len(tracks) == 1:
        missing = "stable" if policy.candidate else "candidate"
        raise ConfigError(f"{path}.{missing}", "missing; a canary has a candidate and a stable Deployment: write both")
    if tracks and policy.workloads:
        raise ConfigError(f"{path}.workloads", "does not go with candidate and stable, which name the workloads")
    if tracks and policy.stable == policy.candidate:
        raise ConfigError(f"{path}.candidate", "is the stable Deployment; name the other one")
    _check_service(policy, path)
    by_name = tuple(name for name in tracks if "=" not in name)
    for key, text in (("stable", policy.stable), ("candidate", policy.candidate)):
        if "=" in text and not _SELECTOR.fullmatch(text):
            problem = f'{text!r} is no selector; write labels of the pod template, such as "app=web,track=stable"'
            raise ConfigError(f"{path}.{key}", problem)
    for key, names in (("namespaces", policy.namespaces), ("workloads", policy.workloads), ("stable", by_name)):
        for name in names:
            if not is_name(name):
                raise ConfigError(f"{path}.{key}", f"{name!r} is not a name that Kubernetes allows")
            if key == "namespaces" and name.startswith("kube-") and not (policy.workloads or by_name):
                problem = f"{name} belongs to the cluster; name the Deployments you mean with workloads = [...]"
                raise ConfigError(f"{path}.{key}", problem)
    if policy.action is Action.SCALE_DOWN and not policy.candidate:
        problem = (
            "scale-down would take every pod of a Deployment that has no stable one beside it: write undo or pause"
        )
        raise ConfigError(f"{path}.action", problem)
    if policy.evaluations.enabled and "evaluations" in policy.signals:
        problem = "is the name of the evaluations that are posted: give this signal another"
        raise ConfigError(f"{path}.signals.evaluations", problem)
    for name, signal in policy.signals.items():
        _check_signal(signal, f"{path}.signals.{name}")


def _check_service(policy: Policy, path: str) -> None:
    """What a blue-green policy needs, and what goes with no other."""
    if not policy.service:
        if policy.action is Action.SWITCH_BACK:
            problem = "switch-back needs the Service that is switched: write service, or another action"
            raise ConfigError(f"{path}.action", problem)
        return
    if policy.candidate or policy.stable:
        raise ConfigError(f"{path}.service", "does not go with candidate and stable: blue-green is no canary")
    if not is_name(policy.service):
        raise ConfigError(f"{path}.service", f"{policy.service!r} is not a name that Kubernetes allows")
    if len(set(policy.workloads)) != 2 or len(policy.workloads) != 2:
        problem = 'blue-green has two colours; name both Deployments, such as ["agent-blue", "agent-green"]'
        raise ConfigError(f"{path}.workloads", problem)
    if policy.action not in (None, Action.SWITCH_BACK):
        raise ConfigError(
            f"{path}.action", "a blue-green policy only switches back: write switch-back, or leave it out"
        )


def _check_signal(signal: Signal, path: str) -> None:
    if not signal.total:
        problem = "missing; errors per second cannot be judged, so write the selector of all requests"
        raise ConfigError(f"{path}.total", problem)
    if bool(signal.bad) == bool(signal.good):
        raise ConfigError(f"{path}.bad", "write either bad (what failed) or good (what succeeded), one of the two")
    for key, text in (("bad", signal.bad), ("good", signal.good), ("total", signal.total)):
        if text:
            try:
                selectors.parse(text)
            except ValueError as error:
                raise ConfigError(f"{path}.{key}", str(error)) from error
    if bool(signal.join) != bool(signal.candidate and signal.stable):
        problem = "join needs the values of that label: write join, candidate and stable, or none of them"
        raise ConfigError(f"{path}.join", problem)
    if signal.join and not _LABEL.fullmatch(signal.join):
        raise ConfigError(f"{path}.join", f"{signal.join!r} is no label name")


def _check_read_here(signal: Signal, path: str) -> None:
    """Whether the selectors can be evaluated without Prometheus."""
    for key, text in (("bad", signal.bad), ("good", signal.good), ("total", signal.total)):
        if text:
            try:
                selectors.tester(selectors.parse(text))
            except ValueError as error:
                raise ConfigError(f"{path}.{key}", str(error)) from error


def _check_apart(policy: Policy, other: Policy, path: str) -> None:
    """No workload may match two policies, as far as names tell; the rest shows when Deployments are seen."""
    if policy.name == other.name:
        raise ConfigError(f"{path}.name", f"{policy.name!r} is the name of two policies; rename one")
    shared = set(policy.namespaces) & set(other.namespaces)
    if policy.opt_in or other.opt_in or not shared:
        return  # the annotation names one policy, or they never meet
    names, others = policy.named, other.named
    both = set(names or ()) & set(others or ())
    if both or (names is None and not other.selects) or (others is None and not policy.selects):
        what = f"{min(shared)}/{min(both) if both else '*'}"
        problem = f"{policy.name!r} and {other.name!r} both match {what}; narrow one of them with workloads = [...]"
        raise ConfigError(path, problem)
